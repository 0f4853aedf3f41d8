//! `echo`: TCP 9001 sends back what it gets (RFC 862), until the client's end of data. It shows
//! that a bottle reaches its bundle, and serves as the smallest example of a daemon.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use nix::poll::PollFlags;

use super::Daemon;
use crate::serve::{self, Bounds, Next, Service};

pub(crate) const DAEMON: Daemon = Daemon { name: "echo", reads_states: false, run };

const PORT: u16 = 9001;

/// A client that neither sends nor takes anything for so long is gone.
const BOUNDS: Bounds = Bounds { clients: 32, patience: Duration::from_secs(300), renewed: true };

const CHUNK: usize = 16 * 1024;

struct Echo;

/// What was read and has yet to be sent back. Nothing more is read before that.
struct Session {
    buffer: Box<[u8]>,
    sent: usize,
    filled: usize,
}

fn run() -> io::Result<()> {
    serve::run(DAEMON.name, PORT, &BOUNDS, Echo)
}

impl Service for Echo {
    type Session = Session;

    fn open(&self) -> Session {
        Session { buffer: vec![0; CHUNK].into_boxed_slice(), sent: 0, filled: 0 }
    }

    fn wants(session: &Session) -> PollFlags {
        if session.sent < session.filled { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    fn ready(&self, session: &mut Session, stream: &mut TcpStream) -> io::Result<Next> {
        if session.sent == session.filled {
            session.sent = 0;
            session.filled = stream.read(&mut session.buffer)?;
            if session.filled == 0 {
                return Ok(Next::Close);
            }
        }
        // There is room as a rule; if not, the poll says when.
        session.sent += stream.write(&session.buffer[session.sent..session.filled])?;
        Ok(Next::Stay)
    }
}
