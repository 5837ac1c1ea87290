//! One exchange with one node: what does it keep of this log, and will it keep this head.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use fluidos_identity::{NodeId, NodeKey};
use fluidos_log::{Hash, SignedHead, TreeHead, open_head};
use fluidos_rear as rear;
use fluidos_rear::{ClientError, HeadSubmission, KeptHead, LEAVES_MAX, RefusalCode};
use jiff::Timestamp;

use crate::book::Book;
use crate::standing::{Relation, Word, relation};
use crate::{Dial, Options};

/// As many as a log of 65,536 leaves needs, and some that the witness answers with where it stands.
const SUBMISSIONS_MAX: usize = 160;

/// What a node keeps of a log, as this node's own signature proves it.
#[derive(Clone, PartialEq, Debug)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// This head, and hashes of so many leaves.
    Head {
        /// With the signature of its origin.
        head: SignedHead,
        /// How many leaves.
        leaves: u64,
        /// It says that the origin has shown it two histories; both heads are signed by the origin.
        rewritten: bool,
    },
}

/// How what somebody keeps is to a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// It is a beginning of it.
    Agrees,
    /// It has more entries.
    More,
    /// It is another history.
    Differs,
    /// It is of an epoch that is over.
    Past,
}

/// Compares a head that a node has signed with its log.
pub fn compare(book: &Book, head: &TreeHead) -> Comparison {
    match relation(book, head) {
        Relation::Agrees => Comparison::Agrees,
        Relation::More => Comparison::More,
        Relation::Differs => Comparison::Differs,
        Relation::Past => Comparison::Past,
    }
}

/// Returns what an answer proves of a log: heads that one of these keys has signed; everything else is nothing.
///
/// # Errors
/// Why the answer counts for nothing, in words.
pub fn sight(kept: &KeptHead, origin: NodeId, keys: &BTreeSet<NodeId>) -> Result<Kept, String> {
    let own = |envelope| {
        let head = open_head(envelope).map_err(|error| error.to_string())?;
        if head.value().origin != origin || !head.signers().any(|signer| keys.contains(&signer)) {
            return Err("it shows a head that this node has not signed".to_owned());
        }
        Ok(head)
    };
    let Some(head) = &kept.head else { return Ok(Kept::Nothing) };
    let head = own(head)?;
    let rewritten = match &kept.rewritten {
        Some(both) => both.iter().try_for_each(|head| own(head).map(|_| ())).is_ok(),
        None => false,
    };
    Ok(Kept::Head { head, leaves: kept.leaves, rewritten })
}

/// The first of the addresses at which a node proves its key.
pub(crate) async fn reach(
    dial: &Dial,
    did: NodeId,
    addresses: &[SocketAddr],
) -> Result<(rear::Client, SocketAddr), String> {
    let mut last = "no address of it is known".to_owned();
    for address in addresses {
        match dial(rear::Target { address: *address, expected: Some(did) }) {
            Ok(client) => match client.seller().await {
                Ok(_) => return Ok((client, *address)),
                Err(error) => last = error.to_string(),
            },
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Asks a node what it keeps of this log.
pub(crate) async fn ask(options: &Options, did: NodeId, addresses: &[SocketAddr]) -> Word {
    let asked = async {
        let (client, _) = reach(&options.dial, did, addresses).await?;
        client.kept_head(options.origin).await.map_err(|error| error.to_string())
    };
    match asked.await {
        Ok(kept) => word(options, &kept),
        Err(reason) => Word::Silent(reason),
    }
}

fn word(options: &Options, kept: &KeptHead) -> Word {
    match sight(kept, options.origin, &options.keys) {
        Ok(Kept::Nothing) => Word::Nothing,
        Ok(Kept::Head { head, leaves, .. }) => Word::Keeps { head: head.value().clone(), leaves },
        Err(reason) => Word::Silent(reason),
    }
}

/// What came of showing a witness the log.
pub(crate) struct Published {
    pub word: Word,
    /// The head with the witness's signature, and where it is.
    pub head: Option<(SignedHead, SocketAddr)>,
}

/// Shows a witness the log, with the leaves that it does not have.
pub(crate) async fn publish(
    options: &Options,
    book: &Book,
    did: NodeId,
    addresses: &[SocketAddr],
    before: Option<&Word>,
) -> Published {
    let silent = |reason: String| Published { word: Word::Silent(reason), head: None };
    let (client, address) = match reach(&options.dial, did, addresses).await {
        Ok(reached) => reached,
        Err(reason) => return silent(reason),
    };
    let envelope = match signed(&options.key, book, options.origin) {
        Ok(head) => head.envelope(),
        Err(reason) => return silent(reason),
    };
    let (mut from, mut leaves) = match before {
        Some(Word::Keeps { head, leaves }) if relation(book, head) == Relation::Agrees => (head.size, *leaves),
        _ => (0, 0),
    };
    for _ in 0..SUBMISSIONS_MAX {
        let submission = submission(book, envelope.clone(), from, leaves);
        let kept = match client.submit_head(&submission).await {
            Ok(kept) => kept,
            // What it keeps does not go with this log: that is what is to be looked at.
            Err(ClientError::Refused { refusal, .. }) if refusal.code == RefusalCode::Conflict => {
                match client.kept_head(options.origin).await {
                    Ok(kept) => return Published { word: word(options, &kept), head: None },
                    Err(error) => return silent(error.to_string()),
                }
            }
            Err(error) => return silent(error.to_string()),
        };
        let (head, kept_leaves) = match sight(&kept, options.origin, &options.keys) {
            Ok(Kept::Head { head, leaves, .. }) => (head, leaves),
            Ok(Kept::Nothing) => return silent("it keeps no head that it is shown".into()),
            Err(reason) => return silent(reason),
        };
        let answered = Word::Keeps { head: head.value().clone(), leaves: kept_leaves };
        let shown = (head.value().epoch, head.value().size, head.value().root)
            == (book.epoch(), book.tree().size(), book.tree().root());
        if shown && (kept_leaves >= book.tree().size() || kept_leaves == leaves && from == head.value().size) {
            let head = head.signed_by(&did).then_some((head, address));
            return Published { word: answered, head };
        }
        if relation(book, head.value()) != Relation::Agrees {
            return Published { word: answered, head: None };
        }
        (from, leaves) = (head.value().size, kept_leaves);
    }
    silent("it does not come to an end".into())
}

pub(crate) fn signed(key: &NodeKey, book: &Book, origin: NodeId) -> Result<SignedHead, String> {
    let head = TreeHead::of(book.tree(), origin, book.epoch(), Timestamp::now());
    let mut head = head.map_err(|error| error.to_string())?;
    head.sign(key).map_err(|error| error.to_string())?;
    Ok(head)
}

fn submission(book: &Book, head: fluidos_identity::Envelope, from: u64, leaves: u64) -> HeadSubmission {
    let tree = book.tree();
    let consistency = tree.consistency(from, tree.size()).unwrap_or_default();
    let behind = usize::try_from(leaves).unwrap_or(usize::MAX);
    let hashes: Vec<Hash> = tree.leaves().iter().skip(behind).take(LEAVES_MAX).copied().collect();
    HeadSubmission { head, from, consistency, leaves_from: leaves, leaves: hashes }
}
