//! What a DaemonSet says about itself, and how many daemons may be missing. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use super::plan::Place;
use crate::history::POD_REVISION;
use crate::objects::{available_at, is_ready};

/// How many daemons may be missing, and how many may be beside an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub unavailable: usize,
    pub surge: usize,
}

impl Limits {
    pub fn of(spec: &DaemonSetSpec, desired: usize) -> Limits {
        let rolling = spec.update_strategy.clone().unwrap_or_default().rolling_update.unwrap_or_default();
        let part = |value: Option<IntOrString>, default: usize| value.map_or(default, |value| share(&value, desired));
        let (unavailable, surge) = (part(rolling.max_unavailable, 1), part(rolling.max_surge, 0));
        // Nothing would ever move: upstream takes one then.
        let unavailable = if unavailable == 0 && surge == 0 && desired > 0 { 1 } else { unavailable };
        Limits { unavailable, surge }
    }
}

/// A number, or a part of the daemons in per cent, rounded up.
fn share(value: &IntOrString, of: usize) -> usize {
    match value {
        IntOrString::Int(count) => usize::try_from(*count).unwrap_or(0),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<usize>().ok()).unwrap_or(0);
            of.saturating_mul(percent).div_ceil(100)
        }
    }
}

/// The hash of a daemon's revision.
pub(crate) fn hash_of(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(POD_REVISION)).map_or("", String::as_str)
}

/// Whether a daemon has been ready for long enough.
pub(crate) fn is_available(pod: &Pod, spec: &DaemonSetSpec, now: Timestamp) -> bool {
    available_at(pod, spec.min_ready_seconds.unwrap_or(0)).is_some_and(|at| at <= now)
}

/// The status, and when it will change by time alone.
pub(crate) fn status(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    places: &BTreeMap<String, Place>,
    hash: &str,
    now: Timestamp,
) -> (DaemonSetStatus, Option<Duration>) {
    let old = set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    let mut wake: Option<Duration> = None;
    for place in places.values().filter(|place| place.exists) {
        let mut scheduled: Vec<&Arc<Pod>> = place.pods.iter().collect();
        // The oldest speaks for its node.
        scheduled
            .sort_by_key(|pod| (!is_ready(pod), pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
        if !place.should_run {
            status.number_misscheduled += i32::from(!scheduled.is_empty());
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(pod) = scheduled.first() else { continue };
        status.current_number_scheduled += 1;
        status.number_ready += i32::from(is_ready(pod));
        available += i32::from(is_available(pod, spec, now));
        updated += i32::from(hash_of(pod) == hash);
        if let Some(at) = available_at(pod, spec.min_ready_seconds.unwrap_or(0)).filter(|at| *at > now) {
            let after = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            wake = Some(wake.map_or(after, |wake| wake.min(after)));
        }
    }
    let some = |count: i32| Some(count).filter(|count| *count != 0);
    status.number_available = some(available);
    status.number_unavailable = some(status.desired_number_scheduled - available);
    status.updated_number_scheduled = some(updated);
    (status, wake)
}
