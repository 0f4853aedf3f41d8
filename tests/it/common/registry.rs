//! A registry inside a test host: Debian's docker-registry with TLS and a password, or with tokens
//! and client certificates, filled by skopeo, with an access log that tells what carboy asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::host::clean;
use super::output::Output;
use super::spawned::Spawned;
use super::tokens::{self, ISSUER, SERVICE, TokenServer};
use super::{TestHost, poll};

/// Where it listens, in image names.
pub(crate) const HOST: &str = "localhost:5000";

/// `me` with the password `secret`, as bcrypt.
const HTPASSWD: &str = "me:$2y$05$jx2HLPBKg0Yauw9t1NHNdOAMv2wVdgdqvkvGtW0waHDZ6xRhviT2e\n";

/// A new key, in words of `openssl req`.
pub(crate) const KEY: [&str; 5] =
    ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// How the registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TLS by an authority of the test's own, and a password.
    Tls,
    /// TLS, and tokens of the server beside it.
    Token,
    /// The same; who connects must have a client certificate.
    ClientCert,
    /// Plain HTTP, for everybody.
    Plain,
}

/// The registry; ends when it is dropped, which must be before its host.
#[derive(Debug)]
pub(crate) struct Registry {
    protocol: Protocol,
    directory: PathBuf,
    tokens: Option<TokenServer>,
    _process: Spawned,
}

/// A request of carboy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
}

impl Registry {
    /// Starts an empty one on port 5000 of all the host's addresses.
    pub(crate) fn new(host: &TestHost, protocol: Protocol) -> Self {
        let directory = host.dir().join("registry");
        let at = directory.display();
        fs::create_dir_all(directory.join("ca")).unwrap();
        let mut secure = String::new();
        if protocol != Protocol::Plain {
            certificates(&directory);
            secure =
                format!("  tls:\n    certificate: {at}/server.crt\n    key: {at}/server.key\n");
        }
        if protocol == Protocol::ClientCert {
            client_cert(&directory);
            secure += &format!("    clientcas: [{at}/ca/ca.crt]\n");
        }
        let mut tokens = None;
        match protocol {
            Protocol::Plain => {}
            Protocol::Tls => {
                fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
                secure +=
                    &format!("auth:\n  htpasswd:\n    realm: test\n    path: {at}/htpasswd\n");
            }
            Protocol::Token | Protocol::ClientCert => {
                tokens = Some(TokenServer::new(host, &directory));
                secure += &format!(
                    "auth:\n  token:\n    realm: https://{}/token\n    service: {SERVICE}\n    \
                     issuer: {ISSUER}\n    rootcertbundle: {at}/tokens.crt\n",
                    tokens::HOST
                );
            }
        }
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {at}/store\n\
             http:\n  addr: :5000\n{secure}"
        );
        fs::write(directory.join("config.yml"), config).unwrap();
        let script = format!("exec docker-registry serve {at}/config.yml >{at}/log 2>&1");
        let process = host.spawn(["sh", "-c", &script]);
        let up = || host.tcp(([127, 0, 0, 1], 5000)).is_ok();
        if !poll(Duration::from_secs(20), up) {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            panic!("docker-registry does not start (Debian package docker-registry): {log}");
        }
        Self { protocol, directory, tokens, _process: process }
    }

    /// A directory with the authority's certificate and nothing else.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.join("ca")
    }

    /// A directory with the authority's certificate, and a client certificate if one is asked for.
    pub(crate) fn certs(&self) -> PathBuf {
        let name = if self.protocol == Protocol::ClientCert { "client" } else { "ca" };
        self.directory.join(name)
    }

    /// The token server beside it.
    pub(crate) fn tokens(&self) -> &TokenServer {
        self.tokens.as_ref().unwrap()
    }

    /// Copies an image or index, in skopeo's words, to `name` of this registry.
    #[track_caller]
    pub(crate) fn push(&self, host: &TestHost, from: &str, name: &str) {
        let to = format!("docker://{HOST}/{name}");
        let certs = self.certs().display().to_string();
        let mut words = vec!["skopeo", "copy", "--quiet", "--all"];
        let user = match self.protocol {
            Protocol::Tls => "me:secret",
            _ => tokens::PUSHER,
        };
        match self.protocol {
            Protocol::Plain => words.push("--dest-tls-verify=false"),
            _ => words.extend(["--dest-cert-dir", &certs, "--dest-creds", user]),
        }
        words.extend([from, &to]);
        host.run(words).ok();
    }

    /// Puts the password where carboy looks for it: `HOME` of the host's commands.
    pub(crate) fn log_in(&self, host: &TestHost, password: &str) {
        let auth = data_encoding::BASE64.encode(format!("me:{password}").as_bytes());
        self.log_in_by(host, &format!(r#""auth":"{auth}""#));
    }

    /// The same with an entry of one's own.
    pub(crate) fn log_in_by(&self, host: &TestHost, entry: &str) {
        let docker = host.dir().join(".docker");
        fs::create_dir_all(&docker).unwrap();
        let text = format!(r#"{{"auths":{{"{HOST}":{{{entry}}}}}}}"#);
        fs::write(docker.join("config.json"), text).unwrap();
    }

    /// What carboy asked for so far, in order, but for the questions the registry answered with a
    /// challenge.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let log = fs::read_to_string(self.directory.join("log")).unwrap();
        let mut asked: Vec<Asked> = log.lines().filter_map(request).collect();
        asked.retain(|request| request.status != 401 && request.path != "/v2/");
        asked
    }

    /// The same, blobs alone.
    pub(crate) fn blobs(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|request| request.path.contains("/blobs/")).collect()
    }
}

/// A line of the access log, if it is carboy's: `… "GET PATH HTTP/1.1" STATUS BYTES "" "AGENT"`.
fn request(line: &str) -> Option<Asked> {
    let (_, rest) = line.split_once("\"GET ")?;
    if !rest.contains("\"carboy/") {
        return None;
    }
    let mut words = rest.split(' ');
    let path = words.next()?.to_owned();
    let status = words.nth(1)?.parse().ok()?;
    let bytes = words.next()?.parse().ok()?;
    Some(Asked { path, status, bytes })
}

/// An authority, and a certificate of it for `localhost` and `registry.test`.
fn certificates(directory: &Path) {
    let names = "subjectAltName=DNS:localhost,DNS:registry.test,IP:127.0.0.1\n";
    fs::write(directory.join("names"), names).unwrap();
    let authority = ["-x509", "-days", "2", "-subj", "/CN=carboy test", "-keyout", "ca.key"];
    let constraint = ["-addext", "keyUsage=critical,keyCertSign", "-out", "ca/ca.crt"];
    openssl(directory, &[&["req"], &KEY[..], &authority, &constraint].concat());
    signed(directory, "server");
}

/// A certificate of the authority, `NAME.crt`, with its key, of version 3 by its extension.
fn signed(directory: &Path, name: &str) {
    let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
    let request = ["-subj", "/CN=localhost", "-keyout", &key, "-out", &csr];
    openssl(directory, &[&["req"], &KEY[..], &request].concat());
    let sign = ["x509", "-req", "-in", &csr, "-CA", "ca/ca.crt", "-CAkey", "ca.key"];
    let into = ["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", &crt];
    openssl(directory, &[&sign[..], &into].concat());
}

/// A directory as one of `certs.d`: `client/`, with `ca.crt`, `client.cert` and `client.key`.
fn client_cert(directory: &Path) {
    signed(directory, "client");
    let client = directory.join("client");
    fs::create_dir_all(&client).unwrap();
    for (from, to) in
        [("ca/ca.crt", "ca.crt"), ("client.crt", "client.cert"), ("client.key", "client.key")]
    {
        fs::copy(directory.join(from), client.join(to)).unwrap();
    }
}

/// Runs openssl in `directory`.
#[track_caller]
pub(crate) fn openssl(directory: &Path, arguments: &[&str]) {
    let mut command = clean(Command::new("openssl"), directory);
    command.current_dir(directory).args(arguments);
    Output::of(command, format!("openssl {}", arguments.join(" ")), None).ok();
}
