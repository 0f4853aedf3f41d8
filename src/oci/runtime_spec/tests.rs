//! The specification as the JSON a runtime reads, what must be absent included.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::*;
use crate::names::{ContainerName, Slug};
use crate::oci::digest::Digest;
use crate::oci::id_range::IdRange;
use crate::oci::security::Security;
use crate::oci::selinux::context::Labels;
use crate::oci::selinux::mcs::Pair;
use crate::oci::spec::{ImageRef, Process, Volume};

fn container() -> Container {
    Container {
        name: ContainerName::new("p-sidecars-demo").unwrap(),
        slug: Slug::new("demo").unwrap(),
        image: ImageRef { reference: "t:1".into(), digest: Digest::of(b"") },
        layers: vec![],
        netns: "/run/netns/p-sidecars-demo".into(),
        ip: Ipv4Addr::new(192, 168, 7, 2),
        ip6: None,
        internal: false,
        process: Process {
            args: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: vec!["TOKEN=s3cret".into()],
            cwd: "/srv".into(),
            user: String::new(),
        },
        volumes: vec![],
        tmpfs: vec![],
        secrets: vec![],
        security: Security::default(),
        userns: None,
        selinux: None,
        image_volumes: vec![],
        limits: Limits::default(),
        read_only: false,
        init: false,
        ready_ports: Vec::new(),
        log: crate::oci::spec::LogLimits::default(),
        restart: crate::oci::restart::RestartPolicy::No,
        health: None,
        stop_signal: libc::SIGTERM,
        labels: BTreeMap::from([("secret".into(), "label".into())]),
        storage: "/var/lib/carboy/c".into(),
        state: "/run/carboy/c".into(),
    }
}

fn user(uid: u32, gid: u32, groups: &[u32]) -> ResolvedUser {
    ResolvedUser { uid, gid, groups: groups.to_vec(), home: "/".into() }
}

fn spec_of(container: &Container, user: &ResolvedUser) -> Value {
    let spec = build(container, user, "/carboy/p-sidecars-demo", Path::new("/r")).unwrap();
    serde_json::to_value(spec).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn sorted(value: &Value) -> Vec<&str> {
    let mut words: Vec<_> = value.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    words.sort_unstable();
    words
}

#[test]
fn only_what_is_meant_is_there() {
    let spec = spec_of(&container(), &user(0, 0, &[]));
    assert_eq!(keys(&spec), ["hostname", "linux", "mounts", "ociVersion", "process", "root"]);
    assert_eq!(
        keys(&spec["process"]),
        ["args", "capabilities", "cwd", "env", "noNewPrivileges", "rlimits", "terminal", "user"]
    );
    assert_eq!(
        keys(&spec["linux"]),
        [
            "cgroupsPath",
            "maskedPaths",
            "namespaces",
            "readonlyPaths",
            "resources",
            "rootfsPropagation",
            "sysctl",
        ]
    );
    assert_eq!(keys(&spec["linux"]["resources"]), ["devices", "pids"]);
    assert!(!spec.to_string().contains("s3cret"));
    assert!(!spec.to_string().contains("youki"));
}

#[test]
fn the_process_is_the_containers() {
    let process = &spec_of(&container(), &user(0, 0, &[10, 0]))["process"];
    assert_eq!(process["args"], json!(["/bin/sh", "-c", "true"]));
    assert_eq!(process["cwd"], "/srv");
    assert_eq!(process["env"], json!([]));
    assert_eq!(process["terminal"], false);
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["user"], json!({"uid":0,"gid":0,"umask":18,"additionalGids":[0,10]}));
    assert_eq!(
        process["rlimits"],
        json!([
            {"type":"RLIMIT_NOFILE","hard":4096,"soft":1024},
            {"type":"RLIMIT_CORE","hard":0,"soft":0},
        ])
    );
}

#[test]
fn groups_are_never_left_to_the_caller() {
    let user = |u| spec_of(&container(), &u)["process"]["user"]["additionalGids"].clone();
    assert_eq!(user(super::tests::user(1000, 1001, &[])), json!([1001]));
    assert_eq!(user(super::tests::user(1000, 1001, &[5, 1001])), json!([1001, 5]));
}

#[test]
fn capabilities_follow_the_user() {
    let nine = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
    ];
    let none: [&str; 0] = [];
    for (uid, held) in [(0, &nine[..]), (1000, &none[..])] {
        let sets = &spec_of(&container(), &user(uid, uid, &[]))["process"]["capabilities"];
        assert_eq!(sorted(&sets["bounding"]), nine, "{uid}");
        assert_eq!(sorted(&sets["effective"]), held, "{uid}");
        assert_eq!(sorted(&sets["permitted"]), held, "{uid}");
        assert_eq!(sets["inheritable"], json!([]), "{uid}");
        assert_eq!(sets["ambient"], json!([]), "{uid}");
    }
}

#[test]
fn namespaces_are_new_but_for_the_network() {
    let linux = &spec_of(&container(), &user(0, 0, &[]))["linux"];
    assert_eq!(
        linux["namespaces"],
        json!([
            {"type":"pid"}, {"type":"ipc"}, {"type":"uts"}, {"type":"mount"}, {"type":"cgroup"},
            {"type":"network","path":"/run/netns/p-sidecars-demo"},
        ])
    );
    assert_eq!(linux["cgroupsPath"], "/carboy/p-sidecars-demo");
    assert_eq!(linux["rootfsPropagation"], "private");
}

#[test]
fn mounts_are_dockers_and_then_the_volumes() {
    let mut container = container();
    let volume = |source: &str, destination: &str, read_only| Volume {
        source: source.into(),
        destination: destination.into(),
        read_only,
        idmap: false,
        relabel: None,
    };
    container.volumes = vec![volume("/a", "/x/y", true), volume("/b", "/x", false)];
    let spec = spec_of(&container, &user(0, 0, &[]));
    let mounts = spec["mounts"].as_array().unwrap();
    let destinations: Vec<_> = mounts.iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(
        destinations,
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/dev/mqueue",
            "/dev/shm",
            "/x",
            "/x/y",
        ]
    );
    assert_eq!(
        mounts[8],
        json!({"destination":"/x/y","type":"bind","source":"/a",
               "options":["rbind","rprivate","nosuid","nodev","rnosuid","rnodev","ro","rro"]})
    );
    assert!(!sorted(&mounts[7]["options"]).contains(&"ro"));
    for read_only in [3, 4] {
        assert!(sorted(&mounts[read_only]["options"]).contains(&"ro"));
    }
    assert!(sorted(&mounts[6]["options"]).contains(&"size=65536k"));
}

#[test]
fn file_systems_that_can_be_given_a_label_get_it() {
    let mut container = container();
    container.selinux = Some(Labels {
        process: "system_u:system_r:container_t:s0:c1,c2".into(),
        file: "system_u:object_r:container_file_t:s0:c1,c2".into(),
        common: "system_u:object_r:container_file_t:s0".into(),
        categories: Pair::parse("c1,c2"),
    });
    container.tmpfs = vec![crate::oci::tmpfs::parse("/cache").unwrap()];
    let mut spec = build(&container, &user(0, 0, &[]), "/carboy/x", Path::new("/r")).unwrap();
    let place = TmpfsPlace { destination: "/data".into(), mode: 0o755, uid: 0, gid: 0 };
    add_tmpfs(&mut spec, &[place], &container);
    let spec = serde_json::to_value(spec).unwrap();
    assert_eq!(spec["process"]["selinuxLabel"], "system_u:system_r:container_t:s0:c1,c2");
    assert_eq!(spec["linux"]["mountLabel"], Value::Null);
    let labelled: Vec<_> = spec["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| {
            sorted(&m["options"]).contains(&"context=system_u:object_r:container_file_t:s0:c1,c2")
        })
        .map(|m| m["destination"].as_str().unwrap())
        .collect();
    assert_eq!(labelled, ["/dev", "/dev/pts", "/dev/shm", "/cache", "/data"]);
}

#[test]
fn hidden_and_readonly_paths_are_complete() {
    let linux = &spec_of(&container(), &user(0, 0, &[]))["linux"];
    let masked = sorted(&linux["maskedPaths"]);
    for path in
        ["/proc/interrupts", "/proc/kcore", "/sys/devices/virtual/powercap", "/sys/firmware"]
    {
        assert!(masked.contains(&path), "{path}");
    }
    let readonly = linux["readonlyPaths"].as_array().unwrap();
    assert!(readonly.contains(&json!("/proc/sys")));
    let at = |path: &str| readonly.iter().position(|p| p == path).unwrap();
    assert!(at("/sys/fs/cgroup") < at("/sys/fs/cgroup/memory"));
}

#[test]
fn thermal_throttle_is_masked_for_each_processor() {
    let mut spec = build(&container(), &user(0, 0, &[]), "/carboy/c", Path::new("/r")).unwrap();
    mask_thermal_throttle(&mut spec, "0-1,4\n");
    let masked = spec.linux().as_ref().unwrap().masked_paths().as_ref().unwrap();
    for n in [0, 1, 4] {
        let path = format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle");
        assert!(masked.contains(&path), "{n}");
    }
    assert_eq!(masked.len(), MASKED_PATHS.len() + 3);
    for (bad, count) in [("", 0), ("x", 0), ("3-1", 0), ("0-4294967295", 8192), ("-", 0)] {
        assert_eq!(cpus(bad).count(), count, "{bad}");
    }
}

#[test]
fn limits_become_resources() {
    let mut container = container();
    let resources = |c: &Container| spec_of(c, &user(0, 0, &[]))["linux"]["resources"].clone();
    assert_eq!(resources(&container)["pids"], json!({"limit":256}));
    container.limits = Limits {
        memory: Some(64 << 20),
        pids: Some(7),
        cpu_milli: Some(1500),
        ..Limits::default()
    };
    let limited = resources(&container);
    assert_eq!(limited["memory"], json!({"limit":67108864,"swap":67108864}));
    assert_eq!(limited["pids"], json!({"limit":7}));
    assert_eq!(limited["cpu"], json!({"quota":150000,"period":100000}));
}

#[test]
fn devices_are_denied_but_for_a_few() {
    let spec = spec_of(&container(), &user(0, 0, &[]));
    let devices = spec["linux"]["resources"]["devices"].as_array().unwrap();
    assert_eq!(devices[0], json!({"allow":false,"access":"rwm"}));
    assert_eq!(devices.len(), 10);
    let pts = json!({"allow":true,"type":"c","major":136,"access":"rwm"});
    assert!(devices.contains(&pts));
    // No mknod of whatever one likes.
    assert!(devices[1..].iter().all(|d| d["major"].is_i64()));
}

#[test]
fn root_is_read_only_on_demand() {
    let mut container = container();
    assert_eq!(
        spec_of(&container, &user(0, 0, &[]))["root"],
        json!({"path":"/r","readonly":false})
    );
    container.read_only = true;
    assert_eq!(spec_of(&container, &user(0, 0, &[]))["root"]["readonly"], true);
}

#[test]
fn a_path_that_means_something_else_is_refused() {
    let user = user(0, 0, &[]);
    for path in ["", "/", "carboy/c", "./c", "/carboy/..", "/../c", "a:b:c"] {
        let got = build(&container(), &user, path, Path::new("/r"));
        assert_eq!(got, Err(RuntimeSpecError::CgroupsPath { path: path.into() }), "{path}");
    }
    let relative = build(&container(), &user, "/carboy/c", Path::new("r"));
    assert!(matches!(relative, Err(RuntimeSpecError::Relative { .. })));
    let mut container = container();
    container.netns = "".into();
    let relative = build(&container, &user, "/carboy/c", Path::new("/r"));
    assert!(matches!(relative, Err(RuntimeSpecError::Relative { .. })));
}

#[test]
fn exec_is_bound_as_the_container_is() {
    let container = container();
    let user = user(1000, 1000, &[5]);
    let own = build(&container, &user, "/carboy/c", Path::new("/r")).unwrap();
    let mut own = own.process().clone().unwrap();
    let args = vec!["id".to_owned()];
    let exec = exec_process(&container, &user, &args, None).unwrap();
    own.set_args(Some(args.clone()));
    assert_eq!(exec, own);
    let elsewhere = exec_process(&container, &user, &args, Some("/tmp")).unwrap();
    assert_eq!(elsewhere.cwd(), Path::new("/tmp"));
    assert_eq!(exec_process(&container, &user, &[], None), Err(RuntimeSpecError::NothingToRun));
    assert!(exec_process(&container, &user, &args, Some("tmp")).is_err());
}

#[test]
fn a_user_namespace_brings_its_ids_and_takes_what_the_hosts_network_would_refuse() {
    let range = IdRange { first: 1 << 20, size: 1 << 16 };
    let mut spec =
        build(&container(), &user(0, 0, &[]), "/carboy/p-sidecars-demo", Path::new("/r")).unwrap();
    let before = serde_json::to_value(&spec).unwrap();
    in_user_namespace(&mut spec, range, Path::new("/s"));
    let after = serde_json::to_value(&spec).unwrap();
    let ids = json!([{ "containerID": 0, "hostID": 1 << 20, "size": 1 << 16 }]);
    assert_eq!(after["linux"]["uidMappings"], ids);
    assert_eq!(after["linux"]["gidMappings"], ids);
    let types = |spec: &Value| {
        let all = spec["linux"]["namespaces"].as_array().unwrap();
        all.iter().map(|n| n["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(types(&after), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    assert!(after["linux"].get("sysctl").is_none());
    let sys = |spec: &Value| {
        let all = spec["mounts"].as_array().unwrap();
        all.iter().find(|m| m["destination"] == "/sys").unwrap().clone()
    };
    assert_eq!((&sys(&after)["type"], &sys(&after)["source"]), (&json!("bind"), &json!("/s")));
    assert!(sorted(&sys(&after)["options"]).contains(&"ro"));
    // All else that confines it is the same.
    for key in ["maskedPaths", "readonlyPaths", "resources", "cgroupsPath"] {
        assert_eq!(after["linux"][key], before["linux"][key], "{key}");
    }
    assert_eq!(after["process"], before["process"]);
    assert_eq!(
        after["mounts"].as_array().unwrap().len(),
        before["mounts"].as_array().unwrap().len()
    );
}
