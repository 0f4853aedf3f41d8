//! What an image's configuration says is what its container has: user, groups, directory, variables,
//! volumes, stop signal. The images are umoci's, the container is looked at through /proc.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use crate::common::bottle::{down, inspect, up};
use crate::common::{TestHost, images, poll};

/// The busybox image with more in its configuration and in its root file system, loaded as `t`.
pub(crate) fn host_with(settings: &[&str], fill: impl FnOnce(&Path)) -> TestHost {
    let mut host = TestHost::new();
    // skopeo's cache.
    host.allow("/var/lib/containers");
    let place = |name: &str| host.dir().join(name).display().to_string();
    let (layout, bundle) = (place("layout"), place("bundle"));
    let image = format!("{layout}:t");
    let from = format!("oci:{}:test-busybox", images::busybox().layout.display());
    let scratch = format!("TMPDIR={}", host.dir().display());
    host.run(["env", &scratch, "skopeo", "copy", "-q", &from, &format!("oci:{image}")]).ok();
    host.run(["umoci", "unpack", "--image", &image, &bundle]).ok();
    fill(&Path::new(&bundle).join("rootfs"));
    host.run(["umoci", "repack", "--image", &image, &bundle]).ok();
    host.run([&["umoci", "config", "--image", &image], settings].concat()).ok();
    host.carboy(&["image", "load", &format!("oci:{layout}:t")]).ok();
    host
}

fn exec(host: &TestHost, script: &str) -> String {
    host.carboy(&["exec", "demo", "--", "sh", "-c", script]).ok().stdout()
}

#[test]
fn user_groups_directory_and_variables_are_the_images() {
    let settings = [
        "--config.user",
        "app",
        "--config.workingdir",
        "/made/by/image",
        "--config.env",
        "A=b=c",
        "--config.exposedports",
        "53/udp",
        "--config.exposedports",
        "8080/tcp",
        "--config.label",
        "k=v",
        "--config.stopsignal",
        "SIGINT",
    ];
    let host = host_with(&settings, |root| {
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:\napp:x:1000:1001::/home/app:\n")
            .unwrap();
        let group = "root:x:0:\nother:x:9:appx\nvideo:x:44:root,app\napp:x:1001:\nlog:x:5:app\n";
        fs::write(root.join("etc/group"), group).unwrap();
    });
    up(&host, &["demo", "--image", "t"]);
    let pid = inspect(&host, "demo")["pid"].as_u64().unwrap();
    let status = fs::read_to_string(host.path(format!("/proc/{pid}/status"))).unwrap();
    let line = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("Uid:"), "1000 1000 1000 1000");
    assert_eq!(line("Gid:"), "1001 1001 1001 1001");
    assert_eq!(line("Groups:"), "5 44 1001");
    assert_eq!(exec(&host, "pwd; echo $A $HOME"), "/made/by/image\nb=c /home/app\n");
    let details = host.carboy(&["image", "inspect", "--json", "t"]).ok().stdout_json();
    let config = &details["config"];
    assert_eq!(config["exposed_ports"], serde_json::json!(["53/udp", "8080/tcp"]));
    assert_eq!((&config["user"], &config["labels"]["k"]), (&"app".into(), &"v".into()));
    assert_eq!(config["stop_signal"], "SIGINT");
    down(&host, "demo");
    // A number needs no entry, and has no groups but its own.
    up(&host, &["demo", "--image", "t", "-u", "4242"]);
    assert_eq!(exec(&host, "id -u; id -G"), "4242\n0\n");
    down(&host, "demo");
    host.carboy(&["up", "--json", "demo", "--image", "t", "-u", "nobody"]).error(3, "not-found");
    host.assert_clean();
}

#[test]
fn the_images_stop_signal_ends_it() {
    let script = "trap 'echo asked >/out/how; exit 0' USR1; trap '' TERM; echo ready >/out/how; \
                  while :; do sleep 0.1; done";
    let settings = [
        "--config.stopsignal",
        "SIGUSR1",
        "--config.cmd",
        "/bin/sh",
        "--config.cmd",
        "-c",
        "--config.cmd",
        script,
    ];
    let host = host_with(&settings, |_| {});
    let out = host.dir().join("out");
    fs::create_dir(&out).unwrap();
    up(&host, &["demo", "--image", "t", "-v", &format!("{}:/out", out.display())]);
    let how = || fs::read_to_string(out.join("how")).unwrap_or_default();
    assert!(poll(Duration::from_secs(10), || how() == "ready\n"), "{}", how());
    host.carboy(&["stop", "-t", "60", "demo"]).ok();
    assert_eq!(how(), "asked\n");
    down(&host, "demo");
}

#[test]
fn the_images_volumes_are_file_systems_in_memory() {
    let volumes = ["/data", "/owned", "/filled", "/given", "/data/inner", "made/for/it", "/proc/x"];
    let settings: Vec<&str> =
        volumes.iter().flat_map(|volume| ["--config.volume", volume]).collect();
    let host = host_with(&settings, |root| {
        for directory in ["owned", "filled", "given"] {
            fs::create_dir(root.join(directory)).unwrap();
        }
        chown(root.join("owned"), Some(1000), Some(1000)).unwrap();
        fs::set_permissions(root.join("owned"), fs::Permissions::from_mode(0o1770)).unwrap();
        fs::write(root.join("filled/file"), "of the image").unwrap();
    });
    let given = host.dir().join("given");
    fs::create_dir(&given).unwrap();
    let volume = format!("{}:/given", given.display());
    let flags = ["demo", "--image", "t", "--read-only", "--memory", "64m", "-v", &volume];
    assert_eq!(up(&host, &flags)["changed"], true);
    assert_eq!(up(&host, &flags)["changed"], false);
    let pid = inspect(&host, "demo")["pid"].as_u64().unwrap();
    let mounts = fs::read_to_string(host.path(format!("/proc/{pid}/mountinfo"))).unwrap();
    let tmpfs = |path: &str| {
        let mut lines = mounts.lines().filter(|line| line.split(' ').nth(4) == Some(path));
        lines.find(|line| line.contains(" - tmpfs ")).map(str::to_owned)
    };
    for path in ["/data", "/owned", "/made/for/it"] {
        let line = tmpfs(path).unwrap_or_else(|| panic!("{path} in {mounts}"));
        for option in ["nosuid", "nodev", "size=65536k"] {
            assert!(line.contains(option), "{option} in {line}");
        }
    }
    for path in ["/filled", "/given", "/data/inner", "/proc/x"] {
        assert_eq!(tmpfs(path), None, "{mounts}");
    }
    assert_eq!(exec(&host, "stat -c '%u:%g %a' /owned /data"), "1000:1000 1770\n0:0 755\n");
    exec(&host, "echo new >/data/file; echo new >/made/for/it/file; echo new >/given/file");
    assert_eq!(exec(&host, "cat /filled/file"), "of the image");
    let refused = host.carboy(&["exec", "demo", "--", "touch", "/filled/new"]);
    assert!(refused.stderr().contains("Read-only file system"), "{refused}");
    assert_eq!(fs::read_to_string(given.join("file")).unwrap(), "new\n");
    down(&host, "demo");
    // They go with the bundle.
    up(&host, &flags);
    assert_eq!(exec(&host, "ls /data"), "");
    down(&host, "demo");
}
