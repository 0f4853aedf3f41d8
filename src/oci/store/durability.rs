//! Which unpacked layers can be believed after a loss of power.
//!
//! A load waits until the disk has what cannot be had again: blobs, documents, names. An unpacked
//! layer can be had again, from its blob; so nobody waits for its thousands of files. Until somebody
//! has ([`settle`]), the layer's record names the boot of the kernel that holds them in memory, and
//! in any other boot the layer counts as absent: what was lost of it then may be anything.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{LAYER_RECORD, LayerRecord, files};
use crate::oci::error::StoreError;

/// Random, and another one with each boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Whether a load waits for the unpacked layers to be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// They are marked with the running boot.
    No,
    /// They outlive it.
    Yes,
}

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

/// Waits until the disk has the layers that are marked as unsettled, and takes their marks away.
/// Costs next to nothing where there is none. The layers' directories (`diff`) are given; they are in
/// use, so that nobody removes them meanwhile.
///
/// # Errors
/// [`StoreError::Io`]. Then, or if this is killed, the marks stay.
pub(crate) fn settle(layers: &[PathBuf]) -> Result<(), StoreError> {
    let mut unsettled = Vec::new();
    for layer in layers.iter().filter_map(|diff| diff.parent()) {
        if let Some(record) = read(layer)?
            && record.unsettled.is_some()
            && record.is_whole()
        {
            unsettled.push((layer, record));
        }
    }
    // All are in one store, and a store is on one file system.
    let Some((layer, _)) = unsettled.first() else { return Ok(()) };
    rustix::fs::syncfs(files::open_directory(layer)?.as_fd())
        .map_err(StoreError::os("sync", *layer))?;
    for (layer, mut record) in unsettled {
        record.unsettled = None;
        replace(layer, &record)?;
    }
    Ok(())
}

/// Others may do the same at the same time: each has a file of its own, and all write the same.
fn replace(layer: &Path, record: &LayerRecord) -> Result<(), StoreError> {
    let temporary = layer.join(format!("{LAYER_RECORD}.{}", std::process::id()));
    let write = || {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&files::to_json(record))?;
        // The old record's successor must not be an empty file.
        file.sync_all()
    };
    write().map_err(StoreError::io("write", &temporary))?;
    files::rename(&temporary, &layer.join(LAYER_RECORD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Digest;

    fn record(unsettled: Option<String>) -> LayerRecord {
        LayerRecord { diff_id: Digest::of(b""), size: 1, unsettled }
    }

    #[test]
    fn a_mark_of_another_boot_is_not_believed() {
        assert!(record(None).is_whole());
        assert!(record(this_boot()).is_whole());
        assert!(!record(Some("another".to_owned())).is_whole());
    }

    #[test]
    fn settling_takes_this_boots_mark_away_and_no_other() {
        let place = tempfile::tempdir().unwrap();
        let mark = |name: &str, unsettled| {
            let diff = place.path().join(name).join("diff");
            fs::create_dir_all(&diff).unwrap();
            replace(diff.parent().unwrap(), &record(unsettled)).unwrap();
            diff
        };
        let ours = mark("ours", this_boot());
        let other = mark("other", Some("another".to_owned()));
        let torn = mark("torn", None);
        fs::write(torn.with_file_name(LAYER_RECORD), "").unwrap();
        settle(&[ours.clone(), other.clone(), torn.clone()]).unwrap();
        let left = |diff: &Path| read(diff.parent().unwrap()).unwrap().map(|r| r.unsettled);
        assert_eq!(left(&ours), Some(None));
        assert_eq!(left(&other), Some(Some("another".to_owned())));
        assert_eq!(left(&torn), None);
        let names = files::names(ours.parent().unwrap()).unwrap();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
