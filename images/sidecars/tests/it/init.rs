//! `sidecars init -- CMD`.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::common::{Running, send, sidecars};

fn init(command: &[&str]) -> Command {
    let mut program = sidecars();
    program.args(["init", "--"]).args(command);
    program
}

#[test]
fn exit_codes() {
    for (command, want) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -KILL $$"], 137),
        (&["sh", "-c", "kill -36 $$"], 164),
        (&["/does/not/exist"], 127),
        (&["/dev/null"], 126),
    ] {
        let (status, lines) = Running::start(init(command)).wait();
        assert_eq!(status.code(), Some(want), "{command:?}: {lines:?}");
    }
    let mut nothing = sidecars();
    nothing.args(["init", "--"]);
    assert_eq!(Running::start(nothing).wait().0.code(), Some(2));
}

/// What comes before the shell has set its traps would end it, so it says when it is ready.
#[test]
fn signals_are_forwarded() {
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR2, "USR2"),
        (Signal::SIGWINCH, "WINCH"),
    ] {
        let script = format!(
            "trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
        );
        let mut running = Running::start(init(&["sh", "-c", &script]));
        running.line("ready");
        send(running.pid(), signal);
        running.line(&format!("got {name}"));
        assert_eq!(running.wait().0.code(), Some(5));
    }
}

#[test]
fn the_program_starts_with_no_signal_blocked() {
    let mut running = Running::start(init(&["grep", "^SigBlk", "/proc/self/status"]));
    assert_eq!(running.line("SigBlk:").1.trim(), "0000000000000000");
    assert_eq!(running.wait().0.code(), Some(0));
}

/// Ignored signals stay ignored over exec; with SIGCHLD ignored no child could be waited for.
#[test]
fn a_caller_that_ignores_sigchld_changes_nothing() {
    let mut env = Command::new("env");
    env.args(["--ignore-signal=CHLD", env!("CARGO_BIN_EXE_sidecars")]);
    env.args(["init", "--", "sh", "-c", "exit 6"]);
    assert_eq!(env.status().expect("run").code(), Some(6));
}
