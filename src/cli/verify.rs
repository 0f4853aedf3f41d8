//! `carboy verify`.

use std::cell::Cell;
use std::process::ExitCode;

use carboy::engine::VerifyReport;
use carboy::{Engine, ErrorKind};

use super::exit::Failure;
use super::output::Output;
use super::reload::Bottles;

/// Compare bottles with what was planned; exit code 1 and a list if anything differs
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    bottles: Bottles,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let differs = Cell::new(false);
        let chosen = self.bottles.choose(engine, output)?;
        // What cannot be read cannot be as planned.
        differs.set(chosen.unreadable);
        let code = chosen.each(output, |slug| {
            let report = engine.verify(slug)?;
            output.notes(&report.notes);
            differs.set(differs.get() || !report.ok);
            let value = serde_json::to_value(&report).expect("text and numbers encode");
            Ok((value, text(&report)))
        })?;
        Ok(if code == ExitCode::SUCCESS && differs.get() {
            ExitCode::from(ErrorKind::Failed.exit_code())
        } else {
            code
        })
    }
}

fn text(report: &VerifyReport) -> String {
    let slug = &report.slug;
    if report.ok {
        return format!("bottle {slug} is as planned");
    }
    let lines = report
        .drift
        .iter()
        .map(|d| format!("\n  {}: wanted {}, found {}", d.resource, d.want, d.found));
    format!("bottle {slug} is not as planned{}", lines.collect::<String>())
}
