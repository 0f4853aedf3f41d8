//! A command that ran: what it wrote, how it ended, and assertions that show all of it on failure.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// No command of a test takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// How long after its end a command's stdout and stderr must be closed: a process it left behind
/// may not hold them, or a caller that reads to the end would hang.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// What a command did.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    command: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Output {
    /// Runs the command to its end, with `input` on stdin (none is /dev/null).
    pub(crate) fn of(mut command: Command, shown: String, input: Option<&[u8]>) -> Self {
        command
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("`{shown}` does not start: {e}"));
        if let (Some(bytes), Some(mut stdin)) = (input, child.stdin.take()) {
            let bytes = bytes.to_vec();
            // A command may exit without reading all: EPIPE is its own business.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        let status = wait(&mut child, &shown);
        let closed = |stream: mpsc::Receiver<Vec<u8>>, name: &str| {
            stream.recv_timeout(CLOSE_LIMIT).unwrap_or_else(|_| {
                panic!("`{shown}` ended with {status}, but something holds its {name} open")
            })
        };
        let stderr = closed(stderr, "stderr");
        let stdout = closed(stdout, "stdout");
        Self { command: shown, status, stdout, stderr }
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Self {
        self.code(0)
    }

    /// Asserts this exit code.
    #[track_caller]
    pub(crate) fn code(&self, want: i32) -> &Self {
        assert_eq!(self.status.code(), Some(want), "exit code of {self}");
        self
    }

    /// The exit code, if it was not a signal.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        self.status.code()
    }

    /// stdout as it is.
    pub(crate) fn stdout_bytes(&self) -> &[u8] {
        &self.stdout
    }

    /// stdout as text.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// stderr as text.
    pub(crate) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// stdout as one JSON value.
    #[track_caller]
    pub(crate) fn stdout_json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|e| panic!("stdout: {e}: {self}"))
    }

    /// stderr as one JSON value.
    #[track_caller]
    pub(crate) fn stderr_json(&self) -> Value {
        serde_json::from_slice(&self.stderr).unwrap_or_else(|e| panic!("stderr: {e}: {self}"))
    }

    /// Asserts the contract's error form under `--json`: the exit code, nothing on stdout, and one
    /// object with `code` (this one), `message`, `hint` and `causes` on stderr. Gives the object.
    #[track_caller]
    pub(crate) fn error(&self, exit: i32, code: &str) -> Value {
        self.code(exit);
        assert_eq!(self.stdout(), "", "stdout carries data only: {self}");
        let error = self.stderr_json();
        let keys: Vec<&str> =
            error.as_object().into_iter().flat_map(|o| o.keys().map(String::as_str)).collect();
        assert_eq!(keys, ["causes", "code", "hint", "message"], "{self}");
        assert_eq!(error["code"], code, "{self}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "message: {self}");
        assert!(error["hint"].is_string() || error["hint"].is_null(), "hint: {self}");
        let texts = |causes: &Vec<Value>| causes.iter().all(Value::is_string);
        assert!(error["causes"].as_array().is_some_and(texts), "causes: {self}");
        error
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}`: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.status,
            self.stdout(),
            self.stderr()
        )
    }
}

/// Reads to the end on a thread of its own, so that neither stream blocks the other.
fn collect(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A read error ends the stream as its end does; the receiver may be gone after a panic.
        drop(stream.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    receiver
}

/// Waits for the child; kills it and fails the test after [`LIMIT`].
fn wait(child: &mut Child, shown: &str) -> ExitStatus {
    let deadline = Instant::now() + LIMIT;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("`{shown}` took longer than {LIMIT:?}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
