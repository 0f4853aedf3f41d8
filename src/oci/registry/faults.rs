//! What a failure on the way to a registry means, and what of a registry's words is shown.

use std::io;

use rustls::AlertDescription;
use serde::Deserialize;
use ureq::Timeout;

use super::config::RegistryConfig;
use super::error::RegistryError;
use super::http::Trust;
use super::resolver::LookupError;

/// Characters of a stranger's message that are shown.
const MESSAGE_SHOWN: usize = 200;

/// What it means that no answer came, or not all of it. `what` is what was asked for.
pub(super) fn of(
    config: &RegistryConfig,
    host: &str,
    trust: &Trust,
    what: &str,
    error: ureq::Error,
) -> RegistryError {
    let host = host.to_owned();
    let connect =
        |kind: io::ErrorKind| RegistryError::Connect { host: host.clone(), source: kind.into() };
    match error {
        ureq::Error::HostNotFound => {
            let source = io::Error::other("it has no address");
            RegistryError::UnknownHost { host, source }
        }
        ureq::Error::Other(error) if error.is::<LookupError>() => {
            RegistryError::UnknownHost { host, source: io::Error::other(error) }
        }
        ureq::Error::ConnectionFailed => connect(io::ErrorKind::NotConnected),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            connect(io::ErrorKind::TimedOut)
        }
        ureq::Error::Timeout(Timeout::Global) => RegistryError::Deadline { after: config.deadline },
        ureq::Error::Timeout(_) => {
            RegistryError::Stalled { host, what: what.to_owned(), after: config.stall }
        }
        ureq::Error::Rustls(source) => tls(host, trust, source),
        ureq::Error::Io(error) => match tls_error(&error) {
            Some(source) => tls(host, trust, source),
            None => io_fault(host, what, error),
        },
        error => {
            let source = Box::new(error);
            RegistryError::Transfer { host, what: what.to_owned(), source }
        }
    }
}

fn tls(host: String, trust: &Trust, source: rustls::Error) -> RegistryError {
    match source {
        rustls::Error::InvalidMessage(_) => RegistryError::NotTls { host },
        rustls::Error::AlertReceived(alert) if is_about_the_client(alert) => {
            let shown = trust.client_cert.clone();
            RegistryError::ClientCert { host, shown, source }
        }
        source => RegistryError::Tls { host, roots: trust.roots.clone(), source },
    }
}

/// Whether a server says so of a client's certificate (RFC 8446, section 6.2). One without a
/// certificate gets `certificate_required`, or in TLS 1.2 `bad_certificate` or
/// `handshake_failure`; the last can mean anything.
fn is_about_the_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

fn tls_error(error: &io::Error) -> Option<rustls::Error> {
    error.get_ref()?.downcast_ref::<rustls::Error>().cloned()
}

fn io_fault(host: String, what: &str, error: io::Error) -> RegistryError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::AddrNotAvailable
        | Kind::PermissionDenied => RegistryError::Connect { host, source: error },
        _ => {
            let source = Box::new(ureq::Error::Io(error));
            RegistryError::Transfer { host, what: what.to_owned(), source }
        }
    }
}

/// The first message of a registry's error (distribution specification, "Error Codes"), or of a
/// token server's.
pub(super) fn message_of(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Errors {
        errors: Vec<Entry>,
        details: String,
        error_description: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Entry {
        code: String,
        message: String,
    }
    let errors: Errors = serde_json::from_slice(text).ok()?;
    let first = errors.errors.into_iter().next();
    let words =
        first.map(|Entry { code, message }| if message.is_empty() { code } else { message });
    printable(&words.unwrap_or(errors.details + &errors.error_description))
}

/// A stranger's words without control characters, shortened; `None` if nothing is left.
pub(super) fn printable(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MESSAGE_SHOWN).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A URL without its query, which often is a credential.
pub(super) fn shortened(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    printable(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_words_are_shown_tame() {
        for (text, want) in [
            (
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no \u001b[31msuch\nrepo"}]}"#,
                Some("no [31msuchrepo"),
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, Some("DENIED")),
            (
                r#"{"details":"incorrect username or password"}"#,
                Some("incorrect username or password"),
            ),
            (r#"{"errors":[]}"#, None),
            ("<html>", None),
        ] {
            assert_eq!(message_of(text.as_bytes()).as_deref(), want, "{text}");
        }
        assert_eq!(printable(&"x".repeat(1000)).map(|text| text.len()), Some(MESSAGE_SHOWN));
        assert_eq!(shortened("https://a/b?sig=secret"), "https://a/b");
    }
}
