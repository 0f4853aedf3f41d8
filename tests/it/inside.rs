//! What a bundle is from inside, for its first process and for `exec` alike.

mod hardening;
mod limits;
mod mounts;
mod volumes;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::bottle::{down, inspect, load, text, up};
use crate::common::{Output, TestHost, images, poll};

/// What CapEff and CapBnd are for root inside, by the bits of `capability.h`: chown, dac_override,
/// fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service; `KEPT` in
/// `src/oci/capabilities.rs` says why.
const CAPABILITIES: [u32; 9] = [0, 1, 3, 4, 5, 6, 7, 8, 10];

/// A host with the busybox image, and a directory `shared` in [`TestHost::dir`].
fn host_with_image() -> TestHost {
    with_image(TestHost::new())
}

fn with_image(host: TestHost) -> TestHost {
    load(&host, &images::busybox());
    let shared = host.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    // For every user inside.
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    host
}

/// Brings `demo` up with these flags and this command.
#[track_caller]
fn up_busybox(host: &TestHost, flags: &[&str], command: &[&str]) -> Value {
    let separator: &[&str] = if command.is_empty() { &[] } else { &["--"] };
    up(host, &[&["demo", "--image", "test-busybox"], flags, separator, command].concat())
}

fn exec(host: &TestHost, command: &[&str]) -> Output {
    host.carboy(&[&["exec", "demo", "--"], command].concat())
}

fn exec_script(host: &TestHost, script: &str) -> Output {
    exec(host, &["sh", "-c", script])
}

/// Runs `script` once as the bundle's first process and once by `exec`; what each wrote.
/// (In braces: in a subshell, busybox' shell ignores a signal.)
#[track_caller]
fn both(host: &TestHost, flags: &[&str], script: &str) -> [String; 2] {
    let shared = host.dir().join("shared");
    let volume = format!("{}:/shared", shared.display());
    let first = format!(
        "{{ {script}\n}} >/shared/part 2>&1; /bin/busybox mv /shared/part /shared/init; \
         while :; do sleep 1; done"
    );
    up_busybox(host, &[flags, &["-v", &volume]].concat(), &["sh", "-c", &first]);
    let told = poll(Duration::from_secs(10), || shared.join("init").exists());
    assert!(told, "the first process does not come to its end");
    let of_init = fs::read_to_string(shared.join("init")).unwrap();
    let of_exec = exec_script(host, &format!("{{ {script}\n}} 2>&1")).ok().stdout();
    down(host, "demo");
    [of_init, of_exec]
}

/// The lines `key: value` of a text.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.trim(), v.trim())).collect()
}

#[test]
fn both_are_without_privileges_to_gain_or_to_abuse() {
    let host = host_with_image();
    let kept: u64 = CAPABILITIES.iter().map(|bit| 1_u64 << bit).sum();
    for status in both(&host, &[], "cat /proc/self/status") {
        let found = fields(&status);
        assert_eq!(found["NoNewPrivs"], "1", "{status}");
        assert_eq!(found["Seccomp"], "2", "{status}");
        for (set, want) in
            [("CapInh", 0), ("CapPrm", kept), ("CapEff", kept), ("CapBnd", kept), ("CapAmb", 0)]
        {
            assert_eq!(u64::from_str_radix(found[set], 16), Ok(want), "{set} in {status}");
        }
        assert_eq!(found["Uid"], "0\t0\t0\t0");
        assert_eq!(found["Groups"], "0", "no group of the caller");
        for set in ["SigBlk", "SigIgn"] {
            assert_eq!(u64::from_str_radix(found[set], 16), Ok(0), "{set} in {status}");
        }
        assert_eq!(found["Umask"], "0022");
    }
    fs::remove_file(host.dir().join("shared/init")).unwrap();
    for status in both(&host, &["--user", "web"], "cat /proc/self/status; id") {
        let found = fields(&status);
        for (set, want) in [("CapPrm", 0), ("CapEff", 0), ("CapBnd", kept), ("CapAmb", 0)] {
            assert_eq!(u64::from_str_radix(found[set], 16), Ok(want), "{set} in {status}");
        }
        assert!(status.contains("uid=1000(web) gid=1000(web)"), "{status}");
    }
}

#[test]
fn forbidden_system_calls_fail_in_both() {
    let host = host_with_image();
    // Each must be refused for want of a right, not for want of a file or a word.
    let script = "for words in 'unshare -U busybox true' 'unshare -m busybox true' \
                      'unshare -n busybox true' 'mount -t tmpfs x /tmp' 'umount /proc' \
                      'mount -o remount,rw /sys' 'mknod /tmp/sda b 8 0' 'hostname other' \
                      'chroot / busybox true' 'reboot -f' 'swapoff /etc/passwd' \
                      'renice -n -5 -p 1'; do
            said=$(busybox $words 2>&1) && echo \"allowed: $words\"
            case $said in *'not permitted'*|*'ermission denied'*) ;; *) echo \"$words: $said\";; esac
        done; echo end";
    for said in both(&host, &[], script) {
        assert_eq!(said, "end\n");
    }
}

#[test]
fn nothing_of_the_host_is_open_in_either() {
    let host = host_with_image();
    // A caller that is careless: descriptors of its own that are inherited by all it starts.
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let careless = |arguments: &str| {
        let script = format!("exec 7</etc/passwd 8</ 9<>/dev/null; exec {carboy} {arguments}");
        host.spawn(["bash", "-c", &script])
    };
    let list = "for fd in /proc/self/fd/*; do echo $fd $(readlink $fd); done";
    let shared = host.dir().join("shared");
    let list_all = format!("busybox sh -c '{}'", list.replace("readlink", "busybox readlink"));
    let first =
        format!("{list_all} >/shared/part; busybox mv /shared/part /shared/init; sleep 999");
    fs::write(shared.join("first"), &first).unwrap();
    fs::write(shared.join("second"), &list_all).unwrap();
    let volume = format!("-v {}:/shared", shared.display());
    let mut call = careless(&format!("up demo --image test-busybox {volume} -- sh /shared/first"));
    assert_eq!(call.wait(), Some(0));
    assert!(poll(Duration::from_secs(10), || shared.join("init").exists()));
    let mut call = careless("exec demo -- sh /shared/second");
    let of_exec: Vec<String> = call.lines().collect();
    assert_eq!(call.wait(), Some(0));
    for said in [fs::read_to_string(shared.join("init")).unwrap(), of_exec.join("\n")] {
        // Its standard streams, and what the shell itself opened: the directory and the script.
        assert!(said.contains("/proc/self/fd/1"), "{said}");
        for line in said.lines() {
            let (fd, target) = line.split_once(' ').unwrap_or((line, ""));
            let number: u32 = fd.rsplit('/').next().unwrap().parse().unwrap();
            let own =
                target.starts_with("/shared/") || target.starts_with("/proc/") || target.is_empty();
            // The first process writes to named pipes, which outlive their reader.
            let named = ["/dev/null", "/run/stdout.pipe", "/run/stderr.pipe"];
            let named = named.get(number as usize).is_some_and(|name| target.ends_with(name));
            let stream =
                number <= 2 && (named || target.starts_with("pipe:") || target == "/dev/null");
            assert!(own || stream, "{line} in\n{said}");
        }
    }
    down(&host, "demo");
}

#[test]
fn the_environment_is_exactly_what_was_asked_for() {
    let host = host_with_image();
    let volume = format!("{}:/shared", host.dir().join("shared").display());
    let flags = ["-e", "A=1", "-e", "SECRET", "--daemons", "x,y", "-v", &volume];
    let first = "busybox tr '\\0' '\\n' </proc/1/environ >/shared/init; while :; do sleep 1; done";
    let command = ["--", "sh", "-c", first];
    let head = ["up", "demo", "--image", "test-busybox"];
    let secret = [("SECRET", "of the caller"), ("OTHER", "of the caller, not asked for")];
    host.carboy_with(&[&head[..], &flags, &command].concat(), &secret, None).ok();
    let want = [
        "A=1",
        "CARBOY_SLUG=demo",
        "CLAUDE_BOTTLE_SIDECAR_DAEMONS=x,y",
        "GREETING=hello",
        "HOME=/root",
        "PATH=/bin",
        "SECRET=of the caller",
    ];
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let init = host.dir().join("shared/init");
    let complete = || sorted(&fs::read_to_string(&init).unwrap_or_default()).len() >= want.len();
    poll(Duration::from_secs(10), complete);
    assert_eq!(sorted(&fs::read_to_string(&init).unwrap()), want);
    // `env` adds nothing of its own, where a shell would.
    assert_eq!(sorted(&exec(&host, &["env"]).ok().stdout()), want);
    down(&host, "demo");
}

#[test]
fn the_kernels_files_are_masked_and_read_only_in_both() {
    let host = host_with_image();
    let script = "
        for file in /proc/sys/kernel/hostname /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger \
                    /proc/irq/default_smp_affinity /sys/kernel/uevent_seqnum; do
            (echo 0 >$file) 2>/dev/null && echo \"written: $file\"
        done
        for directory in /sys /sys/fs/cgroup /proc/sys /sys/fs/cgroup/*; do
            busybox mkdir $directory/new 2>/dev/null && echo \"made: $directory/new\"
        done
        for file in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do
            [ ! -e $file ] || [ $(busybox head -c 1 $file | wc -c) = 0 ] || echo \"readable: $file\"
        done
        for directory in /sys/firmware /proc/acpi /proc/scsi; do
            [ ! -e $directory ] || [ -z \"$(ls $directory)\" ] || echo \"not empty: $directory\"
        done
        echo end";
    for host in [host, with_image(TestHost::cgroup2())] {
        for said in both(&host, &[], script) {
            assert_eq!(said, "end\n");
        }
    }
}

#[test]
fn resource_limits_are_the_same_for_both() {
    let host = host_with_image();
    for limits in both(&host, &[], "cat /proc/self/limits") {
        let of = |name: &str| -> Vec<String> {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
        };
        assert_eq!(of("Max open files"), ["1024", "4096"], "{limits}");
        assert_eq!(of("Max core file size"), ["0", "0"], "{limits}");
    }
}

#[test]
fn the_program_is_process_1_and_has_a_name_and_an_address() {
    let host = host_with_image();
    let script = "busybox tr '\\0' ' ' </proc/1/cmdline | busybox head -n 1 | busybox cut -c 1-5; hostname; \
                  cat /etc/hostname; cat /etc/hosts";
    let bottle = up_busybox(&host, &[], &[]);
    let ip = text(&bottle, "bundle_ip").to_owned();
    down(&host, "demo");
    for said in both(&host, &[], script) {
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[..3], ["sh -c", "demo", "demo"], "{said}");
        assert!(lines.contains(&"127.0.0.1\tlocalhost"), "{said}");
        assert!(lines.contains(&format!("{ip}\tdemo").as_str()), "{said}");
    }
}

#[test]
fn the_network_is_eth0_and_lo_without_ipv6() {
    let host = host_with_image();
    let script =
        "ls /sys/class/net; ip address; echo; cat /proc/net/if_inet6 2>/dev/null; echo end";
    for said in both(&host, &[], script) {
        assert!(said.starts_with("eth0\nlo\n"), "{said}");
        assert!(!said.contains("inet6"), "{said}");
        assert!(said.ends_with("\n\nend\n"), "an IPv6 address: {said}");
    }
    up_busybox(&host, &[], &[]);
    let container = "claude-bottle-sidecars-demo";
    let links = host.netns_run(container, ["ip", "-j", "address"]).ok().stdout_json();
    let names: Vec<&str> = links.as_array().unwrap().iter().map(|l| text(l, "ifname")).collect();
    assert_eq!(names, ["lo", "eth0"]);
    assert!(!links.to_string().contains("inet6"), "{links}");
    down(&host, "demo");
}

#[test]
fn a_resolver_stub_of_the_host_is_replaced_by_its_servers() {
    let mut host = host_with_image();
    let stub = host.dir().join("stub.conf");
    fs::write(&stub, "nameserver 127.0.0.53\noptions edns0\nsearch example.test\n").unwrap();
    let target = fs::canonicalize("/etc/resolv.conf").unwrap_or("/etc/resolv.conf".into());
    let (stub, target) = (stub.display().to_string(), target.display().to_string());
    host.run(["mount", "--bind", &stub, &target]).ok();
    host.run(["mkdir", "-p", "/run/systemd/resolve"]).ok();
    let real =
        "printf 'nameserver 192.0.2.53\\nnameserver fd00::1\\n' >/run/systemd/resolve/resolv.conf";
    host.run(["sh", "-c", real]).ok();
    host.take_baseline();
    for said in both(&host, &[], "cat /etc/resolv.conf") {
        assert_eq!(said, "nameserver 192.0.2.53\noptions edns0\nsearch example.test\n");
    }
}

/// The files of these names in the cgroups that the container's processes are in.
fn cgroup_values(host: &TestHost, container: &str, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for line in host.cgroups().below() {
        let (mount, relative) = line.split_once(':').unwrap();
        let (_, own) = host
            .cgroups()
            .directories()
            .iter()
            .find(|(hierarchy, _)| hierarchy.mount == Path::new(mount))
            .unwrap();
        let group = own.join(relative.trim_start_matches('/'));
        let is_bundles = relative.starts_with(&format!("/carboy.{container}"));
        // On pure version 2 the container's is one below the bundle's.
        if !is_bundles || group.join("container").is_dir() {
            continue;
        }
        for name in names {
            let value = fs::read_to_string(group.join(name)).ok();
            found.extend(value.map(|value| value.trim().to_owned()));
        }
    }
    found
}

#[test]
fn cgroup_limits_hold_as_asked_for() {
    let host = host_with_image();
    let bottle =
        up_busybox(&host, &["--memory", "64m", "--pids-limit", "50", "--cpus", "0.5"], &[]);
    let values = |names: &[&str]| cgroup_values(&host, text(&bottle, "container"), names);
    let memory = values(&["memory.limit_in_bytes", "memory.max"]);
    assert_eq!(memory, ["67108864"]);
    assert_eq!(values(&["pids.max"]), ["50"]);
    let quota = values(&["cpu.cfs_quota_us", "cpu.max"]);
    assert!(quota == ["50000"] || quota == ["50000 100000"], "{quota:?}");
    // A command that is run later is in the same cgroup.
    let tasks = || values(&["pids.current"])[0].parse::<u32>().unwrap();
    let before = tasks();
    let mut sleeper = host.spawn_carboy(&["exec", "demo", "--", "sleep", "100"]);
    assert!(poll(Duration::from_secs(10), || tasks() > before), "exec is not counted");
    sleeper.kill();
    let refused =
        exec_script(&host, "for i in $(busybox seq 100); do sleep 9 >/dev/null 2>&1 & done");
    assert!(refused.stderr().contains("fork"), "{refused}");
    down(&host, "demo");
}

/// CVE-2019-5736: a helper that enters the container is seen there as a process, and its
/// `/proc/<pid>/exe` is the host's program. Nobody can write to what runs; who holds it open until
/// it has ended can try.
#[test]
fn the_hosts_program_cannot_be_written_from_inside() {
    let host = host_with_image();
    // A copy: the program of all other tests must outlive a failure of this one.
    let carboy = host.dir().join("carboy");
    fs::copy(env!("CARGO_BIN_EXE_carboy"), &carboy).unwrap();
    let digest = || HEXLOWER.encode(&Sha256::digest(fs::read(&carboy).unwrap()));
    let before = digest();
    let shared = host.dir().join("shared");
    // Whoever executes this executes the helper's own program once more.
    fs::write(shared.join("again"), "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(shared.join("again"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("/proc/self/exe", shared.join("link")).unwrap();
    // Whatever comes in is stopped at once, opened, let go, and written to.
    let attack = "while :; do
            kill -STOP -1 2>/dev/null || continue
            for exe in /proc/[0-9]*/exe; do
                [ $exe = /proc/1/exe ] && continue
                (
                    exec 9<$exe
                    kill -CONT -1
                    target=$(busybox readlink /proc/self/fd/9)
                    [ $target = /bin/busybox ] && exit
                    for try in $(busybox seq 60); do
                        (echo x >>/proc/self/fd/9) && echo $target >>/shared/written && exit
                    done
                    echo $target >>/shared/refused
                ) 2>/dev/null
            done
            kill -CONT -1
        done";
    let volume = format!("{}:/shared", shared.display());
    let path = carboy.display().to_string();
    let run = |arguments: &[&str]| host.spawn([&[path.as_str()], arguments].concat()).wait();
    let up = ["up", "demo", "--image", "test-busybox", "-v", &volume, "--", "sh", "-c", attack];
    assert_eq!(run(&up), Some(0));
    // The monitor is the same program, and as long as it runs the kernel refuses writes (ETXTBSY).
    let pid = inspect(&host, "demo")["pid"].to_string();
    let kill = format!("kill -9 $(sed -n 's/^PPid:[[:space:]]*//p' /proc/{pid}/status)");
    host.run(["sh", "-c", &kill]).ok();
    let written = || fs::read_to_string(shared.join("written")).unwrap_or_default();
    let done = poll(Duration::from_secs(40), || {
        for program in ["echo", "/shared/again", "/shared/link"] {
            // It ends in one way or another; which is of no interest.
            run(&["exec", "demo", "--", program]);
        }
        // The helper's program lies on a mount that is attached nowhere.
        let refused = fs::read_to_string(shared.join("refused")).unwrap_or_default();
        refused.lines().any(|exe| exe == "/") || !written().is_empty()
    });
    assert_eq!(written(), "", "a program of the host was opened for writing");
    assert_eq!(digest(), before);
    assert!(done, "no helper was met");
    down(&host, "demo");
}
