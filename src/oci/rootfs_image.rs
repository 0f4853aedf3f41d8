//! An image made of nothing but a root file system: one layer, and a configuration by the user's
//! wishes. The same tree and the same wishes give the same digest: no time of making is noted.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use serde_json::json;

use super::archive::Bytes;
use super::bounded::{self, Bounded};
use super::digest::Digest;
use super::error::StoreError;
use super::layout::{Candidate, LayerFile};
use super::manifest::{LAYER, Manifest, Platform};
use super::process::ProcessError;
use super::unpack::{Compression, Hashed, LayerFault, Limits};
use super::{signal, tree_tar};

/// How a container of the image is started, as the image's configuration says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RootfsConfig {
    /// The program, and arguments it always has.
    pub entrypoint: Vec<String>,
    /// The command, or the entrypoint's further arguments.
    pub cmd: Vec<String>,
    /// `NAME=VALUE`.
    pub env: Vec<String>,
    /// The working directory; absolute.
    pub workdir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid`.
    pub user: Option<String>,
    /// The signal that asks it to stop, by name or number.
    pub stop_signal: Option<String>,
    /// Free text.
    pub labels: BTreeMap<String, String>,
}

impl RootfsConfig {
    /// Whether nothing is wished.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what no container could be started with.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        for (i, entry) in self.env.iter().enumerate() {
            let position = i + 1;
            match entry.split_once('=') {
                Some(("", _)) => return Err(ProcessError::NoName { position }.into()),
                None => return Err(ProcessError::NoValue { position }.into()),
                Some(_) => {}
            }
        }
        if let Some(cwd) = self.workdir.as_ref().filter(|cwd| !cwd.starts_with('/')) {
            return Err(ProcessError::RelativeCwd { cwd: cwd.clone() }.into());
        }
        if let Some(text) = &self.stop_signal {
            signal::parse(text)?;
        }
        Ok(())
    }

    /// The configuration's text.
    fn document(&self, diff_id: &Digest, host: &Platform) -> Vec<u8> {
        let document = json!({
            "architecture": host.architecture,
            "os": host.os,
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.cmd,
                "Env": self.env,
                "WorkingDir": self.workdir,
                "User": self.user,
                "StopSignal": self.stop_signal,
                "Labels": self.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        document.to_string().into_bytes()
    }
}

/// The name of the layer in the image's contents.
pub(super) const LAYER_NAME: &str = "the root file system";

/// The image of a layer's tar, whose bytes are `tar`.
///
/// # Errors
/// [`StoreError::Layer`] if it cannot be read or exceeds the limits.
pub(super) fn candidate(
    tar: &Bytes,
    label: &str,
    config: &RootfsConfig,
    host: &Platform,
    limits: &Limits,
) -> Result<Candidate, StoreError> {
    let read = || StoreError::io("read", label);
    let size = tar.length().map_err(read())?;
    let section = tar.section(0, size);
    let compression = section.compression().map_err(read())?;
    let mut blob = Hashed::new(section);
    let diff_id = inflated(&mut blob, compression, limits).map_err(|source| StoreError::Layer {
        file: label.to_owned(),
        layer: LAYER_NAME.to_owned(),
        entry: String::new(),
        source,
    })?;
    // What a decoder leaves unread counts for the digest, too.
    io::copy(&mut blob, &mut io::sink()).map_err(read())?;
    let (digest, _) = blob.finish();
    let config_text = config.document(&diff_id, host);
    let media_type = match compression {
        Compression::Gzip => format!("{LAYER}+gzip"),
        Compression::Zstd => format!("{LAYER}+zstd"),
        Compression::None | Compression::Other(_) => LAYER.to_owned(),
    };
    let manifest = Manifest::of(&config_text, vec![(media_type, digest.clone(), size)]);
    let text = serde_json::to_vec(&manifest).map_err(|source| StoreError::Json {
        file: label.to_owned(),
        what: "manifest",
        name: String::new(),
        source,
    })?;
    let layer = LayerFile { name: LAYER_NAME.to_owned(), blob: Some((digest, size)), diff_id };
    Ok(Candidate { names: Vec::new(), manifest: Some(text), config_text, layers: vec![layer] })
}

/// The digest of the uncompressed tar.
fn inflated(
    blob: &mut (impl Read + Send),
    compression: Compression,
    limits: &Limits,
) -> Result<Digest, LayerFault> {
    let mut tar = Hashed::new(Bounded::new(blob, compression, limits)?);
    io::copy(&mut tar, &mut io::sink()).map_err(bounded::fault)?;
    Ok(tar.finish().0)
}

/// Packs a directory into `file`; returns what was left out.
///
/// # Errors
/// As [`tree_tar::write`].
pub(super) fn pack(
    root: &OwnedFd,
    label: &Path,
    file: impl Write,
    limits: &Limits,
) -> Result<Vec<String>, StoreError> {
    let mut out = BufWriter::with_capacity(256 << 10, file);
    let notes = tree_tar::write(root, label, &mut out, limits.bytes)?;
    out.flush().map_err(StoreError::io("pack", label))?;
    Ok(notes)
}
