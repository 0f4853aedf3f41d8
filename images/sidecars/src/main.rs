//! `sidecars`: the one program of the embedded image. Without arguments it is PID 1 of a bundle and
//! supervises the daemons; `daemon NAME` is one of them, started by the supervisor from the same
//! file; `init -- CMD` is a minimal PID 1 for other images.

mod child;
mod daemons;
mod init;
mod log;
mod output;
mod prefix;
mod selection;
mod serve;
mod signals;
mod state;
mod supervisor;
mod sys;

use std::env;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use selection::VARIABLE;

/// The exit code for an argument or a daemons list that is wrong.
const USAGE: u8 = 2;

const HELP: &str = "\
sidecars                    supervise the daemons named in CLAUDE_BOTTLE_SIDECAR_DAEMONS
                            (comma-separated; unset: all; empty: none)
sidecars daemon NAME        run one daemon in the foreground
sidecars init -- CMD ARG…   run CMD as its child: forward signals, reap orphans, exit with its code";

/// What the arguments ask for.
#[derive(Debug, PartialEq)]
enum Invocation {
    Supervise,
    Daemon(String),
    Init(Vec<OsString>),
    Help,
}

fn parse(args: &[OsString]) -> Result<Invocation, String> {
    let words: Vec<&str> = args.iter().take(2).map(|a| a.to_str().unwrap_or_default()).collect();
    match (words.as_slice(), args.len()) {
        ([], _) => Ok(Invocation::Supervise),
        (["-h" | "--help" | "help"], 1) => Ok(Invocation::Help),
        (["daemon", name], 2) => Ok(Invocation::Daemon((*name).to_owned())),
        (["init", "--"], 3..) => Ok(Invocation::Init(args[2..].to_vec())),
        (["init", ..], _) => Err("init needs a command: sidecars init -- CMD ARG…".to_owned()),
        _ => Err(format!("unknown arguments; usage:\n{HELP}")),
    }
}

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    match parse(&args) {
        Ok(Invocation::Supervise) => supervise(),
        Ok(Invocation::Daemon(name)) => daemon(&name),
        Ok(Invocation::Init(command)) => init::run(&command),
        Ok(Invocation::Help) => {
            log::info(format_args!("{HELP}"));
            ExitCode::SUCCESS
        }
        Err(message) => {
            log::error(format_args!("sidecars: {message}"));
            ExitCode::from(USAGE)
        }
    }
}

fn supervise() -> ExitCode {
    let selected = match selection::parse(env::var_os(VARIABLE).as_deref(), daemons::ALL) {
        Ok(selected) => selected,
        Err(unknown) => {
            log::error(format_args!("sidecars: {unknown}"));
            return ExitCode::from(USAGE);
        }
    };
    outcome("sidecars", supervisor::run(&selected))
}

fn daemon(name: &str) -> ExitCode {
    match selection::find(name, daemons::ALL) {
        Ok(daemon) => outcome(name, (daemon.run)().map(|()| ExitCode::SUCCESS)),
        Err(unknown) => {
            log::error(format_args!("sidecars: {unknown}"));
            ExitCode::from(USAGE)
        }
    }
}

fn outcome(who: &str, result: io::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        log::error(format_args!("{who}: {error}"));
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let init = |words: &[&str]| Invocation::Init(words.iter().map(Into::into).collect());
        for (args, want) in [
            (&[][..], Some(Invocation::Supervise)),
            (&["--help"], Some(Invocation::Help)),
            (&["daemon", "echo"], Some(Invocation::Daemon("echo".to_owned()))),
            (&["daemon"], None),
            (&["daemon", "echo", "more"], None),
            (&["init", "--", "sh", "-c", "true"], Some(init(&["sh", "-c", "true"]))),
            (&["init", "--", "--"], Some(init(&["--"]))),
            (&["init", "--"], None),
            (&["init", "sh"], None),
            (&["init"], None),
            (&["other"], None),
        ] {
            let args: Vec<OsString> = args.iter().map(Into::into).collect();
            assert_eq!(parse(&args).ok(), want, "{args:?}");
        }
    }
}
