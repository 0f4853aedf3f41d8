//! Blobs: connections that break, registries that are slow, busy or lie.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::RegistryError;
use super::image::Repository;
use super::server::{Answer, Request, Server};
use super::{Place, good};
use crate::error::{Classify, ErrorKind};
use crate::oci::store::BlobStart;

/// A registry with an image of one layer, whose layer is answered by `act`; it gets what a good
/// registry would say and how often it was asked.
fn scripted(
    ranges: bool,
    act: impl Fn(&Request, Answer, usize) -> Answer + Send + Sync + 'static,
) -> (Server, Vec<u8>) {
    let mut repository = Repository { ranges, ..Repository::default() };
    repository.image(1);
    let layer = repository.blobs.values().max_by_key(|blob| blob.len()).unwrap().clone();
    let path = format!("/v2/a/blobs/{}", crate::oci::digest::Digest::of(&layer));
    let count = AtomicUsize::new(0);
    let server = Server::new(move |request| {
        let answer = repository.answer(request);
        if request.path != path {
            return answer;
        }
        act(request, answer, count.fetch_add(1, Ordering::Relaxed))
    });
    (server, layer)
}

fn ranges_of(server: &Server) -> Vec<String> {
    let range = |request: Request| request.header("range").unwrap_or("all").to_owned();
    let mut all: Vec<String> = server.seen_of("/blobs/").into_iter().map(range).collect();
    // The first is the configuration's.
    all.remove(0);
    all
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    let (server, layer) =
        scripted(true, |_, answer, count| if count < 6 { answer.cut(1000) } else { answer });
    let place = Place::new();
    place.pull(&server.name("a:1")).unwrap();
    let want: Vec<String> = (0..7)
        .map(|n| if n == 0 { "all".to_owned() } else { format!("bytes={}-", n * 1000) })
        .collect();
    assert!(layer.len() > 7000);
    assert_eq!(ranges_of(&server), want, "more breaks than attempts, for each brought something");
    assert_eq!(place.told("again"), 6);
}

#[test]
fn a_registry_without_ranges_is_read_again_from_the_start() {
    let (server, _) =
        scripted(false, |_, answer, count| if count == 0 { answer.cut(1000) } else { answer });
    Place::new().pull(&server.name("a:1")).unwrap();
    assert_eq!(ranges_of(&server), ["all", "bytes=1000-"]);
}

#[test]
fn what_an_earlier_pull_left_is_not_fetched_again() {
    let (server, layer) = scripted(true, |_, answer, _| answer);
    for (left, want) in [
        (&layer[..5000], vec!["bytes=5000-"]),
        (&layer[..], vec![]),
        // Damaged by a power cut: found out by its digest, and fetched whole.
        (&[0; 3000][..], vec!["bytes=3000-", "all"]),
    ] {
        let place = Place::new();
        let digest = crate::oci::digest::Digest::of(&layer);
        match place.store().begin_blob(&digest, Some(layer.len() as u64)).unwrap() {
            BlobStart::Partial(mut writer) => writer.write_all(left).unwrap(),
            BlobStart::Present(_) => panic!("it is new"),
        }
        let before = server.seen_of("/blobs/").len();
        place.pull(&server.name("a:1")).unwrap();
        let asked: Vec<String> = server.seen_of("/blobs/")[before..]
            .iter()
            .filter(|request| request.path.ends_with(digest.as_str()))
            .map(|request| request.header("range").unwrap_or("all").to_owned())
            .collect();
        assert_eq!(asked, want);
    }
}

#[test]
fn a_busy_registry_is_asked_again_later() {
    let (server, _) = scripted(true, |_, answer, count| match count {
        0 => Answer::new(429).with("Retry-After", "0"),
        1 => Answer::new(503),
        2 => Answer::new(500),
        _ => answer,
    });
    let place = Place::new();
    place.pull(&server.name("a:1")).unwrap();
    assert_eq!(place.told("again"), 3);

    let (server, _) = scripted(true, |_, _, _| {
        Answer::new(502).body(r#"{"errors":[{"code":"X","message":"no backend"}]}"#)
    });
    let place = Place::new();
    let error = place.pull(&server.name("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(
        error.to_string().contains("502") && error.to_string().contains("no backend"),
        "{error}"
    );
    assert_eq!((ranges_of(&server).len(), place.told("again")), (5, 4));
    place.assert_no_image();
}

#[test]
fn a_registry_that_asks_for_too_much_time_is_told_of_at_once() {
    let (server, _) = scripted(true, |_, _, _| Answer::new(429).with("Retry-After", "40"));
    let mut place = Place::new();
    place.config.deadline = Duration::from_secs(30);
    let error = place.pull(&server.name("a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 429, .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("log in")));
}

#[test]
fn silence_is_no_answer() {
    let (server, _) = scripted(true, |_, answer, _| answer.cut(0).stall());
    let mut place = Place::new();
    place.config.stall = Duration::from_millis(100);
    let error = place.pull(&server.name("a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Stalled { .. }), "{error}");
    assert_eq!((error.kind(), ranges_of(&server).len()), (ErrorKind::Timeout, 5));

    place.config.stall = Duration::from_secs(20);
    place.config.deadline = Duration::from_millis(500);
    let error = place.pull(&server.name("a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::Deadline { .. }), "{error}");
    place.assert_no_image();
}

#[test]
fn lies_are_found_out() {
    type Lie = fn(Answer) -> Answer;
    let flip = |mut answer: Answer| {
        answer.body[100] ^= 1;
        answer
    };
    let longer = |mut answer: Answer| {
        answer.body.push(0);
        answer
    };
    let shorter = |mut answer: Answer| {
        answer.body.pop();
        answer
    };
    let lies: [(Lie, &str); 3] = [
        (flip, "came with other content"),
        (longer, "its descriptor says"),
        (shorter, "its descriptor says"),
    ];
    for (lie, want) in lies {
        let (server, layer) = scripted(true, move |_, answer, _| lie(answer));
        let place = Place::new();
        let error = place.pull(&server.name("a:1")).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let digest = crate::oci::digest::Digest::of(&layer);
        assert!(place.store().blob(&digest).unwrap().is_none());
        assert_eq!(place.told("again"), 0, "a lie is not asked for twice");
        place.assert_no_image();
    }
    // A part that was not asked for.
    let (server, _) = scripted(true, |_, answer, count| match count {
        0 => answer.cut(1000),
        _ => Answer::new(206).with("Content-Range", "bytes 2000-3000/9999").body("x"),
    });
    let error = Place::new().pull(&server.name("a:1")).unwrap_err();
    assert!(error.to_string().contains("another part"), "{error}");
}

#[test]
fn one_blob_that_fails_ends_the_others() {
    let (good, repository) = good(12);
    drop(good);
    let count = AtomicUsize::new(0);
    let server = Server::new(move |request| {
        let nth = count.fetch_add(1, Ordering::Relaxed);
        if request.path.contains("/blobs/") && nth == 4 {
            return Answer::new(404);
        }
        repository.answer(request)
    });
    let place = Place::new();
    let error = place.pull(&server.name("a:1")).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    assert!(server.seen_of("/blobs/").len() < 13, "all others were fetched, too");
    place.assert_no_image();
}
