//! Images: what is loaded is what runs.

use crate::common::images;

#[test]
fn x() {
    println!("{:?} {:?}", images::busybox(), images::layered());
}
