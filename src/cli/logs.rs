//! `carboy logs`.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use carboy::engine::BottleState;
use carboy::oci::log::{LogLine, LogReader};
use carboy::{Engine, Slug};
use jiff::Timestamp;

use super::exit::Failure;
use super::log_printer::LogPrinter;
use super::output::Output;
use super::when;

/// How often a log that is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long a monitor may take to write the last lines of a bundle that has ended.
const LAST_LINES_PATIENCE: Duration = Duration::from_secs(2);

/// Print what a bundle wrote: its output to standard output, its errors to standard error
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// Go on until the bundle ends
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last N lines
    #[arg(short = 'n', long, value_name = "N", value_parser = tail)]
    tail: Option<Tail>,
    /// Begin with this time: 2026-01-31T12:00:00Z, or 10m ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End with this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Print when each line was written
    #[arg(short, long)]
    timestamps: bool,
}

/// How many of the last lines.
#[derive(Clone, Copy, Debug)]
enum Tail {
    All,
    Last(usize),
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number.parse().map(Tail::Last).map_err(|_| "give a number, or `all`".to_owned()),
    }
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let now = Timestamp::now();
        let time = |text: &Option<String>| {
            let parsed = text.as_deref().map(|text| when::parse(text, now)).transpose();
            parsed.map_err(Failure::usage)
        };
        let span = Span { since: time(&self.since)?, until: time(&self.until)? };
        super::adopt(engine, output, &self.slug);
        let mut lines = Lines { reader: engine.log(&self.slug)?, span, is_over: false };
        let mut printer = LogPrinter::new(output, self.timestamps);
        if let Some(Tail::Last(count)) = self.tail {
            for line in lines.last(count)? {
                if !printer.print(&line) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        }
        let mut watch = Watch { engine, slug: &self.slug, deadline: None };
        loop {
            // Asked before the reading: what was written before the end is then read.
            let goes_on = self.follow && watch.goes_on();
            while let Some(line) = lines.next()? {
                if !printer.print(&line) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            printer.tell_lost(&mut lines.reader);
            if !goes_on || lines.is_over || span.is_past(Timestamp::now()) {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// From when to when.
#[derive(Clone, Copy, Debug)]
struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Span {
    fn is_past(&self, time: Timestamp) -> bool {
        self.until.is_some_and(|until| time > until)
    }

    fn is_before(&self, time: Timestamp) -> bool {
        self.since.is_some_and(|since| time < since)
    }
}

/// The lines of a span.
struct Lines {
    reader: LogReader,
    span: Span,
    /// What follows is past the span.
    is_over: bool,
}

impl Lines {
    fn next(&mut self) -> Result<Option<LogLine>, Failure> {
        while !self.is_over
            && let Some(line) = self.reader.next_line()?
        {
            // A line without a time that can be read is of no particular one.
            match line.time.parse() {
                Ok(time) if self.span.is_past(time) => self.is_over = true,
                Ok(time) if self.span.is_before(time) => {}
                _ => return Ok(Some(line)),
            }
        }
        Ok(None)
    }

    /// The last `count` of those that are there now.
    fn last(&mut self, count: usize) -> Result<VecDeque<LogLine>, Failure> {
        let mut lines = VecDeque::new();
        while let Some(line) = self.next()? {
            lines.push_back(line);
            if lines.len() > count {
                lines.pop_front();
            }
        }
        Ok(lines)
    }
}

/// Whether more may come of a bundle.
struct Watch<'a> {
    engine: &'a Engine,
    slug: &'a Slug,
    /// When to give up on the monitor of a bundle that has ended.
    deadline: Option<Instant>,
}

impl Watch<'_> {
    fn goes_on(&mut self) -> bool {
        let Ok(status) = self.engine.inspect(self.slug) else { return false };
        match status.state {
            BottleState::Running | BottleState::Paused | BottleState::Restarting => {
                self.deadline = None;
                true
            }
            // Its end is written down after its last line.
            BottleState::Exited if status.finished_at.is_none() => {
                let deadline = self.deadline.get_or_insert(Instant::now() + LAST_LINES_PATIENCE);
                Instant::now() < *deadline
            }
            _ => false,
        }
    }
}
