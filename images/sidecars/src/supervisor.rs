//! PID 1 of a bundle: one thread, one poll loop. It starts the daemons, passes their output on,
//! reaps whatever ends, and stops them when asked to. A daemon that ends is not started again and
//! stops nobody else; its ending is remembered.

use std::fmt::Arguments;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::child::{Child, Which};
use crate::daemons::Daemon;
use crate::output::Output;
use crate::signals::{Signals, is_ready, until, wait};
use crate::state::{State, format_table};
use crate::sys;

/// How long daemons may take to stop after SIGTERM. Shorter than the 10 s after which a container
/// runtime kills PID 1, so that there is time to say who was killed.
const GRACE: Duration = Duration::from_secs(8);

/// How long the last lines may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What is still in a daemon's pipe after its end is read in at most so many pieces: a pipe holds
/// 64 KiB, and a process it left behind must not keep us by writing on.
const LAST_READS: usize = 16;

/// What a ready descriptor is.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Output(Which),
    Daemon(usize, Which),
}

/// Where the bundle is in its life.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Running,
    /// SIGTERM is sent; SIGKILL follows at this time.
    Stopping(Instant),
    Killed,
}

struct Supervisor {
    /// The selected daemons; those that ended stay, for their state.
    children: Vec<Child>,
    outputs: [Output<File>; 2],
    phase: Phase,
}

/// Runs the bundle until SIGTERM or SIGINT. The exit code is 0 if every daemon ended within the
/// grace, and 1 if one had to be killed.
///
/// # Errors
/// A signal descriptor or a poll that fails; daemons that fail are no error.
pub(crate) fn run(daemons: &[&'static Daemon]) -> io::Result<ExitCode> {
    // First, so that no signal is lost; the daemons inherit the mask and take theirs the same way.
    let signals = Signals::take()?;
    sys::expect_children()?;
    // Not through std's buffers: a line may have to wait here.
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let mut supervisor = Supervisor {
        children: Vec::with_capacity(daemons.len()),
        outputs: [Output::new(stdout), Output::new(stderr)],
        phase: Phase::Running,
    };
    supervisor.start(daemons);
    supervisor.supervise(&signals)?;
    supervisor.finish()?;
    Ok(if supervisor.phase == Phase::Killed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Supervisor {
    fn start(&mut self, daemons: &[&'static Daemon]) {
        if daemons.is_empty() {
            self.say(format_args!("no daemons selected"));
        }
        for daemon in daemons {
            let child = match Child::start(daemon) {
                Ok(child) => {
                    self.say(format_args!("{}: started, pid {}", daemon.name, child.pid()));
                    child
                }
                Err(error) => {
                    self.say(format_args!("{}: cannot start: {error}", daemon.name));
                    Child::not_started(daemon)
                }
            };
            self.children.push(child);
        }
        self.tell_states();
    }

    /// Until all daemons have ended after a request to stop.
    fn supervise(&mut self, signals: &Signals) -> io::Result<()> {
        loop {
            if self.phase != Phase::Running && !self.any_running() {
                return Ok(());
            }
            for source in self.wait(signals)? {
                match source {
                    Source::Signals => self.take_signals(signals)?,
                    Source::Output(which) => self.outputs[which as usize].write_once(),
                    Source::Daemon(index, which) => self.read(index, which),
                }
            }
            if let Phase::Stopping(deadline) = self.phase
                && Instant::now() >= deadline
            {
                self.kill();
            }
        }
    }

    /// Waits for something to do.
    fn wait(&self, signals: &Signals) -> io::Result<Vec<Source>> {
        let most = 1 + self.outputs.len() + 2 * self.children.len();
        let (mut fds, mut sources) = (Vec::with_capacity(most), Vec::with_capacity(most));
        fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        sources.push(Source::Signals);
        for which in Child::STREAMS {
            let output = &self.outputs[which as usize];
            if output.wants_to_write() {
                fds.push(PollFd::new(output.as_fd(), PollFlags::POLLOUT));
                sources.push(Source::Output(which));
            }
            if !output.has_room() {
                continue;
            }
            for (index, child) in self.children.iter().enumerate() {
                if let Some(pipe) = child.pipe(which) {
                    fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
                    sources.push(Source::Daemon(index, which));
                }
            }
        }
        let deadline = match self.phase {
            Phase::Stopping(deadline) => Some(deadline),
            Phase::Running | Phase::Killed => None,
        };
        wait(&mut fds, until(deadline))?;
        let mut ready = fds.iter().map(is_ready);
        sources.retain(|_| ready.next() == Some(true));
        Ok(sources)
    }

    fn take_signals(&mut self, signals: &Signals) -> io::Result<()> {
        while let Some(signal) = signals.next()? {
            match signal.number {
                libc::SIGCHLD => self.reap()?,
                libc::SIGTERM | libc::SIGINT => self.stop(),
                libc::SIGHUP | libc::SIGUSR1 => self.forward(signal.number),
                // Nothing of ours; as PID 1 without a handler it would have been ignored as well.
                _ => {}
            }
        }
        Ok(())
    }

    /// Reaps daemons and orphans alike.
    fn reap(&mut self) -> io::Result<()> {
        let mut changed = false;
        while let Some((pid, ending)) = sys::reap()? {
            let running =
                |child: &&mut Child| child.pid() == pid && child.state() == State::Running;
            let Some(child) = self.children.iter_mut().find(running) else { continue };
            child.ended(ending);
            let (name, state) = (child.name(), child.state());
            self.say(format_args!("{name}: {state}"));
            changed = true;
        }
        if changed {
            self.tell_states();
        }
        Ok(())
    }

    fn stop(&mut self) {
        if self.phase == Phase::Running {
            self.say(format_args!("stopping"));
            self.phase = Phase::Stopping(Instant::now() + GRACE);
            self.forward(libc::SIGTERM);
        }
    }

    fn kill(&mut self) {
        let late: Vec<&str> = self
            .children
            .iter()
            .filter(|child| child.state() == State::Running)
            .map(Child::name)
            .collect();
        let late = late.join(", ");
        self.say(format_args!("not stopped within {} s, killed: {late}", GRACE.as_secs()));
        self.phase = Phase::Killed;
        self.forward(libc::SIGKILL);
    }

    /// Sends a signal to every daemon that runs.
    fn forward(&mut self, number: i32) {
        for index in 0..self.children.len() {
            let child = &self.children[index];
            if let Err(error) = child.signal(number) {
                let name = child.name();
                self.say(format_args!("{name}: cannot send signal {number}: {error}"));
            }
        }
    }

    fn read(&mut self, index: usize, which: Which) {
        self.children[index].read_once(which, self.outputs[which as usize].buffer());
    }

    fn tell_states(&mut self) {
        let table = format_table(self.children.iter().map(|child| (child.name(), child.state())));
        for child in &mut self.children {
            child.tell(&table);
        }
    }

    /// Passes on what the daemons wrote last.
    fn finish(&mut self) -> io::Result<()> {
        for index in 0..self.children.len() {
            for which in Child::STREAMS {
                for _ in 0..LAST_READS {
                    let Some(pipe) = self.children[index].pipe(which) else { break };
                    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                    wait(&mut fds, PollTimeout::ZERO)?;
                    if !is_ready(&fds[0]) {
                        break;
                    }
                    self.read(index, which);
                }
                self.children[index].finish(which, self.outputs[which as usize].buffer());
            }
        }
        self.say(format_args!("stopped"));
        for output in &mut self.outputs {
            output.flush(LAST_WORDS);
        }
        Ok(())
    }

    fn any_running(&self) -> bool {
        self.children.iter().any(|child| child.state() == State::Running)
    }

    /// A line of the supervisor's own, on stderr.
    fn say(&mut self, text: Arguments<'_>) {
        let line = format!("[sidecars] {text}\n");
        self.outputs[Which::Stderr as usize].buffer().extend_from_slice(line.as_bytes());
    }
}
