//! Signals as images and users write them (`STOPSIGNAL`, `--stop-signal`). Pure.

use crate::error::{Classify, ErrorKind};

/// A word that names no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{signal:?} is no signal")]
pub struct SignalError {
    /// The word.
    pub signal: String,
}

impl Classify for SignalError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some("give a name (TERM or SIGTERM, RTMIN+3) or a number from 1 to 64".to_owned())
    }
}

/// The first real-time signal a program may use. The kernel's is 32, but C libraries keep two for
/// themselves (signal(7)); Docker counts from here as well.
const RTMIN: i32 = 34;

/// The last signal of the kernel (`_NSIG`).
const RTMAX: i32 = 64;

const NAMES: &[(&str, i32)] = &[
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// The number of a signal: a name with or without `SIG`, in either case, or a number.
///
/// # Errors
/// [`SignalError`] names the word.
pub fn parse(signal: &str) -> Result<i32, SignalError> {
    number(signal).ok_or_else(|| SignalError { signal: signal.chars().take(40).collect() })
}

fn number(signal: &str) -> Option<i32> {
    if let Some(n) = digits(signal) {
        return (1..=RTMAX).contains(&n).then_some(n);
    }
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, n)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*n);
    }
    let n = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => RTMIN,
        (_, Some("")) => RTMAX,
        (Some(offset), _) => RTMIN.checked_add(digits(offset.strip_prefix('+')?)?)?,
        (_, Some(offset)) => RTMAX.checked_sub(digits(offset.strip_prefix('-')?)?)?,
        (None, None) => return None,
    };
    (RTMIN..=RTMAX).contains(&n).then_some(n)
}

/// Only digits: `parse` would also take a sign.
fn digits(text: &str) -> Option<i32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_signal() {
        let cases = [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("term", 15),
            ("15", 15),
            ("SIGKILL", 9),
            ("USR1", 10),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMIN+3", 37),
            ("RTMAX-14", 50),
            ("RTMIN+30", 64),
            ("64", 64),
        ];
        for (text, n) in cases {
            assert_eq!(parse(text), Ok(n), "{text}");
        }
    }

    #[test]
    fn the_error_names_the_word() {
        let bad = [
            "",
            "0",
            "65",
            "-1",
            "+9",
            "SIG",
            "FOO",
            "RTMIN+31",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+",
            "99999999999",
            "RTMIN++1",
        ];
        for text in bad {
            assert_eq!(parse(text), Err(SignalError { signal: text.to_owned() }), "{text}");
        }
    }
}
