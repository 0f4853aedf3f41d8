//! Images and containers: the store, the unpacked layers, the runtime specification, libcontainer.

pub mod digest;
pub mod embedded;
pub mod spec;
