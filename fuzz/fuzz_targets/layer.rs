#![no_main]

use std::sync::LazyLock;

static SCRATCH: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a directory in TMPDIR"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| carboy::oci::fuzzing::layer(data, SCRATCH.path()));
