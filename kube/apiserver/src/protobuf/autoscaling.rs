//! autoscaling/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/autoscaling/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    CrossVersionObjectReference: 1 "kind" one string, 2 "name" one string, 3 "apiVersion" one string;
    HorizontalPodAutoscaler:
        1 "metadata" one ObjectMeta, 2 "spec" one HorizontalPodAutoscalerSpec,
        3 "status" one HorizontalPodAutoscalerStatus;
    HorizontalPodAutoscalerSpec:
        1 "scaleTargetRef" one CrossVersionObjectReference, 2 "minReplicas" opt int32, 3 "maxReplicas" one int32,
        4 "targetCPUUtilizationPercentage" opt int32;
    HorizontalPodAutoscalerStatus:
        1 "observedGeneration" opt int64, 2 "lastScaleTime" one time, 3 "currentReplicas" one int32,
        4 "desiredReplicas" one int32, 5 "currentCPUUtilizationPercentage" opt int32;
    Scale: 1 "metadata" one ObjectMeta, 2 "spec" one ScaleSpec, 3 "status" one ScaleStatus;
    ScaleSpec: 1 "replicas" one int32;
    ScaleStatus: 1 "replicas" one int32, 2 "selector" one string;
}
