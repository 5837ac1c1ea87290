//! How many pods each ReplicaSet of a Deployment is to have next. No effects.
//!
//! The names follow the manual: at most `replicas + surge` pods in all, at least `replicas - unavailable` available.
use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::template::{DESIRED, MAXIMUM, number};
use crate::objects::name;

/// What a Deployment allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub replicas: i32,
    pub surge: i32,
    pub unavailable: i32,
    pub recreate: bool,
}

impl Limits {
    pub fn of(deployment: &Deployment) -> Limits {
        let spec = deployment.spec.clone().unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.unwrap_or_default();
        if strategy.type_.as_deref() == Some("Recreate") {
            return Limits { replicas, surge: 0, unavailable: 0, recreate: true };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let quarter = IntOrString::String("25%".to_owned());
        let surge = amount(rolling.max_surge.as_ref().unwrap_or(&quarter), replicas, true);
        let mut unavailable = amount(rolling.max_unavailable.as_ref().unwrap_or(&quarter), replicas, false);
        if surge == 0 && unavailable == 0 {
            // Percentages that come to nothing would never let it move.
            unavailable = 1;
        }
        Limits { replicas, surge, unavailable: unavailable.min(replicas), recreate: false }
    }

    pub fn min_available(self) -> i32 {
        self.replicas - self.unavailable
    }
}

fn amount(value: &IntOrString, of: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => (*count).max(0),
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|text| text.parse().ok()).unwrap_or(0);
            let hundredfold = percent.max(0).saturating_mul(i64::from(of));
            i32::try_from((hundredfold + if up { 99 } else { 0 }) / 100).unwrap_or(i32::MAX)
        }
    }
}

/// A ReplicaSet with the size it is to have.
#[derive(Clone, Debug)]
pub(crate) struct Sized {
    pub set: Arc<ReplicaSet>,
    pub size: i32,
}

impl Sized {
    pub fn new(set: Arc<ReplicaSet>) -> Sized {
        let size = replicas(&set);
        Sized { set, size }
    }
}

/// How many pods a ReplicaSet is told to have.
pub(crate) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many of its pods are available.
pub(crate) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// The size of a new ReplicaSet that has `size` now, when all together have `total`.
pub(crate) fn grown(limits: Limits, size: i32, total: i32) -> i32 {
    let room = (limits.replicas + limits.surge - total).max(0);
    if size > limits.replicas { limits.replicas } else { size + room.min(limits.replicas - size) }
}

/// One step of a rolling update: the new one up as far as there is room, or else the old ones down as far as enough is
/// available.
pub(crate) fn roll(limits: Limits, new: &mut Sized, old: &mut [Sized]) {
    let total = new.size + old.iter().map(|sized| sized.size).sum::<i32>();
    let size = grown(limits, new.size, total);
    if size != new.size {
        new.size = size;
        return;
    }
    old.sort_by_key(|sized| sized.set.metadata.creation_timestamp.clone());
    let new_unavailable = new.size - available(&new.set);
    let mut spare = total - limits.min_available() - new_unavailable;
    // First those that serve nobody.
    for sized in old.iter_mut() {
        let unhealthy = (sized.size - available(&sized.set)).max(0);
        let down = unhealthy.min(spare.max(0));
        sized.size -= down;
        spare -= down;
    }
    // Then as many as there are too many of.
    let all_available = available(&new.set) + old.iter().map(|sized| available(&sized.set)).sum::<i32>();
    let mut excess = (all_available - limits.min_available()).min(spare);
    for sized in old.iter_mut() {
        let down = sized.size.min(excess.max(0));
        sized.size -= down;
        excess -= down;
    }
}

/// The Deployment's size has changed in the middle of a rolling update: every ReplicaSet takes its share, so that what
/// is being risked stays in proportion.
pub(crate) fn share(limits: Limits, sets: &mut [Sized]) {
    let total: i32 = sets.iter().map(|sized| sized.size).sum();
    let allowed = limits.replicas + if limits.replicas > 0 { limits.surge } else { 0 };
    let mut left = allowed - total;
    // The largest first; of equals the youngest when growing, the oldest when shrinking.
    sets.sort_by_key(|sized| (Reverse(sized.size), sized.set.metadata.creation_timestamp.clone()));
    if left > 0 {
        sets.sort_by_key(|sized| (Reverse(sized.size), Reverse(sized.set.metadata.creation_timestamp.clone())));
    }
    for sized in sets.iter_mut() {
        let before = number(&sized.set.metadata, MAXIMUM).filter(|most| *most > 0).unwrap_or(i64::from(total.max(1)));
        let exact = i64::from(sized.size) * i64::from(allowed) * 2 + before;
        let share = i32::try_from(exact / (before * 2)).unwrap_or(i32::MAX) - sized.size;
        let part = if left > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        sized.size = (sized.size + part).max(0);
        left -= part;
    }
    if let Some(first) = sets.first_mut() {
        first.size = (first.size + left).max(0);
    }
}

/// Whether the Deployment has been given another size since its ReplicaSets were scaled.
pub(crate) fn is_resized(limits: Limits, sets: &[Arc<ReplicaSet>]) -> bool {
    let active = sets.iter().filter(|set| replicas(set) > 0);
    active.filter_map(|set| number(&set.metadata, DESIRED)).any(|desired| desired != i64::from(limits.replicas))
}

/// For messages.
pub(crate) fn title(set: &ReplicaSet) -> &str {
    name(&set.metadata)
}
