//! The book: what stands in each tenant, and what may be written into it. Pure: time is an argument, in milliseconds.
//!
//! ```text
//!   announce, withdraw, say ─ may it? ─▶ Record ──▶ the journal, synced ──▶ apply
//! ```
//! Nothing changes but by [`Book::apply`] of a record, which never refuses what was once accepted: so a replay of the journal makes
//! the same book.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluidos_identity::{Envelope, NodeId, Signed};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::message::{Announcement, Feedback, Statement, Withdrawal, is_word, open};
use crate::places::{Standing, yields};

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

/// Which announcements are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// All of these must be told.
    pub features: Vec<(String, String)>,
    /// How many at most; 0 is [`PAGE_MAX`].
    pub limit: usize,
    /// After this one.
    pub after: Option<NodeId>,
}

/// Some of what was asked for.
#[derive(Debug, Default)]
pub struct Page {
    /// As they were signed.
    pub envelopes: Vec<Arc<RawValue>>,
    /// Where the next page begins, if there is one.
    pub more: Option<NodeId>,
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

    /// What an announcement changes.
    pub(crate) fn announce(
        &self,
        name: &str,
        signed: &Signed<Announcement>,
        caller: &Caller,
        now: u64,
    ) -> Result<Record, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let did = own(signed, caller)?;
        let (tenant_name, origin) = (name.to_owned(), caller.origin.clone());
        match tenant.announced.get(&did).filter(|entry| entry.ends() > now) {
            Some(entry) if entry.digest == signed.digest() => {
                return Ok(Record::Renew { tenant: tenant_name, at: now, origin, did });
            }
            Some(entry) if entry.announcement.sequence >= signed.value().sequence => {
                return Err(Refusal::Conflict { held: entry.announcement.sequence });
            }
            Some(_) => {}
            None => self.has_room(tenant, &did, caller, now)?,
        }
        Ok(Record::Announce { tenant: tenant_name, at: now, origin, envelope: signed.envelope() })
    }

    fn has_room(&self, tenant: &Tenant, did: &NodeId, caller: &Caller, now: u64) -> Result<(), Refusal> {
        let of_member = self.members.contains(did);
        let there = tenant
            .announced
            .iter()
            .filter(|(id, entry)| *id != did && entry.ends() > now && self.members.contains(*id) == of_member);
        let (mut all, mut of_origin) = (0, 0);
        for (_, entry) in there {
            all += 1;
            of_origin += usize::from(entry.origin == caller.origin);
        }
        if all >= ENTRIES_MAX {
            return Err(Refusal::Full(format!("{ENTRIES_MAX} nodes are announced, which is the most")));
        }
        if !of_member && of_origin >= ENTRIES_OF_ORIGIN_MAX {
            return Err(Refusal::Full(format!(
                "{ENTRIES_OF_ORIGIN_MAX} nodes of this address are announced, the most"
            )));
        }
        Ok(())
    }

    /// What a withdrawal changes.
    pub(crate) fn withdraw(
        &self,
        name: &str,
        signed: &Signed<Withdrawal>,
        caller: &Caller,
        now: u64,
    ) -> Result<Record, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let did = own(signed, caller)?;
        match tenant.announced.get(&did).filter(|entry| entry.ends() > now) {
            None => Err(Refusal::NotFound(format!("{did} is not announced"))),
            Some(entry) if entry.announcement.sequence > signed.value().sequence => {
                Err(Refusal::Conflict { held: entry.announcement.sequence })
            }
            Some(_) => Ok(Record::Withdraw { tenant: name.to_owned(), envelope: signed.envelope() }),
        }
    }

    /// What an opinion changes; `None`: it stands there already.
    pub(crate) fn say(
        &self,
        name: &str,
        signed: &Signed<Feedback>,
        caller: &Caller,
        now: u64,
    ) -> Result<Option<Record>, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let author = own(signed, caller)?;
        let announced = tenant.announced.get(&author).is_some_and(|entry| entry.ends() > now);
        if !announced && !self.members.contains(&author) {
            return Err(Refusal::Forbidden(format!("{author} is neither announced here nor a member")));
        }
        let about = signed.value().about;
        let known = tenant.said.get(&about).and_then(|words| words.get(&author)).filter(|said| said.ends() > now);
        let mut instead = None;
        match known {
            Some(said) if said.digest == signed.digest() => return Ok(None),
            Some(said) if said.feedback.sequence >= signed.value().sequence => {
                return Err(Refusal::Conflict { held: said.feedback.sequence });
            }
            Some(_) => {}
            None => {
                let by_author = tenant.said.values().filter(|words| words.contains_key(&author)).count();
                if by_author >= FEEDBACK_OF_AUTHOR_MAX {
                    let max = FEEDBACK_OF_AUTHOR_MAX;
                    return Err(Refusal::Full(format!("there are {max} opinions of this author, which is the most")));
                }
                instead = self.place(tenant, &about, &author, &caller.origin)?;
            }
        }
        let (tenant, origin) = (name.to_owned(), caller.origin.clone());
        Ok(Some(Record::Say { tenant, at: now, origin, instead, envelope: signed.envelope() }))
    }

    /// Whose opinion yields its place to a new one, if one must.
    fn place(
        &self,
        tenant: &Tenant,
        about: &NodeId,
        author: &NodeId,
        origin: &str,
    ) -> Result<Option<(NodeId, NodeId)>, Refusal> {
        let of_member = self.members.contains(author);
        let standing = |words: &BTreeMap<NodeId, Said>, about: NodeId| -> Vec<(NodeId, NodeId, String, u64)> {
            let alike = words.iter().filter(|(author, _)| self.members.contains(*author) == of_member);
            alike.map(|(author, said)| (about, *author, said.origin.clone(), said.at)).collect()
        };
        let about_it = tenant.said.get(about).map(|words| standing(words, *about)).unwrap_or_default();
        let (there, max, what) = if about_it.len() >= FEEDBACK_ABOUT_MAX {
            (about_it, FEEDBACK_ABOUT_MAX, "opinions about this node")
        } else {
            let all = tenant.said.values().map(BTreeMap::len).sum::<usize>();
            if all < FEEDBACK_MAX {
                return Ok(None);
            }
            let all: Vec<_> = tenant.said.iter().flat_map(|(about, words)| standing(words, *about)).collect();
            if all.len() < FEEDBACK_MAX {
                return Ok(None);
            }
            (all, FEEDBACK_MAX, "opinions")
        };
        let of = |(about, author, origin, at)| Standing { key: (about, author), origin, at };
        let there = there.iter().map(|(about, author, origin, at)| of((*about, *author, origin.as_str(), *at)));
        let yields = yields(there, origin);
        yields.map(Some).ok_or_else(|| {
            Refusal::Full(format!("there are {max} {what}, which is the most, and no address has more than its share"))
        })
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

    /// How often what readers of a tenant see has changed.
    ///
    /// # Errors
    /// [`Refusal`] of who may not read.
    pub fn changes(&self, name: &str, caller: &Caller) -> Result<u64, Refusal> {
        self.tenant(name, caller).map(|tenant| tenant.changes)
    }

    /// Announcements, in the order of their keys: what is there all the time is read once and only once, whatever changes between
    /// two pages.
    ///
    /// # Errors
    /// [`Refusal`] of who may not read.
    pub fn list(&self, name: &str, query: &Query, caller: &Caller, now: u64) -> Result<Page, Refusal> {
        let tenant = self.tenant(name, caller)?;
        let wanted = |entry: &Entry| {
            let told = &entry.announcement.features;
            entry.ends() > now && query.features.iter().all(|(key, value)| told.get(key) == Some(value))
        };
        let entries = after(&tenant.announced, query.after).filter(|(_, entry)| wanted(entry));
        Ok(page(entries.map(|(id, entry)| (*id, &entry.raw)), query.limit))
    }

    /// What was said about a node, with the plain mean and number of all that.
    ///
    /// # Errors
    /// [`Refusal`] of who may not read.
    pub fn reputation(
        &self,
        name: &str,
        about: NodeId,
        query: &Query,
        caller: &Caller,
        now: u64,
    ) -> Result<(Page, Option<u64>, u64), Refusal> {
        let tenant = self.tenant(name, caller)?;
        let words = tenant.said.get(&about).into_iter().flatten().filter(|(_, said)| said.ends() > now);
        let words: BTreeMap<NodeId, &Said> = words.map(|(author, said)| (*author, said)).collect();
        let (count, sum) = words.values().fold((0, 0), |(n, sum), said| (n + 1, sum + u64::from(said.feedback.value)));
        let mean = (count > 0).then(|| sum / count);
        let page = page(after(&words, query.after).map(|(id, said)| (*id, &said.raw)), query.limit);
        Ok((page, mean, count))
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

/// Who signs must be who asks: so nobody sends again what another has signed.
fn own<T: Statement>(signed: &Signed<T>, caller: &Caller) -> Result<NodeId, Refusal> {
    let author = signed.value().author();
    match caller.node {
        None => Err(Refusal::Unauthenticated("to write")),
        Some(node) if node != author => Err(Refusal::Forbidden(format!("it is of {author}, and {node} sends it"))),
        Some(_) => Ok(author),
    }
}

fn after<V>(map: &BTreeMap<NodeId, V>, id: Option<NodeId>) -> impl Iterator<Item = (&NodeId, &V)> {
    use std::ops::Bound::{Excluded, Unbounded};
    map.range((id.map_or(Unbounded, Excluded), Unbounded))
}

fn page<'a>(mut entries: impl Iterator<Item = (NodeId, &'a Arc<RawValue>)>, limit: usize) -> Page {
    let limit = if limit == 0 { PAGE_MAX } else { limit.min(PAGE_MAX) };
    let (mut page, mut last) = (Page::default(), None);
    for (id, raw) in entries.by_ref().take(limit) {
        page.envelopes.push(raw.clone());
        last = Some(id);
    }
    page.more = last.filter(|_| entries.next().is_some());
    page
}

fn raw(envelope: &Envelope) -> Result<Arc<RawValue>, String> {
    serde_json::value::to_raw_value(envelope).map(Arc::from).map_err(|error| error.to_string())
}
