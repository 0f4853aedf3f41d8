//! Which certificate authorities are trusted: the host's own list, and for one registry those an
//! administrator put beside it, where Docker and skopeo look for them (`certs.d`(5)).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

use super::error::RegistryError;

/// Where distributions keep their list: Debian and Alpine, Fedora, SUSE, OpenELEC, Fedora again,
/// Alpine again.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who is trusted, and how to tell people.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    certificates: Vec<Certificate<'static>>,
    files: Vec<PathBuf>,
}

impl Roots {
    /// The host's list; empty if it has none.
    ///
    /// # Errors
    /// [`RegistryError::File`] if it is there and cannot be read.
    pub(super) fn system() -> Result<Self, RegistryError> {
        for path in SYSTEM.iter().map(Path::new) {
            let Some(text) = read(path)? else { continue };
            // One that cannot be read is not trusted; the others are.
            let certificates = certificates(&text).filter_map(Result::ok).collect();
            return Ok(Self { certificates, files: vec![path.to_owned()] });
        }
        Ok(Self { certificates: Vec::new(), files: Vec::new() })
    }

    /// Adds the authorities (`*.crt`) of a directory; one that is absent has none.
    ///
    /// # Errors
    /// [`RegistryError::File`], or [`RegistryError::Settings`] if a file has no certificate.
    pub(super) fn add(&mut self, directory: &Path) -> Result<(), RegistryError> {
        for path in files(directory, "crt")? {
            let Some(text) = read(&path)? else { continue };
            let found: Result<Vec<_>, _> = certificates(&text).collect();
            let invalid = |reason| RegistryError::Settings { path: path.clone(), reason };
            let found = found.map_err(|error| invalid(error.to_string()))?;
            if found.is_empty() {
                return Err(invalid("it has no certificate".to_owned()));
            }
            self.certificates.extend(found);
            self.files.push(path);
        }
        Ok(())
    }

    /// In the form TLS wants them. A host without any list gets Mozilla's, which is built in.
    pub(super) fn trusted(&self) -> RootCerts {
        if self.certificates.is_empty() {
            return RootCerts::WebPki;
        }
        RootCerts::Specific(Arc::new(self.certificates.clone()))
    }

    /// Which they are, for people.
    pub(super) fn describe(&self) -> String {
        if self.files.is_empty() {
            return "the built-in authorities".to_owned();
        }
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" and ")
    }
}

/// The files of a directory whose names end in `.` and `extension`, in order; none if it is absent.
///
/// # Errors
/// [`RegistryError::File`] if it cannot be read.
pub(super) fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, RegistryError> {
    let failed =
        |source| RegistryError::File { action: "read", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if absent(&error) => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

/// The certificates of a PEM file's text.
pub(super) fn certificates(
    text: &[u8],
) -> impl Iterator<Item = Result<Certificate<'static>, ureq::Error>> + '_ {
    parse_pem(text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    })
}

/// A file's content; `None` if it is absent.
///
/// # Errors
/// [`RegistryError::File`].
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, RegistryError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if absent(&error) => Ok(None),
        Err(source) => Err(RegistryError::File { action: "read", path: path.to_owned(), source }),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut roots = Roots { certificates: Vec::new(), files: Vec::new() };
        roots.add(&directory.path().join("absent")).unwrap();
        fs::write(directory.path().join("client.key"), "not read").unwrap();
        roots.add(directory.path()).unwrap();
        assert!(roots.files.is_empty());
        fs::write(directory.path().join("ca.crt"), "no certificate").unwrap();
        assert!(matches!(roots.add(directory.path()), Err(RegistryError::Settings { .. })));
    }
}
