//! Files of the host in a bundle with ids of its own: with the host's ids, or with the same ones.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use super::{arguments, both_kinds, exec, first_id, script, start, with_image};
use crate::common::TestHost;
use crate::common::bottle::{down, text};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_plain_volume_has_the_hosts_ids_and_a_mapped_one_those_inside() {
    let host = with_image(TestHost::new());
    let shared = host.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    mode(&shared, 0o755);
    for (name, owner, bits) in [("secret", 0, 0o600), ("open", 0, 0o644), ("webs", 1000, 0o600)] {
        let path = shared.join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        mode(&path, bits);
    }
    let single = host.dir().join("single");
    fs::write(&single, "single").unwrap();
    mode(&single, 0o600);
    let at = |path: &Path, to: &str| format!("{}:{to}", path.display());
    let flags = [
        "-v",
        &at(&shared, "/plain"),
        "-v",
        &at(&shared, "/mapped:idmap"),
        "-v",
        &at(&shared, "/fixed:ro,idmap"),
        "-v",
        &at(&single, "/single:idmap"),
        "-v",
        &at(&single, "/plain-single"),
    ];
    start(&host, &flags, &[]);
    for path in ["/plain/secret", "/plain/webs", "/plain-single"] {
        let refused = exec(&host, &["cat", path]);
        assert_ne!(refused.exit_code(), Some(0), "{path}: {refused}");
        assert!(refused.stderr().contains("Permission denied"), "{path}: {refused}");
    }
    assert_eq!(script(&host, "cat /plain/open"), "open");
    assert_eq!(script(&host, "cat /mapped/secret /mapped/webs /single"), "secretwebssingle");
    let web = host.carboy(&["exec", "-u", "web", "demo", "--", "cat", "/mapped/webs"]);
    assert_eq!(web.ok().stdout(), "webs");
    let owners = "busybox stat -c '%u' /plain/secret /mapped/secret /mapped/webs /single";
    assert_eq!(
        script(&host, owners).split_whitespace().collect::<Vec<_>>(),
        ["65534", "0", "1000", "0"]
    );
    script(&host, "echo new >/mapped/new; busybox chown 1000 /mapped/new");
    assert_eq!(fs::metadata(shared.join("new")).unwrap().uid(), 1000, "on the host");
    for path in ["/plain/x", "/fixed/x"] {
        let refused = exec(&host, &["touch", path]);
        assert_ne!(refused.exit_code(), Some(0), "{path}: {refused}");
    }
    down(&host, "demo");
    // The same again without ids of its own makes no sense.
    let idmap = at(&shared, "/mapped:idmap");
    let all = ["up", "--json", "demo", "--image", "test-busybox", "-v", &idmap];
    let error = host.carboy(&all).error(2, "invalid");
    assert!(text(&error, "hint").contains("--userns"), "{error}");
}

#[test]
fn the_way_to_a_source_may_be_closed_to_the_bundle() {
    let host = with_image(TestHost::new());
    let closed = host.dir().join("closed");
    fs::create_dir_all(closed.join("open")).unwrap();
    fs::write(closed.join("open/file"), "seen").unwrap();
    mode(&closed, 0o700);
    let flags = ["-v", &format!("{}:/d", closed.join("open").display())];
    start(&host, &flags, &[]);
    assert_eq!(script(&host, "cat /d/file"), "seen");
    down(&host, "demo");
}

#[test]
fn a_file_system_that_cannot_is_named_and_nothing_is_left() {
    let host = with_image(TestHost::new());
    let all = [&["up", "--json"], &arguments(&["-v", "/sys/kernel:/k:idmap"], &[])[..]].concat();
    let error = host.carboy(&all).error(7, "unsupported");
    let message = text(&error, "message");
    assert!(error.to_string().contains("/sys/kernel (sysfs)"), "{error}");
    assert!(text(&error, "hint").contains("Linux 5.12"), "{message}");
    host.assert_clean();
}

#[test]
fn what_is_in_memory_belongs_to_whom_it_should() {
    for host in both_kinds() {
        let file = host.dir().join("key").display().to_string();
        fs::write(&file, "k3y").unwrap();
        let secret = format!("key={file}");
        let flags = [
            "--user",
            "web",
            "--read-only",
            "--init",
            "--secret",
            &secret,
            "--tmpfs",
            "/mine:uid=1000,gid=1000,mode=700",
            "--tmpfs",
            "/roots:mode=755",
        ];
        start(&host, &flags, &[]);
        let said = script(
            &host,
            "cat /run/secrets/key; echo; touch /mine/x /tmp/x && echo made; \
             touch /roots/x /etc/x 2>/dev/null || echo refused; \
             busybox stat -c '%a %u:%g %n' /run/secrets/key /run/secrets /mine /roots /mine/x /dev/shm; \
             busybox tr '\\0' ' ' </proc/1/cmdline | busybox cut -c 1-13",
        );
        let lines: Vec<&str> = said.lines().collect();
        let want = [
            "k3y",
            "made",
            "refused",
            "400 1000:1000 /run/secrets/key",
            "500 1000:1000 /run/secrets",
            "700 1000:1000 /mine",
            "755 0:0 /roots",
            "644 1000:1000 /mine/x",
            "1777 0:0 /dev/shm",
            "/.carboy-init",
        ];
        assert_eq!(lines, want, "{said}");
        // What it writes to its own streams reaches the log, opened anew or not.
        assert!(first_id(&host, "demo") > 0);
        down(&host, "demo");
        host.assert_clean();
    }
}
