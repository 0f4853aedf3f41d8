//! The socket nf_tables is spoken to over.
//!
//! The kernel answers inside sendmsg(2), so the socket never waits: what is not in its queue when
//! the call returns will not come.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use crate::net::error::{Error, Refusal};
use crate::net::nft;

/// A message to the kernel, or from it.
pub(crate) type Message = NetlinkMessage<NetfilterMessage>;

/// From this size on a datagram may not fit in a socket's usual send buffer.
const LARGE: usize = 64 * 1024;

/// The header of a netlink message.
const HEADER: usize = 16;

/// Whether this process has deleted anything. From then on any of its sockets may have to wait when it
/// is closed.
static HAS_DELETED: AtomicBool = AtomicBool::new(false);

/// A socket that nobody waits for when it is closed.
///
/// After something was deleted, closing a socket of nf_tables, whichever, waits for the kernel to free
/// it, which takes an RCU grace period: 7 to 25 ms. The change itself is done when it is
/// acknowledged, so the closing is left to a thread of its own.
pub(crate) struct Connection(Option<Socket>);

impl Connection {
    /// Opens a socket in the caller's network namespace. The words are for errors.
    pub(crate) fn open(object: &str, operation: &'static str) -> Result<Self, Error> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            socket.set_non_blocking(true)?;
            Ok(Self(Some(socket)))
        };
        open().map_err(|e| failed(object, operation, &e))
    }

    fn get(&self) -> &Socket {
        self.0.as_ref().expect("the socket is there until the drop")
    }

    /// To be said before something is deleted.
    pub(crate) fn deletes() {
        HAS_DELETED.store(true, Ordering::Relaxed);
    }

    /// Sends the messages in one datagram and reads all replies.
    pub(crate) fn exchange(
        &self,
        object: &str,
        operation: &'static str,
        messages: Vec<Message>,
    ) -> Result<Vec<Message>, Error> {
        self.exchange_raw(object, operation, messages)?
            .iter()
            .map(|bytes| parse(object, bytes))
            .collect()
    }

    /// The same, with the replies as they came, each with its header.
    pub(crate) fn exchange_raw(
        &self,
        object: &str,
        operation: &'static str,
        messages: Vec<Message>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let dump = messages.iter().any(|m| m.header.flags & NLM_F_DUMP == NLM_F_DUMP);
        let failed = |source: io::Error| failed(object, operation, &source);
        let socket = self.get();
        let datagram = serialize(messages);
        if datagram.len() > LARGE {
            make_room(socket, datagram.len()).map_err(failed)?;
        }
        socket.send(&datagram, 0).map_err(failed)?;
        let mut replies = Vec::new();
        loop {
            let datagram = match socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(replies),
                Err(e) => return Err(failed(e)),
            };
            for message in split(&datagram) {
                if dump && is_done(message) {
                    return Ok(replies);
                }
                replies.push(message.to_vec());
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let waits = HAS_DELETED.load(Ordering::Relaxed);
        let Some(socket) = self.0.take().filter(|_| waits) else { return };
        // Without a thread to be had the closure, and with it the socket, is dropped right here.
        let _ =
            thread::Builder::new().name("carboy-nft-close".to_owned()).spawn(move || drop(socket));
    }
}

fn failed(object: &str, operation: &'static str, source: &io::Error) -> Error {
    let errno = source.raw_os_error().unwrap_or(libc::EIO);
    nft::refused(object, operation, Refusal { errno, said: String::new() })
}

/// A transaction is one datagram, however long an egress list is.
fn make_room(socket: &Socket, length: usize) -> io::Result<()> {
    // The kernel counts its own overhead, too.
    let room = length.saturating_mul(2);
    setsockopt(socket, sockopt::SndBufForce, &room).map_err(io::Error::from)
}

/// A reply that was read raw.
pub(crate) fn parse(object: &str, bytes: &[u8]) -> Result<Message, Error> {
    Message::deserialize(bytes).map_err(|e| Error::answer(object, e.to_string()))
}

/// The messages of a datagram: each says its length in its first four bytes.
fn split(datagram: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Some(length) = rest.first_chunk().map(|b| u32::from_ne_bytes(*b)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX).max(HEADER);
        let Some(message) = rest.get(..length) else { break };
        messages.push(message);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn is_done(message: &[u8]) -> bool {
    const NLMSG_DONE: u16 = 3;
    kind_of(message) == Some(NLMSG_DONE)
}

/// The type of a message.
pub(crate) fn kind_of(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn serialize(messages: Vec<Message>) -> Vec<u8> {
    let mut buffer = Vec::new();
    for (number, mut message) in (1..).zip(messages) {
        message.header.sequence_number = number;
        message.finalize();
        let start = buffer.len();
        buffer.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut buffer[start..]);
    }
    buffer
}

/// Which message of the datagram a reply is about, counted from 0.
pub(crate) fn number_of(reply: &[u8]) -> Option<usize> {
    let number = reply.get(8..12)?.first_chunk().map(|b| u32::from_ne_bytes(*b))?;
    usize::try_from(number).ok()?.checked_sub(1)
}

/// The errno of a reply that is an error; 0 in an acknowledgement, `None` in an answer.
pub(crate) fn errno_of(reply: &Message) -> Option<i32> {
    match &reply.payload {
        NetlinkPayload::Error(e) => Some(-e.raw_code()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_split_where_its_messages_say() {
        let message = |length: u32, bytes: usize| {
            let mut message = length.to_ne_bytes().to_vec();
            message.resize(bytes, 7);
            message
        };
        let two = [message(18, 20), message(16, 16)].concat();
        assert_eq!(split(&two).iter().map(|m| m.len()).collect::<Vec<_>>(), [18, 16]);
        assert!(split(&message(40, 20)).is_empty());
        assert!(split(&message(0, 8)).is_empty());
        assert!(split(&[]).is_empty());
    }

    #[test]
    fn replies_are_told_apart_by_their_number() {
        let mut reply = vec![0; HEADER];
        reply[8..12].copy_from_slice(&3u32.to_ne_bytes());
        assert_eq!(number_of(&reply), Some(2));
        assert_eq!(number_of(&[0; HEADER]), None);
        assert_eq!(number_of(&[]), None);
    }
}
