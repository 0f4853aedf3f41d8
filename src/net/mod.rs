//! The network of a bottle: links, addresses, namespaces and firewall, over netlink.
//!
//! One module per resource of [`spec`], each with `create`, `observe`, `repair` and `remove` as
//! [`Host`](crate::resource::Host) describes them. All calls are synchronous, work from any thread
//! and leave the caller's namespaces alone.
//!
//! The firewall table, the passage and the uplink are shared by all bottles of a host. Each change is one
//! transaction, but "is anybody left?" and "remove" are two steps: the caller must serialise calls
//! that create or remove [`firewall`], [`passage`], [`uplink`] and [`bridge_rules`], from the first
//! shared resource of a bottle up to its bridge's entry, with a lock of the whole host.

mod address;
mod altname;
pub mod bridge;
mod bridge_look;
pub mod bridge_rules;
mod chain_diff;
pub mod counters;
mod diff;
pub mod drops;
mod elements;
mod error;
mod facts;
pub mod firewall;
mod firewall_look;
pub mod guest_peer;
pub mod guest_rules;
mod link;
mod netlink;
pub mod netns;
pub mod nflog;
mod nft;
mod nft_expr;
mod nft_read;
mod nft_socket;
pub mod overlap;
pub mod passage;
pub mod policy;
pub mod port_rules;
pub mod ruleset;
pub mod spec;
mod sysctl;
mod unlink;
pub mod uplink;
pub mod uplink6;
pub mod veth;
mod veth_look;

pub use error::{Capability, Error};
