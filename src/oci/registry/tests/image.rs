//! Images as a registry serves them.

use std::collections::HashMap;

use super::server::{Answer, Request};
use crate::oci::digest::Digest;
use crate::oci::fixture::{Tar, config, gzip};
use crate::oci::manifest::{CONFIG, INDEX, MANIFEST, Platform};

/// A repository's content.
#[derive(Clone, Default)]
pub(super) struct Repository {
    /// By tag and digest: media type and text.
    pub(super) manifests: HashMap<String, (String, Vec<u8>)>,
    pub(super) blobs: HashMap<String, Vec<u8>>,
    /// Answers `Range`.
    pub(super) ranges: bool,
}

impl Repository {
    /// An image of that many layers, tagged `1`; its manifest's digest.
    pub(super) fn image(&mut self, layers: usize) -> Digest {
        let layers: Vec<Vec<u8>> = (0..layers).map(layer).collect();
        let config = config(&layers, &Platform::host().architecture);
        let config = self.blob(CONFIG, config);
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let layers: Vec<String> =
            layers.iter().map(|layer| self.blob(layer_type, gzip(layer))).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},"layers":[{}]}}"#,
            layers.join(",")
        );
        self.manifest("1", MANIFEST, text)
    }

    /// A blob; its descriptor.
    pub(super) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> String {
        let digest = Digest::of(&bytes);
        let size = bytes.len();
        self.blobs.insert(digest.to_string(), bytes);
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}"#)
    }

    /// A manifest or index under a tag and its digest.
    pub(super) fn manifest(&mut self, tag: &str, media_type: &str, text: String) -> Digest {
        let digest = Digest::of(text.as_bytes());
        let entry = (media_type.to_owned(), text.into_bytes());
        self.manifests.insert(tag.to_owned(), entry.clone());
        self.manifests.insert(digest.to_string(), entry);
        digest
    }

    /// An index under a tag, of manifests that are there, for architectures.
    pub(super) fn index(&mut self, tag: &str, entries: &[(&Digest, &str)]) -> Digest {
        let entry = |(digest, architecture): &(&Digest, &str)| {
            let (media_type, text) = &self.manifests[digest.as_str()];
            let size = text.len();
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{size},
                    "platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
            )
        };
        let entries: Vec<String> = entries.iter().map(entry).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#,
            entries.join(",")
        );
        self.manifest(tag, INDEX, text)
    }

    /// The answer of a registry that works.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let last = request.path.rsplit('/').next().unwrap_or_default();
        if request.path.contains("/manifests/") {
            return match self.manifests.get(last) {
                Some((media_type, text)) => {
                    Answer::new(200).with("Content-Type", media_type).body(text.clone())
                }
                None => missing("MANIFEST_UNKNOWN"),
            };
        }
        let Some(blob) = self.blobs.get(last).filter(|_| request.path.contains("/blobs/")) else {
            return missing("BLOB_UNKNOWN");
        };
        let range = request.header("range").filter(|_| self.ranges);
        let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match from {
            None => Answer::new(200).body(blob.clone()),
            Some(from) => {
                let (last, length) = (blob.len() - 1, blob.len());
                Answer::new(206)
                    .with("Content-Range", format!("bytes {from}-{last}/{length}"))
                    .body(blob[from..].to_vec())
            }
        }
    }
}

fn missing(code: &str) -> Answer {
    Answer::new(404).body(format!(r#"{{"errors":[{{"code":"{code}","message":"not here"}}]}}"#))
}

/// A layer that does not compress to nothing.
fn layer(number: usize) -> Vec<u8> {
    use sha2::Digest as _;
    let noise = (0..400).flat_map(|n| sha2::Sha256::digest(format!("{number} {n}")));
    Tar::default().file(&format!("layer-{number}"), &noise.collect::<Vec<u8>>()).end()
}
