//! The limits that unpacking a layer meets, each alone, in milliseconds: reading and hashing the
//! blob, inflating it, hashing the tar, writing its bytes to one file, creating as many empty
//! files. Leaves the files there, as ext4 is slow where many were just removed. Used by `benches/image_load.py`.
//!
//! Usage: `unpack_limits BLOB FILES DIRECTORY`

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

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
    timed("write one file", || {
        let mut file = File::create(directory.join("one"))?;
        tar.chunks(256 << 10).try_for_each(|chunk| file.write_all(chunk))
    })?;
    fs::create_dir(directory.join("many"))?;
    timed("create empty files", || {
        (0..files).try_for_each(|n| File::create(directory.join(format!("many/{n}"))).map(drop))
    })?;
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

fn timed(what: &str, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let start = Instant::now();
    work()?;
    writeln!(io::stdout(), "{:.0} {what}", start.elapsed().as_secs_f64() * 1000.0)
}
