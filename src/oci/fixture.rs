//! Archives for tests, byte by byte, so that they can be as wrong as a test needs them.

use std::io::Write;

use super::digest::Digest;
use super::manifest::Platform;

/// A tar under construction.
#[derive(Default)]
pub(super) struct Tar(Vec<u8>);

/// One header's fields; the rest is plain.
pub(super) struct Header<'a> {
    pub(super) kind: u8,
    pub(super) name: &'a str,
    pub(super) link: &'a str,
    pub(super) mode: u32,
    pub(super) size: u64,
}

impl Tar {
    pub(super) fn header(mut self, header: &Header<'_>) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, header.name.as_bytes());
        put(100, format!("{:07o}", header.mode).as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{:011o}", header.size).as_bytes());
        put(136, b"00000000144");
        put(148, b"        ");
        put(156, &[header.kind]);
        put(157, header.link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(block);
        self
    }

    fn entry(self, kind: u8, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let size = data.len() as u64;
        let mut tar = self.header(&Header { kind, name, link, mode, size });
        tar.0.extend(data);
        tar.0.resize(tar.0.len().next_multiple_of(512), 0);
        tar
    }

    pub(super) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name, "", 0o644, data)
    }

    pub(super) fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(b'5', name, "", mode, b"")
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, 0o777, b"")
    }

    pub(super) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, 0o644, b"")
    }

    pub(super) fn kind(self, kind: u8, name: &str) -> Self {
        self.entry(kind, name, "", 0o644, b"")
    }

    /// A pax header for the next entry.
    pub(super) fn pax(self, key: &str, value: &str) -> Self {
        self.paxes(&[(key, value)])
    }

    /// A pax header with several records.
    pub(super) fn paxes(self, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while length != rest.len() + length.to_string().len() {
                length = rest.len() + length.to_string().len();
            }
            text.push_str(&format!("{length}{rest}"));
        }
        self.entry(b'x', "pax", "", 0o644, text.as_bytes())
    }

    /// The header of a sparse file as old GNU tar writes it (`S`): its size on tape and in full,
    /// up to four regions, and whether a block with more of them follows.
    pub(super) fn gnu_sparse(
        mut self,
        name: &str,
        sizes: (u64, u64),
        regions: &[(u64, u64)],
        more: bool,
    ) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        for at in [100, 108, 116] {
            put(at, b"0000644");
        }
        put(124, format!("{:011o}", sizes.0).as_bytes());
        put(136, b"00000000144");
        put(148, b"        S");
        put(257, b"ustar  \0");
        for (n, (offset, length)) in regions.iter().enumerate() {
            put(386 + n * 24, format!("{offset:011o}\0{length:011o}").as_bytes());
        }
        put(482, &[u8::from(more)]);
        put(483, format!("{:011o}", sizes.1).as_bytes());
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(block);
        self
    }

    /// Bytes as they are.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// The bytes, with the end marker.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// The bytes so far.
    pub(super) fn cut(self) -> Vec<u8> {
        self.0
    }
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image of some layers, as files of a layout.
pub(super) struct Layout {
    pub(super) files: Vec<(String, Vec<u8>)>,
    pub(super) manifest: Digest,
}

pub(super) fn config(layers: &[Vec<u8>], architecture: &str) -> Vec<u8> {
    let ids: Vec<String> = layers.iter().map(|l| format!("\"{}\"", Digest::of(l))).collect();
    format!(
        r#"{{"os":"linux","architecture":"{architecture}","created":"2026-01-02T03:04:05Z",
            "config":{{"Cmd":["/x"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
    .into_bytes()
}

impl Layout {
    /// An image with gzip layers and, perhaps, a name.
    pub(super) fn new(layers: &[Vec<u8>], name: Option<&str>) -> Self {
        let mut files = Vec::new();
        let mut blob = |bytes: Vec<u8>| {
            let digest = Digest::of(&bytes);
            let descriptor = format!(r#""digest":"{digest}","size":{}"#, bytes.len());
            files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
            (digest, descriptor)
        };
        let (_, config) = blob(config(layers, &Platform::host().architecture));
        let layers: Vec<String> =
            layers.iter().map(|layer| format!("{{{}}}", blob(gzip(layer)).1)).collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{{config}}},"layers":[{}]}}"#,
            layers.join(",")
        );
        let (manifest, descriptor) = blob(manifest.into_bytes());
        let annotations = name.map_or(String::new(), |name| {
            format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#)
        });
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{{{descriptor}{annotations}}}]}}"#);
        files.push(("index.json".to_owned(), index.into_bytes()));
        files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
        Self { files, manifest }
    }

    /// The layout as an archive.
    pub(super) fn archive(&self) -> Vec<u8> {
        self.files.iter().fold(Tar::default(), |tar, (name, bytes)| tar.file(name, bytes)).end()
    }
}
