//! Where a name's repository is: which host is asked, for what. Pure.
//! Source: `github.com/distribution/reference`, and the OCI distribution specification, "Pull".

use crate::oci::digest::Digest;
use crate::oci::reference::{EMBEDDED, Reference};

/// How skopeo writes that a name is a registry's.
const TRANSPORT: &str = "docker://";

/// Docker Hub's registry answers under another name than the one in its images' names.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The name without a `docker://` before it.
pub fn without_transport(name: &str) -> &str {
    name.strip_prefix(TRANSPORT).unwrap_or(name)
}

/// What is asked of a registry for one image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The host as image names have it, with a port if one was given: `docker.io`.
    pub(super) domain: String,
    /// The host that is asked: `registry-1.docker.io`.
    pub(super) host: String,
    /// The repository's path: `library/busybox`.
    pub(super) repository: String,
    /// The tag; `None` if the name has a digest, which says it all.
    pub(super) tag: Option<String>,
    /// The digest the name pins.
    pub(super) digest: Option<Digest>,
}

impl Target {
    /// What `reference` asks for; `None` if it names nothing a registry has: the built-in image,
    /// or a digest alone.
    pub(super) fn of(reference: &Reference) -> Option<Self> {
        let normal = reference.normal();
        if normal == EMBEDDED {
            return None;
        }
        let (domain, rest) = normal.split_once('/')?;
        let rest = rest.split('@').next().unwrap_or_default();
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        let digest = reference.digest().cloned();
        Some(Self {
            domain: domain.to_owned(),
            host: if domain == HUB.0 { HUB.1 } else { domain }.to_owned(),
            repository: repository.to_owned(),
            tag: tag.filter(|_| digest.is_none()),
            digest,
        })
    }

    /// What stands after `manifests/` for it.
    pub(super) fn manifest(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }

    /// What a token must allow.
    pub(super) fn scope(&self) -> String {
        format!("repository:{}:pull", self.repository)
    }
}

/// Whether `host`, with or without a port, is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    match bare.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => bare.eq_ignore_ascii_case("localhost"),
    }
}

/// A host without its port, and without the brackets of an IPv6 address.
pub(super) fn bare(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_registry() {
        let hex = "a".repeat(64);
        let pinned = format!("sha256:{hex}");
        let hub = "registry-1.docker.io";
        let cases = [
            ("busybox", ("docker.io", hub, "library/busybox", "latest")),
            ("me/t:1", ("docker.io", hub, "me/t", "1")),
            ("index.docker.io/me/t", ("docker.io", hub, "me/t", "latest")),
            ("ghcr.io/a/b/c:x", ("ghcr.io", "ghcr.io", "a/b/c", "x")),
            ("localhost:5000/t", ("localhost:5000", "localhost:5000", "t", "latest")),
            ("[::1]:5000/t:2", ("[::1]:5000", "[::1]:5000", "t", "2")),
            (&format!("t:1@{pinned}"), ("docker.io", hub, "library/t", &pinned)),
        ];
        for (name, (domain, host, repository, manifest)) in cases {
            let target = Target::of(&Reference::parse(name).unwrap()).unwrap();
            assert_eq!(
                (&*target.domain, &*target.host, &*target.repository, target.manifest()),
                (domain, host, repository, manifest),
                "{name}"
            );
            assert_eq!(target.scope(), format!("repository:{repository}:pull"));
        }
    }

    #[test]
    fn what_no_registry_has_is_no_target() {
        for name in [EMBEDDED.to_owned(), format!("sha256:{}", "a".repeat(64))] {
            assert_eq!(Target::of(&Reference::parse(&name).unwrap()), None, "{name}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (host, want) in [
            ("localhost", true),
            ("LOCALHOST:5000", true),
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("[::1]:5000", true),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("10.0.0.1:5000", false),
            ("[::2]:5000", false),
            ("registry", false),
        ] {
            assert_eq!(is_loopback(host), want, "{host}");
        }
    }

    #[test]
    fn the_transport_is_taken_off() {
        assert_eq!(without_transport("docker://a/b:1"), "a/b:1");
        assert_eq!(without_transport("a/b:1"), "a/b:1");
    }
}
