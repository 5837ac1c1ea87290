//! Which pods a Job that goes on lacks, and which it has too many of. No effects.
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use k8s_openapi::jiff::Timestamp;

use super::count::{Backoff, FAILURES, FINALIZER, IGNORED, View, annotation, ended_at, number, tries};
use super::indexes::INDEX;
use super::policy::judge;
use crate::objects::{controller_reference, name};
use crate::pods::from_template;
use crate::rank::expendable;

/// Changes of pods.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<Pod>,
    /// When a pod may be made that has to wait now.
    pub wake: Option<Duration>,
}

/// As many as kube-controller-manager makes or removes in one go.
const BURST_MAX: usize = 500;
/// A generated name has five more letters, and 63 in all.
const PREFIX_MAX: usize = 58;

/// What is to be changed. Never both: what is deleted is seen to go before others are made.
pub(crate) fn changes(view: &View<'_>, now: Timestamp) -> Changes {
    let active = number(view.active.len());
    let wanted = wanted(view);
    let delete = surplus(view, active.saturating_sub(wanted).max(0), now);
    if view.is_suspended() || !delete.is_empty() {
        return Changes { delete, ..Changes::default() };
    }
    let leaving = if view.waits_for_the_end() { number(view.terminating().len()) } else { 0 };
    let missing = usize::try_from(wanted - leaving - active).unwrap_or(0).min(BURST_MAX);
    if missing == 0 {
        return Changes::default();
    }
    if view.spec.backoff_limit_per_index.is_none()
        && let Some(left) = view.backoff.remaining(now)
    {
        return Changes { wake: Some(left), ..Changes::default() };
    }
    if !view.is_indexed() {
        return Changes { create: vec![pod(view.job, view, None, None); missing], ..Changes::default() };
    }
    let replaceable = view.replaceable();
    let mut changes = Changes::default();
    for index in pending(view, missing) {
        let before = replaceable.get(&index);
        let backoff = before
            .map(|pod| Backoff { failures: u32::try_from(tries(pod)).unwrap_or(0) + 1, last: Some(ended_at(pod)) });
        match backoff.and_then(|backoff| backoff.remaining(now)) {
            Some(left) => changes.wake = Some(changes.wake.map_or(left, |wake| wake.min(left))),
            None => changes.create.push(pod(view.job, view, Some(index), before)),
        }
    }
    changes
}

fn wanted(view: &View<'_>) -> i32 {
    let parallelism = view.spec.parallelism.unwrap_or(1).max(0);
    if view.is_suspended() {
        return 0;
    }
    match view.spec.completions {
        // One success is enough, and those that run may end.
        None if view.succeeded > 0 => number(view.active.len()),
        None => parallelism,
        Some(completions) => {
            let lost = if view.spec.backoff_limit_per_index.is_some() { view.failed_indexes.total() } else { 0 };
            (completions - view.succeeded - lost).clamp(0, parallelism)
        }
    }
}

/// Pods to remove: those of an index that another has, then those that are missed least.
fn surplus(view: &View<'_>, at_least: i32, now: Timestamp) -> Vec<Arc<Pod>> {
    let at_least = usize::try_from(at_least).unwrap_or(0);
    let (mut remove, mut left) = (Vec::new(), Vec::new());
    if view.is_indexed() {
        let mut has: BTreeSet<i32> = BTreeSet::new();
        // Of equals the oldest stays.
        let mut by_age = view.active.clone();
        by_age.sort_by_key(|pod| (pod.metadata.creation_timestamp.clone(), pod.metadata.name.clone()));
        for pod in by_age {
            match view.index(&pod) {
                Some(index) if has.insert(index) => left.push(pod),
                _ => remove.push(pod),
            }
        }
    } else {
        left = view.active.clone();
    }
    let more = at_least.saturating_sub(remove.len());
    remove.extend(expendable(&left, more, now));
    remove.truncate(BURST_MAX);
    remove
}

/// The first indexes that nobody works on.
fn pending(view: &View<'_>, count: usize) -> Vec<i32> {
    let mut taken: BTreeSet<i32> = view.active.iter().filter_map(|pod| view.index(pod)).collect();
    if view.waits_for_the_end() {
        taken.extend(view.terminating().into_iter().filter_map(|pod| view.index(pod)));
    }
    let free =
        |index: &i32| !taken.contains(index) && !view.succeeded_indexes.has(*index) && !view.failed_indexes.has(*index);
    (0..view.spec.completions.unwrap_or(0)).filter(free).take(count).collect()
}

/// A pod of the Job's template. `before` is the failed pod of the same index that it follows.
fn pod(job: &Job, view: &View<'_>, index: Option<i32>, before: Option<&Arc<Pod>>) -> Pod {
    let mut pod =
        from_template(&view.spec.template, &job.metadata, controller_reference("batch/v1", "Job", &job.metadata));
    let title = name(&job.metadata);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if finalizers.iter().all(|found| found != FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let Some(index) = index else {
        pod.metadata.generate_name = Some(format!("{title}-"));
        return pod;
    };
    let end = format!("-{index}-");
    let start: String = title.chars().take(PREFIX_MAX.saturating_sub(end.len())).collect();
    pod.metadata.generate_name = Some(format!("{start}{end}"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if view.spec.backoff_limit_per_index.is_some() {
        let (counts, ignored) = before.map_or((0, 0), |before| {
            let counts = judge(view.spec, before).counts();
            let (failures, ignored) = (annotation(before, FAILURES), annotation(before, IGNORED));
            (failures + i32::from(counts), ignored + i32::from(!counts))
        });
        annotations.insert(FAILURES.to_owned(), counts.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{title}-{index}"));
        spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(say_index);
    }
    pod
}

/// A container is told its index, unless it says otherwise itself.
fn say_index(container: &mut Container) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == NAME) {
        return;
    }
    let field_ref = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
    let value_from = Some(EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() });
    variables.push(EnvVar { name: NAME.to_owned(), value: None, value_from });
}
