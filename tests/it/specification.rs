//! The runtime specifications that carboy generates, by what others say of them: the OCI's own
//! schema, and the runtimes runc and crun, which start a container from the same file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::bottle::{down, load, up};
use crate::common::{TestHost, images};

/// Where Debian's package golang-github-opencontainers-specs-dev has the schema.
const SCHEMA: &str = "/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema";

/// Says what is wrong with the file in the first argument.
const VALIDATE: &str = "
import json, sys, warnings
warnings.simplefilter('ignore')
import jsonschema
path = sys.argv[1] + '/config-schema.json'
schema = json.load(open(path))
resolver = jsonschema.RefResolver('file://' + path, schema)
validator = jsonschema.Draft4Validator(schema, resolver=resolver)
errors = list(validator.iter_errors(json.load(open(sys.argv[2]))))
for e in errors:
    print('/'.join(map(str, e.absolute_path)), e.message)
sys.exit(1 if errors else 0)
";

/// Every option that changes the specification stands in one of these.
const LAUNCHES: [&[&str]; 6] = [
    &[],
    &["--user", "web", "--workdir", "/www", "--read-only", "--init"],
    &["--memory", "64m", "--memory-swap", "-1", "--cpus", "1.5", "--pids-limit", "99"],
    &["--cap-add", "ALL", "--cap-drop", "MKNOD", "--security-opt", "seccomp=unconfined"],
    &[
        "--tmpfs",
        "/cache:size=1m,uid=1000,mode=700",
        "--ulimit",
        "nofile=64:128",
        "--ulimit",
        "as=-1",
        "-v",
        "/etc/hostname:/name:ro",
        "-v",
        "/srv:/srv",
        "--secret",
        "a=/etc/hostname",
    ],
    WITH_IDS,
];

/// Ids of its own.
const WITH_IDS: &[&str] = &["--userns", "--tmpfs", "/cache:size=1m", "-v", "/srv:/srv:idmap"];

/// The specification of the bundle `demo`.
fn config(host: &TestHost) -> PathBuf {
    host.path("/run/carboy/bundles/claude-bottle-sidecars-demo/run/config.json")
}

fn start(host: &TestHost, flags: &[&str]) {
    up(host, &[&["demo", "--image", "test-busybox"], flags].concat());
}

fn validate(host: &TestHost, config: &Path) -> Vec<String> {
    assert!(
        Path::new(SCHEMA).exists(),
        "this test needs the packages golang-github-opencontainers-specs-dev, python3-jsonschema"
    );
    let path = config.display().to_string();
    let output = host.run(["python3", "-c", VALIDATE, SCHEMA, &path]);
    let errors: Vec<String> = output.stdout().lines().map(str::to_owned).collect();
    assert_eq!(output.exit_code(), Some(i32::from(!errors.is_empty())), "{output}");
    errors
}

#[test]
fn every_specification_is_valid_by_the_oci_schema() {
    let host = TestHost::new();
    load(&host, &images::busybox());
    let copy = host.dir().join("config.json");
    for flags in LAUNCHES {
        start(&host, flags);
        fs::copy(config(&host), &copy).unwrap();
        assert_eq!(validate(&host, &copy), [""; 0], "{flags:?}");
        down(&host, "demo");
    }
    // The schema does say no.
    let mut broken: Value = serde_json::from_slice(&fs::read(&copy).unwrap()).unwrap();
    broken["process"]["cwd"] = json!(7);
    broken["linux"]["namespaces"][0]["type"] = json!("pids");
    fs::write(&copy, broken.to_string()).unwrap();
    assert_eq!(validate(&host, &copy).len(), 2);
}

/// What a program sees of its own confinement, by name.
type Sight = BTreeMap<String, String>;

/// Rights, limits and mounts; the root and what the runtime puts on it by itself are left out.
const LOOK: &str = "busybox grep -E '^(Cap|NoNew|Uid|Gid|Groups|Umask)' /proc/self/status; \
    busybox awk '/^Max/ {print \"limit \" $0}' /proc/self/limits; \
    busybox awk '{print \"mount \" $2, $3, $4}' /proc/self/mounts; \
    busybox hostname";

fn sight(text: &str) -> Sight {
    let mut found = Sight::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["mount", place, kind, options] => {
                let flags = ["ro", "nosuid", "nodev", "noexec"];
                let set: Vec<&str> =
                    options.split(',').filter(|option| flags.contains(option)).collect();
                found.insert(format!("mount {place}"), format!("{kind} {}", set.join(",")));
            }
            ["limit", rest @ ..] => {
                let name: Vec<&str> = rest
                    .iter()
                    .take_while(|w| w.parse::<u64>().is_err() && **w != "unlimited")
                    .copied()
                    .collect();
                let key = format!("limit {}", name.join(" "));
                found.insert(key, rest[name.len()..].join(" "));
            }
            [key, rest @ ..] => {
                found.insert((*key).to_owned(), rest.join(" "));
            }
            [] => {}
        }
    }
    found
}

/// Starts a container from the same specification with another runtime, and looks from inside.
fn elsewhere(host: &TestHost, runtime: &str, bundle: &Path) -> String {
    let mut spec: Value = serde_json::from_slice(&fs::read(config(host)).unwrap()).unwrap();
    spec["root"]["path"] = json!(bundle.join("rootfs"));
    if spec["linux"]["uidMappings"].is_array() {
        with_ids(host, bundle, &mut spec);
    }
    // What is not in carboy's specification: the environment, and another program.
    spec["process"]["env"] = json!(["PATH=/bin"]);
    spec["process"]["args"] = json!(["/bin/sh", "-c", LOOK]);
    spec["linux"]["cgroupsPath"] = json!(format!("/check-{runtime}"));
    fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
    let (root, path) = (format!("/run/{runtime}-check"), bundle.display().to_string());
    // Its device rules need CAP_SYS_RESOURCE, which the machine may lack; the control groups are
    // looked at elsewhere.
    let without_groups: &[&str] =
        if runtime == "crun" { &["--cgroup-manager", "disabled"] } else { &[] };
    let run = ["run", "--bundle", &path, "check"];
    let output = host.run([&[runtime, "--root", &root], without_groups, &run].concat());
    output.ok();
    host.run(["rm", "-rf", &root]).ok();
    output.stdout()
}

/// Puts what the monitor alone sees, the mounts it has made for a bundle with ids of its own, in
/// places that another runtime finds: the host's own, and a root file system that has the ids.
fn with_ids(host: &TestHost, bundle: &Path, spec: &mut Value) {
    let first = spec["linux"]["uidMappings"][0]["hostID"].to_string();
    let rootfs = bundle.join("rootfs").display().to_string();
    host.run(["chown", "-R", &format!("{first}:{first}"), &rootfs]).ok();
    host.run(["chmod", "711", &bundle.display().to_string()]).ok();
    for mount in spec["mounts"].as_array_mut().unwrap() {
        let own = mount["source"].as_str().is_some_and(|source| source.starts_with("/run/carboy/"));
        if own {
            // The runtime's own choice of attributes: the monitor's copies have them already.
            mount["source"] = mount["destination"].clone();
        }
    }
}

/// The runtime's container must see what carboy's sees, apart from the root, which is a plain
/// directory there.
fn compare(host: &TestHost, runtime: &str, launches: &[&[&str]]) {
    load(host, &images::busybox());
    let bundle = host.dir().join("bundle");
    let image = format!("{}:test-busybox", images::busybox().layout.display());
    host.run(["umoci", "unpack", "--image", &image, &bundle.display().to_string()]).ok();
    for flags in launches {
        start(host, flags);
        let ours = host.carboy(&["exec", "demo", "--", "sh", "-c", LOOK]).ok().stdout();
        let [mut ours, mut theirs] = [ours, elsewhere(host, runtime, &bundle)].map(|s| sight(&s));
        for sight in [&mut ours, &mut theirs] {
            assert!(sight.remove("mount /").is_some());
            // In a user namespace runc shows version 2 beside version 1 as well.
            sight.remove("mount /sys/fs/cgroup/unified");
            assert!(sight.len() > 30, "{sight:?}");
        }
        let keys = |sight: &Sight| sight.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&ours), keys(&theirs), "{runtime} {flags:?}");
        for (key, own) in &ours {
            // What hides or protects the kernel's files; crun has other flags and another empty file.
            let masked = key.starts_with("mount /proc/") || key.starts_with("mount /sys/");
            let dev_null = own == "tmpfs nosuid";
            let read_only = own.split([' ', ',']).any(|word| word == "ro");
            let same = *own == theirs[key] || (masked && (read_only || dev_null));
            assert!(same, "{runtime} {flags:?} {key}: {own:?}, there {:?}", theirs[key]);
        }
        down(host, "demo");
    }
}

#[test]
fn runc_makes_the_same_container_of_it() {
    compare(&TestHost::new(), "runc", &[&LAUNCHES[..4], &[WITH_IDS]].concat());
}

/// crun wants a host with nothing but cgroup2, where the machine may have no limits to give.
#[test]
fn crun_makes_the_same_container_of_it() {
    // Without --init: crun 1.8 takes no option for what lies below a mount if that is a file.
    let read_only = &["--user", "web", "--workdir", "/www", "--read-only"][..];
    compare(&TestHost::cgroup2(), "crun", &[LAUNCHES[0], read_only, LAUNCHES[3]]);
}
