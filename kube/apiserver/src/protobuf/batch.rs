//! batch/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/batch/v1`. How to read a line: [`super::table`].

use super::core::{ObjectReference, PodTemplateSpec};
use super::meta::{LabelSelector, ObjectMeta};

super::table::messages! {
    CronJob: 1 "metadata" one ObjectMeta, 2 "spec" one CronJobSpec, 3 "status" one CronJobStatus;
    CronJobSpec:
        1 "schedule" one string, 2 "startingDeadlineSeconds" opt int64, 3 "concurrencyPolicy" one string,
        4 "suspend" opt bool, 5 "jobTemplate" one JobTemplateSpec, 6 "successfulJobsHistoryLimit" opt int32,
        7 "failedJobsHistoryLimit" opt int32, 8 "timeZone" opt string;
    CronJobStatus: 1 "active" list ObjectReference, 4 "lastScheduleTime" one time, 5 "lastSuccessfulTime" one time;
    Job: 1 "metadata" one ObjectMeta, 2 "spec" one JobSpec, 3 "status" one JobStatus;
    JobCondition:
        1 "type" one string, 2 "status" one string, 3 "lastProbeTime" one time, 4 "lastTransitionTime" one time,
        5 "reason" one string, 6 "message" one string;
    JobSpec:
        1 "parallelism" opt int32, 2 "completions" opt int32, 3 "activeDeadlineSeconds" opt int64,
        4 "selector" one LabelSelector, 5 "manualSelector" opt bool, 6 "template" one PodTemplateSpec,
        7 "backoffLimit" opt int32, 8 "ttlSecondsAfterFinished" opt int32, 9 "completionMode" opt string,
        10 "suspend" opt bool, 11 "podFailurePolicy" one PodFailurePolicy, 12 "backoffLimitPerIndex" opt int32,
        13 "maxFailedIndexes" opt int32, 14 "podReplacementPolicy" opt string, 15 "managedBy" opt string,
        16 "successPolicy" one SuccessPolicy;
    JobStatus:
        1 "conditions" list JobCondition, 2 "startTime" one time, 3 "completionTime" one time, 4 "active" one int32,
        5 "succeeded" one int32, 6 "failed" one int32, 7 "completedIndexes" one string,
        8 "uncountedTerminatedPods" one UncountedTerminatedPods, 9 "ready" opt int32, 10 "failedIndexes" opt string,
        11 "terminating" opt int32;
    JobTemplateSpec: 1 "metadata" one ObjectMeta, 2 "spec" one JobSpec;
    PodFailurePolicy: 1 "rules" list PodFailurePolicyRule;
    PodFailurePolicyOnExitCodesRequirement:
        1 "containerName" opt string, 2 "operator" one string, 3 "values" list int32;
    PodFailurePolicyOnPodConditionsPattern: 1 "type" one string, 2 "status" one string;
    PodFailurePolicyRule:
        1 "action" one string, 2 "onExitCodes" one PodFailurePolicyOnExitCodesRequirement,
        3 "onPodConditions" list PodFailurePolicyOnPodConditionsPattern;
    SuccessPolicy: 1 "rules" list SuccessPolicyRule;
    SuccessPolicyRule: 1 "succeededIndexes" opt string, 2 "succeededCount" opt int32;
    UncountedTerminatedPods: 1 "succeeded" list string, 2 "failed" list string;
}
