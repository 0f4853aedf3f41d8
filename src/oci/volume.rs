//! Volumes as users write them: `SRC:DST[:ro|rw][,idmap][,z|Z]`. Pure: whether the source exists is asked
//! elsewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Classify, ErrorKind};

/// Which SELinux label the files of a volume are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relabel {
    /// One by which all bundles may use them (`z`).
    Shared,
    /// The bundle's own (`Z`).
    Private,
    /// The one that carboy's own programs have in all bundles (`--init`).
    Common,
}

/// A volume as asked for: the source is absolute but may still hold symbolic links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeArg {
    /// A file or directory of the host; absolute.
    pub source: PathBuf,
    /// Where it is seen inside; absolute, without `.`, `..` and doubled slashes.
    pub destination: PathBuf,
    /// It cannot be written from inside.
    pub read_only: bool,
    /// Its files' owners are to be the same ids inside, whatever the bundle's own are on the host.
    pub idmap: bool,
    /// An SELinux label was asked for.
    pub relabel: Option<Relabel>,
}

/// Why a text cannot be a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeError {
    /// Not two or three parts.
    #[error("volume {volume:?} is not of the form SRC:DST[:ro|rw]")]
    Form {
        /// The text.
        volume: String,
    },
    /// A part that must be an absolute path is not.
    #[error("the {part} {path:?} of volume {volume:?} is no absolute path")]
    Relative {
        /// `source` or `destination`.
        part: &'static str,
        /// The path.
        path: String,
        /// The text.
        volume: String,
    },
    /// A destination with `..`, which could mean another place once links are followed.
    #[error("the destination {destination:?} of volume {volume:?} has a .. in it")]
    Parent {
        /// The destination.
        destination: String,
        /// The text.
        volume: String,
    },
    /// A destination the container cannot do without.
    #[error("nothing can be mounted on {}: {reason}", .destination.display())]
    Reserved {
        /// The destination.
        destination: PathBuf,
        /// Why it is kept free.
        reason: &'static str,
    },
    /// An option carboy does not know.
    #[error("volume {volume:?} has the unknown option {option:?}")]
    Option {
        /// The option.
        option: String,
        /// The text.
        volume: String,
    },
    /// Both `ro` and `rw`, or both `z` and `Z`.
    #[error("volume {volume:?} is both {both}")]
    Contradiction {
        /// `ro and rw`, `z and Z`.
        both: &'static str,
        /// The text.
        volume: String,
    },
    /// The host's whole file system.
    #[error("the host's / cannot be a volume")]
    HostRoot,
    /// Two mounts in one place.
    #[error("two mounts have the destination {}", .destination.display())]
    Duplicate {
        /// The destination.
        destination: PathBuf,
    },
}

impl Classify for VolumeError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Relative { part: "source", .. } => {
                "there are no named volumes: give an absolute path of the host"
            }
            Self::HostRoot => "name the directories that are needed inside",
            Self::Option { .. } => "known options are ro, rw, idmap, z and Z",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Parses `SRC:DST[:OPTION,…]`.
///
/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` may be destinations: what the user mounts
/// there wins over what carboy writes.
///
/// # Errors
/// [`VolumeError`] says which part is wrong.
pub fn parse(volume: &str) -> Result<VolumeArg, VolumeError> {
    let form = || VolumeError::Form { volume: volume.to_owned() };
    let parts: Vec<&str> = volume.split(':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [source, destination] => (*source, *destination, ""),
        [source, destination, options] if !options.is_empty() => (*source, *destination, *options),
        _ => return Err(form()),
    };
    if source.is_empty() || destination.is_empty() || volume.contains('\0') {
        return Err(form());
    }
    if !source.starts_with('/') {
        let (path, volume) = (source.to_owned(), volume.to_owned());
        return Err(VolumeError::Relative { part: "source", path, volume });
    }
    let destination = self::destination(destination, volume)?;
    let Options { read_only, idmap, relabel } = self::options(options, volume)?;
    Ok(VolumeArg { source: PathBuf::from(source), destination, read_only, idmap, relabel })
}

/// A place inside that something may be mounted on; `text` is what it is a part of.
///
/// # Errors
/// [`VolumeError`] if it is relative, has a `..` in it, or is needed for something else.
pub fn destination(path: &str, text: &str) -> Result<PathBuf, VolumeError> {
    if !path.starts_with('/') || path.contains('\0') {
        let (path, volume) = (path.to_owned(), text.to_owned());
        return Err(VolumeError::Relative { part: "destination", path, volume });
    }
    let destination = normalised(path, text)?;
    check_place(&destination)?;
    Ok(destination)
}

/// Refuses a place inside that is needed for something else.
///
/// # Errors
/// [`VolumeError::Reserved`].
pub fn check_place(destination: &Path) -> Result<(), VolumeError> {
    match reserved(destination) {
        Some(reason) => Err(VolumeError::Reserved { destination: destination.to_owned(), reason }),
        None => Ok(()),
    }
}

/// Checks that no two mounts have one destination: one would hide the other.
///
/// # Errors
/// [`VolumeError::Duplicate`].
pub fn check<'a>(destinations: impl IntoIterator<Item = &'a Path>) -> Result<(), VolumeError> {
    let mut seen = BTreeSet::new();
    match destinations.into_iter().find(|d| !seen.insert(*d)) {
        Some(twice) => Err(VolumeError::Duplicate { destination: twice.to_owned() }),
        None => Ok(()),
    }
}

/// Where an image's own volumes (`VOLUME`) get a file system: cleaned, sorted, each once. Left out is
/// what a mount of the user's covers or lies in, what lies in another one of the image's, and what
/// no mount may touch.
pub fn of_image(declared: &[String], taken: &[PathBuf]) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = declared.iter().map(|text| cleaned(text)).collect();
    // A directory comes before what is in it.
    places.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for place in places {
        let covered = |there: &PathBuf| place.starts_with(there) || there.starts_with(&place);
        let nested = kept.iter().any(|outer| place.starts_with(outer));
        if !nested && reserved(&place).is_none() && !taken.iter().any(covered) {
            kept.push(place);
        }
    }
    kept
}

/// A path from the root without `.` and `..`, by its text alone.
fn cleaned(text: &str) -> PathBuf {
    let mut path = PathBuf::from("/");
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                // The root's parent is the root.
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

fn normalised(destination: &str, volume: &str) -> Result<PathBuf, VolumeError> {
    let mut path = PathBuf::from("/");
    for component in destination.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                let (destination, volume) = (destination.to_owned(), volume.to_owned());
                return Err(VolumeError::Parent { destination, volume });
            }
            name => path.push(name),
        }
    }
    Ok(path)
}

struct Options {
    read_only: bool,
    idmap: bool,
    relabel: Option<Relabel>,
}

fn options(options: &str, volume: &str) -> Result<Options, VolumeError> {
    let (mut ro, mut rw, mut idmap, mut shared, mut private) = (false, false, false, false, false);
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option {
            "ro" => ro = true,
            "rw" => rw = true,
            "idmap" => idmap = true,
            "z" => shared = true,
            "Z" => private = true,
            _ => {
                let (option, volume) = (option.to_owned(), volume.to_owned());
                return Err(VolumeError::Option { option, volume });
            }
        }
    }
    for (both, is) in [("ro and rw", ro && rw), ("z and Z", shared && private)] {
        if is {
            return Err(VolumeError::Contradiction { both, volume: volume.to_owned() });
        }
    }
    let shared = shared.then_some(Relabel::Shared);
    Ok(Options { read_only: ro, idmap, relabel: shared.or(private.then_some(Relabel::Private)) })
}

/// What the runtime makes in `/dev` after the volumes are mounted: it would fail on a volume, or
/// write through it into the host.
const DEVICES: &[&str] = &[
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "stderr", "stdin",
    "stdout", "tty", "urandom", "zero",
];

/// Why nothing may be mounted there. Other places below `/dev` (`/dev/log`, `/dev/shm`) are free.
fn reserved(destination: &Path) -> Option<&'static str> {
    if destination == Path::new("/") {
        return Some("it is the image's root");
    }
    if destination.starts_with("/proc") {
        return Some("/proc belongs to the container's own processes");
    }
    if destination.starts_with("/sys") {
        return Some("/sys is read-only and partly hidden, which a mount could undo");
    }
    let below_dev = destination.strip_prefix("/dev").ok()?;
    match below_dev.components().next() {
        None => Some("the runtime makes the container's devices there"),
        Some(first) if DEVICES.iter().any(|d| first.as_os_str() == *d) => {
            Some("the runtime makes this device itself")
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(source: &str, destination: &str, read_only: bool) -> VolumeArg {
        VolumeArg {
            source: source.into(),
            destination: destination.into(),
            read_only,
            idmap: false,
            relabel: None,
        }
    }

    #[test]
    fn parses_what_docker_users_write() {
        let cases = [
            ("/a:/b", volume("/a", "/b", false)),
            ("/a:/b:ro", volume("/a", "/b", true)),
            ("/a:/b:rw", volume("/a", "/b", false)),
            ("/a/../c:/b//c/./d/", volume("/a/../c", "/b/c/d", false)),
            ("/a:/etc/resolv.conf:ro", volume("/a", "/etc/resolv.conf", true)),
            ("/a:/etc/hosts", volume("/a", "/etc/hosts", false)),
            ("/a b:/ü", volume("/a b", "/ü", false)),
            ("/dev/log:/dev/log", volume("/dev/log", "/dev/log", false)),
            ("/a:/dev/shm", volume("/a", "/dev/shm", false)),
            ("/a:/devices", volume("/a", "/devices", false)),
        ];
        for (text, want) in cases {
            let got = parse(text).unwrap();
            assert_eq!(got, want, "{text}");
            assert_eq!(got.destination.as_os_str(), want.destination.as_os_str(), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_volume() {
        for text in ["", "/a", ":/b", "/a:", "/a:/b:", "/a:/b:ro:x", "/a\0:/b", ":", "::"] {
            assert!(matches!(parse(text), Err(VolumeError::Form { .. })), "{text}");
        }
        for (text, want) in [("a:/b", "source"), ("/a:b", "destination"), ("./a:/b", "source")] {
            match parse(text) {
                Err(VolumeError::Relative { part, .. }) => assert_eq!(part, want, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in ["/a:/b/../c", "/a:/..", "/a:/../proc"] {
            assert!(matches!(parse(text), Err(VolumeError::Parent { .. })), "{text}");
        }
    }

    #[test]
    fn an_unknown_option_is_named() {
        for (text, name) in [("/a:/b:x", "x"), ("/a:/b:ro,rshared", "rshared"), ("/a:/b:ro,", "")] {
            match parse(text) {
                Err(VolumeError::Option { option, .. }) => assert_eq!(option, name, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let relabelled = parse("/a:/b:ro,Z").unwrap();
        let relabel = Some(Relabel::Private);
        assert_eq!(relabelled, VolumeArg { relabel, ..volume("/a", "/b", true) });
        let relabel = Some(Relabel::Shared);
        assert_eq!(parse("/a:/b:z").unwrap(), VolumeArg { relabel, ..volume("/a", "/b", false) });
        let mapped = parse("/a:/b:idmap,ro").unwrap();
        assert_eq!(mapped, VolumeArg { idmap: true, ..volume("/a", "/b", true) });
        for text in ["/a:/b:ro,rw", "/a:/b:z,Z"] {
            assert!(matches!(parse(text), Err(VolumeError::Contradiction { .. })), "{text}");
        }
    }

    #[test]
    fn an_images_volumes_leave_the_users_alone() {
        let taken = ["/srv/x", "/given"].map(PathBuf::from);
        let declared = [
            "/var/lib/db",
            "var/cache/../log/",
            "/var/lib/db/sub",
            "/var/lib/db",
            "/var/lib/db2",
            "/given",
            "/given/sub",
            "/srv",
            "/",
            "..",
            "/proc/sys",
            "/dev",
            "/dev/null",
        ];
        let found = of_image(&declared.map(str::to_owned), &taken);
        let want = ["/var/lib/db", "/var/lib/db2", "/var/log"].map(PathBuf::from);
        assert_eq!(found, want);
    }

    #[test]
    fn reserved_places_are_refused() {
        for to in [
            "/",
            "//",
            "/.",
            "/proc",
            "/proc/",
            "/proc/sys/net",
            "/sys",
            "/sys/fs/cgroup",
            "/dev",
            "/dev/null",
            "/dev/pts/0",
            "/dev/./ptmx",
        ] {
            let text = format!("/a:{to}");
            assert!(matches!(parse(&text), Err(VolumeError::Reserved { .. })), "{to}");
        }
    }

    #[test]
    fn duplicates_are_found_after_normalisation() {
        let check = |texts: &[&str]| {
            let parsed: Vec<_> = texts.iter().map(|t| parse(t).unwrap().destination).collect();
            super::check(parsed.iter().map(PathBuf::as_path))
        };
        assert_eq!(check(&["/a:/b", "/a:/b/c"]), Ok(()));
        let destination = PathBuf::from("/b");
        assert_eq!(check(&["/a:/b", "/c:/b/"]), Err(VolumeError::Duplicate { destination }));
    }
}
