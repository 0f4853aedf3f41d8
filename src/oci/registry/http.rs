//! One request: who is trusted, where redirections may lead, what a failure means.
//!
//! Redirections are followed here, not by the HTTP library, so that a credential goes to the very
//! origin it is for and to no other, and TLS is never left. A client certificate is shown by a host
//! to whom it belongs: `certs.d` names that host, `--cert-dir` means the registry.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, ring};
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};

use super::client_cert::{self, ClientCert};
use super::config::RegistryConfig;
use super::error::RegistryError;
use super::faults::{self, shortened};
use super::name::is_loopback;
use super::resolver::HostResolver;
use super::retry;
use super::roots::Roots;
use super::url::{Url, encode};

/// Registries redirect once or twice to where the blobs are.
const REDIRECTS: usize = 5;

/// Bytes of a registry's own error that are read.
const MESSAGE_MAX: u64 = 64 << 10;

const USER_AGENT: &str = concat!("carboy/", env!("CARGO_PKG_VERSION"));

/// Makes requests; remembers connections and certificates.
#[derive(Debug)]
pub(super) struct Http<'a> {
    pub(super) config: &'a RegistryConfig,
    registry: Url,
    cryptography: Arc<CryptoProvider>,
    /// By scheme and authority: each host may have authorities of its own.
    sites: Mutex<HashMap<(bool, String), Site>>,
    end: Instant,
}

#[derive(Clone, Debug)]
struct Site {
    agent: Agent,
    trust: Trust,
}

/// What was tried to come to terms over TLS, for errors.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// Which authorities were trusted.
    pub(super) roots: String,
    /// The client certificate that may be shown.
    pub(super) client_cert: Option<PathBuf>,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask<'a> {
    /// What to call it in errors: `layer sha256:…`.
    pub(super) what: &'a str,
    pub(super) accept: Option<&'a str>,
    /// The first byte wanted, if it is not the very first.
    pub(super) from: u64,
    /// The credential; only the origin that is asked gets it.
    pub(super) authorization: Option<&'a str>,
    /// A form to post. Its answer is never redirected.
    pub(super) form: &'a [(&'a str, &'a str)],
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Who answered in the end, and whether that is another origin than was asked.
    pub(super) host: String,
    pub(super) elsewhere: bool,
    body: Body,
}

impl<'a> Http<'a> {
    /// Makes nothing yet. The time for the whole begins to run. `registry` is the host that all is
    /// for.
    pub(super) fn new(config: &'a RegistryConfig, registry: Url) -> Self {
        // A deadline that is too far away is none.
        let now = Instant::now();
        let end = now.checked_add(config.deadline).unwrap_or(now + Duration::from_secs(1 << 30));
        let cryptography = Arc::new(ring::default_provider());
        Self { config, registry, cryptography, sites: Mutex::default(), end }
    }

    /// The time that is left.
    ///
    /// # Errors
    /// [`RegistryError::Deadline`] if there is none.
    pub(super) fn left(&self) -> Result<Duration, RegistryError> {
        let left = self.end.saturating_duration_since(Instant::now());
        let after = self.config.deadline;
        if left.is_zero() { Err(RegistryError::Deadline { after }) } else { Ok(left) }
    }

    /// Asks once, and follows redirections.
    ///
    /// # Errors
    /// What keeps an answer from coming; any status is an answer.
    pub(super) fn send(&self, url: &Url, ask: &Ask<'_>) -> Result<Reply, RegistryError> {
        let mut at = url.clone();
        for _ in 0..=REDIRECTS {
            let elsewhere = at.origin() != url.origin();
            let authorization = ask.authorization.filter(|_| !elsewhere);
            let response = self.once(&at, &Ask { authorization, ..ask.clone() })?;
            let location = response.headers().get(header::LOCATION);
            let location = location.map(|value| String::from_utf8_lossy(value.as_bytes()));
            match (response.status().as_u16(), location) {
                (301 | 302 | 303 | 307 | 308, Some(to)) if ask.form.is_empty() => {
                    at = self.redirected(url, &at, &to)?;
                }
                (status, _) => {
                    let (parts, body) = response.into_parts();
                    let host = at.authority().to_owned();
                    return Ok(Reply { status, headers: parts.headers, host, elsewhere, body });
                }
            }
        }
        let (host, to) = (url.authority().to_owned(), shortened(&at.to_string()));
        Err(RegistryError::Redirect { host, to, reason: "there were too many before it" })
    }

    /// Where a redirection leads: never from TLS to plain HTTP, never to plain HTTP on a host that
    /// may not be asked so, and so not from the network to this machine's own services.
    fn redirected(&self, first: &Url, at: &Url, to: &str) -> Result<Url, RegistryError> {
        let refuse = |reason| {
            Err(RegistryError::Redirect {
                host: at.authority().to_owned(),
                to: shortened(to),
                reason,
            })
        };
        let Some(next) = at.join(to) else {
            return refuse("it is no http or https URL, or has a user in it");
        };
        if (at.tls || first.tls) && !next.tls {
            return refuse("it leaves TLS");
        }
        if !next.tls && !self.config.allows_http(next.authority()) {
            return refuse("plain HTTP is not allowed for that host");
        }
        if !next.tls && is_loopback(next.authority()) && !is_loopback(at.authority()) {
            return refuse("it leads from the network to this machine");
        }
        Ok(next)
    }

    fn once(&self, url: &Url, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        let left = self.left()?;
        let site = self.site(url)?;
        let mut headers: Vec<(&str, String)> = Vec::new();
        headers.extend(ask.accept.map(|accept| ("Accept", accept.to_owned())));
        headers.extend(ask.authorization.map(|value| ("Authorization", value.to_owned())));
        if ask.from > 0 {
            headers.push(("Range", format!("bytes={}-", ask.from)));
        }
        let agent = &site.agent;
        let answer = if ask.form.is_empty() {
            let mut request = agent.get(url.uri());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            request.config().timeout_global(Some(left)).build().call()
        } else {
            let mut request = agent.post(url.uri());
            headers.push(("Content-Type", "application/x-www-form-urlencoded".to_owned()));
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let pair = |(name, value): &(&str, &str)| format!("{name}={}", encode(value));
            let form = ask.form.iter().map(pair).collect::<Vec<_>>().join("&");
            request.config().timeout_global(Some(left)).build().send(form)
        };
        answer.map_err(|error| self.fault(url.authority(), &site.trust, ask.what, error))
    }

    /// The agent for a host.
    fn site(&self, url: &Url) -> Result<Site, RegistryError> {
        let key = (url.tls, url.authority().to_owned());
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = sites.get(&key) {
            return Ok(site.clone());
        }
        let site = self.make_site(url)?;
        sites.insert(key, site.clone());
        Ok(site)
    }

    fn make_site(&self, url: &Url) -> Result<Site, RegistryError> {
        let config = self.config;
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .timeout_resolve(Some(config.connect))
            .timeout_connect(Some(config.connect))
            .timeout_per_read(Some(config.stall))
            .timeout_per_write(Some(config.stall))
            .input_buffer_size(128 << 10)
            // Without this the library would read the environment.
            .proxy(None);
        let mut trust = Trust::default();
        if url.tls {
            let mut roots = Roots::system()?;
            let own = config.certs_d.iter().map(|directory| directory.join(url.authority()));
            for directory in own.chain(config.cert_dir.clone()) {
                roots.add(&directory)?;
            }
            let client_cert = self.client_cert(url)?;
            if let Some(proxy) = config.proxy_for(url.authority()) {
                builder = builder.proxy(Some(proxy_of(proxy, client_cert.is_some())?));
            }
            trust.roots = roots.describe();
            trust.client_cert = client_cert.as_ref().map(|found| found.file.clone());
            let tls = TlsConfig::builder()
                .root_certs(roots.trusted())
                .client_cert(client_cert.map(|found| found.pair))
                // What the client certificate was checked with.
                .unversioned_rustls_crypto_provider(Arc::clone(&self.cryptography));
            builder = builder.tls_config(tls.build());
        }
        let connector = DefaultConnector::default();
        let agent = Agent::with_parts(builder.build(), connector, HostResolver);
        Ok(Site { agent, trust })
    }

    /// The certificate to show to this host, if it asks for one.
    fn client_cert(&self, url: &Url) -> Result<Option<ClientCert>, RegistryError> {
        let config = self.config;
        // A token server, or whoever has the blobs, is somebody else.
        let given = config.cert_dir.clone().filter(|_| url.origin() == self.registry.origin());
        let own = config.certs_d.iter().map(|directory| directory.join(url.authority()));
        for directory in given.into_iter().chain(own) {
            if let Some(found) = client_cert::find(&directory, &self.cryptography)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn fault(&self, host: &str, trust: &Trust, what: &str, error: ureq::Error) -> RegistryError {
        faults::of(self.config, host, trust, what, error)
    }

    /// Reads a whole answer that must be small.
    ///
    /// # Errors
    /// `None` if it is larger than `max`; what broke off.
    pub(super) fn read(
        &self,
        reply: Reply,
        what: &str,
        max: u64,
    ) -> Result<Option<Vec<u8>>, RegistryError> {
        let mut bytes = Vec::new();
        let host = reply.host.clone();
        reply
            .reader()
            .take(max + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.broken(&host, what, error))?;
        Ok((bytes.len() as u64 <= max).then_some(bytes))
    }

    /// What an error in the middle of an answer means.
    pub(super) fn broken(&self, host: &str, what: &str, error: io::Error) -> RegistryError {
        self.fault(host, &Trust::default(), what, ureq::Error::from(error))
    }

    /// The error that a reply is which has not the content that was asked for.
    pub(super) fn refused(&self, reply: Reply, what: &str) -> RegistryError {
        let (status, host) = (reply.status, reply.host.clone());
        let header = reply.headers.get(header::RETRY_AFTER);
        let retry_after = header.and_then(|value| value.to_str().ok()).and_then(retry::after);
        // The status says enough where the message cannot be read.
        let message = self.read(reply, what, MESSAGE_MAX).ok().flatten();
        let message = message.and_then(|text| faults::message_of(&text));
        RegistryError::Status { host, status, what: what.to_owned(), message, retry_after }
    }
}

/// The proxy at `text`. One that speaks TLS itself would be shown the client certificate, too.
fn proxy_of(text: &str, client_cert: bool) -> Result<Proxy, RegistryError> {
    let plain = || !text.to_ascii_lowercase().starts_with("https:");
    let proxy = Proxy::new(text).ok().filter(|_| !client_cert || plain());
    // It may have a password in it.
    let shown = || text.rsplit('@').next().unwrap_or_default().to_owned();
    proxy.ok_or_else(|| RegistryError::Proxy { proxy: shown() })
}

impl Reply {
    /// Its body as it comes.
    pub(super) fn reader(self) -> impl Read {
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    /// A header as text.
    pub(super) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_do_not_leave_tls_nor_reach_this_machine() {
        let config = RegistryConfig { insecure: vec!["plain".to_owned()], ..Default::default() };
        let http = Http::new(&config, Url::parse("https://a/").unwrap());
        for (at, to, want) in [
            ("https://a/", "https://b/", true),
            ("https://a/", "http://a/", false),
            ("https://a/", "http://127.0.0.1/", false),
            ("https://a/", "http://plain/", false),
            ("http://plain/", "https://b/", true),
            ("http://plain/", "http://other/", false),
            ("http://plain/", "http://127.0.0.1/", false),
            ("http://localhost:5000/", "http://127.0.0.1:5001/", true),
            ("https://a/", "https://u:p@b/", false),
            ("https://a/", "file:///etc/shadow", false),
        ] {
            let at = Url::parse(at).unwrap();
            assert_eq!(http.redirected(&at, &at, to).is_ok(), want, "{at} {to}");
        }
        let (first, at) = ("https://a/", "http://plain/");
        let (first, at) = (Url::parse(first).unwrap(), Url::parse(at).unwrap());
        assert!(http.redirected(&first, &at, "http://plain/x").is_err());
    }
}
