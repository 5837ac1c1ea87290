//! What readers are given: pages of what was signed, as it was signed.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluidos_identity::NodeId;
use serde_json::value::RawValue;

use super::{Book, Caller, Entry, PAGE_MAX, Refusal, Said};

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

impl Book {
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
