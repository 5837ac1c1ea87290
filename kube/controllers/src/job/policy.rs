//! What the failure of a pod means for its Job, and when enough has succeeded. No effects.
use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, SuccessPolicy};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::indexes::Indexes;
use crate::objects::{name, namespace};

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// One more failure.
    Counts,
    /// Not of the Job's making.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The Job has failed, for this reason.
    FailsJob(String),
}

impl Failure {
    /// Whether it is one of the failures of the status.
    pub fn counts(&self) -> bool {
        *self != Failure::Ignored
    }
}

/// What the failure of this pod means: the first rule that matches decides.
pub(crate) fn judge(spec: &JobSpec, pod: &Pod) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let (title, action) = (format!("{}/{}", namespace(&pod.metadata), name(&pod.metadata)), &rule.action);
        let found = if let Some(codes) = &rule.on_exit_codes {
            exited(pod, codes).map(|(container, code)| {
                format!("Container {container} for pod {title} failed with exit code {code} matching {action} rule at index {index}")
            })
        } else {
            let has = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let patterns = rule.on_pod_conditions.iter().flatten();
            let mut matching = patterns.filter_map(|pattern| {
                has.clone().find(|found| found.type_ == pattern.type_ && found.status == pattern.status)
            });
            let condition = matching.next();
            condition.map(|found| {
                format!("Pod {title} has condition {} matching {action} rule at index {index}", found.type_)
            })
        };
        if let Some(message) = found {
            return match action.as_str() {
                "Ignore" => Failure::Ignored,
                "FailIndex" => Failure::FailsIndex,
                "FailJob" => Failure::FailsJob(message),
                _ => Failure::Counts,
            };
        }
    }
    Failure::Counts
}

/// The first container that has ended with one of these codes.
fn exited<'a>(pod: &'a Pod, codes: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    statuses(pod).find_map(|status| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        let asked = codes.container_name.as_ref().is_none_or(|name| *name == status.name);
        // Success is no failure, whatever the rule says.
        let matches = code != 0 && codes.values.contains(&code) == (codes.operator == "In");
        (asked && matches).then_some((status.name.as_str(), code))
    })
}

/// All containers of a pod, also those that run before the others.
pub(crate) fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    })
}

/// Why enough has succeeded; `None` if it has not.
pub(crate) fn is_enough(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    let mut rules = policy?.rules.iter();
    let index = rules.position(|rule| {
        let (have, all) = match &rule.succeeded_indexes {
            Some(text) => {
                let asked = Indexes::parse(text, completions);
                (asked.common(succeeded), asked.total())
            }
            None => (succeeded.total(), completions),
        };
        have >= rule.succeeded_count.unwrap_or(all)
    })?;
    Some(format!("Matched rules at index {index}"))
}
