//! Meeting a peer: it has proven a key and shows what others say about it. Who is it?
//!
//! ```text
//!   key, proven by TLS ─┐                  ┌─ admission   may it go on at all
//!   Presentation ───────┼── meet(…, now) ──┼─ origin      which of the nodes that we know it is
//!   acquaintances ──────┘                  └─ proven      owner, domain, features
//! ```
//! An **acquaintance** is a node that this one wants to know again under another key: one with a contract, one that was named.
//! Strangers with statements are judged and not remembered, so keys made for it fill no memory. What was accepted about an
//! acquaintance stays ([`KeyHistory`]), and so does its first owner ([`Owners`]).
//!
//! Pure: the caller keeps acquaintances wherever it likes, and does what follows, such as ending a session.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::json::strict_json;
use crate::{
    CREDENTIAL_LENGTH_MAX, Credential, CredentialKind, Demands, Envelope, KeyHistory, NodeId, Owners,
    PEER_CREDENTIALS_MAX, Proven, STATEMENTS_MAX, STATUS_TEXT_LENGTH_MAX, Standing, Statement, StatusList,
    TrustedIssuers, VerifiedCredential, first_key, proven, resolve,
};

/// What a node with every credential and statement that it may have shows is less; one of ours shows about 4 KiB.
pub const PRESENTATION_BYTES_MAX: usize = 256 * 1024;
/// Status lists that a node shows beside its credentials: of its owner and of a few certifiers.
pub const PRESENTED_LISTS_MAX: usize = 8;

/// What a node shows of itself on a link, as it travels: canonical names, nothing else.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presentation {
    /// Credentials about its key, in the form of [`Credential::text`].
    #[serde(default)]
    pub credentials: Vec<String>,
    /// Hand-overs and revocations of its keys, in the form of [`Statement::envelope`].
    #[serde(default)]
    pub statements: Vec<Envelope>,
    /// The status lists that its credentials name, as their issuers signed them: nobody need fetch them.
    #[serde(default)]
    pub lists: Vec<String>,
}

/// The nodes that this one wants to know again, by the key with which they were met first.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Acquaintances {
    histories: BTreeMap<NodeId, KeyHistory>,
    owners: Owners,
}

/// Who a peer is.
#[derive(Clone, PartialEq, Debug)]
pub struct Met {
    /// May it go on; or why not, in words.
    pub admission: Result<(), String>,
    /// The acquaintance that it is, by its first key. `None`: a stranger.
    pub origin: Option<NodeId>,
    /// The key from which its addresses follow, see [`first_key`].
    pub first: NodeId,
    /// What is proven about it.
    pub proven: Proven,
    /// The credentials that hold, whoever issued them.
    pub credentials: Vec<VerifiedCredential>,
    /// The status lists that it has shown, with a signature that holds.
    pub lists: Vec<StatusList>,
    /// What of the presentation counts for nothing, in words.
    pub notes: Vec<String>,
}

impl Presentation {
    /// Returns what a peer shows.
    ///
    /// # Errors
    /// What is wrong, in words: too long, no such JSON, more than there may be.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value = strict_json(bytes, PRESENTATION_BYTES_MAX)?;
        let shown: Self =
            serde_json::from_value(value).map_err(|error| error.to_string().escape_debug().to_string())?;
        shown.check()?;
        Ok(shown)
    }

    /// Returns the bytes that travel.
    ///
    /// # Errors
    /// What is wrong, in words: more than others would read.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        self.check()?;
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        at_most("bytes", bytes.len(), PRESENTATION_BYTES_MAX)?;
        Ok(bytes)
    }

    fn check(&self) -> Result<(), String> {
        at_most("credentials", self.credentials.len(), PEER_CREDENTIALS_MAX)?;
        at_most("statements", self.statements.len(), STATEMENTS_MAX)?;
        at_most("status lists", self.lists.len(), PRESENTED_LISTS_MAX)?;
        let longest = self.lists.iter().map(String::len).max().unwrap_or_default();
        at_most("characters in a status list", longest, STATUS_TEXT_LENGTH_MAX)?;
        let longest = self.credentials.iter().map(String::len).max().unwrap_or_default();
        at_most("characters in a credential", longest, CREDENTIAL_LENGTH_MAX)
    }
}

impl Acquaintances {
    /// Returns what was kept.
    pub fn restore(histories: impl IntoIterator<Item = KeyHistory>, owners: Owners) -> Self {
        Self { histories: histories.into_iter().map(|history| (history.origin(), history)).collect(), owners }
    }

    /// Begins to know a node, met with this key. The caller bounds how many.
    pub fn add(&mut self, origin: NodeId) {
        self.histories.entry(origin).or_insert_with(|| KeyHistory::new(origin));
    }

    /// Forgets a node, and who its owner is.
    pub fn remove(&mut self, origin: &NodeId) {
        if let Some(history) = self.histories.remove(origin) {
            self.owners.forget(origin);
            keys(&history).for_each(|key| self.owners.forget(&key));
        }
    }

    /// Returns the histories, to be kept.
    pub fn histories(&self) -> impl Iterator<Item = &KeyHistory> {
        self.histories.values()
    }

    /// Returns how every key stands that an acquaintance has or had: what the node stands for that it speaks for.
    pub fn standings(&self, now: Timestamp) -> BTreeMap<NodeId, Standing> {
        let mut standings = BTreeMap::new();
        for history in self.histories.values() {
            let standing = history.standing(&self.owners, now);
            for key in keys(history).chain([history.origin()]) {
                standings.insert(key, standing.clone());
            }
        }
        standings
    }

    /// Returns the owners, to be kept.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Says who the peer is that has proven this key and shows this. `lists` are the status lists that are at hand.
    pub fn meet(
        &mut self,
        peer: NodeId,
        shown: &Presentation,
        lists: &[StatusList],
        trusted: &TrustedIssuers,
        now: Timestamp,
    ) -> Met {
        let mut notes = Vec::new();
        let statements = statements(shown, &mut notes);
        let before = before(peer, &statements);
        // First the keys, by the owners of before: what the peer shows about itself must not decide about it.
        let (mut admission, mut origin) = (Ok(()), None);
        for (first, history) in &mut self.histories {
            if *first != peer && !before.contains(first) && !keys(history).any(|key| key == peer) {
                continue;
            }
            let standing = history.learn(&statements, &self.owners, now);
            let was_its_key = *first == peer || history.retired().any(|key| key == peer);
            match standing {
                // Known by two keys, it is the node of the older one.
                Standing::Current(key) if key == peer => origin = origin.filter(|_| *first == peer).or(Some(*first)),
                Standing::Current(key) if was_its_key => admission = Err(format!("{peer} was handed over to {key}")),
                Standing::Revoked { key, by, at, reason } if was_its_key || key == peer => {
                    admission = Err(format!("{key} was revoked by {by} at {at}: {reason}"));
                }
                Standing::Unknown(doubt) if was_its_key => admission = Err(doubt.to_string()),
                standing => notes.push(format!("it says that it follows {first}, which is {standing}")),
            }
        }
        // A stranger's own statements can only take from it.
        if origin.is_none() && admission.is_ok() {
            match resolve(peer, &statements, &self.owners, now) {
                Standing::Current(key) if key == peer => {}
                other => admission = Err(format!("by its own statements it is {other}")),
            }
        }
        let shown_lists = status_lists(shown, &mut notes);
        let at_hand: Vec<&StatusList> = lists.iter().chain(&shown_lists).collect();
        let credentials = credentials(shown, &at_hand, now, &mut notes);
        let owned = credentials.iter().filter(|c| c.kind() == CredentialKind::NodeOwnership);
        for credential in owned.filter(|_| origin.is_some() && admission.is_ok()) {
            if let Err(error) = self.owners.shown(peer, credential, trusted, now) {
                notes.push(format!("owner: {error}"));
            }
        }
        let proven = proven(&peer, &credentials, trusted, now);
        let first = first_key(peer, &statements);
        Met { admission, origin, first, proven, credentials, lists: shown_lists, notes }
    }

    /// Hears statements about whomever, from whomever, [`STATEMENTS_MAX`] at a time; returns the acquaintances that stand
    /// otherwise than before. Their sessions and contracts are the caller's to end.
    pub fn hear(&mut self, statements: &[Statement], now: Timestamp) -> Vec<(NodeId, Standing)> {
        let statements = &statements[..statements.len().min(STATEMENTS_MAX)];
        let mut changed = Vec::new();
        for (origin, history) in &mut self.histories {
            let before = history.standing(&self.owners, now);
            let standing = history.learn(statements, &self.owners, now);
            if standing != before {
                changed.push((*origin, standing));
            }
        }
        changed
    }
}

/// The keys that a history has gone through, but for its first one.
fn keys(history: &KeyHistory) -> impl Iterator<Item = NodeId> + '_ {
    history.accepted().iter().filter_map(|statement| match statement {
        Statement::Handover(handover) => Some(handover.to()),
        Statement::Revocation(_) => None,
    })
}

/// Returns the keys that a peer says were its own before.
fn before(peer: NodeId, statements: &[Statement]) -> BTreeSet<NodeId> {
    let mut found = BTreeSet::from([peer]);
    loop {
        let more: Vec<NodeId> = statements
            .iter()
            .filter_map(|statement| match statement {
                Statement::Handover(h) if found.contains(&h.to()) && !found.contains(&h.from()) => Some(h.from()),
                _ => None,
            })
            .collect();
        if more.is_empty() {
            return found; // each round finds one of the statements at least, so it ends
        }
        found.extend(more);
    }
}

fn statements(shown: &Presentation, notes: &mut Vec<String>) -> Vec<Statement> {
    let read = shown.statements.iter().take(STATEMENTS_MAX).map(Statement::read);
    read.filter_map(|read| read.map_err(|error| notes.push(error.to_string())).ok()).collect()
}

fn credentials(
    shown: &Presentation,
    lists: &[&StatusList],
    now: Timestamp,
    notes: &mut Vec<String>,
) -> Vec<VerifiedCredential> {
    let verify = |text: &String| {
        let credential = Credential::parse(text)?;
        let of_it = |list: &&&StatusList| {
            list.issuer() == credential.issuer() && credential.status().is_some_and(|entry| entry.list == list.id())
        };
        // Of two lists at hand the newer one counts: in the older nobody was revoked yet.
        let status = lists.iter().filter(of_it).max_by_key(|list| list.valid_from()).copied();
        credential.verify(&Demands { now, issuer: None, subject: None, status })
    };
    let verified = shown.credentials.iter().take(PEER_CREDENTIALS_MAX).map(verify);
    verified.filter_map(|verified| verified.map_err(|error| notes.push(format!("credential: {error}"))).ok()).collect()
}

fn status_lists(shown: &Presentation, notes: &mut Vec<String>) -> Vec<StatusList> {
    let read = shown.lists.iter().take(PRESENTED_LISTS_MAX).map(|text| StatusList::parse(text));
    read.filter_map(|read| read.map_err(|error| notes.push(format!("status list: {error}"))).ok()).collect()
}

fn at_most(what: &str, observed: usize, max: usize) -> Result<(), String> {
    if observed > max { Err(format!("{observed} {what}, at most {max}")) } else { Ok(()) }
}
