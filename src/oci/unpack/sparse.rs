//! Files with holes: what GNU tar writes with `--sparse`, in its own form (type `S`) and in the
//! three pax forms (0.0, 0.1, 1.0; tar's manual, "Storing Sparse Files"). Pure.

use tar_core::SparseEntry;

use super::{LayerFault, Limits};

/// Regions of data a file may have; the parser stops there.
pub(super) const REGIONS_MAX: usize = 65_536;

/// A file with holes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sparse {
    /// The file's size in bytes, holes included.
    pub(super) size: u64,
    /// Offset and length of each region of data, in order; what lies between is a hole.
    pub(super) regions: Vec<(u64, u64)>,
}

impl Sparse {
    /// Checks a map against the `data` bytes that follow in the tar. Parsers must not disagree on
    /// where the next entry begins, so nothing but an exact map is let in.
    pub(super) fn parse(
        map: &[SparseEntry],
        size: u64,
        data: u64,
        limits: &Limits,
    ) -> Result<Self, LayerFault> {
        let refuse = |reason| Err(LayerFault::Sparse { reason });
        if size > limits.bytes {
            return Err(LayerFault::Bytes { max: limits.bytes });
        }
        let (mut end, mut total) = (0u64, 0u64);
        let mut regions = Vec::with_capacity(map.len());
        for region in map {
            if region.offset < end {
                return refuse("its regions overlap or are out of order");
            }
            end = match region.offset.checked_add(region.length) {
                Some(end) if end <= size => end,
                _ => return refuse("a region lies beyond the end of the file"),
            };
            total += region.length;
            regions.push((region.offset, region.length));
        }
        if total != data {
            return refuse("its regions are not as long as its data");
        }
        Ok(Self { size, regions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_maps_are_let_in() {
        let limits = Limits { bytes: 1_000, ..Limits::default() };
        type Case<'a> = (&'a [(u64, u64)], u64, u64, bool);
        let cases: [Case<'_>; 10] = [
            (&[], 0, 0, true),
            (&[], 900, 0, true),
            (&[(0, 5), (10, 5), (20, 0)], 20, 10, true),
            (&[(0, 5), (5, 5)], 10, 10, true),
            (&[(0, 5), (4, 5)], 20, 10, false),
            (&[(10, 5), (0, 5)], 20, 10, false),
            (&[(0, 5)], 20, 10, false),
            (&[(16, 5)], 20, 5, false),
            (&[(u64::MAX, 5)], 20, 5, false),
            (&[(0, 5)], 1_001, 5, false),
        ];
        for (map, size, data, want) in cases {
            let map: Vec<_> =
                map.iter().map(|&(offset, length)| SparseEntry { offset, length }).collect();
            let parsed = Sparse::parse(&map, size, data, &limits);
            assert_eq!(parsed.is_ok(), want, "{map:?} {size} {data}");
        }
    }
}
