//! Policies that name a key go on with the key that speaks for its node now. Pure.
//!
//! An owner writes the DID that is shown; a key that was handed over counts no more. So what is asked are the texts with each such DID in the
//! place of the older one: in `principal == Peer::"…"`, in lists, and in `principal.did == "…"`. What stands in the object is not touched.
//!
//! ```text
//! as written ─ permit (principal == Peer::"K0", …) ─┬─ K0 was handed over to K1 ─▶ as asked: permit (principal == Peer::"K1", …)
//!                                                   └─ K0 was revoked           ─▶ as written: K0 may do nothing anyway
//! ```
//! A `forbid` follows, too: nobody shakes it off by a new key.

use std::collections::BTreeMap;

use cedar_policy::{Policy, PolicySet};
use fluidos_identity::NodeId;
use serde_json::Value;

use super::Policies;
use super::compile::words;

/// What keys are read by.
const DID_KEY: &str = "did:key:";

impl Policies {
    /// Remembers what was written, and which keys stand in it.
    pub(super) fn written(&mut self) {
        self.words = words(&self.set);
        let named = self.words.iter().flatten().filter(|word| word.starts_with(DID_KEY));
        self.named = named.filter_map(|word| word.parse().ok()).collect();
        self.followed.clear();
        self.written = self.set.clone();
    }

    /// Returns these policies with the keys that speak now; `None` if they are so already.
    pub fn following(&self, current: impl Fn(&NodeId) -> NodeId) -> Option<Self> {
        let followed: BTreeMap<NodeId, NodeId> = self
            .named
            .iter()
            .map(|named| (*named, current(named)))
            .filter(|(named, current)| named != current)
            .collect();
        if followed == self.followed {
            return None;
        }
        let mut fresh = Self { set: PolicySet::new(), followed, ..self.clone() };
        let places = fresh.followed.iter().map(|(named, current)| (named.to_string(), current.to_string())).collect();
        for policy in self.written.policies() {
            let added = read_again(policy, &places).and_then(|policy| fresh.set.add(policy).map_err(|e| e.to_string()));
            if let Err(why) = added {
                // It might have forbidden something.
                fresh.closed = Some(format!("policy {} names a key that was handed over: {why}", policy.id()));
            }
        }
        fresh.words = words(&fresh.set);
        Some(fresh)
    }

    /// The keys that are asked about in the place of others, by what is written.
    pub fn followed(&self) -> &BTreeMap<NodeId, NodeId> {
        &self.followed
    }
}

fn read_again(policy: &Policy, places: &BTreeMap<String, String>) -> Result<Policy, String> {
    let mut json = policy.to_json().map_err(|error| error.to_string())?;
    if !replace(&mut json, places) {
        return Ok(policy.clone());
    }
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| error.to_string())
}

/// Puts other texts in the place of whole ones; says whether there was one.
fn replace(value: &mut Value, places: &BTreeMap<String, String>) -> bool {
    match value {
        Value::String(text) => match places.get(text.as_str()) {
            Some(other) => {
                other.clone_into(text);
                true
            }
            None => false,
        },
        // Not `any`: all of them are looked at.
        Value::Array(items) => items.iter_mut().fold(false, |found, item| replace(item, places) | found),
        Value::Object(fields) => fields.values_mut().fold(false, |found, field| replace(field, places) | found),
        _ => false,
    }
}
