#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| carboy::oci::fuzzing::document(data));
