//! `exec`, `logs` and the environment of a bottle.

use std::time::Duration;

use crate::common::bottle::{down, load, up};
use crate::common::{Output, TestHost, images, poll};

fn host_with_bottle(flags: &[&str]) -> TestHost {
    let host = TestHost::new();
    load(&host, &images::busybox());
    up(&host, &[&["demo", "--image", "test-busybox"], flags].concat());
    host
}

fn exec(host: &TestHost, command: &[&str]) -> Output {
    host.carboy(&[&["exec", "demo", "--"], command].concat())
}

#[test]
fn exec_gives_the_programs_own_exit_code() {
    let host = host_with_bottle(&[]);
    assert_eq!(exec(&host, &["echo", "hello"]).ok().stdout(), "hello\n");
    assert_eq!(exec(&host, &["sh", "-c", "echo oops >&2"]).ok().stderr(), "oops\n");
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["/etc/passwd"], 126),
        (&["no-such-program"], 127),
        (&["/no/such/program"], 127),
        (&["sh", "-c", "kill -9 $$"], 128 + 9),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
    ] {
        exec(&host, command).code(code);
    }
    down(&host, "demo");
}

#[test]
fn exec_takes_stdin_environment_directory_and_user() {
    let host = host_with_bottle(&[]);
    let arguments = ["exec", "-i", "demo", "--", "cat"];
    let input: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    let output = host.carboy_with(&["exec", "-i", "demo", "--", "wc", "-c"], &[], Some(&input));
    assert_eq!(output.ok().stdout().trim(), input.len().to_string());
    assert_eq!(host.carboy_with(&arguments, &[], Some(b"x")).ok().stdout(), "x");
    let flags = ["exec", "-e", "A=1", "-w", "/www", "-u", "web", "demo", "--"];
    let script = ["sh", "-c", "echo $A $(pwd) $(id -u) $(id -g)"];
    let output = host.carboy(&[&flags[..], &script].concat());
    assert_eq!(output.ok().stdout(), "1 /www 1000 1000\n");
    down(&host, "demo");
}

#[test]
fn exec_is_confined_as_the_bottle_is() {
    let host = host_with_bottle(&[]);
    let status = |pid: &str, key: &str| {
        let text = exec(&host, &["grep", key, &format!("/proc/{pid}/status")]).ok().stdout();
        text.trim().to_owned()
    };
    for key in ["CapBnd:", "CapEff:", "Seccomp:", "NoNewPrivs:", "Groups:"] {
        assert_eq!(status("self", key), status("1", key), "{key}");
    }
    assert!(status("1", "Seccomp:").ends_with('2'), "a filter is in force");
    assert_eq!(exec(&host, &["hostname"]).ok().stdout(), "demo\n");
    down(&host, "demo");
}

#[test]
fn a_user_and_a_directory_of_the_bottle_hold() {
    let host = host_with_bottle(&[
        "--user",
        "web",
        "--workdir",
        "/www",
        "--",
        "sh",
        "-c",
        "echo $(id -u) $(pwd); while :; do sleep 1; done",
    ]);
    let said = || host.carboy(&["logs", "demo"]).ok().stdout().contains("1000 /www\n");
    assert!(poll(Duration::from_secs(3), said));
    down(&host, "demo");
}

#[test]
fn an_init_of_its_own_is_process_1() {
    let host = host_with_bottle(&["--init", "--", "sh", "-c", "while :; do sleep 1; done"]);
    let first = exec(&host, &["cat", "/proc/1/cmdline"]).ok().stdout();
    assert!(!first.starts_with("sh\0"), "{first:?}");
    down(&host, "demo");
}

#[test]
fn a_secret_passes_by_name_and_is_not_shown() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let secret = "s3cr3t-value";
    let arguments =
        ["up", "--json", "demo", "--image", "test-busybox", "-e", "TOKEN", "-e", "UNSET"];
    let output = host.carboy_with(&arguments, &[("TOKEN", secret)], None);
    assert!(!output.ok().stdout().contains(secret) && !output.stderr().contains(secret));
    let seen = exec(&host, &["env"]).ok().stdout();
    assert!(seen.contains(&format!("TOKEN={secret}\n")), "{seen}");
    assert!(seen.contains("GREETING=hello\n"), "the image's own: {seen}");
    assert!(!seen.contains("UNSET"), "a name that is not set is left out: {seen}");
    for arguments in [&["inspect", "--json", "demo"][..], &["ps", "--json"], &["logs", "demo"]] {
        assert!(!host.carboy(arguments).ok().stdout().contains(secret), "{arguments:?}");
    }
    let open = host.carboy(&["inspect", "--json", "--show-secrets", "demo"]).ok().stdout();
    assert!(open.contains(secret), "{open}");
    let lines = host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout();
    assert!(!lines.contains(secret), "a command line shows the secret");
    down(&host, "demo");
}

#[test]
fn logs_show_both_streams_and_the_tail() {
    let script =
        "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done; while :; do sleep 1; done";
    let host = host_with_bottle(&["--", "sh", "-c", script]);
    let logs = |flags: &[&str]| host.carboy(&[&["logs"], flags, &["demo"]].concat()).ok().clone();
    let all = |output: &Output| output.stdout() + &output.stderr();
    assert!(poll(Duration::from_secs(3), || all(&logs(&[])).lines().count() == 10));
    let text = all(&logs(&[]));
    for n in 1..=5 {
        assert!(
            text.contains(&format!("out {n}\n")) && text.contains(&format!("err {n}\n")),
            "{text}"
        );
    }
    assert_eq!(all(&logs(&["--tail", "3"])).lines().count(), 3);
    assert_eq!(all(&logs(&["--tail", "0"])), "");
    for line in all(&logs(&["--timestamps"])).lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(time.contains('T') && time.ends_with('Z') && time.len() >= 20, "RFC 3339: {line}");
    }
    down(&host, "demo");
}

#[test]
fn logs_are_followed_until_the_bottle_ends() {
    let host = host_with_bottle(&[
        "--",
        "sh",
        "-c",
        "n=0; while :; do echo tick $n; n=$((n+1)); sleep 0.1; done",
    ]);
    let mut follow = host.spawn_carboy(&["logs", "-f", "demo"]);
    let lines: Vec<String> = follow.lines().take(5).collect();
    assert_eq!(lines, ["tick 0", "tick 1", "tick 2", "tick 3", "tick 4"]);
    let mut second = host.spawn_carboy(&["logs", "-f", "demo"]);
    let mut rest = second.lines();
    assert_eq!(rest.next().as_deref(), Some("tick 0"));
    down(&host, "demo");
    assert!(rest.count() > 0);
    assert_eq!(second.wait(), Some(0));
}

#[test]
fn a_chatty_bottle_is_not_held_up_by_its_log() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; \
                  i=$((i+1)); done; echo done; while :; do sleep 1; done";
    let host = host_with_bottle(&["--", "sh", "-c", script]);
    let done = || host.carboy(&["logs", "--tail", "1", "demo"]).ok().stdout() == "done\n";
    assert!(poll(Duration::from_secs(15), done));
    down(&host, "demo");
}
