//! Manifests and indexes: what is followed, what is refused.

use super::super::RegistryError;
use super::image::Repository;
use super::server::{Answer, Server};
use super::{Place, good};
use crate::error::{Classify, ErrorKind};
use crate::oci::digest::Digest;
use crate::oci::manifest::{INDEX, MANIFEST, Platform};

fn serve(repository: Repository) -> Server {
    Server::new(move |request| repository.answer(request))
}

#[test]
fn an_index_leads_to_this_hosts_image() {
    let mut repository = Repository::default();
    let image = repository.image(1);
    let own = Platform::host().architecture;
    let inner = repository.index("inner", &[(&image, &own)]);
    let foreign = repository.manifest("foreign", MANIFEST, "never asked for".to_owned());
    let index = repository.index("multi", &[(&foreign, "s390x"), (&image, &own)]);
    let outer = repository.index("outer", &[(&foreign, "s390x"), (&inner, &own)]);
    let server = serve(repository);
    let place = Place::new();
    for reference in [
        "a:multi".to_owned(),
        "a:outer".to_owned(),
        format!("a@{index}"),
        format!("a:x@{outer}"),
        format!("a@{image}"),
    ] {
        let name = server.name(&reference);
        let pulled = place.pull(&name).unwrap();
        assert_eq!(pulled.digest, image, "{reference}");
        // Also where the name pins the index, which the store does not keep.
        assert_eq!(place.store().resolve(&name).unwrap().digest, image, "{reference}");
    }
    assert!(server.seen_of(foreign.as_str()).is_empty());
}

#[test]
fn what_is_not_for_this_host_is_refused_with_what_there_is() {
    let mut repository = Repository::default();
    let image = repository.image(1);
    repository.index("1", &[(&image, "s390x"), (&image, "riscv64")]);
    let server = serve(repository);
    let error = Place::new().pull(&server.name("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("linux/s390x, linux/riscv64"), "{text}");
    assert!(text.contains(&Platform::host().to_string()), "{text}");
}

/// A manifest's text or an answer, and what its error is called.
#[test]
fn bad_documents_are_refused() {
    let mut repository = Repository::default();
    repository.image(1);
    let (_, good) = repository.manifests["1"].clone();
    let good = String::from_utf8(good).unwrap();
    let manifest =
        |text: &str| Answer::new(200).with("Content-Type", MANIFEST).body(text.to_owned());
    let typed = |media_type: &str, text: &str| {
        Answer::new(200).with("Content-Type", media_type).body(text.to_owned())
    };
    let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let artifact = good.replace(
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.cncf.helm.config.v1+json",
    );
    let layer = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1}"#;
    let many =
        good.replace(r#""layers":["#, &format!(r#""layers":[{}"#, format!("{layer},").repeat(300)));
    let cases = [
        (typed(schema_1, r#"{"schemaVersion":1}"#), ErrorKind::Unsupported, "schema 1"),
        (typed("text/html", "<html>"), ErrorKind::Invalid, "text/html"),
        (Answer::new(200).body(good.clone()), ErrorKind::Invalid, "answered with \"\""),
        (typed(INDEX, &good), ErrorKind::Invalid, "media type"),
        (typed(INDEX, r#"{"schemaVersion":2,"manifests":[]}"#), ErrorKind::Invalid, "empty"),
        (manifest("{"), ErrorKind::Invalid, "cannot be read"),
        (manifest(r#"{"schemaVersion":1}"#), ErrorKind::Invalid, "schemaVersion"),
        (manifest(&artifact), ErrorKind::Invalid, "not for a container image"),
        (manifest(&many), ErrorKind::Invalid, "more than 256 layers"),
        (
            manifest(&good.replace(r#""size":"#, r#""size":-"#)),
            ErrorKind::Invalid,
            "cannot be read",
        ),
        (
            manifest(&good.replacen(r#""size":"#, r#""size":99999999"#, 1)),
            ErrorKind::Invalid,
            "configuration has more than",
        ),
        (manifest(&" ".repeat((4 << 20) + 1)), ErrorKind::Invalid, "more than 4194304 bytes"),
        (Answer::new(404), ErrorKind::NotFound, "has no manifest 1 in a"),
    ];
    for (answer, kind, want) in cases {
        let served = repository.clone();
        let server = Server::new(move |request| {
            if request.path.contains("/manifests/") {
                answer.clone()
            } else {
                served.answer(request)
            }
        });
        let place = Place::new();
        let error = place.pull(&server.name("a:1")).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(want), "{want}: {error}");
        assert!(server.seen_of("/blobs/").is_empty(), "{want}");
        place.assert_no_image();
    }
}

#[test]
fn indexes_do_not_lead_on_for_ever() {
    let mut repository = Repository::default();
    let mut last = repository.image(1);
    for depth in 0..8 {
        last = repository.index(&depth.to_string(), &[(&last, &Platform::host().architecture)]);
    }
    let server = serve(repository);
    let error = Place::new().pull(&server.name("a:7")).unwrap_err();
    assert!(error.to_string().contains("without end"), "{error}");
    assert!(server.seen().len() < 8);
}

#[test]
fn content_is_what_its_digest_says_or_nothing() {
    let (server, repository) = good(1);
    let (_, text) = repository.manifests["1"].clone();
    let other = Digest::of(b"other");
    // By digest, and as an index says.
    let mut lying = repository.clone();
    lying.manifests.insert(other.to_string(), (MANIFEST.to_owned(), text.clone()));
    lying.index("1", &[(&other, &Platform::host().architecture)]);
    let liar = serve(lying);
    for reference in [format!("a@{other}"), "a:1".to_owned()] {
        let place = Place::new();
        let error = place.pull(&liar.name(&reference)).unwrap_err();
        let RegistryError::DigestMismatch { want, found, .. } = &error else { panic!("{error}") };
        assert_eq!((want, found), (&other, &Digest::of(&text)));
        assert_eq!(error.kind(), ErrorKind::Invalid);
        place.assert_no_image();
    }
    drop(server);
}
