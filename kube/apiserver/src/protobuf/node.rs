//! node.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of `k8s.io/api/node/v1`. How to read a line:
//! [`super::table`].

use super::core::Toleration;
use super::meta::ObjectMeta;

super::table::messages! {
    Overhead: 1 "podFixed" map quantity;
    RuntimeClass:
        1 "metadata" one ObjectMeta, 2 "handler" one string, 3 "overhead" one Overhead, 4 "scheduling" one Scheduling;
    Scheduling: 1 "nodeSelector" map string, 2 "tolerations" list Toleration;
}
