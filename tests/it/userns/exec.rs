//! Commands in a bundle with ids of its own are what its first process is.

use std::time::Duration;

use super::{both_kinds, exec, first_id, script, start, status, with_image, words};
use crate::common::bottle::down;
use crate::common::{TestHost, poll};

/// Namespaces, ids, control groups and rights of whoever runs it.
const LOOK: &str = "for kind in user net mnt pid ipc uts cgroup; do \
    busybox readlink /proc/self/ns/$kind; done; cat /proc/self/uid_map /proc/self/gid_map; \
    cat /proc/self/cgroup; busybox grep -E '^(Cap|NoNew|Seccomp:|Uid|Gid|Groups|Umask)' /proc/self/status; \
    echo end";

#[test]
fn a_command_is_where_the_first_process_is_and_may_do_as_much() {
    for host in both_kinds() {
        for user in ["root", "web"] {
            let first = format!("{LOOK}; while :; do sleep 1; done");
            start(&host, &["--user", user], &["sh", "-c", &first]);
            let logs = || host.carboy(&["logs", "demo"]).ok().stdout();
            assert!(poll(Duration::from_secs(10), || logs().contains("end")), "{}", logs());
            assert_eq!(script(&host, LOOK), logs(), "{user}");
            down(&host, "demo");
        }
    }
}

#[test]
fn the_host_sees_a_command_as_one_of_the_bundles_users() {
    for host in both_kinds() {
        let bottle = start(&host, &[], &[]);
        let init = bottle["pid"].to_string();
        let first = first_id(&host, "demo");
        for (user, id) in [("root", first), ("web", first + 1000)] {
            let mut call = host.spawn_carboy(&["exec", "-u", user, "demo", "--", "sleep", "987"]);
            let find = "for p in /proc/[0-9]*; do \
                        case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in 'sleep 987 ') echo ${p#/proc/};; esac; done";
            let pid = || host.run(["sh", "-c", find]).ok().stdout().trim().to_owned();
            assert!(poll(Duration::from_secs(10), || !pid().is_empty()));
            let pid = pid();
            assert_eq!(words(&status(&host, &pid, "Uid")), [id.to_string().as_str(); 4]);
            let of = |pid: &str| {
                let namespaces =
                    ["user", "net", "mnt", "cgroup"].map(|k| format!("/proc/{pid}/ns/{k}"));
                let stat = "stat -L -c %i";
                let all = format!("{stat} {}; cat /proc/{pid}/cgroup", namespaces.join(" "));
                host.run(["sh", "-c", &all]).ok().stdout()
            };
            assert_eq!(of(&pid), of(&init));
            // Its helper, which has no rights on the host any more, ends it all the same.
            call.kill();
            let gone = || host.run(["kill", "-0", &pid]).exit_code() != Some(0);
            assert!(poll(Duration::from_secs(10), gone), "it outlives its caller");
        }
        down(&host, "demo");
    }
}

#[test]
fn streams_terminals_and_exit_codes_are_as_ever() {
    let host = with_image(TestHost::new());
    start(&host, &[], &[]);
    for user in ["root", "web"] {
        let said = "echo out >/dev/stdout; echo err >/dev/stderr; cat; exit 7";
        let all = ["exec", "-i", "-u", user, "demo", "--", "sh", "-c", said];
        let output = host.carboy_with(&all, &[], Some(b"typed"));
        output.code(7);
        assert_eq!((output.stdout().as_str(), output.stderr().as_str()), ("out\ntyped", "err\n"));
        let terminal = "exec demo -t -u";
        let script = "tty=$(busybox tty); busybox stat -c '%u %n' $tty; echo on >/dev/tty";
        let words: Vec<&str> = terminal.split(' ').collect();
        let mut call = host.carboy_on_terminal(
            &[&words[..1], &["-t", "-u", user, "demo", "--", "sh", "-c", script]].concat(),
            (24, 80),
        );
        let id = if user == "root" { 0 } else { 1000 };
        call.expect(&format!("{id} /dev/pts/0"));
        call.expect("on");
        assert_eq!(call.wait(), Some(0));
    }
    exec(&host, &["/nowhere"]).code(127);
    exec(&host, &["/etc/passwd"]).code(126);
    down(&host, "demo");
    start(&host, &["--ulimit", "nofile=99:19000"], &[]);
    assert_eq!(words(&script(&host, "ulimit -Sn; ulimit -Hn")), ["99", "19000"]);
    down(&host, "demo");
}
