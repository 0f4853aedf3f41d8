//! Pulls that are killed, and pulls of one image at once.

use super::*;
use crate::common::spawned::Spawned;

/// Bytes of the largest blob that is being fetched.
fn fetched(host: &TestHost) -> u64 {
    let partial = fs::read_dir(host.path("/var/lib/carboy/images/partial"));
    let files = partial.into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or_default()
}

/// A pull in the middle of a layer, where it stays long enough to be killed on any machine: until
/// [`at_full_speed`].
fn slow_pull(host: &TestHost, image: &str) -> Spawned {
    let slow = ["tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "40mbit"];
    host.run([&slow[..], &["burst", "256kb", "latency", "400ms"]].concat()).ok();
    let pull = host.spawn_carboy(&["image", "pull", image]);
    assert!(poll(Duration::from_secs(30), || fetched(host) > 1 << 20), "the layer does not come");
    pull
}

fn at_full_speed(host: &TestHost) {
    host.run(["tc", "qdisc", "del", "dev", "lo", "root"]).ok();
}

#[test]
fn a_killed_pull_is_gone_on_with() {
    let (host, registry) = ready(Protocol::Tls);
    registry.push(&host, &large(&host, 1, 12), "test/large:1");
    let image = name("test/large:1");
    let mut first = slow_pull(&host, &image);
    assert!(first.kill(), "the pull was not killed in the middle");
    let left = fetched(&host);
    at_full_speed(&host);

    let output = host.carboy(&["image", "pull", &image]);
    assert_eq!(output.ok().stdout().trim(), image);
    assert!(output.stderr().contains("there before"), "{output}");
    let blobs = registry.blobs();
    let rest = blobs.iter().find(|blob| blob.status == 206);
    let rest = rest.unwrap_or_else(|| panic!("no request for a part: {blobs:?}"));
    let whole = 12 << 20;
    assert!(rest.bytes + left > whole && rest.bytes < whole - (1 << 19), "{left}: {blobs:?}");
    let noise = format!(
        "cmp {} /var/lib/carboy/images/layers/*/diff/noise0",
        host.dir().join("noise").display()
    );
    host.run(["sh", "-c", &noise]).ok();
    done(host, registry);
}

#[test]
fn two_pulls_at_once_fetch_each_blob_once() {
    let (host, registry) = ready(Protocol::Tls);
    let image = name("test/layers:1");
    let mut pulls: Vec<_> = (0..3).map(|_| host.spawn_carboy(&["image", "pull", &image])).collect();
    for pull in &mut pulls {
        assert_eq!(pull.wait(), Some(0));
    }
    let mut blobs: Vec<String> = registry.blobs().into_iter().map(|blob| blob.path).collect();
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    blobs.sort();
    blobs.dedup();
    assert_eq!(blobs.len(), 4, "{blobs:?}");
    done(host, registry);
}

#[test]
fn a_pull_killed_anywhere_leaves_whole_images_only() {
    let (host, registry) = ready(Protocol::Tls);
    registry.push(&host, &large(&host, 4, 2), "test/large:1");
    let image = name("test/large:1");
    // Some of these may come too late, on a machine that is quick.
    for milliseconds in [20, 60, 100, 150, 220, 300] {
        let mut call = host.spawn_carboy(&["image", "pull", &image]);
        std::thread::sleep(Duration::from_millis(milliseconds));
        call.kill();
        // What is listed can be told in full and exported.
        let listed = host.carboy(&["image", "ls", "--json"]).ok().stdout_json();
        for found in listed.as_array().unwrap() {
            let digest = found["digest"].as_str().unwrap();
            host.carboy(&["image", "export", digest, "/dev/null"]).ok();
        }
        pull(&host, &image);
        host.carboy(&["image", "rm", &image]).ok();
        let store = host.path("/var/lib/carboy/images");
        for directory in ["names", "manifests", "blobs/sha256", "partial", "layers", "staging"] {
            let left = fs::read_dir(store.join(directory)).unwrap().count();
            assert_eq!(left, 0, "{directory}, killed after {milliseconds} ms");
        }
    }
    done(host, registry);
}

#[test]
fn a_pull_takes_over_from_one_that_is_killed() {
    let (host, registry) = ready(Protocol::Tls);
    registry.push(&host, &large(&host, 1, 12), "test/large:1");
    let image = name("test/large:1");
    let mut first = slow_pull(&host, &image);
    let mut second = host.spawn_carboy(&["image", "pull", &image]);
    // It has asked for the manifest, and waits for the layer.
    let asked = || registry.asked().iter().filter(|one| one.path.contains("/manifests/")).count();
    assert!(poll(Duration::from_secs(30), || asked() == 2), "{:?}", registry.asked());
    assert!(first.kill(), "the first was over");
    at_full_speed(&host);
    assert_eq!(second.wait(), Some(0));
    let layers = registry.blobs().into_iter().filter(|blob| blob.bytes > 1 << 20);
    let statuses: Vec<u16> = layers.map(|blob| blob.status).collect();
    assert!(statuses.contains(&206), "{:?}", registry.blobs());
    done(host, registry);
}
