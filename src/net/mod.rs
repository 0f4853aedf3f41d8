//! The network of a bottle: links, addresses, namespaces and firewall, over netlink.

pub mod spec;
