//! The embedded sidecars image.
fn main() {}
