//! `carboy guest`.

use std::net::IpAddr;
use std::process::ExitCode;

use carboy::net::policy::HostPort;
use carboy::plan::GuestView;
use carboy::{Engine, Slug};
use serde_json::json;

use super::exit::Failure;
use super::guest_args;
use super::output::Output;

/// Attach and detach guest sides: namespaces for a VMM, from which a bottle's bundle alone is reached
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Attach a guest side to a bottle, or repair it; one that is there as asked for is kept
    Attach {
        /// The bottle
        slug: Slug,
        /// Its address; the third of the range unless given. A second one for IPv6
        #[arg(long, value_name = "IP")]
        ip: Vec<IpAddr>,
        /// Let it reach this port of the bundle alone, in place of every TCP port; may be given more
        /// than once
        #[arg(long, value_name = "PROTO/PORT")]
        allow_port: Vec<HostPort>,
        /// Replace the addresses and ports of one that is there
        #[arg(long)]
        replace: bool,
    },
    /// Remove the guest sides of bottles; processes in them stay, without a network
    Detach {
        /// The bottles
        #[arg(required = true, value_name = "SLUG")]
        slugs: Vec<Slug>,
    },
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        match self.verb {
            Verb::Attach { slug, ip, allow_port, replace } => {
                let request = guest_args::request("ip", ip, allow_port)?;
                let report = engine.attach_guest(&slug, &request, replace)?;
                output.data(&report, || {
                    let title = match report.changed {
                        true => "is attached",
                        false => "is attached already; nothing changed",
                    };
                    format!("guest side of {slug} {title}\n{}", line(&report.guest))
                });
                Ok(ExitCode::SUCCESS)
            }
            Verb::Detach { slugs } => super::stop::each(&slugs, output, |slug| {
                let report = engine.detach_guest(slug)?;
                if !report.changed {
                    output.note(&format!("bottle {slug} has no guest side"));
                }
                output.notes(&report.notes);
                Ok((json!({ "slug": slug, "changed": report.changed }), slug.to_string()))
            }),
        }
    }
}

/// A guest side for people.
pub(super) fn line(guest: &GuestView) -> String {
    let ports: Vec<String> = guest.allow_ports.iter().map(ToString::to_string).collect();
    let ports = if ports.is_empty() { "every TCP port".to_owned() } else { ports.join(", ") };
    let ip6 = guest.ip6.map(|ip| format!(", {ip}")).unwrap_or_default();
    format!("  guest        {} ({}{ip6}; reaches {ports})\n", guest.name, guest.ip)
}
