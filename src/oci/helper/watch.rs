//! The stage of a monitor that lasts: it writes its container's output to the log until it ends,
//! writes down how it ended, and, where the restart policy says so, starts it again after a pause.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::checks::Checks;
use super::memory;
use super::monitor::{log_dir, now, try_wait_code};
use super::output::{self, Output};
use super::stages::{self, Stage};
use crate::names::{ContainerName, Slug};
use crate::oci::events::{Event, EventKind, EventLog};
use crate::oci::feed::{Feed, Listener};
use crate::oci::restart::{RestartPolicy, Restarts};
use crate::oci::spec::LogLimits;
use crate::oci::status::{self, Ended, Started};
use crate::oci::{life, usage};

/// A container has ended but somebody still holds its output open: no longer than this.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);

/// The stage's `main`.
pub(super) fn main(state: &Path, lock: OwnedFd, held: Vec<OwnedFd>) -> i32 {
    match Watch::prepare(state) {
        Ok(Some(watch)) => watch.run(lock, held),
        // The directory went with `down`: there is nothing to watch.
        Ok(None) => 0,
        Err(_) => 1,
    }
}

/// What a monitor has to know while its container runs.
struct Watch {
    state: PathBuf,
    log_dir: PathBuf,
    name: ContainerName,
    slug: Slug,
    policy: RestartPolicy,
    events: EventLog,
    log: LogLimits,
    feed: Option<Feed>,
    started: Started,
    checks: Option<Checks>,
    /// SIGTERM: somebody wants this to look whether the container is to be started again at all.
    terminate: SignalFd,
}

impl Watch {
    fn prepare(state: &Path) -> io::Result<Option<Self>> {
        let mut terminate = SigSet::empty();
        terminate.add(Signal::SIGTERM);
        // It stays so in the stages that follow; a container's program gets the default again.
        terminate.thread_block()?;
        let terminate = SignalFd::with_flags(&terminate, SfdFlags::SFD_CLOEXEC)?;
        let read = life::read_request(state).and_then(|r| Ok((r, status::read_started(state)?)));
        let (Some(request), Some(started)) = read.map_err(io::Error::other)? else {
            return Ok(None);
        };
        let container = &request.container;
        Ok(Some(Self {
            state: state.to_owned(),
            log_dir: log_dir(container),
            name: container.name.clone(),
            slug: container.slug.clone(),
            policy: container.restart,
            events: EventLog::of_container(container),
            log: container.log,
            feed: request.surroundings.feed.clone(),
            checks: Checks::of(container, &started),
            started,
            terminate,
        }))
    }

    fn run(mut self, lock: OwnedFd, held: Vec<OwnedFd>) -> i32 {
        let restarts = life::read_restarts(&self.state).unwrap_or_default();
        let next = match restarts.pending {
            // The monitor before this one was killed in the pause.
            true => Some(restarts),
            false => {
                let Ok(output) = Output::open(&self.state, &self.log_dir, self.log) else {
                    return 1;
                };
                // Behind the pipes there may be the socket that hears what is denied.
                let mut held = held.into_iter().skip(output::HOLDERS);
                let listener = self
                    .feed
                    .take()
                    .and_then(|feed| Listener::new(&feed, &self.log_dir, held.next()).ok());
                let checks = self.checks.take();
                self.copy_output(output, checks, listener);
                self.ended(restarts)
            }
        };
        match next {
            Some(next) if self.pause(next.pause()) => {
                let error = stages::enter(Stage::StartAgain, &self.name, &self.state, lock, vec![]);
                let event = Event::now(&self.slug, &self.name, EventKind::Died);
                self.tell(&event.with_detail(&format!("it cannot be started again: {error}")));
                1
            }
            _ => 0,
        }
    }

    /// Until the container has ended and all of its output is written; checks its health meanwhile.
    fn copy_output(
        &self,
        mut output: Output,
        mut checks: Option<Checks>,
        mut listener: Option<Listener>,
    ) {
        // One that has ended already is gone, or a zombie of ours: then there is nothing to open.
        let handle = self.started.init.open().ok().flatten();
        let mut deadline = handle.is_none().then(|| Instant::now() + DRAIN_PATIENCE);
        let mut init = handle.as_ref().map(AsFd::as_fd);
        memory::give_back();
        while output.is_open() || init.is_some() {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            let mut fds = init.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect::<Vec<_>>();
            fds.extend(output.fds());
            fds.extend(checks.iter().flat_map(Checks::fds));
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let heard = listener.as_ref().and_then(Listener::fd);
            fds.extend(heard.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let patience = [
                left,
                checks.as_ref().map(Checks::patience),
                output.patience(),
                listener.as_ref().and_then(Listener::patience),
            ];
            let patience = patience.into_iter().flatten().min();
            match poll(&mut fds, patience.map(timespec).as_ref()) {
                Err(Errno::INTR) => continue,
                // No memory: the rest of the output is lost.
                Err(_) => break,
                Ok(_) => {}
            }
            let ended = init.is_some() && fds.first().is_some_and(|fd| !fd.revents().is_empty());
            output.pump(&now());
            listener.iter_mut().for_each(|listener| listener.read(&now()));
            if checks.as_mut().is_some_and(Checks::tick) {
                memory::give_back();
            }
            if ended {
                init = None;
                // One that still runs is of the container and has ended too.
                checks = None;
                deadline = Some(Instant::now() + DRAIN_PATIENCE);
            }
        }
        output.finish(&now());
    }

    /// Writes down how the container ended; what comes next, if it is to be started again.
    fn ended(&self, restarts: Restarts) -> Option<Restarts> {
        // Nobody's child but its own monitor's: one that took over does not learn the exit code.
        let exit_code = try_wait_code(self.started.init.pid);
        let oom_killed = usage::oom_killed(&self.name);
        let wanted = life::end_is_wanted(&self.state);
        let next =
            (!wanted).then(|| restarts.after(self.policy, exit_code, self.started.ran())).flatten();
        // Before anything says that the container has ended: nobody is to take it for good.
        let next = next.filter(|next| life::write_restarts(&self.state, next).is_ok());
        if let Some(exit_code) = exit_code {
            // Without the directory, which went with `down`, nobody asks any more.
            let ended = Ended { exit_code, finished_at: now(), oom_killed };
            let _ = status::write_ended(&self.state, &ended);
        }
        let event = Event::now(&self.slug, &self.name, EventKind::Died);
        self.tell(&Event { exit_code, oom_killed, ..event });
        next
    }

    /// Lets a while pass; false if the container is not to be started again after all.
    fn pause(&self, pause: Duration) -> bool {
        memory::give_back();
        let deadline = Instant::now() + pause;
        loop {
            if life::end_is_wanted(&self.state) {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let mut fds = [PollFd::new(&self.terminate, PollFlags::IN)];
            if poll(&mut fds, Some(&timespec(left))).is_ok_and(|ready| ready > 0) {
                // What it says is in the directory; it is read so that it is not said again.
                let _ = self.terminate.read_signal();
            }
        }
    }

    fn tell(&self, event: &Event) {
        // A bundle does not depend on whether its events can be told.
        let _ = self.events.append(event);
    }
}

fn timespec(d: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: d.subsec_nanos().into(),
    }
}
