//! `carboy exec`.

use std::process::{ExitCode, Stdio};

use carboy::helper::{ExecRequest, ExecStreams};
use carboy::oci::process;
use carboy::{Engine, Slug};

use super::exit::Failure;
use super::output::Output;

/// Run a command in a bundle; its exit code is carboy's (125: carboy's own fault, 126: it cannot
/// be run, 127: it is not there, 128+n: ended by signal n)
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
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
        let request = ExecRequest { args: self.command, env, cwd: self.workdir, user: self.user };
        let streams = ExecStreams {
            stdin: if self.interactive { Stdio::inherit() } else { Stdio::null() },
            stdout: Stdio::inherit(),
            stderr: Stdio::inherit(),
        };
        let code = engine.exec(&self.slug, request, streams)?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
    }
}
