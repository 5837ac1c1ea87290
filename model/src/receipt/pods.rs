//! Which pods ran in an interval, as each party saw it. What is charged follows from the lines; this says what they are made of.
//!
//! A pod is named by its UID at the buyer, which its twin at the seller carries. A list is bounded: the first so many by UID, which both choose
//! alike, and how many more there were.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meter::whole_second;
use super::{Receipt, ReceiptError};

/// Pods in one receipt: 3.5 KiB of it, so that a message has room for many receipts.
pub const PODS_LISTED_MAX: usize = 16;
/// Pods of the open interval: a contract of the largest node, twice over.
const SEEN_MAX: usize = 256;
/// A UID has 36 characters.
const POD_LENGTH_MAX: usize = 64;

/// When and how long a pod ran within an interval, as one party saw it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct PodInterval {
    /// When it was seen first.
    #[schemars(with = "String")]
    pub from: Timestamp,
    /// When it was seen last.
    #[schemars(with = "String")]
    pub until: Timestamp,
    /// Milliseconds that it ran between the two, while the capacity was ready.
    pub ms: u64,
}

/// The pods of an interval, as one party saw them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTimes {
    /// By UID.
    pub pods: BTreeMap<String, PodInterval>,
    /// How many more there were, at least.
    #[serde(skip_serializing_if = "is_none")]
    pub left_out: u64,
}

/// A pod in a receipt.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct PodLine {
    /// Its UID at the buyer.
    pub pod: String,
    /// As the buyer saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<PodInterval>,
    /// As the seller saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller: Option<PodInterval>,
}

/// How many pods each party saw, at least, that are not listed.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct PodsLeftOut {
    /// The buyer.
    #[serde(default)]
    pub buyer: u64,
    /// The seller.
    #[serde(default)]
    pub seller: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde calls it
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl PodsLeftOut {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl PodTimes {
    /// Says whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.left_out == 0
    }

    /// These pods ran from one moment to another.
    pub(super) fn ran(&mut self, pods: &[String], from: Timestamp, until: Timestamp) {
        let ms = u64::try_from(until.duration_since(from).as_millis()).unwrap_or(0);
        let mut beyond = 0;
        for pod in pods {
            if self.pods.len() >= SEEN_MAX && !self.pods.contains_key(pod) {
                beyond += 1;
                continue;
            }
            let known = self.pods.entry(pod.clone()).or_insert(PodInterval { from, until, ms: 0 });
            (known.until, known.ms) = (known.until.max(until), known.ms.saturating_add(ms));
        }
        // Who they were is not remembered, so of two looks the larger number counts.
        self.left_out = self.left_out.max(beyond);
    }

    /// Returns these in whole seconds of an interval, which ends at one: what was seen behind its end is not of it.
    pub(super) fn within(mut self, from: Timestamp, until: Timestamp) -> Self {
        self.pods.retain(|_, ran| {
            let up = ran.until.checked_add(SignedDuration::from_nanos(999_999_999)).unwrap_or(ran.until);
            (ran.from, ran.until) = (whole_second(ran.from).max(from), whole_second(up).min(until));
            let most = u64::try_from(ran.until.duration_since(ran.from).as_millis()).unwrap_or(0);
            ran.ms = ran.ms.min(most);
            ran.from < ran.until
        });
        self
    }

    /// Returns what is kept when the interval is over: as many as a receipt lists, or none.
    pub(super) fn bounded(mut self, most: usize) -> Self {
        while self.pods.len() > most {
            self.pods.pop_last();
            self.left_out = self.left_out.saturating_add(1);
        }
        self
    }

    /// Returns what was seen in two intervals, one behind the other.
    pub(super) fn plus(mut self, later: &Self) -> Self {
        for (pod, ran) in &later.pods {
            let known = self.pods.entry(pod.clone()).or_insert_with(|| PodInterval { ms: 0, ..ran.clone() });
            (known.until, known.ms) = (known.until.max(ran.until), known.ms.saturating_add(ran.ms));
        }
        self.left_out = self.left_out.max(later.left_out);
        self
    }
}

/// Seller: lists its pods in a proposal.
pub(super) fn propose(receipt: &mut Receipt, seller: &PodTimes) {
    let seller = seller.clone().bounded(PODS_LISTED_MAX);
    receipt.pods_left_out.seller = seller.left_out;
    receipt.pods = seller.pods.into_iter().map(|(pod, ran)| PodLine { pod, buyer: None, seller: Some(ran) }).collect();
}

/// Buyer: returns a completed receipt with the buyer's pods beside the seller's; those that the seller has not listed follow, as far as there
/// is room. The same of both always give the same.
pub fn list_pods(mut completed: Receipt, buyer: &PodTimes) -> Receipt {
    let mut rest = buyer.pods.clone();
    for line in &mut completed.pods {
        line.buyer = rest.remove(&line.pod);
    }
    completed.pods_left_out.buyer = buyer.left_out;
    for (pod, ran) in rest {
        if completed.pods.len() < PODS_LISTED_MAX {
            completed.pods.push(PodLine { pod, buyer: Some(ran), seller: None });
        } else {
            completed.pods_left_out.buyer = completed.pods_left_out.buyer.saturating_add(1);
        }
    }
    completed.version = completed.version_needed();
    completed
}

/// What the buyer says in a completed receipt.
pub(super) fn of_buyer(completed: &Receipt) -> PodTimes {
    let pods = completed.pods.iter().filter_map(|line| Some((line.pod.clone(), line.buyer.clone()?)));
    PodTimes { pods: pods.collect(), left_out: completed.pods_left_out.buyer }
}

/// Either: checks that what is listed can be.
///
/// # Errors
/// [`ReceiptError`] names the first thing that is wrong.
pub(super) fn check(receipt: &Receipt) -> Result<(), ReceiptError> {
    if receipt.pods.len() > PODS_LISTED_MAX {
        return receipt.wrong("pods", receipt.pods.len(), format!("at most {PODS_LISTED_MAX}"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for line in &receipt.pods {
        let is_uid = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let named = !line.pod.is_empty() && line.pod.len() <= POD_LENGTH_MAX && line.pod.chars().all(is_uid);
        if !named || !seen.insert(&line.pod) {
            return receipt.wrong("pods", &line.pod, "each UID once");
        }
        if line.buyer.is_none() && line.seller.is_none() {
            return receipt.wrong("pods", &line.pod, "who saw it");
        }
        for ran in [&line.buyer, &line.seller].into_iter().flatten() {
            let most = u64::try_from(ran.until.duration_since(ran.from).as_millis()).ok();
            let within = receipt.from <= ran.from && ran.until <= receipt.until;
            if !within || most.is_none_or(|most| ran.ms > most) {
                let needed = format!("a part of {} to {}", receipt.from, receipt.until);
                return receipt.wrong(
                    "pods",
                    format!("{} from {} to {}, {} ms", line.pod, ran.from, ran.until, ran.ms),
                    needed,
                );
            }
        }
    }
    Ok(())
}
