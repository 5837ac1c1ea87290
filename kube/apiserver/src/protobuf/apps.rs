//! apps/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/apps/v1`. How to read a line: [`super::table`].

use super::core::PodTemplateSpec;
use super::meta::{LabelSelector, ObjectMeta};

super::table::messages! {
    Deployment: 1 "metadata" one ObjectMeta, 2 "spec" one DeploymentSpec, 3 "status" one DeploymentStatus;
    DeploymentCondition:
        1 "type" one string, 2 "status" one string, 4 "reason" one string, 5 "message" one string,
        6 "lastUpdateTime" one time, 7 "lastTransitionTime" one time;
    DeploymentSpec:
        1 "replicas" opt int32, 2 "selector" one LabelSelector, 3 "template" one PodTemplateSpec,
        4 "strategy" one DeploymentStrategy, 5 "minReadySeconds" one int32, 6 "revisionHistoryLimit" opt int32,
        7 "paused" one bool, 9 "progressDeadlineSeconds" opt int32;
    DeploymentStatus:
        1 "observedGeneration" one int64, 2 "replicas" one int32, 3 "updatedReplicas" one int32,
        4 "availableReplicas" one int32, 5 "unavailableReplicas" one int32,
        6 "conditions" list DeploymentCondition, 7 "readyReplicas" one int32, 8 "collisionCount" opt int32,
        9 "terminatingReplicas" opt int32;
    DeploymentStrategy: 1 "type" one string, 2 "rollingUpdate" one RollingUpdateDeployment;
    ReplicaSet: 1 "metadata" one ObjectMeta, 2 "spec" one ReplicaSetSpec, 3 "status" one ReplicaSetStatus;
    ReplicaSetCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string;
    ReplicaSetSpec:
        1 "replicas" opt int32, 2 "selector" one LabelSelector, 3 "template" one PodTemplateSpec,
        4 "minReadySeconds" one int32;
    ReplicaSetStatus:
        1 "replicas" one int32, 2 "fullyLabeledReplicas" one int32, 3 "observedGeneration" one int64,
        4 "readyReplicas" one int32, 5 "availableReplicas" one int32, 6 "conditions" list ReplicaSetCondition,
        7 "terminatingReplicas" opt int32;
    RollingUpdateDeployment: 1 "maxUnavailable" one int_or_string, 2 "maxSurge" one int_or_string;
}
