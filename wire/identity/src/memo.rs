//! Remembers which signatures hold, and what was read of what this node keeps.
//!
//! A node reads the same contracts again whenever one of them changes, and each costs two signatures of 40 µs, and as much to be read. What
//! is remembered is the SHA-256 of everything the answer depends on, so an answer that was true stays true. Only what holds is
//! remembered: strangers can fill the memory with what they have signed, which makes others check again, and not with garbage.
//! What was read is remembered only of what somebody here has written ([`read`]).

use std::any::{Any, TypeId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

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

/// The digest of these parts and no others.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        // Lengths, so that no part can begin in another.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Things that were read, of any type. A node with so many contracts keeps some 6 KiB for each of them here, and twenty in its copies of the API.
const READ_MAX: usize = 1024;

type Read = HashMap<(TypeId, [u8; 32]), Arc<dyn Any + Send + Sync>>;

static READ: LazyLock<Mutex<Read>> = LazyLock::new(Mutex::default);

/// Returns what `read` makes of these parts, which it is asked once if it succeeds.
pub(crate) fn read<'a, T: Send + Sync + 'static, E>(
    parts: impl IntoIterator<Item = &'a [u8]>,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<Arc<T>, E> {
    let key = (TypeId::of::<T>(), digest(parts));
    // A memo that somebody left in the middle is still one: what is in it was read.
    let memo = || READ.lock().unwrap_or_else(PoisonError::into_inner);
    let known = memo().get(&key).cloned();
    if let Some(known) = known.and_then(|known| known.downcast::<T>().ok()) {
        return Ok(known);
    }
    let value = Arc::new(read()?);
    let mut memo = memo();
    if memo.len() >= READ_MAX {
        // Whoever is read often is here again soon.
        memo.clear();
    }
    memo.insert(key, value.clone());
    Ok(value)
}

/// Says whether `check` holds for what `parts` say, which it is asked once.
pub(crate) fn signature(parts: [&[u8]; 3], check: impl FnOnce() -> bool) -> bool {
    let one = digest(parts);
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
    fn what_was_read_is_read_once_for_each_type_and_not_when_it_cannot_be() {
        let part = [b"flt-read".as_slice()];
        assert_eq!(read::<u8, _>(part, || Err("no")), Err("no"));
        assert_eq!(read(part, || Ok::<u8, &str>(1)), Ok(Arc::new(1)), "that it could not be read was remembered");
        assert_eq!(read(part, || Ok::<u8, &str>(2)), Ok(Arc::new(1)), "it was read again");
        assert_eq!(read(part, || Ok::<u16, &str>(3)), Ok(Arc::new(3)), "another type is another question");
        assert_eq!(
            read([b"flt-".as_slice(), b"read"], || Ok::<u8, &str>(4)),
            Ok(Arc::new(4)),
            "other parts of the same bytes"
        );
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
