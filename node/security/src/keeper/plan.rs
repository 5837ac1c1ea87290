//! What is written, as pure functions.

use std::collections::BTreeMap;

use fluidos_model::kinds::{AccessPolicyStatus, KnownCluster, KnownClusterTrust, PolicyState, names};
use kube::ResourceExt as _;

use crate::policy::{Decision, Trust, Verdict, word_of_owner};

/// Said of a decision that no policy made.
const NOBODY: &str = "none";
/// An annotation is a line.
const POLICY_MAX: usize = 500;

/// The status of a policy.
pub fn status(verdict: &Verdict, counts: &BTreeMap<(String, bool), u64>) -> AccessPolicyStatus {
    // Statements are named as their object, or after it.
    let of_this =
        |name: &str| name.strip_prefix(&verdict.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let sum = |allowed: bool| {
        let mine = counts.iter().filter(|((name, outcome), _)| *outcome == allowed && of_this(name));
        mine.map(|(_, count)| count).sum()
    };
    let state = if verdict.fault.is_none() { PolicyState::InForce } else { PolicyState::Refused };
    AccessPolicyStatus {
        state: Some(state),
        statements: u32::try_from(verdict.statements).unwrap_or(u32::MAX),
        message: verdict.fault.clone().unwrap_or_default(),
        accepted: verdict.accepted.clone(),
        allowed: sum(true),
        denied: sum(false),
    }
}

/// A KnownCluster whose trust is to be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it is to be.
    pub trust: KnownClusterTrust,
    /// Which policy says so.
    pub policy: String,
    /// What the owner has written by hand, which is kept.
    pub owner: Option<&'static str>,
}

/// What the decision changes, if anything.
pub fn trust(known: &KnownCluster, decision: &Decision) -> Option<Change> {
    let trust = if decision.allowed { KnownClusterTrust::Trusted } else { KnownClusterTrust::Untrusted };
    let policy = if decision.policies.is_empty() { NOBODY.to_owned() } else { decision.policies.join(",") };
    let policy: String = policy.chars().take(POLICY_MAX).collect();
    let owner = match word_of_owner(known) {
        Trust::Trusted => Some("Trusted"),
        Trust::Untrusted => Some("Untrusted"),
        Trust::Unknown => None,
    };
    let annotation = |key: &str| known.annotations().get(key).map(String::as_str);
    let settled = known.spec.trust == Some(trust)
        && annotation(names::ANNOTATION_TRUST_POLICY) == Some(&policy)
        && annotation(names::ANNOTATION_TRUST_OWNER) == owner;
    let going = known.metadata.deletion_timestamp.is_some();
    (!settled && !going).then_some(Change { trust, policy, owner })
}
