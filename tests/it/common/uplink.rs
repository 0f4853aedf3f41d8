//! The world outside a test host: a second network namespace behind a veth pair, with the
//! documentation addresses of RFC 5737, and servers that say whom they see.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::host::{clean, wait_ready};
use super::wire::Wire;
use super::{netns, output::Output, poll};

/// The outside's own address, the host's default gateway.
pub(crate) const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The host's address on the uplink.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The same for IPv6 (RFC 3849), once there is any.
pub(crate) const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The host's IPv6 address on the uplink.
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The host's end of the veth pair.
pub(crate) const DEVICE: &str = "up0";

/// Holds the namespace until its standard input closes.
const HOLDER: &str =
    r#"read -r pid _ </proc/self/stat; ip link set lo up; echo "ready $pid"; read -r _"#;

/// The second namespace; goes when dropped, and the veth pair with it.
#[derive(Debug)]
pub(crate) struct Uplink {
    holder: Child,
    pid: u32,
    home: PathBuf,
}

impl Uplink {
    /// Connects the host whose PID 1 is `init`.
    pub(crate) fn new(init: u32, home: &Path) -> Self {
        let mut command = clean(Command::new("unshare"), home);
        command.args(["--net", "bash", "-c", HOLDER]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        let pid = wait_ready(&mut holder, "the uplink");
        let uplink = Self { holder, pid, home: home.to_owned() };
        let init = init.to_string();
        for words in [
            format!("ip link add out0 type veth peer name {DEVICE} netns {init}"),
            format!("ip address add {OUTSIDE}/24 dev out0"),
            "ip link set out0 up".to_owned(),
        ] {
            uplink.run(&words.split(' ').collect::<Vec<_>>()).ok();
        }
        for words in [
            format!("ip address add {HOST}/24 dev {DEVICE}"),
            format!("ip link set {DEVICE} up"),
            format!("ip route add default via {OUTSIDE}"),
        ] {
            nsenter(&init, &words.split(' ').collect::<Vec<_>>(), home).ok();
        }
        // The first packets over a fresh veth pair may be lost.
        let listener = uplink.bind(OUTSIDE.into());
        let to = listener.local_addr().unwrap();
        let inside = netns::of_pid(init.parse().unwrap());
        let limit = Duration::from_millis(500);
        let connected = poll(Duration::from_secs(5), || netns::connect(&inside, to, limit).is_ok());
        assert!(connected, "the uplink carries nothing");
        uplink
    }

    /// Runs a command outside.
    pub(crate) fn run(&self, command: &[&str]) -> Output {
        nsenter(&self.pid.to_string(), command, &self.home)
    }

    /// Gives both ends IPv6 addresses, and the host whose PID 1 is `init` an IPv6 default route.
    pub(crate) fn add_ipv6(&self, init: u32) {
        let outside = format!("ip address add {OUTSIDE6}/64 dev out0 nodad");
        self.run(&outside.split(' ').collect::<Vec<_>>()).ok();
        for words in [
            format!("ip address add {HOST6}/64 dev {DEVICE} nodad"),
            format!("ip route add default via {OUTSIDE6}"),
        ] {
            nsenter(&init.to_string(), &words.split(' ').collect::<Vec<_>>(), &self.home).ok();
        }
    }

    /// Takes a device out of the network of the host whose PID 1 is `init`.
    pub(crate) fn adopt(&self, init: u32, device: &str) {
        let pid = self.pid.to_string();
        let command = ["ip", "link", "set", device, "netns", &pid];
        nsenter(&init.to_string(), &command, &self.home).ok();
    }

    /// Starts an HTTP server on a free port that answers everything with the address it sees.
    pub(crate) fn serve_peer_address(&self) -> SocketAddr {
        self.serve_peer_address_at(OUTSIDE.into())
    }

    /// The same at another address.
    pub(crate) fn serve_peer_address_at(&self, ip: IpAddr) -> SocketAddr {
        let listener = self.bind(ip);
        let address = listener.local_addr().unwrap();
        // It ends with the test process: accept has no deadline, and the thread costs nothing.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up early is not the server's failure.
                drop(answer(stream));
            }
        });
        address
    }

    /// One attempt to connect from outside.
    pub(crate) fn tcp(&self, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
        netns::connect(&netns::of_pid(self.pid), to.into(), Duration::from_secs(1))
    }

    /// Its network namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        netns::of_pid(self.pid)
    }

    /// Its end of the wire to the host.
    pub(crate) fn wire(&self) -> Wire {
        Wire::new(&self.netns(), "out0")
    }

    fn bind(&self, ip: IpAddr) -> TcpListener {
        netns::inside(&netns::of_pid(self.pid), || TcpListener::bind((ip, 0)).unwrap())
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}

fn nsenter(pid: &str, command: &[&str], home: &Path) -> Output {
    let mut nsenter = clean(Command::new("nsenter"), home);
    nsenter.args(["--target", pid, "--net", "--"]).args(command);
    Output::of(nsenter, command.join(" "), None)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = [0; 4096];
    let _length = stream.read(&mut request)?;
    let body = format!("{}\n", stream.peer_addr()?.ip());
    let length = body.len();
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{body}")
}
