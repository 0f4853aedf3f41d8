//! How a chain that is there differs from the one that is wanted. Pure.

use crate::net::diff::Differences;
use crate::net::nft::ACCEPT;
use crate::net::nft_read::SeenChain;
use crate::net::ruleset::{Base, Chain, Family, TABLE};

const NO_HOOK: &str = "no hook";

/// The words for a chain, as in nft(8).
pub(crate) fn chain_name(family: Family, name: &str) -> String {
    format!("chain {} {TABLE} {name}", family.name())
}

/// Notes what differs: the chain, its hook, each rule by name, and how many rules there are.
pub(crate) fn expect<P: Copy + PartialEq>(
    found: &mut Differences<P>,
    part: P,
    family: Family,
    want: &Chain,
    have: Option<&SeenChain>,
) {
    let resource = chain_name(family, &want.name);
    let Some(have) = have else {
        return found.expect(part, resource, "present", None);
    };
    found.expect(part, resource.clone(), wanted_hook(want), Some(hook(have)));
    for (position, rule) in want.rules.iter().enumerate() {
        let same = have.rules.get(position).is_some_and(|seen| seen.is(rule));
        let is = if same { "as planned" } else { "another rule or none" };
        let resource = format!("rule \"{}\" of {resource}", rule.comment);
        found.expect(part, resource, "as planned", Some(is));
    }
    let resource = format!("rules of {resource}");
    found.expect(part, resource, want.rules.len(), Some(have.rules.len()));
}

/// Whether packets enter both at the same place; nothing but making it anew would change that.
pub(crate) fn same_hook(want: &Chain, have: &SeenChain) -> bool {
    wanted_hook(want) == hook(have)
}

fn wanted_hook(chain: &Chain) -> String {
    match &chain.base {
        Some(Base { kind, hook, priority }) => hook_words(kind, *hook, *priority, ACCEPT),
        None => NO_HOOK.to_owned(),
    }
}

fn hook(chain: &SeenChain) -> String {
    match &chain.base {
        Some((kind, hook, priority, policy)) => hook_words(kind, *hook, *priority, *policy),
        None => NO_HOOK.to_owned(),
    }
}

fn hook_words(kind: &str, hook: u32, priority: i32, policy: u32) -> String {
    format!("type {kind} hook {hook} priority {priority} policy {policy}")
}
