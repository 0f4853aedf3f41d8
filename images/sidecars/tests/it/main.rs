//! The real program, as an ordinary process without privileges, on loopback.

mod common;
mod init;
mod supervisor;
