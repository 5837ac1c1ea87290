//! Who yields when capacity that is paid per use is asked for by more than there is of it. Pure.
//!
//! What is paid per use may be promised more than once. It *bursts* if and only if the twins of all such contracts ask for more than is
//! left for them: the capacity that is sold, without what is promised to those who never yield.
//!
//! ```text
//!  capacity ─ reserved, spot, holds ─▶ room
//!  contracts paid per use: highest `yields` first (absent is above all), of equals the older ─▶ their twins, older first
//!       each that fits into what is left of the room runs; the others yield
//! ```
//! It is decided anew each time from what is asked for, running or not, so that the same twins yield until somebody asks for
//! something else: nothing flaps.

use std::cmp::Reverse;

use fluidos_model::kinds::names;
use fluidos_model::market::{Amounts, BusinessModel, Commitment, CommitmentState, Pool, requested};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::Origin;

/// What one contract asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Claim {
    pub contract: String,
    /// As both have signed; absent yields last.
    pub yields: Option<u32>,
    /// When the contract was made.
    pub issued: Timestamp,
    pub twins: Vec<Asked>,
}

/// What one twin asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// Of the consumer's pod.
    pub uid: String,
    pub amounts: Amounts,
    /// `None` is not there yet.
    pub since: Option<Timestamp>,
}

/// A twin that has to yield.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Yielder {
    pub contract: String,
    pub uid: String,
    /// In words that its owner may read: nothing of other buyers.
    pub reason: String,
}

/// Returns what is left for contracts that are paid per use.
pub(crate) fn room(pool: &Pool, now: Timestamp) -> Amounts {
    let firm = pool.commitments.iter().filter(|known| !known.is_over(now) && per_use(known).is_none());
    let firm = firm.map(|known| known.amounts.clone()).try_fold(Amounts::default(), |sum, more| sum.checked_add(&more));
    // What cannot be counted is more than there is.
    firm.map(|firm| pool.capacity.saturating_sub(&firm)).unwrap_or_default()
}

/// Returns what is asked for by each contract that is paid per use: twins that run or wait for a machine, and a new one.
pub(crate) fn claims(pool: &Pool, twins: &[&Pod], new: Option<(&str, Asked)>, now: Timestamp) -> Vec<Claim> {
    let live = pool.commitments.iter().filter(|known| !known.is_over(now));
    let mut claims: Vec<Claim> = live.filter_map(|known| per_use(known)).collect();
    for twin in twins.iter().filter(|twin| takes(twin)) {
        let Some(contract) = twin.labels().get(names::LABEL_CONTRACT) else { continue };
        let (Some(claim), Some(origin)) = (claims.iter_mut().find(|c| c.contract == *contract), Origin::of(twin))
        else {
            continue;
        };
        // It was admitted with amounts that can be read.
        let amounts = twin.spec.as_ref().and_then(|spec| requested(spec).ok()).unwrap_or_default();
        let since = twin.metadata.creation_timestamp.as_ref().map(|at| at.0);
        claim.twins.push(Asked { uid: origin.uid, amounts, since: Some(since.unwrap_or(now)) });
    }
    if let Some((contract, asked)) = new
        && let Some(claim) = claims.iter_mut().find(|claim| claim.contract == contract)
        && claim.twins.iter().all(|twin| twin.uid != asked.uid)
    {
        claim.twins.push(asked);
    }
    claims
}

/// Says whether a twin takes something: it has neither ended nor been told to.
fn takes(twin: &Pod) -> bool {
    let phase = twin.status.as_ref().and_then(|status| status.phase.as_deref());
    twin.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// The claim of a promise that is paid per use, with no twins yet.
fn per_use(known: &Commitment) -> Option<Claim> {
    let CommitmentState::Committed { contract, .. } = &known.state else { return None };
    let agreed = known.agreed.as_ref()?;
    let is = agreed.conditions.business_model == BusinessModel::PayPerUse;
    is.then(|| Claim {
        contract: contract.clone(),
        yields: agreed.conditions.yields,
        issued: agreed.issued,
        twins: Vec::new(),
    })
}

/// Decides who yields.
pub(crate) fn plan(room: &Amounts, mut claims: Vec<Claim>) -> Vec<Yielder> {
    claims
        .sort_by_cached_key(|claim| (Reverse(claim.yields.unwrap_or(u32::MAX)), claim.issued, claim.contract.clone()));
    let (mut left, mut yielders) = (room.clone(), Vec::new());
    for mut claim in claims {
        claim.twins.sort_by_cached_key(|twin| (twin.since.unwrap_or(Timestamp::MAX), twin.uid.clone()));
        for twin in claim.twins {
            match left.shortfalls(&twin.amounts).first() {
                None => left = left.saturating_sub(&twin.amounts),
                Some((resource, observed, needed)) => {
                    let (name, observed, needed) = (resource.name(), resource.text(*observed), resource.text(*needed));
                    let order = claim.yields.map_or_else(|| "none".to_owned(), |yields| yields.to_string());
                    let reason = format!(
                        "it yields, as the contract says (yields: {order}): {name}: {observed} left of what is paid per use, needed {needed}"
                    );
                    yielders.push(Yielder { contract: claim.contract.clone(), uid: twin.uid, reason });
                }
            }
        }
    }
    yielders
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_model::market::{Agreed, Conditions, Price};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn cpus(cpu_milli: u64) -> Amounts {
        Amounts { cpu_milli, pods: 1, ..Amounts::default() }
    }

    fn room_of(cpu_milli: u64) -> Amounts {
        Amounts { pods: 100, ..cpus(cpu_milli) }
    }

    fn claim(contract: &str, yields: Option<u32>, issued: i64, twins: &[(&str, u64, i64)]) -> Claim {
        let twin = |(uid, cpu, since): &(&str, u64, i64)| Asked {
            uid: (*uid).into(),
            amounts: cpus(*cpu),
            since: (*since >= 0).then(|| at(*since)),
        };
        Claim { contract: contract.into(), yields, issued: at(issued), twins: twins.iter().map(twin).collect() }
    }

    fn uids(room: u64, claims: Vec<Claim>) -> Vec<String> {
        plan(&room_of(room), claims).into_iter().map(|yielder| yielder.uid).collect()
    }

    #[test]
    fn the_lower_number_yields_first_then_the_younger_contract() {
        let all = || {
            vec![
                claim("old", Some(10), 1, &[("o", 500, 5)]),
                claim("young", Some(10), 2, &[("y", 500, 1)]),
                claim("firm", Some(20), 9, &[("f", 500, 9)]),
                claim("silent", None, 9, &[("s", 500, 9)]),
            ]
        };
        assert!(uids(2000, all()).is_empty(), "there is room for all");
        assert_eq!(uids(1999, all()), ["y"]);
        assert_eq!(uids(1000, all()), ["o", "y"]);
        assert_eq!(uids(999, all()), ["f", "o", "y"]);
        assert_eq!(uids(0, all()).len(), 4);
        let told = plan(&room_of(1600), all()).remove(0);
        let reason =
            "it yields, as the contract says (yields: 10): cpu: 100m left of what is paid per use, needed 500m";
        assert_eq!((told.contract.as_str(), told.reason.as_str()), ("young", reason));
    }

    #[test]
    fn within_a_contract_the_older_twin_stays_and_a_smaller_one_takes_what_is_left() {
        let all =
            vec![claim("c", None, 1, &[("new", 800, -1), ("second", 800, 2), ("first", 800, 1), ("small", 300, 3)])];
        assert_eq!(uids(1200, all), ["second", "new"]);
    }

    #[test]
    fn what_is_reserved_leaves_less_room_and_never_yields() {
        let promise = |name: &str, cpu: u64, conditions: Conditions, until: i64| Commitment {
            served_by: None,
            transaction: name.into(),
            buyer: "did:key:z".into(),
            flavor: "f".into(),
            amounts: cpus(cpu),
            state: CommitmentState::Committed { contract: name.into(), until: Some(at(until)) },
            agreed: Some(Agreed {
                policy: "p".into(),
                issued: at(0),
                hold_until: at(1),
                ends: None,
                price: Price::ZERO,
                conditions,
                service: None,
            }),
        };
        let per_use = |yields| Conditions {
            business_model: BusinessModel::PayPerUse,
            yields: Some(yields),
            overcommit_per_cent: Some(300),
            ..Conditions::default()
        };
        let held = Commitment {
            served_by: None,
            state: CommitmentState::Held { until: at(100) },
            ..promise("held", 500, Conditions::default(), 100)
        };
        let pool = Pool {
            capacity: Amounts { pods: 100, ..cpus(4000) },
            commitments: [
                promise("reserved", 1000, Conditions::default(), 100),
                promise("over", 1000, Conditions::default(), 10),
                held,
                promise("a", 3000, per_use(1), 100),
                promise("b", 3000, per_use(2), 100),
            ]
            .map(std::sync::Arc::new)
            .into(),
        };
        assert_eq!(room(&pool, at(10)), Amounts { pods: 98, ..cpus(2500) });
        let twin = |contract: &str, uid: &str, phase: &str| -> Pod {
            serde_json::from_value(serde_json::json!({
                "metadata": {"labels": {names::LABEL_CONTRACT: contract}, "creationTimestamp": "1970-01-01T00:00:05Z",
                             "annotations": {names::ANNOTATION_ORIGIN: format!("ns/{uid}/{uid}")}},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]},
                "status": {"phase": phase},
            }))
            .unwrap()
        };
        let twins = [twin("a", "a1", "Running"), twin("reserved", "r1", "Running"), twin("b", "b0", "Failed")];
        let twins: Vec<&Pod> = twins.iter().collect();
        let new = || Some(("b", Asked { uid: "b1".into(), amounts: cpus(1000), since: None }));
        let planned = plan(&room(&pool, at(10)), claims(&pool, &twins, new(), at(10)));
        assert_eq!(planned.iter().map(|y| y.uid.as_str()).collect::<Vec<_>>(), ["a1"], "who yields later may begin");
        assert!(plan(&room(&pool, at(10)), claims(&pool, &twins, None, at(10))).is_empty());
    }
}
