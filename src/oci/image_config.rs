//! An image's configuration: what must hold before the image is let in. Pure.
//! Source: `image-spec/config.md`.

use oci_spec::image::ImageConfiguration;

use super::digest::Digest;
use super::error::StoreError;
use super::manifest::Platform;

/// Bytes a configuration may have; real ones have some thousand.
pub(super) const SIZE_MAX: u64 = 4 << 20;

/// Layers an image may have. Overlayfs stacks 500, Docker 127.
const LAYERS_MAX: usize = 256;

/// Bytes of one variable, and of all, that `execve` takes (`MAX_ARG_STRLEN`; a quarter of the
/// usual stack limit is left for arguments).
const VARIABLE_MAX: usize = 128 << 10;
const ENVIRONMENT_MAX: usize = 512 << 10;

/// Bytes all labels may have.
const LABELS_MAX: usize = 1 << 20;

/// Checks a configuration against the host and returns its layers' uncompressed digests, the
/// lowest first; `file` and `name` are for errors.
///
/// # Errors
/// [`StoreError::Json`], [`StoreError::Document`], [`StoreError::WrongPlatform`].
pub(super) fn check(
    bytes: &[u8],
    file: &str,
    name: &str,
    host: &Platform,
) -> Result<Vec<Digest>, StoreError> {
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|source| StoreError::Json {
            file: file.to_owned(),
            what: "configuration",
            name: name.to_owned(),
            source,
        })?;
    // A manifest without an index does not say the variant, and what the processor lacks ends the
    // program: the index is where it is chosen.
    let found = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: None,
    };
    if found != *host {
        return Err(StoreError::WrongPlatform {
            file: file.to_owned(),
            want: host.to_string(),
            found: found.to_string(),
        });
    }
    let refuse = |reason: String| StoreError::Document {
        file: file.to_owned(),
        what: "configuration",
        name: name.to_owned(),
        reason,
    };
    sizes(&config).map_err(|reason| refuse(reason.to_owned()))?;
    diff_ids(&config).map_err(refuse)
}

/// The layers' uncompressed digests, the lowest first.
pub(super) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<Digest>, String> {
    let ids = config.rootfs().diff_ids();
    if config.rootfs().typ() != "layers" {
        return Err(format!("its rootfs is of type {:?}, not layers", config.rootfs().typ()));
    }
    if ids.is_empty() {
        return Err("it has no layers".to_owned());
    }
    if ids.len() > LAYERS_MAX {
        return Err(format!("it has {} layers, at most {LAYERS_MAX} are allowed", ids.len()));
    }
    ids.iter().map(|id| id.parse().map_err(|e: super::digest::DigestError| e.to_string())).collect()
}

/// The names under which unpacked layers are kept: a layer looks different on another base, so
/// each is named by all that is below it (`image-spec/config.md`, "Layer ChainID").
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

fn sizes(config: &ImageConfiguration) -> Result<(), &'static str> {
    let Some(config) = config.config() else { return Ok(()) };
    let environment = config.env().as_deref().unwrap_or_default();
    if environment.iter().any(|variable| variable.len() >= VARIABLE_MAX) {
        return Err("a variable of its environment is longer than 128 KiB");
    }
    if environment.iter().map(String::len).sum::<usize>() > ENVIRONMENT_MAX {
        return Err("its environment is longer than 512 KiB");
    }
    let arguments = [config.entrypoint(), config.cmd()];
    let arguments = arguments.iter().filter_map(|words| words.as_deref()).flatten();
    if environment.iter().chain(arguments).any(|word| word.contains('\0')) {
        return Err("its environment or command holds a NUL byte");
    }
    let labels = config.labels().iter().flatten();
    if labels.map(|(key, value)| key.len() + value.len()).sum::<usize>() > LABELS_MAX {
        return Err("its labels are longer than 1 MiB");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Classify, ErrorKind};

    fn json(os: &str, architecture: &str, config: &str, ids: &str) -> String {
        format!(
            r#"{{"os":"{os}","architecture":"{architecture}","config":{config},
                "rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
        )
    }

    #[test]
    fn configurations_are_checked() {
        let host =
            Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None };
        let id = format!("\"{}\"", Digest::of(b"x"));
        let nulls = r#"{"Env":null,"Labels":null,"Volumes":null,"ExposedPorts":{"80/tcp":{}}}"#;
        let long = format!(r#"{{"Env":["A={}"]}}"#, "x".repeat(128 << 10));
        let cases = [
            (json("linux", "amd64", "{}", &id), None),
            (json("linux", "amd64", nulls, &id), None),
            (json("linux", "amd64", "null", &id), None),
            (json("windows", "amd64", "{}", &id), Some(ErrorKind::Unsupported)),
            (json("linux", "arm64", "{}", &id), Some(ErrorKind::Unsupported)),
            (json("linux", "amd64", "{}", ""), Some(ErrorKind::Invalid)),
            (json("linux", "amd64", "{}", "\"md5:1\""), Some(ErrorKind::Invalid)),
            (json("linux", "amd64", &long, &id), Some(ErrorKind::Invalid)),
            (json("linux", "amd64", r#"{"Cmd":["a\u0000b"]}"#, &id), Some(ErrorKind::Invalid)),
            ("{}".to_owned(), Some(ErrorKind::Invalid)),
        ];
        for (text, want) in cases {
            let found = check(text.as_bytes(), "a.tar", "c", &host).err().map(|e| e.kind());
            assert_eq!(found, want, "{}", &text[..text.len().min(200)]);
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
