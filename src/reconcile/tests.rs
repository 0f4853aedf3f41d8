//! The mechanism against an in-memory host that fails, or stops dead, at any operation.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::names::{EndName, IfName};
use crate::net::spec::{BridgeRules, Firewall, Netns, Uplink};

/// How the host ends an operation that was chosen to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// An error, with nothing of the operation left.
    Clean,
    /// As after SIGKILL: half of the operation is there and nobody tidies up.
    Half,
}

#[derive(Debug, thiserror::Error)]
#[error("operation {0} was chosen to fail")]
struct Chosen(usize);

impl Classify for Chosen {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thing {
    Whole,
    Half,
    Foreign,
}

#[derive(Default)]
struct Memory {
    things: BTreeMap<String, Thing>,
    operations: usize,
    writes: usize,
    fail_at: Option<(usize, Failure)>,
}

impl Memory {
    /// Counts an operation; the failure that was chosen for it, if any.
    fn step(&mut self) -> Option<(usize, Failure)> {
        self.operations += 1;
        self.fail_at.filter(|(n, _)| *n == self.operations)
    }
}

impl Host for Memory {
    type Error = Chosen;

    fn create(&mut self, resource: &Resource) -> Result<Creation, Chosen> {
        let failure = self.step();
        let key = resource.to_string();
        if self.things.contains_key(&key) {
            return failure.map_or(Ok(Creation::Exists), |(n, _)| Err(Chosen(n)));
        }
        match failure {
            Some((n, Failure::Clean)) => Err(Chosen(n)),
            Some((n, Failure::Half)) => {
                self.things.insert(key, Thing::Half);
                Err(Chosen(n))
            }
            None => {
                self.writes += 1;
                self.things.insert(key, Thing::Whole);
                Ok(Creation::Created)
            }
        }
    }

    fn observe(&mut self, resource: &Resource) -> Result<Presence, Chosen> {
        if let Some((n, _)) = self.step() {
            return Err(Chosen(n));
        }
        Ok(match self.things.get(&resource.to_string()) {
            None => Presence::Absent,
            Some(Thing::Whole) => Presence::Present,
            Some(Thing::Half) => {
                Presence::Drifted(vec![Drift::new(resource.to_string(), "whole", "half")])
            }
            Some(Thing::Foreign) => Presence::Foreign("a stranger".into()),
        })
    }

    fn repair(&mut self, resource: &Resource, drift: &[Drift]) -> Result<(), Chosen> {
        assert!(!drift.is_empty());
        if let Some((n, _)) = self.step() {
            return Err(Chosen(n));
        }
        self.writes += 1;
        self.things.insert(resource.to_string(), Thing::Whole);
        Ok(())
    }

    fn remove(&mut self, resource: &Resource) -> Result<Removal, Chosen> {
        let failure = self.step();
        let key = resource.to_string();
        let found = self.things.get(&key).copied();
        match (found, failure) {
            (None | Some(Thing::Foreign), None) => Ok(Removal::Absent),
            (_, Some((n, Failure::Clean))) => Err(Chosen(n)),
            (_, Some((n, Failure::Half))) => {
                self.things.entry(key).and_modify(|t| *t = Thing::Half);
                Err(Chosen(n))
            }
            (Some(_), None) => {
                self.writes += 1;
                self.things.remove(&key);
                Ok(Removal::Removed)
            }
        }
    }
}

fn resources(count: usize) -> Vec<Resource> {
    let name = |i: usize| IfName::new(format!("cb-{i}")).unwrap();
    (0..count)
        .map(|i| match i % 4 {
            0 if i == 0 => Resource::Firewall(Firewall {}),
            1 => Resource::Uplink(Uplink { device: name(i) }),
            2 => Resource::BridgeRules(BridgeRules {
                bridge: name(i),
                gateway: std::net::Ipv4Addr::LOCALHOST,
                gateway6: None,
                uplink: None,
                uplink6: None,
                internal: false,
                egress: None,
                host_ports: Vec::new(),
                log_group: None,
            }),
            _ => Resource::Netns(Netns {
                ipv6: false,
                open_sockets: false,
                name: EndName::new(format!("n{i}")).unwrap(),
                path: format!("/run/netns/n{i}").into(),
            }),
        })
        .collect()
}

fn any_failure() -> impl Strategy<Value = Failure> {
    prop_oneof![Just(Failure::Clean), Just(Failure::Half)]
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Fresh), Just(Expect::Existing)]
}

fn up(host: &mut Memory, plan: &[Resource], expect: Expect) -> Result<usize, ApplyError<Chosen>> {
    let mut transaction = Transaction::new();
    let result = transaction.apply(host, plan, expect);
    result.map(|()| transaction.changes().len())
}

proptest! {
    #[test]
    fn after_a_failure_at_any_operation_down_leaves_nothing(
        count in 1usize..12,
        n in 1usize..40,
        failure in any_failure(),
        expect in any_expect(),
    ) {
        let plan = resources(count);
        let mut host = Memory { fail_at: Some((n, failure)), ..Memory::default() };
        // The outcome does not matter: n may lie behind the last operation.
        let _ = up(&mut host, &plan, expect);
        // `down` itself may be the one that fails; then a second one finishes.
        let first = remove(&mut host, &plan);
        host.fail_at = None;
        let second = remove(&mut host, &plan);
        prop_assert!(second.errors.is_empty());
        prop_assert!(host.things.is_empty(), "{:?} after {:?}", host.things, first.removed);
    }

    #[test]
    fn after_a_failure_at_any_operation_up_converges(
        count in 1usize..12,
        n in 1usize..40,
        failure in any_failure(),
        expect in any_expect(),
    ) {
        let plan = resources(count);
        let mut host = Memory { fail_at: Some((n, failure)), ..Memory::default() };
        let _ = up(&mut host, &plan, expect);
        host.fail_at = None;
        up(&mut host, &plan, expect).unwrap();
        prop_assert!(host.things.values().all(|t| *t == Thing::Whole));
        prop_assert_eq!(host.things.len(), count);
    }

    #[test]
    fn a_second_up_changes_nothing(count in 1usize..12, expect in any_expect()) {
        let plan = resources(count);
        let mut host = Memory::default();
        prop_assert_eq!(up(&mut host, &plan, Expect::Fresh).unwrap(), count);
        let writes = host.writes;
        prop_assert_eq!(up(&mut host, &plan, expect).unwrap(), 0);
        prop_assert_eq!(host.writes, writes);
    }

    #[test]
    fn roll_back_removes_what_this_call_made_and_nothing_else(
        count in 2usize..12,
        before in 0usize..6,
        n in 1usize..20,
    ) {
        let plan = resources(count);
        let mut host = Memory::default();
        up(&mut host, &plan[..before.min(count - 1)], Expect::Fresh).unwrap();
        let was = host.things.clone();
        host.fail_at = Some((host.operations + n, Failure::Clean));
        let mut transaction = Transaction::new();
        if transaction.apply(&mut host, &plan, Expect::Fresh).is_err() {
            host.fail_at = None;
            prop_assert!(transaction.roll_back(&mut host).is_empty());
            prop_assert_eq!(host.things, was);
        }
    }

    #[test]
    fn a_fresh_up_looks_at_nothing(count in 1usize..12) {
        let plan = resources(count);
        let mut host = Memory::default();
        up(&mut host, &plan, Expect::Fresh).unwrap();
        prop_assert_eq!(host.operations, count);
    }
}

#[test]
fn a_stranger_in_the_way_is_neither_taken_over_nor_removed() {
    let plan = resources(4);
    let mut host = Memory::default();
    host.things.insert(plan[2].to_string(), Thing::Foreign);
    let error = up(&mut host, &plan, Expect::Fresh).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Foreign);
    assert!(error.to_string().contains("a stranger"), "{error}");
    remove(&mut host, &plan);
    assert_eq!(host.things.len(), 1);
}

#[test]
fn verify_names_each_difference_and_changes_nothing() {
    let plan = resources(4);
    let mut host = Memory::default();
    host.things.insert(plan[0].to_string(), Thing::Whole);
    host.things.insert(plan[1].to_string(), Thing::Half);
    let drift = verify(&mut host, &plan).unwrap();
    assert_eq!(drift.len(), 3);
    assert_eq!(host.writes, 0);
    assert!(verify(&mut host, &plan[..1]).unwrap().is_empty());
}
