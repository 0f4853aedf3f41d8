//! Who asks: credentials as Docker keeps them, in `config.json` and with credential helpers.
//! Sources: docker-login(1), "Credential stores" and "Credential helpers"; the protocol of
//! `docker/docker-credential-helpers`.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde::Deserialize;

use super::error::{RegistryError, Tried};

/// Docker Hub's credentials are kept under the address of an API that is long gone.
const HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// A helper may ask a key store, or a person.
const HELPER_LIMIT: Duration = Duration::from_secs(60);

/// What a helper may say.
const HELPER_MAX: u64 = 64 << 10;

/// The user name that helpers give when the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// What opens a registry. Its `Debug` tells no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) secret: Secret,
    /// What may be said of it.
    pub(super) tried: Tried,
}

#[derive(Clone, Default, PartialEq, Eq)]
pub(super) enum Secret {
    #[default]
    None,
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of OAuth2.
    Identity(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({})", self.tried)
    }
}

impl Secret {
    /// The value of a header for basic authentication (RFC 7617).
    pub(super) fn basic(&self) -> Option<String> {
        let Self::Password { user, password } = self else { return None };
        Some(format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes())))
    }
}

/// Docker's `config.json`, as far as it speaks of credentials.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: HashMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: String,
    #[serde(rename = "credHelpers")]
    helpers: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// Where a host's credential is.
enum Place {
    Nowhere,
    Here(Secret),
    Helper { program: String, server: String },
}

/// The credential for the registry `domain` (`docker.io`, `ghcr.io`, `host:5000`). None is no
/// error: most images are for everybody.
///
/// # Errors
/// The file cannot be read, or the helper it names fails.
pub(super) fn find(path: Option<&Path>, domain: &str) -> Result<Credential, RegistryError> {
    let Some(path) = path else { return Ok(Credential::default()) };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Credential::default());
        }
        Err(source) => {
            return Err(RegistryError::File { action: "read", path: path.to_owned(), source });
        }
    };
    let invalid = |reason: String| RegistryError::Settings { path: path.to_owned(), reason };
    match look_up(&text, domain).map_err(invalid)? {
        Place::Nowhere => Ok(Credential::default()),
        Place::Here(secret) => {
            let name = user(&secret);
            let from = path.display().to_string();
            Ok(Credential { secret, tried: Tried::User { name, from } })
        }
        Place::Helper { program, server } => {
            let secret = ask(&program, &server).map_err(|reason| RegistryError::Helper {
                program: program.clone(),
                host: domain.to_owned(),
                reason,
            })?;
            Ok(match secret {
                Secret::None => Credential::default(),
                secret => {
                    let tried = Tried::User { name: user(&secret), from: program };
                    Credential { secret, tried }
                }
            })
        }
    }
}

fn user(secret: &Secret) -> String {
    match secret {
        Secret::Password { user, .. } => user.clone(),
        Secret::None | Secret::Identity(_) => String::new(),
    }
}

/// Finds the host's entry: its own helper, then the common one, then the file itself. An error
/// never quotes the file.
fn look_up(text: &[u8], domain: &str) -> Result<Place, String> {
    let file: File = serde_json::from_slice(text).map_err(|e| {
        format!("no JSON as Docker writes it, line {} column {}", e.line(), e.column())
    })?;
    let keys: &[&str] = if domain == HUB.0 {
        &[HUB.1, HUB.0, "index.docker.io", "registry-1.docker.io"]
    } else {
        &[domain]
    };
    let helper = keys.iter().find_map(|key| file.helpers.get(*key));
    let helper = helper.or((!file.store.is_empty()).then_some(&file.store));
    if let Some(helper) = helper {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if helper.is_empty() || !helper.chars().all(plain) {
            return Err(format!("{helper:?} is no credential helper's name"));
        }
        let program = format!("docker-credential-{helper}");
        return Ok(Place::Helper { program, server: keys[0].to_owned() });
    }
    let exact = keys.iter().find_map(|key| file.auths.get(*key));
    let entry = exact.or_else(|| {
        let mut entries = file.auths.iter();
        entries.find(|(key, _)| keys.contains(&host_of(key))).map(|(_, entry)| entry)
    });
    let Some(entry) = entry else { return Ok(Place::Nowhere) };
    let secret = secret(entry)
        .ok_or_else(|| format!("its \"auth\" for {domain} is no base64 of user:password"))?;
    Ok(if secret == Secret::None { Place::Nowhere } else { Place::Here(secret) })
}

/// The host of a key that is a URL, as old versions wrote them.
fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or_default()
}

fn secret(entry: &Entry) -> Option<Secret> {
    if !entry.identitytoken.is_empty() {
        return Some(Secret::Identity(entry.identitytoken.clone()));
    }
    if !entry.auth.is_empty() {
        let bytes = BASE64.decode(entry.auth.trim().as_bytes()).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        // Docker pads what it stores with NUL.
        let (user, password) = text.trim_end_matches('\0').split_once(':')?;
        return Some(Secret::Password { user: user.to_owned(), password: password.to_owned() });
    }
    if entry.username.is_empty() {
        return Some(Secret::None);
    }
    Some(Secret::Password { user: entry.username.clone(), password: entry.password.clone() })
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Runs a helper, which the user configured: `PROGRAM get`, the server on its standard input.
fn ask(program: &str, server: &str) -> Result<Secret, String> {
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "it is not in the search path".to_owned(),
            _ => e.to_string(),
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends without reading says why by its answer.
        stdin.write_all(server.as_bytes()).unwrap_or_default();
    }
    let output = child.stdout.take();
    // The helper may leave a child that holds the pipe: the reader is not waited for then.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = output.map(|output| output.take(HELPER_MAX).read_to_end(&mut text));
        // Nobody listens any more after the time limit.
        drop(sender.send((read.is_some_and(|read| read.is_ok()), text)));
    });
    let deadline = Instant::now() + HELPER_LIMIT;
    let answer = receiver.recv_timeout(HELPER_LIMIT);
    let good = end(&mut child, deadline)?;
    let Ok((true, text)) = answer else { return Err("its answer cannot be read".to_owned()) };
    if good {
        return parse_answer(&text);
    }
    let message = String::from_utf8_lossy(&text);
    let message = message.trim();
    // The words of docker-credential-helpers, which all helpers share.
    if message.contains("credentials not found") {
        return Ok(Secret::None);
    }
    Err(super::faults::printable(message).unwrap_or_else(|| "it ended with an error".to_owned()))
}

fn parse_answer(text: &[u8]) -> Result<Secret, String> {
    let answer: Answer = serde_json::from_slice(text)
        .map_err(|_| "its answer is no JSON as it should be".to_owned())?;
    let Answer { username, secret } = answer;
    Ok(match username.as_str() {
        TOKEN_USER => Secret::Identity(secret),
        "" if secret.is_empty() => Secret::None,
        _ => Secret::Password { user: username, password: secret },
    })
}

/// Waits for the helper's end; whether it ended well.
fn end(child: &mut Child, deadline: Instant) -> Result<bool, String> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            // An embedding program may reap all children: what the helper wrote decides.
            Err(_) => return Ok(true),
            Ok(None) => {
                // It may end by itself in between.
                child.kill().unwrap_or_default();
                drop(child.wait());
                return Err(format!("it did not answer within {} s", HELPER_LIMIT.as_secs()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Secret {
        Secret::Password { user: user.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn entries_are_found_as_docker_finds_them() {
        let auth = BASE64.encode(b"me:pass:word");
        let text = format!(
            r#"{{"HttpHeaders":{{"x":"y"}},
                "auths":{{
                    "https://index.docker.io/v1/":{{"auth":"{auth}","email":"x"}},
                    "https://old.example/v1/":{{"username":"u","password":"p"}},
                    "port.example:5000":{{"auth":"{auth}"}},
                    "token.example":{{"auth":"{auth}","identitytoken":"abc"}},
                    "empty.example":{{}}
                }},
                "credHelpers":{{"helped.example":"pass"}}}}"#
        );
        for (domain, want) in [
            ("docker.io", Some(password("me", "pass:word"))),
            ("old.example", Some(password("u", "p"))),
            ("port.example:5000", Some(password("me", "pass:word"))),
            ("token.example", Some(Secret::Identity("abc".to_owned()))),
            ("port.example", None),
            ("empty.example", None),
            ("example", None),
        ] {
            let found = match look_up(text.as_bytes(), domain) {
                Ok(Place::Here(secret)) => Some(secret),
                Ok(Place::Nowhere) => None,
                _ => panic!("{domain}"),
            };
            assert!(found == want, "{domain}");
        }
        let Ok(Place::Helper { program, server }) = look_up(text.as_bytes(), "helped.example")
        else {
            panic!("a helper")
        };
        assert_eq!((&*program, &*server), ("docker-credential-pass", "helped.example"));
        let store = br#"{"credsStore":"desktop"}"#;
        let Ok(Place::Helper { program, server }) = look_up(store, "docker.io") else {
            panic!("a store")
        };
        assert_eq!((&*program, &*server), ("docker-credential-desktop", HUB.1));
    }

    #[test]
    fn bad_files_are_refused_without_quoting_them() {
        for (text, want) in [
            (&br#"{"auths":{"a.b":{"auth":"c2VjcmV0"}}}"#[..], "no base64"),
            (br#"{"auths":{"a.b":{"auth":"!secret"}}}"#, "no base64"),
            (br#"{"auths":"secret"}"#, "line 1"),
            (br#"{"credsStore":"../../bin/sh"}"#, "no credential helper"),
        ] {
            let Err(reason) = look_up(text, "a.b") else { panic!("{want}") };
            assert!(reason.contains(want) && !reason.contains("secret"), "{reason}");
        }
    }

    #[test]
    fn helpers_answers_are_read() {
        let user = br#"{"ServerURL":"x","Username":"u","Secret":"s"}"#;
        let token = br#"{"ServerURL":"x","Username":"<token>","Secret":"s"}"#;
        assert!(parse_answer(user) == Ok(password("u", "s")));
        assert!(parse_answer(token) == Ok(Secret::Identity("s".to_owned())));
        assert!(parse_answer(b"secret").is_err_and(|reason| !reason.contains("secret")));
    }

    #[test]
    fn secrets_are_not_shown() {
        let secret = password("u", "hidden");
        let tried = Tried::User { name: "u".to_owned(), from: "f".to_owned() };
        assert!(!format!("{:?}", Credential { secret, tried }).contains("hidden"));
    }
}
