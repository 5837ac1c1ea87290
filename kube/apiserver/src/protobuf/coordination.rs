//! coordination.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/coordination/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    Lease: 1 "metadata" one ObjectMeta, 2 "spec" one LeaseSpec;
    LeaseSpec:
        1 "holderIdentity" opt string, 2 "leaseDurationSeconds" opt int32, 3 "acquireTime" one micro_time,
        4 "renewTime" one micro_time, 5 "leaseTransitions" opt int32, 6 "strategy" opt string,
        7 "preferredHolder" opt string;
}
