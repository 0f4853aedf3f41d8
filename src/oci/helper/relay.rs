//! Passes bytes between a command in a container and whoever asked for it.
//!
//! One thread, which waits for everything at once: no direction holds up another one, and what
//! nobody takes is not read, so that the command waits as it would on the reader's own pipe.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::protocol::Control;
use crate::oci::detach_keys::DetachMatcher;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// How much is written at once: so much a pipe takes without blocking when it is said to be
/// writable (`PIPE_BUF` of pipe(7)).
const SLICE: usize = 4096;

/// One direction.
#[derive(Debug)]
pub(super) struct Lane {
    /// Where bytes come from, until its end.
    from: Option<Rc<OwnedFd>>,
    /// Where they go, while somebody takes them. A lane without passes them on to nobody.
    to: Option<Rc<OwnedFd>>,
    /// Read and not written yet.
    pending: Vec<u8>,
    /// It leads to the command: of no interest once that has ended.
    input: bool,
    keys: Option<DetachMatcher>,
}

impl Lane {
    /// From the command to the caller.
    pub(super) fn output(from: Rc<OwnedFd>, to: OwnedFd) -> Self {
        Self { from: Some(from), to: Some(Rc::new(to)), pending: vec![], input: false, keys: None }
    }

    /// From the command to nobody.
    pub(super) fn discard(from: Rc<OwnedFd>) -> Self {
        Self { from: Some(from), to: None, pending: vec![], input: false, keys: None }
    }

    /// From the caller to the command, whose end of input follows the caller's.
    pub(super) fn input(from: OwnedFd, to: Rc<OwnedFd>) -> Self {
        Self { from: Some(Rc::new(from)), to: Some(to), pending: vec![], input: true, keys: None }
    }

    /// From the caller's keyboard to the command's terminal.
    pub(super) fn typed(from: OwnedFd, to: Rc<OwnedFd>, keys: Vec<u8>) -> Self {
        let keys = Some(DetachMatcher::new(keys));
        Self { keys, ..Self::input(from, to) }
    }

    fn wants(&self, ended: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if ended && self.input {
            return None;
        }
        match (&self.to, &self.from) {
            (Some(to), _) if !self.pending.is_empty() => Some((to.as_fd(), PollFlags::OUT)),
            (_, Some(from)) => Some((from.as_fd(), PollFlags::IN)),
            _ => None,
        }
    }

    /// Does what it waited for; true if the detach keys were typed.
    fn act(&mut self, buffer: &mut [u8]) -> bool {
        if self.pending.is_empty() { self.read(buffer) } else { self.write() }
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Some(from) = &self.from else { return false };
        let mut detached = false;
        match rustix::io::read(from, &mut *buffer) {
            Err(Errno::INTR | Errno::AGAIN) => return false,
            Ok(n) if n > 0 => {
                let bytes = &buffer[..n];
                match (&mut self.keys, &self.to) {
                    (Some(keys), _) => detached = keys.feed(bytes, &mut self.pending),
                    (None, Some(_)) => self.pending.extend_from_slice(bytes),
                    (None, None) => {}
                }
            }
            // The end; a terminal says EIO when nobody has its other side open.
            Ok(_) | Err(_) => self.close(),
        }
        detached
    }

    fn write(&mut self) -> bool {
        let Some(to) = &self.to else { return false };
        let slice = &self.pending[..self.pending.len().min(SLICE)];
        match rustix::io::write(to, slice) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(n) => drop(self.pending.drain(..n)),
            // Nobody takes it any more: neither side is to wait for the other.
            Err(_) => {
                self.pending.clear();
                self.close();
            }
        }
        false
    }

    fn close(&mut self) {
        self.from = None;
        self.to = None;
    }
}

/// Why the passing on came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The command has ended and what it wrote is passed on.
    Ended,
    /// The detach keys were typed.
    Detached,
    /// The caller is gone.
    CallerGone,
}

/// Passes on until something ends it. `command` is the command's pidfd; `act` does what the caller
/// says meanwhile.
///
/// # Errors
/// If the kernel cannot wait.
pub(super) fn run(
    lanes: &mut [Lane],
    command: BorrowedFd<'_>,
    mut controls: Option<&mut Controls>,
    mut act: impl FnMut(Control),
) -> io::Result<Stop> {
    const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut buffer = vec![0; CHUNK];
    let mut ended = false;
    loop {
        if let Some(controls) = &mut controls
            && !controls.take(&mut act)
        {
            return Ok(Stop::CallerGone);
        }
        let mut fds = Vec::with_capacity(lanes.len() + 2);
        let mut waiting = Vec::with_capacity(lanes.len());
        for (index, lane) in lanes.iter().enumerate() {
            if let Some((fd, flags)) = lane.wants(ended) {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
                waiting.push(index);
            }
        }
        if !ended {
            fds.push(PollFd::from_borrowed_fd(command, PollFlags::IN));
        }
        if let Some(controls) = &controls {
            fds.push(PollFd::from_borrowed_fd(controls.pipe.as_fd(), PollFlags::IN));
        }
        // What the ended command wrote is there already: others may hold the stream open for ever.
        let all_written = lanes.iter().all(|lane| lane.input || lane.pending.is_empty());
        let patience = (ended && all_written).then_some(&AT_ONCE);
        match poll(&mut fds, patience) {
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
            Ok(_) => {}
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut moved = false;
        for (at, index) in waiting.iter().enumerate() {
            if ready[at] {
                moved = true;
                if lanes[*index].act(&mut buffer) {
                    return Ok(Stop::Detached);
                }
            }
        }
        if ended && all_written && !moved {
            return Ok(Stop::Ended);
        }
        ended |= ready.get(waiting.len()) == Some(&true) && !ended;
    }
}

/// What the caller says while the command runs.
#[derive(Debug)]
pub(super) struct Controls {
    pipe: File,
    /// What has come of the next line.
    line: Vec<u8>,
}

impl Controls {
    /// Takes over the pipe that the order came through, and what came after it.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn new(request: io::BufReader<File>) -> io::Result<Self> {
        let line = request.buffer().to_vec();
        let pipe = request.into_inner();
        unblock(&pipe)?;
        Ok(Self { pipe, line })
    }

    /// Takes all there is; false if the caller is gone.
    fn take(&mut self, act: &mut impl FnMut(Control)) -> bool {
        let mut chunk = [0; 1024];
        let open = loop {
            match self.pipe.read(&mut chunk) {
                Ok(0) => break false,
                Ok(n) => self.line.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e.kind() == io::ErrorKind::WouldBlock,
            }
        };
        while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            // What is not understood was said by a newer caller.
            if let Ok(control) = serde_json::from_slice(&line) {
                act(control);
            }
        }
        open
    }
}

/// Reads and writes of this descriptor do not wait. Only for one whose other users are none.
///
/// # Errors
/// What the kernel said.
pub(super) fn unblock(fd: &impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    fn shared(fd: impl Into<OwnedFd>) -> Rc<OwnedFd> {
        let fd = fd.into();
        unblock(&fd).unwrap();
        Rc::new(fd)
    }

    /// `sh -c script` with `input`; all it wrote, through lanes.
    fn relayed(script: &str, input: &[u8]) -> Vec<u8> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let (from_caller, mut typed) = io::pipe().unwrap();
        let (mut seen, to_caller) = io::pipe().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || drop(typed.write_all(&input)));
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            seen.read_to_end(&mut all).unwrap();
            all
        });
        let mut lanes = [
            Lane::input(from_caller.into(), shared(child.stdin.take().unwrap())),
            Lane::output(shared(child.stdout.take().unwrap()), to_caller.into()),
        ];
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert_eq!(run(&mut lanes, pidfd.as_fd(), None, |_| {}).unwrap(), Stop::Ended);
        drop(lanes);
        child.wait().unwrap();
        writer.join().unwrap();
        reader.join().unwrap()
    }

    #[test]
    fn bytes_pass_in_both_directions_whole() {
        let input: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        assert_eq!(relayed("cat", &input), input);
        assert_eq!(relayed("exec <&-; echo done", &input), b"done\n");
    }

    #[test]
    fn one_that_holds_the_stream_open_does_not_hold_up_the_end() {
        assert_eq!(relayed("sleep 5 & echo x; exit", b""), b"x\n");
    }
}
