//! Frames as they are on the wire: sent and seen through packet sockets, so that a test can say what
//! no well-behaved program would say, and see what arrives where.

#![allow(unsafe_code, reason = "binding a packet socket to a device takes a sockaddr_ll")]

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use std::os::fd::AsFd;

use super::netns;

/// What a frame's type says (IEEE 802).
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;

/// Protocols in IP headers (IANA).
pub(crate) const ICMP: u8 = 1;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const BROADCAST: Mac = [0xff; 6];

pub(crate) type Mac = [u8; 6];

/// A device, listened to from the moment this is made.
#[derive(Debug)]
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// Listens on a device of the network namespace at `path`.
    #[track_caller]
    pub(crate) fn new(path: &Path, device: &str) -> Self {
        netns::inside(path, || {
            let fd = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .unwrap();
            bind(&fd, device).unwrap_or_else(|e| panic!("{device}: {e}"));
            Self(fd)
        })
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) {
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::empty()).unwrap();
        assert_eq!(sent, frame.len());
    }

    /// All frames that contain the marker's bytes, or those of `last`, until one with `last` comes
    /// (which must be within five seconds). One with VLAN tag comes without it.
    #[track_caller]
    pub(crate) fn until(&self, last: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(frame) = self.next(deadline) {
            let is_last = contains(&frame, last);
            if wanted(&frame) {
                found.push(frame);
            }
            if is_last {
                return found;
            }
        }
        panic!("what had to come did not: {:?}", String::from_utf8_lossy(last));
    }

    /// The frames of the next `limit`.
    pub(crate) fn during(&self, limit: Duration) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + limit;
        std::iter::from_fn(|| self.next(deadline)).collect()
    }

    fn next(&self, deadline: Instant) -> Option<Vec<u8>> {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left).unwrap();
        let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, left).unwrap() == 0 {
            return None;
        }
        let mut frame = vec![0; 65_536];
        let length = recv(self.0.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap();
        frame.truncate(length);
        Some(frame)
    }
}

fn bind(fd: &OwnedFd, device: &str) -> io::Result<()> {
    let name = CString::new(device)?;
    // SAFETY: the name is a C string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields of a sockaddr_ll may be zero.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of `address`, which outlives the call.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if bound == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the bytes stand anywhere in the frame.
pub(crate) fn contains(frame: &[u8], bytes: &[u8]) -> bool {
    frame.windows(bytes.len()).any(|window| window == bytes)
}

/// The type of a frame.
pub(crate) fn kind(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[12], frame[13]])
}

/// An Ethernet frame.
pub(crate) fn ethernet(to: Mac, from: Mac, kind: u16, content: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), content].concat()
}

/// A VLAN tag with what it tags (IEEE 802.1Q).
pub(crate) fn tagged(vlan: u16, kind: u16, content: &[u8]) -> Vec<u8> {
    [&vlan.to_be_bytes()[..], &kind.to_be_bytes(), content].concat()
}

/// An IPv4 packet, with options if there are any (a multiple of four bytes).
pub(crate) fn ipv4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    content: &[u8],
) -> Vec<u8> {
    fragment((from, to), protocol, options, 0x4000, content)
}

/// An IPv4 packet with these flags and this offset in words of eight bytes, as one number.
pub(crate) fn fragment(
    (from, to): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    options: &[u8],
    flags_and_offset: u16,
    content: &[u8],
) -> Vec<u8> {
    let header_length = 20 + options.len();
    let length = u16::try_from(header_length + content.len()).unwrap();
    let first = 0x40 | u8::try_from(header_length / 4).unwrap();
    let mut header = vec![first, 0];
    header.extend(length.to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(flags_and_offset.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(options);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [header, content.to_vec()].concat()
}

/// An IPv6 packet.
pub(crate) fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[protocol, 64]].concat();
    [&header[..], &from.octets(), &to.octets(), content].concat()
}

/// A UDP datagram; without a checksum, which IPv4 allows.
pub(crate) fn udp(port: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + content.len()).unwrap();
    let header = [40_000, port, length, 0].map(u16::to_be_bytes).concat();
    [&header[..], content].concat()
}

/// An ICMP message.
pub(crate) fn icmp(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0, 1, 0, 1][..], content].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ARP request (1) or reply (2) for IPv4 over Ethernet, with some text behind it.
pub(crate) fn arp(
    operation: u16,
    from: (Mac, Ipv4Addr),
    to: (Mac, Ipv4Addr),
    text: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    for (mac, ip) in [from, to] {
        packet.extend(mac);
        packet.extend(ip.octets());
    }
    packet.extend(text);
    packet
}

/// The sum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
