//! The path of a request: through whose hands it has come, so that no chain of resellers buys from itself.
//!
//! A **mark** is 16 random bytes and what only one node makes of them with its key ([`NodeKey::mark`]): that node knows its own marks
//! again, anybody else sees 32 bytes that say nothing. A **path** is the marks of everybody who has asked so far, the first buyer first,
//! signed by the one who asks now, for the one that is asked.
//!
//! ```text
//!   A ──[mA] signed by A for R──▶ R ──[mA mR] signed by R for P──▶ P ──[mA mR mP]──▶ A: "mA is mine" ─▶ refused, the next is asked
//! ```
//! So P learns that somebody stands behind R and how many, not who. What a node in between could leave out it could leave out of names
//! and signatures of everybody, too: it may always say that it is the first buyer. It says so under its own signature, and what it
//! wins is a loop that costs it holds and money of its own; see `docs/design/threats.md`.

use std::time::Duration;

use fluidos_identity::{Envelope, NodeId, NodeKey, Signed, SignedError};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Refusal, RefusalCode};

/// `typ` of the signature over a path.
pub const PATH_PURPOSE: &str = "fluidos-path+jws";
/// So many buyers stand one behind the other at most: each adds a margin, a round trip and an owner who sees what runs.
pub const PATH_MARKS_MAX: usize = 8;
/// Clocks differ, as for credentials; older ones are replays.
pub const PATH_LEEWAY: Duration = Duration::from_secs(300);
const VERSION: u32 = 1;
/// Hexadecimal of 16 random bytes, and of the 16 that a key makes of them.
const HALF_MARK: usize = 32;

/// What the one who asks signs.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathTerms {
    /// 1.
    pub version: u32,
    /// Who asks.
    pub asker: NodeId,
    /// Who is asked.
    pub asked: NodeId,
    /// When (RFC 3339).
    pub at: String,
    /// The marks of all who have asked, the first buyer first, that of `asker` last: 64 lower-case hexadecimal digits each.
    pub marks: Vec<String>,
}

/// Who stands behind a request, as marks: nobody, or all who have asked so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Path {
    marks: Vec<String>,
}

/// Why a path is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// It is not signed as it must be.
    #[error("path: {0}")]
    Signed(#[from] SignedError),
    /// It is of other parties, another version, or no path.
    #[error("path: {field} is {observed}, needed {needed}")]
    Differ {
        /// What.
        field: &'static str,
        /// What it says.
        observed: String,
        /// What was needed.
        needed: String,
    },
    /// It was signed at another time.
    #[error("path: signed at {at}, it is {now}: needed within {} s", PATH_LEEWAY.as_secs())]
    Late {
        /// When, as it says.
        at: Timestamp,
        /// What time it is here.
        now: Timestamp,
    },
    /// Too many stand behind it.
    #[error("path: {observed} buyers one behind the other, needed at most {PATH_MARKS_MAX}")]
    Long {
        /// How many.
        observed: usize,
    },
    /// This node is on it.
    #[error("loop: this request has come through this node already, {back} hops ago: it would buy from itself")]
    Loop {
        /// How many hops ago; 1 is the one who asks.
        back: usize,
    },
}

impl PathError {
    /// Returns what the one who asks is told. Only what cannot be read is garbage: a wrong clock is not.
    pub fn refusal(&self) -> Refusal {
        let code = match self {
            Self::Loop { .. } => RefusalCode::Loop,
            Self::Late { .. } | Self::Differ { field: "asker" | "asked", .. } => RefusalCode::Forbidden,
            Self::Signed(_) | Self::Differ { .. } | Self::Long { .. } => RefusalCode::Malformed,
        };
        Refusal::new(code, self.to_string())
    }
}

impl Path {
    /// Returns how many buyers stand one behind the other: 0 before anybody has asked.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Says whether nobody has asked yet.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Returns the path with this node at its end, signed for the node that it asks at `now`.
    ///
    /// # Errors
    /// [`PathError::Long`] if as many as may stand behind it already.
    pub fn signed(&self, key: &NodeKey, asked: NodeId, now: Timestamp) -> Result<Envelope, PathError> {
        if self.marks.len() >= PATH_MARKS_MAX {
            return Err(PathError::Long { observed: self.marks.len() + 1 });
        }
        let nonce = uuid::Uuid::new_v4().into_bytes();
        let mark = format!("{}{}", hex(&nonce), hex(&key.mark(&nonce)));
        let marks = self.marks.iter().cloned().chain([mark]).collect();
        let terms = PathTerms { version: VERSION, asker: key.id(), asked, at: now.to_string(), marks };
        let mut signed = Signed::new(PATH_PURPOSE, terms)?;
        signed.sign(key)?;
        Ok(signed.envelope())
    }

    /// Returns the path of a request that a node which has proven the key `asker` sends to the node of `own`.
    ///
    /// # Errors
    /// [`PathError`]: it is signed by somebody else, for somebody else, at another time, too long, no path, or this node is on it.
    pub fn read(envelope: &Envelope, asker: NodeId, own: &NodeKey, now: Timestamp) -> Result<Self, PathError> {
        let signed: Signed<PathTerms> = Signed::open(envelope, PATH_PURPOSE)?;
        let PathTerms { version, asker: says, asked, at, marks } = signed.value();
        differ("version", version, &VERSION)?;
        differ("asker", says, &asker)?;
        differ("asked", asked, &own.id())?;
        signed.require(&[asker])?;
        if marks.len() > PATH_MARKS_MAX {
            return Err(PathError::Long { observed: marks.len() });
        }
        let wrong = |observed: &str, needed: &str| PathError::Differ {
            field: "marks",
            observed: observed.chars().take(80).collect(),
            needed: needed.into(),
        };
        if marks.is_empty() {
            return Err(wrong("empty", "at least that of who asks"));
        }
        for (index, mark) in marks.iter().enumerate() {
            if !is_mark(mark) {
                return Err(wrong(mark, "64 lower-case hexadecimal digits each"));
            }
            if marks.iter().take(index).any(|earlier| earlier == mark) {
                return Err(wrong("one mark twice", "one of each buyer"));
            }
        }
        let needed = || wrong(at, "an RFC 3339 time");
        let at: Timestamp = at.parse().map_err(|_| needed())?;
        let leeway = SignedDuration::try_from(PATH_LEEWAY).unwrap_or(SignedDuration::ZERO);
        if now.duration_since(at).abs() > leeway {
            return Err(PathError::Late { at, now });
        }
        if let Some(back) = marks.iter().rev().position(|mark| is_of(own, mark)) {
            return Err(PathError::Loop { back: back + 1 });
        }
        Ok(Self { marks: marks.clone() })
    }
}

fn differ<T: PartialEq + std::fmt::Display>(field: &'static str, observed: &T, needed: &T) -> Result<(), PathError> {
    if observed == needed {
        return Ok(());
    }
    Err(PathError::Differ { field, observed: observed.to_string(), needed: needed.to_string() })
}

fn is_mark(text: &str) -> bool {
    text.len() == 2 * HALF_MARK && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// Whether a mark, which is one, was made with this key.
fn is_of(key: &NodeKey, mark: &str) -> bool {
    let Some((nonce, made)) = mark.split_at_checked(HALF_MARK) else { return false };
    u128::from_str_radix(nonce, 16).is_ok_and(|nonce| hex(&key.mark(&nonce.to_be_bytes())) == made)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn key(seed: u8) -> NodeKey {
        NodeKey::from_seed([seed; 32]).unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// The path that the last of these nodes gets when each asks the next.
    fn along(seeds: &[u8]) -> Result<Path, PathError> {
        let mut path = Path::default();
        for pair in seeds.windows(2) {
            let (asker, asked) = (key(pair[0]), key(pair[1]));
            let sent = path.signed(&asker, asked.id(), now())?;
            path = Path::read(&sent, asker.id(), &asked, now())?;
        }
        Ok(path)
    }

    /// The terms of what node 1 sends to node 2 in the name of node 9, changed and signed by somebody.
    fn changed(change: impl Fn(&mut PathTerms), signer: u8) -> Result<Path, PathError> {
        let sent = along(&[9, 1])?.signed(&key(1), key(2).id(), now())?;
        let mut terms = Signed::<PathTerms>::open(&sent, PATH_PURPOSE)?.value().clone();
        change(&mut terms);
        let mut signed = Signed::new(PATH_PURPOSE, terms)?;
        signed.sign(&key(signer))?;
        Path::read(&signed.envelope(), key(1).id(), &key(2), now())
    }

    #[test]
    fn a_node_knows_itself_again_wherever_it_stands_and_nobody_else() {
        assert_eq!(along(&[1, 2, 3, 4]).unwrap().len(), 3);
        let back = |seeds: &[u8]| match along(seeds) {
            Err(PathError::Loop { back }) => back,
            other => panic!("{other:?}"),
        };
        assert_eq!((back(&[1, 2, 1]), back(&[1, 2, 3, 1]), back(&[1, 2, 3, 2])), (2, 3, 2));
        // What stands in it tells nobody who it was: not even the same node twice looks the same.
        let (once, again) = (along(&[1, 2]).unwrap(), along(&[1, 2]).unwrap());
        assert_ne!(once, again);
        assert!(!format!("{once:?}").contains(&key(1).id().tag()));
    }

    #[test]
    fn a_path_is_not_endless() {
        let seeds: Vec<u8> = (1..=9).collect();
        assert_eq!(along(&seeds).unwrap().len(), PATH_MARKS_MAX);
        let seeds: Vec<u8> = (1..=10).collect();
        assert!(matches!(along(&seeds), Err(PathError::Long { observed: 9 })));
        let more = |terms: &mut PathTerms| terms.marks.extend((10..20).map(|n| format!("{n:064x}")));
        assert!(matches!(changed(more, 1), Err(PathError::Long { observed: 12 })));
    }

    #[test]
    fn forged_cut_late_and_malformed_paths_are_refused() {
        let code = |result: Result<Path, PathError>| result.unwrap_err().refusal().code;
        assert_eq!(changed(|_| {}, 1).unwrap().len(), 2);
        // By another key than the one that asks, or for another node, or of another asker.
        assert_eq!(code(changed(|_| {}, 9)), RefusalCode::Malformed);
        assert_eq!(code(changed(|terms| terms.asked = key(3).id(), 1)), RefusalCode::Forbidden);
        assert_eq!(code(changed(|terms| terms.asker = key(9).id(), 9)), RefusalCode::Forbidden);
        // Somebody on the way cuts the first buyer out of what another has signed.
        let sent = along(&[9, 1]).unwrap().signed(&key(1), key(2).id(), now()).unwrap();
        let mut terms = Signed::<PathTerms>::open(&sent, PATH_PURPOSE).unwrap().value().clone();
        terms.marks.remove(0);
        let cut = Envelope { payload: Signed::new(PATH_PURPOSE, terms).unwrap().envelope().payload, ..sent };
        assert_eq!(code(Path::read(&cut, key(1).id(), &key(2), now())), RefusalCode::Malformed);
        // Recorded, and sent again later, or by another; a clock that is wrong is no garbage.
        let sent = Path::default().signed(&key(1), key(2).id(), now()).unwrap();
        let at = |seconds: i64| Path::read(&sent, key(1).id(), &key(2), now() + SignedDuration::from_secs(seconds));
        assert!(at(300).is_ok() && at(-300).is_ok());
        assert_eq!((code(at(301)), code(at(-301))), (RefusalCode::Forbidden, RefusalCode::Forbidden));
        assert_eq!(code(Path::read(&sent, key(9).id(), &key(2), now())), RefusalCode::Forbidden);
        for change in [
            (|terms: &mut PathTerms| terms.version = 2) as fn(&mut PathTerms),
            |terms| terms.marks.clear(),
            |terms| terms.marks[0] = "AB".repeat(32),
            |terms| terms.marks[0].truncate(62),
            |terms| terms.marks[0] = terms.marks[1].clone(),
            |terms| terms.at = "yesterday".into(),
        ] {
            assert_eq!(code(changed(change, 1)), RefusalCode::Malformed);
        }
    }
}
