//! autoscaling/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/autoscaling/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    Scale: 1 "metadata" one ObjectMeta, 2 "spec" one ScaleSpec, 3 "status" one ScaleStatus;
    ScaleSpec: 1 "replicas" one int32;
    ScaleStatus: 1 "replicas" one int32, 2 "selector" one string;
}
