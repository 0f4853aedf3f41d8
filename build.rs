//! Builds the embedded sidecars image: the workspace member `sidecars` as a small static binary, and
//! around it an OCI archive with one layer, `$OUT_DIR/sidecars.oci.tar`.
//!
//! The archive is reproducible: times are 0, entries sorted, paths of the building machine removed.
//! Layer and archive are not compressed: the binary is small, and the layer's digest is then its
//! DiffID as well.
// Cargo reads what a build script prints.
#![allow(clippy::print_stdout)]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The name of the image in its archive; `oci::embedded::REFERENCE` is the same.
const REFERENCE: &str = "embedded:sidecars";

/// The daemons and their TCP ports: the image's exposed ports, and the label by which `up` knows
/// which daemons there are and what to wait for.
const DAEMON_PORTS: [(&str, u16); 2] = [("health", 9000), ("echo", 9001)];

/// What the binary and the image are made from. The tests of `sidecars` are not among them.
const SOURCES: [&str; 6] = [
    "build.rs",
    "Cargo.toml",
    "Cargo.lock",
    ".cargo/config.toml",
    "images/sidecars/Cargo.toml",
    "images/sidecars/src",
];

fn main() -> Result<()> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let binary = fs::read(build(&out_dir)?)?;
    let (archive, digest) = image(&layer(&binary)?)?;
    fs::write(out_dir.join("sidecars.oci.tar"), archive)?;
    println!("cargo::rustc-env=CARBOY_SIDECARS_DIGEST=sha256:{digest}");
    Ok(())
}

fn variable(name: &str) -> Result<OsString> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}").into())
}

/// Builds the program; the path of the binary.
fn build(out_dir: &Path) -> Result<PathBuf> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let target = variable("TARGET")?;
    // A directory of its own: the outer cargo holds the lock of the usual one until we are done.
    let target_dir = out_dir.join("target");
    let status = Command::new(variable("CARGO")?)
        .current_dir(&root)
        .args(["build", "--locked", "--offline", "--release", "--package", "sidecars"])
        .arg("--target")
        .arg(&target)
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_BUILD_BUILD_DIR", &target_dir)
        // The same bytes whether cargo runs for build, clippy or coverage, and in any profile.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&root, out_dir)?)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "false")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false")
        .status()?;
    if !status.success() {
        return Err(format!("the build of images/sidecars failed: {status}").into());
    }
    Ok(target_dir.join(target).join("release/sidecars"))
}

/// Flags for rustc, in cargo's encoding. They replace those of the outer build.
fn rustflags(root: &Path, out_dir: &Path) -> Result<OsString> {
    let cargo_home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(variable("HOME")?).join(".cargo"),
    };
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    // rustc takes the last one that matches: the output directory is within the root as a rule.
    for (from, to) in [(cargo_home.as_path(), "/cargo"), (root, "/carboy"), (out_dir, "/out")] {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// The root file system: the binary, mount points, and names for the two users that are used.
fn layer(binary: &[u8]) -> Result<Vec<u8>> {
    let mut tar = Archive::new();
    tar.directory("dev", 0o755)?;
    tar.directory("etc", 0o755)?;
    tar.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    tar.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/sidecars\nnobody:x:65534:65534:nobody:/:/sidecars\n",
    )?;
    tar.directory("proc", 0o755)?;
    tar.directory("run", 0o755)?;
    tar.file("sidecars", 0o755, binary)?;
    tar.directory("sys", 0o755)?;
    tar.directory("tmp", 0o1777)?;
    tar.finish()
}

/// The archive around one layer and its manifest's digest (OCI image specification: image-layout.md, manifest.md, config.md).
fn image(layer: &[u8]) -> Result<(Vec<u8>, String)> {
    let layer_hex = sha256(layer);
    let architecture = architecture()?;
    let version = env::var("CARGO_PKG_VERSION")?;
    let license = env::var("CARGO_PKG_LICENSE")?;
    let exposed = DAEMON_PORTS.map(|(_, port)| format!(r#""{port}/tcp":{{}}"#)).join(",");
    let daemons = DAEMON_PORTS.map(|(name, port)| format!("{name}={port}/tcp")).join(",");
    let config = format!(
        r#"{{"created":"1970-01-01T00:00:00Z","architecture":"{architecture}","os":"linux","config":{{"User":"65534:65534","ExposedPorts":{{{exposed}}},"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":["/sidecars"],"WorkingDir":"/","Labels":{{"dev.carboy.daemons":"{daemons}","org.opencontainers.image.description":"The daemons of a bottle, under one supervisor","org.opencontainers.image.licenses":"{license}","org.opencontainers.image.title":"sidecars","org.opencontainers.image.version":"{version}"}},"StopSignal":"SIGTERM"}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer_hex}"]}},"history":[{{"created":"1970-01-01T00:00:00Z","created_by":"carboy build.rs"}}]}}"#
    );
    let config_hex = sha256(config.as_bytes());
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:{config_hex}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{layer_hex}","size":{}}}]}}"#,
        config.len(),
        layer.len()
    );
    let manifest_hex = sha256(manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{manifest_hex}","size":{},"platform":{{"architecture":"{architecture}","os":"linux"}},"annotations":{{"org.opencontainers.image.ref.name":"{REFERENCE}"}}}}]}}"#,
        manifest.len()
    );

    let mut blobs = [
        (config_hex, config.as_bytes()),
        (manifest_hex.clone(), manifest.as_bytes()),
        (layer_hex, layer),
    ];
    blobs.sort();
    let mut tar = Archive::new();
    tar.directory("blobs", 0o755)?;
    tar.directory("blobs/sha256", 0o755)?;
    for (hex, content) in blobs {
        tar.file(&format!("blobs/sha256/{hex}"), 0o644, content)?;
    }
    tar.file("index.json", 0o644, index.as_bytes())?;
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok((tar.finish()?, manifest_hex))
}

/// The target's name in Go's words, as the specification asks for.
fn architecture() -> Result<&'static str> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let endian = env::var("CARGO_CFG_TARGET_ENDIAN")?;
    match (arch.as_str(), endian.as_str()) {
        ("x86_64", _) => Ok("amd64"),
        ("x86", _) => Ok("386"),
        ("aarch64", "little") => Ok("arm64"),
        ("arm", "little") => Ok("arm"),
        ("riscv64", _) => Ok("riscv64"),
        ("powerpc64", "little") => Ok("ppc64le"),
        ("s390x", _) => Ok("s390x"),
        ("loongarch64", _) => Ok("loong64"),
        _ => Err(format!("no OCI platform is known for {arch} ({endian}-endian)").into()),
    }
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A tar archive in the ustar format: files and directories of root, of time 0.
struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn directory(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(&format!("{path}/"), mode, tar::EntryType::Directory, b"")
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entry(path, mode, tar::EntryType::Regular, content)
    }

    fn entry(&mut self, path: &str, mode: u32, kind: tar::EntryType, content: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len().try_into()?);
        Ok(self.0.append_data(&mut header, path, content)?)
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}
