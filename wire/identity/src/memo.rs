//! Remembers which signatures hold.
//!
//! A node reads the same contracts again whenever one of them changes, and each costs two signatures of 40 µs. What
//! is remembered is the SHA-256 of everything the answer depends on, so an answer that was true stays true. Only what holds is
//! remembered: strangers can fill the memory with what they have signed, which makes others check again, and not with garbage.

use std::collections::{HashSet, VecDeque};
use std::sync::{LazyLock, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// Of 32 bytes each, twice: a quarter of a MiB when full. A node with 1,000 contracts reads 2,000 signatures.
const REMEMBERED_MAX: usize = 4096;

/// Things that hold, the oldest out first.
struct Memo {
    known: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
}

impl Memo {
    fn insert(&mut self, one: [u8; 32]) {
        if !self.known.insert(one) {
            return;
        }
        self.order.push_back(one);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

static SIGNATURES: LazyLock<Mutex<Memo>> =
    LazyLock::new(|| Mutex::new(Memo { known: HashSet::new(), order: VecDeque::new() }));

/// Says whether `check` holds for what `parts` say, which it is asked once.
pub(crate) fn signature(parts: [&[u8]; 3], check: impl FnOnce() -> bool) -> bool {
    let mut digest = Sha256::new();
    for part in parts {
        // Lengths, so that no part can begin in another.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let one = digest.finalize().into();
    // A memo that somebody left in the middle is still one: what is in it holds.
    let memo = || SIGNATURES.lock().unwrap_or_else(PoisonError::into_inner);
    if memo().known.contains(&one) {
        return true;
    }
    let holds = check();
    if holds {
        memo().insert(one);
    }
    holds
}

#[cfg(test)]
mod tests {
    #![allow(missing_docs)]
    use super::*;

    #[test]
    fn only_what_holds_is_remembered_and_for_exactly_what_was_asked() {
        let part = b"flt-memo".as_slice();
        assert!(!signature([part, b"a", b"b"], || false), "it does not hold");
        assert!(!signature([part, b"a", b"b"], || false), "what does not hold was remembered as if it did");
        assert!(signature([part, b"a", b"b"], || true), "it was not asked again");
        assert!(signature([part, b"a", b"b"], || false), "what holds was asked again");
        assert!(!signature([part, b"ab", b""], || false), "other parts of the same bytes are another question");
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut memo = Memo { known: HashSet::new(), order: VecDeque::new() };
        let one = |n: usize| <[u8; 32]>::from(Sha256::digest(n.to_be_bytes()));
        (0..=REMEMBERED_MAX).for_each(|n| memo.insert(one(n)));
        assert_eq!((memo.known.len(), memo.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert!(
            !memo.known.contains(&one(0)) && memo.known.contains(&one(1)) && memo.known.contains(&one(REMEMBERED_MAX))
        );
    }
}
