//! What became of a child process, and the one-line form in which the supervisor tells it to a
//! daemon that asked for it. Pure.

use std::fmt;
use std::str::FromStr;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal, with this number.
    Signalled(i32),
}

impl Ending {
    /// The exit code a shell would show: the process's own, or 128 and the signal's number.
    pub(crate) fn exit_code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => 128 + signal,
        };
        // wait(2) gives 8 bits of exit code, and signals stop at 64.
        u8::try_from(code & 0xff).unwrap_or(u8::MAX)
    }
}

/// The state of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has been started and not been reaped.
    Running,
    /// It ended and stays so.
    Ended(Ending),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Ended(Ending::Exited(code)) => write!(f, "exited {code}"),
            Self::Ended(Ending::Signalled(signal)) => write!(f, "signal {signal}"),
        }
    }
}

/// A text that is no [`State`].
#[derive(Debug, PartialEq)]
pub(crate) struct NoState;

impl FromStr for State {
    type Err = NoState;

    fn from_str(text: &str) -> Result<Self, NoState> {
        match text.split_once(' ') {
            None if text == "running" => Ok(Self::Running),
            Some(("exited", n)) => {
                n.parse().map(|n| Self::Ended(Ending::Exited(n))).map_err(|_| NoState)
            }
            Some(("signal", n)) => {
                n.parse().map(|n| Self::Ended(Ending::Signalled(n))).map_err(|_| NoState)
            }
            _ => Err(NoState),
        }
    }
}

/// The states of all daemons as one line, `name state;name state\n`. A line is always the whole
/// table, so a reader needs only the newest one.
pub(crate) fn format_table<'a>(states: impl Iterator<Item = (&'a str, State)>) -> String {
    let entries: Vec<String> = states.map(|(name, state)| format!("{name} {state}")).collect();
    entries.join(";") + "\n"
}

/// Reads a line of [`format_table`], with or without its end; entries that make no sense are left out.
pub(crate) fn parse_table(line: &str) -> Vec<(String, State)> {
    line.trim_end()
        .split(';')
        .filter_map(|entry| entry.split_once(' '))
        .filter_map(|(name, state)| Some((name.to_owned(), state.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_reads_back() {
        let states = [
            ("a", State::Running),
            ("b", State::Ended(Ending::Exited(3))),
            ("c", State::Ended(Ending::Signalled(9))),
        ];
        let line = format_table(states.into_iter());
        assert_eq!(line, "a running;b exited 3;c signal 9\n");
        let owned: Vec<_> = states.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect();
        assert_eq!(parse_table(&line), owned);
        assert_eq!(parse_table("\n"), []);
        assert_eq!(parse_table("a asleep;b exited x;c running"), [("c".into(), State::Running)]);
    }

    #[test]
    fn exit_codes() {
        for (ending, want) in [
            (Ending::Exited(0), 0),
            (Ending::Exited(255), 255),
            (Ending::Signalled(9), 137),
            (Ending::Signalled(64), 192),
        ] {
            assert_eq!(ending.exit_code(), want);
        }
    }
}
