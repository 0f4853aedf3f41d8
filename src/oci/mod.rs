//! Images and containers: the store, the unpacked layers, the runtime specification, libcontainer.

mod archive;
pub mod digest;
pub mod error;
#[cfg(test)]
mod fixture;
mod image_config;
mod layout;
mod manifest;
pub mod reference;
pub mod source;
pub mod spec;
pub mod store;
pub mod unpack;

pub use self::error::StoreError;
