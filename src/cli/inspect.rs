//! `carboy inspect`.

use std::process::ExitCode;

use carboy::engine::BottleStatus;
use carboy::oci::health::Health;
use carboy::oci::spec::Container;
use carboy::{Engine, Slug};
use serde_json::{Value, json};

use super::exit::Failure;
use super::output::Output;

/// Print all that is known of a bottle, as JSON
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bottle
    slug: Slug,
    /// Print the values of environment variables
    #[arg(long)]
    show_secrets: bool,
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let status = engine.inspect(&self.slug)?;
        let mut value = value(&status, self.show_secrets);
        value["drops"] = json!(engine.drops(&status.view)?);
        output.json(&value);
        Ok(ExitCode::SUCCESS)
    }
}

fn value(status: &BottleStatus, show_secrets: bool) -> Value {
    let mut value = serde_json::to_value(status).expect("text and numbers encode");
    if let (Some(object), Some(container)) = (value.as_object_mut(), &status.container) {
        object.insert("userns".to_owned(), json!(container.userns));
        object.insert("selinux".to_owned(), json!(container.selinux));
        object.insert("launch".to_owned(), launch(container, show_secrets));
        // Also what is in force without having been asked for.
        object["launch"]["limits"] = json!(status.limits);
    }
    value
}

/// What the container was started with.
fn launch(container: &Container, show_secrets: bool) -> Value {
    let env: Vec<String> = container
        .process
        .env
        .iter()
        .map(|entry| match entry.split_once('=') {
            Some((name, _)) if !show_secrets => format!("{name}=<redacted>"),
            _ => entry.clone(),
        })
        .collect();
    json!({
        "command": container.process.args,
        "environment": env,
        "workdir": container.process.cwd,
        "user": container.process.user,
        "volumes": container.volumes,
        "tmpfs": container.tmpfs,
        "image_volumes": container.image_volumes,
        // The names alone: the fingerprints are of no use to anybody else.
        "secrets": container.secrets.iter().map(|s| &s.name).collect::<Vec<_>>(),
        "security": container.security,
        "labels": container.labels,
        "log": container.log,
        "read_only": container.read_only,
        "init": container.init,
        "stop_signal": container.stop_signal,
        "healthcheck": container.health.as_ref().map(healthcheck),
        "restart": container.restart.to_string(),
    })
}

/// How its health is checked; times in seconds.
fn healthcheck(health: &Health) -> Value {
    json!({
        "command": health.command,
        "interval": health.interval.as_secs_f64(),
        "timeout": health.timeout.as_secs_f64(),
        "retries": health.retries,
        "start_period": health.start_period.as_secs_f64(),
        "start_interval": health.start_interval.as_secs_f64(),
    })
}
