//! Files and directories of the host inside a bundle.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{exec, exec_script, host_with_image, up_busybox};
use crate::common::bottle::{down, up};
use crate::common::images;

#[test]
fn volumes_show_the_hosts_files_as_they_are_now() {
    let host = host_with_image();
    let (directory, file) = (host.dir().join("shared"), host.dir().join("single"));
    fs::write(directory.join("in"), "one").unwrap();
    fs::write(&file, "one").unwrap();
    let both_ways = |source: &Path, to: &str| format!("{}:{to}", source.display());
    let flags = [
        "-v",
        &both_ways(&directory, "/d"),
        "-v",
        &both_ways(&file, "/etc/single"),
        "-v",
        &both_ways(&directory, "/read-only/d:ro"),
        "-v",
        &both_ways(&file, "/read-only/file:ro"),
    ];
    up_busybox(&host, &flags, &[]);
    // In place: a file that replaces another is another file, which a mount of the first hides.
    fs::write(directory.join("in"), "two").unwrap();
    fs::write(&file, "two").unwrap();
    for path in ["/d/in", "/etc/single", "/read-only/d/in", "/read-only/file"] {
        assert_eq!(exec(&host, &["cat", path]).ok().stdout(), "two", "{path}");
    }
    for path in ["/read-only/d/in", "/read-only/d/new", "/read-only/file"] {
        let output = exec_script(&host, &format!("echo three >{path}"));
        assert_ne!(output.exit_code(), Some(0), "{path}");
        assert!(output.stderr().contains("Read-only file system"), "{output}");
    }
    exec_script(&host, "echo -n three >/d/in; echo -n three >/etc/single; touch /d/new").ok();
    assert_eq!(fs::read_to_string(directory.join("in")).unwrap(), "three");
    assert_eq!(fs::read_to_string(&file).unwrap(), "three");
    assert!(directory.join("new").exists());
    down(&host, "demo");
    assert_eq!(fs::read_to_string(&file).unwrap(), "three");
}

#[test]
fn a_volumes_destination_stays_in_the_root_file_system() {
    let mut host = host_with_image();
    // skopeo's cache.
    host.allow("/var/lib/containers");
    // The image's own links, which lead to the host's directories if they are followed there.
    host.run(["mkdir", "/run/canary"]).ok();
    let layout = host.dir().join("links");
    let image = format!("{}:test-links", layout.display());
    let from = format!("oci:{}:test-busybox", images::busybox().layout.display());
    let scratch = format!("TMPDIR={}", host.dir().display());
    host.run(["env", &scratch, "skopeo", "copy", "-q", &from, &format!("oci:{image}")]).ok();
    let bundle = host.dir().join("bundle");
    let bundle_path = bundle.display().to_string();
    host.run(["umoci", "unpack", "--image", &image, &bundle_path]).ok();
    let rootfs = bundle.join("rootfs");
    symlink("/run/canary", rootfs.join("absolute")).unwrap();
    symlink("../../../../../../run/canary", rootfs.join("relative")).unwrap();
    symlink("/run/canary/file", rootfs.join("to-file")).unwrap();
    symlink("/proc/1/root/run/canary", rootfs.join("magic")).unwrap();
    fs::create_dir_all(rootfs.join("run/canary")).unwrap();
    fs::write(rootfs.join("run/canary/file"), "of the image").unwrap();
    host.run(["umoci", "repack", "--image", &image, &bundle_path]).ok();
    host.carboy(&["image", "load", &layout.display().to_string()]).ok();

    let (directory, file) = (host.dir().join("shared"), host.dir().join("single"));
    fs::write(directory.join("in"), "of the host").unwrap();
    fs::write(&file, "of the host").unwrap();
    let volume = |source: &PathBuf, to: &str| format!("{}:{to}", source.display());
    for (source, destination, seen_at) in [
        (&directory, "/absolute/new", "/run/canary/new/in"),
        (&directory, "/relative", "/run/canary/in"),
        (&directory, "/relative/new/er", "/run/canary/new/er/in"),
        (&file, "/absolute/single", "/run/canary/single"),
        (&file, "/to-file", "/run/canary/file"),
    ] {
        let flags = ["demo", "--image", "test-links", "-v", &volume(source, destination)];
        up(&host, &flags);
        assert_eq!(exec(&host, &["cat", seen_at]).ok().stdout(), "of the host", "{destination}");
        let left = fs::read_dir(host.path("/run/canary")).unwrap().count();
        assert_eq!(left, 0, "{destination} reached the host");
        down(&host, "demo");
    }
    // Into the kernel's own files it is refused, whichever way it leads there.
    let flags = ["up", "demo", "--image", "test-links", "-v", &volume(&directory, "/magic/new")];
    assert_ne!(host.carboy(&flags).exit_code(), Some(0));
    assert_eq!(fs::read_dir(host.path("/run/canary")).unwrap().count(), 0);
    down(&host, "demo");
    host.run(["rmdir", "/run/canary"]).ok();
}
