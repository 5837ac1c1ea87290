//! What is known of nodes, into the API: Acquaintances, who each peer is, who takes whose place, and copies of a key. What could not be written is
//! tried again at the next look.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use fluidos_identity::{NodeId, Standing};
use fluidos_model::kinds::{AcquaintanceSpec, AcquaintanceStatus, KnownCluster, names};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::{COPIES_EVERY, COPIES_MAX, Introductions, WRITTEN, act, plan, store};

impl Introductions {
    pub(super) async fn write_acquaintances(&mut self) {
        let now = Timestamp::now();
        let wanted: Vec<(NodeId, AcquaintanceSpec, AcquaintanceStatus)> = self
            .acquaintances
            .histories()
            .map(|history| {
                let spec = store::record(history, self.acquaintances.owners());
                let standing = history.standing(self.acquaintances.owners(), now);
                (history.origin(), spec, store::status(&standing, self.name_of(&standing, &history.origin())))
            })
            .collect();
        let origins: BTreeSet<NodeId> = wanted.iter().map(|(origin, ..)| *origin).collect();
        let gone: Vec<NodeId> = self.written.keys().filter(|did| !origins.contains(*did)).copied().collect();
        for did in gone {
            match act::forget(&self.options.client, &store::name(&did)).await {
                Ok(()) => drop(self.written.remove(&did)),
                Err(error) => tracing::warn!(%error, %did, "an Acquaintance could not be removed"),
            }
        }
        for (did, spec, status) in wanted {
            let known = self.written.get(&did);
            let deleted = known.is_some_and(|(.., at)| at.elapsed() > WRITTEN)
                && self.objects.get(names::NAMESPACE, &store::name(&did)).is_none();
            if deleted {
                tracing::info!(%did, "an Acquaintance was deleted: what was accepted of it is forgotten");
                self.written.remove(&did);
                self.acquaintances.remove(&did);
                continue;
            }
            if known.is_some_and(|(s, t, _)| *s == spec && *t == status) {
                continue;
            }
            match act::write(&self.options.client, &store::name(&did), &spec, &status).await {
                Ok(()) => drop(self.written.insert(did, (spec, status, Instant::now()))),
                Err(error) => tracing::warn!(%error, %did, "an Acquaintance could not be written; it is tried again"),
            }
        }
    }

    pub(super) fn name_of(&self, standing: &Standing, origin: &NodeId) -> String {
        let key = match standing {
            Standing::Current(key) => key,
            _ => origin,
        };
        let entry = self.entry(key).or_else(|| self.entry(origin));
        entry.and_then(|entry| entry.spec.name.clone()).unwrap_or_default()
    }

    pub(super) fn entry(&self, key: &NodeId) -> Option<Arc<KnownCluster>> {
        let did = key.to_string();
        let is_it = |known: &Arc<KnownCluster>| known.spec.did.as_deref() == Some(&did);
        // Almost all have the name that discovery gives; only a user may have written one of another.
        let named = self.known.get(names::NAMESPACE, &names::known_cluster(&key.tag())).filter(is_it);
        named.or_else(|| self.known.list().into_iter().find(is_it))
    }

    /// Writes what is known of who everybody is. What an earlier process knew is not known now.
    pub(super) async fn write_identities(&mut self) {
        let now = Timestamp::now();
        let list = self.known.list();
        let dids: BTreeSet<NodeId> =
            list.iter().filter_map(|known| known.spec.did.as_deref()?.parse::<NodeId>().ok()).collect();
        self.people.retain(|peer, _| dids.contains(peer) || self.options.links.get(peer).is_some());
        for known in list {
            let Some(did) = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok()) else { continue };
            let mut measured = plan::measured(&known, did, self.options.own, self.options.position, now);
            measured.extend(plan::seen(&known, did, self.options.own));
            let person = self.people.get(&did);
            let refused = self.options.speakers.counts(&did).err();
            let identity = match (person, refused) {
                (Some(person), refused) => {
                    let (features, trusted) = (&known.spec.features, &self.options.trusted);
                    let claim = person.met.proven.asks_web.as_ref();
                    let why = claim.and_then(|claim| self.web.as_ref()?.reason(claim));
                    let identity = plan::identity(did, &person.met, refused, features, &measured, trusted, now);
                    Some(plan::with_note(identity, why.map(|why| format!("its did:web document: {why}"))))
                }
                (None, refused) => refused.map(|reason| plan::nothing_but(&reason)),
            };
            let before = known.status.as_ref().and_then(|status| status.identity.as_ref());
            if before == identity.as_ref() {
                continue;
            }
            if let Err(error) = act::identity(&self.options.client, &known.name_any(), identity.as_ref()).await {
                tracing::warn!(%error, name = known.name_any(), "who a peer is could not be written");
            }
        }
    }

    /// A node with another key takes the place of its old entry, with what its owner here had written into it.
    pub(super) async fn succeed(&mut self) {
        for old in self.known.list() {
            let Some(key) = old.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok()) else { continue };
            let Standing::Current(current) = self.options.speakers.standing(&key) else { continue };
            if current == key {
                continue;
            }
            let Some(new) = self.entry(&current) else { continue };
            tracing::info!(%key, %current, "a node is known again under another key");
            if let Err(error) = act::succeed(&self.options.client, &old, &new).await {
                tracing::warn!(%error, "an entry of an old key could not be replaced; it is tried again");
            }
        }
    }

    /// Two processes run with one key: somebody has copied a disk, and the owner must know.
    pub(super) async fn copies(&mut self, key: NodeId, witness: NodeId, younger: &str) {
        let told = self.told_copies.get(&key).is_some_and(|at| at.elapsed() < COPIES_EVERY);
        if told {
            return;
        }
        if self.told_copies.len() >= COPIES_MAX {
            self.told_copies.clear();
        }
        self.told_copies.insert(key, Instant::now());
        let about = self.entry(if key == self.options.own { &witness } else { &key });
        let (reason, message) = plan::copies(key == self.options.own, &key, &witness, younger);
        if let Err(error) = act::warn(&self.options.client, about.as_deref(), reason, &message).await {
            tracing::warn!(%error, message, "this could not be told in an Event");
        }
    }
}
