//! DiscoveryPolicies: what is announced, who is dropped, and what is told about it.

use std::collections::BTreeMap;
use std::time::Instant;

use fluidos_model::kinds::{DiscoveryPolicyStatus, KnownClusterSource, MulticastState, MulticastStatus, names};
use jiff::Timestamp;
use kube::ResourceExt;

use super::Manager;
use crate::catalog::Told;
use crate::mdns::Announcement;
use crate::policy::{self, Policies};
use crate::{ATTRIBUTE_FEATURES, Features, act, plan, words};

impl Manager {
    /// Announces what policies let be told, and tells what is wrong with a policy.
    pub(super) async fn obey(&mut self) {
        let objects = self.rules.list();
        self.policies = Policies::new(objects.iter().map(|policy| &**policy));
        let (told, wrong) = self.policies.told(&self.options.features);
        if let Err(error) = self.options.links.set_attribute(ATTRIBUTE_FEATURES, &told.to_string()) {
            tracing::warn!(%error, "features cannot be told on links");
        }
        let announce = self.policies.announces(KnownClusterSource::Catalog);
        let offers = if self.policies.tells_offers() { self.options.offers.borrow().clone() } else { Vec::new() };
        self.told.send_if_modified(|now| {
            let fresh = Told { announce, features: told.clone(), offers, ..now.clone() };
            let changed = *now != fresh;
            *now = fresh;
            changed
        });
        self.speak();
        self.announce(told);
        for policy in objects.iter().filter(|policy| policy.name_any() != names::DISCOVERY_POLICY) {
            let message = policy::fault(&policy.spec).or_else(|| wrong.clone()).unwrap_or_default();
            if policy.status.as_ref().is_none_or(|status| status.message != message) {
                let status = DiscoveryPolicyStatus { message, ..Default::default() };
                self.write(&policy.name_any(), &status).await;
            }
        }
        let is_there = objects.iter().any(|policy| policy.name_any() == names::DISCOVERY_POLICY);
        if !is_there && let Err(error) = act::default_policy(&self.options.client).await {
            tracing::warn!(%error, "the DiscoveryPolicy default could not be made");
        }
    }

    /// What is said of others in catalogs, and about whom others are heard there: from the next look on.
    pub(super) fn speak(&self) {
        let ratings = self.ratings.list();
        let opinions = if self.policies.tells_opinions() {
            words::own(ratings.iter().map(AsRef::as_ref), Timestamp::now())
        } else {
            BTreeMap::new()
        };
        let known = self.known.list();
        let sells = known.iter().filter(|known| {
            !known.spec.offers.is_empty() || known.spec.features.iter().any(|feature| feature.starts_with("sells="))
        });
        let subjects = sells.filter_map(|known| known.spec.did.as_deref()?.parse().ok()).collect();
        self.told.send_if_modified(|now| {
            (now.opinions, now.subjects) = (opinions, subjects);
            false
        });
    }

    pub(super) fn announce(&mut self, told: Features) {
        let Some(mdns) = &mut self.mdns else { return };
        let wanted = (self.policies.announces(KnownClusterSource::Multicast), told);
        if self.announced.as_ref() == Some(&wanted) {
            return;
        }
        let announcement = Announcement {
            key: &self.options.key,
            name: &self.options.name,
            domain: &self.options.domain,
            rear_port: self.options.rear_port,
            link_port: self.options.link_port,
            features: &wanted.1,
        };
        match mdns.announce(wanted.0.then_some(&announcement)) {
            Ok(()) => self.announced = Some(wanted),
            Err(error) => tracing::warn!(%error, "this node cannot be announced"),
        }
    }

    /// Drops candidates that policies take no longer. A party of a contract stays until that ends.
    pub(super) async fn refilter(&mut self) {
        for known in self.known.list() {
            let did = known.spec.did.clone().unwrap_or_default();
            let rating = did.parse().ok().and_then(|id| self.rating(&id));
            let refused = plan::refused(&known.spec, &self.policies, rating.as_deref());
            let Some(why) = refused.filter(|_| !self.is_bound(&did)) else { continue };
            let name = known.spec.name.clone().unwrap_or_default();
            self.handle.reject(&format!("{name} {did}"), &why, Timestamp::now());
            if let Err(error) = act::remove(&self.options.client, &known.name_any()).await {
                tracing::warn!(%error, "a KnownCluster could not be removed");
            }
        }
    }

    /// Writes what discovery sees, if it has changed.
    pub(super) async fn tell(&mut self) {
        let state = match (&self.mdns, &self.announced) {
            (None, _) => MulticastState::Off,
            (Some(_), Some((true, _))) => MulticastState::Announcing,
            (Some(_), _) => MulticastState::Listening,
        };
        let objects = self.rules.list();
        let Some(policy) = objects.iter().find(|policy| policy.name_any() == names::DISCOVERY_POLICY) else { return };
        let known = policy.status.as_ref().and_then(|status| status.multicast.as_ref()).map(|m| m.state);
        if !self.handle.is_due(Instant::now()) && known == Some(state) {
            return;
        }
        let (_, wrong) = self.policies.told(&self.options.features);
        let status = DiscoveryPolicyStatus {
            message: policy::fault(&policy.spec).or(wrong).unwrap_or_default(),
            multicast: Some(MulticastStatus { state, heard: self.handle.heard() }),
            rejected: self.handle.rejected(),
        };
        self.write(names::DISCOVERY_POLICY, &status).await;
    }

    pub(super) async fn write(&self, policy: &str, status: &DiscoveryPolicyStatus) {
        if let Err(error) = act::policy_status(&self.options.client, policy, status).await {
            tracing::warn!(%error, policy, "the status of a DiscoveryPolicy could not be written");
        }
    }
}
