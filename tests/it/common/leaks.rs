//! What a host holds at one moment, as sorted lines, so that before and after can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::host::TestHost;
use super::netns;

/// What stays after the last bottle: both roots, the images and the events. Whoever moves one
/// of them moves it here too.
const KEPT: [&str; 3] = ["/run/netns", "/var/lib/carboy/images", "/var/lib/carboy/events"];

/// Directories that stay, while what is in them does not.
const KEPT_ROOTS: [&str; 1] = ["/var/lib/carboy"];

/// Every line says what kind of thing it is; a line may stand more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    lines: BTreeMap<String, usize>,
}

impl Snapshot {
    /// Reads the host. Files at and below `allowed` are left out.
    pub(crate) fn of(host: &TestHost, allowed: &[String]) -> Self {
        let mut lines = Vec::new();
        network(host, &mut lines);
        mounts(host, &mut lines);
        lines.extend(host.cgroups().below().into_iter().map(|c| format!("cgroup {c}")));
        processes(host, &mut lines);
        forwarding(host, &mut lines);
        for root in ["/run", "/var/lib"] {
            files(host, Path::new(root), allowed, &mut lines);
        }
        let mut counted = BTreeMap::new();
        for line in lines {
            *counted.entry(line).or_default() += 1;
        }
        Self { lines: counted }
    }

    /// `+` for what `later` has more of, `-` for what it lacks.
    pub(crate) fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for line in self.lines.keys().chain(later.lines.keys()) {
            let count = |of: &Self| of.lines.get(line).copied().unwrap_or_default();
            let (before, after) = (count(self), count(later));
            if before != after {
                found.push(format!("{} {line}", if after > before { '+' } else { '-' }));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

/// Links, IPv4 addresses and routes of every namespace that has a name, and the firewall.
fn network(host: &TestHost, lines: &mut Vec<String>) {
    let named = fs::read_dir(host.path("/run/netns")).into_iter().flatten().flatten();
    let named: Vec<String> =
        named.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    lines.extend(named.iter().map(|name| format!("netns {name}")));
    for name in std::iter::once(None).chain(named.iter().map(|n| Some(n.as_str()))) {
        let read = |words: &[&str]| {
            let output = match name {
                None => host.run(words),
                Some(name) => host.netns_run(name, words),
            };
            // A namespace may go while it is read, and a file there may be no namespace at all.
            if name.is_none() || output.exit_code() == Some(0) {
                output.ok().stdout_json()
            } else {
                Value::Null
            }
        };
        let place = name.unwrap_or("the host");
        for link in array(&read(&["ip", "-j", "address"])) {
            let ifname = text(&link["ifname"]);
            let altnames = array(&link["altnames"]).map(text).collect::<Vec<_>>().join(" ");
            lines.push(format!("link {ifname} ({altnames}) in {place}"));
            for address in array(&link["addr_info"]).filter(|a| a["family"] == "inet") {
                let (local, length) = (text(&address["local"]), &address["prefixlen"]);
                lines.push(format!("address {local}/{length} on {ifname} in {place}"));
            }
        }
        for route in array(&read(&["ip", "-j", "-4", "route", "show", "table", "all"])) {
            let (to, dev) = (text(&route["dst"]), text(&route["dev"]));
            lines.push(format!("route {to} dev {dev} in {place}"));
        }
        for entry in array(&read(&["nft", "-j", "list", "ruleset"])["nftables"]) {
            if entry.get("metainfo").is_none() {
                lines.push(format!("nft {} in {place}", without_counts(entry.clone())));
            }
        }
    }
}

/// An nft object without what changes when it is made again or sees traffic.
fn without_counts(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for key in ["handle", "packets", "bytes"] {
                map.remove(key);
            }
            map.values_mut().for_each(|v| *v = without_counts(v.take()));
        }
        Value::Array(all) => all.iter_mut().for_each(|v| *v = without_counts(v.take())),
        _ => {}
    }
    value
}

fn mounts(host: &TestHost, lines: &mut Vec<String>) {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", host.init())).unwrap();
    for line in mounts.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (point, kind) = (words[4], line.split(" - ").nth(1).unwrap());
        // `ip netns add` makes this a mount of its own, once, and leaves it (ip-netns(8)).
        if point != "/run/netns" {
            lines.push(format!("mount {point} ({})", kind.split(' ').next().unwrap()));
        }
    }
}

fn processes(host: &TestHost, lines: &mut Vec<String>) {
    for entry in fs::read_dir(host.path("/proc")).unwrap().flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // A process may go while it is read.
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
        let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
        let arguments: String = arguments.chars().take(120).collect();
        lines.push(format!("process {} `{}`", name.trim(), arguments.lines().next().unwrap_or("")));
    }
}

/// `/proc/sys/net` shows the namespace of the thread that reads it.
fn forwarding(host: &TestHost, lines: &mut Vec<String>) {
    let found = netns::inside(&host.netns(None), || {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc/sys/net/ipv4/conf").unwrap().flatten() {
            // A device may go while it is read.
            if let Ok(value) = fs::read_to_string(entry.path().join("forwarding")) {
                let device = entry.file_name().to_string_lossy().into_owned();
                found.push(format!("sysctl net.ipv4.conf.{device}.forwarding={}", value.trim()));
            }
        }
        found
    });
    lines.extend(found);
}

fn files(host: &TestHost, directory: &Path, allowed: &[String], lines: &mut Vec<String>) {
    for entry in fs::read_dir(host.path(directory)).into_iter().flatten().flatten() {
        let path = directory.join(entry.file_name());
        if KEPT.iter().any(|kept| path.starts_with(kept))
            || allowed.iter().any(|allowed| path.starts_with(allowed))
        {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        let slash = if kind.is_dir() { "/" } else { "" };
        if !KEPT_ROOTS.iter().any(|root| path == Path::new(root)) {
            lines.push(format!("file {}{slash}", path.display()));
        }
        if kind.is_dir() {
            files(host, &path, allowed, lines);
        }
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
