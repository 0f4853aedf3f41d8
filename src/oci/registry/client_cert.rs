//! The certificate that is shown to a registry which asks for one, where Docker and skopeo look
//! for it (`certs.d`(5)): `NAME.cert`, and its key `NAME.key`.

use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{self, Certificate, PrivateKey};

use super::error::RegistryError;
use super::roots::{certificates, files, read};

/// A certificate, with those it hangs on and its key.
#[derive(Clone, Debug)]
pub(super) struct ClientCert {
    pub(super) file: PathBuf,
    pub(super) pair: tls::ClientCert,
}

/// The pair in `directory`; `None` if it has none, or is absent. The key is checked to belong to
/// the certificate: the HTTP library panics over a pair that is none.
///
/// # Errors
/// [`RegistryError::File`]; [`RegistryError::Settings`] if one of the two is missing, is not what
/// its name says or does not fit the other, or if there are several pairs.
pub(super) fn find(
    directory: &Path,
    provider: &CryptoProvider,
) -> Result<Option<ClientCert>, RegistryError> {
    let (certs, keys) = (files(directory, "cert")?, files(directory, "key")?);
    let lone = |path: &&PathBuf| !certs.contains(&path.with_extension("cert"));
    if let Some(key) = keys.iter().find(lone) {
        let reason = format!("its certificate {} is missing", name(&key.with_extension("cert")));
        return Err(invalid(key, reason));
    }
    let lone = |path: &&PathBuf| !keys.contains(&path.with_extension("key"));
    if let Some(cert) = certs.iter().find(lone) {
        let key = name(&cert.with_extension("key"));
        let reason = format!("its key {key} is missing; an authority's certificate ends in .crt");
        return Err(invalid(cert, reason));
    }
    match &certs[..] {
        [] => Ok(None),
        [file] => load(file, provider).map(Some),
        [first, ..] => {
            let reason = format!("it is one of {} client certificates: leave one", certs.len());
            Err(invalid(first, reason))
        }
    }
}

fn load(file: &Path, provider: &CryptoProvider) -> Result<ClientCert, RegistryError> {
    let key_file = file.with_extension("key");
    let open = |path: &Path| {
        let gone = || invalid(path, "it was removed just now".to_owned());
        read(path).and_then(|text| text.ok_or_else(gone))
    };
    let (text, key_text) = (open(file)?, open(&key_file)?);
    let chain: Result<Vec<Certificate<'static>>, _> = certificates(&text).collect();
    let chain = chain.map_err(|error| invalid(file, error.to_string()))?;
    if chain.is_empty() {
        return Err(invalid(file, "it has no certificate".to_owned()));
    }
    // Both read the first key there is; neither error quotes the file.
    let (Ok(key), Ok(checked)) =
        (PrivateKey::from_pem(&key_text), PrivateKeyDer::from_pem_slice(&key_text))
    else {
        let reason = "it has no private key in PEM without a password";
        return Err(invalid(&key_file, reason.to_owned()));
    };
    let ders = chain.iter().map(|cert| CertificateDer::from(cert.der().to_vec())).collect();
    match CertifiedKey::from_der(ders, checked, provider) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(invalid(file, format!("it makes no pair with {}", name(&key_file))));
        }
        Err(error) => {
            let reason = format!("it cannot be used with {}: {error}", name(&key_file));
            return Err(invalid(file, reason));
        }
    }
    let pair = tls::ClientCert::new_with_certs(&chain, key);
    Ok(ClientCert { file: file.to_owned(), pair })
}

fn invalid(path: &Path, reason: String) -> RegistryError {
    RegistryError::Settings { path: path.to_owned(), reason }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
