//! What the verbs of the command line say: settings, several installations, damaged records,
//! several names, notes, and a plan that only reads.

use std::fs;

use serde_json::{Value, json};

use crate::common::bottle::{HEALTH, assert_answers, down, inspect, load, text, up};
use crate::common::{Output, TestHost, images};

const NETWORK: &str = "claude-bottle-bundle-demo";

/// `ps --json` with these flags, and its notes.
#[track_caller]
fn ps(host: &TestHost, flags: &[&str]) -> (Vec<Value>, String) {
    let output = host.carboy(&[flags, &["ps", "--json"]].concat());
    let listed = output.ok().stdout_json();
    (listed.as_array().unwrap().clone(), output.stderr())
}

fn slugs(bottles: &[Value]) -> Vec<&str> {
    bottles.iter().map(|bottle| text(bottle, "slug")).collect()
}

/// Every file of carboy's, with its type, mode, size, times and place.
fn tree(host: &TestHost) -> String {
    let find = "find /run /var/lib /etc/carboy -printf '%y %m %s %T@ %C@ %p\\n' 2>/dev/null | sort";
    host.run(["sh", "-c", find]).stdout()
}

/// Writes the configuration file.
pub(crate) fn configure(host: &TestHost, content: &str) {
    let path = host.dir().join("config.toml");
    fs::write(&path, content).unwrap();
    let script = "mkdir -p /run/etc/carboy; ! mountpoint -q /etc || umount -l /etc; \
                  cp $0 /run/etc/carboy/config.toml && \
                  mount -t overlay -o lowerdir=/run/etc:/etc none /etc";
    host.run(["sh", "-c", script, &path.display().to_string()]).ok();
}

#[test]
fn two_prefixes_share_a_state_directory() {
    let host = TestHost::new();
    let other = ["--prefix", "other"];
    up(&host, &["demo"]);
    up(&host, &["mine"]);
    host.carboy(&[&other[..], &["up", "demo"]].concat()).ok();
    host.carboy(&[&other[..], &["up", "theirs"]].concat()).ok();
    let (mine, notes) = ps(&host, &[]);
    assert_eq!((slugs(&mine), notes.as_str()), (vec!["demo", "mine"], ""));
    assert!(mine.iter().all(|b| text(b, "container").starts_with("claude-bottle-")), "{mine:?}");
    let (theirs, notes) = ps(&host, &other);
    assert_eq!((slugs(&theirs), notes.as_str()), (vec!["demo", "theirs"], ""));
    assert!(theirs.iter().all(|b| text(b, "network").starts_with("other-")), "{theirs:?}");
    let networks = host.carboy(&["network", "ls", "--json"]).ok().stdout_json();
    assert_eq!(networks.as_array().unwrap().len(), 4);
    host.carboy(&["down", "demo", "mine"]).ok();
    assert_eq!(slugs(&ps(&host, &other).0), ["demo", "theirs"]);
    assert_answers(&host, &theirs[0], HEALTH);
    host.carboy(&[&other[..], &["down", "demo", "theirs"]].concat()).ok();
    host.assert_clean();
}

#[test]
fn a_damaged_record_hides_no_other() {
    let host = TestHost::new();
    for slug in ["bundle", "good", "network"] {
        up(&host, &[slug]);
    }
    let damaged = [
        "/run/carboy/bundles/claude-bottle-sidecars-bundle/record.json",
        "/run/carboy/networks/claude-bottle-bundle-network.json",
    ];
    let before = inspect(&host, "network");
    for path in damaged {
        fs::write(host.path(path), "{").unwrap();
    }
    let (bottles, notes) = ps(&host, &[]);
    assert_eq!(slugs(&bottles), ["good", "network"]);
    // The damaged network's bundle tells of it.
    for key in ["subnet", "gateway", "bundle_ip", "bridge", "state", "pid"] {
        assert_eq!(bottles[1][key], before[key], "{key}");
    }
    assert!(damaged.iter().all(|path| notes.contains(path)), "{notes}");
    let listed = host.carboy(&["network", "ls", "--json"]);
    assert_eq!(listed.ok().stdout_json().as_array().unwrap().len(), 2);
    assert!(listed.stderr().contains(damaged[1]), "{listed}");
    assert!(!listed.stderr().contains(damaged[0]), "{listed}");
    host.carboy(&["down", "bundle", "good", "network"]).ok();
    host.assert_clean();
}

#[test]
fn a_bundle_without_its_networks_record_is_shown() {
    let host = TestHost::new();
    let bottle = up(&host, &["demo"]);
    fs::remove_file(host.path(format!("/run/carboy/networks/{NETWORK}.json"))).unwrap();
    let (bottles, notes) = ps(&host, &[]);
    assert_eq!((slugs(&bottles), notes.as_str()), (vec!["demo"], ""));
    let seen = inspect(&host, "demo");
    for key in ["subnet", "gateway", "bundle_ip", "bridge", "network", "pid", "mac"] {
        assert_eq!(seen[key], bottle[key], "{key}");
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn plan_reads_only_and_needs_no_store() {
    let host = TestHost::new();
    let before = tree(&host);
    let plan = host.carboy(&["plan", "--json", "demo", "--init"]).ok().stdout_json();
    assert_eq!(host.carboy(&["image", "ls", "--json"]).ok().stdout_json(), json!([]));
    for arguments in [&["image", "rm"][..], &["plan", "demo", "--image"]] {
        host.carboy(&[&["--json"], arguments, &["absent"]].concat()).error(3, "not-found");
    }
    host.carboy(&["--json", "plan", "demo", "--image", "A B"]).error(2, "invalid");
    assert_eq!(tree(&host), before);
    let bottle = up(&host, &["demo", "--init"]);
    for key in ["image", "subnet", "bundle_ip", "mac"] {
        assert_eq!(plan[key], bottle[key], "{key}");
    }
    // Of a bottle that is up as well, and with the very same answer.
    let before = tree(&host);
    let again = host.carboy(&["plan", "--json", "demo", "--init"]).ok().stdout_json();
    assert_eq!(again, plan);
    assert_eq!(tree(&host), before);
    down(&host, "demo");
}

#[test]
fn plan_says_what_up_would_say() {
    let host = TestHost::new();
    up(&host, &["demo", "--subnet", "10.77.1.0/24"]);
    for (flags, word) in [
        (&["--subnet", "10.77.2.0/24"][..], "10.77.2.0/24"),
        (&["--subnet", "10.77.2.0/24", "--ip", "10.77.2.9"], "10.77.2.0/24"),
        (&["--internal"], "internal"),
        (&["--mtu", "1300"], "1300"),
        (&["--pids-limit", "77"], "77"),
        (&["--init"], "init"),
        (&["-e", "A=1"], "A"),
    ] {
        let say = |verb: &str| {
            let error = host.carboy(&[&[verb, "--json", "demo"], flags].concat());
            error.error(4, "conflict")
        };
        let (plan, refusal) = (say("plan"), say("up"));
        assert_eq!(plan, refusal, "{flags:?}");
        assert!(text(&plan, "message").contains(word), "{flags:?}: {plan}");
    }
    let same = ["demo", "-e", "NOT_SET_ANYWHERE"];
    for verb in ["plan", "up"] {
        let output = host.carboy(&[&[verb, "--json"], &same[..]].concat());
        assert!(output.ok().stderr().contains("NOT_SET_ANYWHERE"), "{output}");
    }
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn an_unset_variable_is_noted() {
    let host = TestHost::new();
    let note = |output: Output| {
        let notes = output.ok().stderr();
        let lines: Vec<&str> = notes.lines().filter(|l| l.contains("NOT_SET_ANYWHERE")).collect();
        assert_eq!(lines, ["note: -e NOT_SET_ANYWHERE: it is not set here, so it is left out"]);
    };
    note(host.carboy(&["up", "demo", "-e", "NOT_SET_ANYWHERE"]));
    load(&host, &images::busybox());
    up(&host, &["box", "--image", "test-busybox"]);
    note(host.carboy(&["exec", "-e", "NOT_SET_ANYWHERE", "box", "--", "pwd"]));
    let set = [("NOT_SET_ANYWHERE", "1")];
    let quiet = host.carboy_with(&["up", "quiet", "-e", "NOT_SET_ANYWHERE"], &set, None);
    assert!(!quiet.ok().stderr().contains("NOT_SET_ANYWHERE"), "{quiet}");
    host.carboy(&["down", "demo", "box", "quiet"]).ok();
}

#[test]
fn json_is_an_option_only_where_carboy_reads_options() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    host.carboy(&["network", "create", "--subnet", "10.77.1.0/24", NETWORK]).ok();
    let flags = ["--network", NETWORK, "--ip", "10.77.1.2"];
    let run = ["test-busybox", "sh", "-c", "sleep 100", "--json"];
    let started = host.carboy(&[&["start", "demo"], &flags[..], &run].concat());
    assert_eq!(started.ok().stdout(), "claude-bottle-sidecars-demo\n");
    let inside = host.carboy(&["exec", "demo", "echo", "--json"]);
    assert_eq!(inside.ok().stdout(), "--json\n");
    let refused = host.carboy(&[&["start", "demo"], &flags[..], &run].concat());
    assert!(refused.code(4).stderr().starts_with("carboy: "), "{refused}");
    // A command line that cannot be parsed is answered in the form that it asks for.
    host.carboy(&["stop", "--json"]).error(2, "usage");
    down(&host, "demo");
    host.assert_clean();
}

#[test]
fn several_failures_are_one_object() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let error = host.carboy(&["image", "rm", "--json", "one", "two", "three"]);
    let error = error.error(3, "not-found");
    assert!(text(&error, "message").contains("one"), "{error}");
    let causes = error["causes"].as_array().unwrap();
    let named = |name: &str| causes.iter().any(|c| c.as_str().unwrap().contains(name));
    assert!(causes.len() == 2 && named("two") && named("three"), "{error}");
    // What was done is on stdout all the same.
    let output = host.carboy(&["image", "rm", "--json", "one", "test-busybox", "two"]);
    assert_eq!(output.code(3).stdout_json().as_array().unwrap().len(), 1);
    assert_eq!(output.stderr_json()["causes"].as_array().unwrap().len(), 1);
    // People see each.
    let output = host.carboy(&["image", "rm", "one", "two"]);
    assert_eq!(output.code(3).stdout(), "");
    let told = output.stderr();
    assert_eq!(told.lines().filter(|l| l.starts_with("carboy: ")).count(), 2, "{output}");
}

#[test]
fn an_image_is_removed_by_its_short_digest() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    load(&host, &images::layered());
    let listed = host.carboy(&["image", "ls"]).ok().stdout();
    let line = listed.lines().find(|l| l.starts_with("test-busybox")).unwrap();
    let short = line.split_whitespace().nth(1).unwrap();
    host.carboy(&["image", "rm", "--json", &short[..11]]).error(3, "not-found");
    let wrong = format!("{short}{}", if short.starts_with('0') { "0123" } else { "zzzz" });
    host.carboy(&["image", "rm", "--json", &wrong]).error(3, "not-found");
    assert_eq!(host.carboy(&["image", "rm", short]).ok().stdout(), "test-busybox\n");
    let listed = host.carboy(&["image", "ls"]).ok().stdout();
    assert!(!listed.contains("test-busybox") && listed.contains("test-layers"), "{listed}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let host = TestHost::new();
    let empty = [("CARBOY_PREFIX", ""), ("CARBOY_STATE", ""), ("CARBOY_ROOT", "")];
    let named = |environment: &[(&str, &str)], flags: &[&str]| {
        let all = [flags, &["name", "network", "demo"]].concat();
        host.carboy_with(&all, environment, None).ok().stdout().trim().to_owned()
    };
    assert_eq!(named(&empty, &[]), NETWORK);
    assert_eq!(named(&[("CARBOY_PREFIX", "mine")], &[]), "mine-bundle-demo");
    assert_eq!(named(&[("CARBOY_PREFIX", "mine")], &["--prefix", "his"]), "his-bundle-demo");
    let plan = host.carboy_with(&["plan", "--json", "demo"], &empty, None);
    assert_eq!(plan.ok().stdout_json()["network"], NETWORK);
    let wrong = [("CARBOY_PREFIX", "a b")];
    let error = host.carboy_with(&["ps", "--json"], &wrong, None).error(2, "usage");
    assert!(text(&error, "message").contains("CARBOY_PREFIX"), "{error}");
    host.carboy(&["ps", "--json", "--prefix", ""]).error(2, "usage");
}

#[test]
fn inspect_shows_the_limits_in_force() {
    let host = TestHost::new();
    up(&host, &["demo"]);
    assert_eq!(inspect(&host, "demo")["launch"]["limits"]["pids"], 256);
    down(&host, "demo");
    up(&host, &["demo", "--pids-limit", "77", "--cpus", ".5"]);
    let limits = &inspect(&host, "demo")["launch"]["limits"];
    assert_eq!((&limits["pids"], &limits["cpu_milli"]), (&json!(77), &json!(500)));
    down(&host, "demo");
}

#[test]
fn the_configuration_file_sets_pool_and_prefix() {
    let mut host = TestHost::new();
    configure(&host, "prefix = \"mine\"\npool = \"10.66.0.0/23\"\npool_prefix = 24\n");
    host.take_baseline();
    let mut subnets = Vec::new();
    for slug in ["one", "two"] {
        let bottle = up(&host, &[slug]);
        assert_eq!(text(&bottle, "network"), format!("mine-bundle-{slug}"));
        subnets.push(text(&bottle, "subnet").to_owned());
    }
    subnets.sort();
    assert_eq!(subnets, ["10.66.0.0/24", "10.66.1.0/24"]);
    for verb in ["plan", "up"] {
        let error = host.carboy(&[verb, "--json", "three"]).error(4, "overlap");
        assert!(text(&error, "message").contains("10.66.0.0/23"), "{error}");
    }
    // The environment and the flag come before the file.
    let named = host.carboy_with(&["name", "network", "x"], &[("CARBOY_PREFIX", "env")], None);
    assert_eq!(named.ok().stdout(), "env-bundle-x\n");
    host.carboy(&["down", "one", "two"]).ok();
    host.assert_clean();
    for (content, word) in [
        ("colour = \"red\"\n", "colour"),
        ("pool = \"10.66.0.1/23\"\n", "10.66.0.1/23"),
        ("pool = \"everything\"\n", ""),
        ("prefix = \"a b\"\n", "' '"),
        ("prefix =\n", ""),
    ] {
        configure(&host, content);
        let error = host.carboy(&["ps", "--json"]).error(2, "usage");
        let message = text(&error, "message");
        assert!(message.contains("/etc/carboy/config.toml"), "{content}: {message}");
        assert!(message.contains(word), "{content}: {message}");
    }
    host.forget_leaks();
}

#[test]
fn a_network_with_other_options_is_a_conflict() {
    let host = TestHost::new();
    let create = |flags: &[&str]| {
        host.carboy(&[&["network", "create", "--json"], flags, &[NETWORK]].concat())
    };
    create(&["--internal", "--mtu", "1400"]).ok();
    let again = create(&["--internal", "--mtu", "1400"]).ok().stdout_json();
    assert_eq!(again["changed"], false);
    assert_eq!(create(&["--internal"]).ok().stdout_json()["changed"], false);
    for (flags, words) in [
        (&["--mtu", "1400"][..], ["internal true", "wanted: false"]),
        (&["--internal", "--mtu", "1300"], ["mtu 1400", "wanted: 1300"]),
    ] {
        let error = create(flags).error(4, "conflict");
        let message = text(&error, "message");
        assert!(words.iter().all(|word| message.contains(word)), "{flags:?}: {message}");
    }
    let seen = host.carboy(&["network", "inspect", "--json", NETWORK]).ok().stdout_json();
    assert_eq!((&seen["internal"], &seen["mtu"]), (&json!(true), &json!(1400)));
    host.carboy(&["network", "rm", NETWORK]).ok();
    host.assert_clean();
}
