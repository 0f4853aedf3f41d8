//! A user namespace with a bundle's ids, as a handle that mounts are mapped by. It is no namespace
//! that anything runs in: the container's own, with the same ids, is libcontainer's to make.
//!
//! Runs in helper processes only, which have one thread: a fork, and ids for file access that are
//! the thread's own.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use caps::CapSet;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, setfsgid, setfsuid};

use super::id_range::IdRange;

/// A range of ids, and a user namespace that has it.
#[derive(Debug)]
pub(crate) struct Mapping {
    range: IdRange,
    namespace: File,
}

impl Mapping {
    /// Makes the namespace: a child enters it, is given the ids, and goes.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn new(range: IdRange) -> io::Result<Self> {
        let (mut told, mut tell) = io::pipe()?;
        let (mut wait, go) = io::pipe()?;
        // SAFETY: this process runs one thread only, so that the child may go on as it likes.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop((told, go));
                let error = unshare(CloneFlags::CLONE_NEWUSER).err().map_or(0, |e| e as i32);
                // Whatever fails here the parent sees as an end without a word.
                let _ = tell.write_all(&error.to_ne_bytes());
                drop(tell);
                let _ = wait.read(&mut [0]);
                // SAFETY: `_exit(2)` never returns; nothing of the parent's is to be run here.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                drop((tell, wait));
                let mut error = [0; 4];
                let namespace =
                    told.read_exact(&mut error).and_then(|()| match i32::from_ne_bytes(error) {
                        0 => give_ids(child, range),
                        errno => Err(io::Error::from_raw_os_error(errno)),
                    });
                drop(go);
                waitpid(child, None)?;
                Ok(Self { range, namespace: namespace? })
            }
        }
    }

    /// The namespace's handle.
    pub(crate) fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Does something whose files belong to root inside. What this process may do stays the same.
    ///
    /// Where a mount has mapped ids, who has none of them can make nothing (EOVERFLOW), root of the
    /// host included.
    ///
    /// # Errors
    /// What the kernel said; `act` was not called then.
    pub(crate) fn as_root_inside<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let held = caps::read(None, CapSet::Effective).map_err(io::Error::other)?;
        let _back = OwnFileIds;
        setfsgid(Gid::from_raw(self.range.first));
        // This takes the capabilities away that concern files (capabilities(7)).
        setfsuid(Uid::from_raw(self.range.first));
        caps::set(None, CapSet::Effective, &held).map_err(io::Error::other)?;
        Ok(act())
    }
}

/// Gives this process the ids for file access back that it has otherwise.
struct OwnFileIds;

impl Drop for OwnFileIds {
    fn drop(&mut self) {
        setfsuid(nix::unistd::geteuid());
        setfsgid(nix::unistd::getegid());
    }
}

/// Does something as root inside, where there is a range of the bundle's own.
///
/// # Errors
/// As [`Mapping::as_root_inside`].
pub(crate) fn as_root_of<T>(mapping: Option<&Mapping>, act: impl FnOnce() -> T) -> io::Result<T> {
    match mapping {
        Some(mapping) => mapping.as_root_inside(act),
        None => Ok(act()),
    }
}

fn give_ids(child: Pid, range: IdRange) -> io::Result<File> {
    for file in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{child}/{file}"), range.map())?;
    }
    File::open(format!("/proc/{child}/ns/user"))
}
