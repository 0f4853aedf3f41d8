//! The caller's terminal and signals while a command of a bundle has them.

use std::io::{self, IsTerminal};
use std::process::exit;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use carboy::helper::{ExecControl, WindowSize};
use nix::sys::signal::{SigSet, Signal};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was before it was made raw.
static SAVED: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether standard input is a terminal.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// How large the terminal is, if there is one that knows.
pub(super) fn size() -> Option<WindowSize> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    let known = size.ws_row > 0 && size.ws_col > 0;
    known.then_some(WindowSize { rows: size.ws_row, columns: size.ws_col })
}

/// Standard input as it comes, key by key, until this is dropped.
#[derive(Debug)]
pub(super) struct RawMode(());

impl RawMode {
    /// Makes the terminal raw. It is put back when this is dropped, when the program panics, and
    /// by [`restore`].
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn enter() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        *SAVED.lock().unwrap_or_else(|e| e.into_inner()) = Some(before.clone());
        // A panic may end the process on the spot, without dropping anything.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore();
            hook(info);
        }));
        let mode = Self(());
        make_raw(before)?;
        Ok(mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn make_raw(mut mode: Termios) -> io::Result<()> {
    mode.make_raw();
    Ok(tcsetattr(stdin(), OptionalActions::Now, &mode)?)
}

/// Puts the terminal back as it was.
pub(super) fn restore() {
    // Whoever holds the lock is about to put it back as well.
    if let Ok(mut saved) = SAVED.try_lock()
        && let Some(mode) = saved.take()
    {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &mode);
    }
}

/// What this program's signals are for.
pub(super) trait SignalTarget: Send + Sync {
    /// Takes a signal. One that cannot has ended, which the main thread hears of in a moment.
    fn signal(&self, signal: Signal);

    /// The terminal has another size now.
    fn resize(&self, _size: WindowSize) {}
}

impl SignalTarget for ExecControl {
    fn signal(&self, signal: Signal) {
        drop(ExecControl::signal(self, signal as i32));
    }

    fn resize(&self, size: WindowSize) {
        drop(ExecControl::resize(self, size));
    }
}

/// Takes this program's signals from now on, for a program that is about to start.
pub(super) struct Signals {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    target: OnceLock<Box<dyn SignalTarget>>,
    /// What came before there was a target: the program may run, and have told so, by then.
    early: Mutex<Vec<Signal>>,
}

impl Shared {
    /// The target, if the program starts within a moment.
    fn await_target(&self) -> Option<&dyn SignalTarget> {
        const LOOKS: u32 = 100;
        for _ in 0..LOOKS {
            if let Some(target) = self.target.get() {
                return Some(&**target);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// The target; where there is none yet, `signal` is kept for it.
    fn target_or_keep(&self, signal: Signal) -> Option<&dyn SignalTarget> {
        let mut early = self.early.lock().unwrap_or_else(|e| e.into_inner());
        let target = self.target.get().map(|target| &**target);
        if target.is_none() {
            early.push(signal);
        }
        target
    }
}

impl Signals {
    /// From here on signals are passed on to the program; with `raw`, where keys are, they end
    /// this one, and that one with it. To be called while there is one thread.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn take(raw: bool) -> io::Result<Self> {
        let mut all = SigSet::empty();
        let passed_on = [Signal::SIGUSR1, Signal::SIGUSR2];
        let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        let window = [Signal::SIGWINCH, Signal::SIGCONT];
        ending.into_iter().chain(passed_on).chain(window).for_each(|s| all.add(s));
        // Every thread from now on inherits this: they come to the one that waits for them.
        all.thread_block()?;
        let shared = Arc::new(Shared::default());
        let taken = shared.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                let Ok(signal) = all.wait() else { continue };
                let target = shared.target.get().map(|target| &**target);
                match (signal, target) {
                    (Signal::SIGWINCH, _) => tell_size(target),
                    (Signal::SIGCONT, _) => {
                        // A shell that had the terminal meanwhile set it to its own liking.
                        if raw && let Ok(mode) = tcgetattr(stdin()) {
                            let _ = make_raw(mode);
                        }
                        tell_size(target);
                    }
                    (_, Some(target)) if !raw => target.signal(signal),
                    _ if ending.contains(&signal) => {
                        // It may run already, and be told by nobody else.
                        if !raw && let Some(target) = shared.await_target() {
                            target.signal(signal);
                            continue;
                        }
                        restore();
                        exit(128 + signal as i32);
                    }
                    _ if !raw => {
                        if let Some(target) = shared.target_or_keep(signal) {
                            target.signal(signal);
                        }
                    }
                    _ => {}
                }
            }
        })?;
        Ok(Self { shared: taken })
    }

    /// The program runs: what comes is for it.
    pub(super) fn pass_to(&self, target: impl SignalTarget + 'static) {
        let shared = &self.shared;
        let mut early = shared.early.lock().unwrap_or_else(|e| e.into_inner());
        // There is one program for all of this one's life.
        let target = shared.target.get_or_init(|| Box::new(target));
        early.drain(..).for_each(|signal| target.signal(signal));
        // It may have changed since it was asked for.
        tell_size(Some(&**target));
    }
}

fn tell_size(target: Option<&dyn SignalTarget>) {
    if let (Some(target), Some(size)) = (target, size()) {
        target.resize(size);
    }
}
