//! `carboy denied`.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use carboy::engine::{BottleState, DeniedFlow};
use carboy::{Engine, Slug};

use super::exit::Failure;
use super::output::{Output, table};

/// How often what is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// List the last packets that a bottle with `--log-drops` was denied
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// Go on until the bundle ends
    #[arg(short, long)]
    follow: bool,
    /// The last N alone
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<usize>,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let mut reader = engine.denied(&self.slug)?;
        let mut flows = VecDeque::new();
        while let Some(flow) = reader.next_flow()? {
            flows.push_back(flow);
            if self.tail.is_some_and(|tail| flows.len() > tail) {
                flows.pop_front();
            }
        }
        if !self.follow {
            output.data(&flows, || text(flows.iter()));
            return Ok(ExitCode::SUCCESS);
        }
        loop {
            // Asked before the reading: what was denied before the end is then read.
            let goes_on =
                engine.inspect(&self.slug).is_ok_and(|status| status.state == BottleState::Running);
            flows.extend(
                std::iter::from_fn(|| reader.next_flow().transpose())
                    .collect::<Result<Vec<_>, _>>()?,
            );
            for flow in flows.drain(..) {
                if !print(&flow, output) {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            if !goes_on {
                return Ok(ExitCode::SUCCESS);
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// False if nobody reads any more. A value a line: there is no end to wait for.
fn print(flow: &DeniedFlow, output: &Output) -> bool {
    let line = match output.is_json() {
        true => serde_json::to_string(flow).expect("text and numbers encode"),
        false => words(flow).join("  "),
    };
    output.bytes(format!("{line}\n").as_bytes())
}

fn text<'a>(flows: impl Iterator<Item = &'a DeniedFlow>) -> String {
    let titles = ["TIME", "REASON", "PROTOCOL", "SOURCE", "DESTINATION", "PORT"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(flows.map(words));
    table(&rows)
}

fn words(flow: &DeniedFlow) -> Vec<String> {
    fn or_dash(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let denied = &flow.denied;
    vec![
        flow.time.clone(),
        or_dash(denied.reason),
        denied.protocol.clone(),
        or_dash(denied.source),
        or_dash(denied.destination),
        or_dash(denied.port),
    ]
}
