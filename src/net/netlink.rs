//! Route netlink: each call gets a thread of its own with a current-thread tokio runtime on it.
//!
//! A thread of its own, because a netlink handler runs inside sendmsg(2): deleting a link stalls
//! the calling thread for tens of milliseconds ([`unlink`](crate::net::unlink) has a thread for that
//! alone), which must not be a thread of somebody's runtime.
//! It is also what makes it safe to enter another namespace: the thread is thrown away.
//!
//! The sockets check strictly (`NETLINK_GET_STRICT_CHK`), so that the kernel filters dumps, and ask
//! for extended acknowledgements, so that an error carries the kernel's own sentence.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::thread;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::AsyncSocket as _;
use nix::sched::{CloneFlags, setns};

use crate::net::error::{Error, Refusal};

/// Change what is there.
pub(crate) const CHANGE: u16 = NLM_F_REQUEST | NLM_F_ACK;
/// Create; EEXIST if it is there.
pub(crate) const CREATE: u16 = CHANGE | NLM_F_CREATE | NLM_F_EXCL;
/// Create, or replace what is there.
pub(crate) const REPLACE: u16 = CHANGE | NLM_F_CREATE | NLM_F_REPLACE;
/// Read one object.
pub(crate) const GET: u16 = CHANGE;
/// Read all objects that match.
pub(crate) const DUMP: u16 = NLM_F_REQUEST | NLM_F_DUMP;

/// A message with its flags and the words for what it does, for errors.
pub(crate) struct Request {
    pub(crate) operation: &'static str,
    pub(crate) flags: u16,
    pub(crate) message: RouteNetlinkMessage,
    /// The errno that says that there is nothing to do.
    pub(crate) forgiven: Option<i32>,
}

impl Request {
    /// The same, and it is as well if the kernel answers with this errno.
    pub(crate) fn forgiving(self, errno: i32) -> Self {
        Self { forgiven: Some(errno), ..self }
    }
}

/// What the kernel answered to one request.
pub(crate) type Answer = Result<Vec<RouteNetlinkMessage>, Refusal>;

/// A connection to the route netlink of one network namespace, about one object.
pub(crate) struct Route {
    handle: rtnetlink::Handle,
    object: String,
    feature: &'static str,
}

impl Route {
    /// Opens a socket in the namespace the thread is in; it stays there when the thread moves on.
    fn open(object: &str, feature: &'static str) -> Result<Self, Error> {
        let failed = |source: io::Error| {
            let errno = source.raw_os_error().unwrap_or(libc::EIO);
            let refusal = Refusal { errno, said: String::new() };
            Error::netlink(object, "open a netlink socket for", "route netlink", refusal)
        };
        let (mut connection, handle, _unsolicited) =
            rtnetlink::new_connection_with_strict_check().map_err(failed)?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_ext_ack(true).map_err(failed)?;
        // Without the request in the answer the kernel's sentence always stands at one offset.
        socket.set_cap_ack(true).map_err(failed)?;
        tokio::spawn(connection);
        Ok(Self { handle, object: object.to_owned(), feature })
    }

    /// Sends all requests at once and waits for all answers; a refused one does not stop the others.
    pub(crate) async fn send(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, Error> {
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            let mut message = NetlinkMessage::from(request.message);
            message.header.flags = request.flags;
            let stream = self.handle.request(message).map_err(|_| self.closed())?;
            replies.push(stream);
        }
        let mut answers = Vec::with_capacity(replies.len());
        for mut reply in replies {
            let mut answer = Ok(Vec::new());
            while let Some(message) = reply.next().await {
                match (message.payload, &mut answer) {
                    (NetlinkPayload::InnerMessage(m), Ok(messages)) => messages.push(m),
                    (NetlinkPayload::Error(e), Ok(_)) if e.code.is_some() => {
                        answer = Err(Refusal { errno: -e.raw_code(), said: sentence(&e.header) });
                    }
                    _ => {}
                }
            }
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Sends all requests at once; the first refusal that is not forgiven becomes the error.
    pub(crate) async fn all(&mut self, requests: Vec<Request>) -> Result<(), Error> {
        let words: Vec<_> = requests.iter().map(|r| (r.operation, r.forgiven)).collect();
        for (answer, (operation, forgiven)) in self.send(requests).await?.into_iter().zip(words) {
            match answer {
                Err(refusal) if Some(refusal.errno) != forgiven => {
                    return Err(self.refused(operation, refusal));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends one request.
    pub(crate) async fn one(&mut self, request: Request) -> Result<Answer, Error> {
        let mut answers = self.send(vec![request]).await?;
        answers.pop().ok_or_else(|| self.closed())
    }

    /// The error for a refused request.
    pub(crate) fn refused(&self, operation: &'static str, refusal: Refusal) -> Error {
        Error::netlink(&self.object, operation, self.feature, refusal)
    }

    pub(crate) fn closed(&self) -> Error {
        Error::answer(&self.object, "the netlink socket closed")
    }
}

/// The kernel's sentence (`NLMSGERR_ATTR_MSG`) after the 16 bytes of the request's header.
pub(crate) fn sentence(header: &[u8]) -> String {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let attributes = header.get(16..).unwrap_or_default();
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|a| a.kind() == NLMSGERR_ATTR_MSG)
        .map(|a| String::from_utf8_lossy(a.value()).trim_end_matches('\0').to_owned())
        .unwrap_or_default()
}

/// Runs `work` on a throwaway thread with a connection to the caller's network namespace.
///
/// `feature` names what the kernel lacks if it does not know what is asked for.
pub(crate) fn run<T: Send>(
    object: &str,
    feature: &'static str,
    work: impl AsyncFnOnce(&mut Route) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    on_thread(object, || block_on(object, feature, work))
}

/// Runs `work` on a throwaway thread that has entered the namespace, with a connection to it.
pub(crate) fn run_in<T: Send>(
    object: &str,
    feature: &'static str,
    namespace: &File,
    work: impl AsyncFnOnce(&mut Route) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    on_thread(object, || {
        enter(object, namespace)?;
        block_on(object, feature, work)
    })
}

/// Runs `work` on a throwaway thread with a connection to the caller's namespace and one to
/// `namespace`. The thread itself is in the caller's, as far as files below /proc/sys matter.
pub(crate) fn run_both<T: Send>(
    object: &str,
    feature: &'static str,
    namespace: &File,
    work: impl AsyncFnOnce(&mut Route, &mut Route) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    on_thread(object, || {
        let home = current_namespace(object)?;
        runtime(object)?.block_on(async {
            let mut host = Route::open(object, feature)?;
            enter(object, namespace)?;
            let mut inside = Route::open(object, feature)?;
            enter(object, &home)?;
            work(&mut host, &mut inside).await
        })
    })
}

/// Runs `work` on the calling thread, which must be a throwaway one.
pub(crate) fn block_on<T>(
    object: &str,
    feature: &'static str,
    work: impl AsyncFnOnce(&mut Route) -> Result<T, Error>,
) -> Result<T, Error> {
    runtime(object)?.block_on(async {
        let mut route = Route::open(object, feature)?;
        work(&mut route).await
    })
}

/// Runs `work` on a throwaway thread.
pub(crate) fn on_thread<T: Send>(
    object: &str,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("carboy-net".to_owned());
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|e| Error::system(object, "start a thread for", e))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Moves the calling thread, which must be a throwaway one, into the network namespace.
pub(crate) fn enter(object: &str, namespace: &File) -> Result<(), Error> {
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|e| Error::system(object, "enter the network namespace of", e))
}

/// The calling thread's network namespace.
pub(crate) fn current_namespace(object: &str) -> Result<File, Error> {
    File::open("/proc/thread-self/ns/net")
        .map_err(|e| Error::system(object, "open /proc/thread-self/ns/net for", e))
}

fn runtime(object: &str) -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|e| Error::system(object, "start a runtime for", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_stands_behind_the_request_header() {
        let mut header = vec![0u8; 16];
        assert_eq!(sentence(&header), "");
        // An attribute of 7 bytes, kind 1: "no\0", padded to 8.
        header.extend([7, 0, 1, 0, b'n', b'o', 0, 0]);
        let expected = if cfg!(target_endian = "little") { "no" } else { "" };
        assert_eq!(sentence(&header), expected);
        assert_eq!(sentence(&[0; 3]), "");
    }
}
