//! The ids of a bundle's own user namespace (`user_namespaces(7)`): which of the host's they are, and
//! which are free. Pure.
//!
//! A range is chosen as systemd-nspawn does (`--private-users=pick`): 65,536 ids whose first is a
//! multiple of that, within the numbers that systemd keeps for containers, beginning with the one
//! that the container's name gives.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Classify, ErrorKind};

/// Ids in a range: as many as images use (16 bits), 65535 included, which is no id.
pub const SIZE: u32 = 1 << 16;

/// The first id of the lowest and of the highest range: systemd's `CONTAINER_UID_BASE_MIN` and
/// `CONTAINER_UID_BASE_MAX` (its UIDS-GIDS document).
const LOWEST: u32 = 0x0008_0000;
const HIGHEST: u32 = 0x6fff_0000;

/// What an owner that has no id inside is there: the kernel's overflow id, `nobody`.
pub const NOBODY: u32 = 65_534;

/// Consecutive ids of the host, for users and groups alike; inside they begin with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The host's id of root inside.
    pub first: u32,
    /// How many.
    pub size: u32,
}

/// Why an id cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdRangeError {
    /// The range does not have it.
    #[error("{what} {id} is none of the {size} ids of the bundle's own user namespace")]
    Outside {
        /// `user`, `group`.
        what: &'static str,
        /// The id inside.
        id: u32,
        /// How many there are.
        size: u32,
    },
}

impl Classify for IdRangeError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn hint(&self) -> Option<String> {
        Some("use a smaller id, or --userns=host".to_owned())
    }
}

impl IdRange {
    /// The host's id of an id inside.
    ///
    /// # Errors
    /// [`IdRangeError::Outside`]; `what` says in it what the id is of.
    pub fn to_host(self, what: &'static str, id: u32) -> Result<u32, IdRangeError> {
        let host = self.first.checked_add(id).filter(|_| id < self.size);
        host.ok_or(IdRangeError::Outside { what, id, size: self.size })
    }

    /// The id inside of a host's id; [`NOBODY`] if it has none there.
    pub fn to_inside(self, id: u32) -> u32 {
        id.checked_sub(self.first).filter(|&inside| inside < self.size).unwrap_or(NOBODY)
    }

    /// Whether both have an id in common.
    pub fn overlaps(self, other: Self) -> bool {
        let end = |range: Self| u64::from(range.first) + u64::from(range.size);
        u64::from(self.first) < end(other) && u64::from(other.first) < end(self)
    }

    /// A line of `uid_map` or `gid_map`.
    pub(crate) fn map(self) -> String {
        format!("0 {} {}\n", self.first, self.size)
    }
}

impl std::fmt::Display for IdRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, u64::from(self.first) + u64::from(self.size) - 1)
    }
}

/// The first range, of those that begin with the one the name gives, of which nobody has a part.
pub fn choose(name: &str, taken: &[IdRange]) -> Option<IdRange> {
    let count = (HIGHEST - LOWEST) / SIZE + 1;
    let digest = Sha256::digest(name.as_bytes());
    let begin = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % count;
    (0..count)
        .map(|i| IdRange { first: LOWEST + (begin + i) % count * SIZE, size: SIZE })
        .find(|range| !taken.iter().any(|other| range.overlaps(*other)))
}

/// What `/etc/subuid` or `/etc/subgid` gives away (subuid(5)): `user:first:count` lines.
pub fn of_subids(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':').skip(1);
            let (first, size) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (size > 0).then_some(IdRange { first, size })
        })
        .collect()
}

/// The ids of `/etc/passwd` or `/etc/group` (passwd(5), group(5)): the third field of each line.
pub fn of_accounts(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let first = line.split(':').nth(2)?.parse().ok()?;
            Some(IdRange { first, size: 1 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u32, size: u32) -> IdRange {
        IdRange { first, size }
    }

    #[test]
    fn a_range_is_aligned_within_systemds_numbers_and_the_names_own() {
        for name in ["", "claude-bottle-sidecars-a", "claude-bottle-sidecars-b"] {
            let chosen = choose(name, &[]).unwrap();
            assert_eq!(chosen.first % SIZE, 0);
            assert_eq!(chosen.size, SIZE);
            assert!((LOWEST..=HIGHEST).contains(&chosen.first), "{chosen}");
            assert_eq!(choose(name, &[]), Some(chosen), "the same each time");
        }
        assert_ne!(choose("a", &[]), choose("b", &[]));
    }

    #[test]
    fn what_somebody_has_is_passed_over() {
        let first = choose("demo", &[]).unwrap();
        // One id in it is enough, and what only touches it does not matter.
        let one = range(first.first + 70, 1);
        let second = choose("demo", &[one]).unwrap();
        assert!(!second.overlaps(first));
        assert_eq!(choose("demo", &[range(first.first - 5, 5)]), Some(first));
        assert_eq!(choose("demo", &[range(first.first + SIZE, 1)]), Some(first));
        // From the highest on it goes to the lowest.
        let all_but_one = [range(0, HIGHEST - SIZE), range(HIGHEST, u32::MAX - HIGHEST)];
        assert_eq!(choose("demo", &all_but_one), Some(range(HIGHEST - SIZE, SIZE)));
        assert_eq!(choose("demo", &[range(0, u32::MAX)]), None);
    }

    #[test]
    fn ids_are_mapped_in_both_directions() {
        let ids = range(LOWEST, SIZE);
        assert_eq!(ids.to_host("user", 0), Ok(LOWEST));
        assert_eq!(ids.to_host("user", 65_535), Ok(LOWEST + 65_535));
        let outside = IdRangeError::Outside { what: "group", id: 65_536, size: SIZE };
        assert_eq!(ids.to_host("group", 65_536), Err(outside));
        assert_eq!(ids.to_inside(LOWEST + 1000), 1000);
        assert_eq!(ids.to_inside(0), NOBODY);
        assert_eq!(ids.to_inside(LOWEST + SIZE), NOBODY);
        assert_eq!(ids.map(), "0 524288 65536\n");
        assert_eq!(ids.to_string(), "524288-589823");
    }

    #[test]
    fn files_of_the_host_are_read_and_what_is_no_line_passed_over() {
        let text = "alice:100000:65536\n# x\nbob:1:0\n:5:6\nbroken:x:1\n\ncarol:4294967295:10\n";
        assert_eq!(of_subids(text), [range(100_000, 65_536), range(5, 6), range(u32::MAX, 10)]);
        let text = "root:x:0:0:root:/root:/bin/sh\nbad\nvm:x:600000:1::/:\nneg:x:-1:0::/:\n";
        assert_eq!(of_accounts(text), [range(0, 1), range(600_000, 1)]);
    }
}
