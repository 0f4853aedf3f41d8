//! AppArmor, where the kernel has it on, and what carboy says where it has not. Profiles are the
//! machine's, not a namespace's: what is loaded here goes when its test ends.

use std::fs;
use std::path::Path;

use crate::common::bottle::{down, load, up};
use crate::common::{TestHost, images};

/// The profile that carboy ships.
const SHIPPED: &str = "contrib/apparmor/carboy-default";

/// Whether the kernel enforces profiles (it may have AppArmor built in and another module on).
fn is_on() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'))
}

/// The shipped profile's text, under another name.
fn shipped_as(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(SHIPPED);
    fs::read_to_string(path).unwrap().replace("profile carboy-default", &format!("profile {name}"))
}

/// A host that shows which profiles are loaded, as a machine does.
fn host() -> TestHost {
    let mut host = TestHost::new();
    if is_on() {
        host.run(["mount", "-t", "securityfs", "securityfs", "/sys/kernel/security"]).ok();
        host.take_baseline();
    }
    host
}

/// The shipped profile, loaded as long as this lives.
struct Loaded<'a> {
    host: &'a TestHost,
    file: String,
}

impl<'a> Loaded<'a> {
    fn new(host: &'a TestHost, name: &str) -> Self {
        let file = host.dir().join(name).display().to_string();
        fs::write(&file, shipped_as(name)).unwrap();
        host.run(["apparmor_parser", "--skip-cache", "--replace", &file]).ok();
        Self { host, file }
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        self.host.run(["apparmor_parser", "--remove", &self.file]).ok();
    }
}

/// What confines the first process, and a command.
fn confinement(host: &TestHost, flags: &[&str]) -> [String; 2] {
    let bottle = up(host, &[&["demo", "--image", "test-busybox"], flags].concat());
    let attribute = format!("/proc/{}/attr/current", bottle["pid"]);
    let of_init = host.run(["cat", &attribute]).ok().stdout();
    let of_exec = exec(host, "cat /proc/self/attr/current").ok().stdout();
    down(host, "demo");
    [of_init, of_exec].map(|text| text.trim_end().to_owned())
}

fn exec(host: &TestHost, script: &str) -> crate::common::Output {
    host.carboy(&["exec", "demo", "--", "sh", "-c", script])
}

#[test]
fn the_shipped_profile_compiles() {
    let host = TestHost::new();
    let file = host.dir().join("profile");
    fs::write(&file, shipped_as("carboy-default")).unwrap();
    let file = file.display().to_string();
    host.run(["apparmor_parser", "--skip-kernel-load", "--skip-cache", "--debug", &file]).ok();
}

#[test]
fn a_profile_that_cannot_be_had_is_refused_before_anything_changes() {
    let host = host();
    let missing = ["up", "--json", "demo", "--security-opt", "apparmor=carboy-it-missing"];
    let (exit, code) = if is_on() { (3, "not-found") } else { (7, "unsupported") };
    let error = host.carboy(&missing).error(exit, code);
    assert!(error["message"].to_string().contains("carboy-it-missing"), "{error}");
    host.assert_clean();
    // What asks for none can be had anywhere.
    up(&host, &["demo", "--security-opt", "apparmor=unconfined"]);
    down(&host, "demo");
}

#[test]
fn the_first_process_and_commands_have_the_profile() {
    let host = host();
    load(&host, &images::busybox());
    if !is_on() {
        let bottle = up(&host, &["demo", "--image", "test-busybox"]);
        let config = host.run(["find", "/run/carboy", "-name", "config.json"]).ok().stdout();
        let config = fs::read_to_string(host.path(config.trim())).unwrap();
        assert!(bottle["pid"].is_u64() && !config.contains("apparmorProfile"), "{config}");
        down(&host, "demo");
        return;
    }
    let own = format!("carboy-it-{}", std::process::id());
    let asked = format!("apparmor={own}");
    {
        let _own = Loaded::new(&host, &own);
        let both = confinement(&host, &["--security-opt", &asked]);
        assert_eq!(both, [format!("{own} (enforce)"), format!("{own} (enforce)")]);
    }
    // The machine may have it already.
    let profiles = host.run(["cat", "/sys/kernel/security/apparmor/profiles"]).ok().stdout();
    let _default = (!profiles.lines().any(|l| l.starts_with("carboy-default "))).then(|| {
        assert_eq!(confinement(&host, &[]), ["unconfined"; 2]);
        Loaded::new(&host, "carboy-default")
    });
    assert_eq!(confinement(&host, &["--init"]), ["carboy-default (enforce)"; 2]);
    let unconfined = ["--security-opt", "apparmor=unconfined"];
    assert_eq!(confinement(&host, &unconfined), ["unconfined"; 2]);
    confines(&host);
}

/// What the shipped profile keeps from a bundle whose other confinement was loosened, and what it
/// leaves alone.
fn confines(host: &TestHost) {
    let loose = ["--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined"];
    let start = |more: &[&str]| {
        up(host, &[&["demo", "--image", "test-busybox"], &loose[..], more].concat());
    };
    let mount = "busybox mount -t tmpfs none /tmp 2>&1";
    let remount = "busybox mount -o remount,bind,rw /proc/sys 2>&1";
    let unmount = "busybox umount /sys/firmware 2>&1";
    start(&["--security-opt", "apparmor=unconfined"]);
    for script in [mount, remount, unmount] {
        exec(host, script).ok();
    }
    down(host, "demo");
    start(&[]);
    for script in [mount, remount, unmount] {
        let output = exec(host, script);
        let refused = output.stdout().to_lowercase().contains("permission denied");
        assert!(refused && output.exit_code() != Some(0), "{script}: {output}");
    }
    let usual = "busybox sleep 100 & busybox kill $! && echo x >/tmp/file && busybox cat /tmp/file \
                 && busybox ps >/dev/null && busybox readlink /proc/1/exe";
    assert_eq!(exec(host, usual).ok().stdout(), "x\n/bin/busybox\n");
    // The host's own signals arrive.
    host.carboy(&["kill", "-s", "TERM", "demo"]).ok();
    down(host, "demo");
}
