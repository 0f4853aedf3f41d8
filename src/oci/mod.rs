//! Images and containers: the store, the unpacked layers, the runtime specification, libcontainer.

pub mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod container;
pub mod digest;
pub mod embedded;
pub mod etc_files;
mod executor;
pub mod helper;
pub mod identity;
pub mod limits;
pub mod log;
pub mod process;
mod rootfs;
mod runtime;
mod runtime_error;
pub mod runtime_spec;
pub mod seccomp;
pub mod signal;
pub mod spec;
pub mod status;
pub mod user;
pub mod volume;

pub use self::runtime_error::RuntimeError;
