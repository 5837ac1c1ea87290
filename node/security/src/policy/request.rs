//! What the decision point is asked: who, does what, with what, under which circumstances. Pure values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use fluidos_model::kinds::{
    AttributeLevel, Flavor, KnownCluster, KnownClusterIdentity, KnownClusterSource, KnownClusterTrust, ProvenFact,
    Rating, names,
};
use fluidos_model::market::{self, Amounts, ExtendedResource, Pool};
use jiff::{Timestamp, tz::TimeZone};
use kube::ResourceExt as _;

/// Decisions of one minute are alike, so that they can be kept.
const MINUTE: i64 = 60;
/// As discovery takes: features of one node.
const FEATURES_MAX: usize = 16;

/// Everything that is decided about. The one list; the schema has the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// See what is sold.
    Discover,
    /// Ask for an offer that is not listed.
    Negotiate,
    /// Have capacity held.
    Reserve,
    /// Sign a contract.
    Buy,
    /// Run its workloads here.
    Offload,
    /// Receive our workloads.
    Receive,
    /// Sell to us though it proves no key and signs nothing: an official node, which the owner has named (`KnownCluster.spec.plain`).
    Acquire,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Discover, Self::Negotiate, Self::Reserve, Self::Buy, Self::Offload, Self::Receive, Self::Acquire];

    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "Discover",
            Self::Negotiate => "Negotiate",
            Self::Reserve => "Reserve",
            Self::Buy => "Buy",
            Self::Offload => "Offload",
            Self::Receive => "Receive",
            Self::Acquire => "Acquire",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|action| action.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|action| action.as_str()).collect();
            format!("{text:?} is no action, needed one of {}", known.join(", "))
        })
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Peer {
    /// The key it proved; `None` is nobody.
    pub did: Option<String>,
    /// What it calls itself. A claim.
    pub name: String,
    /// What its owner calls itself. A claim unless `domain_proven`.
    pub domain: String,
    /// Whether a credential proves the domain, which then is `domain`.
    pub domain_proven: bool,
    /// DID of the owner who vouches for it.
    pub owner: Option<String>,
    /// How it was found.
    pub source: Source,
    /// Whether it may receive our workloads; see [`Peer::of`].
    pub trust: Trust,
    /// Each `key=value`. Claims.
    pub features: BTreeSet<String>,
    /// Types of credentials that were verified, of issuers who are trusted for it.
    pub credentials: BTreeSet<String>,
    /// Each `level key=value`, as `audited region=EU`: at its level and at every lower one.
    pub evidence: BTreeSet<String>,
    /// Why its key counts no more, if it does not: then nothing is permitted.
    pub refused: Option<String>,
    /// The DID under which it was met first, if it has another key now.
    pub origin: Option<String>,
    /// Own experience, 0 to 100.
    pub rating: Option<u8>,
    /// What is behind it, in hundredths.
    pub rating_weight: u64,
}

/// How a peer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // as KnownClusterSource, and two more
pub enum Source {
    Static,
    Multicast,
    Inbound,
    Broker,
    Catalog,
    /// The owner wrote its KnownCluster by hand.
    Manual,
    /// There is no KnownCluster of it.
    #[default]
    Unknown,
}

/// The `trust` of a KnownCluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // as KnownClusterTrust, and none
pub enum Trust {
    Trusted,
    Untrusted,
    #[default]
    Unknown,
}

impl From<Option<KnownClusterTrust>> for Trust {
    fn from(trust: Option<KnownClusterTrust>) -> Self {
        match trust {
            Some(KnownClusterTrust::Trusted) => Self::Trusted,
            Some(KnownClusterTrust::Untrusted) => Self::Untrusted,
            None => Self::Unknown,
        }
    }
}

impl Peer {
    /// What is known of the node with this key. Asked about [`Action::Receive`], `trust` is what the owner wrote by hand:
    /// what follows from the policies must not be their reason. What is proven counts until its time is over.
    pub fn of(
        did: Option<&str>,
        action: Action,
        known: Option<&KnownCluster>,
        rating: Option<&Rating>,
        now: Timestamp,
    ) -> Self {
        let mut peer = Self { did: did.map(str::to_owned), ..Self::default() };
        if let Some(known) = known {
            let spec = &known.spec;
            peer.name = spec.name.clone().unwrap_or_default();
            peer.domain = spec.domain.clone().unwrap_or_default();
            peer.source = match spec.source {
                Some(KnownClusterSource::Static) => Source::Static,
                Some(KnownClusterSource::Multicast) => Source::Multicast,
                Some(KnownClusterSource::Inbound) => Source::Inbound,
                Some(KnownClusterSource::Broker) => Source::Broker,
                Some(KnownClusterSource::Catalog) => Source::Catalog,
                None => Source::Manual,
            };
            peer.trust = if action == Action::Receive { word_of_owner(known) } else { spec.trust.into() };
            peer.features = spec.features.iter().take(FEATURES_MAX).cloned().collect();
            if let Some(identity) = known.status.as_ref().and_then(|status| status.identity.as_ref()) {
                peer.identify(identity, now);
            }
        }
        if let Some(status) = rating.and_then(|rating| rating.status.as_ref()) {
            peer.rating = status.value;
            peer.rating_weight = hundredths(&status.weight);
        }
        peer
    }

    fn identify(&mut self, known: &KnownClusterIdentity, now: Timestamp) {
        let lasts = |until: &str| until.parse::<Timestamp>().is_ok_and(|until| until > now);
        let fact = |fact: &Option<ProvenFact>| fact.as_ref().filter(|fact| lasts(&fact.until)).map(|f| f.value.clone());
        self.origin = known.origin.clone().filter(|origin| Some(origin) != self.did.as_ref());
        if !known.refused.is_empty() {
            self.refused = Some(known.refused.clone());
            return;
        }
        self.owner = fact(&known.owner);
        if let Some(domain) = fact(&known.domain) {
            (self.domain, self.domain_proven) = (domain, true);
        }
        if self.owner.is_some() {
            self.credentials.insert("NodeOwnership".to_owned());
        }
        // The same that intents are judged by.
        for attribute in known.attributes(now) {
            let Some(level) = attribute.level else { continue };
            if level >= AttributeLevel::Audited {
                self.credentials.insert("Feature".to_owned());
            }
            let lower = AttributeLevel::WORDS.into_iter().filter(|(lower, _)| *lower <= level);
            let words = lower.map(|(_, word)| format!("{word} {}={}", attribute.name, attribute.value));
            self.evidence.extend(words);
        }
    }

    /// How it is named in words.
    pub fn shown(&self) -> &str {
        match (&self.did, self.name.as_str()) {
            (None, _) => "who has proven no key",
            (Some(did), "") => did,
            (Some(_), name) => name,
        }
    }
}

/// The `trust` that an owner wrote into a KnownCluster: remembered, or there and not written by us.
pub fn word_of_owner(known: &KnownCluster) -> Trust {
    let annotation = |key: &str| known.annotations().get(key).map(String::as_str);
    match (annotation(names::ANNOTATION_TRUST_OWNER), annotation(names::ANNOTATION_TRUST_POLICY)) {
        (Some("Trusted"), _) => Trust::Trusted,
        (Some("Untrusted"), _) => Trust::Untrusted,
        (None, None) if known.spec.source.is_none() => known.spec.trust.into(),
        _ => Trust::Unknown,
    }
}

fn hundredths(text: &str) -> u64 {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    whole.parse::<u64>().unwrap_or(0).saturating_mul(100).saturating_add(part.parse().unwrap_or(0))
}

/// With what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A flavor with the amounts that are asked for.
    Flavor(Box<Goods>),
    /// A workload of the peer, by its namespace at its owner.
    Workload {
        /// The namespace.
        namespace: String,
    },
    /// This node.
    Node,
}

/// A flavor, as far as policies see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // the attributes of the schema by their names
pub struct Goods {
    pub name: String,
    pub kind: String,
    pub architecture: String,
    pub city: String,
    pub country: String,
    pub amounts: Asked,
    pub price_milli: Option<i64>,
    pub currency: String,
    pub period: String,
}

/// Amounts, within what a policy can count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // the amounts of the schema by their names
pub struct Asked {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub pods: i64,
    pub storage_bytes: i64,
    pub gpu: i64,
    /// Extended resources, those that there are.
    pub extended: BTreeMap<ExtendedResource, i64>,
}

impl From<&Amounts> for Asked {
    fn from(amounts: &Amounts) -> Self {
        // More than 2^63 of anything is as much as a policy can count.
        let count = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        Self {
            cpu_milli: count(amounts.cpu_milli),
            memory_bytes: count(amounts.memory_bytes),
            pods: count(amounts.pods),
            storage_bytes: count(amounts.storage_bytes),
            gpu: count(amounts.get(&market::Resource::GPU)),
            extended: amounts.extended.iter().map(|(name, amount)| (name.clone(), count(amount))).collect(),
        }
    }
}

impl Goods {
    /// A flavor with amounts; without any, with all that it says is left.
    pub fn of(flavor: &Flavor, amounts: Option<&Amounts>) -> Self {
        let (name, spec) = (flavor.name_any(), &flavor.spec);
        let place = spec.location.clone().unwrap_or_default();
        let slice = spec.k8slice().ok();
        let whole = spec.offer(&name).ok().map(|offer| offer.whole);
        Self {
            kind: format!("{:?}", spec.flavor_type.type_identifier),
            architecture: slice.map(|slice| slice.characteristics.architecture).unwrap_or_default(),
            city: place.city,
            country: place.country,
            amounts: amounts.or(whole.as_ref()).map(Asked::from).unwrap_or_default(),
            price_milli: milli(&spec.price.amount),
            currency: spec.price.currency.clone(),
            period: spec.price.period.clone(),
            name,
        }
    }
}

/// A decimal in thousandths, rounded up as a price is; `None` if none is stated.
fn milli(text: &str) -> Option<i64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (kept, rest) = part.split_at(part.len().min(3));
    let thousandths: i64 = format!("{kept:0<3}").parse().ok()?;
    let more = i64::from(rest.bytes().any(|byte| byte != b'0'));
    whole.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(thousandths + more)
}

/// Under which circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Circumstances {
    /// The beginning of a minute, in seconds since 1970.
    pub minute: i64,
    /// What the peer has held or bought besides.
    pub held: Asked,
    /// In how many promises.
    pub held_count: i64,
}

impl Circumstances {
    /// At this time, with nothing held.
    pub fn at(now: Timestamp) -> Self {
        Self { minute: now.as_second().div_euclid(MINUTE) * MINUTE, ..Self::default() }
    }

    /// At this time, with what a buyer has held or bought besides one transaction.
    pub fn of(pool: &Pool, buyer: &str, besides: Option<&str>, now: Timestamp) -> Self {
        let mine = pool.commitments.iter().filter(|known| known.buyer == buyer && !known.is_over(now));
        let mine: Vec<_> = mine.filter(|known| Some(known.transaction.as_str()) != besides).cloned().collect();
        let held_count = i64::try_from(mine.len()).unwrap_or(i64::MAX);
        let held = Pool { commitments: mine, ..pool.clone() }.promised(now);
        // A sum that cannot be counted is more than anything.
        let all = Amounts { cpu_milli: u64::MAX, memory_bytes: u64::MAX, pods: u64::MAX, ..Amounts::default() };
        Self { held: Asked::from(&held.unwrap_or(all)), held_count, ..Self::at(now) }
    }

    /// Hour (0–23) and day of the week (1 is Monday) in UTC.
    pub(super) fn hour_and_weekday(&self) -> (i64, i64) {
        let Ok(time) = Timestamp::from_second(self.minute) else { return (0, 1) };
        let time = time.to_zoned(TimeZone::UTC);
        (i64::from(time.hour()), i64::from(time.weekday().to_monday_one_offset()))
    }
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// What.
    pub action: Action,
    /// Who.
    pub peer: Peer,
    /// With what.
    pub resource: Resource,
    /// When, and so on.
    pub context: Circumstances,
}
