//! An image from a registry into the store: manifest, configuration, layers side by side.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use ureq::http::header;

use super::client::{Client, Fetched};
use super::config::RegistryConfig;
use super::error::RegistryError;
use super::name::{Target, without_transport};
use super::progress::{Progress, PullEvent};
use crate::oci::digest::Digest;
use crate::oci::error::StoreError;
use crate::oci::image_config;
use crate::oci::manifest::{
    CONFIG, DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Document, DocumentFault,
    INDEX, MANIFEST, Manifest, Platform, select_one,
};
use crate::oci::reference::Reference;
use crate::oci::store::{BlobStart, BlobWriter, Loaded, Store};

/// Bytes a manifest or index may have; registries refuse larger ones, too.
const DOCUMENT_MAX: u64 = 4 << 20;

/// Indexes may point to indexes, this deep.
const INDEX_DEPTH: usize = 4;

/// Bytes a layer may have.
const LAYER_MAX: u64 = 64 << 30;

/// Layers an image may have; more do not run.
const LAYERS_MAX: usize = 256;

/// Blobs that are fetched at once.
const AT_ONCE: usize = 3;

/// What Docker's first manifest format is called.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// Pulls an image into the store under the name that was given. What is there is not fetched
/// again, what an earlier pull began goes on where it ended, and of two pulls at once each blob is
/// fetched by one.
///
/// # Errors
/// [`RegistryError`]; nothing but whole blobs and the begun ones of it is in the store then.
pub fn pull(
    store: &Store,
    name: &str,
    config: &RegistryConfig,
    progress: &dyn Progress,
) -> Result<Loaded, RegistryError> {
    let reference = Reference::parse(without_transport(name))?;
    let no_repository = || RegistryError::NoRepository { name: reference.to_string() };
    let target = Target::of(&reference).ok_or_else(no_repository)?;
    let host = Platform::host();
    let client = Client::connect(config, target, progress)?;
    let image = resolve(&client, &reference, &host)?;
    // From before the first blob, or a removal could take it for a leftover.
    let _hold = store.hold()?;
    let mut blobs = Blobs { client: &client, store, progress, name: reference.as_str() };
    let todo = image.layers()?;
    let config = &image.manifest.config;
    progress.tell(&PullEvent::Found {
        name: reference.as_str(),
        digest: &image.digest,
        blobs: todo.len() + 1,
        size: todo.iter().map(|layer| layer.size).fold(config.size, u64::saturating_add),
    });
    // First, for what it says may make all others needless.
    blobs.check_config(config, &host)?;
    blobs.fetch_all(todo)?;
    progress.tell(&PullEvent::Unpacking { name: reference.as_str() });
    let names = std::slice::from_ref(&reference);
    let mut loaded = store.install(&image.text, reference.as_str(), names, &image.indexes)?;
    progress.tell(&PullEvent::Ready { name: reference.as_str() });
    loaded.pop().ok_or_else(no_repository)
}

/// An image's manifest, as it came and read.
struct Found {
    name: String,
    digest: Digest,
    text: Vec<u8>,
    manifest: Manifest,
    /// The indexes on the way to it.
    indexes: Vec<Digest>,
}

impl Found {
    /// The layers, each once.
    fn layers(&self) -> Result<Vec<&Descriptor>, RegistryError> {
        let invalid =
            |what, reason| Err(RegistryError::Document { name: self.name.clone(), what, reason });
        let layers = &self.manifest.layers;
        if layers.len() > LAYERS_MAX {
            return invalid("its manifest", format!("it names more than {LAYERS_MAX} layers"));
        }
        let mut each: Vec<&Descriptor> = Vec::new();
        for layer in layers {
            if layer.size > LAYER_MAX {
                return Err(RegistryError::TooLarge {
                    name: self.name.clone(),
                    what: "a layer",
                    max: LAYER_MAX,
                });
            }
            match each.iter().find(|other| other.digest == layer.digest) {
                None => each.push(layer),
                Some(other) if other.size == layer.size => {}
                Some(_) => {
                    return invalid("its manifest", "it gives one layer two sizes".to_owned());
                }
            }
        }
        Ok(each)
    }
}

/// Follows the name, through indexes, to this host's manifest.
fn resolve(
    client: &Client<'_>,
    reference: &Reference,
    host: &Platform,
) -> Result<Found, RegistryError> {
    let name = reference.to_string();
    let types = [MANIFEST, DOCKER_MANIFEST, INDEX, DOCKER_INDEX];
    // Named, so that a registry that still has them says so and makes none from another format.
    let accept = [&types[..], &SCHEMA_1].concat().join(", ");
    let mut wanted = client.target.manifest().to_owned();
    let mut entry: Option<Descriptor> = None;
    let mut indexes = Vec::new();
    for _ in 0..=INDEX_DEPTH {
        let Fetched { media_type, bytes, digest } =
            client.manifest(&wanted, &accept, DOCUMENT_MAX)?;
        let pinned = entry.as_ref().map(|entry| &entry.digest).or(reference.digest());
        if let Some(want) = pinned.filter(|want| **want != digest) {
            let want = want.clone();
            return Err(RegistryError::DigestMismatch {
                name,
                what: "manifest",
                want,
                found: digest,
            });
        }
        if let Some(want) = entry.as_ref().map(|entry| entry.size)
            && want != bytes.len() as u64
        {
            let found = bytes.len() as u64;
            return Err(RegistryError::SizeMismatch {
                name,
                what: "manifest",
                digest,
                want,
                found,
            });
        }
        if SCHEMA_1.contains(&&*media_type) {
            return Err(RegistryError::Schema1 { name });
        }
        if !types.contains(&&*media_type) {
            let host = client.target.host.clone();
            return Err(RegistryError::ContentType { host, name, found: media_type });
        }
        let what = "its manifest";
        let invalid = |reason: String| RegistryError::Document { name: name.clone(), what, reason };
        let claimed = entry.as_ref().map_or("", |entry| &entry.media_type);
        if !claimed.is_empty() && claimed != media_type {
            return Err(invalid(format!("its index calls it {claimed}, it came as {media_type}")));
        }
        let document = Document::parse(&bytes, &media_type).map_err(|fault| match fault {
            DocumentFault::Json(source) => RegistryError::Json { name: name.clone(), what, source },
            DocumentFault::Reason(reason) => invalid(reason),
        })?;
        let entries = match document {
            Document::Manifest(manifest) => {
                let config = &manifest.config.media_type;
                if ![CONFIG, DOCKER_CONFIG].contains(&config.as_str()) {
                    return Err(invalid(format!("it is for {config}, not for a container image")));
                }
                return Ok(Found { name, digest, text: bytes, manifest, indexes });
            }
            Document::Index(entries) => entries,
        };
        let no_platform = |found: Vec<String>| RegistryError::NoPlatform {
            name: name.clone(),
            want: host.to_string(),
            found,
        };
        if entries.is_empty() {
            return Err(invalid("its index is empty".to_owned()));
        }
        let next = select_one(&entries, host).map_err(no_platform)?;
        indexes.push(digest);
        wanted = next.digest.to_string();
        entry = Some(next.clone());
    }
    let (what, reason) = ("its index", "it leads to indexes without end".to_owned());
    Err(RegistryError::Document { name, what, reason })
}

/// Brings an image's blobs into the store.
#[derive(Clone, Copy)]
struct Blobs<'a> {
    client: &'a Client<'a>,
    store: &'a Store,
    progress: &'a dyn Progress,
    name: &'a str,
}

impl Blobs<'_> {
    /// Fetches the configuration and refuses what would not run here.
    fn check_config(&mut self, config: &Descriptor, host: &Platform) -> Result<(), RegistryError> {
        let max = image_config::SIZE_MAX;
        let name = self.name.to_owned();
        if config.size > max {
            return Err(RegistryError::TooLarge { name, what: "its configuration", max });
        }
        self.fetch("configuration", config, &AtomicBool::new(false))?;
        let missing = || StoreError::Incomplete { name, path: self.store.root().to_owned() };
        let mut file = self.store.blob(&config.digest)?.ok_or_else(missing)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(StoreError::io("read", self.store.root()))?;
        image_config::check(&text, self.name, config.digest.as_str(), host)?;
        Ok(())
    }

    /// Fetches the layers, a few at once; the first failure ends the others.
    fn fetch_all(&self, layers: Vec<&Descriptor>) -> Result<(), RegistryError> {
        let workers = AT_ONCE.min(layers.len());
        let queue = Mutex::new(VecDeque::from(layers));
        let stop = AtomicBool::new(false);
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(layer) = next else { return };
                        if let Err(error) = self.fetch("layer", layer, &stop) {
                            stop.store(true, Ordering::Relaxed);
                            let mut failure =
                                failure.lock().unwrap_or_else(PoisonError::into_inner);
                            failure.get_or_insert(error);
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Fetches a blob, unless it is there, and goes on where somebody stopped.
    fn fetch(
        &self,
        what: &'static str,
        blob: &Descriptor,
        stop: &AtomicBool,
    ) -> Result<(), RegistryError> {
        match self.fetch_once(what, blob, stop) {
            // What was left may be damaged, after a power cut for instance: once more, whole.
            (Err(RegistryError::DigestMismatch { .. }), true) => {
                self.fetch_once(what, blob, stop).0
            }
            (result, _) => result,
        }
    }

    /// The same; and whether it began with what somebody left.
    fn fetch_once(
        &self,
        what: &'static str,
        blob: &Descriptor,
        stop: &AtomicBool,
    ) -> (Result<(), RegistryError>, bool) {
        let digest = &blob.digest;
        match self.store.begin_blob(digest, Some(blob.size)) {
            Err(error) => (Err(error.into()), false),
            Ok(BlobStart::Present(_)) => {
                self.progress.tell(&PullEvent::Present { digest });
                (Ok(()), false)
            }
            Ok(BlobStart::Partial(writer)) => {
                let resumed = writer.resumed();
                (self.fill(what, blob, *writer, stop), resumed > 0)
            }
        }
    }

    /// Fetches what a blob lacks, in as many attempts as it takes.
    fn fill(
        &self,
        what: &'static str,
        blob: &Descriptor,
        mut writer: BlobWriter,
        stop: &AtomicBool,
    ) -> Result<(), RegistryError> {
        let digest = &blob.digest;
        let resumed = writer.resumed();
        self.progress.tell(&PullEvent::Begun { digest, size: blob.size, resumed });
        let mut at = resumed;
        let mut failed = 0;
        while at < blob.size {
            if stop.load(Ordering::Relaxed) {
                // Another blob's error is told; what has come of this one stays.
                return Ok(());
            }
            let before = at;
            match self.receive(what, blob, &mut writer, &mut at, stop) {
                Ok(()) => {}
                Err(error) => {
                    failed = if at > before { 1 } else { failed + 1 };
                    self.client.wait_after(error, failed)?;
                }
            }
        }
        match writer.finish() {
            Ok(_) => {}
            Err(StoreError::BlobDigest { want, found }) => {
                let name = self.name.to_owned();
                return Err(RegistryError::DigestMismatch { name, what, want, found });
            }
            Err(error) => return Err(error.into()),
        }
        self.progress.tell(&PullEvent::Done { digest });
        Ok(())
    }

    /// Asks for a blob from byte `at` on, and writes what comes. `at` moves on with it, also if it
    /// breaks off.
    fn receive(
        &self,
        what: &'static str,
        blob: &Descriptor,
        writer: &mut BlobWriter,
        at: &mut u64,
        stop: &AtomicBool,
    ) -> Result<(), RegistryError> {
        let digest = &blob.digest;
        let label = format!("{what} {digest}");
        let reply = self.client.blob(digest, &label, *at)?;
        let host = reply.host.clone();
        let from = match reply.status {
            206 => first_byte(reply.header(header::CONTENT_RANGE).unwrap_or_default()),
            _ => Some(0),
        };
        let ahead = from.and_then(|from| at.checked_sub(from));
        let Some(mut skip) = ahead else {
            let reason = "it sent another part than it was asked for".to_owned();
            return Err(RegistryError::Document { name: self.name.to_owned(), what, reason });
        };
        let mut reader = reply.reader();
        let mut buffer = vec![0; 128 << 10];
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.client.http.left()?;
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Err(self.client.http.broken(&host, &label, error)),
            };
            // A registry that knows no ranges begins at the first byte again.
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(read);
            skip -= known as u64;
            let bytes = &buffer[known..read];
            if *at + bytes.len() as u64 > blob.size {
                return Err(self.wrong_size(what, blob, blob.size + 1));
            }
            writer
                .write_all(bytes)
                .map_err(StoreError::io("write a blob to", self.store.root()))?;
            *at += bytes.len() as u64;
            self.progress.tell(&PullEvent::Advanced { digest, bytes: bytes.len() as u64 });
        }
        // The registry believes that this was all: it would be so again.
        if *at < blob.size { Err(self.wrong_size(what, blob, *at)) } else { Ok(()) }
    }

    fn wrong_size(&self, what: &'static str, blob: &Descriptor, found: u64) -> RegistryError {
        let (name, digest, want) = (self.name.to_owned(), blob.digest.clone(), blob.size);
        RegistryError::SizeMismatch { name, what, digest, want, found }
    }
}

/// The first byte of a `Content-Range: bytes 5-9/10` (RFC 9110, 14.4).
fn first_byte(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
