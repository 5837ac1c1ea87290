//! Getting back what is lost: the leaves of the log from a witness, contracts and books from their other parties.
//!
//! Nothing is believed that is not proven: leaves by a head that this node has signed, contracts and receipts by both signatures, invoices
//! and ends by the log itself. What is refused is named, and the rest goes on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_log::{Hash, TREE_SIZE_MAX, Tree, TreeHead};
use fluidos_model::kinds::RestoredRecords;
use fluidos_model::market::Ended;
use fluidos_rear as rear;

use crate::Notary;
use crate::ask::reach;
use crate::book::{Book, Record};
use crate::records;
use crate::standing::{Relation, Word, relation};

/// Pages of 16 contracts: as many contracts as can be.
const CONTRACT_PAGES_MAX: usize = 64;
/// Pages of 128 receipts: four years of hours.
const BOOK_PAGES_MAX: usize = 256;
/// A peer listens to 20 requests a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Other requests of this node count, too; beyond this it has silenced the node.
const PATIENCE: u32 = 5;
/// What is told of what was refused.
const REFUSED_MAX: usize = 16;
const REASON_LENGTH_MAX: usize = 300;

/// Somebody who has answered.
pub(crate) struct Peer {
    pub did: NodeId,
    pub addresses: Vec<SocketAddr>,
    pub word: Word,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Report {
    pub records: RestoredRecords,
    /// Why the log itself could not be had back.
    pub note: String,
}

impl Report {
    fn refuse(&mut self, did: &NodeId, reason: &str) {
        let told: String = reason.chars().filter(|c| !c.is_control()).take(REASON_LENGTH_MAX).collect();
        tracing::warn!(peer = %did, reason = told, "what a peer gives back is refused");
        if self.records.refused.len() < REFUSED_MAX {
            self.records.refused.push(format!("{did}: {told}"));
        }
    }
}

/// How often this node still waits when it asks more than the other listens to: a hundred contracts are some hundred requests.
struct Patience(u32);

impl Patience {
    /// Waits if that was too much; `false` is that the answer stands.
    async fn waits(&mut self, too_much: bool) -> bool {
        if !too_much || self.0 == 0 {
            return false;
        }
        self.0 -= 1;
        tokio::time::sleep(PAUSE).await;
        true
    }
}

fn is_too_much<T>(answer: &Result<T, rear::ClientError>) -> bool {
    matches!(answer, Err(rear::ClientError::Refused { refusal, .. }) if refusal.code == rear::RefusalCode::TooMany)
}

/// Asks until the answer stands.
macro_rules! patiently {
    ($ask:expr) => {{
        let mut patience = Patience(PATIENCE);
        loop {
            let answer = $ask.await;
            if !patience.waits(is_too_much(&answer)).await {
                break answer;
            }
        }
    }};
}

/// Does what can be done now. It may be done again.
pub(crate) async fn restore(notary: &Arc<Notary>, peers: &[Peer]) -> Report {
    let mut report = Report::default();
    if let Err(note) = leaves_back(notary, peers).await {
        report.note = note;
    }
    for peer in peers.iter().filter(|peer| !matches!(peer.word, Word::Silent(_))) {
        let client = match reach(&notary.options.dial, peer.did, &peer.addresses).await {
            Ok((client, _)) => client,
            Err(reason) => {
                tracing::debug!(peer = %peer.did, reason, "it cannot be asked for contracts");
                continue;
            }
        };
        if let Err(reason) = contracts_back(notary, &client, peer.did, &mut report).await {
            report.refuse(&peer.did, &reason);
        }
    }
    report
}

/// Takes the leaves of the longest head back that somebody keeps. `Ok` if none is longer than the log.
async fn leaves_back(notary: &Arc<Notary>, peers: &[Peer]) -> Result<(), String> {
    let book = notary.own.lock().await.book.clone();
    let mut better: Vec<(&Peer, &TreeHead, u64)> = Vec::new();
    for peer in peers {
        let Word::Keeps { head, leaves } = &peer.word else { continue };
        if matches!(relation(&book, head), Relation::More | Relation::Differs) {
            better.push((peer, head, *leaves));
        }
    }
    better.sort_by_key(|(_, head, _)| std::cmp::Reverse((head.epoch, head.size)));
    let Some((_, best, _)) = better.first().copied() else { return Ok(()) };
    let mut reasons = Vec::new();
    for (peer, head, leaves) in better.iter().filter(|(_, head, _)| head.size == best.size && head.epoch == best.epoch)
    {
        if *leaves < head.size {
            reasons.push(format!("{} keeps the hashes of {leaves} of {} leaves", peer.did, head.size));
            continue;
        }
        match fetch(notary, peer, head).await {
            Ok(leaves) => {
                let mut own = notary.own.lock().await;
                let adopted = own.book.adopt(head.epoch, &leaves)?;
                tracing::info!(entries = head.size, witness = %peer.did, "the log was taken back from a witness");
                return own.replace(adopted);
            }
            Err(reason) => reasons.push(format!("{}: {reason}", peer.did)),
        }
    }
    Err(reasons.join("; "))
}

/// The leaves of a head, which they must give.
async fn fetch(notary: &Notary, peer: &Peer, head: &TreeHead) -> Result<Vec<Hash>, String> {
    let (client, _) = reach(&notary.options.dial, peer.did, &peer.addresses).await?;
    let size = usize::try_from(head.size.min(TREE_SIZE_MAX)).unwrap_or(usize::MAX);
    let mut leaves: Vec<Hash> = Vec::new();
    while leaves.len() < size {
        let more = patiently!(client.kept_leaves(leaves.len() as u64)).map_err(|error| error.to_string())?;
        if more.is_empty() {
            return Err(format!("it gives {} of {size} leaves", leaves.len()));
        }
        leaves.extend(more);
    }
    leaves.truncate(size);
    if leaves.iter().copied().collect::<Tree>().root() != head.root {
        return Err("its leaves do not give the root that this node has signed".into());
    }
    Ok(leaves)
}

/// Takes back the contracts that are shared with one peer, and their books.
async fn contracts_back(
    notary: &Arc<Notary>,
    client: &rear::Client,
    did: NodeId,
    report: &mut Report,
) -> Result<(), String> {
    let mut after = String::new();
    for _ in 0..CONTRACT_PAGES_MAX {
        let page = patiently!(client.kept_contracts(&after)).map_err(|error| error.to_string())?;
        let Some(last) = page.last().map(|kept| kept.contract.id.clone()) else { return Ok(()) };
        for kept in page {
            if kept.contract.id <= after {
                return Err(format!("its contracts do not come in order: {} behind {after}", kept.contract.id));
            }
            after.clone_from(&kept.contract.id);
            if let Err(reason) = contract_back(notary, client, did, &kept, report).await {
                report.refuse(&did, &reason);
            }
        }
        after = last;
    }
    Err(format!("it gives more than {CONTRACT_PAGES_MAX} pages of contracts"))
}

async fn contract_back(
    notary: &Arc<Notary>,
    client: &rear::Client,
    did: NodeId,
    kept: &rear::KeptContract,
    report: &mut Report,
) -> Result<(), String> {
    let id: String = kept.contract.id.chars().take(64).collect();
    let named = |reason: String| format!("contract {id}: {reason}");
    let envelope = kept.contract.signed_terms.as_ref().ok_or_else(|| named("it has no signed terms".into()))?;
    let terms = records::terms(envelope).map_err(named)?;
    let current = |party: &NodeId| notary.options.speakers.current(party);
    let parties = [terms.value().buyer, terms.value().seller].map(|party| current(&party));
    if !parties.contains(&did) || !parties.contains(&notary.options.key.id()) {
        return Err(named("it is not between the two of us".into()));
    }
    let entry = records::of_terms(&terms).ok_or_else(|| named("its terms have no digest".into()))?;
    let over = records::ended(&entry);
    let ended = {
        let own = notary.own.lock().await;
        match (own.book.has(&over), kept.ended) {
            (true, _) => Ended::ByLog,
            (false, true) => Ended::There,
            (false, false) => Ended::No,
        }
    };
    recognise(notary, &kept.entries).await?;
    // It says for itself what it is about.
    let (contract, taken) = notary.options.records.contract(&kept.contract, kept.renewal.as_ref(), ended).await?;
    report.records.contracts += u64::from(taken);
    let runs = contract.metadata.uid.is_some();
    let renewed = records::of_renewal(&contract);
    // The books first: what is noted counts as back, and a node that is killed in between would not ask for them again.
    let books = books_back(notary, client, &contract, report).await.map_err(named);
    note(notary, [Some(entry), renewed, (!runs).then_some(over)].into_iter().flatten().collect()).await?;
    books
}

async fn books_back(
    notary: &Arc<Notary>,
    client: &rear::Client,
    contract: &fluidos_model::kinds::Contract,
    report: &mut Report,
) -> Result<(), String> {
    let name = contract.metadata.name.clone().unwrap_or_default();
    let records = &notary.options.records;
    let mut first = true;
    for _ in 0..BOOK_PAGES_MAX {
        let number = records.number(&name).await;
        let after = if first { 0 } else { number };
        let page = patiently!(client.kept_books(&name, after));
        let page = match page {
            Ok(page) => page,
            // Nothing was measured there yet.
            Err(rear::ClientError::Refused { refusal, .. }) if refusal.code == rear::RefusalCode::NotFound => {
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        // An invoice that is in the log was this node's; of any other nothing is known.
        let mut known = Vec::new();
        for invoice in page.invoices {
            let Some(entry) = records::of_document(&invoice) else { continue };
            if notary.own.lock().await.book.has(&entry) {
                known.push(invoice);
                note(notary, vec![entry]).await?;
            }
        }
        let (receipts, invoices) = records.books(contract, &page.receipts, &known).await?;
        report.records.receipts += receipts;
        report.records.invoices += invoices;
        let done = page.receipts.is_empty() || !first && records.number(&name).await == number;
        if done {
            return Ok(());
        }
        first = false;
    }
    Err(format!("it gives more than {BOOK_PAGES_MAX} pages of receipts"))
}

/// Has entries stand in the log, and what is known by its hash recognised.
async fn note(notary: &Notary, entries: Vec<fluidos_log::Entry>) -> Result<(), String> {
    let mut own = notary.own.lock().await;
    let needed: Vec<Record> = entries.iter().filter_map(|entry| own.book.needed(entry)).collect();
    if needed.is_empty() { Ok(()) } else { own.keep(&needed) }
}

/// Has leaves that are known by their hash say what they say. What is no leaf of this log is nothing to it.
async fn recognise(notary: &Notary, entries: &[fluidos_log::Entry]) -> Result<(), String> {
    let mut own = notary.own.lock().await;
    let known = entries.iter().filter_map(|entry| own.book.needed(entry));
    let known: Vec<Record> = known.filter(|record| matches!(record, Record::Known(_))).collect();
    if known.is_empty() { Ok(()) } else { own.keep(&known) }
}

/// The log that begins anew, in an epoch that nobody keeps a head of yet: what is known of the old one, and that the rest is lost.
pub(crate) fn anew(book: &Book, words: &BTreeMap<NodeId, Option<Word>>, at: &str) -> Result<Book, String> {
    let kept = words.values().flatten().filter_map(|word| match word {
        Word::Keeps { head, .. } => Some(head.epoch),
        _ => None,
    });
    let epoch = kept.chain([book.epoch()]).max().unwrap_or(0) + 1;
    let loss = book.loss(at);
    let mut new = Book::default();
    new.apply(&Record::Epoch(epoch))?;
    for entry in book.entries().iter().flatten().chain([&loss]) {
        new.apply(&Record::Entry(entry.clone()))?;
    }
    Ok(new)
}
