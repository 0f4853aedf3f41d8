//! What a container runs: the image's configuration and the user's wishes, merged by Docker's
//! rules. Pure.
//!
//! Environment values are secrets: no error, no `Debug` output of one, holds any.

use oci_spec::image::Config;

use super::spec::Process;
use crate::error::{Classify, ErrorKind};

/// `PATH` where neither the image nor the user sets one, as Docker.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the user wants otherwise than the image.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces the image's entrypoint and drops its command. Empty (or one empty word, as
    /// `--entrypoint ''` gives) leaves the container without an entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command unless empty.
    pub command: Vec<String>,
    /// `NAME=VALUE`; wins over the image's by name, the last one over earlier ones.
    pub env: Vec<String>,
    /// Replaces the image's working directory; absolute.
    pub cwd: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
}

impl std::fmt::Debug for Overrides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.env.iter().map(|e| e.split_once('=').map(|(n, _)| n)).collect();
        f.debug_struct("Overrides")
            .field("entrypoint", &self.entrypoint)
            .field("command", &self.command)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("user", &self.user)
            .finish()
    }
}

/// Why nothing can be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// Neither the image nor the user names a program.
    #[error("there is nothing to run: neither the image nor the command line names a program")]
    NothingToRun,
    /// The user's working directory is relative.
    #[error("working directory {cwd:?} is no absolute path")]
    RelativeCwd {
        /// The directory.
        cwd: String,
    },
    /// A NUL byte, which no C string can hold.
    #[error("{what} has a NUL byte in it")]
    Nul {
        /// What was meant: `argument 2`, `environment entry 1`.
        what: String,
    },
    /// An environment entry that names no variable.
    #[error("environment entry {position} has no name before the =")]
    NoName {
        /// Which one, counted from 1.
        position: usize,
    },
    /// An environment entry without a value where one is needed.
    #[error("environment entry {position} is not of the form NAME=VALUE")]
    NoValue {
        /// Which one, counted from 1.
        position: usize,
    },
}

impl Classify for ProcessError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NothingToRun => Some("give a command after the image".to_owned()),
            _ => None,
        }
    }
}

/// Merges the image's configuration (if it has one) with the user's wishes.
///
/// The working directory is cleaned lexically, as Docker does; the image's may be relative and is
/// then taken from `/`, the user's may not. Image environment entries without a name or a value
/// are left out: no program could read them.
///
/// # Errors
/// [`ProcessError`] if there is no program, or a part could not be passed to one.
pub fn merge(image: Option<&Config>, overrides: &Overrides) -> Result<Process, ProcessError> {
    let args = args(image, overrides);
    if args.first().is_none_or(String::is_empty) {
        return Err(ProcessError::NothingToRun);
    }
    for (i, arg) in args.iter().enumerate() {
        no_nul(arg, || format!("argument {i}"))?;
    }
    let user = overrides.user.clone().or_else(|| image?.user().clone()).unwrap_or_default();
    no_nul(&user, || "the user".to_owned())?;
    Ok(Process { args, env: env(image, &overrides.env)?, cwd: cwd(image, overrides)?, user })
}

/// Docker's rules: the user's command replaces the image's; the user's entrypoint drops it.
fn args(image: Option<&Config>, overrides: &Overrides) -> Vec<String> {
    let from_image = |part: fn(&Config) -> &Option<Vec<String>>| {
        image.and_then(|config| part(config).clone()).unwrap_or_default()
    };
    let (mut args, command) = match &overrides.entrypoint {
        Some(entrypoint) => (entrypoint.clone(), overrides.command.clone()),
        None if overrides.command.is_empty() => {
            (from_image(Config::entrypoint), from_image(Config::cmd))
        }
        None => (from_image(Config::entrypoint), overrides.command.clone()),
    };
    if args == [""] {
        args.clear();
    }
    args.extend(command);
    args
}

fn env(image: Option<&Config>, wanted: &[String]) -> Result<Vec<String>, ProcessError> {
    let mut merged = Vec::new();
    let of_image = image.and_then(|config| config.env().as_deref()).unwrap_or_default();
    for (i, entry) in of_image.iter().enumerate() {
        no_nul(entry, || format!("the image's environment entry {}", i + 1))?;
        if !name(entry).is_empty() && entry.contains('=') {
            set(&mut merged, entry);
        }
    }
    for (i, entry) in wanted.iter().enumerate() {
        check_entry(i + 1, entry)?;
        if !entry.contains('=') {
            return Err(ProcessError::NoValue { position: i + 1 });
        }
        set(&mut merged, entry);
    }
    complete(&mut merged, &[("PATH", DEFAULT_PATH)]);
    Ok(merged)
}

fn cwd(image: Option<&Config>, overrides: &Overrides) -> Result<String, ProcessError> {
    let cwd = match overrides.cwd.as_deref().filter(|cwd| !cwd.is_empty()) {
        Some(cwd) if !cwd.starts_with('/') => {
            return Err(ProcessError::RelativeCwd { cwd: cwd.to_owned() });
        }
        Some(cwd) => cwd,
        None => image.and_then(|config| config.working_dir().as_deref()).unwrap_or("/"),
    };
    no_nul(cwd, || "the working directory".to_owned())?;
    let mut parts = Vec::new();
    for part in cwd.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // The root's parent is the root: popping nothing is right.
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Environment entries as the user writes them: `NAME=VALUE` as it is, a bare `NAME` with the value
/// `inherited` has for it. Gives the full entries, and the bare names without a value there, which
/// are left out.
///
/// # Errors
/// [`ProcessError`] if an entry has no name or a NUL byte; never with a value in it.
pub fn environment(
    entries: &[String],
    inherited: &impl Fn(&str) -> Option<String>,
) -> Result<(Vec<String>, Vec<String>), ProcessError> {
    let (mut full, mut unset) = (Vec::new(), Vec::new());
    for (i, entry) in entries.iter().enumerate() {
        check_entry(i + 1, entry)?;
        if entry.contains('=') {
            full.push(entry.clone());
        } else if let Some(value) = inherited(entry) {
            no_nul(&value, || format!("environment entry {}", i + 1))?;
            full.push(format!("{entry}={value}"));
        } else {
            unset.push(entry.clone());
        }
    }
    Ok((full, unset))
}

/// What the user should know of a bare name without a value.
pub fn left_out(name: &str) -> String {
    format!("-e {name}: it is not set here, so it is left out")
}

/// Adds what the environment does not set yet: `HOME` is known only once the user is resolved.
pub fn complete(env: &mut Vec<String>, defaults: &[(&str, &str)]) {
    for (wanted, value) in defaults {
        if !env.iter().any(|entry| name(entry) == *wanted) {
            env.push(format!("{wanted}={value}"));
        }
    }
}

/// Sets one variable in place, so that the order stays that of first mention.
pub fn set(env: &mut Vec<String>, entry: &str) {
    match env.iter_mut().find(|known| name(known) == name(entry)) {
        Some(known) => entry.clone_into(known),
        None => env.push(entry.to_owned()),
    }
}

fn name(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn check_entry(position: usize, entry: &str) -> Result<(), ProcessError> {
    no_nul(entry, || format!("environment entry {position}"))?;
    if name(entry).is_empty() {
        return Err(ProcessError::NoName { position });
    }
    Ok(())
}

fn no_nul(text: &str, what: impl FnOnce() -> String) -> Result<(), ProcessError> {
    if text.contains('\0') { Err(ProcessError::Nul { what: what() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(json: &str) -> Config {
        serde_json::from_str(json).unwrap()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&w| w.to_owned()).collect()
    }

    #[test]
    fn entrypoint_and_command_follow_docker() {
        let both = r#"{"Entrypoint":["/e","-x"],"Cmd":["c","d"]}"#;
        let cmd = r#"{"Cmd":["c"]}"#;
        let none: &[&str] = &[];
        type Case<'a> = (&'a str, Option<&'a [&'a str]>, &'a [&'a str], &'a [&'a str]);
        let cases: &[Case<'_>] = &[
            (both, None, none, &["/e", "-x", "c", "d"]),
            (both, None, &["u"], &["/e", "-x", "u"]),
            (both, Some(&["/n"]), none, &["/n"]),
            (both, Some(&["/n"]), &["u"], &["/n", "u"]),
            (both, Some(&[""]), &["u"], &["u"]),
            (both, Some(none), &["u", "v"], &["u", "v"]),
            (cmd, None, none, &["c"]),
            (cmd, None, &["u", ""], &["u", ""]),
            (r#"{"Entrypoint":[""],"Cmd":["c"]}"#, None, none, &["c"]),
            ("{}", None, &["u"], &["u"]),
        ];
        for (config, entrypoint, command, want) in cases {
            let overrides = Overrides {
                entrypoint: entrypoint.map(words),
                command: words(command),
                ..Overrides::default()
            };
            let got = merge(Some(&image(config)), &overrides).unwrap().args;
            assert_eq!(got, words(want), "{config} {entrypoint:?} {command:?}");
        }
    }

    #[test]
    fn nothing_to_run_is_an_error() {
        let run = |config: Option<&Config>, entrypoint: Option<&[&str]>| {
            let entrypoint = entrypoint.map(words);
            merge(config, &Overrides { entrypoint, ..Overrides::default() })
        };
        let with_cmd = image(r#"{"Cmd":["c"]}"#);
        assert_eq!(run(None, None), Err(ProcessError::NothingToRun));
        assert_eq!(run(Some(&image("{}")), None), Err(ProcessError::NothingToRun));
        assert_eq!(run(Some(&with_cmd), Some(&[])), Err(ProcessError::NothingToRun));
        assert_eq!(run(Some(&image(r#"{"Cmd":[""]}"#)), None), Err(ProcessError::NothingToRun));
        assert_eq!(
            run(Some(&image(r#"{"Cmd":["a","b\u0000"]}"#)), None),
            Err(ProcessError::Nul { what: "argument 1".into() })
        );
    }

    #[test]
    fn env_is_merged_by_name() {
        let config = image(r#"{"Cmd":["c"],"Env":["A=1","B=2","BARE","=x","A=3","E="]}"#);
        let env = words(&["B=b=b", "C=", "C=last"]);
        let got = merge(Some(&config), &Overrides { env, ..Overrides::default() }).unwrap().env;
        let path = format!("PATH={DEFAULT_PATH}");
        assert_eq!(got, words(&["A=3", "B=b=b", "E=", "C=last", &path]));

        let config = image(r#"{"Cmd":["c"],"Env":["PATH=/p"]}"#);
        assert_eq!(merge(Some(&config), &Overrides::default()).unwrap().env, words(&["PATH=/p"]));
    }

    #[test]
    fn cwd_is_absolute_and_clean() {
        let cases = [
            (r#"{"Cmd":["c"]}"#, None, "/"),
            (r#"{"Cmd":["c"],"WorkingDir":""}"#, None, "/"),
            (r#"{"Cmd":["c"],"WorkingDir":"/srv/./x/../y//"}"#, None, "/srv/y"),
            (r#"{"Cmd":["c"],"WorkingDir":"srv"}"#, None, "/srv"),
            (r#"{"Cmd":["c"],"WorkingDir":"/../../x"}"#, None, "/x"),
            (r#"{"Cmd":["c"],"WorkingDir":"/srv"}"#, Some("/w"), "/w"),
            (r#"{"Cmd":["c"],"WorkingDir":"/srv"}"#, Some(""), "/srv"),
        ];
        for (config, cwd, want) in cases {
            let overrides = Overrides { cwd: cwd.map(str::to_owned), ..Overrides::default() };
            assert_eq!(merge(Some(&image(config)), &overrides).unwrap().cwd, want, "{config}");
        }
        let overrides = Overrides { cwd: Some("w".into()), ..Overrides::default() };
        assert_eq!(
            merge(Some(&image(r#"{"Cmd":["c"]}"#)), &overrides),
            Err(ProcessError::RelativeCwd { cwd: "w".into() })
        );
    }

    #[test]
    fn the_users_user_wins() {
        let config = image(r#"{"Cmd":["c"],"User":"app:app"}"#);
        assert_eq!(merge(Some(&config), &Overrides::default()).unwrap().user, "app:app");
        let overrides = Overrides { user: Some("0".into()), ..Overrides::default() };
        assert_eq!(merge(Some(&config), &overrides).unwrap().user, "0");
        let bare = image(r#"{"Cmd":["c"]}"#);
        assert_eq!(merge(Some(&bare), &Overrides::default()).unwrap().user, "");
    }

    #[test]
    fn bare_names_take_the_callers_value() {
        let inherited = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        let got = environment(&words(&["TOKEN", "A=1", "NOPE", "B="]), &inherited).unwrap();
        assert_eq!(got, (words(&["TOKEN=s3cret", "A=1", "B="]), words(&["NOPE"])));
    }

    #[test]
    fn no_error_shows_a_value() {
        let inherited = |_: &str| Some("s3cret\0".to_owned());
        for entry in ["=s3cret", "A=s3cret\0", "TOKEN", ""] {
            let error = environment(&words(&[entry]), &inherited).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{entry:?}: {error:?}");
        }
        let overrides = Overrides { env: words(&["A=s3cret", "s3cret"]), ..Overrides::default() };
        assert!(!format!("{overrides:?}").contains("s3cret"));
        let error = merge(Some(&image(r#"{"Cmd":["c"]}"#)), &overrides).unwrap_err();
        assert_eq!(error, ProcessError::NoValue { position: 2 });
    }

    #[test]
    fn complete_adds_only_what_is_missing() {
        let mut env = words(&["HOME=/h"]);
        complete(&mut env, &[("HOME", "/root"), ("HOSTNAME", "demo")]);
        assert_eq!(env, words(&["HOME=/h", "HOSTNAME=demo"]));
    }
}
