//! File systems in memory as users write them, in Docker's words: `DST[:OPTION,…]`. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::limits;
use super::volume::{self, VolumeError};
use crate::error::{Classify, ErrorKind};

/// What the file systems of a read-only root hold at most, and one for which no size is given.
pub const DEFAULT_SIZE: u64 = 64 << 20;

/// Where programs expect to write whatever the root file system is: what podman's
/// `--read-only-tmpfs` mounts, with the modes these directories have everywhere.
const OF_READ_ONLY_ROOT: [(&str, u32); 3] =
    [("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];

/// A file system in memory inside the container. It has no device nodes and no set-user-id files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where; absolute.
    pub destination: PathBuf,
    /// In bytes.
    pub size: u64,
    /// The permission bits of its root.
    pub mode: u32,
    /// The user its root belongs to.
    pub uid: u32,
    /// The group its root belongs to.
    pub gid: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// Programs on it can be run.
    pub exec: bool,
}

/// Why a text is no file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TmpfsError {
    /// Its place.
    #[error(transparent)]
    Destination(#[from] VolumeError),
    /// An option carboy does not know, or a value that is none.
    #[error("tmpfs {text:?} has the option {option:?}, which carboy does not know")]
    Option {
        /// The option.
        option: String,
        /// The text.
        text: String,
    },
}

impl Classify for TmpfsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Destination(e) => e.hint(),
            Self::Option { .. } => Some(
                "there are size=BYTES, mode=OCTAL, uid=N, gid=N, ro, rw, exec, noexec; nosuid and \
                 nodev are always on"
                    .to_owned(),
            ),
        }
    }
}

impl Tmpfs {
    fn at(destination: PathBuf, mode: u32) -> Self {
        let (size, read_only, exec) = (DEFAULT_SIZE, false, false);
        Self { destination, size, mode, uid: 0, gid: 0, read_only, exec }
    }

    /// What mount(8) is told.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        options.extend((!self.exec).then(|| "noexec".to_owned()));
        options.extend(self.read_only.then(|| "ro".to_owned()));
        let Self { size, mode, uid, gid, .. } = self;
        options.extend([
            format!("size={size}"),
            format!("mode={mode:o}"),
            format!("uid={uid}"),
            format!("gid={gid}"),
        ]);
        options
    }
}

/// Parses `DST[:OPTION,…]`. Everybody may write there unless a mode says otherwise, as with Docker.
///
/// # Errors
/// [`TmpfsError`] says which part is wrong.
pub fn parse(text: &str) -> Result<Tmpfs, TmpfsError> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = Tmpfs::at(volume::destination(destination, text)?, 0o1777);
    for option in options.split(',').filter(|_| !options.is_empty()) {
        if apply(&mut tmpfs, option).is_none() {
            let (option, text) = (option.to_owned(), text.to_owned());
            return Err(TmpfsError::Option { option, text });
        }
    }
    Ok(tmpfs)
}

fn apply(tmpfs: &mut Tmpfs, option: &str) -> Option<()> {
    let id = |value: &str| value.parse::<u32>().ok().filter(|id| *id < u32::MAX);
    match option.split_once('=').unwrap_or((option, "")) {
        ("ro", "") => tmpfs.read_only = true,
        ("rw", "") => tmpfs.read_only = false,
        ("exec", "") => tmpfs.exec = true,
        ("noexec", "") => tmpfs.exec = false,
        ("nosuid" | "nodev", "") => {}
        ("size", value) => tmpfs.size = limits::parse_size(value)?,
        ("mode", value) => {
            tmpfs.mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777)?;
        }
        ("uid", value) => tmpfs.uid = id(value)?,
        ("gid", value) => tmpfs.gid = id(value)?,
        _ => return None,
    }
    Some(())
}

/// What a read-only root gets, apart from what is, or lies in, one of the places in `taken`.
pub fn of_read_only_root(taken: &[PathBuf]) -> impl Iterator<Item = Tmpfs> {
    OF_READ_ONLY_ROOT
        .iter()
        .map(|(path, mode)| Tmpfs::at(PathBuf::from(path), *mode))
        .filter(|tmpfs| !taken.iter().any(|outer| tmpfs.destination.starts_with(outer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let plain = Tmpfs::at("/cache".into(), 0o1777);
        let cases = [
            ("/cache", plain.clone()),
            ("/cache/", plain.clone()),
            ("/cache:nosuid,nodev,noexec,rw", plain.clone()),
            ("/cache:exec,ro", Tmpfs { exec: true, read_only: true, ..plain.clone() }),
            ("/cache:size=1m,mode=700", Tmpfs { size: 1 << 20, mode: 0o700, ..plain.clone() }),
            ("/cache:uid=1000,gid=5", Tmpfs { uid: 1000, gid: 5, ..plain.clone() }),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
        let options = parse("/x:size=8192,mode=0750").unwrap().options().join(",");
        assert_eq!(options, "nosuid,nodev,noexec,size=8192,mode=750,uid=0,gid=0");
    }

    #[test]
    fn what_is_unsafe_or_unknown_is_refused() {
        for text in [
            "/x:dev",
            "/x:suid",
            "/x:size=",
            "/x:size=-1",
            "/x:size=0",
            "/x:mode=9",
            "/x:mode=17777",
            "/x:uid=root",
            "/x:uid=4294967295",
            "/x:ro,",
            "/x:ro=1",
            "/x:mpol=local",
        ] {
            assert!(matches!(parse(text), Err(TmpfsError::Option { .. })), "{text}");
        }
        for text in ["", "x", ":size=1", "/proc", "/", "/a/../b", "/dev"] {
            assert!(matches!(parse(text), Err(TmpfsError::Destination(_))), "{text}");
        }
    }

    #[test]
    fn a_place_that_is_taken_is_left_alone() {
        let taken = ["/tmp".into(), "/run/secrets".into(), "/var".into()];
        let got: Vec<_> = of_read_only_root(&taken).map(|t| t.destination).collect();
        assert_eq!(got, [PathBuf::from("/run")]);
    }
}
