//! Bad input is refused before anything changes, with the contract's exit code and kind.

use crate::common::TestHost;
use crate::common::bottle::text;

#[test]
fn a_bad_slug_is_refused_and_the_character_named() {
    let host = TestHost::new();
    for (slug, character) in [
        ("a b", "' '"),
        ("a/b", "'/'"),
        ("../x", "'.'"),
        ("_a", "'_'"),
        ("aé", "'é'"),
        ("a:b", "':'"),
    ] {
        for verb in ["plan", "up", "down", "stop", "inspect", "logs"] {
            let error = host.carboy(&[verb, "--json", slug]).error(2, "usage");
            let message = format!("{error}");
            assert!(message.contains(character), "{verb} {slug}: {message}");
        }
    }
    host.carboy(&["up", "--json", &"x".repeat(65)]).error(2, "usage");
    host.carboy(&["up", "--json", ""]).error(2, "usage");
    host.assert_clean();
}

#[test]
fn names_are_printed_and_nothing_else_happens() {
    let host = TestHost::new();
    for (kind, want) in
        [("network", "claude-bottle-bundle-demo\n"), ("container", "claude-bottle-sidecars-demo\n")]
    {
        assert_eq!(host.carboy(&["name", kind, "demo"]).ok().stdout(), want);
    }
    let named = host.carboy_with(&["name", "network", "demo"], &[("CARBOY_PREFIX", "x")], None);
    assert_eq!(named.ok().stdout(), "x-bundle-demo\n");
    let flag = ["--prefix", "y", "name", "network", "demo"];
    let named = host.carboy_with(&flag, &[("CARBOY_PREFIX", "x")], None);
    assert_eq!(named.ok().stdout(), "y-bundle-demo\n");
    host.assert_clean();
}

#[test]
fn bad_addresses_are_refused() {
    let host = TestHost::new();
    let subnet = "10.77.0.0/24";
    for (arguments, word) in [
        (vec!["--subnet", "10.77.0.0"], "10.77.0.0"),
        (vec!["--subnet", "10.77.0.0/33"], "10.77.0.0/33"),
        (vec!["--subnet", "fe80::/64"], "fe80::/64"),
        (vec!["--subnet", subnet, "--gateway", "10.78.0.1"], "10.78.0.1"),
        (vec!["--subnet", subnet, "--ip", "10.78.0.2"], "10.78.0.2"),
        (vec!["--subnet", subnet, "--ip", "10.77.0.0"], "10.77.0.0"),
        (vec!["--subnet", subnet, "--ip", "10.77.0.255"], "10.77.0.255"),
        (vec!["--subnet", subnet, "--gateway", "10.77.0.9", "--ip", "10.77.0.9"], "10.77.0.9"),
        (vec!["--subnet", "127.0.0.0/24"], "127.0.0.0/24"),
        (vec!["--subnet", "224.0.0.0/24"], "224.0.0.0/24"),
    ] {
        let output = host.carboy(&[&["up", "--json", "demo"], &arguments[..]].concat());
        output.code(2);
        assert!(output.stderr().contains(word), "{output}");
    }
    host.assert_clean();
}

#[test]
fn bad_flags_are_usage_errors() {
    let host = TestHost::new();
    for arguments in [
        &["up", "--json"][..],
        &["up", "--json", "demo", "--no-such-flag"],
        &["no-such-verb", "--json"],
        &["up", "--json", "demo", "--memory", "lots"],
        &["up", "--json", "demo", "--memory", "-1"],
        &["up", "--json", "demo", "--cpus", "0"],
        &["up", "--json", "demo", "--pids-limit", "0"],
        &["up", "--json", "demo", "-v", "relative:/x"],
        &["up", "--json", "demo", "-v", "/tmp:relative"],
        &["up", "--json", "demo", "-v", "/tmp:/x:rx"],
        &["up", "--json", "demo", "--workdir", "relative"],
        &["up", "--json", "demo", "-e", "=value"],
        &["stop", "--json", "--time", "soon", "demo"],
        &["exec", "--json", "demo"],
    ] {
        let output = host.carboy(arguments);
        // `exec` keeps 125 for carboy's own faults, as Docker.
        let want = if arguments[0] == "exec" { [2, 125] } else { [2, 2] };
        assert!(output.exit_code().is_some_and(|c| want.contains(&c)), "{output}");
        assert!(matches!(text(&body(&output.stderr_json()), "code"), "usage" | "invalid"));
    }
    host.assert_clean();
}

#[test]
fn verbs_on_an_absent_bottle_say_not_found() {
    let host = TestHost::new();
    for verb in ["inspect", "logs"] {
        host.carboy(&[verb, "--json", "demo"]).error(3, "not-found");
    }
    host.carboy(&["exec", "demo", "--", "true"]).code(125);
    host.carboy(&["network", "inspect", "--json", "claude-bottle-bundle-demo"])
        .error(3, "not-found");
    assert_eq!(host.carboy(&["ps", "--json"]).ok().stdout_json(), serde_json::json!([]));
    assert_eq!(host.carboy(&["network", "ls", "--json"]).ok().stdout_json(), serde_json::json!([]));
    host.assert_clean();
}

#[test]
fn without_json_an_error_is_text_on_stderr() {
    let host = TestHost::new();
    let output = host.carboy(&["up", "a b"]);
    assert_eq!(output.code(2).stdout(), "");
    assert!(output.stderr().contains("' '"), "{output}");
}

#[test]
fn without_capabilities_the_missing_one_is_named() {
    let host = TestHost::new();
    let carboy = env!("CARGO_BIN_EXE_carboy");
    for name in [
        "net_admin",
        "sys_admin",
        "setuid",
        "setgid",
        "setpcap",
        "setfcap",
        "chown",
        "fowner",
        "fsetid",
        "dac_override",
        "mknod",
        "kill",
        "net_bind_service",
    ] {
        let bounding = format!("--bounding-set=-{name}");
        let inheritable = format!("--inh-caps=-{name}");
        let drop = ["setpriv", &bounding, &inheritable, carboy];
        let error =
            host.run([&drop[..], &["--json", "up", "demo"]].concat()).error(6, "permission");
        let wanted = format!("CAP_{}", name.to_uppercase());
        assert!(error["message"].as_str().unwrap().contains(&wanted), "{error}");
        assert!(error["hint"].is_string(), "{error}");
    }
    host.assert_clean();
}

#[test]
fn without_control_groups_they_are_named() {
    let host = TestHost::new();
    let script = "umount --recursive /sys/fs/cgroup && exec \"$0\" --json up demo";
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let output = host.run(["unshare", "--mount", "sh", "-c", script, carboy]);
    let error = output.error(7, "unsupported");
    assert!(error["message"].as_str().unwrap().contains("control groups"), "{error}");
    host.assert_clean();
}

#[test]
fn an_image_root_that_overlayfs_cannot_use_is_named() {
    let host = TestHost::new();
    let script = "mkdir /run/lower /run/upper /run/work /run/over && \
                  mount -t overlay -o lowerdir=/run/lower,upperdir=/run/upper,workdir=/run/work \
                  overlay /run/over && exec \"$0\" --json --root /run/over up demo";
    let carboy = env!("CARGO_BIN_EXE_carboy");
    let output = host.run(["unshare", "--mount", "sh", "-c", script, carboy]);
    let error = output.error(7, "unsupported");
    assert!(error["hint"].as_str().unwrap().contains("overlayfs"), "{error}");
    host.run(["rm", "-rf", "/run/lower", "/run/upper", "/run/work", "/run/over"]).ok();
    host.assert_clean();
}

/// The error object, bare or under `error`.
fn body(json: &serde_json::Value) -> serde_json::Value {
    json.get("error").unwrap_or(json).clone()
}
