//! scheduling.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/scheduling/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    PriorityClass:
        1 "metadata" one ObjectMeta, 2 "value" one int32, 3 "globalDefault" one bool, 4 "description" one string,
        5 "preemptionPolicy" opt string;
}
