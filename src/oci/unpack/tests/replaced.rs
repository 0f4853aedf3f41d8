//! Directories stay open while files are put into them, and are not taken for what came instead.

use super::*;

#[test]
fn a_directory_that_was_replaced_is_opened_anew() {
    let place = Place::new();
    // Each first puts a file in the directory, so that it is known by then.
    let layer = tar()
        .directory("link", 0o755)
        .file("link/before", b"")
        .directory("other", 0o755)
        .symlink("link", "other")
        .file("link/victim", b"1")
        .directory("out/in", 0o755)
        .file("out/in/before", b"")
        .symlink("out", "../..")
        .file("out/in/victim", b"2")
        .directory("above/in", 0o755)
        .file("above/in/before", b"")
        .file("above", b"")
        .directory("above", 0o700)
        .file("above/in/victim", b"3")
        .directory("whited", 0o755)
        .file("whited/before", b"")
        .file(".wh.whited", b"")
        .file("whited/victim", b"4")
        .end();
    place.unpack(&layer).unwrap();
    let read = |path: &str| fs::read_to_string(place.path("layer").join(path)).unwrap();
    assert_eq!(read("other/victim"), "1");
    assert_eq!(read("in/victim"), "2");
    assert_eq!(read("above/in/victim"), "3");
    assert_eq!(read("whited/victim"), "4");
    let there = |path: &str| place.path("layer").join(path).exists();
    assert!(!there("other/before") && !there("in/before") && !there("above/in/before"));
    assert!(there("whited/before") && opaque(place.path("layer/whited")));
    assert_eq!(mode(place.path("layer/above")), 0o700);

    let through = |replace: fn(Tar) -> Tar| {
        let layer = tar().file("f", b"").directory("d/e", 0o755).file("d/e/before", b"");
        Place::new().unpack(&replace(layer).file("d/e/victim", b"x").end()).map(drop)
    };
    let replacements: [fn(Tar) -> Tar; 4] = [
        |tar| tar.hardlink("d", "f"),
        |tar| tar.hardlink("d/e", "f"),
        |tar| tar.kind(b'6', "d"),
        |tar| tar.symlink("d", "f"),
    ];
    for (number, replace) in replacements.into_iter().enumerate() {
        let fault = through(replace).expect_err("no directory any more").fault;
        assert!(matches!(fault, LayerFault::Parent { .. }), "{number}: {fault}");
    }
}
