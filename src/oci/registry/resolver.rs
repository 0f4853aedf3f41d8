//! Host names to addresses: `/etc/hosts`, then the servers of `/etc/resolv.conf`.
//!
//! The C library's resolver loads plug-ins of the very version it was built with, which a static
//! binary does not find on other distributions. Sources: hosts(5), resolv.conf(5), RFC 6761.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::dns::{self, Answer, Kind};
use super::name::bare;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// As resolv.conf(5) has them.
const SERVERS_MAX: usize = 3;
const ATTEMPTS: u32 = 2;
const ATTEMPT: Duration = Duration::from_secs(5);

/// Addresses that are tried.
const ADDRESSES_MAX: usize = 16;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("there is no such name")]
    NoName,
    #[error("none of the servers in /etc/resolv.conf can tell ({servers})")]
    NoAnswer { servers: String },
}

/// Looks names up, afresh each time.
#[derive(Debug, Default)]
pub(super) struct HostResolver;

impl Resolver for HostResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let standard = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(standard);
        let read = |path| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let limit = (*timeout.after).min(Duration::from_secs(60));
        let lookup = Lookup {
            hosts: read(HOSTS),
            settings: Settings::parse(&read(RESOLV_CONF)),
            end: Instant::now() + limit,
        };
        let found = lookup.addresses(bare(host)).map_err(|e| ureq::Error::Other(Box::new(e)))?;
        let mut addresses = self.empty();
        for address in found.into_iter().take(ADDRESSES_MAX) {
            addresses.push(SocketAddr::new(address, port));
        }
        Ok(addresses)
    }
}

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with so many dots is tried as it is first.
    dots: usize,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let (mut servers, mut search, mut dots) = (Vec::new(), Vec::new(), 1);
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // One with a zone (`fe80::1%eth0`) is left out.
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    servers.extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let number = words.find_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    dots = number.map_or(dots, |number: usize| number.min(15));
                }
                _ => {}
            }
        }
        servers.truncate(SERVERS_MAX);
        if servers.is_empty() {
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        Self { servers, search, dots }
    }

    /// The names to try for `name`, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let mut all: Vec<String> =
            self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let as_it_is = if name.matches('.').count() >= self.dots { 0 } else { all.len() };
        all.insert(as_it_is, name.to_owned());
        all
    }
}

struct Lookup {
    hosts: String,
    settings: Settings,
    end: Instant,
}

impl Lookup {
    /// The addresses of a name or of an address; IPv4 first.
    fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let listed = listed(&self.hosts, host);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let plain = host.trim_end_matches('.').to_ascii_lowercase();
        if plain == "localhost" || plain.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        for name in self.settings.candidates(host) {
            let mut found = Vec::new();
            for kind in [Kind::V4, Kind::V6] {
                match self.ask_all(&name, kind) {
                    Ok(addresses) => found.extend(addresses),
                    Err(LookupError::NoName) => break,
                    // What is known of one kind is enough.
                    Err(_) if !found.is_empty() => break,
                    Err(error) => return Err(error),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(LookupError::NoName)
    }

    /// Asks one server after the other, until one can tell.
    fn ask_all(&self, name: &str, kind: Kind) -> Result<Vec<IpAddr>, LookupError> {
        for _ in 0..ATTEMPTS {
            for server in &self.settings.servers {
                match self.ask(*server, name, kind) {
                    Ok(Answer::Addresses(addresses)) => return Ok(addresses),
                    Ok(Answer::NoName) => return Err(LookupError::NoName),
                    // The next server may know more.
                    Ok(Answer::Failed | Answer::Truncated) | Err(_) => {}
                }
            }
        }
        let servers = self.settings.servers.iter().map(|server| server.ip().to_string());
        Err(LookupError::NoAnswer { servers: servers.collect::<Vec<_>>().join(", ") })
    }

    /// Asks one server, by a datagram, and by TCP what does not fit into one.
    fn ask(&self, server: SocketAddr, name: &str, kind: Kind) -> io::Result<Answer> {
        let mut id = [0; 2];
        rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
        let Some(question) = dns::question(u16::from_be_bytes(id), name, kind) else {
            return Ok(Answer::NoName);
        };
        let own: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Connected: the kernel drops what others send.
        let socket = UdpSocket::bind((own, 0))?;
        socket.connect(server)?;
        socket.send(&question)?;
        let end = self.end.min(Instant::now() + ATTEMPT);
        let mut buffer = [0; 4096];
        loop {
            socket.set_read_timeout(Some(left(end)?))?;
            let length = socket.recv(&mut buffer)?;
            match dns::answer(&buffer[..length], &question, kind) {
                Some(Answer::Truncated) => return ask_by_tcp(server, &question, kind, end),
                Some(answer) => return Ok(answer),
                // A late answer to an earlier question, or a stranger's guess.
                None => {}
            }
        }
    }
}

/// RFC 1035, 4.2.2: the length goes first.
fn ask_by_tcp(server: SocketAddr, question: &[u8], kind: Kind, end: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, left(end)?)?;
    stream.set_read_timeout(Some(left(end)?))?;
    stream.set_write_timeout(Some(left(end)?))?;
    let length = u16::try_from(question.len()).unwrap_or_default();
    stream.write_all(&[&length.to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(dns::answer(&message, question, kind).unwrap_or(Answer::Failed))
}

/// The time until `end`.
fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The addresses that `/etc/hosts` gives a name, IPv4 first.
fn listed(hosts: &str, name: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in hosts.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) {
            found.push(address);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_comes_first() {
        let hosts = "# 1.1.1.1 a\n::1 Own own.alias # a\n192.0.2.1\town\nx own\n";
        let want: Vec<IpAddr> = vec![[192, 0, 2, 1].into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(listed(hosts, "own"), want);
        assert_eq!(listed(hosts, "OWN.alias"), want[1..]);
        assert_eq!(listed(hosts, "a"), Vec::<IpAddr>::new());
    }

    #[test]
    fn settings_are_read() {
        let text = "; c\nnameserver 192.0.2.1\nnameserver ::1\nnameserver fe80::1%eth0\n\
                    domain x\nsearch a.b c\noptions edns0 ndots:2\n";
        let settings = Settings::parse(text);
        let servers = ["192.0.2.1:53", "[::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(settings.servers, servers);
        assert_eq!(settings.candidates("r.d"), ["r.d.a.b", "r.d.c", "r.d"]);
        assert_eq!(settings.candidates("x.r.d"), ["x.r.d", "x.r.d.a.b", "x.r.d.c"]);
        assert_eq!(settings.candidates("r."), ["r."]);
        assert_eq!(Settings::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(Settings::parse("").candidates("r"), ["r"]);
    }

    /// A server that knows `registry.test` and gives each answer too early, too, to a question
    /// nobody asked; it is asked again by TCP for `large.test`.
    fn server() -> SocketAddr {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let mut message = reply(&buffer[..length]);
                if message.windows(5).any(|part| part == b"large") {
                    message[2] |= 0x02;
                }
                let mut wrong = message.clone();
                wrong[0] ^= 0xff;
                udp.send_to(&wrong, from).unwrap();
                udp.send_to(&message, from).unwrap();
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let mut question = [0; 512];
                let length = stream.read(&mut question).unwrap();
                let message = reply(&question[2..length]);
                stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&message).unwrap();
            }
        });
        address
    }

    fn reply(question: &[u8]) -> Vec<u8> {
        let mut message = question.to_vec();
        let known = message.windows(5).any(|part| part == *b"\x04test");
        message[2..4].copy_from_slice(if known { &[0x81, 0x80] } else { &[0x81, 0x83] });
        // An IPv4 address; of the other kind there is none.
        if known && question[question.len() - 3] == 1 {
            message[7] = 1;
            message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
        }
        message
    }

    #[test]
    fn servers_are_asked() {
        let settings = Settings {
            // The first one answers nobody.
            servers: vec!["127.0.0.1:1".parse().unwrap(), server()],
            search: vec!["none".to_owned(), "test".to_owned()],
            dots: 1,
        };
        let end = Instant::now() + Duration::from_secs(20);
        let lookup = Lookup { hosts: String::new(), settings, end };
        let want: Vec<IpAddr> = vec![[192, 0, 2, 7].into()];
        for name in ["registry.test", "registry", "large.test"] {
            assert_eq!(lookup.addresses(name).unwrap(), want, "{name}");
        }
        assert!(matches!(lookup.addresses("other.example."), Err(LookupError::NoName)));
        assert_eq!(lookup.addresses("192.0.2.9").unwrap(), [IpAddr::from([192, 0, 2, 9])]);
        assert_eq!(lookup.addresses("Localhost").unwrap()[0], Ipv4Addr::LOCALHOST);
        let settings =
            Settings { servers: vec!["127.0.0.1:1".parse().unwrap()], ..lookup.settings };
        let error = Lookup { settings, ..lookup }.addresses("registry.test").unwrap_err();
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}
