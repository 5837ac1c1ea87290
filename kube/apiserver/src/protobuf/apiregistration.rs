//! apiregistration.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/kube-aggregator/pkg/apis/apiregistration/v1`. How to read a line: [`super::table`].

use super::meta::ObjectMeta;

super::table::messages! {
    APIService: 1 "metadata" one ObjectMeta, 2 "spec" one APIServiceSpec, 3 "status" one APIServiceStatus;
    APIServiceCondition:
        1 "type" one string, 2 "status" one string, 3 "lastTransitionTime" one time, 4 "reason" one string,
        5 "message" one string;
    APIServiceSpec:
        1 "service" one ServiceReference, 2 "group" one string, 3 "version" one string,
        4 "insecureSkipTLSVerify" one bool, 5 "caBundle" one bytes, 7 "groupPriorityMinimum" one int32,
        8 "versionPriority" one int32;
    APIServiceStatus: 1 "conditions" list APIServiceCondition;
    ServiceReference: 1 "namespace" one string, 2 "name" one string, 3 "port" opt int32;
}
