//! An OCI layout of which any part can be a lie (OCI image specification, `image-layout.md`).

use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::store::archive::own_architecture;

/// What an image is made of.
pub(super) struct Parts {
    /// Each layer's blob, and the tar whose digest the configuration gives.
    pub(super) layers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The configuration's `config`.
    pub(super) config: Value,
    /// Changes the manifest before it is written.
    pub(super) manifest: fn(&mut Value),
    /// Bytes of white space after the manifest.
    pub(super) padding: usize,
    /// Indexes between `index.json` and the manifest.
    pub(super) indexes: usize,
}

pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(bytes)))
}

impl Parts {
    /// A sound image.
    pub(super) fn new(layer: Vec<u8>) -> Self {
        let (config, manifest) = (json!({"Cmd": ["/x"]}), |_: &mut Value| {});
        Self { layers: vec![(layer.clone(), layer)], config, manifest, padding: 0, indexes: 0 }
    }

    /// Writes it as a layout.
    pub(super) fn write(&self, to: &Path, name: &str) {
        fs::create_dir_all(to.join("blobs/sha256")).unwrap();
        let blob = |bytes: &[u8]| -> Value {
            let digest = digest(bytes);
            fs::write(to.join("blobs").join(digest.replace(':', "/")), bytes).unwrap();
            json!({"digest": digest, "size": bytes.len()})
        };
        let diff_ids: Vec<_> = self.layers.iter().map(|(_, tar)| digest(tar)).collect();
        let config = json!({
            "architecture": own_architecture(), "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let layers: Vec<_> = self.layers.iter().map(|(bytes, _)| blob(bytes)).collect();
        let config = blob(config.to_string().as_bytes());
        let mut manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
        (self.manifest)(&mut manifest);
        let padded = format!("{manifest}{}", " ".repeat(self.padding));
        let mut target = blob(padded.as_bytes());
        for _ in 0..self.indexes {
            let index = json!({"schemaVersion": 2, "manifests": [target]});
            target = blob(index.to_string().as_bytes());
        }
        target["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [target]});
        fs::write(to.join("index.json"), index.to_string()).unwrap();
        fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}
