//! Images and containers: the store, the unpacked layers, the runtime specification, libcontainer.

mod archive;
mod bounded;
pub mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod container;
pub mod digest;
pub mod embedded;
pub mod error;
pub mod etc_files;
pub mod events;
mod executor;
#[cfg(test)]
mod fixture;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod healthcheck;
pub mod helper;
pub mod identity;
mod image_config;
mod layout;
pub(crate) mod life;
pub mod limits;
pub mod log;
mod manifest;
pub mod process;
pub mod reference;
pub mod registry;
pub mod restart;
mod rootfs;
pub mod rootfs_image;
mod runtime;
mod runtime_error;
pub mod runtime_spec;
pub mod seccomp;
pub mod signal;
pub mod source;
pub mod spec;
pub mod status;
pub mod store;
pub mod transport;
mod tree_tar;
pub mod unpack;
pub mod user;
mod variant;
pub mod volume;

pub use self::error::StoreError;
pub use self::registry::RegistryError;
pub use self::runtime_error::RuntimeError;
