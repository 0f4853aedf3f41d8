//! Which unpacked layers can be believed after a loss of power.
//!
//! A load waits until the disk has what cannot be had again: blobs, documents, names. An unpacked
//! layer can be had again, from its blob; so a load does not wait for its thousands of files. The
//! layer's record names the boot of the kernel that may have them in memory only. In any other boot the
//! layer counts as absent, for what was lost of it may be anything; what is unpacked then is waited for.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::{LAYER_RECORD, LayerRecord, files};
use crate::oci::error::StoreError;

/// Random, and another one with each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The boot that is running; `None` if the kernel does not tell.
pub(super) fn this_boot() -> Option<String> {
    let text = fs::read_to_string(BOOT_ID).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl LayerRecord {
    /// Whether what lies beside this record is what was unpacked.
    pub(super) fn is_whole(&self) -> bool {
        self.unsettled.is_none() || self.unsettled == this_boot()
    }
}

/// What a layer's record says; `None` if there is none, or the power went before it was on disk.
pub(super) fn read(layer: &Path) -> Result<Option<LayerRecord>, StoreError> {
    let text = files::read(&layer.join(LAYER_RECORD))?;
    Ok(text.and_then(|text| serde_json::from_slice(&text).ok()))
}

/// Writes the record of a layer that was just unpacked. It is on disk then, unlike the layer.
pub(super) fn write(layer: &Path, record: &LayerRecord) -> Result<(), StoreError> {
    let path = layer.join(LAYER_RECORD);
    let write = || {
        let mut file = File::create(&path)?;
        file.write_all(&files::to_json(record))?;
        file.sync_all()
    };
    write().map_err(StoreError::io("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Digest;

    #[test]
    fn a_mark_of_another_boot_is_not_believed() {
        let record = |unsettled| LayerRecord { diff_id: Digest::of(b""), size: 1, unsettled };
        assert!(record(None).is_whole());
        assert!(record(this_boot()).is_whole());
        assert!(!record(Some("another".to_owned())).is_whole());
    }
}
