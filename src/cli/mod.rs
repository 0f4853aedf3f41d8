//! The command line: a file per verb; `output` is the only one that prints, `exit` the only one
//! that knows exit codes.

mod attach;
mod denied;
mod down;
mod events;
mod exec;
mod exit;
mod generate;
mod guest;
mod guest_args;
mod health_args;
mod image;
mod inspect;
mod kill;
mod launch_args;
mod log_printer;
mod logs;
mod name;
mod network;
mod network_args;
mod notify;
mod output;
mod pause;
mod plan;
mod port;
mod progress;
mod ps;
mod reload;
mod restart;
mod settings;
mod start;
mod stats;
mod stop;
mod terminal;
mod up;
mod verify;
mod wait;
mod when;

use std::process::ExitCode;

use carboy::{Engine, Slug};
use clap::{Parser, Subcommand};

use self::exit::Failure;
use self::output::Output;
use self::settings::GlobalArgs;

/// Sidecar bundles for micro-VM bottles: a container at a pinned address, without a daemon
#[derive(Debug, Parser)]
#[command(name = "carboy", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Plan(plan::Args),
    Up(up::Args),
    Down(down::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Kill(kill::Args),
    Pause(pause::PauseArgs),
    Unpause(pause::UnpauseArgs),
    Wait(wait::Args),
    Exec(exec::Args),
    Logs(logs::Args),
    Denied(denied::Args),
    Events(events::Args),
    Ps(ps::Args),
    Verify(verify::Args),
    Reload(reload::Args),
    Stats(stats::Args),
    Inspect(inspect::Args),
    Port(port::Args),
    Network(network::Args),
    Guest(guest::Args),
    Image(image::Args),
    Generate(generate::Args),
    Name(name::Args),
}

/// Parses the command line and runs the verb.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Nobody knows which words are options: the likeliest reading decides the form.
            let json = std::env::args_os().take_while(|a| a != "--").any(|a| a == "--json");
            return exit::usage(&Output::new(json), &e);
        }
    };
    let output = Output::new(cli.global.json);
    match cli.run(&output) {
        Ok(code) => code,
        Err(failure) => failure.report(&output),
    }
}

impl Cli {
    fn run(self, output: &Output) -> Result<ExitCode, Failure> {
        // Before the settings: for a command in a container carboy's own fault has another code.
        let own_fault = self.verb.is_a_program().then_some(exit::OWN_FAULT);
        let engine = self.global.engine();
        let engine = engine.map(|engine| engine.with_progress(progress::of(output)));
        let result = engine.and_then(|engine| self.verb.run(&engine, output));
        result.map_err(|failure| failure.with_fallback(own_fault))
    }
}

impl Verb {
    /// Whether the exit code is that of a program in a bundle.
    fn is_a_program(&self) -> bool {
        match self {
            Self::Exec(_) => true,
            Self::Start(args) => args.is_attached(),
            _ => false,
        }
    }

    fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        match self {
            Self::Plan(args) => args.run(engine, output),
            Self::Up(args) => args.run(engine, output),
            Self::Down(args) => args.run(engine, output),
            Self::Start(args) => args.run(engine, output),
            Self::Stop(args) => args.run(engine, output),
            Self::Restart(args) => args.run(engine, output),
            Self::Kill(args) => args.run(engine, output),
            Self::Pause(args) => args.run(engine, output),
            Self::Unpause(args) => args.run(engine, output),
            Self::Wait(args) => args.run(engine, output),
            Self::Exec(args) => args.run(engine, output),
            Self::Logs(args) => args.run(engine, output),
            Self::Denied(args) => args.run(engine, output),
            Self::Events(args) => args.run(engine, output),
            Self::Ps(args) => args.run(engine, output),
            Self::Verify(args) => args.run(engine, output),
            Self::Reload(args) => args.run(engine, output),
            Self::Stats(args) => args.run(engine, output),
            Self::Inspect(args) => args.run(engine, output),
            Self::Port(args) => args.run(engine, output),
            Self::Network(args) => args.run(engine, output),
            Self::Guest(args) => args.run(engine, output),
            Self::Image(args) => args.run(engine, output),
            Self::Generate(args) => args.run(engine, output),
            Self::Name(args) => args.run(engine, output),
        }
    }
}

/// Before a verb that acts on a bundle: one whose monitor was killed is given another. If that fails
/// the verb may be what helps, so it goes on.
fn adopt(engine: &Engine, output: &Output, slug: &Slug) {
    match engine.adopt(slug) {
        Ok(note) => output.notes(note.as_slice()),
        Err(e) => {
            output.notes(&[format!("bottle {slug} has no monitor that could take over: {e}")])
        }
    }
}

/// The caller's environment, for bare `-e NAME`.
fn inherited(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
