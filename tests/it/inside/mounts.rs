//! File systems in memory, secrets and files of variables.

use std::fs;

use super::{exec, exec_script, fields, host_with_image, inspect, up_busybox};
use crate::common::bottle::{down, text};
use crate::common::{TestHost, images};

/// A line of the bundle's mount table, by its place: type and options.
fn mount_at(host: &TestHost, place: &str) -> Option<(String, String)> {
    let table = exec(host, &["cat", "/proc/self/mounts"]).ok().stdout();
    let line = table.lines().rfind(|line| line.split(' ').nth(1) == Some(place))?;
    let field = |n| line.split(' ').nth(n).unwrap_or_default().to_owned();
    Some((field(2), field(3)))
}

#[test]
fn a_read_only_root_leaves_room_where_programs_expect_it() {
    let host = host_with_image();
    up_busybox(&host, &["--read-only", "--tmpfs", "/cache:size=1m,mode=700,exec"], &[]);
    for (place, mode) in
        [("/run", "755"), ("/tmp", "1777"), ("/var/tmp", "1777"), ("/cache", "700")]
    {
        let (kind, options) = mount_at(&host, place).unwrap_or_else(|| panic!("{place}"));
        assert_eq!(kind, "tmpfs", "{place}");
        for word in ["rw", "nosuid", "nodev"] {
            assert!(options.split(',').any(|o| o == word), "{place}: {options}");
        }
        assert_eq!(options.contains("noexec"), place != "/cache", "{place}: {options}");
        assert_eq!(exec(&host, &["stat", "-c", "%a", place]).ok().stdout().trim(), mode);
        exec(&host, &["touch", &format!("{place}/new")]).ok();
    }
    let full = exec_script(&host, "busybox dd if=/dev/zero of=/cache/big bs=1k count=2048");
    assert!(full.stderr().contains("No space left"), "{full}");
    for place in ["/new", "/etc/new", "/www/new"] {
        assert_ne!(exec(&host, &["touch", place]).exit_code(), Some(0), "{place}");
    }
    down(&host, "demo");
    up_busybox(&host, &["--read-only", "--read-only-tmpfs=false"], &[]);
    assert_eq!(mount_at(&host, "/tmp"), None);
    assert_ne!(exec(&host, &["touch", "/tmp/new"]).exit_code(), Some(0));
    down(&host, "demo");
}

#[test]
fn volumes_bring_no_devices_and_no_privileges() {
    let host = host_with_image();
    let volume = format!("{}:/d:z", host.dir().join("shared").display());
    let node = host.dir().join("shared/null").display().to_string();
    host.run(["mknod", "-m", "666", &node, "c", "1", "3"]).ok();
    up_busybox(&host, &["-v", &volume], &[]);
    let (_, options) = mount_at(&host, "/d").unwrap();
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    let opened = exec_script(&host, "echo x >/d/null");
    assert!(opened.stderr().contains("ermission denied"), "{opened}");
    down(&host, "demo");
}

#[test]
fn a_label_for_a_volume_makes_no_other_bundle_where_there_are_no_labels() {
    let host = host_with_image();
    let volume = format!("{}:/d", host.dir().join("shared").display());
    let disable = ["--security-opt", "label=disable"];
    for flags in [&[][..], &disable] {
        let with = |label: &str| {
            let volume = format!("{volume}{label}");
            up_busybox(&host, &[&["--init", "-v", &volume], flags].concat(), &[])
        };
        assert_eq!(with("")["changed"], true, "{flags:?}");
        for label in [":z", ":Z", ""] {
            assert_eq!(with(label)["changed"], false, "{label} {flags:?}");
        }
        down(&host, "demo");
    }
}

#[test]
fn what_cannot_be_mounted_is_refused_and_nothing_stays() {
    let host = host_with_image();
    let shared = host.dir().join("shared").display().to_string();
    let refused = |flags: &[&str], exit, code, word: &str| {
        let head = ["up", "--json", "demo", "--image", "test-busybox"];
        let error = host.carboy(&[&head[..], flags].concat()).error(exit, code);
        assert!(error.to_string().contains(word), "{word}: {error}");
        host.assert_clean();
    };
    let at = |place: &str| format!("{shared}:{place}");
    refused(&["-v", "shared:/d"], 2, "invalid", "absolute");
    refused(&["-v", "/:/host"], 2, "invalid", "host's /");
    refused(&["-v", "/nope:/d"], 3, "not-found", "/nope");
    refused(&["-v", &at("/")], 2, "invalid", "root");
    refused(&["-v", &at("/proc/sys")], 2, "invalid", "/proc");
    refused(&["-v", &at("/d"), "-v", &at("/d/")], 2, "invalid", "two mounts");
    refused(&["-v", &at("/d"), "--tmpfs", "/d"], 2, "invalid", "two mounts");
    refused(&["--tmpfs", "/d:dev"], 2, "invalid", "dev");
    refused(&["--tmpfs", "/sys/fs"], 2, "invalid", "/sys");
    refused(&["--secret", "a=/nope"], 3, "not-found", "/nope");
    refused(&["--secret", "a=env:NOPE"], 3, "not-found", "NOPE");
    refused(&["--secret", "../a=/etc/passwd"], 2, "invalid", "name");
    let secret = host.dir().join("secret").display().to_string();
    fs::write(&secret, "x").unwrap();
    let given = format!("a={secret}");
    refused(&["--secret", &given, "-v", &at("/run/secrets")], 2, "invalid", "secrets");
    let bad = host.dir().join("bad.env").display().to_string();
    fs::write(&bad, "A=1\n=s3cret\n").unwrap();
    refused(&["--env-file", &bad], 2, "invalid", "line 2");
    refused(&["--env-file", "/nope"], 3, "not-found", "/nope");
    refused(&["--memory-swap", "1g"], 2, "invalid", "memory");
    refused(&["--device-read-bps", "/dev/null:1m"], 2, "invalid", "block device");
}

/// The image's links may lead a place somewhere else: onto the kernel's files, or onto another
/// mount.
#[test]
fn places_are_judged_where_they_really_are() {
    let mut host = host_with_image();
    // skopeo's cache.
    host.allow("/var/lib/containers");
    let layout = host.dir().join("links");
    let image = format!("{}:test-links", layout.display());
    let from = format!("oci:{}:test-busybox", images::busybox().layout.display());
    let scratch = format!("TMPDIR={}", host.dir().display());
    host.run(["env", &scratch, "skopeo", "copy", "-q", &from, &format!("oci:{image}")]).ok();
    let bundle = host.dir().join("bundle").display().to_string();
    host.run(["umoci", "unpack", "--image", &image, &bundle]).ok();
    let links = format!(
        "cd {bundle}/rootfs && ln -s /sys to-sys && ln -s proc to-proc && ln -s dev to-dev && \
         ln -s /www to-www && ln -s / to-root"
    );
    host.run(["sh", "-c", &links]).ok();
    host.run(["umoci", "repack", "--image", &image, &bundle]).ok();
    host.carboy(&["image", "load", &layout.display().to_string()]).ok();
    let shared = host.dir().join("shared").display().to_string();
    host.take_baseline();
    let at = |place: &str| format!("{shared}:{place}");
    let two = [at("/to-www"), at("/www")];
    let cases: [&[&str]; 7] = [
        &["-v", &at("/to-sys")],
        &["-v", &at("/to-proc/sys")],
        &["-v", &at("/to-dev")],
        &["-v", &at("/to-root")],
        &["-v", &at("/to-root/proc")],
        &["--tmpfs", "/to-sys/fs/cgroup"],
        &["-v", &two[0], "-v", &two[1]],
    ];
    for flags in cases {
        let head = ["up", "--json", "demo", "--image", "test-links"];
        let output = host.carboy(&[&head[..], flags].concat());
        let error = output.error(2, "invalid");
        assert!(!error.to_string().is_empty());
        host.assert_clean();
    }
}

#[test]
fn secrets_are_seen_by_the_bundles_user_and_written_nowhere() {
    let host = host_with_image();
    let file = host.dir().join("key").display().to_string();
    fs::write(&file, b"k3y\n\x00\xff").unwrap();
    let from_file = format!("key.pem={file}");
    let flags =
        ["--user", "web", "--read-only", "--secret", &from_file, "--secret", "token=env:THE_TOKEN"];
    let up = |value: &str, more: &[&str]| {
        let head = ["up", "--json", "demo", "--image", "test-busybox"];
        host.carboy_with(&[&head[..], &flags, more].concat(), &[("THE_TOKEN", value)], None)
    };
    let first = up("t0ps3cret", &[]).ok().stdout_json();
    let script = "busybox stat -c '%a %u:%g %n' /run/secrets/* /run/secrets; \
                  cat /run/secrets/token; echo; busybox wc -c </run/secrets/key.pem; \
                  busybox touch /run/secrets/new 2>&1; env";
    let said = exec_script(&host, script).stdout();
    for line in [
        "400 1000:1000 /run/secrets/key.pem",
        "400 1000:1000 /run/secrets/token",
        "500 1000:1000 /run/secrets",
        "t0ps3cret",
        "6",
    ] {
        assert!(said.lines().any(|l| l == line), "{line}: {said}");
    }
    assert!(said.contains("Read-only file system"), "{said}");
    assert_eq!(said.matches("t0ps3cret").count(), 1, "in the environment: {said}");
    let (kind, options) = mount_at(&host, "/run/secrets").unwrap();
    assert_eq!(kind, "tmpfs");
    for word in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|o| o == word), "{word}: {options}");
    }
    // Nobody tells: not the verbs, not the records, not the files of the host.
    let shown = host.carboy(&["inspect", "--show-secrets", "demo"]).ok().stdout();
    assert!(shown.contains("token") && !shown.contains("t0ps3cret"), "{shown}");
    let found = host.run(["grep", "-rl", "t0ps3cret", "/run", "/var/lib/carboy", "/proc/mounts"]);
    assert_eq!(found.stdout(), "", "{found}");
    // The same again is no change, another content is one.
    assert_eq!(up("t0ps3cret", &[]).ok().stdout_json()["changed"], false);
    let conflict = up("other", &[]).error(4, "conflict").to_string();
    assert!(conflict.contains("another content of secret token"), "{conflict}");
    assert!(!conflict.contains("t0ps3cret") && !conflict.contains("other\""), "{conflict}");
    // One that has ended gets them again from whoever starts it.
    host.run(["kill", "-9", &first["pid"].to_string()]).ok();
    crate::common::poll(std::time::Duration::from_secs(10), || {
        inspect(&host, "demo")["state"] == "exited"
    });
    up("t0ps3cret", &[]).ok();
    assert_eq!(exec(&host, &["cat", "/run/secrets/token"]).ok().stdout(), "t0ps3cret");
    up("other", &["--replace"]).ok();
    assert_eq!(exec(&host, &["cat", "/run/secrets/token"]).ok().stdout(), "other");
    let status = exec(&host, &["cat", "/proc/1/status"]).ok().stdout();
    assert_eq!(fields(&status)["Uid"], "1000\t1000\t1000\t1000");
    down(&host, "demo");
}

#[test]
fn a_file_of_variables_is_read_as_docker_does() {
    let host = host_with_image();
    let file = host.dir().join("some.env");
    fs::write(&file, "\u{feff}A=1\n# no\n\nB=\"two\"  \nBARE\nUNSET_HERE\nC=file\r\nGREETING=\n")
        .unwrap();
    let path = file.display().to_string();
    let flags =
        ["up", "--json", "demo", "--image", "test-busybox", "--env-file", &path, "-e", "C=flag"];
    let output = host.carboy_with(&flags, &[("BARE", "of the caller")], None);
    output.ok();
    assert!(output.stderr().contains("UNSET_HERE"), "{output}");
    let env = exec(&host, &["env"]).ok().stdout();
    for line in ["A=1", "B=\"two\"  ", "BARE=of the caller", "C=flag", "GREETING="] {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
    assert!(!env.contains("UNSET_HERE"), "{env}");
    assert_eq!(text(&output.stdout_json(), "slug"), "demo");
    down(&host, "demo");
}
