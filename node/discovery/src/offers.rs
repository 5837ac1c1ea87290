//! What nodes sell, in short: from catalogs and from what Solvers were told into the peering candidates database, and of this node into
//! catalogs. Pure.
//!
//! ```text
//! catalog: Announcement.offers ─┐
//!                               ├─▶ KnownCluster.spec.offers       what REAR has told counts more
//! PeeringCandidates (REAR) ─────┘
//! what REAR tells an unknown buyer ─▶ Announcement.offers of this node
//! ```

use std::collections::BTreeMap;

use fluidos_catalog as catalog;
use fluidos_identity::NodeId;
use fluidos_model::kinds::{KnownClusterOffer, OFFERS_OF_NODE_MAX, PeeringCandidate};

/// Who told us, of what REAR has.
pub const FROM_REAR: &str = "rear";
/// What offers may take of a statement; the rest is for names, addresses and features.
const BYTES_MAX: usize = catalog::STATEMENT_BYTES_MAX - 2048;

/// What an announcement of `from` says, as far as it is no word of control.
pub fn of_catalog(offers: &[catalog::Offer], from: &str) -> Vec<KnownClusterOffer> {
    let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let offer = |offer: &catalog::Offer| KnownClusterOffer {
        name: plain(&offer.name),
        type_: plain(&offer.type_),
        amounts: offer.amounts.iter().map(|(key, value)| (plain(key), plain(value))).collect(),
        price: plain(&offer.price),
        billing: plain(&offer.billing),
        location: plain(&offer.location),
        from: from.to_owned(),
    };
    offers.iter().take(OFFERS_OF_NODE_MAX).map(offer).collect()
}

/// What is announced of these: the first that have room.
pub fn to_catalog(offers: &[KnownClusterOffer]) -> Vec<catalog::Offer> {
    let mut left = BYTES_MAX;
    let mut told = Vec::new();
    for offer in offers.iter().take(catalog::OFFERS_MAX) {
        let offer = catalog::Offer {
            type_: offer.type_.clone(),
            name: offer.name.clone(),
            amounts: offer.amounts.clone(),
            price: offer.price.clone(),
            billing: offer.billing.clone(),
            location: offer.location.clone(),
        };
        let size = serde_json::to_vec(&offer).map_or(usize::MAX, |bytes| bytes.len() + 1);
        let Some(rest) = left.checked_sub(size) else { break };
        left = rest;
        told.push(offer);
    }
    told
}

/// What sellers have told Solvers of this node, by seller.
pub fn of_candidates<'a>(
    candidates: impl IntoIterator<Item = &'a PeeringCandidate>,
) -> BTreeMap<NodeId, Vec<KnownClusterOffer>> {
    let mut told: BTreeMap<NodeId, BTreeMap<&str, KnownClusterOffer>> = BTreeMap::new();
    for candidate in candidates {
        let Some(seller) = candidate.spec.seller_did.as_deref().and_then(|did| did.parse::<NodeId>().ok()) else {
            continue;
        };
        // What is sold on was offered for one need, for a minute: it is not what the node sells.
        let said = &candidate.spec.flavor.spec.flavor_type.type_data;
        if said.pointer("/policies/conditions/resold") == Some(&serde_json::Value::Bool(true)) {
            continue;
        }
        let (flavor, spec) = (&candidate.spec.flavor.metadata.name, &candidate.spec.flavor.spec);
        let place = spec.location.clone().unwrap_or_default();
        let (type_, data) = (&spec.flavor_type.type_identifier, &spec.flavor_type.type_data);
        let offer = KnownClusterOffer {
            from: FROM_REAR.to_owned(),
            ..KnownClusterOffer::of_flavor(
                flavor,
                &format!("{type_:?}"),
                data,
                &spec.price,
                &location(&place.city, &place.country),
            )
        };
        // Several Solvers may have been told of the same.
        told.entry(seller).or_default().insert(flavor, offer);
    }
    let bounded = |offers: BTreeMap<&str, KnownClusterOffer>| offers.into_values().take(OFFERS_OF_NODE_MAX).collect();
    told.into_iter().map(|(seller, offers)| (seller, bounded(offers))).collect()
}

/// A place in words; empty: not told.
pub fn location(city: &str, country: &str) -> String {
    [city, country].into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", ")
}
