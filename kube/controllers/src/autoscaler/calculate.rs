//! How many pods would use as much as is meant, each. No effects.
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::objects::{condition, name};

/// What a pod has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Thousandths of the resource's unit.
    pub millis: i64,
    pub at: Timestamp,
    /// Over so long before.
    pub window_s: i64,
}

/// What each pod is to use on average.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Per cent of what it requests.
    Utilization(i32),
    /// Thousandths of the resource's unit.
    Average(i64),
}

/// What is meant, and of what.
pub(crate) struct Question<'a> {
    /// As the scale says.
    pub replicas: i32,
    pub pods: Vec<&'a Pod>,
    /// By the names of pods.
    pub samples: &'a BTreeMap<String, Sample>,
    /// What each pod requests, in thousandths; what is wrong with those that request nothing.
    pub requests: Result<BTreeMap<String, i64>, String>,
    pub target: Target,
    /// CPU of a pod that begins says nothing about it.
    pub is_cpu: bool,
    /// So little above or below is as meant.
    pub tolerance: f64,
    pub now: Timestamp,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub replicas: i32,
    pub utilization: Option<i32>,
    pub average_millis: i64,
}

/// A pod's CPU is not believed for so long, and one that was never ready is not believed if it should have been by then.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    used: BTreeMap<String, i64>,
}

/// The number of pods that would use as much as is meant.
///
/// # Errors
/// Why it cannot be said, in upstream's words.
pub(crate) fn calculate(question: &Question<'_>) -> Result<Answer, String> {
    let mut groups = group(question);
    if groups.used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (ratio, utilization, average_millis) = ratio(question, &groups.used)?;
    let answer = |replicas: i32| Answer { replicas, utilization, average_millis };
    let is_meant = |ratio: f64| (1.0 - ratio).abs() <= question.tolerance;
    let unready_too = !groups.unready.is_empty() && ratio > 1.0;
    if !unready_too && groups.missing.is_empty() {
        let replicas = if is_meant(ratio) { question.replicas } else { times(ratio, groups.ready) };
        return Ok(answer(replicas));
    }
    // Whoever is not heard is taken for what speaks against a change.
    for pod in std::mem::take(&mut groups.missing) {
        let full = match (question.target, &question.requests) {
            (Target::Utilization(percent), Ok(requests)) => {
                requests.get(&pod).copied().unwrap_or(0) * i64::from(percent.max(100)) / 100
            }
            (Target::Average(millis), _) => millis,
            (Target::Utilization(_), Err(error)) => return Err(error.clone()),
        };
        if ratio < 1.0 {
            groups.used.insert(pod, full);
        } else if ratio > 1.0 {
            groups.used.insert(pod, 0);
        }
    }
    if unready_too {
        groups.used.extend(groups.unready.iter().map(|pod| (pod.clone(), 0)));
    }
    let (again, _, _) = self::ratio(question, &groups.used)?;
    let turned = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    let replicas = times(again, groups.used.len());
    let astray = (again < 1.0 && replicas > question.replicas) || (again > 1.0 && replicas < question.replicas);
    Ok(answer(if is_meant(again) || turned || astray { question.replicas } else { replicas }))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // numbers of pods; `as` stops at the ends
fn times(ratio: f64, pods: usize) -> i32 {
    (ratio * pods as f64).ceil() as i32
}

fn group(question: &Question<'_>) -> Groups {
    let mut groups = Groups::default();
    for pod in &question.pods {
        let title = name(&pod.metadata).to_owned();
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        if pod.metadata.deletion_timestamp.is_some() || phase == "Failed" {
            continue;
        }
        match question.samples.get(&title) {
            _ if phase == "Pending" => {
                groups.unready.insert(title);
            }
            None => {
                groups.missing.insert(title);
            }
            Some(sample) if question.is_cpu && !is_believed(pod, sample, question.now) => {
                groups.unready.insert(title);
            }
            Some(sample) => {
                groups.ready += 1;
                groups.used.insert(title, sample.millis);
            }
        }
    }
    groups
}

/// Whether the CPU of a pod is that of its work, not of its beginning.
fn is_believed(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    let (Some(start), Some(ready)) = (start, condition(pod, "Ready")) else { return false };
    let since = ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let is_ready = ready.status != "False";
    if now.duration_since(start) < CPU_INITIALIZATION {
        return is_ready && sample.at.duration_since(since) >= SignedDuration::from_secs(sample.window_s);
    }
    is_ready || since.duration_since(start) >= INITIAL_READINESS
}

/// Used to meant, used in per cent of requests, and used on average.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // amounts of resources
fn ratio(question: &Question<'_>, used: &BTreeMap<String, i64>) -> Result<(f64, Option<i32>, i64), String> {
    let count = i64::try_from(used.len()).unwrap_or(i64::MAX).max(1);
    match question.target {
        Target::Average(millis) => {
            let average = used.values().sum::<i64>() / count;
            Ok((average as f64 / millis.max(1) as f64, None, average))
        }
        Target::Utilization(percent) => {
            let requests = question.requests.as_ref().map_err(Clone::clone)?;
            let known = used.iter().filter_map(|(pod, used)| Some((used, requests.get(pod)?)));
            let (sum, requested) = known.fold((0, 0), |(a, b), (used, requested)| (a + used, b + requested));
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let utilization = sum * 100 / requested;
            let utilization = i32::try_from(utilization).unwrap_or(i32::MAX);
            Ok((f64::from(utilization) / f64::from(percent.max(1)), Some(utilization), sum / count))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::*;

    /// `used word…`: `?` for no sample; `Pending`, `Failed`, `young` (began 1 min ago and was ready at once), `never` (was never ready).
    fn ask(replicas: i32, target: Target, pods: &[&str]) -> Result<Answer, String> {
        let mut samples = BTreeMap::new();
        let mut made = Vec::new();
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        for (number, text) in pods.iter().enumerate() {
            let words: Vec<&str> = text.split(' ').collect();
            let has = |word: &str| words.contains(&word);
            let phase = ["Pending", "Failed"].into_iter().find(|phase| has(phase)).unwrap_or("Running");
            let start = if has("young") { "2026-01-01T00:59:00Z" } else { "2026-01-01T00:00:00Z" };
            let ready = if has("never") { "False" } else { "True" };
            let pod: Pod = serde_json::from_value(
                json!({"metadata": {"name": format!("p{number}")}, "status": {"phase": phase, "startTime": start,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": start}]}}),
            )
            .unwrap();
            if let Ok(millis) = words[0].parse() {
                samples.insert(
                    format!("p{number}"),
                    Sample { millis, at: now, window_s: if has("soon") { 90 } else { 30 } },
                );
            }
            made.push(pod);
        }
        let requests = Ok(made.iter().map(|pod| (name(&pod.metadata).to_owned(), 1000)).collect());
        let pods = made.iter().collect();
        calculate(&Question { replicas, pods, samples: &samples, requests, target, is_cpu: true, tolerance: 0.1, now })
    }

    /// Cases of upstream's replica_calculator_test.
    #[test]
    fn the_number_follows_what_is_used() {
        let number = |replicas: i32, percent: i32, pods: &[&str]| {
            ask(replicas, Target::Utilization(percent), pods)
                .map(|answer| (answer.replicas, answer.utilization.unwrap()))
        };
        assert_eq!(number(3, 30, &["300", "500", "700"]), Ok((5, 50)));
        assert_eq!(number(3, 50, &["500", "520", "540"]), Ok((3, 52)), "within the tolerance");
        assert_eq!(number(5, 50, &["100", "300", "500", "250", "250"]), Ok((3, 28)));
        // Pods that begin count as idle when there would be more of them.
        assert_eq!(number(3, 30, &["0 Pending", "500", "700"]), Ok((4, 60)));
        assert_eq!(number(3, 30, &["0 Pending", "0 Pending", "400"]), Ok((3, 40)), "would turn with them");
        assert_eq!(number(3, 30, &["400 young soon", "500", "700"]), Ok((4, 60)));
        assert_eq!(number(3, 30, &["400 young", "500", "700"]), Ok((6, 53)));
        assert_eq!(number(3, 30, &["400 never", "500", "700"]), Ok((4, 60)));
        assert_eq!(number(2, 50, &["250", "250", "900 Failed"]), Ok((1, 25)));
        // Who is not heard speaks against a change.
        assert_eq!(number(4, 100, &["?", "200", "100", "300"]), Ok((2, 20)));
        assert_eq!(number(2, 20, &["?", "1000"]), Ok((5, 100)));
        assert_eq!(number(2, 45, &["?", "500"]), Ok((2, 50)), "would turn");
        assert!(number(2, 50, &["?", "?"]).unwrap_err().contains("did not receive metrics"));
        let average =
            |millis: i64, pods: &[&str]| ask(3, Target::Average(millis), pods).map(|a| (a.replicas, a.average_millis));
        assert_eq!(average(200, &["300", "500", "700"]), Ok((8, 500)));
        assert_eq!(average(480, &["300", "500", "700"]), Ok((3, 500)));
        assert_eq!(average(1000, &["300", "?", "700"]), Ok((2, 500)));
    }
}
