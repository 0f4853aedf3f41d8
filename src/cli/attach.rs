//! A bundle in the foreground: its output and its end are this program's, and this program's
//! signals are its.

use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use carboy::fsutil::PathContext;
use carboy::{Engine, Slug};
use nix::sys::signal::Signal;

use super::exit::Failure;
use super::log_printer::LogPrinter;
use super::output::Output;
use super::terminal::{SignalTarget, Signals};

/// How often the log is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// How many times SIGINT or SIGTERM is passed on before it ends this program alone, as Docker's.
const PATIENCE: u32 = 2;

/// Takes this program's signals, for a bundle that is about to be started.
///
/// # Errors
/// What the kernel said.
pub(super) fn take_signals() -> Result<Signals, Failure> {
    let taken = Signals::take(false).at("take the signals of", std::path::Path::new("/proc/self"));
    Ok(taken?)
}

/// Prints what a bundle that has just been started writes until it ends; its exit code.
///
/// # Errors
/// Nobody knows how it ended, or its log cannot be read.
pub(super) fn until_end(
    engine: &Engine,
    output: &Output,
    slug: &Slug,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let mut log = engine.log(slug)?;
    let mut printer = LogPrinter::new(output, false);
    let another = || Engine::new(engine.config().clone());
    let json = output.is_json();
    let target = Bundle { engine: another(), slug: slug.clone(), asked: AtomicU32::new(0), json };
    signals.pass_to(target);
    let (sender, end) = mpsc::channel();
    let (waiting, name) = (another(), slug.clone());
    let thread = thread::Builder::new().name("wait".to_owned()).spawn(move || {
        // The main thread may have given up.
        let _ = sender.send(waiting.wait(&name));
    });
    thread.at("make a thread for", std::path::Path::new("/proc/self"))?;
    let mut is_read = true;
    loop {
        let ended = match end.recv_timeout(INTERVAL) {
            Ok(code) => Some(code),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the thread sends before it ends"),
        };
        // Who waits for the end alone need not read.
        while is_read && let Some(line) = log.next_line()? {
            is_read = printer.print(&line);
        }
        printer.tell_lost(&mut log);
        if let Some(code) = ended {
            return Ok(ExitCode::from(u8::try_from(code?).unwrap_or(u8::MAX)));
        }
    }
}

/// The bundle that signals are for.
struct Bundle {
    engine: Engine,
    slug: Slug,
    /// How often it was asked to end.
    asked: AtomicU32,
    json: bool,
}

impl SignalTarget for Bundle {
    fn signal(&self, signal: Signal) {
        if matches!(signal, Signal::SIGINT | Signal::SIGTERM)
            && self.asked.fetch_add(1, Ordering::Relaxed) >= PATIENCE
        {
            let slug = &self.slug;
            Output::new(self.json).note(&format!("bottle {slug} does not end; it goes on"));
            exit(128 + signal as i32);
        }
        drop(self.engine.kill(&self.slug, signal as i32));
    }
}
