//! Pairs of categories, by which bundles are kept apart that have one and the same type. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many categories a policy has for this; docker and podman go by the same number.
const CATEGORIES: u32 = 1024;
/// How many pairs of two different ones there are.
const PAIRS: u32 = CATEGORIES * (CATEGORIES - 1) / 2;

/// Two different categories, the lower first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pair {
    low: u16,
    high: u16,
}

impl Pair {
    fn new(a: u16, b: u16) -> Option<Self> {
        let (low, high) = (a.min(b), a.max(b));
        (low != high && u32::from(high) < CATEGORIES).then_some(Self { low, high })
    }

    /// The pair with this number, of all [`PAIRS`].
    fn numbered(number: u32) -> Self {
        let mut low = 0;
        let mut left = number % PAIRS;
        while left >= CATEGORIES - 1 - low {
            left -= CATEGORIES - 1 - low;
            low += 1;
        }
        let high = low + 1 + left;
        let category = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
        Self { low: category(low), high: category(high) }
    }

    /// The first pair, of those that begin with the one the name gives, that nobody has.
    pub fn choose(name: &str, taken: &[Self]) -> Option<Self> {
        let digest = Sha256::digest(name.as_bytes());
        let begin = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % PAIRS;
        // One of so many is free.
        let enough = u32::try_from(taken.len()).unwrap_or(PAIRS).saturating_add(1).min(PAIRS);
        (0..enough).map(|i| Self::numbered(begin + i)).find(|pair| !taken.contains(pair))
    }

    /// The level of a context: `s0:c1,c2`.
    pub fn level(self) -> String {
        format!("s0:{self}")
    }

    /// The pair that a level is, if it is one.
    pub fn of_level(level: &str) -> Option<Self> {
        Self::parse(level.strip_prefix("s0:")?)
    }

    /// Reads `c1,c2`.
    pub fn parse(text: &str) -> Option<Self> {
        let (a, b) = text.split_once(',')?;
        let category = |text: &str| text.strip_prefix('c')?.parse().ok();
        Self::new(category(a)?, category(b)?)
    }
}

impl From<Pair> for String {
    fn from(pair: Pair) -> Self {
        pair.to_string()
    }
}

impl TryFrom<String> for Pair {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no pair of categories")
    }
}

impl std::fmt::Display for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{},c{}", self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_another_pair() {
        let all: HashSet<Pair> = (0..PAIRS).map(Pair::numbered).collect();
        assert_eq!(all.len(), PAIRS as usize);
        assert!(all.iter().all(|pair| pair.low < pair.high && u32::from(pair.high) < CATEGORIES));
        assert_eq!(Pair::numbered(0).to_string(), "c0,c1");
        assert_eq!(Pair::numbered(PAIRS - 1).to_string(), "c1022,c1023");
        assert_eq!(Pair::numbered(PAIRS), Pair::numbered(0));
    }

    #[test]
    fn a_name_has_its_pair_unless_it_is_taken() {
        let first = Pair::choose("demo", &[]).unwrap();
        assert_eq!(Pair::choose("demo", &[]), Some(first));
        assert_ne!(Pair::choose("other", &[]), Some(first));
        let second = Pair::choose("demo", &[first]).unwrap();
        assert_ne!(second, first);
        assert_eq!(Pair::choose("demo", &[second]), Some(first));
    }

    #[test]
    fn a_level_reads_back() {
        let pair = Pair::numbered(70_000);
        assert_eq!(Pair::of_level(&pair.level()), Some(pair));
        let json = serde_json::to_string(&pair).unwrap();
        assert_eq!(json, format!("\"{pair}\""));
        assert_eq!(serde_json::from_str::<Pair>(&json).unwrap(), pair);
        assert_eq!(Pair::of_level("s0:c7,c3").map(Pair::level).as_deref(), Some("s0:c3,c7"));
        for bad in ["", "s0", "s1:c1,c2", "s0:c1", "s0:c1,c1", "s0:c1,c1024", "s0:1,2", "s0:c1.c2"]
        {
            assert_eq!(Pair::of_level(bad), None, "{bad}");
        }
    }
}
