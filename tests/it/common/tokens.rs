//! A token server beside the registry, over HTTPS on port 5001 of the host's loopback: it asks for a
//! password or an identity token, and signs what the registry checks. The signature is openssl's.
//! Sources: the distribution project's "Token Authentication Specification" and "OAuth2 Token
//! Authentication"; RFC 7515, RFC 7519.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::host::clean;
use super::output::Output;
use super::registry::openssl;
use super::{TestHost, netns};

/// Where it listens, as in a URL.
pub(crate) const HOST: &str = "localhost:5001";

/// What registry and token server call each other.
pub(crate) const SERVICE: &str = "the test's registry";
pub(crate) const ISSUER: &str = "the test's token server";

/// Who may push, with the password.
pub(crate) const PUSHER: &str = "pusher:pushes";

/// The registry takes a token for this long after its end.
const LEEWAY: i64 = 60;

/// A request of carboy's.
#[derive(Clone, Debug)]
pub(crate) struct Bought {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: String,
    /// Who asked, if not just anybody.
    pub(crate) user: Option<String>,
    /// Whether a client certificate was shown; it was asked for.
    pub(crate) client_cert: bool,
}

/// The server; ends with the test's process.
#[derive(Clone, Debug)]
pub(crate) struct TokenServer {
    directory: PathBuf,
    bought: Arc<Mutex<Vec<Bought>>>,
    lives: Arc<Mutex<VecDeque<i64>>>,
}

impl TokenServer {
    /// Starts it with the registry's certificate. `directory` gets `tokens.crt`, which the registry
    /// is to trust.
    pub(crate) fn new(host: &TestHost, directory: &Path) -> Self {
        let subject = ["-subj", "/CN=tokens", "-keyout", "tokens.key", "-out", "tokens.crt"];
        let key = ["req", "-x509", "-days", "2", "-newkey", "rsa:2048", "-nodes"];
        openssl(directory, &[&key[..], &subject].concat());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificate = |name: &str| CertificateDer::from_pem_file(directory.join(name)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca/ca.crt")).unwrap();
        let roots = Arc::new(roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
        let verifier = verifier.allow_unauthenticated().build().unwrap();
        let key = PrivateKeyDer::from_pem_file(directory.join("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate("server.crt")], key)
            .unwrap();
        let config = Arc::new(config);
        let listener =
            netns::inside(&host.netns(None), || TcpListener::bind("127.0.0.1:5001").unwrap());
        let (directory, bought) = (directory.to_owned(), Arc::default());
        let server = Self { directory, bought, lives: Arc::default() };
        let served = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (server, config) = (served.clone(), Arc::clone(&config));
                // A client may go at any point.
                std::thread::spawn(move || drop(server.serve(stream, config)));
            }
        });
        server
    }

    /// What carboy asked for so far.
    pub(crate) fn bought(&self) -> Vec<Bought> {
        self.bought.lock().unwrap().clone()
    }

    /// The next token is good for so many seconds, the ones after it for an hour.
    pub(crate) fn next_lives(&self, seconds: i64) {
        self.lives.lock().unwrap().push_back(seconds);
    }

    fn serve(&self, stream: TcpStream, config: Arc<ServerConfig>) -> std::io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let pairs = head.iter().filter_map(|line| line.split_once(": "));
            pairs.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
        };
        let mut words = head.first().map_or("", String::as_str).split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = String::new();
        stream.by_ref().take(length).read_to_string(&mut body)?;
        let user = user(header("authorization"), &body);
        if header("user-agent").is_some_and(|agent| agent.starts_with("carboy/")) {
            let client_cert = stream.get_ref().conn.peer_certificates().is_some();
            let (method, path, body) = (method.to_owned(), path.to_owned(), body.clone());
            let bought =
                Bought { method, path, body, user: user.clone().ok().flatten(), client_cert };
            self.bought.lock().unwrap().push(bought);
        }
        let (status, answer) = match user {
            Ok(user) => {
                let asked = if body.is_empty() { path.split('?').nth(1) } else { Some(&*body) };
                (200, self.token(user.as_deref(), asked.unwrap_or_default()))
            }
            Err(()) => {
                let error = json!({"code": "UNAUTHORIZED", "message": "that is not the password"});
                (401, json!({"errors": [error]}))
            }
        };
        let text = answer.to_string();
        let length = text.len();
        let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}");
        let stream = stream.get_mut();
        stream.write_all(format!("{head}\r\n\r\n{text}").as_bytes())?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    /// An answer with a token for what `user` may do of what is `asked` for, a query or form.
    fn token(&self, user: Option<&str>, asked: &str) -> Value {
        let scopes = asked.split('&').filter_map(|pair| pair.strip_prefix("scope="));
        let scopes =
            scopes.map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","));
        let access: Vec<Value> = scopes
            .filter_map(|scope| {
                let mut parts = scope.split(':').skip(1);
                let (name, actions) = (parts.next()?.to_owned(), parts.next()?.to_owned());
                let may = |action: &&str| match user {
                    Some("pusher") => true,
                    Some(_) => *action == "pull" && !name.starts_with("closed/"),
                    None => *action == "pull" && name.starts_with("public/"),
                };
                let actions: Vec<&str> = actions.split(',').filter(may).collect();
                Some(json!({"type": "repository", "name": name, "actions": actions}))
            })
            .collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let life = self.lives.lock().unwrap().pop_front().unwrap_or(3600);
        let claims = json!({
            "iss": ISSUER, "aud": SERVICE, "sub": user.unwrap_or_default(), "jti": "test",
            "iat": now - 10, "nbf": now - 10, "exp": now + life - LEEWAY, "access": access,
        });
        let token = self.sign(&claims);
        json!({"token": token, "access_token": token, "expires_in": life})
    }

    fn sign(&self, claims: &Value) -> String {
        let pem = fs::read_to_string(self.directory.join("tokens.crt")).unwrap();
        let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let text = format!("{}.{}", encode(&header), encode(claims));
        let mut command = clean(Command::new("openssl"), &self.directory);
        command.current_dir(&self.directory).args(["dgst", "-sha256", "-sign", "tokens.key"]);
        let signature = Output::of(command, "openssl dgst".to_owned(), Some(text.as_bytes()));
        format!("{text}.{}", BASE64URL_NOPAD.encode(signature.ok().stdout_bytes()))
    }
}

/// Who asks: nobody in particular, or somebody with a password or an identity token.
fn user(authorization: Option<&str>, body: &str) -> Result<Option<String>, ()> {
    if body.contains("grant_type=refresh_token") {
        let known = body.split('&').any(|pair| pair == "refresh_token=identity");
        return if known { Ok(Some("me".to_owned())) } else { Err(()) };
    }
    let Some(authorization) = authorization else { return Ok(None) };
    let basic = |user: &str| format!("Basic {}", BASE64.encode(user.as_bytes()));
    let mut known = ["me:secret", PUSHER].into_iter();
    let found = known.find(|user| basic(user) == authorization).ok_or(())?;
    Ok(found.split(':').next().map(str::to_owned))
}
