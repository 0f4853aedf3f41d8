//! The files by which libcontainer joins a command to a container with a user namespace of its own.
//!
//! It is given copies with less in them: the user and network namespaces are entered before it is
//! called, and the place of the root file system, which it would look for, is seen by the monitor
//! alone.

use std::path::Path;

use serde_json::{Value, json};

use super::runtime::CONFIG_FILE;
use super::spec::Container;
use crate::fsutil::{self, PathContext, PathError};

/// Reads the container's own state file and specification; writes the state to `state`, and the
/// specification into the directory `bundle`.
///
/// # Errors
/// What the file system said.
pub(crate) fn write(
    container: &Container,
    own_state: &Path,
    state: &Path,
    bundle: &Path,
) -> Result<(), PathError> {
    let mut about = read(own_state)?;
    about["bundle"] = json!(bundle);
    let mut spec = read(&container.state.join(CONFIG_FILE))?;
    without_host(&mut spec);
    fsutil::write_atomically(state, about.to_string().as_bytes())?;
    fsutil::write_atomically(&bundle.join(CONFIG_FILE), spec.to_string().as_bytes())
}

fn read(path: &Path) -> Result<Value, PathError> {
    let content = std::fs::read(path).at("read", path)?;
    serde_json::from_slice(&content).map_err(std::io::Error::from).at("read", path)
}

/// Of the specification nothing is used but its namespaces and its control group.
fn without_host(spec: &mut Value) {
    spec["root"]["path"] = json!("/");
    spec["mounts"] = json!([]);
    if let Some(linux) = spec["linux"].as_object_mut() {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
    }
    if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
        namespaces
            .retain(|namespace| namespace["type"] != "user" && namespace["type"] != "network");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_before_is_left_out() {
        let mut spec = json!({
            "root": { "path": "/somewhere", "readonly": true },
            "mounts": [{ "destination": "/proc" }],
            "linux": {
                "uidMappings": [1],
                "gidMappings": [1],
                "cgroupsPath": "/x",
                "namespaces": [{ "type": "pid" }, { "type": "user" }, { "type": "mount" }],
            },
        });
        without_host(&mut spec);
        let want = json!({
            "root": { "path": "/", "readonly": true },
            "mounts": [],
            "linux": {
                "cgroupsPath": "/x",
                "namespaces": [{ "type": "pid" }, { "type": "mount" }],
            },
        });
        assert_eq!(spec, want);
    }
}
