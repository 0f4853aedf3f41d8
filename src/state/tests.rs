use super::*;
use crate::names::Prefix;
use crate::spec::NetworkAddresses;

fn record() -> NetworkRecord {
    let spec = NetworkSpec {
        name: Prefix::default().network(&Slug::new("demo").unwrap()),
        addresses: NetworkAddresses::new("192.168.7.0/24".parse().unwrap(), None).unwrap(),
        addresses6: None,
        policy: crate::net::policy::NetworkPolicy::default(),
        log_group: None,
        mtu: 1500,
        uplink: None,
        guest: None,
        uplink6: None,
    };
    NetworkRecord { phase: Phase::Applying, resources: plan::network(&spec), spec }
}

#[test]
fn record_reads_back_and_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::new(dir.path().join("state"));
    let record = record();
    let name = record.spec.name.clone();
    assert!(state.network(&name).unwrap().is_none());
    let lock = state.lock_network(&name).unwrap();
    state.write_network(&record).unwrap();
    assert_eq!(state.network(&name).unwrap(), Some(record));
    assert_eq!(state.network_names().unwrap(), vec![name.clone()]);
    state.forget_network(&name).unwrap();
    lock.remove().unwrap();
    state.tidy().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_a_killed_writer_left_is_forgotten_too() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::new(dir.path().join("state"));
    let name = record().spec.name;
    let lock = state.lock_network(&name).unwrap();
    fs::write(fsutil::temporary(&state.network_path(&name)), "half").unwrap();
    assert!(state.network(&name).unwrap().is_none());
    state.forget_network(&name).unwrap();
    lock.remove().unwrap();
    state.tidy().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn damaged_and_older_records_are_told_apart_from_absent_ones() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::new(dir.path());
    let name = record().spec.name;
    drop(state.lock_network(&name).unwrap());
    for bad in ["", "{", r#"{"schema":0,"record":{}}"#, r#"{"schema":1,"record":{}}"#] {
        fs::write(state.network_path(&name), bad).unwrap();
        assert!(matches!(state.network(&name), Err(StateError::Unreadable { .. })), "{bad}");
    }
}
