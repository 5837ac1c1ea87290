//! The view of the importer: what it looks at, and what it remembers of each search. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use fluidos_identity::NodeId;
use fluidos_model::intent::{self, Attribute, Evidence};
use fluidos_model::kinds::{
    Allocation, Configuration, Contract, EmbeddedFlavor, KnownCluster, KnownClusterTrust, Phase, Rating, Reservation,
    Solver, SolverContract, names,
};
use fluidos_model::market::{Amounts, Expense, PARTS_MAX, Price, Purchase, may_buy};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::PAUSE;
use super::act::{Done, Error, Unsold};
use super::purse::Purse;
use crate::{bounded, terms};

/// After the first time that a candidate did not answer; doubled each time, up to 32 s: a Solver has five minutes.
const AWAY_FIRST: std::time::Duration = std::time::Duration::from_secs(1);
const AWAY_DOUBLINGS_MAX: u32 = 6;
/// Caches follow within milliseconds; a contract that ends at once may never be seen.
const SETTLING_MOST: std::time::Duration = std::time::Duration::from_secs(10);
/// Peers of one search, as many as a node knows at most.
const PEERS_MAX: usize = 4096;
/// Asked at the same time where no policy says it.
pub(super) const SHORTLIST: usize = 64;
/// Of a digest: 32 bits for the few places that an owner names.
const PLACE_BYTES: usize = 4;
/// Candidates of one search: all are written into one object.
pub(super) const CANDIDATES_MAX: usize = 64;
/// Refusals of one search that are told: a message is cut anyway.
const REFUSALS_MAX: usize = 256;

/// What is looked at.
pub(super) struct View<'a> {
    pub solvers: Vec<&'a Solver>,
    pub reservations: BTreeMap<String, Arc<Reservation>>,
    pub contracts: BTreeMap<String, Arc<Contract>>,
    pub allocations: BTreeMap<String, Arc<Allocation>>,
    /// Who may be asked.
    pub peers: Vec<Peer>,
    /// What may be paid.
    pub purse: Purse,
    pub searches: &'a Searches,
}

/// A node that may be asked: trusted, and not this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// What to call it.
    pub name: String,
    /// Where its REAR answers.
    pub address: SocketAddr,
    /// The key it must prove, if that is known.
    pub did: Option<NodeId>,
    /// Measured round trip.
    pub latency_micros: Option<u64>,
    /// What was seen of it, from 0 to 100; `None` is nothing yet.
    pub rating: Option<u8>,
    /// It is an official node that the owner has named as such: it proves no key, over plain HTTP.
    pub plain: bool,
    /// How well this node knows what it is; `None`: they have not introduced themselves to each other yet.
    pub evidence: Option<Arc<[Attribute]>>,
}

impl Peer {
    /// How well it is known what a place of this peer is.
    pub fn known(&self) -> Evidence {
        Evidence::Of(self.evidence.iter().flat_map(|known| known.iter().cloned()).collect())
    }
}

/// Who sells: the key that it has proven, or for official nodes, which have none, the place where its owner's buyer has named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SellerId {
    /// It has proven this key.
    Proven(NodeId),
    /// Whoever answers there.
    Plain(SocketAddr),
}

impl From<NodeId> for SellerId {
    fn from(key: NodeId) -> Self {
        Self::Proven(key)
    }
}

impl SellerId {
    /// The key that it has proven.
    pub fn key(self) -> Option<NodeId> {
        match self {
            Self::Proven(key) => Some(key),
            Self::Plain(_) => None,
        }
    }

    /// The same as text.
    pub fn did(self) -> Option<String> {
        self.key().map(|key| key.to_string())
    }

    /// A short word that goes into names of objects, other for each seller.
    pub fn tag(self) -> String {
        match self {
            Self::Proven(key) => key.tag(),
            Self::Plain(place) => {
                let digest = Sha256::digest(place.to_string());
                let hex: String = digest.iter().take(PLACE_BYTES).map(|byte| format!("{byte:02x}")).collect();
                format!("plain-{hex}")
            }
        }
    }
}

/// Something that can be bought.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offered {
    /// Name of its PeeringCandidate.
    pub candidate: String,
    /// What to call the seller.
    pub peer: String,
    pub address: SocketAddr,
    pub seller: SellerId,
    pub flavor: EmbeddedFlavor,
    /// What would be bought.
    pub buys: Amounts,
    /// For what; `None` is not stated.
    pub price: Option<Price>,
    /// Measured round trip.
    pub latency_micros: Option<u64>,
    /// What was seen of the seller.
    pub rating: Option<u8>,
    /// For how long it is to be bought; `None` is as long as it is sold.
    pub term_seconds: Option<u64>,
    /// Why it stands where it does, in words.
    pub why: String,
    /// What is configured of a service; `None` is a slice of what it buys.
    pub configuration: Option<Configuration>,
}

/// Something of which a part can be bought.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// So many units at most.
    pub units: u64,
    /// What they buy.
    pub offered: Offered,
}

/// Why a peer is out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub peer: String,
    /// `list`, `reserve`, `purchase`, …
    pub step: &'static str,
    /// The rule with what was observed and needed.
    pub reason: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.peer, self.step, self.reason)
    }
}

/// What asking everybody has brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Findings {
    /// Best first.
    pub offered: Vec<Offered>,
    /// What has not all of it, if parts are wanted. Best first.
    pub parts: Vec<Part>,
    /// Who answered and is out.
    pub refused: Vec<Refused>,
    /// Who did not answer, or of whom something is not known yet.
    pub pending: Vec<Refused>,
    /// Somebody may offer something in a moment: who is pending, or who offers nothing at all.
    pub open: bool,
}

/// A candidate that did not answer when it was to sell, or asked to come later.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Away {
    pub why: Refused,
    /// How often in a row.
    pub failures: u32,
    /// Not asked again before.
    pub until: Timestamp,
}

impl Findings {
    /// All that something can be bought of: what is begun is gone on with by what is written of them.
    pub fn candidates(&self) -> impl Iterator<Item = &Offered> {
        self.offered.iter().chain(self.parts.iter().map(|part| &part.offered))
    }

    /// Returns these findings with those of the next shortlist, whose candidates come after them.
    pub fn and(mut self, next: Self) -> Self {
        self.offered.extend(next.offered);
        self.offered.truncate(CANDIDATES_MAX);
        self.parts.extend(next.parts);
        self.parts.truncate(CANDIDATES_MAX - self.offered.len());
        self.refused.extend(next.refused);
        self.refused.truncate(REFUSALS_MAX);
        self.pending.extend(next.pending);
        self.pending.truncate(REFUSALS_MAX);
        self.open |= next.open;
        self
    }
}

/// What is remembered of the search of one Solver. After a restart it is asked again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Search {
    /// When and whom, since the search last began with the first shortlist.
    pub asked: Option<(Timestamp, Vec<Peer>)>,
    pub findings: Findings,
    /// Candidates that were tried and not sold, by their names.
    pub tried: BTreeMap<String, Refused>,
    /// Candidates that are away, by their names.
    pub away: BTreeMap<String, Away>,
    /// Transactions that came to nothing.
    pub ended: BTreeSet<String>,
    /// Peers that have refused what they offer.
    pub refusers: BTreeSet<String>,
    /// When the last peer refused.
    pub last_refusal: Option<Timestamp>,
    /// The contracts that were bought.
    pub bought: Vec<String>,
    /// The Solver as it was before this process wrote it, which a cache may still show.
    pub outdated: Option<String>,
    /// Nothing is done before.
    pub not_before: Option<Timestamp>,
    /// Something is being bought at a price.
    pub paying: bool,
    /// What was bought at a price and does not stand among the contracts yet; so long it is waited for.
    pub settling: Option<(Vec<String>, Timestamp)>,
}

/// All searches, by uid of the Solver.
#[derive(Debug, Default)]
pub(super) struct Searches(BTreeMap<String, Search>);

impl Searches {
    pub fn get(&self, uid: &str) -> Option<&Search> {
        self.0.get(uid)
    }

    /// Something is bought at a price for this Solver from now on.
    pub fn pays(&mut self, uid: &str) {
        self.0.entry(uid.to_owned()).or_default().paying = true;
    }

    /// What stands among the contracts is counted there.
    pub fn settle(&mut self, contracts: &BTreeMap<String, Arc<Contract>>, now: Timestamp) {
        for search in self.0.values_mut() {
            let there = |bought: &[String]| bought.iter().all(|contract| contracts.contains_key(contract));
            search.settling.take_if(|(bought, until)| *until <= now || there(bought));
        }
    }

    /// Says whether something that is paid for is not counted yet.
    pub fn is_paying(&self) -> bool {
        self.0.values().any(|search| search.paying || search.settling.is_some())
    }

    #[cfg(test)]
    pub fn insert(&mut self, uid: &str, search: Search) {
        self.0.insert(uid.into(), search);
    }

    /// Forgets searches of Solvers that are gone.
    pub fn keep<'a>(&mut self, uids: impl Iterator<Item = &'a str>) {
        let uids: BTreeSet<&str> = uids.collect();
        self.0.retain(|uid, _| uids.contains(uid.as_str()));
    }

    /// Remembers what came of an action.
    pub fn done(&mut self, uid: &str, done: Result<Done, Error>, now: Timestamp) {
        let search = self.0.entry(uid.to_owned()).or_default();
        search.not_before = None;
        let paid = std::mem::take(&mut search.paying);
        match done {
            Ok(Done::Asked { peers, findings }) => {
                // The same peer again with a newer figure is no new refusal, or it would be waited for ever.
                for refused in &findings.refused {
                    if search.refusers.insert(refused.peer.clone()) {
                        search.last_refusal = Some(now);
                    }
                }
                search.asked = Some((now, peers));
                search.findings = findings;
            }
            Ok(Done::Bought { contracts }) => {
                let until = terms::shifted(now, SETTLING_MOST, 1).filter(|_| paid);
                search.settling = until.map(|until| (contracts.clone(), until));
                search.bought = contracts;
            }
            Ok(Done::Unsold(lots)) => lots.into_iter().for_each(|lot| search.unsold(lot, now)),
            Ok(Done::Wrote { outdated }) => search.outdated = outdated,
            Ok(Done::Nothing) => {}
            Err(error) => {
                tracing::debug!(%error, "work on a Solver is tried again");
                search.not_before = terms::shifted(now, PAUSE, 1);
            }
        }
    }
}

impl Search {
    fn unsold(&mut self, lot: Unsold, now: Timestamp) {
        self.ended.extend(lot.transaction);
        match lot.why {
            Some((refused, false)) => {
                self.last_refusal = Some(now);
                self.tried.insert(lot.candidate, refused);
            }
            Some((why, true)) => {
                let failures = self.away.get(&lot.candidate).map_or(0, |away| away.failures).saturating_add(1);
                let pause = AWAY_FIRST * 2u32.pow(failures.min(AWAY_DOUBLINGS_MAX) - 1);
                let until = terms::shifted(now, pause, 1).unwrap_or(now);
                self.away.insert(lot.candidate, Away { why, failures, until });
            }
            None => {}
        }
    }

    /// Says whether a candidate may be bought from now: it has not refused, and is not away.
    pub fn may_try(&self, candidate: &str, now: Timestamp) -> bool {
        !self.tried.contains_key(candidate) && self.away.get(candidate).is_none_or(|away| away.until <= now)
    }

    /// When the next candidate that is away is asked again.
    pub fn back(&self, now: Timestamp) -> Option<Timestamp> {
        self.away.values().map(|away| away.until).filter(|until| *until > now).min()
    }
}

/// Returns who may be asked, by name, each with what was seen of it.
pub(crate) fn peers<'a>(
    known: impl Iterator<Item = &'a KnownCluster>,
    ratings: &BTreeMap<String, u8>,
    own: NodeId,
    now: Timestamp,
) -> Vec<Peer> {
    let peers = known.filter_map(|known| peer(known, own, now));
    let rated = peers.map(|peer| {
        let rating = peer.did.and_then(|did| ratings.get(&did.to_string()).copied());
        Peer { rating, ..peer }
    });
    rated.take(PEERS_MAX).collect()
}

/// The values of what was seen of peers, by DID.
pub(crate) fn ratings<'a>(ratings: impl Iterator<Item = &'a Rating>) -> BTreeMap<String, u8> {
    ratings.filter_map(|rating| Some((rating.spec.did.clone(), rating.status.as_ref()?.judged()?))).collect()
}

fn peer(known: &KnownCluster, own: NodeId, now: Timestamp) -> Option<Peer> {
    let (spec, status) = (&known.spec, known.status.as_ref());
    // An official node receives no workload, so it needs no trust; whether it is bought from is decided for each purchase. One of which a key
    // is known is no official node, and has to prove it.
    let asked = if spec.plain { spec.did.is_none() } else { spec.trust == Some(KnownClusterTrust::Trusted) };
    if !asked || known.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let expires = status.and_then(|status| status.expiration_time.parse::<Timestamp>().ok());
    if expires.is_some_and(|expires| expires <= now) {
        return None;
    }
    // A DID that cannot be read could not be proven: nobody is asked in its name.
    let did = spec.did.as_ref().map(|did| did.parse::<NodeId>()).transpose().ok()?;
    if did == Some(own) {
        return None;
    }
    let name = spec.name.as_ref().or(known.metadata.name.as_ref())?;
    let link = status.and_then(|status| status.link.as_ref());
    // What was shown is of a key: without one nobody knows whose it is.
    let identity = status.and_then(|status| status.identity.as_ref()).filter(|_| did.is_some());
    let evidence = identity.map(|identity| intent::known(identity, now).collect());
    Some(Peer {
        name: bounded(name, 63),
        address: spec.address.parse().ok()?,
        did,
        latency_micros: link.and_then(|link| link.round_trip_micros),
        rating: None,
        plain: spec.plain,
        evidence,
    })
}

impl Offered {
    /// What is owed for it; `None` is not known. A contract that nobody signs and that states no price owes nothing.
    pub fn owes(&self) -> Option<Price> {
        match self.seller {
            SellerId::Plain(_) => self.price.or(Some(Price::ZERO)),
            SellerId::Proven(_) => self.price,
        }
    }
}

impl View<'_> {
    /// Says whether this may be bought for a Solver now, beside what else is to be bought with it, or why not.
    pub fn may_buy(
        &self,
        solver: &Solver,
        offered: &Offered,
        beside: &[&Offered],
        now: Timestamp,
    ) -> Result<(), Refused> {
        let annotations = solver.metadata.annotations.as_ref();
        let namespace = annotations.and_then(|all| all.get(names::ANNOTATION_NAMESPACE)).map(String::as_str);
        let purchase = Purchase { price: offered.owes(), namespace };
        let expense = |offered: &&Offered| {
            let (price, namespace) = (offered.price?, namespace.map(str::to_owned));
            Some(Expense { price, from: now, until: None, namespace })
        };
        let beside: Vec<Expense> = beside.iter().filter_map(expense).collect();
        let policy = self.purse.policy.as_ref();
        let decided = if beside.is_empty() {
            may_buy(policy, &purchase, &self.purse.expenses, now)
        } else {
            may_buy(policy, &purchase, &[self.purse.expenses.as_slice(), &beside].concat(), now)
        };
        decided.map_err(|refusal| Refused { peer: offered.peer.clone(), step: "buy", reason: refusal.to_string() })
    }

    /// The reservation of a Solver, if it is this Solver's and not that of an earlier one of its name.
    pub fn reservation(&self, solver: &Solver) -> Option<&Reservation> {
        let name = names::reservation(solver.metadata.name.as_deref()?);
        let reservation = self.reservations.get(&name)?;
        let owners = reservation.metadata.owner_references.as_ref()?;
        owners.iter().any(|owner| Some(&owner.uid) == solver.metadata.uid.as_ref()).then_some(reservation.as_ref())
    }

    /// What stands in the reservations of a Solver, of all its parts, once all of them are bought: contract, seller, why it was chosen.
    pub fn bought(&self, solver: &Solver) -> Vec<SolverContract> {
        let Some(first) = self.reservation(solver) else { return Vec::new() };
        let solved = first.status.as_ref().is_some_and(|status| status.phase.phase == Phase::Solved);
        let (name, part) = (solver.metadata.name.clone().unwrap_or_default(), first.spec.part.as_ref());
        let others = (2..=part.filter(|_| solved).map_or(0, |part| part.of)).take(PARTS_MAX - 1);
        let others = others.filter_map(|number| self.reservations.get(&names::reservation_part(&name, number)));
        let all = std::iter::once(first).filter(|_| solved).chain(others.map(AsRef::as_ref));
        all.filter_map(|reservation| {
            let seller = &reservation.spec.seller;
            let called = seller.additional_information.as_ref().and_then(|more| more.name.clone());
            Some(SolverContract {
                name: reservation.status.as_ref()?.contract.as_ref()?.name.clone(),
                peer: called.unwrap_or_else(|| seller.domain.clone()),
                why: reservation.spec.why.clone(),
            })
        })
        .collect()
    }
}
