//! A bundle from outside: its lines, its ports, its signals and its exit code.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::{From, Running, send, sidecars};

const TIMEOUT: Duration = Duration::from_secs(20);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT).expect("connect");
    stream.set_read_timeout(Some(TIMEOUT)).expect("timeout");
    stream
}

/// Sends `request`, and reads until the other side closes.
fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    stream.write_all(request).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    answer
}

fn states(health: SocketAddr) -> String {
    let answer = ask(health, b"GET / HTTP/1.1\r\nHost: bundle\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    assert!(head.contains("\r\nConnection: close"), "{head}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    body.trim_end().to_owned()
}

fn echoes(address: SocketAddr, text: &[u8]) {
    let mut stream = connect(address);
    stream.write_all(text).expect("send");
    stream.shutdown(Shutdown::Write).expect("end");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read");
    assert!(back == text);
}

fn stop(bundle: Running) -> (Option<i32>, Vec<(From, String)>) {
    send(bundle.pid(), Signal::SIGTERM);
    let (status, lines) = bundle.wait();
    (status.code(), lines)
}

#[test]
fn without_a_list_all_daemons_run() {
    let mut bundle = Running::start(sidecars());
    let (health, echo) = (bundle.address("health"), bundle.address("echo"));
    let want = r#"{"slug":"test-1","daemons":{"health":"running","echo":"running"}}"#;
    assert_eq!(states(health), want);
    echoes(echo, b"hello");

    let (code, lines) = stop(bundle);
    assert_eq!(code, Some(0));
    for end in ["health: exited 0", "echo: exited 0", "stopped"] {
        assert!(lines.contains(&(From::Stderr, format!("[sidecars] {end}"))), "{lines:#?}");
    }
    // Every line has a prefix, and only what the daemons wrote to stdout is on stdout.
    assert!(lines.iter().all(|(_, line)| line.starts_with('[')), "{lines:#?}");
    let stdout = lines.iter().filter(|(from, _)| *from == From::Stdout).count();
    assert_eq!(stdout, 2, "{lines:#?}");
}

#[test]
fn an_empty_list_idles_until_told_to_stop() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut bundle = Running::bundle("");
        bundle.line("[sidecars] no daemons selected");
        send(bundle.pid(), Signal::SIGHUP);
        send(bundle.pid(), signal);
        let (status, lines) = bundle.wait();
        assert_eq!(status.code(), Some(0), "{lines:#?}");
    }
}

#[test]
fn an_unknown_name_starts_nothing() {
    let (status, lines) = Running::bundle("echo,ecko").wait();
    assert_eq!(status.code(), Some(2));
    let [(From::Stderr, line)] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(line.contains("\"ecko\"") && line.contains("health, echo"), "{line}");
}

#[test]
fn a_daemon_that_dies_is_told_and_the_others_live_on() {
    let mut bundle = Running::bundle("health,echo");
    let (health, echo) = (bundle.address("health"), bundle.address("echo"));
    send(bundle.daemon_pid("echo"), Signal::SIGKILL);
    let (from, _) = bundle.line("[sidecars] echo: signal 9");
    assert_eq!(from, From::Stderr);
    // The line and the news for the health daemon leave at about the same time.
    let want = r#"{"slug":"test-1","daemons":{"health":"running","echo":"signal 9"}}"#;
    let deadline = Instant::now() + TIMEOUT;
    while states(health) != want {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(TcpStream::connect(echo).is_err(), "the port of a dead daemon is closed");
    assert_eq!(stop(bundle).0, Some(0));

    let mut bundle = Running::bundle("health,echo");
    let echo = bundle.address("echo");
    send(bundle.daemon_pid("health"), Signal::SIGKILL);
    bundle.line("[sidecars] health: signal 9");
    echoes(echo, b"still here");
    assert_eq!(stop(bundle).0, Some(0));
}

#[test]
fn a_daemon_that_cannot_start_is_told() {
    let mut command = sidecars();
    command.env("SIDECARS_ECHO_LISTEN", "nowhere");
    let mut bundle = Running::start(command);
    let (from, reason) = bundle.line("[echo] ");
    assert_eq!(from, From::Stderr);
    assert!(reason.contains("SIDECARS_ECHO_LISTEN") && reason.contains("nowhere"), "{reason}");
    bundle.line("[sidecars] echo: exited 1");
    bundle.address("health");
    assert_eq!(stop(bundle).0, Some(0));
}

#[test]
fn sighup_reaches_the_daemons() {
    let mut bundle = Running::bundle("echo");
    // At once: a signal that comes before the daemon is ready must not be lost, nor end it.
    bundle.daemon_pid("echo");
    send(bundle.pid(), Signal::SIGHUP);
    send(bundle.pid(), Signal::SIGUSR1);
    let (from, _) = bundle.line("[echo] reload");
    assert_eq!(from, From::Stderr);
    echoes(bundle.address("echo"), b"alive");
    assert_eq!(stop(bundle).0, Some(0));
}

/// A stopped process does not act on SIGTERM. Takes the 8 s of grace.
#[test]
fn a_daemon_that_does_not_stop_is_killed() {
    let mut bundle = Running::bundle("health,echo");
    bundle.address("health");
    bundle.address("echo");
    send(bundle.daemon_pid("echo"), Signal::SIGSTOP);
    let start = Instant::now();
    let (code, lines) = stop(bundle);
    assert_eq!(code, Some(1));
    assert!(start.elapsed() >= Duration::from_secs(8));
    for line in ["health: exited 0", "not stopped within 8 s, killed: echo", "echo: signal 9"] {
        assert!(lines.contains(&(From::Stderr, format!("[sidecars] {line}"))), "{lines:#?}");
    }
}

#[test]
fn daemons_end_with_a_supervisor_that_is_killed() {
    let mut bundle = Running::bundle("echo");
    bundle.address("echo");
    let pid = bundle.daemon_pid("echo");
    send(bundle.pid(), Signal::SIGKILL);
    let (status, _) = bundle.wait();
    assert_eq!(status.signal(), Some(9));
    // The kernel kills it a moment after its parent.
    let deadline = Instant::now() + TIMEOUT;
    let command = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    while command().starts_with(b"sidecars\0daemon") {
        assert!(Instant::now() < deadline, "{pid} is still there");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn health_answers_odd_clients() {
    let mut bundle = Running::bundle("health");
    let health = bundle.address("health");
    // More silent ones than it serves at once do not keep it from answering the next, in the end.
    let silent: Vec<TcpStream> = (0..20).map(|_| connect(health)).collect();

    let answer = ask(health, b"POST /x HTTP/1.1\r\nContent-Length: 9\r\n\r\nsome body");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = ask(health, b"HEAD / HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = ask(health, &[b'x'; 9000]);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let mut half = connect(health);
    half.write_all(b"GET /").expect("send");
    half.shutdown(Shutdown::Write).expect("end");
    let mut answer = String::new();
    half.read_to_string(&mut answer).expect("read");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    drop(silent);
    assert_eq!(stop(bundle).0, Some(0));
}

#[test]
fn echo_serves_several_and_much() {
    let mut bundle = Running::bundle("echo");
    let echo = bundle.address("echo");
    let mut idle = connect(echo);
    let clients: Vec<_> = (0..8u8)
        .map(|n| {
            thread::spawn(move || {
                let mut sender = connect(echo);
                let mut reader = sender.try_clone().expect("clone");
                let reading = thread::spawn(move || {
                    let mut back = Vec::new();
                    reader.read_to_end(&mut back).map(|_| back)
                });
                sender.write_all(&vec![n; 1 << 20]).expect("send");
                sender.shutdown(Shutdown::Write).expect("end");
                let back = reading.join().expect("no panic").expect("read");
                assert!(back == vec![n; 1 << 20]);
            })
        })
        .collect();
    for client in clients {
        client.join().expect("a client");
    }
    idle.write_all(b"x").expect("send");
    let mut back = [0];
    idle.read_exact(&mut back).expect("read");
    assert_eq!(&back, b"x");
    assert_eq!(stop(bundle).0, Some(0));
}

/// The log's reader hangs: the bundle still answers its clients and its signals.
#[test]
fn a_bundle_works_with_a_full_log() {
    let (_reader, mut log) = io::pipe().expect("a pipe");
    // What a pipe holds (pipe(7)): the next byte would have to wait.
    log.write_all(&[b'x'; 64 * 1024]).expect("fill");
    let mut command = sidecars();
    command.stderr(log);
    let mut bundle = Running::start(command);
    let (health, echo) = (bundle.address("health"), bundle.address("echo"));
    states(health);
    echoes(echo, b"hello");
    let (code, lines) = stop(bundle);
    assert_eq!(code, Some(0), "{lines:#?}");
}
