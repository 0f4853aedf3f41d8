//! `carboy exec`.

use std::process::{ExitCode, Stdio};

use carboy::fsutil::PathContext;
use carboy::helper::{ExecEnd, ExecRequest, ExecStreams, Terminal};
use carboy::oci::{detach_keys, process};
use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::terminal::{self, RawMode, Signals};

/// Run a command in a bundle; its exit code is carboy's (125: carboy's own fault, 126: it cannot
/// be run, 127: it is not there, 128+n: ended by signal n)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Leave it to itself, and return when it runs
    #[arg(short, long, conflicts_with = "interactive")]
    detach: bool,
    /// The keys that leave it to itself; none if empty
    #[arg(long, value_name = "KEYS", default_value = detach_keys::DEFAULT)]
    detach_keys: String,
    /// Set a variable, or take its value from carboy's own environment
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Run in this directory of the bundle
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user of the bundle: name, uid, name:group or uid:gid
    #[arg(short = 'u', long, value_name = "USER")]
    user: Option<String>,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let environment = process::environment(&self.env, &super::inherited);
        let (env, unset) = environment.map_err(|e| Failure::new(&e))?;
        output.notes(&unset.iter().map(|name| process::left_out(name)).collect::<Vec<_>>());
        let detach_keys = detach_keys::parse(&self.detach_keys).map_err(|e| Failure::new(&e))?;
        let raw = self.tty && self.interactive;
        if raw && !terminal::is_there() {
            return Err(Failure::usage("-i with -t needs a terminal as standard input"));
        }
        super::adopt(engine, output, &self.slug);
        let request = ExecRequest {
            args: self.command,
            env,
            cwd: self.workdir,
            user: self.user,
            stdin: self.interactive,
            terminal: self.tty.then(|| Terminal { size: terminal::size(), detach_keys }),
            detached: self.detach,
        };
        if self.detach {
            let session = engine.exec_start(&self.slug, request, ExecStreams::null());
            let session = session.map_err(Failure::of_program)?;
            let value = json!({ "slug": self.slug, "pid": session.pid(), "detached": true });
            output.data(&value, String::new);
            return Ok(ExitCode::SUCCESS);
        }
        let streams = ExecStreams {
            stdin: if self.interactive { Stdio::inherit() } else { Stdio::null() },
            stdout: Stdio::inherit(),
            stderr: Stdio::inherit(),
        };
        let stdin = std::path::Path::new("/dev/stdin");
        let signals = Signals::take(raw).at("take the signals of", stdin)?;
        let mode = raw.then(RawMode::enter).transpose().at("change the terminal", stdin)?;
        let session = engine.exec_start(&self.slug, request, streams);
        let session = session.map_err(Failure::of_program)?;
        if let Some(control) = session.control() {
            signals.pass_to(control);
        }
        let end = session.wait().map_err(carboy::Error::from)?;
        drop(mode);
        Ok(match end {
            ExecEnd::Exited(code) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
            ExecEnd::Detached => {
                output.note("\ndetached; the command goes on in the bundle");
                ExitCode::SUCCESS
            }
        })
    }
}
