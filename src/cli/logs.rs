//! `carboy logs`.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use carboy::engine::BottleState;
use carboy::oci::log::{LogLine, LogReader, Stream};
use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::output::Output;

/// How often a log that is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Print what a bundle wrote: its output to standard output, its errors to standard error
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// Go on until the bundle ends
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
    /// Print when each line was written
    #[arg(short, long)]
    timestamps: bool,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let mut reader = engine.log(&self.slug)?;
        if let Some(count) = self.tail {
            for line in last(&mut reader, count)? {
                if !self.print(&line, output) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        loop {
            // Asked before the reading: what was written before the end is then read.
            let goes_on = self.follow && running(engine, &self.slug);
            while let Some(line) = reader.next_line()? {
                if !self.print(&line, output) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            if !goes_on {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// False if nobody reads any more.
    fn print(&self, line: &LogLine, output: &Output) -> bool {
        let text = String::from_utf8_lossy(&line.text);
        if output.is_json() {
            let stream = if line.stream == Stream::Stdout { "stdout" } else { "stderr" };
            let value = json!({ "time": line.time, "stream": stream, "text": text });
            return output.bytes(format!("{value}\n").as_bytes());
        }
        let mut bytes = Vec::new();
        if self.timestamps {
            bytes.extend_from_slice(line.time.as_bytes());
            bytes.push(b' ');
        }
        bytes.extend_from_slice(&line.text);
        if line.complete {
            bytes.push(b'\n');
        }
        match line.stream {
            Stream::Stdout => output.bytes(&bytes),
            Stream::Stderr => output.error_bytes(&bytes),
        }
    }
}

fn last(reader: &mut LogReader, count: usize) -> Result<VecDeque<LogLine>, Failure> {
    let mut lines = VecDeque::new();
    while let Some(line) = reader.next_line()? {
        lines.push_back(line);
        if lines.len() > count {
            lines.pop_front();
        }
    }
    Ok(lines)
}

fn running(engine: &Engine, slug: &Slug) -> bool {
    engine.inspect(slug).is_ok_and(|status| status.state == BottleState::Running)
}
