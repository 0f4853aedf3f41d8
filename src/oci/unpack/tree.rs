//! Writes a layer's files. Every path is resolved by the kernel inside the layer's directory;
//! names are created with `O_EXCL` or its likes, so nothing is written through an existing link.

mod finish;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::entry::{Meta, Time, split};
use super::lower::{Lower, is, is_whiteout, lookup};
use super::{Form, LayerFault, Notes, remove_tree};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Open directories that are kept; more are forgotten all at once.
const CACHE: usize = 256;

/// A layer that is being written.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// The topmost first.
    lower: &'a [OwnedFd],
    pub(super) form: Form,
    cache: HashMap<Vec<u8>, Rc<OwnedFd>>,
    /// Directories get owner, mode and time last: writing into them changes the time, and a
    /// read-only one could not be written.
    directories: BTreeMap<Vec<u8>, Meta>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
}

/// What was in the way of an entry.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    Directory,
    Whiteout,
    Other,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, lower: &'a [OwnedFd], form: Form) -> Self {
        let mut tree = Self {
            root,
            lower,
            form,
            cache: HashMap::new(),
            directories: BTreeMap::new(),
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
        };
        let meta = tree.inherited(b"");
        tree.directories.insert(Vec::new(), meta);
        tree
    }

    pub(super) fn directory(
        &mut self,
        path: &[u8],
        meta: Meta,
        notes: &mut Notes,
    ) -> Result<(), LayerFault> {
        if !path.is_empty() {
            let parent = self.parent(path)?;
            self.make_directory(&parent, path, meta.mode)?;
        }
        if !meta.xattrs.is_empty() {
            let directory =
                self.open_directory(path).map_err(LayerFault::os("open the directory"))?;
            self.set_xattrs(&directory, path, &meta, notes)?;
        }
        self.directories.insert(path.to_owned(), meta);
        Ok(())
    }

    /// Creates an empty file. It has as much of its mode as [`Tree::describe`] need not change, and
    /// is writable for its owner until then, as attributes want. Nobody else gets this far: the
    /// store is its owner's alone.
    pub(super) fn create(&mut self, path: &[u8], meta: &Meta) -> Result<OwnedFd, LayerFault> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(meta.mode & 0o777 | 0o600);
        let (parent, name) = (self.parent(path)?, split(path).1);
        self.in_place_of(&parent, path, || fs::openat(&*parent, name, flags, mode))?
            .map_err(LayerFault::os("create the file"))
    }

    pub(super) fn symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        meta: &Meta,
    ) -> Result<(), LayerFault> {
        let (parent, name) = (self.parent(path)?, split(path).1);
        self.in_place_of(&parent, path, || fs::symlinkat(target, &*parent, name))?
            .map_err(LayerFault::os("make the symbolic link"))?;
        self.describe_at(&parent, name, meta)
    }

    /// The target is found as a path of the layer; if it is a symbolic link, the link itself gets
    /// another name.
    pub(super) fn hardlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), LayerFault> {
        let missing =
            || LayerFault::LinkTarget { target: String::from_utf8_lossy(target).into_owned() };
        let (directory, target_name) = split(target);
        if target.is_empty() || target == path {
            return Err(missing());
        }
        let directory = self.resolve(directory, PLACE).map_err(|_| missing())?;
        if !matches!(look(&directory, target_name)?, Found::Other) {
            return Err(missing());
        }
        let (parent, name) = (self.parent(path)?, split(path).1);
        self.clear(&parent, path)?;
        fs::linkat(&directory, target_name, &*parent, name, AtFlags::empty()).map_err(|errno| {
            match errno {
                Errno::NOENT => missing(),
                errno => LayerFault::os("make the hard link")(errno),
            }
        })
    }

    pub(super) fn fifo(&mut self, path: &[u8], meta: &Meta) -> Result<(), LayerFault> {
        let (parent, name) = (self.parent(path)?, split(path).1);
        self.clear(&parent, path)?;
        let mode = Mode::from_raw_mode(meta.mode);
        fs::mknodat(&*parent, name, FileType::Fifo, mode, 0)
            .map_err(LayerFault::os("make the FIFO"))?;
        self.describe_at(&parent, name, meta)?;
        // The process' umask took part in making it; the name was free, so this is no link.
        fs::chmodat(&*parent, name, mode, AtFlags::empty()).map_err(LayerFault::os("set the mode"))
    }

    /// Hides `path` of the layers below. What this layer itself has there stays, and a directory
    /// then hides what is below it.
    pub(super) fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerFault> {
        let (directory, name) = split(path);
        if self.is_replaced(directory)? {
            return Ok(());
        }
        let parent = self.place(directory)?;
        match look(&parent, name)? {
            Found::Nothing => {
                // Needs no privilege since Linux 5.8 (`vfs_mknod`).
                fs::mknodat(&*parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                    .map_err(LayerFault::os("make the whiteout"))?;
                self.whiteouts.insert(path.to_owned());
                Ok(())
            }
            Found::Directory => self.opaque(path),
            Found::Whiteout | Found::Other => Ok(()),
        }
    }

    /// Hides all that the layers below have in the directory `path`.
    pub(super) fn opaque(&mut self, path: &[u8]) -> Result<(), LayerFault> {
        if !self.is_replaced(path)? {
            self.place(path)?;
            self.opaque.insert(path.to_owned());
        }
        Ok(())
    }

    /// Whether this layer has put a file, a symbolic link or a whiteout in the place of a
    /// directory or of one above it. That hides what is below already; `umoci` writes whiteouts
    /// beneath nevertheless, and through a symbolic link they would hide another file.
    fn is_replaced(&self, path: &[u8]) -> Result<bool, LayerFault> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let path = if path.is_empty() { b"." } else { path };
        match fs::openat2(self.root, path, PLACE, Mode::empty(), inside) {
            Ok(_) | Err(Errno::NOENT) => Ok(false),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(true),
            Err(errno) => Err(LayerFault::os("look up the path")(errno)),
        }
    }

    /// The directory an entry belongs in.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, LayerFault> {
        self.place(split(path).0)
    }

    /// A directory of the layer.
    fn there(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Errno> {
        if let Some(directory) = self.cache.get(path) {
            return Ok(Rc::clone(directory));
        }
        let directory = self.resolve(path, PLACE)?;
        Ok(self.keep(path, directory))
    }

    fn keep(&mut self, path: &[u8], directory: OwnedFd) -> Rc<OwnedFd> {
        if self.cache.len() >= CACHE {
            self.cache.clear();
        }
        let directory = Rc::new(directory);
        self.cache.insert(path.to_owned(), Rc::clone(&directory));
        directory
    }

    /// A directory of the layer, made if it is not there: archives need not list parents.
    fn place(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, LayerFault> {
        let directory = match self.there(path) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => {
                let (parent, name) = (self.parent(path)?, split(path).1);
                match look(&parent, name)? {
                    Found::Nothing | Found::Whiteout => {
                        let meta = self.inherited(path);
                        self.make_directory(&parent, path, meta.mode)?;
                        self.directories.insert(path.to_owned(), meta);
                    }
                    Found::Directory => {}
                    Found::Other => {
                        let parent = String::from_utf8_lossy(path).into_owned();
                        return Err(LayerFault::Parent { parent });
                    }
                }
                fs::openat(&*parent, name, PLACE | OFlags::NOFOLLOW, Mode::empty())
                    .map_err(LayerFault::os("open the parent"))?
            }
            Err(errno) => return Err(LayerFault::os("open the parent")(errno)),
        };
        Ok(self.keep(path, directory))
    }

    /// Makes a directory, or finds it there. Its owner can write into it, whatever its mode will be.
    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        mode: u32,
    ) -> Result<(), LayerFault> {
        let name = split(path).1;
        let mode = Mode::from_raw_mode(mode & 0o777 | 0o700);
        let make = || fs::mkdirat(parent, name, mode);
        let made = match make() {
            Err(Errno::EXIST) => match look(parent, name)? {
                Found::Directory => Ok(()),
                was => {
                    self.clear(parent, path)?;
                    if was == Found::Whiteout {
                        self.opaque.insert(path.to_owned());
                    }
                    make()
                }
            },
            made => made,
        };
        made.map_err(LayerFault::os("make the directory"))
    }

    /// Makes an entry with a call that fails where there is one already; if so, that one is removed
    /// first.
    fn in_place_of<T>(
        &mut self,
        parent: &OwnedFd,
        path: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<Result<T, Errno>, LayerFault> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(parent, path)?;
                Ok(make())
            }
            made => Ok(made),
        }
    }

    /// Makes room for an entry that comes again.
    fn clear(&mut self, parent: &OwnedFd, path: &[u8]) -> Result<(), LayerFault> {
        let name = split(path).1;
        let found = look(parent, name)?;
        if found != Found::Nothing {
            self.cache.clear();
            remove_tree(parent.as_fd(), name)
                .map_err(LayerFault::os("replace an earlier entry"))?;
        }
        if found == Found::Directory {
            let beneath = |other: &[u8]| {
                other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
            };
            self.directories.retain(|other, _| !beneath(other));
            self.opaque.retain(|other| !beneath(other));
        }
        Ok(())
    }

    /// What a directory nobody described looks like: as in the layers below, else Docker's
    /// default.
    fn inherited(&self, path: &[u8]) -> Meta {
        match lookup(self.lower, path) {
            Lower::Found(stat) if is(&stat, FileType::Directory) => Meta {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: Some(Time {
                    seconds: stat.st_mtime,
                    nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
                }),
                ..Meta::default()
            },
            _ => Meta { mode: 0o755, ..Meta::default() },
        }
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        fs::openat2(self.root, path, flags, Mode::empty(), inside)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.resolve(path, DIRECTORY | OFlags::NOFOLLOW)
    }
}

/// Something else took the directory's place later in the archive.
fn replaced(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

fn look(parent: &OwnedFd, name: &[u8]) -> Result<Found, LayerFault> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is(&stat, FileType::Directory) => Ok(Found::Directory),
        Ok(stat) if is_whiteout(&stat) => Ok(Found::Whiteout),
        Ok(_) => Ok(Found::Other),
        Err(Errno::NOENT) => Ok(Found::Nothing),
        Err(errno) => Err(LayerFault::os("look up the path")(errno)),
    }
}
