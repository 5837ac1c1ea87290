//! What an autoscaler wants now, and what it says. No effects.
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::behavior::{Past, limit, stabilize};
use crate::recorder::Kind;

/// What one metric says.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// As `cpu resource utilization (percentage of request)`.
    pub title: String,
    /// How many pods there should be, and what is seen; else the reason and words of what is wrong.
    pub outcome: Result<(i32, MetricStatus), (String, String)>,
}

/// What is written and said.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The number of pods to ask for, if it is another.
    pub scale: Option<i32>,
    /// Why.
    pub reason: String,
    pub status: HorizontalPodAutoscalerStatus,
    pub events: Vec<(Kind, String, String)>,
}

/// The plan for an autoscaler whose target has this size; the past is what it remembers.
pub(crate) fn plan(
    hpa: &HorizontalPodAutoscaler,
    spec: &HorizontalPodAutoscalerSpec,
    replicas: i32,
    running: i32,
    verdicts: &[Verdict],
    past: &mut Past,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan { status: hpa.status.clone().unwrap_or_default(), ..Plan::default() };
    let least = spec.min_replicas.unwrap_or(1);
    plan.status.observed_generation = hpa.metadata.generation;
    plan.status.current_replicas = Some(running).filter(|count| *count != 0);
    let message = "the HPA controller was able to get the target's current scale";
    say(&mut plan.status, now, "AbleToScale", true, "SucceededGetScale", message);
    let wanted = if replicas == 0 && least != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        say(&mut plan.status, now, "ScalingActive", false, "ScalingDisabled", message);
        0
    } else if replicas > spec.max_replicas {
        plan.reason = "Current number of replicas above Spec.MaxReplicas".to_owned();
        spec.max_replicas
    } else if replicas < least {
        plan.reason = "Current number of replicas below Spec.MinReplicas".to_owned();
        least
    } else {
        match by_metrics(replicas, verdicts, &mut plan, now) {
            Some(wanted) => settle(spec, replicas, wanted, past, &mut plan, now),
            None => replicas,
        }
    };
    plan.status.desired_replicas = wanted;
    if wanted != replicas {
        plan.scale = Some(wanted);
    }
    plan
}

/// The largest of what the metrics say; nothing if too little is known.
fn by_metrics(replicas: i32, verdicts: &[Verdict], plan: &mut Plan, now: Timestamp) -> Option<i32> {
    let mut wanted: Option<(i32, &str)> = None;
    let mut wrong: Option<(&str, &str)> = None;
    let mut count = 0;
    let mut seen = Vec::new();
    for verdict in verdicts {
        match &verdict.outcome {
            Ok((number, status)) => {
                seen.push(status.clone());
                if wanted.is_none_or(|(most, _)| *number > most) {
                    wanted = Some((*number, &verdict.title));
                }
            }
            Err((reason, message)) => {
                count += 1;
                plan.events.push((Kind::Warning, reason.clone(), message.clone()));
                wrong.get_or_insert((reason, message));
            }
        }
    }
    plan.status.current_metrics = Some(seen).filter(|seen| !seen.is_empty());
    // Fewer pods only if all are heard.
    let unknown = wanted.is_none_or(|(number, _)| count > 0 && number < replicas);
    if let (true, Some((reason, message))) = (unknown, wrong) {
        let words = format!("the HPA was unable to compute the replica count: {message}");
        say(&mut plan.status, now, "ScalingActive", false, reason, &words);
        let total = verdicts.len();
        let first = format!("invalid metrics ({count} invalid out of {total}), first error is: {message}");
        plan.events.push((Kind::Warning, "FailedComputeMetricsReplicas".to_owned(), first));
        return None;
    }
    let (number, title) = wanted?;
    let words = format!("the HPA was able to successfully calculate a replica count from {title}");
    say(&mut plan.status, now, "ScalingActive", true, "ValidMetricFound", &words);
    plan.reason =
        if number > replicas { format!("{title} above target") } else { "All metrics below target".to_owned() };
    Some(number)
}

/// What of it is done now.
fn settle(
    spec: &HorizontalPodAutoscalerSpec,
    replicas: i32,
    wanted: i32,
    past: &mut Past,
    plan: &mut Plan,
    now: Timestamp,
) -> i32 {
    past.forget(now);
    let stable = stabilize(spec, past, replicas, wanted, now);
    past.recommended.push((now, wanted));
    let (reason, message) = if stable == wanted {
        ("ReadyForNewScale", "recommended size matches current size")
    } else if stable > wanted {
        let words = "recent recommendations were higher than current one, applying the highest recent recommendation";
        ("ScaleDownStabilized", words)
    } else {
        let words = "recent recommendations were lower than current one, applying the lowest recent recommendation";
        ("ScaleUpStabilized", words)
    };
    say(&mut plan.status, now, "AbleToScale", true, reason, message);
    let limited = limit(spec, past, replicas, stable, now);
    say(&mut plan.status, now, "ScalingLimited", limited.is_limited, limited.reason, limited.message);
    limited.replicas
}

/// Sets a condition; one that says the same keeps its time.
pub(crate) fn say(
    status: &mut HorizontalPodAutoscalerStatus,
    now: Timestamp,
    kind: &str,
    is_true: bool,
    reason: &str,
    message: &str,
) {
    let word = if is_true { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let found = conditions.iter().position(|condition| condition.type_ == kind);
    let since = found
        .and_then(|place| conditions.get(place))
        .filter(|before| before.status == word)
        .and_then(|before| before.last_transition_time.clone())
        .unwrap_or(Time(now));
    let condition = HorizontalPodAutoscalerCondition {
        type_: kind.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since),
    };
    match found.and_then(|place| conditions.get_mut(place)) {
        Some(before) => *before = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use k8s_openapi::jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::*;

    struct Case {
        hpa: HorizontalPodAutoscaler,
        past: Past,
        now: Timestamp,
    }

    impl Case {
        fn new(spec: Value) -> Case {
            let mut wanted =
                json!({"maxReplicas": 10, "minReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "web"}});
            wanted.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let hpa = serde_json::from_value(json!({"metadata": {"name": "h"}, "spec": wanted})).unwrap();
            Case { hpa, past: Past::default(), now: "2026-01-01T01:00:00Z".parse().unwrap() }
        }

        /// So many seconds later, with these numbers by the metrics: what is done, and what is said of it.
        fn then(&mut self, after_s: i64, replicas: i32, says: &[Option<i32>]) -> String {
            self.now += SignedDuration::from_secs(after_s);
            let verdict = |number: &Option<i32>| Verdict {
                title: "cpu".to_owned(),
                outcome: match number {
                    Some(number) => Ok((*number, MetricStatus::default())),
                    None => Err(("FailedGetResourceMetric".to_owned(), "no".to_owned())),
                },
            };
            let verdicts: Vec<Verdict> = says.iter().map(verdict).collect();
            let spec = self.hpa.spec.clone().unwrap();
            let plan = plan(&self.hpa, &spec, replicas, replicas, &verdicts, &mut self.past, self.now);
            if let Some(scale) = plan.scale {
                self.past.changed.push((self.now, scale - replicas));
            }
            let reasons: Vec<String> =
                plan.status.conditions.iter().flatten().filter_map(|c| c.reason.clone()).collect();
            self.hpa.status = Some(plan.status);
            format!("{} {}", plan.scale.map_or("stays".to_owned(), |scale| scale.to_string()), reasons.join(","))
        }
    }

    #[test]
    fn limits_are_kept_whatever_is_known() {
        assert_eq!(Case::new(json!({})).then(0, 12, &[]), "10 SucceededGetScale");
        assert_eq!(Case::new(json!({})).then(0, 1, &[None]), "2 SucceededGetScale");
        assert_eq!(Case::new(json!({})).then(0, 0, &[Some(5)]), "stays SucceededGetScale,ScalingDisabled");
        assert_eq!(Case::new(json!({})).then(0, 3, &[None]), "stays SucceededGetScale,FailedGetResourceMetric");
        // Fewer only if all are heard, more at once.
        assert_eq!(
            Case::new(json!({})).then(0, 3, &[Some(2), None]),
            "stays SucceededGetScale,FailedGetResourceMetric"
        );
        assert_eq!(
            Case::new(json!({})).then(0, 3, &[Some(4), None]),
            "4 ReadyForNewScale,ValidMetricFound,DesiredWithinRange"
        );
        assert_eq!(
            Case::new(json!({})).then(0, 3, &[Some(4), Some(6)]),
            "6 ReadyForNewScale,ValidMetricFound,DesiredWithinRange"
        );
        assert_eq!(
            Case::new(json!({})).then(0, 8, &[Some(40)]),
            "10 ReadyForNewScale,ValidMetricFound,TooManyReplicas"
        );
        assert_eq!(Case::new(json!({})).then(0, 3, &[Some(1)]), "2 ReadyForNewScale,ValidMetricFound,TooFewReplicas");
    }

    #[test]
    fn it_grows_at_a_rate_and_shrinks_after_a_while() {
        let mut case = Case::new(json!({"maxReplicas": 100}));
        assert_eq!(case.then(0, 3, &[Some(50)]), "7 ReadyForNewScale,ValidMetricFound,ScaleUpLimit");
        assert_eq!(case.then(5, 7, &[Some(50)]), "stays ReadyForNewScale,ValidMetricFound,ScaleUpLimit");
        assert_eq!(case.then(15, 7, &[Some(50)]), "14 ReadyForNewScale,ValidMetricFound,ScaleUpLimit");
        assert_eq!(case.then(15, 14, &[Some(5)]), "stays ScaleDownStabilized,ValidMetricFound,DesiredWithinRange");
        assert_eq!(case.then(290, 14, &[Some(6)]), "6 ReadyForNewScale,ValidMetricFound,DesiredWithinRange");
        let slow = json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
            "scaleUp": {"selectPolicy": "Disabled"}}});
        let mut case = Case::new(slow);
        assert_eq!(case.then(0, 8, &[Some(3)]), "7 ReadyForNewScale,ValidMetricFound,ScaleDownLimit");
        assert_eq!(case.then(30, 7, &[Some(3)]), "stays ReadyForNewScale,ValidMetricFound,ScaleDownLimit");
        assert_eq!(case.then(30, 7, &[Some(3)]), "6 ReadyForNewScale,ValidMetricFound,ScaleDownLimit");
        assert_eq!(case.then(60, 6, &[Some(9)]), "stays ReadyForNewScale,ValidMetricFound,ScaleUpLimit");
    }
}
