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
    target: Arc<OnceLock<Box<dyn SignalTarget>>>,
}

/// The target, if there is one, or will be within a moment: the program may run already, and have
/// told so, before this program knows of it.
fn await_target(target: &OnceLock<Box<dyn SignalTarget>>) -> Option<&dyn SignalTarget> {
    const LOOKS: u32 = 100;
    for _ in 0..LOOKS {
        if let Some(target) = target.get() {
            return Some(&**target);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
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
        let target = Arc::new(OnceLock::new());
        let signals = Self { target: Arc::clone(&target) };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            loop {
                let Ok(signal) = all.wait() else { continue };
                match signal {
                    Signal::SIGWINCH => tell_size(&target),
                    Signal::SIGCONT => {
                        // A shell that had the terminal meanwhile set it to its own liking.
                        if raw && let Ok(mode) = tcgetattr(stdin()) {
                            let _ = make_raw(mode);
                        }
                        tell_size(&target);
                    }
                    _ => match (!raw).then(|| await_target(&target)).flatten() {
                        Some(target) => target.signal(signal),
                        None if ending.contains(&signal) => {
                            restore();
                            exit(128 + signal as i32);
                        }
                        None => {}
                    },
                }
            }
        })?;
        Ok(signals)
    }

    /// The program runs: what comes is for it. There is one for all of this one's life.
    pub(super) fn pass_to(&self, target: impl SignalTarget + 'static) {
        self.target.get_or_init(|| Box::new(target));
        // It may have changed since it was asked for.
        tell_size(&self.target);
    }
}

fn tell_size(target: &OnceLock<Box<dyn SignalTarget>>) {
    if let (Some(target), Some(size)) = (target.get(), size()) {
        target.resize(size);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;

    struct Last(Arc<AtomicI32>);

    impl SignalTarget for Last {
        fn signal(&self, signal: Signal) {
            self.0.store(signal as i32, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_signal_waits_for_a_program_that_is_about_to_run() {
        let target = Arc::new(OnceLock::new());
        let signals = Signals { target: Arc::clone(&target) };
        let early = thread::spawn(move || await_target(&target).map(|t| t.signal(Signal::SIGUSR1)));
        let last = Arc::new(AtomicI32::new(0));
        signals.pass_to(Last(Arc::clone(&last)));
        assert!(early.join().unwrap().is_some());
        assert_eq!(last.load(Ordering::SeqCst), Signal::SIGUSR1 as i32);
    }
}
