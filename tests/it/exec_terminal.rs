//! `exec -t`: a terminal of the bundle's own, and the caller's put back whatever happens.

use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::termios::Termios;

use crate::common::bottle::{down, load, up};
use crate::common::pty::OnTerminal;
use crate::common::{TestHost, images, poll};

fn host_with_bottle() -> TestHost {
    let host = TestHost::new();
    load(&host, &images::busybox());
    up(&host, &["demo", "--image", "test-busybox"]);
    host
}

/// A shell of the bundle, at its prompt.
fn shell(host: &TestHost, flags: &[&str]) -> (OnTerminal, Termios) {
    let arguments = [&["exec", "-it"], flags, &["demo", "--", "sh"]].concat();
    let mut terminal = host.carboy_on_terminal(&arguments, (30, 100));
    let before = terminal.settings();
    terminal.expect("# ");
    terminal.await_raw();
    (terminal, before)
}

#[track_caller]
fn assert_restored(terminal: &OnTerminal, before: &Termios) {
    let now = terminal.settings();
    assert_eq!(now.input_modes, before.input_modes);
    assert_eq!(now.output_modes, before.output_modes);
    assert_eq!(now.control_modes, before.control_modes);
    assert_eq!(now.local_modes, before.local_modes);
}

/// Whether a process with these words in its command line runs in the bundle.
fn runs(host: &TestHost, words: &str) -> bool {
    host.carboy(&["exec", "demo", "--", "ps"]).ok().stdout().contains(words)
}

#[test]
fn a_command_has_a_terminal_of_the_callers_size() {
    let host = host_with_bottle();
    let (mut terminal, before) = shell(&host, &[]);
    terminal.type_in("busybox tty; echo $TERM; busybox stty size\n");
    terminal.expect("/dev/pts/0\r\nxterm\r\n30 100\r\n");
    terminal.resize(41, 123);
    // The change is on its way: the question is asked until the answer is there.
    terminal.type_in("until busybox stty size | grep '41 123'; do sleep 0.1; done\n");
    terminal.expect("\r\n41 123\r\n");
    // A key's signal reaches what runs, not carboy.
    terminal.type_in("sleep 1000\n");
    assert!(poll(Duration::from_secs(10), || runs(&host, "sleep 1000")));
    terminal.expect("sleep 1000\r\n");
    terminal.type_in("\x03");
    terminal.expect("# ");
    terminal.type_in("exit 7\n");
    assert_eq!(terminal.wait(), Some(7));
    assert_restored(&terminal, &before);
    down(&host, "demo");
}

#[test]
fn a_terminal_is_the_users() {
    let host = host_with_bottle();
    let arguments = ["exec", "-t", "-u", "web", "demo", "--", "sh", "-c"];
    let script = "echo one >/dev/stdout; echo two >/dev/tty; stat -c %u $(busybox tty)";
    let output = host.carboy(&[&arguments[..], &[script]].concat());
    assert_eq!(output.ok().stdout(), "one\r\ntwo\r\n1000\r\n");
    down(&host, "demo");
}

#[test]
fn the_callers_terminal_is_put_back_however_it_ends() {
    let host = host_with_bottle();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let (mut terminal, before) = shell(&host, &[]);
        terminal.type_in("sleep 4321\n");
        assert!(poll(Duration::from_secs(10), || runs(&host, "sleep 4321")));
        terminal.signal(signal);
        assert_eq!(terminal.wait(), Some(128 + signal as i32));
        assert_restored(&terminal, &before);
        assert!(poll(Duration::from_secs(10), || !runs(&host, "sleep 4321")), "{signal}");
    }
    // The command is killed, or cannot be run.
    let (mut terminal, before) = shell(&host, &[]);
    terminal.type_in("kill -9 $$\n");
    assert_eq!(terminal.wait(), Some(128 + 9));
    assert_restored(&terminal, &before);
    let arguments = ["exec", "-it", "demo", "--", "no-such-program"];
    let mut terminal = host.carboy_on_terminal(&arguments, (24, 80));
    assert_eq!(terminal.wait(), Some(127));
    assert_restored(&terminal, &before);
    down(&host, "demo");
}

#[test]
fn the_detach_keys_leave_the_command_to_itself() {
    let host = host_with_bottle();
    let cases = [(&[][..], "\x10\x11", "777"), (&["--detach-keys", "ctrl-x,y"], "\x18y", "778")];
    for (flags, keys, seconds) in cases {
        let (mut terminal, before) = shell(&host, flags);
        terminal.type_in(&format!("echo he{}llo; sleep {seconds}\n", &keys[..1]));
        terminal.expect("llo\r\n");
        terminal.type_in(keys);
        assert_eq!(terminal.wait(), Some(0));
        assert_restored(&terminal, &before);
        assert!(runs(&host, &format!("sleep {seconds}")), "it goes on");
    }
    // It ends with the bundle, and its helper with it.
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn a_terminal_is_asked_for_only_where_there_is_one() {
    let host = host_with_bottle();
    let arguments = ["--json", "exec", "-it", "demo", "--", "true"];
    host.carboy(&arguments).error(125, "usage");
    host.carboy(&["--json", "exec", "--detach-keys", "ctrl-", "demo", "--", "true"])
        .error(125, "usage");
    down(&host, "demo");
}
