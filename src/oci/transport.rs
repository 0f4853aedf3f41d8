//! Where an image is, as users write it: skopeo's transports (containers-transports(5)), and a bare
//! path, whose form is found out by its content. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use super::reference::{Reference, ReferenceError};
use crate::error::{Classify, ErrorKind};

/// A place an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A file or directory.
    File(FileTransport),
    /// `docker://NAME[:tag][@digest]`: a registry.
    Registry(Reference),
}

/// An image in a file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTransport {
    /// What to expect there.
    pub form: FileForm,
    /// The file or directory; `-` was standard input, which is `/dev/stdin` here.
    pub path: PathBuf,
    /// Which one of several images; all of them unless given.
    pub pick: Option<String>,
}

/// What a file or directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// A bare path: an archive, a layout or a directory of skopeo's, whatever it turns out to be.
    Any,
    /// `docker-archive:FILE[:ref]`: an archive of `docker save`.
    DockerArchive,
    /// `oci-archive:FILE[:ref]`: a tar of an OCI image layout.
    OciArchive,
    /// `oci:DIR[:ref]`: an OCI image layout.
    OciLayout,
    /// `dir:DIR`: skopeo's directory of one image's blobs.
    Directory,
    /// `rootfs:PATH`: the root file system itself, as a directory or a tar.
    Rootfs,
}

impl FileForm {
    /// The word before the colon; a bare path has none.
    fn word(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::DockerArchive => "docker-archive",
            Self::OciArchive => "oci-archive",
            Self::OciLayout => "oci",
            Self::Directory => "dir",
            Self::Rootfs => "rootfs",
        }
    }

    /// Whether a reference may stand behind the path.
    fn picks(self) -> bool {
        matches!(self, Self::DockerArchive | Self::OciArchive | Self::OciLayout)
    }
}

const FORMS: [FileForm; 5] = [
    FileForm::DockerArchive,
    FileForm::OciArchive,
    FileForm::OciLayout,
    FileForm::Directory,
    FileForm::Rootfs,
];

/// Other tools' transports; they are no paths.
const UNKNOWN: [&str; 6] =
    ["atomic", "containers-storage", "docker-daemon", "ostree", "sif", "tarball"];

/// Why a word is no place of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A transport of other tools.
    #[error("images are not taken from {word}:")]
    Unknown {
        /// The word before the colon.
        word: String,
    },
    /// Nothing follows the transport, or its path.
    #[error("{text:?} has no {what}")]
    Empty {
        /// The whole word.
        text: String,
        /// `path`, `reference behind the path`.
        what: &'static str,
    },
    /// `docker:` without the slashes.
    #[error("{text:?} is no place of an image: a registry's is docker://NAME")]
    Slashes {
        /// The whole word.
        text: String,
    },
    /// The name behind `docker://`.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
}

impl Classify for TransportError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { .. } => Some(
                "docker-archive:, oci-archive:, oci:, dir:, rootfs: and docker:// are known; a file \
                 of such a name is ./NAME"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

impl Transport {
    /// Parses a place. A word without a known transport before its first colon is a path; the path
    /// behind a transport ends at the next colon, as skopeo's.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn parse(word: &OsStr) -> Result<Self, TransportError> {
        let Some(text) = word.to_str() else { return Ok(Self::path(Path::new(word))) };
        let Some((before, rest)) = text.split_once(':') else {
            return if text.is_empty() { Err(empty(text, "path")) } else { Ok(Self::path(word)) };
        };
        if before == "docker" {
            let name = rest
                .strip_prefix("//")
                .ok_or_else(|| TransportError::Slashes { text: text.to_owned() })?;
            return Ok(Self::Registry(Reference::parse(name)?));
        }
        if UNKNOWN.contains(&before) {
            return Err(TransportError::Unknown { word: before.to_owned() });
        }
        let Some(form) = FORMS.into_iter().find(|form| form.word() == before) else {
            return Ok(Self::path(word));
        };
        let (path, pick) = match rest.split_once(':').filter(|_| form.picks()) {
            Some((path, pick)) => (path, Some(pick)),
            None => (rest, None),
        };
        if path.is_empty() {
            return Err(empty(text, "path"));
        }
        if pick == Some("") {
            return Err(empty(text, "reference behind the path"));
        }
        let (path, pick) = (stdin(path), pick.map(str::to_owned));
        Ok(Self::File(FileTransport { form, path, pick }))
    }

    /// Whether a word is a place: one that names a transport, or is a path that no image has as its
    /// name. What else could be an image's name is one.
    pub fn is_named(word: &str) -> bool {
        if ["/", "./", "../"].iter().any(|start| word.starts_with(start)) {
            return true;
        }
        let Some((before, rest)) = word.split_once(':') else { return false };
        UNKNOWN.contains(&before)
            || FORMS.iter().any(|form| form.word() == before)
                && (rest.contains(['/', ':']) || before.contains('-'))
            || before == "docker" && rest.starts_with("//")
    }

    /// A bare path.
    pub fn path(path: impl AsRef<Path>) -> Self {
        let path = stdin(path.as_ref());
        Self::File(FileTransport { form: FileForm::Any, path, pick: None })
    }
}

/// `-` is standard input.
fn stdin(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    if path == "-" { PathBuf::from("/dev/stdin") } else { path.to_owned() }
}

fn empty(text: &str, what: &'static str) -> TransportError {
    TransportError::Empty { text: text.to_owned(), what }
}

impl fmt::Display for FileTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.form != FileForm::Any {
            write!(f, "{}:", self.form.word())?;
        }
        write!(f, "{}", self.path.display())?;
        self.pick.iter().try_for_each(|pick| write!(f, ":{pick}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_is_read() {
        let file = |form, path: &str, pick: Option<&str>| {
            let pick = pick.map(str::to_owned);
            Ok(Transport::File(FileTransport { form, path: path.into(), pick }))
        };
        let registry = |name: &str| Ok(Transport::Registry(Reference::parse(name).unwrap()));
        let empty = |text: &str, what| Err(empty(text, what));
        let cases = [
            ("a.tar", file(FileForm::Any, "a.tar", None)),
            ("-", file(FileForm::Any, "/dev/stdin", None)),
            ("/a:b", file(FileForm::Any, "/a:b", None)),
            ("x:b", file(FileForm::Any, "x:b", None)),
            ("./oci:b", file(FileForm::Any, "./oci:b", None)),
            ("docker-archive:a.tar", file(FileForm::DockerArchive, "a.tar", None)),
            ("docker-archive:a.tar:t:1", file(FileForm::DockerArchive, "a.tar", Some("t:1"))),
            ("docker-archive:-", file(FileForm::DockerArchive, "/dev/stdin", None)),
            ("oci-archive:/a.tar:latest", file(FileForm::OciArchive, "/a.tar", Some("latest"))),
            ("oci:dir:a.b/c:1", file(FileForm::OciLayout, "dir", Some("a.b/c:1"))),
            ("oci:dir", file(FileForm::OciLayout, "dir", None)),
            ("dir:a:b", file(FileForm::Directory, "a:b", None)),
            ("rootfs:/a:b", file(FileForm::Rootfs, "/a:b", None)),
            ("docker://t:1", registry("t:1")),
            ("docker://localhost:5000/a/b:1", registry("localhost:5000/a/b:1")),
            ("docker:t:1", Err(TransportError::Slashes { text: "docker:t:1".into() })),
            ("docker-daemon:t:1", Err(TransportError::Unknown { word: "docker-daemon".into() })),
            ("oci:", empty("oci:", "path")),
            ("oci::x", empty("oci::x", "path")),
            ("oci:d:", empty("oci:d:", "reference behind the path")),
            ("", empty("", "path")),
        ];
        for (text, want) in cases {
            assert_eq!(Transport::parse(OsStr::new(text)), want, "{text}");
        }
        assert!(Transport::parse(OsStr::new("docker://No Name")).is_err());
    }

    #[test]
    fn names_are_no_transports() {
        for name in ["t:1", "oci:1", "dir:latest", "a/b:1", "embedded:sidecars", "docker:27"] {
            assert!(!Transport::is_named(name), "{name}");
        }
        for place in [
            "oci:/d",
            "oci:d:t",
            "oci-archive:f",
            "docker://t",
            "rootfs:./r",
            "sif:x",
            "/f",
            "./f",
            "../f",
        ] {
            assert!(Transport::is_named(place), "{place}");
        }
    }

    #[test]
    fn a_place_is_shown_as_it_was_written() {
        for text in ["a.tar", "oci:/d:t:1", "dir:d", "docker-archive:f"] {
            let Ok(Transport::File(file)) = Transport::parse(OsStr::new(text)) else {
                panic!("{text}")
            };
            assert_eq!(file.to_string(), text);
        }
    }
}
