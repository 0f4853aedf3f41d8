//! Waiting until a bundle's daemons can be reached: what `up` promises when it returns.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{BottleState, Engine, Error};
use crate::names::Slug;
use crate::plan::BottleView;

/// How long the daemons may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one attempt may take; the pinned address answers at once or is refused at once.
const ATTEMPT: Duration = Duration::from_millis(250);
/// How many of the log's last lines go into an error.
const LOG_LINES: usize = 5;

impl Engine {
    /// Waits until each of the ports takes a connection from the host.
    ///
    /// # Errors
    /// The bundle ended before, or was not ready in time; it is left as it is, to be looked at.
    pub(super) fn await_ready(&self, view: &BottleView, ports: &[u16]) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        for port in ports {
            let address = SocketAddr::from((view.bundle_ip, *port));
            let mut pause = Duration::from_micros(200);
            while let Err(refusal) = TcpStream::connect_timeout(&address, ATTEMPT) {
                let status = self.inspect(&view.slug)?;
                // One that is started again by its policy may yet be.
                if !matches!(status.state, BottleState::Running | BottleState::Restarting) {
                    return Err(Error::EndedEarly {
                        slug: view.slug.to_string(),
                        exit_code: status.exit_code,
                        log: self.last_lines(&view.slug),
                    });
                }
                if Instant::now() >= deadline {
                    return Err(Error::NotReady {
                        slug: view.slug.to_string(),
                        port: *port,
                        log: self.last_lines(&view.slug),
                        source: refusal,
                    });
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Makes sure that the bundle has not failed since it was started; what the user should know
    /// if it has ended well.
    ///
    /// # Errors
    /// It ended with an exit code other than 0.
    pub(super) fn check_alive(&self, slug: &Slug) -> Result<Option<String>, Error> {
        let status = self.inspect(slug)?;
        if status.state != BottleState::Exited {
            return Ok(None);
        }
        match status.exit_code {
            Some(0) => Ok(Some("its program has ended already, with exit code 0".to_owned())),
            exit_code => Err(Error::EndedEarly {
                slug: slug.to_string(),
                exit_code,
                log: self.last_lines(slug),
            }),
        }
    }

    /// The last lines of the log, for an error: best effort.
    fn last_lines(&self, slug: &Slug) -> String {
        let mut lines = std::collections::VecDeque::new();
        let Ok(mut reader) = self.log(slug) else { return String::new() };
        while let Ok(Some(line)) = reader.next_line() {
            lines.push_back(String::from_utf8_lossy(&line.text).into_owned());
            if lines.len() > LOG_LINES {
                lines.pop_front();
            }
        }
        lines.into_iter().collect::<Vec<_>>().join(" | ")
    }
}
