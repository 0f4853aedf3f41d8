//! A registry inside a test host: Debian's docker-registry with TLS and a password, filled by
//! skopeo, with an access log that tells what carboy asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::host::clean;
use super::output::Output;
use super::spawned::Spawned;
use super::{TestHost, poll};

/// Where it listens, in image names.
pub(crate) const HOST: &str = "localhost:5000";

/// `me` with the password `secret`, as bcrypt.
const HTPASSWD: &str = "me:$2y$05$jx2HLPBKg0Yauw9t1NHNdOAMv2wVdgdqvkvGtW0waHDZ6xRhviT2e\n";

/// How the registry is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// TLS by an authority of the test's own, and a password.
    Tls,
    /// Plain HTTP, for everybody.
    Plain,
}

/// The registry; ends when it is dropped, which must be before its host.
#[derive(Debug)]
pub(crate) struct Registry {
    protocol: Protocol,
    directory: PathBuf,
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
        let secure = match protocol {
            Protocol::Plain => String::new(),
            Protocol::Tls => {
                certificates(&directory);
                fs::write(directory.join("htpasswd"), HTPASSWD).unwrap();
                format!(
                    "  tls:\n    certificate: {at}/server.crt\n    key: {at}/server.key\n\
                     auth:\n  htpasswd:\n    realm: test\n    path: {at}/htpasswd\n"
                )
            }
        };
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
        Self { protocol, directory, _process: process }
    }

    /// A directory with the authority's certificate and nothing else.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.join("ca")
    }

    /// Copies an image or index, in skopeo's words, to `name` of this registry.
    #[track_caller]
    pub(crate) fn push(&self, host: &TestHost, from: &str, name: &str) {
        let to = format!("docker://{HOST}/{name}");
        let ca = self.ca().display().to_string();
        let mut words = vec!["skopeo", "copy", "--quiet", "--all"];
        match self.protocol {
            Protocol::Tls => words.extend(["--dest-cert-dir", &ca, "--dest-creds", "me:secret"]),
            Protocol::Plain => words.push("--dest-tls-verify=false"),
        }
        words.extend([from, &to]);
        host.run(words).ok();
    }

    /// Puts the password where carboy looks for it: `HOME` of the host's commands.
    pub(crate) fn log_in(&self, host: &TestHost, password: &str) {
        let auth = data_encoding::BASE64.encode(format!("me:{password}").as_bytes());
        let docker = host.dir().join(".docker");
        fs::create_dir_all(&docker).unwrap();
        let text = format!(r#"{{"auths":{{"{HOST}":{{"auth":"{auth}"}}}}}}"#);
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
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let authority = ["-x509", "-days", "2", "-subj", "/CN=carboy test", "-keyout", "ca.key"];
    let constraint = ["-addext", "keyUsage=critical,keyCertSign", "-out", "ca/ca.crt"];
    openssl(directory, &[&["req"], &key[..], &authority, &constraint].concat());
    let request = ["-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    openssl(directory, &[&["req"], &key[..], &request].concat());
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca/ca.crt", "-CAkey", "ca.key"];
    let into = ["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.crt"];
    openssl(directory, &[&sign[..], &into].concat());
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let mut command = clean(Command::new("openssl"), directory);
    command.current_dir(directory).args(arguments);
    Output::of(command, format!("openssl {}", arguments.join(" ")), None).ok();
}
