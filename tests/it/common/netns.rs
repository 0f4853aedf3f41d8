//! Work in another network namespace, without a command: on a thread that enters it and ends.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

/// Runs `work` on a throwaway thread inside the network namespace at `path`. A socket made there
/// stays in that namespace wherever it is used later.
pub(crate) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One attempt to connect from inside the namespace at `path`; no second try.
pub(crate) fn connect(path: &Path, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    inside(path, || {
        let stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    })
}

/// The network namespace of a process.
pub(crate) fn of_pid(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}
