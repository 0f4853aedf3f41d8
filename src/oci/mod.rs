//! Images and containers: the store, the unpacked layers, the runtime specification, libcontainer.

pub mod capabilities;
pub mod digest;
pub mod etc_files;
pub mod limits;
pub mod process;
pub mod runtime_spec;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod user;
pub mod volume;
