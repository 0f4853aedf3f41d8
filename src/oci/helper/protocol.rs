//! What is said between the library and its helper processes: JSON values, a line each.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind, with_causes};
use crate::oci::feed::Feed;
use crate::oci::spec::Container;
use crate::oci::status::Started;

/// Writes a value as one line. A line, not everything up to the end of the file: a program that
/// embeds the library may fork in between, and its child would hold the pipe open.
pub(crate) fn send(pipe: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    pipe.write_all(&bytes)?;
    pipe.flush()
}

/// Reads one line; `None` if the other side closed its end before, or said something else.
pub(crate) fn receive<T: DeserializeOwned>(pipe: &mut impl BufRead) -> Option<T> {
    let mut line = Vec::new();
    pipe.read_until(b'\n', &mut line).ok()?;
    serde_json::from_slice(line.strip_suffix(b"\n")?).ok()
}

/// `argv[0]` of a monitor.
pub(crate) const MONITOR_NAME: &str = "carboy-monitor";
/// `argv[0]` of a helper that runs a command in a container.
pub(crate) const EXEC_NAME: &str = "carboy-exec";
/// The descriptor an exec helper reads its request from, and then what it is told meanwhile.
pub(crate) const REQUEST_FD: i32 = 3;
/// The descriptor an exec helper writes its report to.
pub(crate) const REPORT_FD: i32 = 4;

/// What a container gets from the host as it is at the start; no part of what was asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    /// The content of its `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
    /// What is kept beside its log.
    pub(crate) feed: Option<Feed>,
}

/// What a monitor is to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    /// The container.
    pub(crate) container: Container,
    /// What it gets from the host.
    pub(crate) surroundings: Surroundings,
    /// Which start this is: the container's directory must be for the same.
    pub(crate) start_id: String,
    /// The contents of the container's secrets, in their order and in base64: they are no part of
    /// the container where it is written down.
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
}

/// What a monitor is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// Start a container, and watch it.
    Start(Box<StartRequest>),
    /// Go on with the container whose monitor was killed.
    TakeOver {
        /// Its directory on tmpfs.
        state: PathBuf,
    },
}

/// What a command in a running container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=VALUE`, over the container's own environment.
    pub env: Vec<String>,
    /// The working directory inside; the container's own unless given.
    pub cwd: Option<String>,
    /// The user inside; the container's own unless given.
    pub user: Option<String>,
    /// What comes on the given standard input goes to it; `/dev/null` otherwise.
    pub stdin: bool,
    /// It runs on a terminal of its own, whose output goes to the given standard output.
    pub terminal: Option<Terminal>,
    /// It goes on when its caller has gone, and nobody sees its output.
    pub detached: bool,
}

/// The terminal of a command in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// How large it is at first; the kernel's 0 by 0 unless given.
    pub size: Option<WindowSize>,
    /// Typed, they leave the command to itself; see [`crate::oci::detach_keys`]. Empty: never.
    pub detach_keys: Vec<u8>,
}

/// How large a terminal is, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What is said to an exec helper while its command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Control {
    /// The caller's terminal has another size.
    Resize(WindowSize),
    /// Send the command this signal.
    Signal(i32),
}

/// What goes to an exec helper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecOrder {
    pub(crate) container: Container,
    pub(crate) started: Started,
    pub(crate) request: ExecRequest,
}

/// What a helper answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// The process runs.
    Started(Started),
    /// The command runs, as this process of the host.
    Running(i32),
    /// The command has ended: its exit code, or 128 + the signal that ended it.
    Exited(i32),
    /// The user left the command to itself.
    Detached,
    /// It could not be started; nothing of it remains.
    Failed(Failure),
}

/// A failure inside a helper, told across the process boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Its kind.
    pub kind: ErrorKind,
    /// What went wrong, the outermost error first.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
    /// 126 or 127 where the program could not be run or found.
    pub exit_code: Option<u8>,
}

impl Failure {
    /// The failure that an error is, with its causes.
    pub(crate) fn of(error: &impl Classify) -> Self {
        let message = with_causes(error);
        Self { kind: error.kind(), message, hint: error.hint(), exit_code: None }
    }
}

impl Classify for Failure {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
