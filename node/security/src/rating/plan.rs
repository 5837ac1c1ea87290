//! What was seen, as a pure function of the objects.

use std::collections::BTreeMap;
use std::fmt;

use fluidos_model::kinds::{
    Account, AccountPhase, Allocation, AllocationPhase, Contract, Direction, Invoice, KnownCluster,
    KnownClusterOpinion, LinkState, NodeIdentity, ObservationKind, PaymentState, Phase, Rating, RatingObservation,
    RatingStatus, Reservation, names,
};
use fluidos_model::rating;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::point::entry_name;

/// Contracts that end between two looks; more are many.
pub const BROKEN_MAX: usize = 256;
/// As KnownClusters.
const RATINGS_MAX: usize = 4096;
/// Two clocks, and a message that is on its way: a seller whose clock is so much ahead has kept the time.
const CLOCK_LEEWAY: SignedDuration = SignedDuration::from_secs(10);
/// A name that somebody gave itself.
const NAME_MAX: usize = 63;

/// What matters of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deal {
    /// Its object's uid.
    pub uid: String,
    /// DID of the seller.
    pub seller: String,
}

/// What is looked at.
pub struct View<'a> {
    /// This node's DID.
    pub own: &'a str,
    /// Who is known.
    pub known: Vec<&'a KnownCluster>,
    /// What was asked for here.
    pub reservations: Vec<&'a Reservation>,
    /// What is in use.
    pub allocations: Vec<&'a Allocation>,
    /// The books of what was bought and sold.
    pub accounts: Vec<&'a Account>,
    /// What was owed.
    pub invoices: Vec<&'a Invoice>,
    /// Who has shown this node two histories: both heads are kept as evidence.
    pub rewriters: Vec<&'a str>,
    /// What is kept already.
    pub ratings: Vec<&'a Rating>,
    /// The contracts by name.
    pub deals: &'a BTreeMap<String, Deal>,
    /// Contracts that their sellers ended before their time.
    pub broken: &'a [(Deal, Timestamp)],
}

/// What is to be done about one Rating.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write what was seen; `create` if there is no object yet.
    Write { name: String, did: String, peer: String, create: bool, status: Box<RatingStatus> },
    /// Nothing of it weighs anything any more.
    Forget { name: String },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { name, status, .. } => write!(f, "write {name}: {} ({})", status.shown, status.last),
            Self::Forget { name } => write!(f, "forget {name}"),
        }
    }
}

/// What matters of this contract.
pub fn deal(contract: &Contract) -> Deal {
    Deal { uid: contract.uid().unwrap_or_default(), seller: did(&contract.spec.seller).unwrap_or_default() }
}

/// Whether a contract that is gone was ended by its seller before its time: without the notice that both had signed, or before
/// that notice was over. One that its owner ends is first marked as ending, until the other side has been told.
pub fn is_broken(gone: &Contract, own: &str, now: Timestamp) -> bool {
    if did(&gone.spec.buyer).as_deref() != Some(own) {
        return false;
    }
    let status = gone.status.clone().unwrap_or_default();
    if status.short_notice {
        return true;
    }
    // A notice that was kept moves the end forward; who gave it does not matter.
    let times = [gone.spec.expiration_time.as_ref(), status.ends.as_ref()].into_iter().flatten();
    let until = times.filter_map(|text| text.parse::<Timestamp>().ok()).min();
    let early = until.is_none_or(|until| until.duration_since(now) > CLOCK_LEEWAY);
    gone.metadata.deletion_timestamp.is_none() && early
}

/// Decides what is written. Everything that has changed; `all` of them when time has passed.
pub fn plan(view: &View<'_>, all: bool, now: Timestamp) -> Vec<Action> {
    let mut seen: BTreeMap<String, Vec<RatingObservation>> = BTreeMap::new();
    let mut note = |did: String, observation| seen.entry(did).or_default().push(observation);
    for (did, observation) in deals(view) {
        note(did, observation);
    }
    for did in view.rewriters.iter().filter(|did| **did != view.own && entry_name(did).is_some()) {
        if let Some(observation) = rewritten(now) {
            note((*did).to_owned(), observation);
        }
    }
    let rated: BTreeMap<&str, &Rating> =
        view.ratings.iter().map(|rating| (rating.spec.did.as_str(), *rating)).collect();
    let known: BTreeMap<&str, &KnownCluster> =
        view.known.iter().filter_map(|known| Some((known.spec.did.as_deref()?, *known))).collect();
    let spoken_of = known.iter().filter(|(_, known)| !opinions(Some(known)).is_empty()).map(|(did, _)| *did);
    let whom: Vec<String> =
        rated.keys().copied().chain(spoken_of).map(str::to_owned).chain(seen.keys().cloned()).collect();
    let whom: std::collections::BTreeSet<String> = whom.into_iter().collect();
    let mut room = RATINGS_MAX.saturating_sub(rated.len());
    let mut actions = Vec::new();
    for did in whom {
        let (rating, entry) = (rated.get(did.as_str()), known.get(did.as_str()));
        let mut new = seen.remove(&did).unwrap_or_default();
        new.extend(entry.and_then(|entry| link(entry, now)));
        let before = rating.and_then(|rating| rating.status.clone()).unwrap_or_default();
        let mut after = rating::observe(before.clone(), &new, now);
        let round_trip = entry.and_then(|entry| entry.status.as_ref()?.link.as_ref()?.round_trip_micros);
        after.round_trip_micros = round_trip.or(before.round_trip_micros);
        let Some(name) = entry_name(&did) else { continue };
        let of = |did: &str| rated.get(did).and_then(|rating| rating.status.as_ref());
        let words = rating::words(&did, opinions(entry.copied()), of, now);
        after.global = rating::global(&after, &words, now);
        after.global_shown = rating::shown(after.global);
        after.opinions = (!words.is_empty()).then_some(u32::try_from(words.len()).unwrap_or(u32::MAX));
        if after.judged().is_none() {
            actions.extend(rating.map(|rating| Action::Forget { name: rating.name_any() }));
            continue;
        }
        if rating.is_none() {
            if room == 0 {
                continue;
            }
            room -= 1;
        }
        let new_words = (after.global, after.opinions) != (before.global, before.opinions);
        if after.count != before.count || rating.is_none() || new_words || (all && after != before) {
            let name_of = entry.and_then(|entry| entry.spec.name.clone()).unwrap_or_default();
            let peer = name_of.chars().take(NAME_MAX).collect();
            actions.push(Action::Write { name, did, peer, create: rating.is_none(), status: Box::new(after) });
        }
    }
    actions
}

/// What others say of a node.
fn opinions(known: Option<&KnownCluster>) -> &[KnownClusterOpinion] {
    known.and_then(|known| known.status.as_ref()).map_or(&[], |status| &status.opinions)
}

/// What deals show of their sellers.
fn deals(view: &View<'_>) -> Vec<(String, RatingObservation)> {
    let mut seen = Vec::new();
    // What is seen again after a restart has the same time: that of the object.
    let of = |object: &ObjectMeta, kind| {
        let at = object.creation_timestamp.as_ref()?.0.to_string();
        Some(RatingObservation { kind, at, id: object.uid.clone()? })
    };
    for reservation in &view.reservations {
        let Some(seller) = did(&reservation.spec.seller).filter(|did| did != view.own) else { continue };
        let Some(status) = &reservation.status else { continue };
        let kind = match (status.phase.phase, status.purchase_phase, status.reserve_phase) {
            (_, Phase::Solved, _) => ObservationKind::OfferHonoured,
            (Phase::Failed, _, Phase::Failed) | (Phase::Failed, Phase::Failed, _) => ObservationKind::OfferRefused,
            _ => continue,
        };
        seen.extend(of(&reservation.metadata, kind).map(|observation| (seller, observation)));
    }
    for allocation in &view.allocations {
        let contract = allocation.labels().get(names::LABEL_CONTRACT).unwrap_or(&allocation.spec.contract.name);
        let Some(deal) = view.deals.get(contract).filter(|deal| deal.seller != view.own) else { continue };
        let kind = match allocation.status.as_ref().map(|status| status.status) {
            Some(AllocationPhase::Active) => ObservationKind::Delivered,
            Some(AllocationPhase::Error) => ObservationKind::NotDelivered,
            _ => continue,
        };
        seen.extend(of(&allocation.metadata, kind).map(|observation| (deal.seller.clone(), observation)));
    }
    // What was sold shows the buyer: whether it pays, and signs for what it has used.
    let sold: BTreeMap<&str, &Account> = view
        .accounts
        .iter()
        .filter(|account| account.spec.direction == Direction::Sold && account.spec.peer != view.own)
        .map(|account| (account.spec.contract.as_str(), *account))
        .collect();
    for account in sold.values() {
        let unsettled = account.status.as_ref().is_some_and(|status| status.phase == AccountPhase::Unsettled);
        if unsettled && entry_name(&account.spec.peer).is_some() {
            let observation = of(&account.metadata, ObservationKind::ReceiptsWithheld);
            seen.extend(observation.map(|observation| (account.spec.peer.clone(), observation)));
        }
    }
    for invoice in view.invoices.iter().filter(|invoice| invoice.spec.direction == Direction::Sold) {
        let acknowledged = invoice.status.as_ref().is_some_and(|status| status.payment == PaymentState::Acknowledged);
        let due = invoice.spec.document["dueMinor"].as_i64().unwrap_or(0);
        // Its account may be gone; the invoice names its buyer.
        let buyer = invoice.spec.document["buyer"].as_str().filter(|buyer| entry_name(buyer).is_some());
        if let (true, true, Some(buyer)) = (acknowledged, due > 0, buyer) {
            let observation = of(&invoice.metadata, ObservationKind::Paid);
            seen.extend(observation.map(|observation| (buyer.to_owned(), observation)));
        }
    }
    for (deal, at) in view.broken {
        let kind = ObservationKind::ContractBroken;
        seen.push((deal.seller.clone(), RatingObservation { kind, at: at.to_string(), id: deal.uid.clone() }));
    }
    seen
}

/// A history that was rewritten, seen once a week for as long as the evidence of it is kept.
fn rewritten(now: Timestamp) -> Option<RatingObservation> {
    let today = now.to_zoned(TimeZone::UTC).date();
    let monday = today.checked_sub(jiff::Span::new().days(today.weekday().to_monday_zero_offset())).ok()?;
    let at = monday.to_zoned(TimeZone::UTC).ok()?.timestamp().to_string();
    Some(RatingObservation { kind: ObservationKind::HistoryRewritten, at, id: monday.to_string() })
}

/// How the link stands, seen once a day.
fn link(known: &KnownCluster, now: Timestamp) -> Option<RatingObservation> {
    let link = known.status.as_ref()?.link.as_ref()?;
    let today = now.to_zoned(TimeZone::UTC).date();
    let kind = match link.state {
        LinkState::Up => ObservationKind::LinkUp,
        LinkState::Down => ObservationKind::LinkLost,
        LinkState::Dialing => return None,
    };
    let at = today.to_zoned(TimeZone::UTC).ok()?.timestamp().to_string();
    Some(RatingObservation { kind, at, id: today.to_string() })
}

fn did(identity: &NodeIdentity) -> Option<String> {
    // Only a key can be rated: whatever else stands there is somebody's text.
    let did = identity.additional_information.as_ref()?.did.clone()?;
    entry_name(&did).map(|_| did)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use fluidos_identity::NodeKey;
    use fluidos_model::kinds::{
        AccountSpec, AccountStatus, AdditionalInformation, ContractSpec, ContractStatus, InvoiceSpec, InvoiceStatus,
        RatingSpec,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_buyer_is_rated_by_what_it_has_paid_and_not_signed() {
        let did = |seed| NodeKey::from_seed([seed; 32]).unwrap().id().to_string();
        let (own, now) = (did(1), Timestamp::from_second(1_000_000).unwrap());
        let meta = |uid: &str| ObjectMeta {
            uid: Some(uid.into()),
            creation_timestamp: Some(Time(now)),
            ..ObjectMeta::default()
        };
        let account = |uid: &str, direction, phase, peer: String| {
            let spec = AccountSpec { contract: uid.into(), direction, peer, ..AccountSpec::default() };
            let status = Some(AccountStatus { phase, ..AccountStatus::default() });
            Account { metadata: meta(uid), spec, status }
        };
        let invoice = |uid: &str, direction, due: i64, payment| {
            let document = serde_json::json!({"dueMinor": due, "buyer": did(2)});
            let spec = InvoiceSpec { direction, document, ..InvoiceSpec::default() };
            let status = Some(InvoiceStatus { payment, payments: vec![] });
            Invoice { metadata: meta(uid), spec, status }
        };
        use {AccountPhase::*, Direction::*, PaymentState::*};
        let accounts = [
            account("withheld", Sold, Unsettled, did(3)),
            account("settled", Sold, Settled, did(4)),
            account("bought", Bought, Unsettled, did(5)),
        ];
        let invoices = [
            invoice("paid", Sold, 100, Acknowledged),
            invoice("free", Sold, 0, Acknowledged),
            invoice("claimed", Sold, 100, Claimed),
            invoice("ours", Bought, 100, Acknowledged),
        ];
        let view = View {
            own: &own,
            known: vec![],
            reservations: vec![],
            allocations: vec![],
            accounts: accounts.iter().collect(),
            invoices: invoices.iter().collect(),
            rewriters: vec![],
            ratings: vec![],
            deals: &BTreeMap::new(),
            broken: &[],
        };
        let mut seen: Vec<String> = deals(&view)
            .into_iter()
            .map(|(who, seen)| format!("{} {:?} {}", &who[who.len() - 4..], seen.kind, seen.id))
            .collect();
        seen.sort();
        let tail = |seed| did(seed)[did(seed).len() - 4..].to_owned();
        let mut needed = vec![format!("{} ReceiptsWithheld withheld", tail(3)), format!("{} Paid paid", tail(2))];
        needed.sort();
        assert_eq!(seen, needed);
    }

    fn view<'a>(own: &'a str, deals: &'a BTreeMap<String, Deal>) -> View<'a> {
        View {
            own,
            known: vec![],
            reservations: vec![],
            allocations: vec![],
            accounts: vec![],
            invoices: vec![],
            rewriters: vec![],
            ratings: vec![],
            deals,
            broken: &[],
        }
    }

    #[test]
    fn a_rewritten_history_lowers_the_rating_as_long_as_the_evidence_is_kept() {
        let did = |seed| NodeKey::from_seed([seed; 32]).unwrap().id().to_string();
        let (own, liar, none) = (did(1), did(2), BTreeMap::new());
        let day = |day: i64| Timestamp::from_second(1_700_000_000 + day * 86_400).unwrap();
        let mut good = Rating::new("r", RatingSpec { did: liar.clone(), ..RatingSpec::default() });
        let delivered = |i: usize| RatingObservation {
            kind: ObservationKind::Delivered,
            at: day(0).to_string(),
            id: i.to_string(),
        };
        let many: Vec<_> = (0..20).map(delivered).collect();
        good.status = Some(rating::observe(RatingStatus::default(), &many, day(0)));
        let mut after = |on: i64| {
            let view = View { rewriters: vec![&liar, &own, "no key"], ratings: vec![&good], ..view(&own, &none) };
            let actions = plan(&view, true, day(on));
            let [Action::Write { status, .. }] = &actions[..] else { panic!("{actions:?}") };
            let status = status.as_ref().clone();
            good.status = Some(status.clone());
            (status.value.unwrap(), status.last.split(' ').next().unwrap().to_owned())
        };
        assert_eq!(after(0), (72, "Delivered".into()), "from 95");
        assert_eq!(after(7).1, "HistoryRewritten", "the reason is shown");
        assert!(after(60).0 < 40, "it is still so");
        // Without the evidence nothing is added.
        let view = View { ratings: vec![&good], ..view(&own, &none) };
        assert!(plan(&view, false, day(61)).is_empty());
    }

    #[test]
    fn what_others_say_makes_a_rating_of_its_own_and_liars_make_none() {
        let did = |seed| NodeKey::from_seed([seed; 32]).unwrap().id().to_string();
        let (own, none, now) = (did(1), BTreeMap::new(), Timestamp::from_second(1_700_000_000).unwrap());
        let opinion = |author: &str, value| KnownClusterOpinion {
            author: author.into(),
            value,
            observations: 10,
            from: "c".into(),
        };
        let seller = |opinions| {
            let mut known = KnownCluster::new(
                "k",
                fluidos_model::kinds::KnownClusterSpec {
                    did: Some(did(3)),
                    name: Some("mill".into()),
                    ..Default::default()
                },
            );
            known.status = Some(fluidos_model::kinds::KnownClusterStatus { opinions, ..Default::default() });
            known
        };
        let mut friend = Rating::new("f", RatingSpec { did: did(2), ..RatingSpec::default() });
        let delivered =
            |i: usize| RatingObservation { kind: ObservationKind::Delivered, at: now.to_string(), id: i.to_string() };
        friend.status =
            Some(rating::observe(RatingStatus::default(), &(0..20).map(delivered).collect::<Vec<_>>(), now));
        let said = |opinions| {
            let known = seller(opinions);
            let view = View { known: vec![&known], ratings: vec![&friend], ..view(&own, &none) };
            plan(&view, false, now)
        };
        let actions = said(vec![opinion(&did(2), 1000)]);
        let [Action::Write { did: whom, create: true, status, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!((whom, status.value, status.shown.as_str()), (&did(3), None, "?"), "nothing was seen here");
        assert_eq!((status.global, status.opinions, status.judged()), (Some(74), Some(1), Some(74)));
        let liars = (10..200).map(|seed| opinion(&did(seed), 0)).chain([opinion("no key", 0)]);
        assert_eq!(said(liars.clone().collect()), [], "keys that have done nothing for us");
        let with_liars = said(std::iter::once(opinion(&did(2), 1000)).chain(liars).collect());
        assert_eq!(with_liars, actions, "nor beside somebody who has");
    }

    #[test]
    fn a_contract_is_broken_if_its_seller_ends_it_before_its_time_or_its_notice() {
        let did = |seed| NodeKey::from_seed([seed; 32]).unwrap().id().to_string();
        let party = |did: String| NodeIdentity {
            additional_information: Some(AdditionalInformation { did: Some(did), ..Default::default() }),
            ..NodeIdentity::default()
        };
        let (own, now) = (did(1), Timestamp::from_second(1_000_000).unwrap());
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let gone = |expires: i64, ends: Option<i64>, short_notice| {
            let expiration_time = Some(at(expires).to_string());
            let (buyer, seller) = (party(did(1)), party(did(2)));
            let mut contract =
                Contract::new("c", ContractSpec { buyer, seller, expiration_time, ..Default::default() });
            let ends = ends.map(|ends| at(ends).to_string());
            contract.status = Some(ContractStatus { ends, short_notice, ..ContractStatus::default() });
            contract
        };
        assert!(is_broken(&gone(3600, None, false), &own, now), "before its time");
        assert!(!is_broken(&gone(0, None, false), &own, now), "its time is over");
        assert!(!is_broken(&gone(3600, Some(0), false), &own, now), "its notice is over");
        assert!(!is_broken(&gone(3600, Some(9), false), &own, now), "as far as two clocks can say");
        assert!(is_broken(&gone(3600, Some(11), false), &own, now), "before its notice is over");
        assert!(is_broken(&gone(3600, Some(0), true), &own, now), "the notice was too short");
        let mut ours = gone(3600, None, false);
        ours.metadata.deletion_timestamp = Some(Time(now));
        assert!(!is_broken(&ours, &own, now), "its owner ends it");
        ours.status = gone(0, Some(0), true).status;
        assert!(is_broken(&ours, &own, now), "its owner has it go after too short a notice");
        assert!(!is_broken(&gone(3600, None, true), &did(3), now), "somebody else bought it");
    }
}
