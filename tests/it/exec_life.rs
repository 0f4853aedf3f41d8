//! A command of `exec` is as the bundle's own processes are, and lives as long as its caller.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::common::bottle::{down, load, up};
use crate::common::{Output, TestHost, images, poll};

fn with_bottle(host: TestHost, flags: &[&str]) -> TestHost {
    load(&host, &images::busybox());
    up(&host, &[&["demo", "--image", "test-busybox"], flags].concat());
    host
}

fn exec(host: &TestHost, command: &[&str]) -> Output {
    host.carboy(&[&["exec", "demo", "--"], command].concat())
}

/// Whether a process with these words in its command line runs in the bundle.
fn runs(host: &TestHost, words: &str) -> bool {
    exec(host, &["ps"]).ok().stdout().contains(words)
}

/// How many helper processes of commands there are.
fn helpers(host: &TestHost) -> usize {
    let processes = fs::read_dir(host.path("/proc")).unwrap().flatten();
    let names = processes.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    names.filter(|name| name.trim() == "carboy-exec").count()
}

#[test]
fn a_command_is_as_the_bottles_first_process() {
    let flags = ["--user", "web", "--workdir", "/www", "-e", "A=1", "--pids-limit", "99"];
    for host in
        [with_bottle(TestHost::new(), &flags), with_bottle(TestHost::cgroup2(), &flags[..6])]
    {
        let both = |script: &str| {
            let of = |pid: &str| {
                let script = script.replace("PID", pid);
                exec(&host, &["sh", "-c", &script]).ok().stdout()
            };
            let (own, first) = (of("self"), of("1"));
            assert!(!own.is_empty(), "{script}");
            assert_eq!(own, first, "{script}");
        };
        let keys = "Uid|Gid|Groups|Umask|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|SigIgn|SigBlk";
        both(&format!("grep -E '^({keys}):' /proc/PID/status"));
        both("cat /proc/PID/limits");
        both("cat /proc/PID/cgroup");
        both("busybox readlink /proc/PID/cwd");
        both("cat /proc/PID/oom_score_adj");
        let variables = |pid: &str| {
            let text = exec(&host, &["cat", &format!("/proc/{pid}/environ")]).ok().stdout();
            let mut all: Vec<String> = text.split('\0').map(str::to_owned).collect();
            all.sort();
            all
        };
        assert!(variables("self").len() > 3);
        assert_eq!(variables("self"), variables("1"));
        for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            both(&format!("busybox readlink /proc/PID/ns/{namespace}"));
        }
        down(&host, "demo");
    }
}

#[test]
fn a_command_has_nothing_of_its_caller() {
    let host = with_bottle(TestHost::new(), &[]);
    let stdin = exec(&host, &["stat", "-L", "-c", "%t:%T", "/proc/self/fd/0"]);
    assert_eq!(stdin.ok().stdout(), "1:3\n", "/dev/null");
    // 3 is the directory that is listed.
    assert_eq!(exec(&host, &["ls", "/proc/self/fd"]).ok().stdout(), "0\n1\n2\n3\n");
    for stream in ["/proc/self/fd/1", "/proc/self/fd/2"] {
        let link = exec(&host, &["busybox", "readlink", stream]).ok().stdout();
        assert!(link.starts_with("pipe:"), "{link}");
    }
    // The streams are the user's, to be opened anew.
    let arguments = ["exec", "-i", "-u", "web", "demo", "--", "sh", "-c"];
    let script = "cat /dev/stdin >/dev/stdout; echo x >/dev/stderr";
    let output = host.carboy_with(&[&arguments[..], &[script]].concat(), &[], Some(b"in"));
    assert_eq!((output.ok().stdout(), output.stderr()), ("in".to_owned(), "x\n".to_owned()));
    // Neither does what is left behind hold a stream of the caller's: the harness checks that.
    assert_eq!(exec(&host, &["sh", "-c", "sleep 99 & echo x"]).ok().stdout(), "x\n");
    down(&host, "demo");
}

#[test]
fn a_reader_that_goes_ends_the_writer() {
    let host = with_bottle(TestHost::new(), &[]);
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let script = format!("{carboy} exec demo -- busybox yes | head -1; echo ${{PIPESTATUS[0]}}");
    let output = host.run(["bash", "-c", &script]);
    assert_eq!(output.ok().stdout(), format!("y\n{}\n", 128 + 13));
    down(&host, "demo");
}

#[test]
fn signals_reach_the_command() {
    let host = with_bottle(TestHost::new(), &[]);
    for (signal, name) in
        [(Signal::SIGINT, "INT"), (Signal::SIGTERM, "TERM"), (Signal::SIGUSR1, "USR1")]
    {
        let script = format!(
            "trap 'echo got {name}; exit 9' {name}; echo ready; while :; do sleep 0.1; done"
        );
        let mut command = host.spawn_carboy(&["exec", "demo", "--", "sh", "-c", &script]);
        let mut lines = command.lines();
        assert_eq!(lines.next().as_deref(), Some("ready"));
        command.signal(signal);
        assert_eq!(lines.next(), Some(format!("got {name}")));
        assert_eq!(command.wait(), Some(9));
    }
    down(&host, "demo");
}

#[test]
fn nothing_is_left_when_the_caller_is_killed() {
    let host = with_bottle(TestHost::new(), &[]);
    for script in ["echo ready; sleep 4321", "sleep 4321 & echo ready; wait"] {
        let mut command = host.spawn_carboy(&["exec", "demo", "--", "sh", "-c", script]);
        assert_eq!(command.lines().next().as_deref(), Some("ready"));
        assert!(runs(&host, "sleep 4321"));
        assert!(command.kill());
        assert!(poll(Duration::from_secs(10), || !runs(&host, "sleep 4321")), "{script}");
        assert!(poll(Duration::from_secs(10), || helpers(&host) == 0));
    }
    down(&host, "demo");
}

#[test]
fn a_detached_command_goes_on() {
    for host in [with_bottle(TestHost::new(), &[]), with_bottle(TestHost::cgroup2(), &[])] {
        let command = ["demo", "--", "sh", "-c", "echo lost; echo $A >/www/done; sleep 4321; true"];
        let output = host.carboy(&[&["--json", "exec", "-d", "-e", "A=1"], &command[..]].concat());
        let told = output.ok().stdout_json();
        assert_eq!((&told["slug"], &told["detached"]), (&"demo".into(), &true.into()));
        let done = || exec(&host, &["cat", "/www/done"]).stdout() == "1\n";
        assert!(poll(Duration::from_secs(10), done));
        let line = fs::read(host.path(format!("/proc/{}/cmdline", told["pid"]))).unwrap();
        assert!(line.starts_with(b"sh\0-c\0"), "{:?}", String::from_utf8_lossy(&line));
        assert_eq!(host.carboy(&["exec", "-dt", "demo", "--", "sleep", "99"]).ok().stdout(), "");
        assert!(runs(&host, "sleep 99"));
        host.carboy(&["exec", "-d", "demo", "--", "no-such-program"]).code(127);
        host.carboy(&["exec", "-d", "-i", "demo", "--", "true"]).code(2);
        down(&host, "demo");
        host.assert_clean();
    }
}

#[test]
fn a_hundred_commands_run_at_once() {
    let host = with_bottle(TestHost::new(), &[]);
    let mut all: Vec<_> = (0..100)
        .map(|n| {
            let script = format!("until [ -e /www/go ]; do sleep 0.2; done; exit {n}");
            host.spawn_carboy(&["exec", "demo", "--", "sh", "-c", &script])
        })
        .collect();
    let running = || exec(&host, &["ps"]).stdout().matches("until [").count() == 100;
    assert!(poll(Duration::from_secs(50), running), "{}", exec(&host, &["ps"]));
    exec(&host, &["touch", "/www/go"]).ok();
    for (n, command) in all.iter_mut().enumerate() {
        assert_eq!(command.wait(), i32::try_from(n).ok());
    }
    down(&host, "demo");
}
