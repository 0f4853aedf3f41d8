//! `health`: HTTP on TCP 9000. Any request is answered with one JSON object: the bottle's slug and
//! the state of each daemon that was selected.

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::unistd::gethostname;

use super::Daemon;
use crate::serve::{self, Bounds, Next, Service};
use crate::state::{State, parse_table};

pub(crate) const DAEMON: Daemon = Daemon { name: "health", reads_states: true, run };

const PORT: u16 = 9000;

/// The whole exchange with one client, however slowly it sends.
const BOUNDS: Bounds = Bounds { clients: 16, patience: Duration::from_secs(5), renewed: false };

/// The longest request head, in bytes.
const LONGEST: usize = 8 * 1024;

/// The environment variable with the bottle's slug.
const SLUG: &str = "CARBOY_SLUG";

struct Health {
    slug: String,
    states: Vec<(String, State)>,
    /// The supervisor's tables, a line each; `None` after their end.
    tables: Option<File>,
    /// The line that is not complete yet.
    partial: Vec<u8>,
}

enum Session {
    /// The head of the request so far.
    Reading(Vec<u8>),
    /// The answer, and how much of it is sent.
    Writing(Vec<u8>, usize),
    /// All is sent. What the client still sends is read and dropped until it closes: to close with
    /// unread data would reset the connection, and could take the answer with it.
    Draining,
}

fn run() -> io::Result<()> {
    let slug = match env::var_os(SLUG) {
        Some(slug) if !slug.is_empty() => slug,
        _ => gethostname()?,
    };
    let slug = slug.to_string_lossy().into_owned();
    let tables = Some(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    let service = Health { slug, states: Vec::new(), tables, partial: Vec::new() };
    serve::run(DAEMON.name, PORT, &BOUNDS, service)
}

impl Service for Health {
    type Session = Session;

    fn open(&self) -> Session {
        Session::Reading(Vec::new())
    }

    fn wants(session: &Session) -> PollFlags {
        match session {
            Session::Writing(..) => PollFlags::POLLOUT,
            Session::Reading(_) | Session::Draining => PollFlags::POLLIN,
        }
    }

    fn ready(&self, session: &mut Session, stream: &mut TcpStream) -> io::Result<Next> {
        let mut chunk = [0; 1024];
        match session {
            Session::Reading(head) => {
                let count = stream.read(&mut chunk)?;
                head.extend_from_slice(&chunk[..count]);
                // A client that ends its half early has asked all the same.
                if count == 0 && head.is_empty() {
                    return Ok(Next::Close);
                }
                if count == 0 || is_complete(head) || head.len() > LONGEST {
                    let body = body(&self.slug, &self.states);
                    *session = Session::Writing(response(head, &body), 0);
                }
            }
            Session::Writing(answer, sent) => {
                *sent += stream.write(&answer[*sent..])?;
                if *sent == answer.len() {
                    stream.shutdown(Shutdown::Write)?;
                    *session = Session::Draining;
                }
            }
            Session::Draining => {
                if stream.read(&mut chunk)? == 0 {
                    return Ok(Next::Close);
                }
            }
        }
        Ok(Next::Stay)
    }

    fn side_input(&self) -> Option<BorrowedFd<'_>> {
        self.tables.as_ref().map(AsFd::as_fd)
    }

    fn side_ready(&mut self) {
        let Some(tables) = &mut self.tables else { return };
        let mut chunk = [0; 1024];
        match tables.read(&mut chunk) {
            Ok(count) if count > 0 => {
                self.partial.extend_from_slice(&chunk[..count]);
                if let Some(states) = newest(&mut self.partial) {
                    self.states = states;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The supervisor is gone, or there was none: the states stay as they were.
            Ok(_) | Err(_) => self.tables = None,
        }
    }
}

/// Takes the complete lines out of `input`; the table of the last one.
fn newest(input: &mut Vec<u8>) -> Option<Vec<(String, State)>> {
    let end = input.iter().rposition(|&byte| byte == b'\n')?;
    let lines: Vec<u8> = input.drain(..=end).collect();
    let last = lines[..end].rsplit(|&byte| byte == b'\n').next()?;
    Some(parse_table(&String::from_utf8_lossy(last)))
}

/// True if the head of a request has come to its end, the empty line.
fn is_complete(head: &[u8]) -> bool {
    let ends_with = |end: &[u8]| head.windows(end.len()).any(|window| window == end);
    ends_with(b"\r\n\r\n") || ends_with(b"\n\n")
}

/// The whole answer to a request with this head (RFC 9110, 9112).
fn response(head: &[u8], body: &str) -> Vec<u8> {
    let status = if head.len() > LONGEST && !is_complete(head) {
        "431 Request Header Fields Too Large"
    } else {
        "200 OK"
    };
    let length = body.len();
    let body = if head.starts_with(b"HEAD ") { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\n\
         Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\
         Cache-Control: no-store\r\n\
         Connection: close\r\n\
         \r\n\
         {body}"
    )
    .into_bytes()
}

/// The JSON object: `{"slug":"…","daemons":{"name":"state",…}}`.
fn body(slug: &str, states: &[(String, State)]) -> String {
    let daemons: Vec<String> = states
        .iter()
        .map(|(name, state)| format!("{}:{}", quoted(name), quoted(&state.to_string())))
        .collect();
    format!("{{\"slug\":{},\"daemons\":{{{}}}}}\n", quoted(slug), daemons.join(","))
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            // Writing to a String cannot fail.
            control if control < ' ' => drop(write!(json, "\\u{:04x}", u32::from(control))),
            other => json.push(other),
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Ending;

    #[test]
    fn bodies() {
        assert_eq!(body("a-1", &[]), "{\"slug\":\"a-1\",\"daemons\":{}}\n");
        let states = [
            ("health".to_owned(), State::Running),
            ("echo".to_owned(), State::Ended(Ending::Signalled(9))),
        ];
        assert_eq!(
            body("a\"\\\n", &states),
            "{\"slug\":\"a\\\"\\\\\\u000a\",\"daemons\":{\"health\":\"running\",\"echo\":\"signal 9\"}}\n"
        );
    }

    #[test]
    fn responses() {
        let long = vec![b'x'; LONGEST + 1];
        for (head, status, body) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "200 OK", "body"),
            (b"HEAD / HTTP/1.1\r\n\r\n", "200 OK", ""),
            (b"nonsense", "200 OK", "body"),
            (&long, "431 Request Header Fields Too Large", "body"),
        ] {
            let answer = String::from_utf8(response(head, "body")).expect("text");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert!(answer.contains("\r\nContent-Length: 4\r\n"), "{answer}");
            assert!(answer.ends_with(&format!("\r\n\r\n{body}")), "{answer}");
        }
    }

    #[test]
    fn heads() {
        for (head, want) in [
            (&b""[..], false),
            (b"GET / HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\r\n\r\n", true),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", true),
            (b"GET / HTTP/1.0\n\n", true),
        ] {
            assert_eq!(is_complete(head), want);
        }
    }

    #[test]
    fn the_newest_table_counts() {
        let mut input = b"a running\na exited 1\nb run".to_vec();
        assert_eq!(
            newest(&mut input),
            Some(vec![("a".to_owned(), State::Ended(Ending::Exited(1)))])
        );
        assert_eq!(input, b"b run");
        assert_eq!(newest(&mut input), None);
    }
}
