//! Whose opinion finds a place where all are taken. Pure.
//!
//! Keys are free, addresses less so: opinions are counted by the *origin* from which they were said. Where there is no place left, the origin
//! with the most gives one up for who has fewer, its newest; so each of many addresses keeps its share, and words that stand long stay. Members
//! have places of their own, which strangers do not take.
//!
//! ```text
//! about one node: 1,024 of strangers ─ full ─▶ most of one origin: 900 ─▶ its newest goes, the newcomer's first comes
//!                 1,024 of members             most of one origin: 1   ─▶ full
//! ```

use std::collections::BTreeMap;

/// An opinion that stands, as far as places are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing<'a, K> {
    /// Which it is.
    pub(crate) key: K,
    /// From where it was said.
    pub(crate) origin: &'a str,
    /// When.
    pub(crate) at: u64,
}

/// Returns which of those that stand yields to one more of this origin, if one does.
pub(crate) fn yields<'a, K: Ord + Copy>(
    standing: impl Iterator<Item = Standing<'a, K>> + Clone,
    origin: &str,
) -> Option<K> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for said in standing.clone() {
        *counts.entry(said.origin).or_default() += 1;
    }
    let own = counts.get(origin).copied().unwrap_or(0);
    let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    // Else they would take each other's place in turn.
    if own + 1 >= count {
        return None;
    }
    standing.filter(|said| said.origin == most).max_by_key(|said| (said.at, said.key)).map(|said| said.key)
}

#[cfg(test)]
mod tests {
    #![allow(missing_docs)]
    use super::*;

    fn of<'a>(origins: &'a [&'a str]) -> impl Iterator<Item = Standing<'a, usize>> + Clone {
        origins.iter().enumerate().map(|(key, origin)| Standing { key, origin, at: 100 - key as u64 / 2 })
    }

    #[test]
    fn the_newest_of_who_has_most_yields_to_who_has_fewer() {
        let crowd = ["a", "b", "b", "b", "c"];
        // Of 1, 2 and 3, said at 100, 99 and 99, the later key of the newest.
        assert_eq!(yields(of(&crowd), "d"), Some(1));
        assert_eq!(yields(of(&crowd), "a"), Some(1), "then both have two");
        assert_eq!(yields(of(&["a", "b", "b"]), "a"), None, "they would change places for ever");
        assert_eq!(yields(of(&crowd), "b"), None, "who has most takes nobody's");
        assert_eq!(yields(of(&["a", "b", "c"]), "d"), None, "all have one");
        assert_eq!(yields(of(&["a", "a", "b"]), "c"), Some(1));
        assert_eq!(yields(of(&[]), "a"), None);
    }
}
