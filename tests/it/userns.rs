//! Bundles with ids of their own (`--userns`): root inside is nobody on the host, and all else is as
//! for other bundles.

mod exec;
mod image;
mod life;
mod network;
mod volumes;

use std::fs;

use serde_json::Value;

use crate::common::bottle::{down, inspect, load, up};
use crate::common::{Output, TestHost, images};

/// Ids of a range, and within which numbers it lies.
const SIZE: u64 = 65_536;
const NUMBERS: std::ops::RangeInclusive<u64> = 524_288..=1_878_982_656;

const CONTAINER: &str = "claude-bottle-sidecars-demo";

/// A host with the busybox image.
fn with_image(host: TestHost) -> TestHost {
    load(&host, &images::busybox());
    host
}

/// Hybrid control groups, and nothing but version 2.
fn both_kinds() -> [TestHost; 2] {
    [with_image(TestHost::new()), with_image(TestHost::cgroup2())]
}

/// Brings `demo` up with ids of its own, these flags and this command.
#[track_caller]
fn start(host: &TestHost, flags: &[&str], command: &[&str]) -> Value {
    up(host, &arguments(flags, command))
}

fn arguments<'a>(flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
    let separator: &[&str] = if command.is_empty() { &[] } else { &["--"] };
    [&["demo", "--image", "test-busybox", "--userns"], flags, separator, command].concat()
}

fn exec(host: &TestHost, command: &[&str]) -> Output {
    host.carboy(&[&["exec", "demo", "--"], command].concat())
}

fn script(host: &TestHost, script: &str) -> String {
    exec(host, &["sh", "-c", script]).ok().stdout()
}

/// The host's id of root in `demo`.
#[track_caller]
fn first_id(host: &TestHost, slug: &str) -> u64 {
    let ids = &inspect(host, slug)["userns"];
    let first = ids["first"].as_u64().unwrap_or_else(|| panic!("{ids}"));
    assert_eq!(ids["size"], SIZE);
    assert_eq!(first % SIZE, 0);
    assert!(NUMBERS.contains(&first), "{first}");
    first
}

/// A line of `/proc/<pid>/status` of the host.
fn status(host: &TestHost, pid: &str, key: &str) -> String {
    let all = host.run(["cat", &format!("/proc/{pid}/status")]).ok().stdout();
    let line = all.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("{key} in {all}")).trim().to_owned()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[test]
fn root_inside_is_nobody_outside_and_root_on_disk() {
    for host in both_kinds() {
        let bottle = start(&host, &[], &[]);
        let first = first_id(&host, "demo");
        let (root, size) = (first.to_string(), SIZE.to_string());
        for file in ["uid_map", "gid_map"] {
            let map = script(&host, &format!("cat /proc/self/{file} /proc/1/{file}"));
            assert_eq!(words(&map), ["0", &root, &size, "0", &root, &size]);
        }
        let pid = bottle["pid"].to_string();
        for key in ["Uid", "Gid"] {
            assert_eq!(words(&status(&host, &pid, key)), [root.as_str(); 4]);
        }
        assert_eq!(status(&host, &pid, "Groups"), root);
        // All that the image and carboy have put there is root's inside, and may be changed by it.
        let said = script(
            &host,
            "id -u; echo x >>/etc/passwd; echo x >/etc/new; busybox chown 1000:1000 /www; \
             busybox stat -c '%u:%g %n' / /bin/busybox /etc/hosts /etc/resolv.conf /etc/new /www /dev /tmp; \
             busybox su web -c 'touch /www/own; id -u'",
        );
        let lines: Vec<&str> = said.lines().collect();
        let of_root = |path: &str| format!("0:0 {path}");
        let paths = ["/", "/bin/busybox", "/etc/hosts", "/etc/resolv.conf", "/etc/new"];
        let mut want = vec!["0".to_owned()];
        want.extend(paths.map(of_root));
        want.extend(["1000:1000 /www".to_owned(), of_root("/dev"), of_root("/tmp")]);
        want.push("1000".to_owned());
        assert_eq!(lines, want);
        // On disk all of it has the ids of the image: the layers are shared with other bundles.
        let upper = format!("/var/lib/carboy/bundles/{CONTAINER}/upper");
        let on_disk =
            |path: &str| host.run(["stat", "-c", "%u:%g", &format!("{upper}{path}")]).ok().stdout();
        for (path, want) in [
            ("", "0:0"),
            ("/etc/new", "0:0"),
            ("/etc/passwd", "0:0"),
            ("/etc/hosts", "0:0"),
            ("/www", "1000:1000"),
            ("/www/own", "1000:1000"),
        ] {
            assert_eq!(on_disk(path).trim(), want, "{path}");
        }
        // Files of the host's root that nobody else may read are not to be read either.
        let refused = exec(&host, &["cat", "/proc/1/root/../proc/kcore"]);
        assert_eq!(refused.stdout(), "", "{refused}");
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn no_two_have_an_id_in_common_and_each_keeps_its_own() {
    let mut host = with_image(TestHost::new());
    let flags = |slug: &'static str| [slug, "--image", "test-busybox", "--userns=auto"];
    up(&host, &flags("one"));
    up(&host, &flags("two"));
    let (one, two) = (first_id(&host, "one"), first_id(&host, "two"));
    assert!(one.abs_diff(two) >= SIZE);
    assert_eq!(up(&host, &flags("one"))["changed"], false);
    assert_eq!(first_id(&host, "one"), one);
    // The name gives the range; what somebody else has is passed over.
    down(&host, "one");
    up(&host, &flags("one"));
    assert_eq!(first_id(&host, "one"), one);
    down(&host, "one");
    let taken = host.dir().join("subuid").display().to_string();
    fs::write(&taken, format!("somebody:{}:10\n", one + 700)).unwrap();
    host.run(["touch", "/etc/subuid"]).ok();
    host.run(["mount", "--bind", &taken, "/etc/subuid"]).ok();
    host.take_baseline();
    up(&host, &flags("one"));
    let other = first_id(&host, "one");
    assert!(other.abs_diff(one) >= SIZE && other.abs_diff(two) >= SIZE, "{other}");
    down(&host, "one");
    down(&host, "two");
    host.run(["umount", "/etc/subuid"]).ok();
    host.forget_leaks();
}

#[test]
fn it_is_part_of_what_a_bundle_is() {
    let host = with_image(TestHost::new());
    let fixed = ["up", "--json", "demo", "--image", "test-busybox"];
    let with = |more: &[&str]| host.carboy(&[&fixed[..], more].concat());
    with(&[]).ok();
    assert!(inspect(&host, "demo")["userns"].is_null());
    let conflict = with(&["--userns"]).error(4, "conflict").to_string();
    assert!(conflict.contains("user namespace of the host (wanted: with the ids "), "{conflict}");
    with(&["--userns=auto", "--replace"]).ok();
    let first = first_id(&host, "demo");
    assert_eq!(words(&script(&host, "cat /proc/1/uid_map"))[1], first.to_string());
    assert_eq!(with(&["--userns"]).ok().stdout_json()["changed"], false);
    with(&[]).error(4, "conflict");
    with(&["--userns=host", "--replace"]).ok();
    assert!(inspect(&host, "demo")["userns"].is_null());
    assert_eq!(words(&script(&host, "cat /proc/1/uid_map"))[1], "0");
    assert_eq!(script(&host, "busybox ping -c 1 localhost >/dev/null 2>&1; id -u").trim(), "0");
    down(&host, "demo");
    // `plan` writes nothing, and takes the same words.
    host.carboy(&["plan", "--userns", "demo", "--image", "test-busybox"]).ok();
    with(&["--userns=other"]).error(2, "usage");
    host.assert_clean();
}

#[test]
fn the_configuration_file_says_what_holds_for_all() {
    let mut host = with_image(TestHost::new());
    crate::common::bottle::configure(&host, "userns = \"auto\"\n");
    host.take_baseline();
    up(&host, &["demo", "--image", "test-busybox"]);
    first_id(&host, "demo");
    down(&host, "demo");
    up(&host, &["demo", "--image", "test-busybox", "--userns=host"]);
    assert!(inspect(&host, "demo")["userns"].is_null());
    down(&host, "demo");
}

#[test]
fn ids_that_the_range_lacks_are_refused_and_nothing_is_left() {
    let host = with_image(TestHost::new());
    for flags in [&["--user", "65536"][..], &["--user", "web:70000"], &["--tmpfs", "/x:uid=65536"]]
    {
        let all = [&["up", "--json"], &arguments(flags, &[])[..]].concat();
        let error = host.carboy(&all).error(2, "invalid");
        assert!(error.to_string().contains("none of the 65536 ids"), "{error}");
        host.assert_clean();
    }
}

#[test]
fn it_is_confined_as_others_are() {
    for host in both_kinds() {
        let look = "busybox grep -E '^(Cap|NoNew|Seccomp:|Umask)' /proc/self/status; \
                    cat /proc/self/limits; busybox awk '{print $2, $3}' /proc/self/mounts; \
                    ls /dev /sys/class/net; hostname; \
                    for words in 'unshare -U busybox true' 'unshare -m busybox true' \
                        'mount -t tmpfs x /tmp' 'umount /proc' 'mount -o remount,rw /sys' \
                        'mknod /tmp/sda b 8 0' 'hostname other' 'chroot / busybox true'; do
                        busybox $words 2>/dev/null && echo allowed: $words; done; \
                    for file in /proc/sys/kernel/hostname /proc/sysrq-trigger \
                        /sys/kernel/uevent_seqnum /sys/fs/cgroup/new; do \
                        (echo 0 >$file) 2>/dev/null && echo written: $file; done; \
                    for file in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do \
                        [ ! -e $file ] || [ $(busybox head -c 1 $file | wc -c) = 0 ] || echo $file; done; \
                    ls /sys/firmware";
        let mut seen = Vec::new();
        for mode in ["--userns=host", "--userns=auto"] {
            up(&host, &["demo", "--image", "test-busybox", mode]);
            let all = exec(&host, &["sh", "-c", look]).stdout();
            // Devices cannot be made in a user namespace: the host's are bound, /dev/null also on what
            // is hidden.
            let all = all.replace("devtmpfs", "tmpfs");
            let is_device = |line: &&str| line.starts_with("/dev/") && line.ends_with(" tmpfs");
            let of_hidden = |line: &&str| !is_device(line) || line.starts_with("/dev/shm");
            seen.push(all.lines().filter(of_hidden).collect::<Vec<_>>().join("\n"));
            down(&host, "demo");
        }
        assert!(seen[0].lines().count() > 40 && !seen[0].contains("allowed"), "{}", seen[0]);
        assert_eq!(seen[0], seen[1]);
    }
}
