//! How registries are reached. The library reads no environment: whoever calls it says all.

use std::path::PathBuf;
use std::time::Duration;

use super::name;

/// How registries are reached, and with which credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Docker's `config.json`: credentials, and the helpers that have them. An absent file has
    /// none.
    pub docker_config: Option<PathBuf>,
    /// Directories with one for each registry, `<host>[:<port>]`, whose `*.crt` are authorities to
    /// trust for it, and whose `NAME.cert` with `NAME.key` is shown to it if it asks.
    pub certs_d: Vec<PathBuf>,
    /// A directory whose `*.crt` are authorities to trust for every host, and whose `NAME.cert`
    /// with `NAME.key` is shown to the registry, and to no other host, if it asks.
    pub cert_dir: Option<PathBuf>,
    /// Registries, `host` or `host:port`, that may be spoken to without TLS. This machine's own
    /// may always.
    pub insecure: Vec<String>,
    /// The proxy for HTTPS, `http://[user:password@]host:port`.
    pub proxy: Option<String>,
    /// Hosts that are reached without the proxy: names, with all that ends in `.` and the name;
    /// `*` is all.
    pub no_proxy: Vec<String>,
    /// A connection must be made in this time.
    pub connect: Duration,
    /// Nothing may be silent for longer.
    pub stall: Duration,
    /// A whole pull may take this long.
    pub deadline: Duration,
    /// The first wait before something is tried again; it doubles each time.
    pub back_off: Duration,
}

impl Default for RegistryConfig {
    /// No credentials, and the authorities that Docker would trust.
    fn default() -> Self {
        Self {
            docker_config: None,
            certs_d: ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from).to_vec(),
            cert_dir: None,
            insecure: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            deadline: Duration::from_secs(3600),
            back_off: Duration::from_millis(500),
        }
    }
}

impl RegistryConfig {
    /// Whether `host`, with or without a port, may be spoken to in plain HTTP.
    pub(super) fn allows_http(&self, host: &str) -> bool {
        let listed = |entry: &String| {
            entry.eq_ignore_ascii_case(host) || entry.eq_ignore_ascii_case(name::bare(host))
        };
        name::is_loopback(host) || self.insecure.iter().any(listed)
    }

    /// The proxy through which `host` is reached.
    pub(super) fn proxy_for(&self, host: &str) -> Option<&str> {
        let bare = name::bare(host).to_ascii_lowercase();
        let direct =
            self.no_proxy.iter().map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
                let entry = entry.trim_start_matches("*.").trim_start_matches('.');
                entry == "*"
                    || entry == host
                    || (!entry.is_empty()
                        && (bare == entry || bare.ends_with(&format!(".{entry}"))))
            });
        let proxy = self.proxy.as_deref().filter(|proxy| !proxy.is_empty());
        proxy.filter(|_| !direct && !name::is_loopback(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_for_those_named() {
        let insecure = vec!["plain.example".to_owned(), "port.example:5000".to_owned()];
        let config = RegistryConfig { insecure, ..RegistryConfig::default() };
        for (host, want) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("plain.example", true),
            ("Plain.Example:5000", true),
            ("port.example:5000", true),
            ("port.example", false),
            ("port.example:5001", false),
            ("sub.plain.example", false),
            ("docker.io", false),
        ] {
            assert_eq!(config.allows_http(host), want, "{host}");
        }
    }

    #[test]
    fn some_hosts_are_reached_without_the_proxy() {
        let no_proxy = ["internal.example", ".corp", "10.0.0.1"].map(str::to_owned).to_vec();
        let proxy = Some("http://proxy:3128".to_owned());
        let config = RegistryConfig { proxy, no_proxy, ..RegistryConfig::default() };
        for (host, want) in [
            ("ghcr.io", true),
            ("internal.example:5000", false),
            ("a.internal.example", false),
            ("xinternal.example", true),
            ("a.corp", false),
            ("10.0.0.1:5000", false),
            ("localhost:5000", false),
        ] {
            assert_eq!(config.proxy_for(host).is_some(), want, "{host}");
        }
        let all = RegistryConfig { no_proxy: vec!["*".to_owned()], ..config };
        assert_eq!(all.proxy_for("ghcr.io"), None);
    }
}
