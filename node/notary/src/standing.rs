//! Whether the node may sell, and who witnesses: pure.
//!
//! ```text
//!   Comparing ── everybody that is known has answered, or 10 s ──▶ Complete ──▶ sells
//!       │                                                            │
//!       └── somebody keeps more, or something else ──▶ Restoring ◀───┘ at any time
//!                                                          │ everything is accounted for, or the owner accepts the loss
//!                                                          └──▶ Complete
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_log::TreeHead;
use fluidos_model::kinds::{KnownCluster, LogState, LogWitness, TransparencyLogSpec, WhenUnreachable};
use kube::ResourceExt as _;

use crate::book::Book;

/// Witnesses of a policy that says nothing: more make a forgery no less likely, and each start and each entry asks them all.
const WITNESSES: u32 = 8;
/// As a TransparencyLog may say.
const WITNESSES_MAX: u32 = 64;

/// What a node has answered.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Word {
    /// It could not be asked.
    Silent(String),
    /// It keeps nothing of this log.
    Nothing,
    /// It keeps this head, which this node has signed, and so many leaves.
    Keeps { head: TreeHead, leaves: u64 },
}

/// What a head of this node is to its log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    /// Of an epoch that is over.
    Past,
    /// It is a beginning of the log.
    Agrees,
    /// It has more entries than the log.
    More,
    /// It is of another history.
    Differs,
}

/// Compares a head that this node has signed with its log.
pub(crate) fn relation(book: &Book, head: &TreeHead) -> Relation {
    if head.epoch < book.epoch() {
        return Relation::Past;
    }
    if head.epoch > book.epoch() {
        return Relation::More;
    }
    match book.tree().root_at(head.size) {
        None => Relation::More,
        Some(root) if root == head.root => Relation::Agrees,
        Some(_) => Relation::Differs,
    }
}

/// What is looked at.
pub(crate) struct View<'a> {
    pub book: &'a Book,
    /// Why the log may not be all there was.
    pub lost: Option<&'a str>,
    /// Who was asked; `None` has not answered yet.
    pub words: &'a BTreeMap<NodeId, Option<Word>>,
    /// Who is known to have witnessed.
    pub witnesses: &'a BTreeSet<NodeId>,
    /// Contracts of the log of which there is no object and no account.
    pub gone: &'a [String],
    /// It was being restored when it stopped: of what is known, books may be missing.
    pub unfinished: bool,
    /// What was found out while restoring.
    pub note: &'a str,
    /// Since the start.
    pub waited: Duration,
    /// How long those who do not answer are waited for.
    pub wait: Duration,
    /// Whether it was complete before in this process: who is found later does not close the node by being asked.
    pub opened: bool,
    pub when_unreachable: WhenUnreachable,
}

/// Decides whether the node may sell; the reason is for its owner and its buyers.
pub(crate) fn standing(view: &View) -> (LogState, String) {
    let size = view.book.tree().size();
    let note = if view.note.is_empty() { String::new() } else { format!("; {}", view.note) };
    for (did, word) in view.words {
        let Some(Word::Keeps { head, .. }) = word else { continue };
        match relation(view.book, head) {
            Relation::More => {
                let told = format!("{did} keeps {} entries of this node's log, this node has {size}{note}", head.size);
                return (LogState::Restoring, told);
            }
            Relation::Differs => {
                let told = format!("{did} keeps another history of {} entries, signed by this node{note}", head.size);
                return (LogState::Restoring, told);
            }
            Relation::Past | Relation::Agrees => {}
        }
    }
    let missing = view.book.missing().len();
    if missing > 0 {
        return (LogState::Restoring, format!("{missing} of {size} entries are not accounted for{note}"));
    }
    if let [first, ..] = view.gone {
        let told = format!("{} contracts of the log are not here, the first is {first}{note}", view.gone.len());
        return (LogState::Restoring, told);
    }
    if view.opened {
        return (LogState::Complete, String::new());
    }
    if view.unfinished && view.words.values().any(|word| matches!(word, Some(Word::Nothing | Word::Keeps { .. }))) {
        return (LogState::Restoring, "what was being given back when this node stopped is asked for again".into());
    }
    let answered = |word: &Option<Word>| matches!(word, Some(Word::Nothing | Word::Keeps { .. }));
    let open = view.words.iter().find(|(_, word)| word.is_none()).map(|(did, _)| did);
    if view.waited < view.wait {
        if let Some(did) = open {
            return (LogState::Comparing, format!("{did} is being asked what it keeps of this node's log"));
        }
        if let Some(lost) = view.lost {
            return (LogState::Comparing, format!("{lost}: the nodes that are known are being asked"));
        }
    }
    if let Some(lost) = view.lost.filter(|_| !view.words.values().any(answered)) {
        let remedy = "name one that this node dealt with: fluidos up --peer; or, if there was none: fluidos restore --accept-loss";
        return (LogState::Comparing, format!("{lost}, and no node that is known has answered; {remedy}"));
    }
    let asked: Vec<_> = view.witnesses.iter().map(|did| (did, view.words.get(did).cloned().flatten())).collect();
    let silent = !asked.is_empty() && !asked.iter().any(|(_, word)| answered(word));
    if silent {
        // One that was not waited for yet has its time.
        if view.waited < view.wait && asked.iter().any(|(_, word)| word.is_none()) {
            return (LogState::Comparing, "the witnesses of this node's log are being asked".into());
        }
        if view.when_unreachable == WhenUnreachable::Wait {
            let told = format!("none of {} witnesses answers, and whenUnreachable is Wait", asked.len());
            return (LogState::Comparing, told);
        }
    }
    (LogState::Complete, String::new())
}

/// Chooses who witnesses: parties first, then whom the policy names, then whom it describes.
pub(crate) fn witnesses<'a>(
    policy: &TransparencyLogSpec,
    parties: &BTreeSet<NodeId>,
    known: impl IntoIterator<Item = &'a KnownCluster>,
    own: impl Fn(&NodeId) -> bool,
) -> BTreeSet<NodeId> {
    let count = policy.count.unwrap_or(WITNESSES).clamp(1, WITNESSES_MAX) as usize;
    let parties = parties.iter().copied().filter(|_| policy.counterparties.unwrap_or(true));
    let named = policy.dids.iter().filter_map(|did| did.parse().ok());
    let labels = &policy.match_labels;
    let described = known
        .into_iter()
        .filter(|known| !labels.is_empty() && labels.iter().all(|(key, value)| known.labels().get(key) == Some(value)));
    let described = described.filter_map(|known| known.spec.did.as_ref()?.parse().ok());
    let mut chosen = BTreeSet::new();
    for did in parties.chain(named).chain(described).filter(|did| !own(did)) {
        if chosen.len() < count {
            chosen.insert(did);
        }
    }
    chosen
}

/// How an answer is told.
pub(crate) fn told(book: &Book, did: NodeId, word: Option<&Word>, witness: bool) -> LogWitness {
    let (state, message, head) = match word {
        None => ("Silent", "it is being asked".into(), None),
        Some(Word::Silent(reason)) => ("Silent", reason.chars().take(200).collect(), None),
        Some(Word::Nothing) => ("KeepsNothing", String::new(), None),
        Some(Word::Keeps { head, .. }) => match relation(book, head) {
            Relation::Past => ("KeepsNothing", format!("its head is of epoch {}", head.epoch), Some(head)),
            Relation::Agrees => ("Agrees", String::new(), Some(head)),
            Relation::More => ("KeepsMore", String::new(), Some(head)),
            Relation::Differs => ("Differs", "another history, signed by this node".into(), Some(head)),
        },
    };
    LogWitness {
        did: did.to_string(),
        witness,
        size: head.map(|head| head.size).or_else(|| matches!(word, Some(Word::Nothing)).then_some(0)),
        at: head.map(|head| head.at.to_string()),
        state: state.into(),
        message,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use fluidos_identity::NodeKey;
    use fluidos_log::{Entry, EntryKind, Hash, leaf_hash};
    use jiff::Timestamp;

    use super::*;
    use crate::book::Record;

    fn id(seed: u8) -> NodeId {
        NodeKey::from_seed([seed; 32]).unwrap().id()
    }

    fn book(names: &[&str]) -> Book {
        let mut book = Book::default();
        for name in names {
            let digest = leaf_hash(name.as_bytes());
            let entry = Entry { kind: EntryKind::ContractSigned, of: (*name).into(), digest, at: None };
            book.apply(&Record::Entry(entry)).unwrap();
        }
        book
    }

    fn keeps(book: &Book, epoch: u64) -> Word {
        let head = TreeHead::of(book.tree(), id(9), epoch, Timestamp::UNIX_EPOCH).unwrap().value().clone();
        Word::Keeps { head, leaves: 0 }
    }

    struct Case {
        lost: Option<&'static str>,
        words: Vec<Option<Word>>,
        waited: u64,
        opened: bool,
        wait: WhenUnreachable,
        gone: Vec<String>,
        unfinished: bool,
    }

    fn check(book: &Book, case: &Case) -> (LogState, String) {
        let words: BTreeMap<NodeId, Option<Word>> =
            case.words.iter().enumerate().map(|(at, word)| (id(u8::try_from(at).unwrap() + 1), word.clone())).collect();
        let witnesses = words.keys().copied().collect();
        standing(&View {
            book,
            lost: case.lost,
            words: &words,
            witnesses: &witnesses,
            gone: &case.gone,
            unfinished: case.unfinished,
            note: "",
            waited: Duration::from_secs(case.waited),
            wait: Duration::from_secs(10),
            opened: case.opened,
            when_unreachable: case.wait,
        })
    }

    #[test]
    fn a_node_sells_when_nothing_is_known_to_be_missing_and_not_before() {
        use LogState::{Comparing, Complete, Restoring};
        let (own, longer) = (book(&["a", "b"]), book(&["a", "b", "c"]));
        let silent = || Some(Word::Silent("no route".into()));
        let agrees = || Some(keeps(&own, 0));
        let usual = || Case {
            lost: None,
            words: vec![],
            waited: 0,
            opened: false,
            wait: WhenUnreachable::Sell,
            gone: vec![],
            unfinished: false,
        };
        let state = |case: Case| check(&own, &case).0;
        assert_eq!(state(usual()), Complete, "nobody has ever witnessed it");
        assert_eq!(state(Case { words: vec![None, agrees()], ..usual() }), Comparing);
        assert_eq!(state(Case { words: vec![None, agrees()], waited: 10, ..usual() }), Complete);
        assert_eq!(state(Case { words: vec![None], opened: true, ..usual() }), Complete, "found later");
        assert_eq!(state(Case { words: vec![silent()], ..usual() }), Complete);
        let wait = WhenUnreachable::Wait;
        assert_eq!(state(Case { words: vec![silent(), silent()], waited: 99, wait, ..usual() }), Comparing);
        assert_eq!(state(Case { words: vec![silent(), agrees()], wait, ..usual() }), Complete);
        // A log that is lost: somebody must have answered, and others get their time.
        let lost = Some("there is no log here");
        assert_eq!(state(Case { lost, ..usual() }), Comparing);
        assert_eq!(state(Case { lost, waited: 99, words: vec![silent()], ..usual() }), Comparing);
        assert_eq!(state(Case { lost, waited: 9, words: vec![Some(Word::Nothing)], ..usual() }), Comparing);
        assert_eq!(state(Case { lost, waited: 10, words: vec![Some(Word::Nothing)], ..usual() }), Complete);
        // Its log is whole again, and it was killed before the books were.
        let killed = || Case { unfinished: true, ..usual() };
        assert_eq!(state(Case { words: vec![agrees(), silent()], ..killed() }), Restoring);
        assert_eq!(state(Case { words: vec![silent()], waited: 10, ..killed() }), Complete, "nobody can be asked");
        // Somebody keeps more, or something else, whenever that is heard.
        let (state, told) =
            check(&own, &Case { words: vec![agrees(), Some(keeps(&longer, 0))], opened: true, ..usual() });
        assert_eq!(state, Restoring);
        assert_eq!(told, format!("{} keeps 3 entries of this node's log, this node has 2", id(2)));
        let (state, told) = check(&own, &Case { words: vec![Some(keeps(&book(&["a", "x"]), 0))], ..usual() });
        assert!(state == Restoring && told.contains("another history of 2 entries"), "{told}");
        assert_eq!(check(&own, &Case { words: vec![Some(keeps(&book(&["x"]), 1))], ..usual() }).0, Restoring);
        let (state, told) = check(&own, &Case { gone: vec!["contract-1".into()], ..usual() });
        assert!(state == Restoring && told.contains("the first is contract-1"), "{told}");
        let mut hashes = own.clone();
        hashes.apply(&Record::Hash(Hash([1; 32]))).unwrap();
        assert_eq!(check(&hashes, &usual()).1, "1 of 3 entries are not accounted for");
        // An epoch that is over counts no more.
        let mut anew = Book::default();
        anew.apply(&Record::Epoch(1)).unwrap();
        assert_eq!(check(&anew, &Case { words: vec![Some(keeps(&longer, 0))], ..usual() }).0, Complete);
    }

    #[test]
    fn parties_witness_first_then_whom_the_policy_names_then_whom_it_describes() {
        let mut known = KnownCluster::new("k", fluidos_model::kinds::KnownClusterSpec::default());
        known.spec.did = Some(id(3).to_string());
        known.labels_mut().insert("feature.fluidos.eu/country".into(), "Italy".into());
        let parties: BTreeSet<NodeId> = [id(1), id(9)].into();
        let chosen = |policy: &TransparencyLogSpec| witnesses(policy, &parties, [&known], |did| *did == id(9));
        assert_eq!(chosen(&TransparencyLogSpec::default()), [id(1)].into());
        let mut policy = TransparencyLogSpec { dids: vec![id(2).to_string(), "nobody".into()], ..Default::default() };
        policy.match_labels.insert("feature.fluidos.eu/country".into(), "Italy".into());
        assert_eq!(chosen(&policy), [id(1), id(2), id(3)].into());
        assert_eq!(chosen(&TransparencyLogSpec { count: Some(2), ..policy.clone() }), [id(1), id(2)].into());
        assert_eq!(
            chosen(&TransparencyLogSpec { counterparties: Some(false), ..policy.clone() }),
            [id(2), id(3)].into()
        );
        policy.match_labels.insert("feature.fluidos.eu/city".into(), "Turin".into());
        assert_eq!(chosen(&policy), [id(1), id(2)].into());
    }
}
