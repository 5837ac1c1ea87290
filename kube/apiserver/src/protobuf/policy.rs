//! policy/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/policy/v1`. How to read a line: [`super::table`].

use super::meta::{Condition, DeleteOptions, LabelSelector, ObjectMeta};

super::table::messages! {
    Eviction: 1 "metadata" one ObjectMeta, 2 "deleteOptions" one DeleteOptions;
    PodDisruptionBudget:
        1 "metadata" one ObjectMeta, 2 "spec" one PodDisruptionBudgetSpec, 3 "status" one PodDisruptionBudgetStatus;
    PodDisruptionBudgetSpec:
        1 "minAvailable" one int_or_string, 2 "selector" one LabelSelector, 3 "maxUnavailable" one int_or_string,
        4 "unhealthyPodEvictionPolicy" opt string;
    PodDisruptionBudgetStatus:
        1 "observedGeneration" one int64, 2 "disruptedPods" map time, 3 "disruptionsAllowed" one int32,
        4 "currentHealthy" one int32, 5 "desiredHealthy" one int32, 6 "expectedPods" one int32,
        7 "conditions" list Condition;
}
