//! Pulls from registries that are scripted, to misbehave as well.

mod access;
mod documents;
mod image;
mod server;
mod transfer;

use std::sync::Mutex;
use std::time::Duration;

use self::image::Repository;
use self::server::Server;
use super::{Progress, PullEvent, RegistryConfig, RegistryError, pull};
use crate::oci::store::{Loaded, Store};

/// A store in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
    config: RegistryConfig,
    told: Told,
}

/// What a pull told, a word and perhaps a number each.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn tell(&self, event: &PullEvent<'_>) {
        let word = match event {
            PullEvent::Begun { resumed, .. } => format!("begun at {resumed}"),
            PullEvent::Present { .. } => "present".to_owned(),
            PullEvent::Done { .. } => "done".to_owned(),
            PullEvent::Again { .. } => "again".to_owned(),
            _ => return,
        };
        self.0.lock().unwrap().push(word);
    }
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = RegistryConfig {
            certs_d: Vec::new(),
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(20),
            deadline: Duration::from_secs(60),
            back_off: Duration::from_millis(1),
            ..RegistryConfig::default()
        };
        Self { directory, config, told: Told::default() }
    }

    fn store(&self) -> Store {
        Store::open(&self.directory.path().join("images")).unwrap()
    }

    fn pull(&self, name: &str) -> Result<Loaded, RegistryError> {
        pull(&self.store(), name, &self.config, &self.told)
    }

    fn told(&self, word: &str) -> usize {
        self.told.0.lock().unwrap().iter().filter(|told| told.starts_with(word)).count()
    }

    /// Whether nothing of a failed pull can be found: no name, and no blob but whole ones.
    #[track_caller]
    fn assert_no_image(&self) {
        assert_eq!(self.store().list().unwrap(), []);
    }
}

/// A registry that works, with an image of so many layers.
fn good(layers: usize) -> (Server, Repository) {
    let mut repository = Repository { ranges: true, ..Repository::default() };
    repository.image(layers);
    let served = repository.clone();
    (Server::new(move |request| served.answer(request)), repository)
}

#[test]
fn an_image_is_pulled_and_pulled_again_for_nothing() {
    let (server, repository) = good(5);
    let place = Place::new();
    let name = server.name("a/b:1");
    let pulled = place.pull(&format!("docker://{name}")).unwrap();
    assert_eq!((pulled.reference.as_str(), pulled.changed), (&*name, true));
    assert!(repository.manifests.contains_key(pulled.digest.as_str()));
    assert_eq!(place.store().resolve(&name).unwrap().layers.len(), 5);
    assert_eq!(server.seen().len(), 1 + 6);
    assert_eq!((place.told("begun"), place.told("done")), (6, 6));
    let again = place.pull(&name).unwrap();
    assert_eq!((again.digest, again.changed), (pulled.digest, false));
    assert_eq!(server.seen().len(), 1 + 6 + 1, "only the manifest is asked for again");
}

#[test]
fn two_pulls_at_once_do_the_work_once() {
    let (server, _) = good(6);
    let place = Place::new();
    let name = server.name("a/b:1");
    std::thread::scope(|scope| {
        let pulls = [(); 3].map(|()| scope.spawn(|| place.pull(&name).unwrap()));
        for pull in pulls {
            pull.join().unwrap();
        }
    });
    assert_eq!(server.seen_of("/blobs/").len(), 7, "each blob once");
    assert_eq!(place.store().list().unwrap().len(), 1);
}

#[test]
fn what_no_registry_has_is_not_asked_for() {
    let place = Place::new();
    for name in [crate::oci::embedded::REFERENCE.to_owned(), format!("sha256:{}", "a".repeat(64))] {
        let error = place.pull(&name).unwrap_err();
        assert!(matches!(error, RegistryError::NoRepository { .. }), "{error}");
    }
}
