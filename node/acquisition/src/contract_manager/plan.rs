//! Every choice of the contract manager: a pure function from the view to a plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fluidos_identity::{NodeId, Signed, Speakers, Standing};
use fluidos_model::kinds::{Contract, KnownCluster, Phase, names};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::renewal;
use crate::importer::purse::Purse;
use crate::{convert, terms};

/// The other side is told for so long; then it is given up. Its copy ends by its own time.
pub(super) const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// After a try that failed; doubled each time up to the most, which a day holds some 1,400 times.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// 2^7 times the first is beyond the most.
const DOUBLINGS_MAX: u32 = 7;

/// What is looked at.
pub(super) struct View<'a> {
    /// This node.
    pub own: NodeId,
    /// All contracts.
    pub contracts: Vec<&'a Contract>,
    /// Who is known, and where.
    pub peers: Vec<&'a KnownCluster>,
    /// What was tried, by uid of the contract.
    pub tries: &'a BTreeMap<String, Try>,
    /// What may be paid: renewals count, too.
    pub purse: Purse,
    /// Which key speaks for whom now.
    pub speakers: &'a Speakers,
}

/// How often telling the other side has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Try {
    pub failures: u32,
    pub last: Option<Timestamp>,
    pub reason: String,
}

impl Try {
    pub fn failed(&mut self, now: Timestamp, reason: String) {
        self.failures = self.failures.saturating_add(1);
        (self.last, self.reason) = (Some(now), reason);
    }

    /// When to try again.
    fn due(&self) -> Option<Timestamp> {
        let doublings = self.failures.saturating_sub(1).min(DOUBLINGS_MAX);
        terms::shifted(self.last?, (RETRY_FIRST * 2u32.pow(doublings)).min(RETRY_MOST), 1)
    }
}

/// What is to be done with one contract.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Its time is over.
    Expire { contract: Box<Contract> },
    /// The key of the other side counts no more, and none has taken its place.
    Void { contract: Box<Contract>, reason: String },
    /// Somebody wants it to end: the other side is told when it will, at the first of these addresses that answers.
    Notice { contract: Box<Contract>, other: NodeId, addresses: Vec<SocketAddr>, ends: Timestamp, buys: bool },
    /// It is not used for now, because of this.
    Suspend { contract: Box<Contract>, reason: String },
    /// It is to go on: the seller is asked at the first of these addresses that answers.
    Renew {
        contract: Box<Contract>,
        other: NodeId,
        addresses: Vec<SocketAddr>,
        renewal: Box<Signed<rear::RenewalTerms>>,
    },
    /// It does not go on, because of this.
    Stay { contract: Box<Contract>, reason: String },
    /// It is used again.
    Resume { contract: Box<Contract> },
    /// Tell the other side, at the first of these addresses that answers; then let it go.
    Tell { contract: Box<Contract>, other: NodeId, addresses: Vec<SocketAddr>, sells: bool },
    /// Let it go without a word; `warning` is why somebody should know.
    Forget { contract: Box<Contract>, sells: bool, warning: Option<String> },
}

/// What to do now, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By uid of the contract.
    pub actions: Vec<(String, Action)>,
    pub look_again: Option<Timestamp>,
}

/// Decides about every contract.
pub(super) fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for contract in &view.contracts {
        let Some(uid) = contract.uid() else { continue };
        let later = match of_one(view, contract, &uid, now) {
            Next::Now(action) => {
                plan.actions.push((uid, action));
                None
            }
            Next::At(at) => Some(at),
            Next::Never => None,
        };
        plan.look_again = [plan.look_again, later].into_iter().flatten().min();
    }
    plan
}

enum Next {
    Now(Action),
    At(Timestamp),
    Never,
}

fn of_one(view: &View, contract: &Contract, uid: &str, now: Timestamp) -> Next {
    let Some(deleted) = &contract.metadata.deletion_timestamp else { return living(view, contract, uid, now) };
    if !contract.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER_RELEASE) {
        return Next::Never;
    }
    let tried = view.tries.get(uid);
    if let Some(due) = tried.and_then(Try::due).filter(|due| *due > now) {
        return Next::At(due);
    }
    let contract = Box::new(contract.clone());
    let Ok(signed) = terms::of_contract(&contract) else {
        // Nobody has signed it: there is nobody to be told. One with an official node keeps capacity all the same.
        let sells =
            convert::did(&contract.spec.seller) == Some(view.own) && convert::did(&contract.spec.buyer).is_none();
        return Next::Now(Action::Forget { contract, sells, warning: None });
    };
    let parties = signed.value();
    let [buyer, seller] = [parties.buyer, parties.seller].map(|named| view.speakers.current(&named));
    let sells = seller == view.own;
    let other = if sells { buyer } else { seller };
    if !sells && buyer != view.own {
        return Next::Now(Action::Forget { contract, sells, warning: None });
    }
    if let Some(reason) = revoked(view, &contract) {
        // Whoever has that key now is not whom it was agreed with.
        return Next::Now(Action::Forget { contract, sells, warning: Some(format!("{other} is not told: {reason}")) });
    }
    if terms::shifted(deleted.0, GIVE_UP, 1).is_none_or(|last| last <= now) {
        let reason = tried.map_or_else(String::new, |tried| format!(": {}", tried.reason));
        let warning = format!("{other} was not told of the end within a day{reason}");
        return Next::Now(Action::Forget { contract, sells, warning: Some(warning) });
    }
    let addresses = addresses(view, &contract, other, sells);
    Next::Now(Action::Tell { contract, other, addresses, sells })
}

/// Why the other side's key counts no more, if it was revoked. In doubt a contract stays: nothing is done under it meanwhile,
/// as its links and requests are refused.
fn revoked(view: &View, contract: &Contract) -> Option<String> {
    let parties = [&contract.spec.buyer, &contract.spec.seller].into_iter();
    let named =
        parties.filter_map(|party| party.additional_information.as_ref()?.did.as_deref()?.parse::<NodeId>().ok());
    named.into_iter().find_map(|key| match view.speakers.standing(&key) {
        Standing::Revoked { key, by, at, reason } if key != view.own => {
            Some(format!("{key} was revoked by {by} at {at}: {reason}"))
        }
        _ => None,
    })
}

/// One that nobody has deleted.
fn living(view: &View, contract: &Contract, uid: &str, now: Timestamp) -> Next {
    let boxed = || Box::new(contract.clone());
    if let Some(reason) = revoked(view, contract) {
        return Next::Now(Action::Void { contract: boxed(), reason });
    }
    // Opened once: all contracts are looked at whenever one of them changes.
    let signed = terms::of_contract(contract).ok();
    if let Some(next) = signed.as_ref().and_then(|signed| renewing(view, contract, signed, uid, now)) {
        return next;
    }
    if let Some(until) = until(contract).filter(|until| *until <= now) {
        tracing::debug!(contract = contract.name_any(), %until, "its time is over");
        return Next::Now(Action::Expire { contract: boxed() });
    }
    let later = until(contract).map_or(Next::Never, Next::At);
    let Some(signed) = signed else { return later };
    let current = |key: &NodeId| view.speakers.current(key);
    let (buys, sells) = (current(&signed.value().buyer) == view.own, current(&signed.value().seller) == view.own);
    let said = contract.status.as_ref().is_some_and(|status| status.ends.is_some());
    if contract.annotations().contains_key(names::ANNOTATION_END_REASON) && !said && (buys || sells) {
        let notice = terms::notice(signed.value());
        if notice.is_zero() {
            return Next::Now(Action::Expire { contract: boxed() });
        }
        if let Some(due) = view.tries.get(uid).and_then(Try::due).filter(|due| *due > now) {
            return Next::At(due);
        }
        let Some(ends) = terms::shifted(now, notice, 1) else { return later };
        let ends = until(contract).map_or(ends, |until| until.min(ends));
        let other = current(if sells { &signed.value().buyer } else { &signed.value().seller });
        let addresses = addresses(view, contract, other, sells);
        return Next::Now(Action::Notice { contract: boxed(), other, addresses, ends, buys });
    }
    let inactive = contract.status.as_ref().is_some_and(|status| status.phase == Phase::Inactive);
    match contract.annotations().get(names::ANNOTATION_SUSPENDED).filter(|_| buys) {
        Some(reason) if !inactive => Next::Now(Action::Suspend { contract: boxed(), reason: reason.clone() }),
        None if inactive && buys && !said => Next::Now(Action::Resume { contract: boxed() }),
        _ => later,
    }
}

/// What is to be done so that a contract goes on; `None` is nothing, now or ever.
fn renewing(
    view: &View,
    contract: &Contract,
    signed: &Signed<rear::ContractTerms>,
    uid: &str,
    now: Timestamp,
) -> Option<Next> {
    let parties = [signed.value().buyer, signed.value().seller].map(|named| view.speakers.current(&named));
    let [buyer, other] = parties;
    if buyer != view.own || has_orders(contract) || !is_needed(contract) {
        return None;
    }
    // Whatever is due at its end comes first then.
    let by_end = |at: Timestamp| until(contract).filter(|end| *end > now).map_or(at, |end| end.min(at));
    let due = view.tries.get(uid).and_then(Try::due).filter(|due| *due > now);
    match (renewal::next(view, contract, signed, parties, now), due) {
        (renewal::Next::Ask { .. } | renewal::Next::Stays { .. }, Some(due)) => Some(Next::At(by_end(due))),
        (renewal::Next::Ask { renewal }, None) => {
            let addresses = addresses(view, contract, other, false);
            Some(Next::Now(Action::Renew { contract: Box::new(contract.clone()), other, addresses, renewal }))
        }
        (renewal::Next::Stays { reason }, None) => {
            let told = contract.status.as_ref().is_some_and(|status| status.renewal.ends_with(&reason));
            (!told).then(|| Next::Now(Action::Stay { contract: Box::new(contract.clone()), reason }))
        }
        (renewal::Next::At(at), _) => Some(Next::At(by_end(at))),
        (renewal::Next::Never, _) => None,
    }
}

/// Says whether a contract is wanted beyond its end. One that was bought to be sold on goes on when what it serves is to.
fn is_needed(contract: &Contract) -> bool {
    if !contract.labels().contains_key(names::LABEL_RESALE) {
        return true;
    }
    let wanted = contract.annotations().get(names::ANNOTATION_RENEW_UNTIL).and_then(|until| until.parse().ok());
    wanted.is_some_and(|wanted: Timestamp| crate::renewals::until(contract).is_some_and(|until| until < wanted))
}

/// Says whether somebody has said something about a contract that comes before its renewal.
fn has_orders(contract: &Contract) -> bool {
    let inactive = contract.status.as_ref().is_some_and(|status| status.phase == Phase::Inactive);
    let orders = [names::ANNOTATION_END_REASON, names::ANNOTATION_SUSPENDED];
    inactive || orders.iter().any(|order| contract.annotations().contains_key(*order))
}

/// When it ends by itself: its own time, or earlier if somebody has given notice.
fn until(contract: &Contract) -> Option<Timestamp> {
    let ends = contract.status.as_ref().and_then(|status| status.ends.as_ref());
    [contract.spec.expiration_time.as_ref(), ends].into_iter().flatten().filter_map(|text| text.parse().ok()).min()
}

/// Where the other side may be: where it is known to be, then where it said it was.
fn addresses(view: &View, contract: &Contract, other: NodeId, sells: bool) -> Vec<SocketAddr> {
    let did = other.to_string();
    let known = view.peers.iter().filter(|peer| peer.spec.did.as_ref() == Some(&did));
    let said = if sells { &contract.spec.buyer.ip } else { &contract.spec.seller.ip };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for text in known.map(|peer| &peer.spec.address).chain([said]) {
        if let Ok(address) = text.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}
