//! What a sighting changes, as a pure function.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{
    KnownCluster, KnownClusterEndpoints, KnownClusterSource, KnownClusterSpec, KnownClusterTrust, Rating, names,
};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::features::Features;
use crate::policy::Policies;
use crate::{Sighting, Source};

/// Nodes that are kept; on a LAN of strangers more would only cost memory. About 1 KiB each.
pub const KNOWN_MAX: usize = 4096;
/// A node that was announced by multicast and is not heard or linked for so long is forgotten.
pub const EXPIRY: SignedDuration = SignedDuration::from_secs(120);
/// The time that an entry of such a node is given in the API, where it is renewed before half of it is over: for those who read it
/// there, and for a process that starts and has heard nobody yet. The one that hears them forgets after [`EXPIRY`].
pub const LISTED: SignedDuration = SignedDuration::from_secs(3600);
/// Addresses of one node that are tried: two networks, each with both versions of IP.
const ADDRESSES_MAX: usize = 4;
/// Longer names are refused: they become names of Kubernetes nodes.
const NAME_LENGTH_MAX: usize = 63;

/// Who may receive this owner's workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Those that the owner named by address.
    pub known: bool,
    /// Those found on the LAN, too.
    pub lan: bool,
    /// These keys, however they were found.
    pub keys: Vec<NodeId>,
    /// Somebody else writes the `trust` of entries: a new one has none until then, and a sighting does not change it. What
    /// is said here counts only for the least trust that a policy wants of a new one.
    pub decided_elsewhere: bool,
}

impl Trust {
    /// Whether a node that was found so is trusted.
    pub fn covers(&self, id: &NodeId, source: Source) -> bool {
        self.keys.contains(id) || (self.known && source == Source::Static) || (self.lan && source == Source::Multicast)
    }
}

/// What is to be done about a sighting.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// A node that was not known.
    Create(Box<KnownClusterSpec>, String),
    /// It is known, and something is new.
    Change(Box<KnownClusterSpec>, String),
    /// Nothing is new; it was heard again.
    Heard(String),
    /// It is not taken, because.
    Reject(String),
}

/// What a sighting is judged by.
pub struct Rules<'a> {
    /// This node's key.
    pub own: NodeId,
    /// Who may receive workloads.
    pub trust: &'a Trust,
    /// Who becomes a candidate.
    pub policies: &'a Policies,
    /// What was seen of the node that is judged.
    pub rating: Option<&'a Rating>,
}

/// Decides about one sighting. `known` is the entry of this key, if there is one, and `count` how many there are.
pub fn sighting(sighting: &Sighting, known: Option<&KnownCluster>, count: usize, rules: &Rules<'_>) -> Action {
    if sighting.id == rules.own {
        return Action::Reject("it is this node".into());
    }
    if !is_name(&sighting.name) {
        return Action::Reject(format!(
            "its name {:?} is no DNS label of at most {NAME_LENGTH_MAX} characters",
            shown(&sighting.name)
        ));
    }
    if sighting.domain.len() > 253 || sighting.domain.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Action::Reject(format!("its domain {:?} is none", shown(&sighting.domain)));
    }
    let name = names::known_cluster(&sighting.id.tag());
    let did = sighting.id.to_string();
    let Some(known) = known else {
        if count >= KNOWN_MAX {
            return Action::Reject(format!("{KNOWN_MAX} nodes are known already, which is the most"));
        }
        let mut fresh = spec(sighting, sighting.source, rules.trust);
        if let Some(why) = refused(&fresh, rules.policies, rules.rating) {
            return Action::Reject(why);
        }
        if rules.trust.decided_elsewhere {
            fresh.trust = None;
        }
        return Action::Create(Box::new(fresh), name);
    };
    if known.spec.did.as_deref().is_some_and(|of| of != did) {
        return Action::Reject(format!("{} belongs to {}", known.name_any(), known.spec.did.as_deref().unwrap_or("?")));
    }
    let here = matches!(known.spec.source, Some(KnownClusterSource::Static | KnownClusterSource::Multicast));
    if sighting.source == Source::Catalog && here {
        // Nearer sources know it; where a catalog says it is says nothing more, but what it sells does.
        return match &sighting.offers {
            Some(offers) if *offers != known.spec.offers => {
                Action::Change(Box::new(KnownClusterSpec { offers: offers.clone(), ..known.spec.clone() }), name)
            }
            _ => Action::Heard(name),
        };
    }
    // What the owner named stays the owner's word, whoever else has seen the node.
    let source = match known.spec.source {
        Some(KnownClusterSource::Static) => Source::Static,
        Some(KnownClusterSource::Multicast) if sighting.source == Source::Inbound => Source::Multicast,
        Some(KnownClusterSource::Catalog) if sighting.source == Source::Inbound => Source::Catalog,
        _ => sighting.source,
    };
    let mut fresh = spec(sighting, source, rules.trust);
    if rules.trust.decided_elsewhere {
        fresh.trust = known.spec.trust;
    }
    if sighting.source == Source::Inbound && known.spec.source != Some(KnownClusterSource::Inbound) {
        // Where it called from says less than where it is known to listen.
        fresh.address.clone_from(&known.spec.address);
        fresh.endpoints.clone_from(&known.spec.endpoints);
    }
    if sighting.features.is_none() {
        fresh.features.clone_from(&known.spec.features);
    }
    if sighting.offers.is_none() {
        fresh.offers.clone_from(&known.spec.offers);
    }
    if let Some(why) = refused(&fresh, rules.policies, rules.rating) {
        return Action::Reject(why);
    }
    if fresh == known.spec { Action::Heard(name) } else { Action::Change(Box::new(fresh), name) }
}

/// Why policies do not take an entry, or take it no longer.
pub fn refused(spec: &KnownClusterSpec, policies: &Policies, rating: Option<&Rating>) -> Option<String> {
    let (source, trust) = (spec.source?, spec.trust?);
    policies.admit(source, trust, &Features::from_list(&spec.features), rating).err()
}

fn spec(sighting: &Sighting, source: Source, trust: &Trust) -> KnownClusterSpec {
    let texts = |address: SocketAddr| {
        let further = sighting.further.iter().map(|ip| SocketAddr::new(*ip, address.port()));
        std::iter::once(address).chain(further).map(|address| address.to_string()).collect::<Vec<_>>()
    };
    KnownClusterSpec {
        address: sighting.rear.to_string(),
        did: Some(sighting.id.to_string()),
        name: Some(sighting.name.clone()),
        domain: Some(sighting.domain.clone()),
        endpoints: Some(KnownClusterEndpoints {
            rear: texts(sighting.rear),
            link: sighting.link.map(texts).unwrap_or_default(),
        }),
        features: sighting.features.as_ref().map(Features::to_list).unwrap_or_default(),
        offers: sighting.offers.clone().unwrap_or_default(),
        source: Some(match source {
            Source::Static => KnownClusterSource::Static,
            Source::Multicast => KnownClusterSource::Multicast,
            Source::Inbound => KnownClusterSource::Inbound,
            Source::Catalog => KnownClusterSource::Catalog,
        }),
        // That it proves no key is for its owner's buyer to say, by hand.
        plain: false,
        trust: Some(if trust.covers(&sighting.id, source) {
            KnownClusterTrust::Trusted
        } else {
            KnownClusterTrust::Untrusted
        }),
    }
}

/// The addresses of those that a node announced which are tried: those of IPv4 first, as every node listens on it.
pub fn addresses(announced: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    // An address of one cable only (fe80::/10) says nothing without the name of the cable, which no text of ours has.
    let of_one_cable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let mut addresses: Vec<IpAddr> = announced
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast() && !of_one_cable(ip))
        .collect();
    addresses.sort(); // IPv4 sorts first
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// What is left of the time of an entry, negative if it is over; `None`: it has none.
pub fn time_left(known: &KnownCluster, now: Timestamp) -> Option<SignedDuration> {
    let until = known.status.as_ref()?.expiration_time.parse::<Timestamp>().ok()?;
    Some(until.duration_since(now))
}

/// Whether an entry is over at `now`: its time is, or its node was announced by multicast and is silent for [`EXPIRY`]; and neither a link nor
/// an announcement shows that it lives. `silent` is since when; `None` if nobody listens.
pub fn is_expired(known: &KnownCluster, lives: bool, silent: Option<Duration>, now: Timestamp) -> bool {
    let silent = known.spec.source == Some(KnownClusterSource::Multicast)
        && silent.is_some_and(|silent| silent >= EXPIRY.unsigned_abs());
    !lives && (silent || time_left(known, now).is_some_and(|left| left <= SignedDuration::ZERO))
}

fn is_name(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    name.len() <= NAME_LENGTH_MAX
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn shown(text: &str) -> String {
    text.chars().take(NAME_LENGTH_MAX + 1).collect()
}
