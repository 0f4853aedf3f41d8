//! A TCP server for daemons with few and short-lived clients: one thread, one poll loop, a bound on
//! clients, and a bound on how long each may take.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{self, sockopt};

use crate::log;
use crate::signals::{Signals, is_ready, until, wait};

/// How long to leave new clients alone after one could not be accepted for lack of memory or
/// descriptors: the listener would be ready again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The network namespace's IPv6 addresses; empty, or not there, where it has no IPv6.
const ADDRESSES6: &str = "/proc/self/net/if_inet6";

/// How many clients may wait to be accepted; as std's own listeners.
const BACKLOG: i32 = 128;

/// What a daemon does with its clients.
pub(crate) trait Service {
    /// What it knows of one client.
    type Session;

    /// A client has come.
    fn open(&self) -> Self::Session;

    /// What it waits for on this client's stream: to read or to write.
    fn wants(session: &Self::Session) -> PollFlags;

    /// The stream is ready for that. It does not block. An error closes the connection.
    fn ready(&self, session: &mut Self::Session, stream: &mut TcpStream) -> io::Result<Next>;

    /// Something else to wait for.
    fn side_input(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// [`Service::side_input`] is ready.
    fn side_ready(&mut self) {}
}

/// What becomes of a client.
#[derive(PartialEq)]
pub(crate) enum Next {
    /// It stays.
    Stay,
    /// The connection is closed.
    Close,
}

/// The bounds on clients.
pub(crate) struct Bounds {
    /// So many at once; more have to wait in the listen queue.
    pub(crate) clients: usize,
    /// How long a client may stay.
    pub(crate) patience: Duration,
    /// The patience begins anew whenever the client sends or takes something.
    pub(crate) renewed: bool,
}

struct Client<S> {
    stream: TcpStream,
    session: S,
    deadline: Instant,
}

/// Where the daemon `name` listens: what `SIDECARS_<NAME>_LISTEN` says (`ADDRESS:PORT`), else `port`
/// on all addresses.
fn address(name: &str, port: u16) -> io::Result<SocketAddr> {
    let variable = format!("SIDECARS_{}_LISTEN", name.to_uppercase());
    let Some(text) = env::var_os(&variable) else {
        return Ok(match fs::read_to_string(ADDRESSES6) {
            Ok(addresses) if !addresses.is_empty() => (Ipv6Addr::UNSPECIFIED, port).into(),
            _ => (Ipv4Addr::UNSPECIFIED, port).into(),
        });
    };
    let text = text.to_string_lossy();
    let invalid = |_| {
        let message = format!("{variable}: {text:?} is no ADDRESS:PORT");
        io::Error::new(ErrorKind::InvalidInput, message)
    };
    text.parse().map_err(invalid)
}

/// A listener that, on all IPv6 addresses, takes IPv4 too, whatever the host's default is.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let SocketAddr::V6(address6) = address else { return TcpListener::bind(address) };
    let kind = socket::SockType::Stream;
    let flags = socket::SockFlag::SOCK_CLOEXEC;
    let socket = socket::socket(socket::AddressFamily::Inet6, kind, flags, None)?;
    socket::setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::bind(socket.as_raw_fd(), &socket::SockaddrIn6::from(address6))?;
    socket::listen(&socket, socket::Backlog::new(BACKLOG)?)?;
    Ok(TcpListener::from(socket))
}

/// Serves clients until SIGTERM or SIGINT, and then drops them.
///
/// # Errors
/// The address is invalid or in use, or a poll fails; clients that fail are no error.
pub(crate) fn run<S: Service>(
    name: &str,
    port: u16,
    bounds: &Bounds,
    mut service: S,
) -> io::Result<()> {
    let signals = Signals::take()?;
    // A daemon without its supervisor would hold the port for nobody.
    set_pdeathsig(Signal::SIGKILL)?;
    let address = address(name, port)?;
    let listener = listen(address)
        .map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))?;
    listener.set_nonblocking(true)?;
    log::info(format_args!("listening on {}", listener.local_addr()?));

    let mut clients: Vec<Client<S::Session>> = Vec::with_capacity(bounds.clients);
    loop {
        // The order of the descriptors: signals, listener, side input, clients.
        let mut fds = Vec::with_capacity(3 + clients.len());
        fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        let accepts = clients.len() < bounds.clients;
        let listens = if accepts { PollFlags::POLLIN } else { PollFlags::empty() };
        fds.push(PollFd::new(listener.as_fd(), listens));
        let side = service.side_input();
        let has_side = side.is_some();
        fds.extend(side.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        fds.extend(clients.iter().map(|c| PollFd::new(c.stream.as_fd(), S::wants(&c.session))));
        wait(&mut fds, until(clients.iter().map(|client| client.deadline).min()))?;

        let mut ready = fds.iter().map(is_ready).collect::<Vec<_>>().into_iter();
        let mut next_ready = || ready.next() == Some(true);
        let (signalled, called) = (next_ready(), next_ready());
        if has_side && next_ready() {
            service.side_ready();
        }
        clients.retain_mut(|client| client.serve(next_ready(), &service, bounds));
        if called {
            accept(&listener, &service, bounds, &mut clients);
        }
        if signalled && stops(&signals)? {
            return Ok(());
        }
    }
}

impl<S> Client<S> {
    /// Goes on with a client that may be ready; false if it is to be closed.
    fn serve<V: Service<Session = S>>(
        &mut self,
        ready: bool,
        service: &V,
        bounds: &Bounds,
    ) -> bool {
        let now = Instant::now();
        if !ready {
            return now < self.deadline;
        }
        if bounds.renewed {
            self.deadline = now + bounds.patience;
        }
        match service.ready(&mut self.session, &mut self.stream) {
            Ok(next) => next == Next::Stay && now < self.deadline,
            Err(error) => [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()),
        }
    }
}

/// Accepts one client; another one is there when the poll says so.
fn accept<S: Service>(
    listener: &TcpListener,
    service: &S,
    bounds: &Bounds,
    clients: &mut Vec<Client<S::Session>>,
) {
    let accepted =
        listener.accept().and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream));
    match accepted {
        Ok(stream) => {
            let deadline = Instant::now() + bounds.patience;
            clients.push(Client { stream, session: service.open(), deadline });
        }
        // The client has gone again.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
        Err(error) => {
            log::error(format_args!("cannot accept: {error}"));
            thread::sleep(ACCEPT_PAUSE);
        }
    }
}

/// Takes the signals that came; true if one asks to stop.
fn stops(signals: &Signals) -> io::Result<bool> {
    while let Some(signal) = signals.next()? {
        match signal.number {
            libc::SIGTERM | libc::SIGINT => return Ok(true),
            libc::SIGHUP => log::error(format_args!("reload: there is nothing to reload")),
            _ => {}
        }
    }
    Ok(false)
}
