//! Images made offline from Debian's static busybox, by umoci and skopeo: independent tools, so
//! that carboy reads what others write. Made once, kept under cargo's directory for tests.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use super::host::clean;
use super::output::Output;

const BUSYBOX: &str = "/bin/busybox";

/// Counts changes of the recipes below: a kept image of an older one is not used.
const RECIPE: u32 = 2;

const APPLETS: [&str; 21] = [
    "cat", "echo", "env", "grep", "hostname", "httpd", "id", "ip", "kill", "ls", "nc", "ping",
    "ps", "pwd", "sh", "sleep", "stat", "timeout", "touch", "wc", "wget",
];

/// What the image runs: a web server, until SIGTERM, which ends it at once.
const COMMAND: &str = "trap 'exit 0' TERM; httpd -p 8080 -h /www; echo started; \
                       while :; do sleep 3600 & wait $!; done";

/// One image in three forms.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Its name without a tag.
    pub(crate) name: &'static str,
    /// An OCI image layout.
    pub(crate) layout: PathBuf,
    /// The same as one tar file.
    pub(crate) oci_archive: PathBuf,
    /// As `docker save` writes it.
    pub(crate) docker_archive: PathBuf,
}

impl Image {
    fn at(directory: &Path, name: &'static str) -> Self {
        let path = |kind: &str| directory.join(format!("{name}.{kind}"));
        Self {
            name,
            layout: path("layout"),
            oci_archive: path("oci.tar"),
            docker_archive: path("docker.tar"),
        }
    }
}

/// `test-busybox`: one layer; serves `/www` on TCP 8080 and has GREETING in its environment.
pub(crate) fn busybox() -> Image {
    Image::at(directory(), "test-busybox")
}

/// `test-layers`: three layers on top of each other. `/layers/kept` is of the lowest, `/layers/gone`
/// was removed by a whiteout, `/layers/changed` says `upper`, `/layers/dir` was replaced and has
/// only `new`.
pub(crate) fn layered() -> Image {
    Image::at(directory(), "test-layers")
}

/// Where the images are; makes them at the first call.
fn directory() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let about = fs::metadata(BUSYBOX).unwrap_or_else(|e| {
            panic!("{BUSYBOX}: {e}; the tests need the package busybox-static")
        });
        let changed = about.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let kept = root.join(format!("images-{RECIPE}-{}-{changed}", about.len()));
        if !kept.is_dir() {
            fs::create_dir_all(root).unwrap();
            let work = tempfile::tempdir_in(root).unwrap();
            make(work.path());
            // Another run may have been faster: its images are as good.
            if fs::rename(work.path(), &kept).is_err() {
                assert!(kept.is_dir(), "{} cannot be made", kept.display());
            }
        }
        kept
    })
}

fn make(directory: &Path) {
    let busybox = Image::at(directory, "test-busybox");
    let layout = busybox.layout.display().to_string();
    let image = format!("{layout}:{}", busybox.name);
    tool(directory, &["umoci", "init", "--layout", &layout]);
    tool(directory, &["umoci", "new", "--image", &image]);
    layer(directory, &image, fill_busybox);
    let config = ["umoci", "config", "--image", &image, "--config.env", "GREETING=hello"];
    let command = ["--config.cmd", "/bin/sh", "--config.cmd", "-c", "--config.cmd", COMMAND];
    let path = ["--config.env", "PATH=/bin", "--config.workingdir", "/"];
    tool(directory, &[&config[..], &path, &command].concat());
    export(directory, &busybox);

    let layered = Image::at(directory, "test-layers");
    let from = format!("oci:{image}");
    let to = format!("oci:{}:{}", layered.layout.display(), layered.name);
    tool(directory, &["skopeo", "copy", "--quiet", &from, &to]);
    let image = to.trim_start_matches("oci:");
    layer(directory, image, |rootfs| {
        fs::create_dir_all(rootfs.join("layers/dir")).unwrap();
        for file in ["kept", "gone", "changed", "dir/old"] {
            fs::write(rootfs.join("layers").join(file), "lower").unwrap();
        }
    });
    layer(directory, image, |rootfs| {
        fs::remove_file(rootfs.join("layers/gone")).unwrap();
        fs::write(rootfs.join("layers/changed"), "upper").unwrap();
        fs::remove_dir_all(rootfs.join("layers/dir")).unwrap();
        fs::create_dir(rootfs.join("layers/dir")).unwrap();
        fs::write(rootfs.join("layers/dir/new"), "upper").unwrap();
    });
    export(directory, &layered);
}

fn fill_busybox(rootfs: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "www"] {
        fs::create_dir(rootfs.join(directory)).unwrap();
    }
    fs::set_permissions(rootfs.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/www:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), passwd).unwrap();
    fs::write(rootfs.join("etc/group"), "root:x:0:\nweb:x:1000:\n").unwrap();
    fs::write(rootfs.join("www/index.html"), "busybox\n").unwrap();
}

/// Adds a layer with what `change` does to the root file system.
fn layer(directory: &Path, image: &str, change: impl FnOnce(&Path)) {
    let bundle = directory.join("bundle");
    let path = bundle.display().to_string();
    tool(directory, &["umoci", "unpack", "--image", image, &path]);
    change(&bundle.join("rootfs"));
    tool(directory, &["umoci", "repack", "--image", image, &path]);
    fs::remove_dir_all(&bundle).unwrap();
}

fn export(directory: &Path, image: &Image) {
    let from = format!("oci:{}:{}", image.layout.display(), image.name);
    for (kind, path, name) in [
        ("oci-archive", &image.oci_archive, image.name.to_owned()),
        ("docker-archive", &image.docker_archive, format!("{}:latest", image.name)),
    ] {
        let to = format!("{kind}:{}:{name}", path.display());
        tool(directory, &["skopeo", "copy", "--quiet", &from, &to]);
    }
}

fn tool(home: &Path, words: &[&str]) {
    let mut command = clean(Command::new(words[0]), home);
    // skopeo keeps its scratch files there.
    command.env("TMPDIR", home).args(&words[1..]);
    Output::of(command, words.join(" "), None).ok();
}
