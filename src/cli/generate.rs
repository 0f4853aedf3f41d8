//! `carboy generate`.

use std::ffi::OsString;
use std::process::ExitCode;

use carboy::{Config, Engine, Slug};
use clap::Subcommand;
use serde_json::json;

use super::exit::Failure;
use super::output::Output;
use super::up;

/// Write what other programs need to handle bottles
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print a unit for systemd that brings a bottle up and takes it down; with the options of `up`
    Systemd(Box<up::Args>),
}

impl Args {
    pub(super) fn run(self, engine: &Engine, output: &Output) -> Result<ExitCode, Failure> {
        let What::Systemd(up) = self.what;
        let slug = up.slug().clone();
        // What `up` would refuse without a look at the host is refused here.
        let waits = up.check()?;
        let arguments = up_arguments(std::env::args_os().skip(1))?;
        let program = std::env::current_exe().map_err(|e| not_named(&e.to_string()))?;
        let program = program.to_str().ok_or_else(|| not_named("its path is no UTF-8"))?;
        let text = unit(&slug, program, &arguments, waits, engine.config());
        output.data(&json!({ "slug": slug, "unit": text }), || text.clone());
        Ok(ExitCode::SUCCESS)
    }
}

fn not_named(why: &str) -> Failure {
    Failure::usage(format!("this program cannot be named in a unit: {why}"))
}

/// What stands on the command line without `generate systemd` and `--json`: the arguments of `up`.
fn up_arguments(all: impl Iterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    let all = all.map(|word| {
        let wrong = |word: OsString| Failure::usage(format!("{} is no UTF-8", word.display()));
        word.into_string().map_err(wrong)
    });
    let mut all = all.collect::<Result<Vec<_>, _>>()?;
    if let Some(at) = all.windows(2).position(|pair| pair == ["generate", "systemd"]) {
        all.drain(at..at + 2);
    }
    let options = all.iter().position(|word| word == "--").unwrap_or(all.len());
    let command = all.split_off(options);
    all.retain(|word| word != "--json");
    all.extend(command);
    Ok(all)
}

/// The unit. `up` ends when the bottle is ready, and its exit code says whether it is; what runs then
/// is in control groups of its own, so that systemd neither counts nor kills it.
fn unit(slug: &Slug, program: &str, arguments: &[String], waits: bool, config: &Config) -> String {
    let default = Config::default();
    let mut environment = Vec::new();
    if config.prefix != default.prefix {
        environment.push(format!("CARBOY_PREFIX={}", config.prefix));
    }
    for (name, path, usual) in [
        ("CARBOY_STATE", &config.state, &default.state),
        ("CARBOY_ROOT", &config.root, &default.root),
    ] {
        if path != usual {
            environment.push(format!("{name}={}", path.display()));
        }
    }
    let environment: String =
        environment.iter().map(|entry| format!("Environment={}\n", quoted(entry, false))).collect();
    // Before the others: behind `--` it would be the bundle's.
    let wait: &[&str] = if waits { &[] } else { &["--wait"] };
    let start = [program, "up"].into_iter().chain(wait.iter().copied());
    let start = start.chain(arguments.iter().map(String::as_str));
    let line = |words: &mut dyn Iterator<Item = &str>| {
        words.map(|word| quoted(word, true)).collect::<Vec<_>>().join(" ")
    };
    let start = line(&mut { start });
    let stop = line(&mut [program, "down", slug.as_str()].into_iter());
    format!(
        "[Unit]\n\
         Description=carboy bottle {slug}\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         # Values for `-e NAME`: NAME=VALUE, a line each. Keep them out of this unit.\n\
         EnvironmentFile=-/etc/carboy/{slug}.env\n\
         {environment}\
         ExecStart={start}\n\
         ExecStop={stop}\n\
         # The bundle is in control groups of its own and is ended by `down` alone.\n\
         KillMode=process\n\
         # An image may have to be pulled first.\n\
         TimeoutStartSec=15min\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}

/// A word as systemd reads it back (systemd.syntax(7), "Quoting"; systemd.service(5), "Command
/// lines"): `%` begins a specifier, and in a command line `$` a variable.
fn quoted(word: &str, command: bool) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '%' => text.push_str("%%"),
            '$' if command => text.push_str("$$"),
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => {
                let mut bytes = [0; 4];
                let bytes = c.encode_utf8(&mut bytes).bytes();
                text.extend(bytes.map(|byte| format!("\\x{byte:02x}")));
            }
            c => text.push(c),
        }
    }
    text.push('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        for (word, want) in [
            ("plain-1.2/x:y=z", "plain-1.2/x:y=z"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("100%", "\"100%%\""),
            ("$HOME", "\"$$HOME\""),
            ("a\"b\\c\n\u{7}", "\"a\\\"b\\\\c\\n\\x07\""),
            (";", "\";\""),
        ] {
            assert_eq!(quoted(word, true), want);
        }
        assert_eq!(quoted("A=$B", false), "\"A=$B\"");
    }

    #[test]
    fn the_options_of_up_are_kept_and_wait_is_added() {
        let words = ["--root", "/r", "generate", "systemd", "--json", "demo", "-e", "A=1 2"];
        let words = words.iter().chain(&["--", "sh", "--json"]).map(OsString::from);
        let arguments = up_arguments(words).unwrap();
        assert_eq!(arguments, ["--root", "/r", "demo", "-e", "A=1 2", "--", "sh", "--json"]);
        let slug = Slug::new("demo").unwrap();
        let config = Config { root: "/r".into(), ..Config::default() };
        let text = unit(&slug, "/usr/bin/carboy", &arguments, false, &config);
        for line in [
            "ExecStart=/usr/bin/carboy up --wait --root /r demo -e \"A=1 2\" -- sh --json",
            "ExecStop=/usr/bin/carboy down demo",
            "Environment=CARBOY_ROOT=/r",
            "KillMode=process",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(unit(&slug, "/c", &arguments, true, &config).contains("/c up --root /r demo"));
    }
}
