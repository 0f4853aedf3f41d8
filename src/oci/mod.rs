//! Images and containers: the store, the unpacked layers, the runtime specification, libcontainer.

pub mod apparmor;
mod archive;
mod bounded;
pub mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod container;
mod device_filter;
pub mod digest;
pub mod embedded;
pub mod env_file;
pub mod error;
pub mod etc_files;
mod executor;
#[cfg(test)]
mod fixture;
#[doc(hidden)]
pub mod fuzzing;
pub mod healthcheck;
pub mod helper;
pub mod identity;
mod image_config;
mod layout;
pub mod limits;
pub mod log;
mod manifest;
pub mod process;
pub mod reference;
pub mod registry;
mod rootfs;
pub mod rootfs_image;
mod runtime;
mod runtime_error;
pub mod runtime_spec;
pub mod seccomp;
pub mod secret;
mod secrets;
pub mod security;
pub mod signal;
pub mod source;
pub mod spec;
pub mod status;
pub mod store;
pub mod tmpfs;
pub mod transport;
mod tree_tar;
pub mod ulimit;
pub mod unpack;
pub mod usage;
pub mod user;
mod variant;
pub mod volume;

pub use self::error::StoreError;
pub use self::registry::RegistryError;
pub use self::runtime_error::RuntimeError;
