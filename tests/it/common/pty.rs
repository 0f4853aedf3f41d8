//! A command on a terminal, as a user at a keyboard has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use super::poll;
use super::spawned::child_of;

/// How long a terminal may take to show something.
const LIMIT: Duration = Duration::from_secs(20);

/// The command, and the side of its terminal where the user is. Killed when dropped.
#[derive(Debug)]
pub(crate) struct OnTerminal {
    /// `nsenter`, whose only child is the command itself.
    child: Child,
    keyboard: File,
    /// Held open: the settings can be read after the command has ended.
    inner: OwnedFd,
    screen: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl OnTerminal {
    /// Starts it, with the terminal as controlling terminal and all three streams.
    pub(crate) fn new(command: &Command, rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let outer = openpt(flags).unwrap();
        grantpt(&outer).unwrap();
        unlockpt(&outer).unwrap();
        let inner = ioctl_tiocgptpeer(&outer, flags).unwrap();
        let keyboard = File::from(outer);
        resize(&keyboard, rows, columns);
        // setsid(1) of util-linux makes it the controlling terminal.
        let mut setsid = Command::new("setsid");
        setsid.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        setsid.env_clear().envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        let stream = || inner.try_clone().unwrap();
        let child = setsid.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, inner, screen, shown: Vec::new() }
    }

    /// Types bytes.
    pub(crate) fn type_in(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the terminal shows this, and forgets everything up to it.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let shown = self.shown.windows(text.len()).position(|w| w == text.as_bytes());
            if let Some(at) = shown {
                self.shown.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.extend(bytes),
                Err(_) => {
                    panic!("no {text:?} but {:?}", String::from_utf8_lossy(&self.shown));
                }
            }
        }
    }

    /// Gives the terminal another size, as a window manager does.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        resize(&self.keyboard, rows, columns);
    }

    /// The terminal's settings.
    pub(crate) fn settings(&self) -> Termios {
        tcgetattr(&self.inner).unwrap()
    }

    /// Waits until keys come one by one.
    #[track_caller]
    pub(crate) fn await_raw(&self) {
        let raw = || !self.settings().local_modes.contains(LocalModes::ICANON);
        assert!(poll(LIMIT, raw), "the terminal does not become raw");
    }

    /// The command's process, as the machine counts.
    pub(crate) fn pid(&self) -> Option<u32> {
        child_of(self.child.id())
    }

    /// Sends the command a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().unwrap().cast_signed()), signal).unwrap();
    }

    /// Waits for the end; the exit code, if it was not a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        assert!(poll(LIMIT, || self.child.try_wait().unwrap().is_some()), "it still runs");
        self.child.wait().unwrap().code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // It may end by itself in between.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}
