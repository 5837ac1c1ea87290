//! Not too soon and not too fast. No effects.
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// What was said and done before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// What was recommended.
    pub recommended: Vec<(Timestamp, i32)>,
    /// By how many pods it was changed; negative for fewer.
    pub changed: Vec<(Timestamp, i32)>,
}

/// Nothing older matters: the longest window and period that the API takes.
const MEMORY: SignedDuration = SignedDuration::from_mins(60);

impl Past {
    pub fn forget(&mut self, now: Timestamp) {
        self.recommended.retain(|(at, _)| now.duration_since(*at) <= MEMORY);
        self.changed.retain(|(at, _)| now.duration_since(*at) <= MEMORY);
    }

    /// By how many pods it grew and shrank in the last seconds.
    fn moved(&self, seconds: i32, now: Timestamp) -> (i32, i32) {
        let period = SignedDuration::from_secs(i64::from(seconds));
        let recent = || self.changed.iter().filter(move |(at, _)| now.duration_since(*at) < period);
        let grown = recent().map(|(_, by)| (*by).max(0)).sum();
        (grown, recent().map(|(_, by)| (-*by).max(0)).sum())
    }
}

/// A number and why it is not the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub replicas: i32,
    pub is_limited: bool,
    pub reason: &'static str,
    pub message: &'static str,
}

/// The rules of a direction, with what they leave out.
pub(crate) fn rules(spec: &HorizontalPodAutoscalerSpec, up: bool) -> HPAScalingRules {
    let behavior = spec.behavior.clone().unwrap_or_default();
    let mut rules = if up { behavior.scale_up } else { behavior.scale_down }.unwrap_or_default();
    let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 };
    let all = if up { vec![policy("Pods", 4), policy("Percent", 100)] } else { vec![policy("Percent", 100)] };
    rules.policies.get_or_insert(all);
    rules.stabilization_window_seconds.get_or_insert(if up { 0 } else { 300 });
    rules
}

/// The recommendation that recent ones let stand.
pub(crate) fn stabilize(
    spec: &HorizontalPodAutoscalerSpec,
    past: &Past,
    replicas: i32,
    wanted: i32,
    now: Timestamp,
) -> i32 {
    let within = |up: bool| {
        let window = rules(spec, up).stabilization_window_seconds.unwrap_or(0);
        let window = SignedDuration::from_secs(i64::from(window));
        past.recommended.iter().filter(move |(at, _)| now.duration_since(*at) < window).map(|(_, count)| *count)
    };
    let (lowest, highest) = (within(true).fold(wanted, i32::min), within(false).fold(wanted, i32::max));
    // More only if all of the window want more, fewer only if all want fewer.
    replicas.max(lowest).min(highest)
}

/// As near to what is wanted as the rules and the limits let it come now.
pub(crate) fn limit(
    spec: &HorizontalPodAutoscalerSpec,
    past: &Past,
    replicas: i32,
    wanted: i32,
    now: Timestamp,
) -> Limited {
    let limited = |replicas, reason, message| Limited { replicas, is_limited: true, reason, message };
    let least = spec.min_replicas.unwrap_or(1);
    if wanted > replicas {
        let rate = fastest(&rules(spec, true), past, replicas, true, now).max(replicas);
        let most = rate.min(spec.max_replicas);
        if wanted > most {
            return if rate < spec.max_replicas {
                limited(
                    most,
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate",
                )
            } else {
                limited(most, "TooManyReplicas", "the desired replica count is more than the maximum replica count")
            };
        }
    } else if wanted < replicas {
        let rate = fastest(&rules(spec, false), past, replicas, false, now).min(replicas);
        let fewest = rate.max(least);
        if wanted < fewest {
            return if rate > least {
                limited(
                    fewest,
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate",
                )
            } else {
                limited(fewest, "TooFewReplicas", "the desired replica count is less than the minimum replica count")
            };
        }
    }
    let message = "the desired count is within the acceptable range";
    Limited { replicas: wanted, is_limited: false, reason: "DesiredWithinRange", message }
}

/// The number that the policies of a direction let it reach now.
fn fastest(rules: &HPAScalingRules, past: &Past, replicas: i32, up: bool, now: Timestamp) -> i32 {
    if rules.select_policy.as_deref() == Some("Disabled") {
        return replicas;
    }
    let reach = |policy: &HPAScalingPolicy| {
        let (grown, shrunk) = past.moved(policy.period_seconds, now);
        let start = i64::from(replicas - grown + shrunk);
        let value = i64::from(policy.value);
        let reached = match (policy.type_.as_str(), up) {
            ("Pods", true) => start + value,
            ("Pods", false) => start - value,
            (_, true) => (start * (100 + value) + 99) / 100,
            (_, false) => start * (100 - value) / 100,
        };
        i32::try_from(reached.clamp(0, i64::from(i32::MAX))).unwrap_or(i32::MAX)
    };
    let reached = rules.policies.iter().flatten().map(reach);
    // "Max" is the greatest change, whatever its direction.
    let furthest = (rules.select_policy.as_deref() == Some("Min")) != up;
    if furthest { reached.max() } else { reached.min() }.unwrap_or(replicas)
}
