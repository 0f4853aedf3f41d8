//! The tar passes three threads in chunks.

use super::*;

#[test]
fn layers_of_many_chunks_are_whole() {
    // Sizes for which headers, theirs in pax form included, lie across the ends of chunks.
    let size = |number: usize| if number == 99 { 3 * stream::CHUNK + 1 } else { number * 137 };
    let content = |number: usize| -> Vec<u8> {
        (0..size(number)).map(|at| (at.wrapping_mul(31) >> 3) as u8 ^ number as u8).collect()
    };
    let comment = "x".repeat(1_500);
    let layer = (0..200).fold(tar(), |tar, number| {
        let tar = if number % 3 == 0 { tar.pax("comment", &comment) } else { tar };
        tar.file(&format!("d{}/{number}", number % 7), &content(number))
    });
    let layer = layer.end();
    assert!(layer.len() > 10 * stream::CHUNK);
    for blob in [layer.clone(), gzip(&layer)] {
        let place = Place::new();
        let unpacked = place.unpack(&blob).unwrap();
        assert_eq!((unpacked.diff_id, unpacked.tar_size), (Digest::of(&layer), layer.len() as u64));
        for number in 0..200 {
            let path = place.path(&format!("layer/d{}/{number}", number % 7));
            assert!(fs::read(path).unwrap() == content(number), "file {number}");
        }
    }
    // Refused in the middle: all threads end, and the whole blob is hashed nevertheless.
    let bad = [tar().file("a", b"").kind(b'Z', "b").cut(), layer].concat();
    let failure = Place::new().unpack(&bad).expect_err("an unknown kind");
    assert!(matches!(failure.fault, LayerFault::Kind { .. }), "{}", failure.fault);
    assert_eq!((failure.blob, failure.entry.as_str()), (Some(Digest::of(&bad)), "b"));
}
