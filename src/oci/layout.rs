//! The images in a source: the OCI image layout (`image-spec/image-layout.md`), Docker's
//! archives and skopeo's directories. Where both are there (`docker save` since version 25), the OCI's is taken: it has
//! digests to check.

use super::digest::Digest;
use super::error::StoreError;
use super::image_config;
use super::manifest::{Descriptor, DockerImage, Document, DocumentFault, Manifest, Platform};
use super::manifest::{name_of, select};
use super::reference::Reference;
use super::source::Contents;
use super::transport::FileForm;

/// Bytes a manifest or index may have; registries refuse larger ones, too.
const DOCUMENT_MAX: u64 = 4 << 20;

/// Images a source may have; each costs reading its documents.
const IMAGES_MAX: usize = 256;

/// Indexes may point to indexes, this deep.
const INDEX_DEPTH: usize = 4;

/// An image that can be loaded; its documents are checked, its layers are not yet read.
#[derive(Debug)]
pub(super) struct Candidate {
    /// As the source gives them.
    pub(super) names: Vec<String>,
    /// The manifest's text; `None` if the source has none.
    pub(super) manifest: Option<Vec<u8>>,
    /// The configuration's text.
    pub(super) config_text: Vec<u8>,
    /// The lowest first.
    pub(super) layers: Vec<LayerFile>,
}

/// A layer's file in the source.
#[derive(Debug)]
pub(super) struct LayerFile {
    /// Its name there.
    pub(super) name: String,
    /// What its descriptor says, if there is one: digest and size.
    pub(super) blob: Option<(Digest, u64)>,
    pub(super) diff_id: Digest,
}

impl LayerFile {
    /// Under which digest the store keeps it: the descriptor's, or else that of the plain tar.
    pub(super) fn digest(&self) -> &Digest {
        self.blob.as_ref().map_or(&self.diff_id, |(digest, _)| digest)
    }
}

/// The image of a manifest whose blobs are in `contents`, a layout; `name` is the manifest's.
///
/// # Errors
/// As [`images`].
pub(super) fn image_of(
    contents: &Contents,
    manifest: &[u8],
    name: &str,
    host: &Platform,
) -> Result<Candidate, StoreError> {
    match document(contents, manifest, "", "manifest", name)? {
        Document::Manifest(parsed) => {
            layout_image(contents, path_of, manifest.to_vec(), &parsed, host)
        }
        Document::Index(_) => Err(fault(contents, "manifest", name, "it is an index".to_owned())),
    }
}

/// Finds the source's images for this host; of several only the one that `pick` names, if it does.
///
/// # Errors
/// [`StoreError`] of kind `Invalid` or `Unsupported`, naming the file at fault;
/// [`StoreError::NotAmong`].
pub(super) fn images(
    contents: &Contents,
    form: FileForm,
    pick: Option<&str>,
    host: &Platform,
) -> Result<Vec<Candidate>, StoreError> {
    let index = contents.document("index", "index.json", DOCUMENT_MAX)?;
    let list = contents.document("manifest", "manifest.json", DOCUMENT_MAX)?;
    let pick = pick.map(Pick::new);
    // A list names images, skopeo's directory has a document of one.
    let listed = |list: &[u8]| list.trim_ascii_start().first() == Some(&b'[');
    let images = match (index, list, form) {
        (_, Some(text), FileForm::Directory) => directory_images(contents, text, host)?,
        (_, None, FileForm::Directory) => {
            return Err(no_image(contents, "it has no manifest.json"));
        }
        (_, None, FileForm::DockerArchive) => {
            return Err(no_image(contents, "it is no docker-archive: it has no manifest.json"));
        }
        (Some(index), ..) => layout_images(contents, &index, pick.as_ref(), host)?,
        (None, _, FileForm::OciArchive | FileForm::OciLayout) => {
            return Err(no_image(contents, "it is no OCI image: it has no index.json"));
        }
        (None, Some(text), FileForm::Any) if !listed(&text) => {
            directory_images(contents, text, host)?
        }
        (None, Some(list), _) => docker_images(contents, &list, pick.as_ref(), host)?,
        (None, None, _) => {
            return Err(no_image(contents, "it has neither index.json nor manifest.json"));
        }
    };
    if images.is_empty() {
        return Err(no_image(contents, "its index is empty"));
    }
    Ok(images)
}

/// The name of the one image that is wanted.
struct Pick<'a> {
    text: &'a str,
    normal: Option<Reference>,
}

impl<'a> Pick<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, normal: Reference::parse(text).ok() }
    }

    /// Whether an archive's name is the one: the same text, or the same normal form.
    fn is(&self, name: &str) -> bool {
        let same = |wanted: &Reference| {
            Reference::parse(name).is_ok_and(|name| name.normal() == wanted.normal())
        };
        name == self.text || self.normal.as_ref().is_some_and(same)
    }

    fn missing<'n>(&self, contents: &Contents, there: impl Iterator<Item = &'n str>) -> StoreError {
        StoreError::NotAmong {
            file: contents.label().to_owned(),
            pick: self.text.to_owned(),
            there: there.map(str::to_owned).collect(),
        }
    }
}

fn no_image(contents: &Contents, reason: &'static str) -> StoreError {
    StoreError::NoImage { file: contents.label().to_owned(), reason }
}

fn layout_images(
    contents: &Contents,
    index: &[u8],
    pick: Option<&Pick<'_>>,
    host: &Platform,
) -> Result<Vec<Candidate>, StoreError> {
    let Document::Index(mut entries) = document(contents, index, "", "index", "index.json")? else {
        return Err(fault(contents, "index", "index.json", "it is a manifest".to_owned()));
    };
    if let Some(pick) = pick {
        let picked = |entry: &Descriptor| name_of(entry).is_some_and(|name| pick.is(name));
        if !entries.iter().any(picked) {
            return Err(pick.missing(contents, entries.iter().filter_map(name_of)));
        }
        entries.retain(picked);
    }
    let mut images: Vec<(Digest, Candidate)> = Vec::new();
    let chosen = choose(contents, &entries, host)?;
    if chosen.len() > IMAGES_MAX {
        let reason = format!("it names more than {IMAGES_MAX} images");
        return Err(fault(contents, "index", "index.json", reason));
    }
    for entry in chosen {
        let (digest, text, manifest) = resolve(contents, path_of, entry, host)?;
        let name = name_of(entry).map(str::to_owned);
        // `docker save a b` of one image: one manifest, two entries.
        if let Some((_, image)) = images.iter_mut().find(|(other, _)| *other == digest) {
            image.names.extend(name);
            continue;
        }
        let image = layout_image(contents, path_of, text, &manifest, host)?;
        images.push((digest, Candidate { names: name.into_iter().collect(), ..image }));
    }
    Ok(images.into_iter().map(|(_, image)| image).collect())
}

fn choose<'a>(
    contents: &Contents,
    entries: &'a [Descriptor],
    host: &Platform,
) -> Result<Vec<&'a Descriptor>, StoreError> {
    select(entries, host).map_err(|found| StoreError::NoPlatform {
        file: contents.label().to_owned(),
        want: host.to_string(),
        found,
    })
}

/// Follows a descriptor, through indexes, to this host's manifest.
fn resolve(
    contents: &Contents,
    path_of: PathOf,
    entry: &Descriptor,
    host: &Platform,
) -> Result<(Digest, Vec<u8>, Manifest), StoreError> {
    let mut entry = entry.clone();
    for _ in 0..INDEX_DEPTH {
        let (name, text) = blob(contents, path_of, &entry, "manifest", DOCUMENT_MAX)?;
        match document(contents, &text, &entry.media_type, "manifest", &name)? {
            Document::Manifest(manifest) => return Ok((entry.digest, text, manifest)),
            Document::Index(entries) => {
                entry = match choose(contents, &entries, host)?.first() {
                    Some(first) => (*first).clone(),
                    None => return Err(no_image(contents, "its index is empty")),
                };
            }
        }
    }
    let reason = "its indexes point to each other".to_owned();
    Err(fault(contents, "index", entry.digest.as_str(), reason))
}

fn layout_image(
    contents: &Contents,
    path_of: PathOf,
    text: Vec<u8>,
    manifest: &Manifest,
    host: &Platform,
) -> Result<Candidate, StoreError> {
    let (name, config_text) =
        blob(contents, path_of, &manifest.config, "configuration", image_config::SIZE_MAX)?;
    let diff_ids = image_config::check(&config_text, contents.label(), &name, host)?;
    same_count(contents, &name, diff_ids.len(), manifest.layers.len())?;
    let layers = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| LayerFile {
            name: path_of(&layer.digest),
            blob: Some((layer.digest.clone(), layer.size)),
            diff_id,
        })
        .collect();
    Ok(Candidate { names: Vec::new(), manifest: Some(text), config_text, layers })
}

/// The image of skopeo's directory: the manifest under a name of its own, or an index beside whose
/// manifests; blobs under their bare digests.
fn directory_images(
    contents: &Contents,
    text: Vec<u8>,
    host: &Platform,
) -> Result<Vec<Candidate>, StoreError> {
    let name = "manifest.json";
    let image = match document(contents, &text, "", "manifest", name)? {
        Document::Manifest(manifest) => layout_image(contents, bare, text, &manifest, host)?,
        Document::Index(entries) => {
            let chosen = choose(contents, &entries, host)?;
            let [entry, ..] = chosen.as_slice() else { return Ok(Vec::new()) };
            let path = |digest: &Digest| format!("{}.manifest.json", digest.hex());
            let (_, text, manifest) = resolve(contents, path, entry, host)?;
            layout_image(contents, bare, text, &manifest, host)?
        }
    };
    Ok(vec![image])
}

fn docker_images(
    contents: &Contents,
    list: &[u8],
    pick: Option<&Pick<'_>>,
    host: &Platform,
) -> Result<Vec<Candidate>, StoreError> {
    let name = "manifest.json";
    let mut list: Vec<DockerImage> =
        serde_json::from_slice(list).map_err(|source| json(contents, "manifest", name, source))?;
    if list.len() > IMAGES_MAX {
        let reason = format!("it names more than {IMAGES_MAX} images");
        return Err(fault(contents, "manifest", name, reason));
    }
    if let Some(pick) = pick {
        let tags = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
        let all: Vec<String> = list.iter().flat_map(tags).collect();
        for image in &mut list {
            image.repo_tags.get_or_insert_default().retain(|tag| pick.is(tag));
        }
        list.retain(|image| image.repo_tags.as_ref().is_some_and(|tags| !tags.is_empty()));
        if list.is_empty() {
            return Err(pick.missing(contents, all.iter().map(String::as_str)));
        }
    }
    list.into_iter().map(|image| docker_image(contents, image, host)).collect()
}

fn docker_image(
    contents: &Contents,
    image: DockerImage,
    host: &Platform,
) -> Result<Candidate, StoreError> {
    let what = "configuration";
    let config_text = contents
        .document(what, &image.config, image_config::SIZE_MAX)?
        .ok_or_else(|| contents.missing(what, &image.config))?;
    // Docker names the file by its digest, so damage can be seen here, too.
    let stem = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
    if let Ok(digest) = format!("sha256:{stem}").parse() {
        contents.check_digest(what, &digest, Digest::of(&config_text))?;
    }
    let diff_ids = image_config::check(&config_text, contents.label(), &image.config, host)?;
    same_count(contents, &image.config, diff_ids.len(), image.layers.len())?;
    let layers = image
        .layers
        .into_iter()
        .zip(diff_ids)
        .map(|(name, diff_id)| LayerFile { name, blob: None, diff_id })
        .collect();
    let names = image.repo_tags.unwrap_or_default();
    Ok(Candidate { names, manifest: None, config_text, layers })
}

fn same_count(
    contents: &Contents,
    name: &str,
    diff_ids: usize,
    layers: usize,
) -> Result<(), StoreError> {
    if diff_ids == layers {
        return Ok(());
    }
    let reason = format!("it names {diff_ids} layers, the manifest {layers}");
    Err(fault(contents, "configuration", name, reason))
}

/// Where a blob is.
type PathOf = fn(&Digest) -> String;

/// Where skopeo's directory keeps a blob.
fn bare(digest: &Digest) -> String {
    digest.hex().to_owned()
}

/// Where a layout keeps a blob.
fn path_of(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads a document and checks it against its descriptor.
fn blob(
    contents: &Contents,
    path_of: PathOf,
    descriptor: &Descriptor,
    what: &'static str,
    max: u64,
) -> Result<(String, Vec<u8>), StoreError> {
    let name = path_of(&descriptor.digest);
    let text = contents.document(what, &name, max)?.ok_or_else(|| contents.missing(what, &name))?;
    contents.check_size(what, &name, descriptor.size, text.len() as u64)?;
    contents.check_digest(what, &descriptor.digest, Digest::of(&text))?;
    Ok((name, text))
}

fn document(
    contents: &Contents,
    text: &[u8],
    claimed: &str,
    what: &'static str,
    name: &str,
) -> Result<Document, StoreError> {
    Document::parse(text, claimed).map_err(|found| match found {
        DocumentFault::Json(source) => json(contents, what, name, source),
        DocumentFault::Reason(reason) => fault(contents, what, name, reason),
    })
}

fn json(
    contents: &Contents,
    what: &'static str,
    name: &str,
    source: serde_json::Error,
) -> StoreError {
    StoreError::Json { file: contents.label().to_owned(), what, name: name.to_owned(), source }
}

fn fault(contents: &Contents, what: &'static str, name: &str, reason: String) -> StoreError {
    StoreError::Document { file: contents.label().to_owned(), what, name: name.to_owned(), reason }
}
