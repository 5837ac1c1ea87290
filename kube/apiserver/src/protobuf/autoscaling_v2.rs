//! autoscaling/v2: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/autoscaling/v2`. How to read a line: [`super::table`].

use super::meta::{LabelSelector, ObjectMeta};

super::table::messages! {
    ContainerResourceMetricSource: 1 "name" one string, 2 "target" one MetricTarget, 3 "container" one string;
    ContainerResourceMetricStatus: 1 "name" one string, 2 "current" one MetricValueStatus, 3 "container" one string;
    CrossVersionObjectReference: 1 "kind" one string, 2 "name" one string, 3 "apiVersion" one string;
    ExternalMetricSource: 1 "metric" one MetricIdentifier, 2 "target" one MetricTarget;
    ExternalMetricStatus: 1 "metric" one MetricIdentifier, 2 "current" one MetricValueStatus;
    HPAScalingPolicy: 1 "type" one string, 2 "value" one int32, 3 "periodSeconds" one int32;
    HPAScalingRules:
        1 "selectPolicy" opt string, 2 "policies" list HPAScalingPolicy, 3 "stabilizationWindowSeconds" opt int32,
        4 "tolerance" one quantity;
    HorizontalPodAutoscaler:
        1 "metadata" one ObjectMeta, 2 "spec" one HorizontalPodAutoscalerSpec,
        3 "status" one HorizontalPodAutoscalerStatus;
    HorizontalPodAutoscalerBehavior: 1 "scaleUp" one HPAScalingRules, 2 "scaleDown" one HPAScalingRules;
    HorizontalPodAutoscalerCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string;
    HorizontalPodAutoscalerSpec:
        1 "scaleTargetRef" one CrossVersionObjectReference, 2 "minReplicas" opt int32, 3 "maxReplicas" one int32,
        4 "metrics" list MetricSpec, 5 "behavior" one HorizontalPodAutoscalerBehavior;
    HorizontalPodAutoscalerStatus:
        1 "observedGeneration" opt int64, 2 "lastScaleTime" one time, 3 "currentReplicas" one int32,
        4 "desiredReplicas" one int32, 5 "currentMetrics" list MetricStatus,
        6 "conditions" list HorizontalPodAutoscalerCondition;
    MetricIdentifier: 1 "name" one string, 2 "selector" one LabelSelector;
    MetricSpec:
        1 "type" one string, 2 "object" one ObjectMetricSource, 3 "pods" one PodsMetricSource,
        4 "resource" one ResourceMetricSource, 5 "external" one ExternalMetricSource,
        7 "containerResource" one ContainerResourceMetricSource;
    MetricStatus:
        1 "type" one string, 2 "object" one ObjectMetricStatus, 3 "pods" one PodsMetricStatus,
        4 "resource" one ResourceMetricStatus, 5 "external" one ExternalMetricStatus,
        7 "containerResource" one ContainerResourceMetricStatus;
    MetricTarget:
        1 "type" one string, 2 "value" one quantity, 3 "averageValue" one quantity, 4 "averageUtilization" opt int32;
    MetricValueStatus: 1 "value" one quantity, 2 "averageValue" one quantity, 3 "averageUtilization" opt int32;
    ObjectMetricSource:
        1 "describedObject" one CrossVersionObjectReference, 2 "target" one MetricTarget,
        3 "metric" one MetricIdentifier;
    ObjectMetricStatus:
        1 "metric" one MetricIdentifier, 2 "current" one MetricValueStatus,
        3 "describedObject" one CrossVersionObjectReference;
    PodsMetricSource: 1 "metric" one MetricIdentifier, 2 "target" one MetricTarget;
    PodsMetricStatus: 1 "metric" one MetricIdentifier, 2 "current" one MetricValueStatus;
    ResourceMetricSource: 1 "name" one string, 2 "target" one MetricTarget;
    ResourceMetricStatus: 1 "name" one string, 2 "current" one MetricValueStatus;
}
