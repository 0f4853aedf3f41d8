//! Where an image is loaded from, and the files in it, whatever form it has.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::archive::{Archive, Bytes, Section, plain};
use super::digest::Digest;
use super::error::{ArchiveFault, StoreError};
use super::layout::{self, Candidate};
use super::manifest::Platform;
use super::rootfs_image::{self, RootfsConfig};
use super::transport::{FileForm, FileTransport};
use super::unpack::{Compression, Limits, copy_limited};

/// An archive may unpack to this many bytes.
const ARCHIVE_MAX: u64 = 64 << 30;

/// Something images can be loaded from: an archive of `docker save` or of the OCI, plain or
/// compressed, a directory in the OCI image layout or in skopeo's form, or a root file system.
#[derive(Debug)]
pub struct Source {
    label: String,
    kind: Kind,
    form: FileForm,
    pick: Option<String>,
    config: RootfsConfig,
}

#[derive(Debug)]
enum Kind {
    Directory(Arc<OwnedFd>),
    Bytes(Bytes),
    /// A pipe: it can be read only once.
    Stream(File),
}

impl Source {
    /// Opens a file, a directory or a pipe; what it holds is found out when it is loaded.
    ///
    /// # Errors
    /// As [`Source::of`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (form, path) = (FileForm::Any, path.to_owned());
        Self::of(&FileTransport { form, path, pick: None }, RootfsConfig::default())
    }

    /// Opens what a transport names; `config` is for a root file system, which has none of its own.
    ///
    /// # Errors
    /// [`StoreError::SourceAbsent`], [`StoreError::Io`] if it cannot be opened, and
    /// [`StoreError::NoImage`] if the transport is of something else; [`StoreError::Process`] and
    /// [`StoreError::Signal`] for a bad `config`.
    pub fn of(transport: &FileTransport, config: RootfsConfig) -> Result<Self, StoreError> {
        let path = transport.path.as_path();
        config.check()?;
        let absent = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::SourceAbsent { path: path.to_owned() },
            _ => StoreError::Io { action: "open", path: path.to_owned(), source: error },
        };
        let file = File::open(path).map_err(absent)?;
        let kind = file.metadata().map_err(StoreError::io("read", path))?.file_type();
        let label = path.display().to_string();
        let wants_directory = match transport.form {
            FileForm::OciLayout | FileForm::Directory => Some(true),
            FileForm::DockerArchive | FileForm::OciArchive => Some(false),
            FileForm::Any | FileForm::Rootfs => None,
        };
        match wants_directory {
            Some(true) if !kind.is_dir() => {
                return Err(StoreError::NoImage { file: label, reason: "it is no directory" });
            }
            Some(false) if kind.is_dir() => {
                return Err(StoreError::NoImage { file: label, reason: "it is a directory" });
            }
            _ => {}
        }
        let kind = if kind.is_dir() {
            Kind::Directory(Arc::new(file.into()))
        } else if kind.is_file() {
            Kind::Bytes(Bytes::File(Arc::new(file)))
        } else if kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
            Kind::Stream(file)
        } else {
            return Err(StoreError::NoImage { file: label, reason: "it is a device" });
        };
        Ok(Self { label, kind, form: transport.form, pick: transport.pick.clone(), config })
    }

    /// An archive in memory, such as the one built into carboy.
    pub fn from_bytes(bytes: &'static [u8]) -> Self {
        Self {
            label: "the built-in image".to_owned(),
            kind: Kind::Bytes(Bytes::Memory(bytes)),
            form: FileForm::Any,
            pick: None,
            config: RootfsConfig::default(),
        }
    }

    /// The images for `host`, with the files they are in. What goes through a temporary file has it
    /// in `staging`, without a name.
    pub(super) fn images(
        &self,
        staging: &Path,
        host: &Platform,
        limits: &Limits,
    ) -> Result<Images, StoreError> {
        if self.form == FileForm::Rootfs {
            return self.rootfs(staging, host, limits);
        }
        let contents = self.contents(staging)?;
        let images = layout::images(&contents, self.form, self.pick.as_deref(), host)?;
        Ok(Images { contents, images, notes: Vec::new() })
    }

    fn rootfs(
        &self,
        staging: &Path,
        host: &Platform,
        limits: &Limits,
    ) -> Result<Images, StoreError> {
        let label = self.label.clone();
        let mut notes = Vec::new();
        let tar = match &self.kind {
            Kind::Directory(root) => {
                let file = temporary(staging)?;
                notes = rootfs_image::pack(root, Path::new(&label), &file, limits)?;
                Bytes::File(Arc::new(file))
            }
            Kind::Bytes(bytes) => bytes.clone(),
            Kind::Stream(stream) => {
                let mut stream = stream;
                spool(&mut stream, staging, &label)?
            }
        };
        let image = rootfs_image::candidate(&tar, &label, &self.config, host, limits)?;
        let contents = Contents { label, files: Files::Layer(tar) };
        Ok(Images { contents, images: vec![image], notes })
    }

    /// Whether it comes from carboy itself.
    pub(super) fn is_embedded(&self) -> bool {
        matches!(self.kind, Kind::Bytes(Bytes::Memory(_)))
    }

    /// Opens the image's files. What is compressed or can be read only once goes through a file
    /// without a name in `staging`, so that nothing is left if we are killed.
    fn contents(&self, staging: &Path) -> Result<Contents, StoreError> {
        let label = self.label.clone();
        let bytes = match &self.kind {
            Kind::Directory(directory) => {
                let files = Files::Directory(Arc::clone(directory));
                return Ok(Contents { label, files });
            }
            Kind::Bytes(bytes) => bytes.clone(),
            Kind::Stream(stream) => {
                let mut stream = stream;
                spool(&mut stream, staging, &label)?
            }
        };
        let mut head = [0; Compression::MAGIC];
        let read = bytes.read_at(&mut head, 0).map_err(StoreError::io("read", &label))?;
        let compression = Compression::of(&head[..read]);
        let bytes = match compression {
            Compression::None => bytes,
            Compression::Other(_) => {
                let reason = "its compression is not known; gzip and zstd are";
                return Err(StoreError::NoImage { file: label, reason });
            }
            Compression::Gzip | Compression::Zstd => {
                let length = bytes.length().map_err(StoreError::io("read", &label))?;
                let section = io::BufReader::with_capacity(256 << 10, bytes.section(0, length));
                let reason = "its compressed stream cannot be read";
                let mut inflated = compression
                    .decoder(section)
                    .map_err(|_| StoreError::NoImage { file: label.clone(), reason })?;
                spool(&mut inflated, staging, &label)?
            }
        };
        let archive = Archive::index(bytes, &label)?;
        Ok(Contents { label, files: Files::Archive(archive) })
    }
}

/// A file without a name: it goes with its last descriptor.
fn temporary(staging: &Path) -> Result<File, StoreError> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(staging, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(StoreError::os("create a temporary file in", staging))
}

/// Copies a stream into a file without a name.
fn spool(from: &mut impl Read, staging: &Path, label: &str) -> Result<Bytes, StoreError> {
    let mut file = temporary(staging)?;
    let damaged =
        |source| StoreError::Archive { file: label.to_owned(), entry: String::new(), source };
    match copy_limited(from, &mut file, ARCHIVE_MAX) {
        Ok(true) => Ok(Bytes::File(Arc::new(file))),
        Ok(false) => Err(damaged(ArchiveFault::Bytes { max: ARCHIVE_MAX })),
        // The decoders' own faults have no errno; those of the disk do.
        Err(error) if error.raw_os_error().is_none() => {
            Err(damaged(ArchiveFault::Compression(error)))
        }
        Err(source) => Err(StoreError::Io { action: "unpack", path: PathBuf::from(label), source }),
    }
}

/// The images of a source.
#[derive(Debug)]
pub(super) struct Images {
    pub(super) contents: Contents,
    pub(super) images: Vec<Candidate>,
    /// What the user should know of the source as a whole.
    pub(super) notes: Vec<String>,
}

/// An opened source: files by name.
#[derive(Debug)]
pub(super) struct Contents {
    label: String,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Directory(Arc<OwnedFd>),
    Archive(Archive),
    /// One layer, under one name.
    Layer(Bytes),
}

impl Contents {
    /// The files of the OCI layout that is open as `directory`; `label` is what errors call it.
    pub(super) fn of_directory(directory: OwnedFd, label: &str) -> Self {
        Self { label: label.to_owned(), files: Files::Directory(Arc::new(directory)) }
    }

    /// What to call the source in errors.
    pub(super) fn label(&self) -> &str {
        &self.label
    }

    /// A file; `None` if there is none of that name.
    pub(super) fn open(&self, name: &str) -> Result<Option<Section>, StoreError> {
        let directory = match &self.files {
            Files::Archive(archive) => return Ok(archive.open(name)),
            Files::Layer(tar) if name == rootfs_image::LAYER_NAME => {
                let length = tar.length().map_err(StoreError::io("read", &self.label))?;
                return Ok(Some(tar.section(0, length)));
            }
            Files::Layer(_) => return Ok(None),
            Files::Directory(directory) => directory,
        };
        // A name from a document must not lead out; links in the directory are its owner's.
        let Some(name) = plain("", name).filter(|name| !name.is_empty()) else { return Ok(None) };
        let path = || Path::new(&self.label).join(&name);
        // A FIFO in the place of a blob must not block us.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(directory.as_fd(), &*name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(StoreError::os("open", path())(errno)),
        };
        let metadata = file.metadata().map_err(StoreError::io("read", path()))?;
        if !metadata.is_file() {
            return Ok(None);
        }
        Ok(Some(Bytes::File(Arc::new(file)).section(0, metadata.len())))
    }

    /// A small file that may be missing, whole.
    pub(super) fn document(
        &self,
        what: &'static str,
        name: &str,
        max: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(mut section) = self.open(name)? else { return Ok(None) };
        let size = section.length();
        if size > max {
            let (file, name) = (self.label.clone(), name.to_owned());
            return Err(StoreError::TooLarge { file, what, name, size, max });
        }
        let mut bytes = Vec::new();
        section.read_to_end(&mut bytes).map_err(StoreError::io("read", &self.label))?;
        Ok(Some(bytes))
    }

    /// The error for a file that is not there.
    pub(super) fn missing(&self, what: &'static str, name: &str) -> StoreError {
        StoreError::MissingBlob { file: self.label.clone(), what, name: name.to_owned() }
    }

    /// Checks a size against a descriptor's.
    pub(super) fn check_size(
        &self,
        what: &'static str,
        name: &str,
        want: u64,
        found: u64,
    ) -> Result<(), StoreError> {
        if want == found {
            return Ok(());
        }
        let (file, name) = (self.label.clone(), name.to_owned());
        Err(StoreError::SizeMismatch { file, what, name, want, found })
    }

    /// Checks a digest against a descriptor's.
    pub(super) fn check_digest(
        &self,
        what: &'static str,
        want: &Digest,
        found: Digest,
    ) -> Result<(), StoreError> {
        if *want == found {
            return Ok(());
        }
        let (file, want) = (self.label.clone(), want.clone());
        Err(StoreError::DigestMismatch { file, what, want, found })
    }
}
