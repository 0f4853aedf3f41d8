//! The `carboy` command: parse, run, exit code.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A helper process is this very program, run again by the library.
    carboy::helper::run_if_requested();
    cli::run()
}
