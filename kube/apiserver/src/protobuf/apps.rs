//! apps/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/apps/v1`. How to read a line: [`super::table`].

use super::core::{PersistentVolumeClaim, PodTemplateSpec};
use super::meta::{LabelSelector, ObjectMeta};

super::table::messages! {
    ControllerRevision: 1 "metadata" one ObjectMeta, 2 "data" one json, 3 "revision" one int64;
    DaemonSet: 1 "metadata" one ObjectMeta, 2 "spec" one DaemonSetSpec, 3 "status" one DaemonSetStatus;
    DaemonSetCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string;
    DaemonSetSpec:
        1 "selector" one LabelSelector, 2 "template" one PodTemplateSpec,
        3 "updateStrategy" one DaemonSetUpdateStrategy, 4 "minReadySeconds" one int32,
        6 "revisionHistoryLimit" opt int32;
    DaemonSetStatus:
        1 "currentNumberScheduled" one int32, 2 "numberMisscheduled" one int32, 3 "desiredNumberScheduled" one int32,
        4 "numberReady" one int32, 5 "observedGeneration" one int64, 6 "updatedNumberScheduled" one int32,
        7 "numberAvailable" one int32, 8 "numberUnavailable" one int32, 9 "collisionCount" opt int32,
        10 "conditions" list DaemonSetCondition;
    DaemonSetUpdateStrategy: 1 "type" one string, 2 "rollingUpdate" one RollingUpdateDaemonSet;
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
    RollingUpdateDaemonSet: 1 "maxUnavailable" one int_or_string, 2 "maxSurge" one int_or_string;
    RollingUpdateDeployment: 1 "maxUnavailable" one int_or_string, 2 "maxSurge" one int_or_string;
    RollingUpdateStatefulSetStrategy: 1 "partition" opt int32, 2 "maxUnavailable" one int_or_string;
    StatefulSet: 1 "metadata" one ObjectMeta, 2 "spec" one StatefulSetSpec, 3 "status" one StatefulSetStatus;
    StatefulSetCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string;
    StatefulSetOrdinals: 1 "start" one int32;
    StatefulSetPersistentVolumeClaimRetentionPolicy: 1 "whenDeleted" one string, 2 "whenScaled" one string;
    StatefulSetSpec:
        1 "replicas" opt int32, 2 "selector" one LabelSelector, 3 "template" one PodTemplateSpec,
        4 "volumeClaimTemplates" list PersistentVolumeClaim, 5 "serviceName" one string,
        6 "podManagementPolicy" one string, 7 "updateStrategy" one StatefulSetUpdateStrategy,
        8 "revisionHistoryLimit" opt int32, 9 "minReadySeconds" one int32,
        10 "persistentVolumeClaimRetentionPolicy" one StatefulSetPersistentVolumeClaimRetentionPolicy,
        11 "ordinals" one StatefulSetOrdinals;
    StatefulSetStatus:
        1 "observedGeneration" one int64, 2 "replicas" one int32, 3 "readyReplicas" one int32,
        4 "currentReplicas" one int32, 5 "updatedReplicas" one int32, 6 "currentRevision" one string,
        7 "updateRevision" one string, 9 "collisionCount" opt int32, 10 "conditions" list StatefulSetCondition,
        11 "availableReplicas" one int32;
    StatefulSetUpdateStrategy: 1 "type" one string, 2 "rollingUpdate" one RollingUpdateStatefulSetStrategy;
}
