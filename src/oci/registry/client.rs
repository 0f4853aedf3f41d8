//! One repository of a registry: its manifests and blobs.
//! Source: the OCI distribution specification 1.1, "Pull"; Docker's "Token Authentication".

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::Deserialize;
use ureq::http::header;

use super::challenge::{self, Challenge};
use super::credentials::{self, Credential, Secret};
use super::error::RegistryError;
use super::faults::printable;
use super::http::{Ask, Http, Reply};
use super::name::Target;
use super::progress::{Progress, PullEvent};
use super::retry;
use super::url::Url;
use crate::error::with_causes;
use crate::oci::digest::Digest;
use crate::oci::registry::config::RegistryConfig;

/// Bytes a token server may answer with.
const TOKEN_MAX: u64 = 1 << 20;

/// How this program is called at token servers.
const CLIENT_ID: &str = "carboy";

/// A repository, with what it takes to read it.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) http: Http<'a>,
    pub(super) target: Target,
    progress: &'a dyn Progress,
    base: Url,
    /// Looked up only when the registry asks for one.
    credential: OnceLock<Credential>,
    /// The header that opened the registry last, for this one repository and for reading alone.
    authorization: Mutex<Option<String>>,
    /// Whether the registry has answered: who never did is not waited for.
    reached: AtomicBool,
}

/// A manifest or index as it came.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Its `Content-Type`, without parameters; empty if there was none.
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
}

impl<'a> Client<'a> {
    /// Finds out how the registry is spoken to: by TLS, or, where that is allowed and it does not
    /// know TLS, in plain HTTP. A certificate that is not trusted is never a reason for the latter.
    ///
    /// # Errors
    /// What keeps an answer from coming.
    pub(super) fn connect(
        config: &'a RegistryConfig,
        target: Target,
        progress: &'a dyn Progress,
    ) -> Result<Self, RegistryError> {
        let no_host = || {
            let source = std::io::Error::other("it is no host's name");
            RegistryError::UnknownHost { host: target.host.clone(), source }
        };
        let url = |tls| Url::of_host(&target.host, tls).ok_or_else(no_host);
        let mut base = url(true)?;
        let http = Http::new(config, base.clone());
        if config.allows_http(&target.host) {
            let probe = base.join("/v2/").ok_or_else(no_host)?;
            match http.send(&probe, &Ask { what: "its version", ..Ask::default() }) {
                Err(RegistryError::NotTls { .. }) => base = url(false)?,
                // Any answer over TLS is one, whatever it says.
                Ok(_) | Err(RegistryError::Redirect { .. }) => {}
                Err(error)
                    if error.is_passing() && !matches!(error, RegistryError::Connect { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let (credential, authorization) = (OnceLock::new(), Mutex::default());
        let reached = AtomicBool::new(false);
        Ok(Self { http, target, progress, base, credential, authorization, reached })
    }

    /// A manifest or index by tag or digest.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::TooLarge`] above `max` bytes.
    pub(super) fn manifest(
        &self,
        reference: &str,
        accept: &str,
        max: u64,
    ) -> Result<Fetched, RegistryError> {
        let what = format!("manifest {reference}");
        let path = format!("/v2/{}/manifests/{reference}", self.target.repository);
        let ask = Ask { what: &what, accept: Some(accept), ..Ask::default() };
        self.patiently(|| {
            let reply = self.get(&path, &ask)?;
            let media_type = reply.header(header::CONTENT_TYPE).unwrap_or_default();
            let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
            let Some(bytes) = self.http.read(reply, &what, max)? else {
                return Err(RegistryError::TooLarge {
                    name: self.name(reference),
                    what: "its manifest",
                    max,
                });
            };
            let digest = Digest::of(&bytes);
            Ok(Fetched { media_type, bytes, digest })
        })
    }

    /// A blob from byte `from` on. The reply's status tells whether the registry can do that: 206,
    /// or 200 and all of it.
    ///
    /// # Errors
    /// [`RegistryError`]; not tried again.
    pub(super) fn blob(
        &self,
        digest: &Digest,
        what: &str,
        from: u64,
    ) -> Result<Reply, RegistryError> {
        let path = format!("/v2/{}/blobs/{digest}", self.target.repository);
        self.get(&path, &Ask { what, from, ..Ask::default() })
    }

    /// What to call something of this repository.
    pub(super) fn name(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{reference}", self.target.domain, self.target.repository)
    }

    /// Tries again what may go well a moment later, a few times.
    pub(super) fn patiently<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let mut failed = 0;
        loop {
            match attempt() {
                Err(error) => {
                    failed += 1;
                    self.wait_after(error, failed)?;
                }
                done => return done,
            }
        }
    }

    /// Waits after failure number `failed` in a row.
    ///
    /// # Errors
    /// The failure itself, if it would not help.
    pub(super) fn wait_after(
        &self,
        error: RegistryError,
        failed: u32,
    ) -> Result<(), RegistryError> {
        let absent =
            matches!(error, RegistryError::Connect { .. }) && !self.reached.load(Ordering::Relaxed);
        if failed >= retry::ATTEMPTS || !error.is_passing() || absent {
            return Err(error);
        }
        let asked = match &error {
            RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        };
        let after = retry::wait(self.http.config.back_off, failed, asked);
        // No time is left for another attempt: this error says more than the end of it.
        if self.http.left().is_ok_and(|left| left <= after) {
            return Err(error);
        }
        self.progress.tell(&PullEvent::Again { reason: &with_causes(&error), after });
        std::thread::sleep(after);
        Ok(())
    }

    /// Asks, and answers the registry's question who asks.
    fn get(&self, path: &str, ask: &Ask<'_>) -> Result<Reply, RegistryError> {
        let what = ask.what;
        let url = self
            .base
            .join(path)
            .ok_or_else(|| RegistryError::NoRepository { name: self.target.repository.clone() })?;
        let used = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut reply =
            self.http.send(&url, &Ask { authorization: used.as_deref(), ..ask.clone() })?;
        self.reached.store(true, Ordering::Relaxed);
        // What another host says about credentials is not asked for.
        if reply.status == 401 && !reply.elsewhere {
            let fresh = self.authorize(&reply, used)?;
            reply = self.http.send(&url, &Ask { authorization: Some(&fresh), ..ask.clone() })?;
        }
        match (reply.status, reply.elsewhere) {
            (200 | 206, _) => Ok(reply),
            (401 | 403, false) => {
                let message = message(self.http.refused(reply, what));
                Err(self.denied(message))
            }
            (404, false) => {
                let host = self.target.host.clone();
                let message = message(self.http.refused(reply, what));
                let name = format!("{what} in {}", self.target.repository);
                Err(RegistryError::NotFound { host, name, message })
            }
            _ => Err(self.http.refused(reply, what)),
        }
    }

    /// Answers a challenge: with the password, or with a token bought for it.
    fn authorize(&self, reply: &Reply, used: Option<String>) -> Result<String, RegistryError> {
        // Held while the token is fetched, so that several threads fetch one.
        let mut current = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = current.as_ref().filter(|fresh| Some(*fresh) != used.as_ref()) {
            return Ok(fresh.clone());
        }
        let headers = reply.headers.get_all(header::WWW_AUTHENTICATE).iter();
        let headers: Vec<_> =
            headers.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let host = self.target.host.clone();
        let fresh = match challenge::choose(headers.iter().map(|header| &**header)) {
            Some(Challenge::Basic) => match self.credential()?.secret.basic() {
                // A password that was refused once is refused for good.
                Some(basic) if used.as_ref() != Some(&basic) => basic,
                _ => return Err(self.denied(None)),
            },
            Some(Challenge::Bearer { realm, service }) => self.token(&realm, service.as_deref())?,
            None => {
                let header = printable(&headers.join(", ")).unwrap_or_default();
                return Err(RegistryError::Challenge { host, header });
            }
        };
        *current = Some(fresh.clone());
        Ok(fresh)
    }

    fn credential(&self) -> Result<&Credential, RegistryError> {
        if self.credential.get().is_none() {
            let path = self.http.config.docker_config.as_deref();
            let found = credentials::find(path, &self.target.domain)?;
            // Another thread found the same.
            self.credential.set(found).unwrap_or_default();
        }
        Ok(self.credential.get_or_init(Credential::default))
    }

    fn denied(&self, message: Option<String>) -> RegistryError {
        let tried = self.credential.get().map(|found| found.tried.clone()).unwrap_or_default();
        let (host, repository) = (self.target.host.clone(), self.target.repository.clone());
        RegistryError::Denied { host, repository, tried, message }
    }

    /// Fetches a token for this repository, for reading.
    fn token(&self, realm: &str, service: Option<&str>) -> Result<String, RegistryError> {
        let no_token = |reason: String| RegistryError::Token {
            host: self.target.host.clone(),
            realm: printable(realm.split('?').next().unwrap_or_default()).unwrap_or_default(),
            reason,
        };
        let url = Url::parse(realm).ok_or_else(|| no_token("it is no URL".to_owned()))?;
        // The registry says where the password goes: at least nobody reads it on the way.
        let plain = !self.base.tls && self.http.config.allows_http(url.authority());
        if !url.tls && !plain {
            return Err(no_token("it does not use TLS".to_owned()));
        }
        let what = "a token";
        let scope = self.target.scope();
        let mut pairs = vec![("scope", &*scope)];
        pairs.extend(service.map(|service| ("service", service)));
        let reply = match &self.credential()?.secret {
            Secret::Identity(token) => {
                pairs.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID)]);
                pairs.push(("refresh_token", token));
                self.http.send(&url, &Ask { what, form: &pairs, ..Ask::default() })?
            }
            secret => {
                let url =
                    url.with_query(&pairs).ok_or_else(|| no_token("it is no URL".to_owned()))?;
                let authorization = secret.basic();
                let authorization = authorization.as_deref();
                self.http.send(&url, &Ask { what, authorization, ..Ask::default() })?
            }
        };
        match reply.status {
            200 => {}
            400 | 401 | 403 => {
                let message = message(self.http.refused(reply, what));
                return Err(self.denied(message));
            }
            _ => return Err(self.http.refused(reply, what)),
        }
        let text = self.http.read(reply, what, TOKEN_MAX)?;
        let text = text.ok_or_else(|| no_token("its answer is too long".to_owned()))?;
        match token_of(&text) {
            Some(token) => Ok(format!("Bearer {token}")),
            None => Err(no_token("its answer has none".to_owned())),
        }
    }
}

fn message(error: RegistryError) -> Option<String> {
    match error {
        RegistryError::Status { message, .. } => message,
        _ => None,
    }
}

/// The token in a token server's answer, under either of its two names.
fn token_of(text: &[u8]) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(text).ok()?;
    let token = [answer.token, answer.access_token].into_iter().flatten().find(|t| !t.is_empty());
    // It goes into a header.
    token.filter(|token| token.bytes().all(|b| b.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_names() {
        for (text, want) in [
            (r#"{"token":"a","expires_in":60}"#, Some("a")),
            (r#"{"access_token":"b"}"#, Some("b")),
            (r#"{"token":null,"access_token":"b"}"#, Some("b")),
            (r#"{"token":"a\r\nX: y"}"#, None),
            (r#"{}"#, None),
            ("a", None),
        ] {
            assert_eq!(token_of(text.as_bytes()).as_deref(), want, "{text}");
        }
    }
}
