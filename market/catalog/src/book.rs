//! The book: what stands in each tenant, and what may be written into it. Pure: time is an argument, in milliseconds.
//!
//! ```text
//!   announce, withdraw, say ─ admit: may it? ─▶ Record ──▶ the journal, synced ──▶ apply ──▶ read: pages
//! ```
//! Nothing changes but by [`Book::apply`] of a record, which never refuses what was once accepted: so a replay of the journal makes
//! the same book.

mod admit;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluidos_identity::{Envelope, NodeId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::{Announcement, Feedback, Withdrawal, is_word, open};

pub use self::read::{Page, Query};

/// Boards of one server.
pub const TENANTS_MAX: usize = 16;
/// Announcements of a tenant, and as many again of members. About 2 KiB each, 12 KiB at most.
pub const ENTRIES_MAX: usize = 4096;
/// Announcements from one address, members not counted: keys are free, addresses less so.
const ENTRIES_OF_ORIGIN_MAX: usize = 64;
/// Opinions of a tenant, and as many again of members; about 1 KiB each.
pub(crate) const FEEDBACK_MAX: usize = 16_384;
/// Opinions of one author: as many as it has peers.
const FEEDBACK_OF_AUTHOR_MAX: usize = 64;
/// Opinions about one node, and as many again of members.
pub(crate) const FEEDBACK_ABOUT_MAX: usize = 1024;
/// What was said longer ago says nothing about today.
const FEEDBACK_LIFETIME_MS: u64 = 90 * 24 * 3600 * 1000;
/// Statements of one page: within 1 MiB, whatever they hold.
pub const PAGE_MAX: usize = 128;

/// Who may read and write a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Members, by key.
    Members,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key that it has proven.
    pub node: Option<NodeId>,
    /// As what its address is counted.
    pub origin: String,
}

/// Why not. The status of HTTP is in `service.rs`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Correct it.
    #[error("{0}")]
    Malformed(String),
    /// Prove a key.
    #[error("a client certificate with an Ed25519 key is needed: {0}")]
    Unauthenticated(&'static str),
    /// Give up.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// A higher sequence is needed than the one that stands.
    #[error("sequence {held} stands, needed a higher one")]
    Conflict {
        /// What stands.
        held: u64,
    },
    /// Try later, or elsewhere.
    #[error("{0}")]
    Full(String),
}

/// One change, as it stands in the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase")]
pub(crate) enum Record {
    Announce {
        tenant: String,
        at: u64,
        origin: String,
        envelope: Envelope,
    },
    Renew {
        tenant: String,
        at: u64,
        origin: String,
        did: NodeId,
    },
    Withdraw {
        tenant: String,
        envelope: Envelope,
    },
    Say {
        tenant: String,
        at: u64,
        /// Absent in journals of before places were shared out: all of those are of one origin.
        #[serde(default)]
        origin: String,
        /// Whose opinion yields its place, as (about, author).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead: Option<(NodeId, NodeId)>,
        envelope: Envelope,
    },
}

/// All tenants of a server.
#[derive(Debug)]
pub struct Book {
    tenants: BTreeMap<String, Tenant>,
    members: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Tenant {
    access: Access,
    announced: BTreeMap<NodeId, Entry>,
    /// By whom it is about, then by its author.
    said: BTreeMap<NodeId, BTreeMap<NodeId, Said>>,
    /// Grows with every change that readers see.
    changes: u64,
}

#[derive(Debug)]
struct Entry {
    announcement: Announcement,
    digest: String,
    envelope: Envelope,
    raw: Arc<RawValue>,
    origin: String,
    at: u64,
}

#[derive(Debug)]
struct Said {
    feedback: Feedback,
    digest: String,
    envelope: Envelope,
    raw: Arc<RawValue>,
    origin: String,
    at: u64,
}

impl Entry {
    fn ends(&self) -> u64 {
        self.at.saturating_add(u64::from(self.announcement.lifetime_seconds) * 1000)
    }
}

impl Said {
    fn ends(&self) -> u64 {
        self.at.saturating_add(FEEDBACK_LIFETIME_MS)
    }
}

impl Book {
    /// Returns an empty book.
    ///
    /// # Errors
    /// Which tenant is none, or that there are too many or none.
    pub fn new(
        tenants: impl IntoIterator<Item = (String, Access)>,
        members: impl IntoIterator<Item = NodeId>,
    ) -> Result<Self, String> {
        let mut book = Self { tenants: BTreeMap::new(), members: members.into_iter().collect() };
        for (name, access) in tenants {
            if name.is_empty() || !is_word(&name) {
                return Err(format!("tenant {name:?}: needed letters, digits, `-`, `_` and `.`"));
            }
            let tenant = Tenant { access, announced: BTreeMap::new(), said: BTreeMap::new(), changes: 0 };
            if book.tenants.insert(name.clone(), tenant).is_some() {
                return Err(format!("tenant {name} stands there twice, needed once"));
            }
        }
        match book.tenants.len() {
            1..=TENANTS_MAX => Ok(book),
            observed => Err(format!("{observed} tenants, needed 1 to {TENANTS_MAX}")),
        }
    }

    /// The tenant, if the caller may use it.
    fn tenant(&self, name: &str, caller: &Caller) -> Result<&Tenant, Refusal> {
        let Some(tenant) = self.tenants.get(name) else {
            return Err(Refusal::NotFound("there is no such tenant".into()));
        };
        match (tenant.access, caller.node) {
            (Access::Members, None) => Err(Refusal::Unauthenticated("this tenant is of members")),
            (Access::Members, Some(node)) if !self.members.contains(&node) => {
                Err(Refusal::Forbidden(format!("this tenant is of members, and {node} is none")))
            }
            _ => Ok(tenant),
        }
    }

    /// Does what a record says. A record of a tenant that is no more changes nothing.
    pub(crate) fn apply(&mut self, record: Record) -> Result<(), String> {
        let (Record::Announce { tenant, .. }
        | Record::Renew { tenant, .. }
        | Record::Withdraw { tenant, .. }
        | Record::Say { tenant, .. }) = &record;
        let Some(tenant) = self.tenants.get_mut(tenant) else { return Ok(()) };
        match record {
            Record::Announce { at, origin, envelope, .. } => {
                let signed = open::<Announcement>(&envelope)?;
                let (announcement, digest, raw) = (signed.value().clone(), signed.digest(), raw(&envelope)?);
                let did = announcement.did;
                tenant.announced.insert(did, Entry { announcement, digest, envelope, raw, origin, at });
                tenant.changes += 1;
            }
            Record::Renew { at, origin, did, .. } => {
                if let Some(entry) = tenant.announced.get_mut(&did) {
                    (entry.at, entry.origin) = (at, origin);
                }
            }
            Record::Withdraw { envelope, .. } => {
                tenant.announced.remove(&open::<Withdrawal>(&envelope)?.value().did);
                tenant.changes += 1;
            }
            Record::Say { at, origin, instead, envelope, .. } => {
                if let Some((about, author)) = instead
                    && let Some(words) = tenant.said.get_mut(&about)
                {
                    words.remove(&author);
                }
                let signed = open::<Feedback>(&envelope)?;
                let (feedback, digest, raw) = (signed.value().clone(), signed.digest(), raw(&envelope)?);
                let (about, author) = (feedback.about, feedback.author);
                tenant
                    .said
                    .entry(about)
                    .or_default()
                    .insert(author, Said { feedback, digest, envelope, raw, origin, at });
            }
        }
        Ok(())
    }

    /// Takes out what is over.
    pub fn expire(&mut self, now: u64) {
        for tenant in self.tenants.values_mut() {
            let before = tenant.announced.len();
            tenant.announced.retain(|_, entry| entry.ends() > now);
            tenant.said.values_mut().for_each(|words| words.retain(|_, said| said.ends() > now));
            tenant.said.retain(|_, words| !words.is_empty());
            tenant.changes += u64::from(tenant.announced.len() != before);
        }
    }

    /// A clock that was set back while nobody ran must not make a lifetime longer than it is.
    pub(crate) fn none_from_the_future(&mut self, now: u64) {
        for tenant in self.tenants.values_mut() {
            tenant.announced.values_mut().for_each(|entry| entry.at = entry.at.min(now));
            tenant.said.values_mut().flat_map(BTreeMap::values_mut).for_each(|said| said.at = said.at.min(now));
        }
    }

    /// Everything, as records that make the same book.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.tenants.iter().flat_map(|(name, tenant)| {
            let announced = tenant.announced.values().map(move |entry| Record::Announce {
                tenant: name.clone(),
                at: entry.at,
                origin: entry.origin.clone(),
                envelope: entry.envelope.clone(),
            });
            let said = tenant.said.values().flat_map(BTreeMap::values);
            announced.chain(said.map(move |said| Record::Say {
                tenant: name.clone(),
                at: said.at,
                origin: said.origin.clone(),
                instead: None,
                envelope: said.envelope.clone(),
            }))
        })
    }
}

fn raw(envelope: &Envelope) -> Result<Arc<RawValue>, String> {
    serde_json::value::to_raw_value(envelope).map(Arc::from).map_err(|error| error.to_string())
}
