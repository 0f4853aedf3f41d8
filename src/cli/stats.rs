//! `carboy stats`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use carboy::engine::{BottleState, BottleStats, Listing};
use carboy::error::{Classify, ErrorKind};
use carboy::{Engine, Slug};
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::{Output, table};

/// Between two looks: what is told of the processor is about this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what bundles use: processor, memory, network, disks, processes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottles; all that run unless given
    slug: Vec<Slug>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
}

/// A look at a bundle.
struct Sample {
    at: Instant,
    stats: BottleStats,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let mut before = self.look(engine, output)?;
        loop {
            std::thread::sleep(INTERVAL);
            let now = self.look(engine, output)?;
            let values: Vec<Value> = now.iter().map(|sample| value(&before, sample)).collect();
            let written = if output.is_json() {
                output.bytes(format!("{}\n", Value::from(values)).as_bytes())
            } else {
                output.bytes(shown(&values).as_bytes())
            };
            if self.no_stream || !written {
                return Ok(ExitCode::SUCCESS);
            }
            before = now;
        }
    }

    /// A bundle that was named must run; of all others those that do are looked at.
    fn look(&self, engine: &Engine, output: &Output) -> Result<Vec<Sample>, Failure> {
        let sample = |slug: &Slug| {
            let at = Instant::now();
            engine.stats(slug).map(|stats| Sample { at, stats })
        };
        if !self.slug.is_empty() {
            return Ok(self.slug.iter().map(sample).collect::<Result<_, _>>()?);
        }
        let Listing { items, notes } = engine.bottles()?;
        output.notes(&notes);
        let running = items.iter().filter(|bottle| bottle.state == BottleState::Running);
        let mut samples = Vec::new();
        for bottle in running {
            match sample(&bottle.view.slug) {
                // It has ended since.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => samples.push(other?),
            }
        }
        Ok(samples)
    }
}

/// The sample with the processor's share since the one before: 100 is one processor.
fn value(before: &[Sample], now: &Sample) -> Value {
    let mut value = serde_json::to_value(&now.stats).expect("text and numbers encode");
    let earlier = before.iter().find(|sample| sample.stats.slug == now.stats.slug);
    value["cpu_percent"] = json!(earlier.and_then(|earlier| percent(earlier, now)));
    value
}

fn percent(earlier: &Sample, now: &Sample) -> Option<f64> {
    let (a, b) = (earlier.stats.usage.cpu_nanoseconds?, now.stats.usage.cpu_nanoseconds?);
    let used = Duration::from_nanos(b.saturating_sub(a)).as_secs_f64();
    let passed = now.at.saturating_duration_since(earlier.at).as_secs_f64();
    (passed > 0.0).then(|| (used / passed * 10_000.0).round() / 100.0)
}

fn shown(values: &[Value]) -> String {
    let titles = ["SLUG", "CPU %", "MEM / LIMIT", "NET I/O", "DROPPED", "BLOCK I/O", "PIDS"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(values.iter().map(|value| {
        let net = |key: &str| size(&value["network"][key]);
        let both = |a: String, b: String| format!("{a} / {b}");
        vec![
            value["slug"].as_str().unwrap_or_default().to_owned(),
            value["cpu_percent"].as_f64().map_or("-".to_owned(), |share| format!("{share:.2}")),
            both(size(&value["memory"]), size(&value["memory_limit"])),
            both(net("rx_bytes"), net("tx_bytes")),
            dropped(value).to_string(),
            both(size(&value["block_read"]), size(&value["block_written"])),
            value["pids"].to_string().replace("null", "-"),
        ]
    }));
    table(&rows)
}

/// Packets that the port or the firewall dropped, in either direction and for any reason.
fn dropped(value: &Value) -> u64 {
    let of_port = ["rx_dropped", "tx_dropped"].map(|key| value["network"][key].as_u64());
    let reasons = value["drops"].as_object().into_iter().flat_map(|reasons| reasons.values());
    let of_firewall = reasons.map(|count| count["packets"].as_u64());
    of_port.into_iter().chain(of_firewall).flatten().sum()
}

/// In units of 1024, with three digits.
fn size(bytes: &Value) -> String {
    let Some(bytes) = bytes.as_u64() else { return "-".to_owned() };
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes as f64;
    let mut unit = 0;
    while scaled >= 1000.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 || scaled >= 99.95 { 0 } else { 1 };
    format!("{scaled:.decimals$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (bytes, want) in [
            (json!(0), "0B"),
            (json!(999), "999B"),
            (json!(1000), "1.0KiB"),
            (json!(64 << 20), "64.0MiB"),
            (json!(1_u64 << 30), "1.0GiB"),
            (json!(700 << 20), "700MiB"),
            (json!(u64::MAX), "16777216TiB"),
            (Value::Null, "-"),
        ] {
            assert_eq!(size(&bytes), want, "{bytes}");
        }
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let text = shown(&[json!({"slug": "demo", "network": null, "pids": 3})]);
        let line = text.lines().nth(1).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.first(), Some(&"demo"));
        assert_eq!(words.last(), Some(&"3"));
        assert_eq!(words.iter().filter(|w| **w == "-").count(), 7, "{line}");
        let drops = json!({"spoofed": {"packets": 2, "bytes": 9}, "other": {"packets": 3}});
        let network = json!({"rx_dropped": 10, "tx_dropped": 20});
        assert_eq!(dropped(&json!({"network": network, "drops": drops})), 35);
    }
}
