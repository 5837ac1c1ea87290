//! The log on the wire: tree heads for witnesses, and what a node that has lost its records gets back from those who have them.
//!
//! ```text
//!   origin                                                        witness
//!     │ POST /api/v2/log/heads   head, proof from what it keeps ───►│  continues it? countersigned, kept
//!     │◄──────────── what it keeps now, and of how many leaves ─────┤  otherwise both heads are kept
//!   anybody with a key
//!     │ GET  /api/v2/log/heads/DID ────────────────────────────────►│  what it keeps of that node
//!     │ GET  /api/v2/log/consistency/DID/FROM/TO ──────────────────►│  that so many leaves are the beginning of so many
//!     │ GET  /api/v2/log/inclusion/LEAF ───────────────────────────►│  that a leaf is in its own log, under a head of now
//!   a node that came back without its records
//!     │ GET  /api/v2/log/leaves/FROM ──────────────────────────────►│  the hashes of its own leaves
//!     │ GET  /api/v2/contracts?after=ID ───────────────────────────►│  contracts of these two
//!     │ GET  /api/v2/contracts/ID/books?after=NUMBER ──────────────►│  its receipts and invoices
//! ```
//! What is about a contract is for its parties only, proven by TLS; what is about a log is hashes.

use async_trait::async_trait;
use fluidos_identity::{Envelope, NodeId, strict_json};
use fluidos_log::{Entry, EntryKind, Hash, PROOF_NODES_MAX};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::messages::wire::Message;
use crate::query::percent_decode;
use crate::{BODY_BYTES_MAX, Contract, Refusal, RefusalCode};

/// Hashes in one message: 67 bytes each as text, so a body of 64 KiB has room for them beside a head and a proof.
pub const LEAVES_MAX: usize = 512;
/// Contracts in one answer: each has terms of at most 22 KiB in base64 and a flavor of at most 16 KiB, of 1 MiB.
pub const CONTRACTS_MAX: usize = 16;
/// Receipts and invoices in one answer: each about 4 KiB, of 1 MiB.
pub const BOOKS_MAX: usize = 128;
/// What is told of the log about one contract: its renewals, which by the month are five years. About 300 bytes each.
pub const ENTRIES_MAX: usize = 64;
/// What is read of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What an origin shows a witness. The same again changes nothing.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadSubmission {
    /// The tree head, signed by the key that speaks for its origin.
    pub head: Envelope,
    /// The size of the head that the witness keeps, as far as the origin knows; 0 if none.
    pub from: u64,
    /// That the tree of that size is the beginning of this one.
    #[serde(default)]
    pub consistency: Vec<Hash>,
    /// The first of the leaves that follow.
    #[serde(default)]
    pub leaves_from: u64,
    /// Hashes of leaves, for the origin to have them back.
    #[serde(default)]
    pub leaves: Vec<Hash>,
}

/// What a witness keeps of a node.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeptHead {
    /// The last head, signed by its origin and by the witness; absent if none was ever shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Envelope>,
    /// Hashes of how many leaves are kept.
    #[serde(default)]
    pub leaves: u64,
    /// Two heads of which neither continues the other: that node has rewritten its history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<[Envelope; 2]>,
}

/// Hashes of leaves of who asks.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct KeptLeaves {
    /// In their order; none behind the last.
    pub leaves: Vec<Hash>,
}

/// That the tree of so many leaves is the beginning of one of more. It counts if it leads to a root that the origin has signed.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    /// The root of the smaller tree, which a path alone does not tell.
    pub root: Hash,
    /// The path (RFC 9162 §2.1.4).
    pub consistency: Vec<Hash>,
}

/// That a leaf is in the log of who answers.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// The head as it is now, signed by the key that speaks for the log.
    pub head: Envelope,
    /// Which leaf it is, from 0.
    pub index: u64,
    /// The path from the leaf to the root (RFC 9162 §2.1.3).
    pub inclusion: Vec<Hash>,
}

/// Contracts of who asks and who is asked, by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct KeptContracts {
    /// At most [`CONTRACTS_MAX`]; none behind the last.
    pub contracts: Vec<KeptContract>,
}

/// A contract as the other party keeps it.
#[derive(Clone, PartialEq, Debug)]
pub struct KeptContract {
    /// With the terms that both have signed.
    pub contract: Contract,
    /// Whether it is over there.
    pub ended: bool,
    /// The last renewal that both have signed.
    pub renewal: Option<Envelope>,
    /// What the other party's own log says of its renewals, of which only the last document is kept. Whoever has the same leaf by its hash knows
    /// it again; nobody else need believe it.
    pub entries: Vec<Entry>,
}

/// Books of a contract as the other party keeps them.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct KeptBooks {
    /// Receipts behind the number that was named, signed by both; none behind the last. The first may not be the next: what is in
    /// an invoice is not kept.
    pub receipts: Vec<Envelope>,
    /// The invoices of all months, if 0 was named.
    #[serde(default)]
    pub invoices: Vec<Value>,
}

/// Who keeps logs behind the protocol. Everything that arrives has been bounded; who asks has proven its key, and nothing else.
#[async_trait]
pub trait Notary: Send + Sync + 'static {
    /// Witnesses a head. One that does not continue what is kept is refused as a conflict, and both are kept.
    async fn submit(&self, submission: HeadSubmission, peer: NodeId) -> Result<KeptHead, Refusal>;

    /// Returns what is kept of a node; nothing is an answer without a head.
    async fn kept(&self, origin: NodeId) -> Result<KeptHead, Refusal>;

    /// Returns hashes of leaves of who asks, from one on.
    async fn leaves(&self, from: u64, peer: NodeId) -> Result<KeptLeaves, Refusal>;

    /// Returns that the tree of `from` leaves of a log is the beginning of that of `to`, from its own log or from leaves that it keeps.
    async fn consistency(&self, origin: NodeId, from: u64, to: u64) -> Result<Consistency, Refusal>;

    /// Returns that a leaf is in its own log. Who asks knows the leaf, so it has the document, or has kept the log.
    async fn inclusion(&self, leaf: Hash, peer: NodeId) -> Result<Inclusion, Refusal>;

    /// Returns contracts with who asks whose names come behind one.
    async fn contracts(&self, after: &str, peer: NodeId) -> Result<KeptContracts, Refusal>;

    /// Returns books of a contract behind a receipt. Somebody who is no party is told that there is no such contract.
    async fn books(&self, contract_id: &str, after: u64, peer: NodeId) -> Result<KeptBooks, Refusal>;
}

/// A request to a notary, as its path says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asked {
    Submit,
    Kept(NodeId),
    Leaves(u64),
    Consistency(NodeId, u64, u64),
    Inclusion(Hash),
    Contracts(String),
    Books(String, u64),
}

impl Asked {
    /// Reads the part of a path behind `/api/v2/`; `None` if it is not about a log.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub fn read(method: &Method, path: &[&str], query: &str) -> Option<Result<Self, Refusal>> {
        let asked = match (method, path) {
            (&Method::POST, ["log", "heads"]) => Ok(Self::Submit),
            (&Method::GET, ["log", "heads", origin]) => node(origin).map(Self::Kept),
            (&Method::GET, ["log", "leaves", from]) => number("from", from).map(Self::Leaves),
            (&Method::GET, ["log", "consistency", origin, from, to]) => consistency(origin, from, to),
            (&Method::GET, ["log", "inclusion", leaf]) => {
                leaf.parse().map(Self::Inclusion).map_err(|error| malformed(&format!("leaf: {error}")))
            }
            (&Method::GET, ["contracts"]) => after(query).and_then(|after| match after.as_str() {
                "" => Ok(Self::Contracts(String::new())),
                after => {
                    crate::messages::wire::id("after", after.into()).map(Self::Contracts).map_err(|e| malformed(&e))
                }
            }),
            (&Method::GET, ["contracts", contract, "books"]) => {
                let contract = crate::messages::wire::id("contractID", (*contract).into()).map_err(|e| malformed(&e));
                contract.and_then(|contract| {
                    let after = after(query)?;
                    Ok(Self::Books(contract, if after.is_empty() { 0 } else { number("after", &after)? }))
                })
            }
            _ => return None,
        };
        Some(asked)
    }

    /// Has it answered; `body` is read for a submission only.
    pub async fn answer(
        self,
        notary: &dyn Notary,
        peer: NodeId,
        body: impl Future<Output = Result<HeadSubmission, Refusal>>,
    ) -> Result<Vec<u8>, Refusal> {
        let written = match self {
            Self::Submit => notary.submit(body.await?, peer).await?.write(),
            Self::Kept(origin) => notary.kept(origin).await?.write(),
            Self::Leaves(from) => notary.leaves(from, peer).await?.write(),
            Self::Consistency(origin, from, to) => notary.consistency(origin, from, to).await?.write(),
            Self::Inclusion(leaf) => notary.inclusion(leaf, peer).await?.write(),
            Self::Contracts(after) => notary.contracts(&after, peer).await?.write(),
            Self::Books(contract, after) => notary.books(&contract, after, peer).await?.write(),
        };
        written.map_err(|reason| Refusal::new(RefusalCode::Internal, reason))
    }
}

/// The only thing that a query of these can say.
fn after(query: &str) -> Result<String, Refusal> {
    match query.split_once('=') {
        None if query.is_empty() => Ok(String::new()),
        Some(("after", value)) if !value.contains(['&', '=']) => {
            percent_decode(value).map_err(|error| malformed(&error))
        }
        _ => Err(malformed("the query has other words, needed after=…")),
    }
}

/// A DID in a path; some write its colons as `%3A`.
fn node(origin: &str) -> Result<NodeId, Refusal> {
    let origin = percent_decode(origin).map_err(|error| malformed(&error))?;
    origin.parse().map_err(|error| malformed(&format!("origin: {error}")))
}

fn consistency(origin: &str, from: &str, to: &str) -> Result<Asked, Refusal> {
    Ok(Asked::Consistency(node(origin)?, number("from", from)?, number("to", to)?))
}

fn number(field: &str, text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| malformed(&format!("{field}: needed a number from 0")))
}

fn malformed(reason: &str) -> Refusal {
    Refusal::new(RefusalCode::Malformed, reason)
}

fn read_strictly<T: serde::de::DeserializeOwned>(body: &[u8], bytes_max: usize) -> Result<T, String> {
    serde_json::from_value(strict_json(body, bytes_max)?).map_err(|error| error.to_string())
}

fn at_most(what: &str, observed: usize, max: usize) -> Result<(), String> {
    if observed > max { Err(format!("{observed} {what}, at most {max}")) } else { Ok(()) }
}

impl Message for HeadSubmission {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self = read_strictly(body, BODY_BYTES_MAX)?;
        at_most("nodes of a proof", read.consistency.len(), PROOF_NODES_MAX)?;
        at_most("leaves", read.leaves.len(), LEAVES_MAX)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl Message for KeptHead {
    fn read(body: &[u8]) -> Result<Self, String> {
        read_strictly(body, ANSWER_BYTES_MAX)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl Message for KeptLeaves {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self = read_strictly(body, ANSWER_BYTES_MAX)?;
        at_most("leaves", read.leaves.len(), LEAVES_MAX)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl Message for Consistency {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self = read_strictly(body, BODY_BYTES_MAX)?;
        at_most("nodes of a path", read.consistency.len(), PROOF_NODES_MAX)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl Message for Inclusion {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self = read_strictly(body, BODY_BYTES_MAX)?;
        at_most("nodes of a path", read.inclusion.len(), PROOF_NODES_MAX)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

/// The shape of [`KeptContracts`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractsWire {
    contracts: Vec<ContractWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractWire {
    contract: Value,
    #[serde(default)]
    ended: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewal: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Entry>,
}

impl Message for KeptContracts {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: ContractsWire = read_strictly(body, ANSWER_BYTES_MAX)?;
        at_most("contracts", read.contracts.len(), CONTRACTS_MAX)?;
        let contract = |wire: ContractWire| {
            at_most("entries", wire.entries.len(), ENTRIES_MAX)?;
            let ContractWire { contract, ended, renewal, entries } = wire;
            let bytes = serde_json::to_vec(&contract).map_err(|error| error.to_string())?;
            let contract = Contract::read(&bytes)?;
            let of_renewal = |entry: &Entry| entry.kind == EntryKind::ContractRenewed && entry.of == contract.id;
            if !entries.iter().all(of_renewal) {
                return Err(format!("an entry is not about a renewal of contract {}", contract.id));
            }
            Ok::<_, String>(KeptContract { contract, ended, renewal, entries })
        };
        Ok(Self { contracts: read.contracts.into_iter().map(contract).collect::<Result<_, _>>()? })
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        let wire = |kept: &KeptContract| {
            let contract = serde_json::from_slice(&kept.contract.write()?).map_err(|error| error.to_string())?;
            let (renewal, entries) = (kept.renewal.clone(), kept.entries.clone());
            Ok::<_, String>(ContractWire { contract, ended: kept.ended, renewal, entries })
        };
        let contracts = self.contracts.iter().map(wire).collect::<Result<_, _>>()?;
        serde_json::to_vec(&ContractsWire { contracts }).map_err(|error| error.to_string())
    }
}

impl Message for KeptBooks {
    fn read(body: &[u8]) -> Result<Self, String> {
        let read: Self = read_strictly(body, ANSWER_BYTES_MAX)?;
        at_most("receipts", read.receipts.len(), BOOKS_MAX)?;
        at_most("invoices", read.invoices.len(), BOOKS_MAX)?;
        Ok(read)
    }

    fn write(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }
}

impl crate::Client {
    /// Shows a witness a head; returns what it keeps now.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn submit_head(&self, submission: &HeadSubmission) -> Result<KeptHead, crate::ClientError> {
        let body = self.written("witness", submission)?;
        self.ask("witness", Method::POST, "/api/v2/log/heads", body).await
    }

    /// Asks what a witness keeps of a node. One that keeps no logs keeps nothing.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn kept_head(&self, origin: NodeId) -> Result<KeptHead, crate::ClientError> {
        let path = format!("/api/v2/log/heads/{origin}");
        match self.ask("kept head", Method::GET, &path, Vec::new()).await {
            Err(crate::ClientError::Refused { refusal, .. })
                if matches!(refusal.code, RefusalCode::NotFound | RefusalCode::NotBuilt) =>
            {
                Ok(KeptHead::default())
            }
            other => other,
        }
    }

    /// Returns hashes of this node's own leaves that a witness keeps, from one on.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn kept_leaves(&self, from: u64) -> Result<Vec<Hash>, crate::ClientError> {
        let kept: KeptLeaves =
            self.ask("kept leaves", Method::GET, &format!("/api/v2/log/leaves/{from}"), Vec::new()).await?;
        Ok(kept.leaves)
    }

    /// Asks for what shows that the tree of `from` leaves of a log is the beginning of that of `to`. Whoever answers, it counts only by
    /// where it leads.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn consistency(&self, origin: NodeId, from: u64, to: u64) -> Result<Consistency, crate::ClientError> {
        let path = format!("/api/v2/log/consistency/{origin}/{from}/{to}");
        self.ask("consistency", Method::GET, &path, Vec::new()).await
    }

    /// Asks whether a leaf is in the other's own log.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn inclusion(&self, leaf: &Hash) -> Result<Inclusion, crate::ClientError> {
        self.ask("inclusion", Method::GET, &format!("/api/v2/log/inclusion/{leaf}"), Vec::new()).await
    }

    /// Returns contracts with this node that the other party keeps, whose names come behind one.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn kept_contracts(&self, after: &str) -> Result<Vec<KeptContract>, crate::ClientError> {
        let query = if after.is_empty() { String::new() } else { format!("?after={after}") };
        let kept: KeptContracts =
            self.ask("kept contracts", Method::GET, &format!("/api/v2/contracts{query}"), Vec::new()).await?;
        Ok(kept.contracts)
    }

    /// Returns books of a contract that the other party keeps, behind a receipt.
    ///
    /// # Errors
    /// [`ClientError`](crate::ClientError).
    pub async fn kept_books(&self, contract_id: &str, after: u64) -> Result<KeptBooks, crate::ClientError> {
        let path = format!("/api/v2/contracts/{contract_id}/books?after={after}");
        self.ask("kept books", Method::GET, &path, Vec::new()).await
    }
}

/// The method of a path of these, for who asks with another.
pub(crate) fn allowed(path: &[&str]) -> Option<&'static str> {
    match path {
        ["log", "heads"] => Some("POST"),
        ["log", "heads" | "leaves" | "inclusion", _]
        | ["log", "consistency", _, _, _]
        | ["contracts"]
        | ["contracts", _, "books"] => Some("GET"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_asked_is_read_in_one_way() {
        let read = |path: &str, query: &str| {
            let path: Vec<&str> = path.split('/').collect();
            Asked::read(&Method::GET, &path, query).map(|asked| asked.map_err(|refusal| refusal.detail))
        };
        assert_eq!(read("contracts", ""), Some(Ok(Asked::Contracts(String::new()))));
        assert_eq!(read("contracts", "after=c-1"), Some(Ok(Asked::Contracts("c-1".into()))));
        assert_eq!(read("contracts", "after=c%3A1"), Some(Ok(Asked::Contracts("c:1".into()))));
        assert_eq!(read("contracts/c-1/books", "after=7"), Some(Ok(Asked::Books("c-1".into(), 7))));
        assert_eq!(read("contracts/c-1/books", ""), Some(Ok(Asked::Books("c-1".into(), 0))));
        assert_eq!(read("log/leaves/512", ""), Some(Ok(Asked::Leaves(512))));
        let origin = fluidos_identity::NodeKey::from_seed([1; 32]).unwrap().id();
        let consistency = format!("log/consistency/{origin}/2/3");
        assert_eq!(read(&consistency, ""), Some(Ok(Asked::Consistency(origin, 2, 3))));
        assert_eq!(read(&consistency.replace(':', "%3A"), ""), Some(Ok(Asked::Consistency(origin, 2, 3))));
        let leaf = fluidos_log::leaf_hash(b"a");
        assert_eq!(read(&format!("log/inclusion/{leaf}"), ""), Some(Ok(Asked::Inclusion(leaf))));
        for path in [consistency.as_str(), "log/inclusion/x"] {
            assert_eq!(allowed(&path.split('/').collect::<Vec<_>>()), Some("GET"));
        }
        for (path, query) in [
            ("contracts", "before=c"),
            ("contracts", "after=c&after=d"),
            ("contracts", "after=a%2Fb"),
            ("contracts/c-1/books", "after=-1"),
            ("log/leaves/x", ""),
            ("log/heads/somebody", ""),
            ("log/inclusion/AB", ""),
            (&format!("log/consistency/{origin}/-1/2"), ""),
            ("log/consistency/somebody/1/2", ""),
        ] {
            assert!(read(path, query).unwrap().is_err(), "{path}?{query}");
        }
        assert_eq!(read("log", ""), None);
    }

    #[test]
    fn what_is_read_is_bounded_and_has_one_meaning() {
        let head = r#""head":{"purpose":"p","payload":"","signatures":[]}"#;
        let hashes = |count| vec![format!("\"{}\"", "ab".repeat(32)); count].join(",");
        let read = |more: String| HeadSubmission::read(format!("{{{head},\"from\":0{more}}}").as_bytes());
        assert_eq!(read(format!(r#","leaves":[{}]"#, hashes(LEAVES_MAX))).unwrap().leaves.len(), LEAVES_MAX);
        let refused = |more: String| read(more).unwrap_err();
        assert!(refused(format!(r#","leaves":[{}]"#, hashes(LEAVES_MAX + 1))).contains("at most 512"));
        assert!(refused(format!(r#","consistency":[{}]"#, hashes(65))).contains("at most 64"));
        assert!(refused(r#","from":1"#.into()).contains("twice"));
        assert!(refused(r#","leaves":["AB"]"#.into()).contains("is no hash"));
        assert!(refused(r#","more":1"#.into()).contains("unknown field"));
        let path = |count| format!(r#"{{"root":"{}","consistency":[{}]}}"#, "ab".repeat(32), hashes(count));
        assert_eq!(Consistency::read(path(64).as_bytes()).unwrap().consistency.len(), 64);
        assert!(Consistency::read(path(65).as_bytes()).unwrap_err().contains("at most 64"));
        let inclusion = format!(r#"{{{head},"index":0,"inclusion":[{}]}}"#, hashes(65));
        assert!(Inclusion::read(inclusion.as_bytes()).unwrap_err().contains("at most 64"));
        let many = vec!["{}"; BOOKS_MAX + 1].join(",");
        let books = KeptBooks::read(format!(r#"{{"receipts":[],"invoices":[{many}]}}"#).as_bytes());
        assert!(books.unwrap_err().contains("129 invoices, at most 128"));
    }
}
