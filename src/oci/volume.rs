//! Volumes as users write them: `SRC:DST[:ro|rw]`. Pure: whether the source exists is asked
//! elsewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::spec::Volume;
use crate::error::{Classify, ErrorKind};

/// A volume as asked for: the source is absolute but may still hold symbolic links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeArg {
    /// A file or directory of the host; absolute.
    pub source: PathBuf,
    /// Where it is seen inside; absolute, without `.`, `..` and doubled slashes.
    pub destination: PathBuf,
    /// It cannot be written from inside.
    pub read_only: bool,
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
    /// Both `ro` and `rw`.
    #[error("volume {volume:?} is both ro and rw")]
    Contradiction {
        /// The text.
        volume: String,
    },
    /// Two volumes in one place.
    #[error("two volumes have the destination {}", .destination.display())]
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
            Self::Option { .. } => "known options are ro and rw",
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
    for (part, path) in [("source", source), ("destination", destination)] {
        if !path.starts_with('/') {
            let (path, volume) = (path.to_owned(), volume.to_owned());
            return Err(VolumeError::Relative { part, path, volume });
        }
    }
    let destination = normalised(destination, volume)?;
    if let Some(reason) = reserved(&destination) {
        return Err(VolumeError::Reserved { destination, reason });
    }
    Ok(VolumeArg {
        source: PathBuf::from(source),
        destination,
        read_only: read_only(options, volume)?,
    })
}

/// Checks that no two volumes have one destination.
///
/// # Errors
/// [`VolumeError::Duplicate`].
pub fn check(volumes: &[VolumeArg]) -> Result<(), VolumeError> {
    let mut seen = BTreeSet::new();
    match volumes.iter().find(|v| !seen.insert(&v.destination)) {
        Some(twice) => Err(VolumeError::Duplicate { destination: twice.destination.clone() }),
        None => Ok(()),
    }
}

/// Where an image's own volumes (`VOLUME`) get a file system: cleaned, sorted, each once. Left out is
/// what a volume of the user's covers or lies in, what lies in another one of the image's, and what
/// no mount may touch.
pub fn of_image(declared: &[String], taken: &[Volume]) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = declared.iter().map(|text| cleaned(text)).collect();
    // A directory comes before what is in it.
    places.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for place in places {
        let covered = |volume: &Volume| {
            place.starts_with(&volume.destination) || volume.destination.starts_with(&place)
        };
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

fn read_only(options: &str, volume: &str) -> Result<bool, VolumeError> {
    let (mut ro, mut rw) = (false, false);
    for option in options.split(',').filter(|_| !options.is_empty()) {
        match option {
            "ro" => ro = true,
            "rw" => rw = true,
            _ => {
                let (option, volume) = (option.to_owned(), volume.to_owned());
                return Err(VolumeError::Option { option, volume });
            }
        }
    }
    if ro && rw {
        return Err(VolumeError::Contradiction { volume: volume.to_owned() });
    }
    Ok(ro)
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
        VolumeArg { source: source.into(), destination: destination.into(), read_only }
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
        for (text, name) in [("/a:/b:z", "z"), ("/a:/b:ro,rshared", "rshared"), ("/a:/b:ro,", "")] {
            match parse(text) {
                Err(VolumeError::Option { option, .. }) => assert_eq!(option, name, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(parse("/a:/b:ro,rw"), Err(VolumeError::Contradiction { .. })));
    }

    #[test]
    fn an_images_volumes_leave_the_users_alone() {
        let taken = ["/srv/x", "/given"].map(|destination| Volume {
            source: "/s".into(),
            destination: destination.into(),
            read_only: false,
        });
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
        let parsed = |texts: &[&str]| texts.iter().map(|t| parse(t).unwrap()).collect::<Vec<_>>();
        assert_eq!(check(&parsed(&["/a:/b", "/a:/b/c"])), Ok(()));
        let destination = PathBuf::from("/b");
        assert_eq!(
            check(&parsed(&["/a:/b", "/c:/b/"])),
            Err(VolumeError::Duplicate { destination })
        );
    }
}
