//! Registries: images over the OCI distribution API 1.1, for reading.
//!
//! What comes is believed only where a digest says so: a tag's manifest is what the registry says
//! it is, all else hangs on it. Redirections, `urls` in descriptors, sizes and media types are the
//! registry's words, and are bounded or ignored. Nothing here reads the environment; who calls it
//! says where credentials and certificates are ([`RegistryConfig`]).

mod challenge;
mod client;
mod client_cert;
mod config;
mod credentials;
mod dns;
mod error;
mod faults;
mod http;
mod name;
mod progress;
mod pull;
mod resolver;
mod retry;
mod roots;
#[cfg(test)]
mod tests;
mod url;

pub use self::config::RegistryConfig;
pub use self::error::{RegistryError, Tried};
pub use self::name::without_transport;
pub use self::progress::{Progress, PullEvent, Quiet};
pub use self::pull::pull;
