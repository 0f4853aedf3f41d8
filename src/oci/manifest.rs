//! Manifests and indexes, of the OCI and of Docker's schema 2, as far as the store needs them.
//! Pure. Sources: `image-spec/manifest.md`, `image-index.md`, Docker's `image-v1.2`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::variant;

/// The system an image is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    /// What of the architecture it needs, such as `v8`; this host's own has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variant: Option<String>,
}

impl Platform {
    /// This host, in Go's words as the specification wants them.
    pub(super) fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            same => same,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
    }

    /// How well an image for this suits `host`: 0 is best, `None` not at all.
    fn rank(&self, host: &Self) -> Option<u8> {
        let same = (&self.os, &self.architecture) == (&host.os, &host.architecture);
        if same { variant::rank(&self.architecture, self.variant.as_deref()) } else { None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// What points to a blob. Its `urls` are dropped: no content comes from where an image says.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub(super) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// One image for one platform.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Manifest {
    /// The manifest of an image that has none: Docker's old archives. The same image always gets
    /// the same one, and so the same digest.
    pub(super) fn synthetic(config: &[u8], layers: &[(Digest, u64)]) -> Self {
        let plain = |(digest, size): &(Digest, u64)| (LAYER.to_owned(), digest.clone(), *size);
        Self::of(config, layers.iter().map(plain).collect())
    }

    /// A manifest of a configuration and of layers by media type, digest and size.
    pub(super) fn of(config: &[u8], layers: Vec<(String, Digest, u64)>) -> Self {
        let descriptor = |(media_type, digest, size)| Descriptor {
            media_type,
            digest,
            size,
            platform: None,
            annotations: None,
        };
        let config = (CONFIG.to_owned(), Digest::of(config), config.len() as u64);
        Self {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: descriptor(config),
            layers: layers.into_iter().map(descriptor).collect(),
        }
    }
}

/// A manifest or an index.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// Why a document is refused.
#[derive(Debug)]
pub(super) enum DocumentFault {
    Json(serde_json::Error),
    Reason(String),
}

/// All fields of both kinds, to see whether a document claims to be both (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: Option<u8>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a document; `claimed` is the media type its descriptor gives, empty if none.
    pub(super) fn parse(bytes: &[u8], claimed: &str) -> Result<Self, DocumentFault> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(DocumentFault::Json)?;
        let refuse = |reason: String| Err(DocumentFault::Reason(reason));
        if raw.schema_version.is_some_and(|version| version != 2) {
            return refuse("its schemaVersion is not 2".to_owned());
        }
        let (document, types) = match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), None) => {
                let manifest = Manifest {
                    schema_version: 2,
                    media_type: raw.media_type.clone(),
                    config,
                    layers,
                };
                (Self::Manifest(manifest), [MANIFEST, DOCKER_MANIFEST])
            }
            (None, None, Some(manifests)) => (Self::Index(manifests), [INDEX, DOCKER_INDEX]),
            (_, _, Some(_)) => return refuse("it is a manifest and an index at once".to_owned()),
            _ => return refuse("it is neither a manifest nor an index".to_owned()),
        };
        for media_type in [raw.media_type.as_deref(), Some(claimed)].into_iter().flatten() {
            if !media_type.is_empty() && !types.contains(&media_type) {
                return refuse(format!("its content is not of its media type {media_type}"));
            }
        }
        Ok(document)
    }
}

/// The names an archive gives an image: containerd's is the whole one; the OCI's may be no more
/// than a tag.
pub(super) fn name_of(descriptor: &Descriptor) -> Option<&str> {
    let annotations = descriptor.annotations.as_ref()?;
    ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
        .iter()
        .find_map(|key| annotations.get(*key))
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}

/// Which of an index' entries are this host's images.
///
/// Entries of one name (or of none) that say their platform are one image for several systems;
/// those that do not are an image each. Attestations (platform `unknown`) are no images.
///
/// # Errors
/// The platforms there are, if none of a group is the host's.
pub(super) fn select<'a>(
    entries: &'a [Descriptor],
    host: &Platform,
) -> Result<Vec<&'a Descriptor>, Vec<String>> {
    let mut groups: Vec<(Option<&str>, Vec<&Descriptor>)> = Vec::new();
    let mut chosen = Vec::new();
    for entry in entries {
        match &entry.platform {
            None => chosen.push(entry),
            Some(platform) if platform.os == "unknown" => {}
            Some(_) => {
                let name = name_of(entry);
                match groups.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, group)) => group.push(entry),
                    None => groups.push((name, vec![entry])),
                }
            }
        }
    }
    for (_, group) in groups {
        let rank = |entry: &&Descriptor| entry.platform.as_ref()?.rank(host);
        let fitting = group.iter().filter_map(|entry| Some((rank(entry)?, *entry)));
        // The first of the best: `min_by_key` keeps it.
        match fitting.min_by_key(|(rank, _)| *rank) {
            Some((_, entry)) => chosen.push(entry),
            None => {
                return Err(group
                    .iter()
                    .filter_map(|entry| entry.platform.as_ref())
                    .map(Platform::to_string)
                    .collect());
            }
        }
    }
    Ok(chosen)
}

/// Which entry of a registry's index is this host's image, whatever the entries are called. One
/// that does not say its platform is taken where none does that fits.
///
/// # Errors
/// The platforms there are, if none is the host's.
pub(super) fn select_one<'a>(
    entries: &'a [Descriptor],
    host: &Platform,
) -> Result<&'a Descriptor, Vec<String>> {
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => platform.rank(host),
        None => Some(u8::MAX),
    };
    let fitting = entries.iter().filter_map(|entry| Some((rank(entry)?, entry)));
    let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref());
    fitting.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry).ok_or_else(|| {
        let images = platforms.filter(|platform| platform.os != "unknown");
        images.map(Platform::to_string).collect()
    })
}

/// An entry of `manifest.json` in an archive of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(platform: Option<(&str, &str)>, name: Option<&str>) -> Descriptor {
        Descriptor {
            media_type: MANIFEST.to_owned(),
            digest: Digest::of(format!("{platform:?}{name:?}").as_bytes()),
            size: 1,
            platform: platform.map(|(os, arch)| Platform {
                os: os.to_owned(),
                architecture: arch.to_owned(),
                variant: None,
            }),
            annotations: name.map(|name| {
                BTreeMap::from([("org.opencontainers.image.ref.name".to_owned(), name.to_owned())])
            }),
        }
    }

    #[test]
    fn the_hosts_platform_is_chosen() {
        let host =
            Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), variant: None };
        let (amd, arm) = (Some(("linux", "amd64")), Some(("linux", "arm64")));
        let unknown = Some(("unknown", "unknown"));
        type Case<'a> = (Vec<Descriptor>, Result<Vec<usize>, Vec<&'a str>>);
        let cases: Vec<Case<'_>> = vec![
            (vec![descriptor(None, None)], Ok(vec![0])),
            (vec![descriptor(amd, None), descriptor(arm, None)], Ok(vec![1])),
            (vec![descriptor(arm, None), descriptor(unknown, None)], Ok(vec![0])),
            (vec![descriptor(amd, None)], Err(vec!["linux/amd64"])),
            (vec![descriptor(arm, Some("a")), descriptor(arm, Some("b"))], Ok(vec![0, 1])),
            (
                vec![descriptor(arm, Some("a")), descriptor(amd, Some("b"))],
                Err(vec!["linux/amd64"]),
            ),
            (vec![], Ok(vec![])),
        ];
        for (entries, want) in cases {
            match (select(&entries, &host), want) {
                (Ok(found), Ok(want)) => {
                    let want: Vec<_> = want.into_iter().map(|i| &entries[i].digest).collect();
                    assert_eq!(found.iter().map(|d| &d.digest).collect::<Vec<_>>(), want);
                }
                (Err(found), Err(want)) => assert_eq!(found, want),
                (found, want) => panic!("{found:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn a_registrys_index_is_one_image() {
        let host =
            Platform { os: "linux".to_owned(), architecture: "arm64".to_owned(), variant: None };
        let of = |variant: &str| {
            let mut entry = descriptor(Some(("linux", "arm64")), Some(variant));
            let platform = entry.platform.as_mut().unwrap();
            platform.variant = Some(variant.to_owned()).filter(|v| !v.is_empty());
            entry
        };
        let amd = descriptor(Some(("linux", "amd64")), Some("other name"));
        let attestation = descriptor(Some(("unknown", "unknown")), None);
        let bare = descriptor(None, None);
        for (entries, want) in [
            (vec![amd.clone(), of("v9"), of("v8"), of("")], Ok(3)),
            (vec![amd.clone(), of("v9"), of("v8")], Ok(2)),
            (vec![bare.clone(), amd.clone()], Ok(0)),
            (vec![bare, of("")], Ok(1)),
            (vec![amd, attestation, of("v9")], Err("linux/amd64 linux/arm64/v9")),
            (vec![], Err("")),
        ] {
            match (select_one(&entries, &host), want) {
                (Ok(found), Ok(want)) => assert_eq!(found.digest, entries[want].digest),
                (Err(found), Err(want)) => assert_eq!(found.join(" "), want),
                (found, want) => panic!("{found:?}, not {want:?}"),
            }
        }
    }

    #[test]
    fn documents_that_contradict_themselves_are_refused() {
        let blob = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let manifest = format!(r#"{{"schemaVersion":2,"config":{blob},"layers":[{blob}]}}"#);
        let both = format!(r#"{{"config":{blob},"layers":[],"manifests":[{blob}]}}"#);
        let schema1 = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(
            Document::parse(manifest.as_bytes(), MANIFEST),
            Ok(Document::Manifest(_))
        ));
        assert!(matches!(Document::parse(manifest.as_bytes(), ""), Ok(Document::Manifest(_))));
        let cases = [
            (manifest.as_str(), INDEX, "media type"),
            (&both, "", "at once"),
            (schema1, "", "schemaVersion"),
            ("{}", "", "neither"),
        ];
        for (text, claimed, want) in cases {
            match Document::parse(text.as_bytes(), claimed) {
                Err(DocumentFault::Reason(reason)) => assert!(reason.contains(want), "{reason}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(matches!(Document::parse(b"{", ""), Err(DocumentFault::Json(_))));
    }

    #[test]
    fn containerds_name_is_preferred() {
        let mut descriptor = descriptor(None, Some("1"));
        assert_eq!(name_of(&descriptor), Some("1"));
        let full = "docker.io/library/t:1".to_owned();
        descriptor
            .annotations
            .get_or_insert_default()
            .insert("io.containerd.image.name".to_owned(), full.clone());
        assert_eq!(name_of(&descriptor), Some(full.as_str()));
    }
}
