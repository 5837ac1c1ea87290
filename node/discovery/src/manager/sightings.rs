//! Sightings in, KnownClusters out: who is taken, changed, heard again and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_catalog::Feedback;
use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    KnownCluster, KnownClusterOffer, KnownClusterSource, KnownClusterSpec, NodeIdentity, Rating, names,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use tokio::task::JoinSet;

use super::Manager;
use crate::catalog::Listing;
use crate::plan::{self, Action, Rules};
use crate::{Sighting, Source, act, offers, words};

/// As many as a group of writes that the store syncs together.
const WRITES_AT_ONCE: usize = 64;
/// As many as multicast keeps.
const PRESENT_MAX: usize = 2 * plan::KNOWN_MAX;
/// The copy of what is known follows a write within milliseconds.
const COPY_TIMEOUT: Duration = Duration::from_secs(2);

impl Manager {
    /// A catalog was read to its end.
    pub(super) async fn listed(&mut self, listing: Listing) {
        let Listing { catalog, sightings, refused } = listing;
        for why in refused {
            self.handle.reject(&self.options.catalogs.targets[catalog].to_string(), &why, Timestamp::now());
        }
        let before = self.lists[catalog].replace(sightings.clone()).unwrap_or_default();
        for (id, sighting) in &sightings {
            if *id != self.own && before.get(id) != Some(sighting) {
                self.sighted(sighting).await;
            }
        }
        let from = self.options.catalogs.targets[catalog].board();
        for id in before.keys().filter(|id| !sightings.contains_key(id)) {
            // What it sold was said there alone, if it is known otherwise.
            if let Some(known) = self.entry(id).filter(|known| known.spec.offers.iter().any(|o| o.from == from)) {
                self.sells(&known, &[]).await;
            }
        }
        self.compare().await;
    }

    /// Takes again who is listed and was forgotten, and forgets who is listed no more. A catalog that is away says neither.
    pub(super) async fn compare(&mut self) {
        let here = self.present.values().map(|sighting| (sighting.id, sighting));
        let listed: BTreeMap<NodeId, &Sighting> =
            self.lists.iter().flatten().flatten().map(|(id, sighting)| (*id, sighting)).collect();
        let count = self.known.list().len();
        // Nearer sources say more.
        let seen: BTreeMap<NodeId, &Sighting> =
            listed.iter().map(|(id, sighting)| (*id, *sighting)).chain(here).collect();
        let missing = seen.values().filter(|sighting| {
            let rating = self.rating(&sighting.id);
            let (trust, policies) = (&self.options.trust, &self.policies);
            let rules = Rules { own: self.own, trust, policies, rating: rating.as_deref() };
            // Why it is rejected was told when it was seen.
            self.entry(&sighting.id).is_none()
                && !matches!(plan::sighting(sighting, None, count, &rules), Action::Reject(_))
        });
        let missing: Vec<Sighting> = missing.map(|sighting| (*sighting).clone()).collect();
        let listed: BTreeSet<NodeId> = listed.into_keys().collect();
        for sighting in &missing {
            self.sighted(sighting).await;
        }
        if self.lists.iter().any(Option::is_none) {
            return;
        }
        for known in self.known.list() {
            let did = known.spec.did.clone().unwrap_or_default();
            let id = did.parse::<NodeId>().ok();
            let stays = id.is_some_and(|id| listed.contains(&id) || self.options.links.get(&id).is_some());
            if known.spec.source == Some(KnownClusterSource::Catalog) && !stays && !self.is_bound(&did) {
                tracing::info!(name = known.name_any(), "a node is in no catalog any more: forgotten");
                if let Err(error) = act::remove(&self.options.client, &known.name_any()).await {
                    tracing::warn!(%error, "a KnownCluster could not be removed");
                }
            }
        }
    }

    pub(super) fn entry(&self, id: &NodeId) -> Option<Arc<KnownCluster>> {
        let did = id.to_string();
        self.known
            .get(names::NAMESPACE, &names::known_cluster(&id.tag()))
            .or_else(|| self.known.list().into_iter().find(|k| k.spec.did.as_deref() == Some(&did)))
    }

    /// Looks at all nodes if one of them has changed, the time of one is over, or it is long ago.
    pub(super) async fn look(&mut self) {
        let version = self.known.version();
        if version == self.looked_at && Instant::now() < self.look_at {
            return;
        }
        (self.looked_at, self.look_at) = (version, Instant::now() + super::LOOK);
        self.speak();
        self.renew().await;
        self.expire().await;
        self.compare().await;
        self.dial();
    }

    pub(super) async fn sighted(&mut self, sighting: &Sighting) {
        let tag = sighting.id.tag();
        self.gone.remove(&tag);
        if sighting.source == Source::Multicast && self.present.len() < PRESENT_MAX {
            self.present.insert(tag, sighting.clone());
        }
        // What a link and an announcement say of a new node at the same time must not both be a creation.
        if self.judge(sighting).await {
            self.judge(sighting).await;
        }
    }

    /// A catalog has told what is said of some nodes.
    pub(super) async fn said(&mut self, catalog: usize, said: &BTreeMap<NodeId, Vec<Feedback>>) {
        let ratings = self.ratings.list();
        let rated = words::by_did(&ratings);
        let from = self.options.catalogs.targets[catalog].board();
        for (about, said) in said {
            let Some(known) = self.entry(about) else { continue };
            let before = known.status.as_ref().map(|status| status.opinions.clone()).unwrap_or_default();
            let kept = words::kept(&before, said, &from, |did| rated.get(did).copied(), Timestamp::now());
            if kept != before
                && let Err(error) = act::opinions(&self.options.client, &known.name_any(), &kept).await
            {
                tracing::warn!(%error, "what others say of a node could not be written");
            }
        }
    }

    /// Writes what REAR has told Solvers of what others sell.
    pub(super) async fn price(&mut self) {
        let version = self.candidates.version();
        if version == self.asked_at {
            return;
        }
        self.asked_at = version;
        let list = self.candidates.list();
        self.asked = offers::of_candidates(list.iter().map(AsRef::as_ref));
        for (id, offers) in self.asked.clone() {
            if let Some(known) = self.entry(&id).filter(|known| known.spec.offers != offers) {
                self.sells(&known, &offers).await;
            }
        }
    }

    async fn sells(&self, known: &KnownCluster, offers: &[KnownClusterOffer]) {
        let spec = KnownClusterSpec { offers: offers.to_vec(), ..known.spec.clone() };
        if let Err(error) = act::change(&self.options.client, &known.name_any(), Some(known), &spec).await {
            tracing::warn!(%error, "a KnownCluster could not be written");
        }
    }

    /// Does what a sighting asks for; `true` if somebody else made the entry meanwhile, and it is to be judged again.
    pub(super) async fn judge(&mut self, sighting: &Sighting) -> bool {
        let mut sighting = sighting.clone();
        if let Some(offers) = self.asked.get(&sighting.id) {
            // What REAR tells counts more than what is announced.
            sighting.offers = Some(offers.clone());
        }
        let sighting = &sighting;
        let known = self.entry(&sighting.id);
        let rating = self.rating(&sighting.id);
        let (trust, policies) = (&self.options.trust, &self.policies);
        let rules = Rules { own: self.own, trust, policies, rating: rating.as_deref() };
        let action = plan::sighting(sighting, known.as_deref(), self.known.list().len(), &rules);
        let client = &self.options.client;
        let result = match action {
            Action::Create(spec, name) => match act::create(client, &name, *spec).await {
                Ok(created) => {
                    if created {
                        self.handle.taken(&who(&sighting.name, &sighting.id));
                        tracing::info!(name = sighting.name, did = %sighting.id, source = ?sighting.source, "a node was found");
                    }
                    self.seen(&name).await;
                    if created && self.written.remove(&sighting.id).is_some() {
                        // The entry is a new one, the link is not.
                        self.refresh().await;
                    }
                    return !created;
                }
                Err(error) => Err(error),
            },
            Action::Change(spec, name) => act::change(client, &name, known.as_deref(), &spec).await,
            // It has no time that could be over, or nearer sources keep it.
            Action::Heard(_) if sighting.source == Source::Catalog => Ok(()),
            // That it goes on is remembered, and written before its time in the API is over ([`Manager::renew`]).
            Action::Heard(_) if sighting.source == Source::Multicast => Ok(()),
            Action::Heard(name) => act::heard(client, &name, known.and_then(|k| k.spec.source), plan::LISTED).await,
            Action::Reject(why) => {
                if sighting.id != self.own {
                    self.handle.reject(&who(&sighting.name, &sighting.id), &why, Timestamp::now());
                }
                Ok(())
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "a KnownCluster could not be written");
        }
        false
    }

    /// Waits until the copy of what is known has this entry.
    pub(super) async fn seen(&self, name: &str) {
        let mut changes = self.known.changes();
        let there =
            async { while self.known.get(names::NAMESPACE, name).is_none() && changes.changed().await.is_ok() {} };
        // A copy that lags so long shows in the API server; the next sighting comes.
        let _ = tokio::time::timeout(COPY_TIMEOUT, there).await;
    }

    /// A good-bye is not signed. It ends only what no link shows to live, and who is there is found again within seconds.
    pub(super) async fn said_good_bye(&mut self, tag: String) {
        self.present.remove(&tag);
        let Some(known) = self.known.get(names::NAMESPACE, &names::known_cluster(&tag)) else { return };
        let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
        if known.spec.source != Some(KnownClusterSource::Multicast) {
            return;
        }
        self.gone.insert(tag);
        if id.is_none_or(|id| self.options.links.get(&id).is_none()) {
            self.end(&known).await;
        }
    }

    pub(super) async fn end(&self, known: &KnownCluster) {
        if let Err(error) = act::gone(&self.options.client, &known.name_any()).await {
            tracing::warn!(%error, "a KnownCluster could not be written");
        }
    }

    /// Writes that those which are heard go on, all together and long before their time in the API is over.
    pub(super) async fn renew(&mut self) {
        let now = Timestamp::now();
        let known = self.known.list();
        let left = |known: &KnownCluster| plan::time_left(known, now);
        if !known.iter().filter_map(|known| left(known)).any(|left| left < plan::LISTED / 2) {
            return;
        }
        // Who has a little more is renewed with the first, and several at once: a burst wakes those who watch a few times, not a thousand.
        let mut writes = JoinSet::new();
        for known in known.iter().filter(|known| left(known).is_some_and(|left| left < plan::LISTED * 3 / 4)) {
            let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
            // Whose link has ended has the time that was written then, for those who look at it.
            let ended =
                id.and_then(|id| self.unlinked.get(&id)).is_some_and(|at| at.elapsed() < plan::EXPIRY.unsigned_abs());
            let heard = id.is_some_and(|id| self.present.contains_key(&id.tag()));
            if !heard || ended || known.spec.source != Some(KnownClusterSource::Multicast) {
                continue;
            }
            if writes.len() >= WRITES_AT_ONCE {
                writes.join_next().await;
            }
            let (client, name, source) = (self.options.client.clone(), known.name_any(), known.spec.source);
            writes.spawn(async move {
                if let Err(error) = act::heard(&client, &name, source, plan::LISTED).await {
                    tracing::warn!(%error, name, "a KnownCluster could not be written");
                }
            });
        }
        while writes.join_next().await.is_some() {}
    }

    pub(super) async fn expire(&mut self) {
        let (now, started) = (Timestamp::now(), self.started);
        for known in self.known.list() {
            if known.spec.source != Some(KnownClusterSource::Multicast) && plan::time_left(&known, now).is_none() {
                continue;
            }
            let id = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok());
            let lives =
                id.is_some_and(|id| self.options.links.get(&id).is_some() || self.present.contains_key(&id.tag()));
            let heard = id.and_then(|id| self.unlinked.get(&id).copied()).unwrap_or(started);
            let silent = self.mdns.as_ref().map(|_| heard.elapsed());
            if !lives {
                let left = plan::time_left(&known, now).map(SignedDuration::unsigned_abs);
                let silence = silent.map(|silent| plan::EXPIRY.unsigned_abs().saturating_sub(silent));
                let next = left.into_iter().chain(silence).min().unwrap_or(super::LOOK);
                self.look_at = self.look_at.min(Instant::now() + next);
            }
            if plan::is_expired(&known, lives, silent, now) {
                tracing::info!(name = known.name_any(), "a node was not heard for long: forgotten");
                self.gone.retain(|tag| names::known_cluster(tag) != known.name_any());
                if let Err(error) = act::remove(&self.options.client, &known.name_any()).await {
                    tracing::warn!(%error, "a KnownCluster could not be removed");
                }
            }
        }
        self.unlinked.retain(|_, ended| ended.elapsed() < plan::EXPIRY.unsigned_abs() * 2);
    }

    /// What was seen of a node.
    pub(super) fn rating(&self, id: &NodeId) -> Option<Arc<Rating>> {
        let rating = self.ratings.get(names::NAMESPACE, &names::known_cluster(&id.tag()))?;
        (rating.spec.did == id.to_string()).then_some(rating)
    }

    /// Whether there is a contract with this node.
    pub(super) fn is_bound(&self, did: &str) -> bool {
        let Ok(id) = did.parse::<NodeId>() else { return false };
        let of = |party: &NodeIdentity| party.additional_information.as_ref()?.did.as_deref()?.parse::<NodeId>().ok();
        let is_it =
            |party: &NodeIdentity| of(party).is_some_and(|key| key == id || self.options.speakers.current(&key) == id);
        let contracts = self.contracts.list();
        contracts.iter().any(|c| [&c.spec.buyer, &c.spec.seller].into_iter().any(is_it))
    }
}

/// How a node is named in lists of those that were not taken.
fn who(name: &str, id: &NodeId) -> String {
    format!("{} {id}", name.chars().take(64).collect::<String>())
}
