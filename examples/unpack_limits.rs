//! The limits that unpacking a layer meets, each alone, in milliseconds: reading and hashing the
//! blob, inflating it, hashing the tar, writing its bytes to one file, waiting until that is on
//! disk, creating as many empty files in one directory, creating the layer's own files, with
//! owner, mode and time, once empty and once with their content. Leaves the files there, as ext4 is slow where many were just removed. Used
//! by `benches/image_load.py`.
//!
//! Usage: `unpack_limits BLOB FILES DIRECTORY`

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, fchown, symlink};
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use sha2::{Digest, Sha256};
use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, blob, files, directory] = &arguments[..] else {
        return Err("usage: unpack_limits BLOB FILES DIRECTORY".into());
    };
    let (files, directory) = (files.parse::<usize>()?, Path::new(directory));
    let blob = fs::read(blob)?;
    let mut tar = Vec::new();
    timed("hash the blob", || {
        std::hint::black_box(Sha256::digest(&blob));
        Ok(())
    })?;
    inflate(&blob, &mut tar)?;
    // A second time into memory that is there already.
    timed("inflate", || inflate(&blob, &mut tar))?;
    timed("hash the tar", || {
        std::hint::black_box(Sha256::digest(&tar));
        Ok(())
    })?;
    let mut one = File::create(directory.join("one"))?;
    timed("write one file", || tar.chunks(256 << 10).try_for_each(|chunk| one.write_all(chunk)))?;
    timed("sync it", || one.sync_all())?;
    fs::create_dir(directory.join("many"))?;
    timed("create empty files", || {
        (0..files).try_for_each(|n| File::create(directory.join(format!("many/{n}"))).map(drop))
    })?;
    for (name, what, full) in
        [("own", "create its own files", false), ("full", "create and write its own files", true)]
    {
        let own = directory.join(name);
        fs::create_dir(&own)?;
        timed(what, || create(&tar, &own, full))?;
    }
    Ok(())
}

fn inflate(blob: &[u8], tar: &mut Vec<u8>) -> io::Result<()> {
    tar.clear();
    if blob.starts_with(&[0x1f, 0x8b]) {
        flate2::bufread::MultiGzDecoder::new(blob).read_to_end(tar)?;
    } else {
        zstd::stream::read::Decoder::with_buffer(blob)?.read_to_end(tar)?;
    }
    Ok(())
}

/// Creates what the tar lists, with its content if it is to be `full`. It is trusted: nothing is
/// checked.
fn create(mut tar: &[u8], into: &Path, full: bool) -> io::Result<()> {
    let mut parser = Parser::new(Limits::default());
    loop {
        match parser.parse(tar).map_err(io::Error::other)? {
            ParseEvent::Entry { consumed, entry } => {
                let content = tar.get(consumed..).unwrap_or_default();
                let size = if full { usize::try_from(entry.size).unwrap_or_default() } else { 0 };
                place(&entry, content.get(..size).unwrap_or_default(), into)?;
                let next = consumed as u64 + entry.padded_size();
                tar = usize::try_from(next).ok().and_then(|next| tar.get(next..)).unwrap_or(&[]);
            }
            ParseEvent::GlobalExtensions { consumed, .. } => tar = &tar[consumed..],
            _ => return Ok(()),
        }
    }
}

fn place(entry: &ParsedEntry<'_>, content: &[u8], into: &Path) -> io::Result<()> {
    let inside = |name: &[u8]| into.join(std::ffi::OsStr::from_bytes(name));
    let path = inside(&entry.path);
    let target = entry.link_target.as_deref().unwrap_or_default();
    match entry.entry_type {
        EntryType::Directory => fs::create_dir_all(&path),
        EntryType::Symlink => symlink(std::ffi::OsStr::from_bytes(target), &path),
        EntryType::Link => fs::hard_link(inside(target), &path),
        EntryType::Regular => {
            let mut file = File::create(&path)?;
            file.write_all(content)?;
            let owner = |id: u64| u32::try_from(id).ok();
            fchown(&file, owner(entry.uid), owner(entry.gid))?;
            file.set_permissions(Permissions::from_mode(entry.mode & 0o7777))?;
            let time = UNIX_EPOCH + Duration::from_secs(entry.mtime);
            file.set_times(FileTimes::new().set_accessed(time).set_modified(time))
        }
        _ => Ok(()),
    }
}

fn timed(what: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    work()?;
    writeln!(io::stdout(), "{:.0} {what}", start.elapsed().as_secs_f64() * 1000.0)
}
