//! Images made byte by byte, so that they can be as wrong as a test needs them.

use std::fs;
use std::path::Path;

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A tar under construction (POSIX ustar).
#[derive(Clone, Default)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    /// Adds an entry: `kind` is the type flag (`0` file, `1` hard link, `2` symbolic link, `3` and
    /// `4` devices, `5` directory, `6` FIFO).
    pub(crate) fn entry(
        mut self,
        kind: u8,
        name: impl AsRef<[u8]>,
        link: &str,
        data: &[u8],
    ) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_ref());
        put(100, b"0000666");
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", data.len()).as_bytes());
        put(136, b"00000000144");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, b"0000001");
        put(337, b"0000003");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name, "", data)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }

    /// A pax header for the next entry (POSIX `pax`, "Extended Header").
    pub(crate) fn pax(self, key: &str, value: &[u8]) -> Self {
        self.paxes(&[(key, value)])
    }

    /// A pax header with several records.
    pub(crate) fn paxes(self, records: &[(&str, &[u8])]) -> Self {
        let mut all = Vec::new();
        for (key, value) in records {
            let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
            let mut length = rest.len() + 1;
            while length != rest.len() + length.to_string().len() {
                length = rest.len() + length.to_string().len();
            }
            all.extend([length.to_string().as_bytes(), &rest].concat());
        }
        self.entry(b'x', "pax", "", &all)
    }

    /// The bytes, with the end marker.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// Writes an OCI image layout at `to` with these uncompressed layers (OCI image specification,
/// `image-layout.md`).
pub(crate) fn layout(to: &Path, name: &str, architecture: &str, layers: &[Vec<u8>]) {
    fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| -> Value {
        let hex = HEXLOWER.encode(&Sha256::digest(bytes));
        fs::write(to.join("blobs/sha256").join(&hex), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let document = |kind: &str, value: &Value| blob(kind, value.to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(|layer| blob("layer.v1.tar", layer)).collect();
    let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": document("config.v1+json", &config), "layers": layers,
    });
    let mut descriptor = document("manifest.v1+json", &manifest);
    descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    fs::write(to.join("index.json"), index.to_string()).unwrap();
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The machine's own architecture, as images name it.
pub(crate) fn own_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
