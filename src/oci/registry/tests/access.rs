//! Who is told which credential, and where redirections lead.

use std::path::PathBuf;

use data_encoding::BASE64;

use super::super::{RegistryError, Tried};
use super::Place;
use super::image::Repository;
use super::server::{Answer, Server};
use crate::error::{Classify, ErrorKind};

/// Writes a `config.json` with one entry.
fn credentials(place: &mut Place, server: &Server, entry: &str) -> PathBuf {
    let path = place.directory.path().join("config.json");
    let text = format!(r#"{{"auths":{{"{}":{{{entry}}}}}}}"#, server.address);
    std::fs::write(&path, text).unwrap();
    place.config.docker_config = Some(path.clone());
    path
}

fn password(text: &str) -> String {
    format!(r#""auth":"{}""#, BASE64.encode(text.as_bytes()))
}

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64.encode(text.as_bytes()))
}

fn image() -> Repository {
    let mut repository = Repository { ranges: true, ..Repository::default() };
    repository.image(4);
    repository
}

/// A server whose blobs another one has, as most registries do it.
struct Split {
    registry: Server,
    tokens: Server,
    blobs: Server,
}

/// `challenge` is what the registry asks with; it lets in who has `pass`.
fn split(challenge: impl Fn(&Server) -> String, pass: &'static str) -> Split {
    let repository = image();
    let served = repository.clone();
    let blobs = Server::new(move |request| served.answer(request));
    let tokens = Server::new(move |request| {
        let known = request.header("authorization") == Some(&basic("me:secret"))
            || request.body.contains("refresh_token=identity");
        if !known {
            return Answer::new(401).body(r#"{"details":"incorrect username or password"}"#);
        }
        Answer::new(200).body(r#"{"token":"opened","expires_in":60}"#)
    });
    let challenge = challenge(&tokens);
    let elsewhere = blobs.clone();
    let registry = Server::new(move |request| {
        let pass = if pass.starts_with("Bearer") { pass.to_owned() } else { basic(pass) };
        if request.header("authorization") != Some(&pass) {
            return Answer::new(401).with("WWW-Authenticate", challenge.clone());
        }
        if request.path.contains("/blobs/") {
            return Answer::new(307).with("Location", elsewhere.url(&request.path));
        }
        repository.answer(request)
    });
    Split { registry, tokens, blobs }
}

fn bearer(tokens: &Server) -> String {
    format!(r#"Bearer realm="{}",service="the registry",scope="x""#, tokens.url("/token?a=b"))
}

#[test]
fn a_token_is_bought_once_and_blobs_elsewhere_see_no_credential() {
    let Split { registry, tokens, blobs } = split(bearer, "Bearer opened");
    let mut place = Place::new();
    credentials(&mut place, &registry, &password("me:secret"));
    place.pull(&registry.name("a/b:1")).unwrap();
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/token?a=b&scope=repository:a/b:pull&service=the%20registry");
    let password = Some(basic("me:secret"));
    assert!(registry.seen().iter().all(|r| r.header("authorization") != password.as_deref()));
    assert_eq!(blobs.seen().len(), 5);
    assert!(blobs.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn a_password_is_for_the_registry_alone() {
    let Split { registry, tokens, blobs } = split(|_| "Basic realm=x".to_owned(), "me:secret");
    let mut place = Place::new();
    credentials(&mut place, &registry, &password("me:secret"));
    place.pull(&registry.name("a/b:1")).unwrap();
    assert!(registry.seen()[0].header("authorization").is_none(), "not before it is asked for");
    assert!(blobs.seen().iter().all(|request| request.header("authorization").is_none()));
    assert!(tokens.seen().is_empty());
}

#[test]
fn an_identity_token_buys_a_token() {
    let Split { registry, tokens, .. } = split(bearer, "Bearer opened");
    let mut place = Place::new();
    credentials(&mut place, &registry, r#""identitytoken":"identity""#);
    place.pull(&registry.name("a/b:1")).unwrap();
    let asked = &tokens.seen()[0];
    assert_eq!(asked.method, "POST");
    for part in ["grant_type=refresh_token", "scope=repository:a/b:pull", "client_id=carboy"] {
        assert!(asked.body.contains(part), "{}", asked.body);
    }
}

#[test]
fn who_is_not_let_in_is_told_which_credential_was_tried() {
    for challenge in [bearer, |_: &Server| "Basic realm=x".to_owned()] {
        let Split { registry, blobs, .. } = split(challenge, "Bearer another");
        let mut place = Place::new();
        let error = place.pull(&registry.name("a/b:1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission);
        assert!(matches!(error, RegistryError::Denied { tried: Tried::Nobody, .. }), "{error}");

        let path = credentials(&mut place, &registry, &password("me:wrong"));
        let error = place.pull(&registry.name("a/b:1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission);
        let text = error.to_string();
        assert!(text.contains("\"me\"") && text.contains(&path.display().to_string()), "{text}");
        assert!(!text.contains("wrong") && !format!("{error:?}").contains("wrong"), "{error:?}");
        assert!(blobs.seen().is_empty());
        place.assert_no_image();
    }
}

#[test]
fn a_helper_is_asked_for_the_credential() {
    let Split { registry, .. } = split(bearer, "Bearer opened");
    let mut place = Place::new();
    let path = credentials(&mut place, &registry, "");
    let text = format!(r#"{{"credHelpers":{{"{}":"carboy-absent"}}}}"#, registry.address);
    std::fs::write(path, text).unwrap();
    let error = place.pull(&registry.name("a/b:1")).unwrap_err();
    let RegistryError::Helper { program, reason, .. } = &error else { panic!("{error}") };
    assert_eq!(program, "docker-credential-carboy-absent");
    assert!(reason.contains("search path"), "{reason}");
}

#[test]
fn challenges_that_cannot_be_answered_are_told() {
    let far = |_: &Server| r#"Bearer realm="http://tokens.example/""#.to_owned();
    let strange = |_: &Server| "Negotiate".to_owned();
    type Ask = fn(&Server) -> String;
    let cases: [(Ask, &str); 2] = [(far, "does not use TLS"), (strange, "Negotiate")];
    for (challenge, want) in cases {
        let Split { registry, .. } = split(challenge, "Bearer opened");
        let mut place = Place::new();
        credentials(&mut place, &registry, &password("me:secret"));
        let error = place.pull(&registry.name("a/b:1")).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn redirections_end() {
    let server = Server::new(|request| Answer::new(302).with("Location", request.path.clone()));
    let error = Place::new().pull(&server.name("a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    assert!(server.seen().len() < 10);
}

#[test]
fn urls_in_descriptors_are_not_followed() {
    let bait = Server::new(|_| Answer::new(200));
    let mut repository = image();
    let (media_type, text) = repository.manifests["1"].clone();
    let text = String::from_utf8(text).unwrap();
    let urls = format!(r#""urls":["{}"],"digest":"#, bait.url("/blob"));
    repository.manifest("1", &media_type, text.replace(r#""digest":"#, &urls));
    let registry = Server::new(move |request| repository.answer(request));
    Place::new().pull(&registry.name("a:1")).unwrap();
    assert!(bait.seen().is_empty());
}

#[test]
fn a_host_that_is_not_there_is_told() {
    let place = Place::new();
    let error = place.pull("127.0.0.1:1/a").unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error}");
}
