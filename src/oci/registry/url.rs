//! Addresses of registries, and where a redirection leads. Pure. Source: RFC 3986, section 5.

use std::fmt;

use ureq::http::Uri;

/// An `http` or `https` URL without a user in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    uri: Uri,
    /// The host, with its port if one was given.
    authority: String,
    pub(super) tls: bool,
}

impl Url {
    /// Reads an absolute URL; `None` if it is none, or has a user or another scheme.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // What follows a "#" is no business of the server.
        let text = text.split('#').next().unwrap_or_default();
        let uri: Uri = text.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str().to_ascii_lowercase();
        if authority.contains('@') || uri.host()?.is_empty() {
            return None;
        }
        Some(Self { uri, authority, tls })
    }

    /// The root of a host, with or without a port.
    pub(super) fn of_host(host: &str, tls: bool) -> Option<Self> {
        Self::parse(&format!("{}://{host}/", if tls { "https" } else { "http" }))
    }

    /// Where `reference`, as a `Location` or a link gives it, leads from here.
    pub(super) fn join(&self, reference: &str) -> Option<Self> {
        let scheme = if self.tls { "https" } else { "http" };
        if reference.contains("://") && !reference.starts_with(['/', '?', '.']) {
            return Self::parse(reference);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let base = format!("{scheme}://{}", self.authority);
        if reference.starts_with('/') {
            return Self::parse(&format!("{base}{reference}"));
        }
        let path = self.uri.path();
        if reference.starts_with('?') || reference.is_empty() {
            return Self::parse(&format!("{base}{path}{reference}"));
        }
        let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
        Self::parse(&format!("{base}{directory}{reference}"))
    }

    /// The same with more in its query.
    pub(super) fn with_query(&self, pairs: &[(&str, &str)]) -> Option<Self> {
        let mut text = self.to_string();
        for (name, value) in pairs {
            let before = if text.contains('?') { '&' } else { '?' };
            text.push(before);
            text.push_str(&format!("{name}={}", encode(value)));
        }
        Self::parse(&text)
    }

    /// The host, with its port if one was given.
    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// Who is spoken to: a credential is for one of these and no other.
    pub(super) fn origin(&self) -> (bool, &str, u16) {
        let standard = if self.tls { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(standard);
        (self.tls, super::name::bare(&self.authority), port)
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

/// Percent-encodes a value of a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_where_they_say() {
        let base = Url::parse("https://Reg.example:5000/v2/a/blobs/x?y=z").unwrap();
        for (reference, want) in [
            ("https://cdn.example/b?sig=a%2Fb", Some("https://cdn.example/b?sig=a%2Fb")),
            ("//cdn.example/b", Some("https://cdn.example/b")),
            ("/b?u=http://x", Some("https://reg.example:5000/b?u=http://x")),
            ("b", Some("https://reg.example:5000/v2/a/blobs/b")),
            ("?q", Some("https://reg.example:5000/v2/a/blobs/x?q")),
            ("http://x/#f", Some("http://x/")),
            ("https://user:pass@x/", None),
            ("ftp://x/", None),
            ("file:///etc/passwd", None),
            ("https://", None),
            ("http://x/a b", None),
        ] {
            let found = base.join(reference).map(|url| url.to_string());
            assert_eq!(found.as_deref(), want, "{reference}");
        }
    }

    #[test]
    fn origins_tell_hosts_schemes_and_ports_apart() {
        let origin = |text: &str| {
            let url = Url::parse(text).unwrap();
            let (tls, host, port) = url.origin();
            (tls, host.to_owned(), port)
        };
        assert_eq!(origin("https://a.b/x"), origin("https://A.B:443/y"));
        for other in ["http://a.b/", "https://a.b:444/", "https://a.c/", "https://a.b.c/"] {
            assert_ne!(origin("https://a.b/x"), origin(other), "{other}");
        }
        assert_eq!(origin("http://[::1]:5000/"), (false, "::1".to_owned(), 5000));
    }

    #[test]
    fn queries_are_encoded() {
        let url = Url::parse("https://a/token?x=1").unwrap();
        let pairs = [("service", "a b&c"), ("scope", "repository:l/b:pull")];
        let found = url.with_query(&pairs).unwrap().to_string();
        assert_eq!(found, "https://a/token?x=1&service=a%20b%26c&scope=repository:l/b:pull");
    }
}
