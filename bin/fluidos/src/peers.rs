//! `fluidos peers`: the peering candidates, and those that were not taken.

use anyhow::{Context, Result};
use fluidos_model::kinds::{
    AttributeLevel, DiscoveryPolicy, DiscoveryPolicyStatus, KnownCluster, LinkState, MulticastState, Rating, names,
};
use fluidos_model::rating;
use kube::Api;
use kube::api::ListParams;

use crate::connection::{Connection, with};
use crate::look::{self, Look, Table, known, option};

/// What to look at.
#[derive(clap::Args, Clone, Debug)]
pub struct Peers {
    #[command(flatten)]
    look: Look,
    /// Those that were not taken, and why.
    #[arg(long)]
    rejected: bool,
}

/// Does what the verb says.
pub fn run(connection: &Connection, peers: &Peers) -> Result<()> {
    with(async {
        let client = connection.client().await?;
        let namespace = connection.namespace_or(names::NAMESPACE);
        // What discovery says of itself is not there on a node that has just started; the lists are.
        let policies = Api::<DiscoveryPolicy>::namespaced(client.clone(), namespace);
        let policy = policies.get_opt(names::DISCOVERY_POLICY).await.context("get discoverypolicies/default")?;
        let seen = policy.and_then(|policy| policy.status).unwrap_or_default();
        if peers.rejected {
            return look::show_values(&peers.look, &seen.rejected, || rejected(&seen));
        }
        let objects = Api::<KnownCluster>::namespaced(client.clone(), namespace).list(&ListParams::default()).await;
        let objects = objects.with_context(|| format!("list knownclusters in namespace {namespace}"))?.items;
        let ratings = Api::<Rating>::namespaced(client, namespace).list(&ListParams::default()).await;
        let ratings = ratings.with_context(|| format!("list ratings in namespace {namespace}"))?.items;
        look::show(&peers.look, "knownclusters", &objects, |objects| table(objects, &ratings, &seen))
    })
}

fn table(objects: &[KnownCluster], ratings: &[Rating], seen: &DiscoveryPolicyStatus) -> Table {
    let rated = |did: Option<&str>| {
        let rating = ratings.iter().find(|rating| Some(rating.spec.did.as_str()) == did);
        rating::shown(rating.and_then(|rating| rating.status.as_ref()?.value))
    };
    let rows = objects.iter().map(|peer| {
        let link = peer.status.as_ref().and_then(|s| s.link.as_ref());
        let state = match link.map(|l| l.state) {
            Some(LinkState::Up) => "up",
            Some(LinkState::Down) => "down",
            Some(LinkState::Dialing) => "dialing",
            // An official node has none.
            None if peer.spec.plain => "plain",
            None => "?",
        };
        let latency = link.filter(|l| l.state == LinkState::Up).and_then(|l| l.round_trip_micros);
        vec![
            option(peer.spec.name.as_deref()),
            option(peer.spec.domain.as_deref()),
            state.into(),
            latency.map_or("?".into(), |micros| format!("{:.1}ms", micros as f64 / 1000.0)),
            peer.spec.trust.map_or("?".into(), |t| format!("{t:?}").to_lowercase()),
            peer.spec.source.map_or("?".into(), |s| format!("{s:?}").to_lowercase()),
            rated(peer.spec.did.as_deref()),
            known(&peer.spec.address),
            owner(peer),
            evidence(peer),
            known(&peer.spec.features.join(",")),
            sells(peer),
            option(peer.spec.did.as_deref()),
            link.map_or_else(String::new, |l| l.message.clone()),
        ]
    });
    Table {
        heading: &[
            "NAME", "DOMAIN", "LINK", "LATENCY", "TRUST", "SOURCE", "RATING", "ADDRESS", "OWNER", "EVIDENCE",
            "FEATURES", "SELLS", "DID", "MESSAGE",
        ],
        narrow: 8,
        rows: rows.collect(),
        empty: why_nobody(seen),
    }
}

/// Who vouches for it, with the domain that is proven.
fn owner(peer: &KnownCluster) -> String {
    let Some(identity) = peer.status.as_ref().and_then(|status| status.identity.as_ref()) else { return "?".into() };
    if !identity.refused.is_empty() {
        return format!("refused: {}", identity.refused);
    }
    match (&identity.owner, &identity.domain) {
        (Some(owner), Some(domain)) => format!("{} {}", domain.value, owner.value),
        (Some(owner), None) => owner.value.clone(),
        (None, _) => "?".into(),
    }
}

/// How well its attributes are known, each with its level.
fn evidence(peer: &KnownCluster) -> String {
    let identity = peer.status.as_ref().and_then(|status| status.identity.as_ref());
    let words = identity.into_iter().flat_map(|identity| &identity.evidence).map(|attribute| {
        let level = attribute.level.map_or("refuted", AttributeLevel::word);
        format!("{}={}:{level}", attribute.name, attribute.value)
    });
    known(&words.collect::<Vec<_>>().join(","))
}

/// What it says it sells, each with its price and billing model; the amounts: `fluidos offers --peers`.
fn sells(peer: &KnownCluster) -> String {
    let words = peer.spec.offers.iter().map(|offer| {
        let what = if offer.name.is_empty() { &offer.type_ } else { &offer.name };
        format!("{what} {} {}", known(&offer.price), offer.billing).trim_end().to_owned()
    });
    known(&words.collect::<Vec<_>>().join(","))
}

fn rejected(seen: &DiscoveryPolicyStatus) -> Table {
    let rows = seen.rejected.iter().map(|r| vec![r.peer.clone(), r.reason.clone(), r.at.clone()]);
    Table {
        heading: &["PEER", "REASON", "LAST SEEN"],
        narrow: 3,
        rows: rows.collect(),
        empty: "Nobody was rejected.".into(),
    }
}

/// Why there is nobody, from what discovery has seen; what it cannot know is said as a possibility.
fn why_nobody(seen: &DiscoveryPolicyStatus) -> String {
    let mut lines = vec!["No peers are known.".to_owned()];
    if !seen.rejected.is_empty() {
        lines.push(format!("  {} were seen and not taken; see: fluidos peers --rejected", seen.rejected.len()));
    }
    match seen.multicast.as_ref() {
        Some(multicast) if multicast.state == MulticastState::Off => {
            lines.push(
                "  Multicast DNS is off (--no-mdns): only those are found that --peer names, or that call.".into(),
            );
        }
        Some(multicast) if multicast.heard == 0 => lines.extend([
            "  Nobody was heard by multicast DNS. Possible reasons: nobody else runs on this LAN; the access point or"
                .into(),
            "  switch blocks multicast or isolates its clients; a firewall blocks UDP port 5353.".into(),
        ]),
        Some(multicast) => lines.push(format!(
            "  {} were heard by multicast DNS. They are gone, or their --rear port (UDP) is blocked by a firewall.",
            multicast.heard
        )),
        None => lines.push("  Discovery has not reported yet: ask again in some seconds.".into()),
    }
    lines.push("  To name one: fluidos up --peer ADDR:PORT, with the address of its --rear.".into());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use fluidos_model::kinds::{KnownClusterOffer, KnownClusterSpec, MulticastStatus, RejectedPeer};

    use super::*;

    #[test]
    fn what_is_not_known_is_never_0() {
        let peer = KnownCluster::new("k", Default::default());
        let table = table(&[peer], &[], &Default::default());
        assert_eq!(table.rows[0].len(), table.heading.len(), "a cell for each column");
        assert_eq!(table.rows[0][..13], ["?"; 13].map(str::to_owned));
        let offer =
            |price: &str| KnownClusterOffer { type_: "K8Slice".into(), price: price.into(), ..Default::default() };
        let offers = vec![offer("2 EUR/hour"), KnownClusterOffer { billing: "spot".into(), ..offer("") }];
        let peer = KnownCluster::new("k", KnownClusterSpec { offers, ..Default::default() });
        assert_eq!(sells(&peer), "K8Slice 2 EUR/hour,K8Slice ? spot");
    }

    #[test]
    fn nobody_has_a_reason() {
        let multicast = |state, heard| Some(MulticastStatus { state, heard });
        let seen = |multicast| DiscoveryPolicyStatus { multicast, ..Default::default() };
        assert!(why_nobody(&seen(None)).contains("not reported yet"));
        assert!(why_nobody(&seen(multicast(MulticastState::Off, 0))).contains("--no-mdns"));
        assert!(why_nobody(&seen(multicast(MulticastState::Announcing, 0))).contains("access point"));
        let mut refused = seen(multicast(MulticastState::Announcing, 2));
        refused.rejected = vec![RejectedPeer { peer: "p".into(), reason: "r".into(), at: "t".into() }];
        let told = why_nobody(&refused);
        assert!(told.contains("1 were seen and not taken") && told.contains("2 were heard"), "{told}");
    }
}
