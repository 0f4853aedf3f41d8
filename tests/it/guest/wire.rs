//! Frames as they are on a wire: sent and seen by packet sockets, beside the network stack.

#![allow(unsafe_code, reason = "nix has no address of a packet socket that can be made")]

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::common::netns;

/// Every frame of one interface.
pub(crate) struct Wire(std::fs::File);

impl Wire {
    /// Opens the interface of a namespace.
    pub(crate) fn open(namespace: &Path, interface: &str) -> Self {
        netns::inside(namespace, || {
            let all = SockProtocol::EthAll;
            let flags = SockFlag::SOCK_CLOEXEC;
            let fd = socket(AddressFamily::Packet, SockType::Raw, flags, all).unwrap();
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50)).unwrap();
            let index = nix::net::if_::if_nametoindex(interface).unwrap();
            // SAFETY: an all-zero sockaddr_ll is a valid value of that plain struct.
            let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
            address.sll_ifindex = i32::try_from(index).unwrap();
            let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
            // SAFETY: the address is a sockaddr_ll of this length, alive during the call.
            let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
            assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
            Self(std::fs::File::from(fd))
        })
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.0.write_all(frame).unwrap();
    }

    /// The text marks of all frames up to the one marked `last`, which must come.
    #[track_caller]
    pub(crate) fn marks_until(&mut self, last: &str) -> Vec<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let (mut marks, mut buffer) = (Vec::new(), [0; 2048]);
        while Instant::now() < deadline {
            let Ok(length) = self.0.read(&mut buffer) else { continue };
            let Some(mark) = mark_of(&buffer[..length]) else { continue };
            let found = mark == last;
            marks.push(mark);
            if found {
                return marks;
            }
        }
        panic!("{last:?} does not arrive, only {marks:?}");
    }
}

/// What [`marked`] put at a frame's end.
fn mark_of(frame: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(frame).into_owned();
    // From the end: a byte of a header, such as IP's counter, may look like either.
    let (rest, _) = text.rsplit_once('>')?;
    rest.rsplit_once('<').map(|(_, mark)| mark.to_owned())
}

/// The same bytes with a mark at their end.
pub(crate) fn marked(bytes: Vec<u8>, mark: &str) -> Vec<u8> {
    let mut all = bytes;
    all.extend(format!("<{mark}>").bytes());
    // The shortest frame without its checksum.
    all.resize(all.len().max(60), 0);
    all
}

/// An Ethernet address as text in bytes.
pub(crate) fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// What an Ethernet frame begins with.
pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes()].concat()
}

/// An IPv4 packet with a right checksum; `fragment` is the flags and offset.
pub(crate) fn ipv4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 7, fragment[0], fragment[1], 64, protocol, 0, 0];
    let mut header = [&head[..], &from.octets(), &to.octets()].concat();
    let pairs = header.chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]])));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = (!u16::try_from(sum).unwrap()).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    [&header[..], payload].concat()
}

/// SYN alone.
pub(crate) const SYN: u8 = 0x02;
/// SYN and ACK.
pub(crate) const SYN_ACK: u8 = 0x12;

/// A TCP segment with these flags and a mark.
pub(crate) fn tcp(from: u16, to: u16, flags: u8, mark: &str) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(format!("<{mark}>").bytes());
    segment
}

/// A UDP datagram with a mark.
pub(crate) fn udp(from: u16, to: u16, mark: &str) -> Vec<u8> {
    let data = format!("<{mark}>");
    let length = u16::try_from(8 + data.len()).unwrap();
    let head = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [&head[..], data.as_bytes()].concat()
}
