//! networking.k8s.io/v1: field numbers, names in JSON and types, after the `generated.proto` of
//! `k8s.io/api/networking/v1`. How to read a line: [`super::table`].

use super::core::TypedLocalObjectReference;
use super::meta::{Condition, LabelSelector, ObjectMeta};

super::table::messages! {
    HTTPIngressPath: 1 "path" one string, 2 "backend" one IngressBackend, 3 "pathType" opt string;
    HTTPIngressRuleValue: 1 "paths" list HTTPIngressPath;
    IPAddress: 1 "metadata" one ObjectMeta, 2 "spec" one IPAddressSpec;
    IPAddressSpec: 1 "parentRef" one ParentReference;
    IPBlock: 1 "cidr" one string, 2 "except" list string;
    Ingress: 1 "metadata" one ObjectMeta, 2 "spec" one IngressSpec, 3 "status" one IngressStatus;
    IngressBackend: 3 "resource" one TypedLocalObjectReference, 4 "service" one IngressServiceBackend;
    IngressClass: 1 "metadata" one ObjectMeta, 2 "spec" one IngressClassSpec;
    IngressClassParametersReference:
        1 "apiGroup" opt string, 2 "kind" one string, 3 "name" one string, 4 "scope" opt string,
        5 "namespace" opt string;
    IngressClassSpec: 1 "controller" one string, 2 "parameters" one IngressClassParametersReference;
    IngressLoadBalancerIngress: 1 "ip" one string, 2 "hostname" one string, 4 "ports" list IngressPortStatus;
    IngressLoadBalancerStatus: 1 "ingress" list IngressLoadBalancerIngress;
    IngressPortStatus: 1 "port" one int32, 2 "protocol" one string, 3 "error" opt string;
    IngressRule: 1 "host" one string, 2 "ingressRuleValue" inline IngressRuleValue;
    IngressRuleValue: 1 "http" one HTTPIngressRuleValue;
    IngressServiceBackend: 1 "name" one string, 2 "port" one ServiceBackendPort;
    IngressSpec:
        1 "defaultBackend" one IngressBackend, 2 "tls" list IngressTLS, 3 "rules" list IngressRule,
        4 "ingressClassName" opt string;
    IngressStatus: 1 "loadBalancer" one IngressLoadBalancerStatus;
    IngressTLS: 1 "hosts" list string, 2 "secretName" one string;
    NetworkPolicy: 1 "metadata" one ObjectMeta, 2 "spec" one NetworkPolicySpec;
    NetworkPolicyEgressRule: 1 "ports" list NetworkPolicyPort, 2 "to" list NetworkPolicyPeer;
    NetworkPolicyIngressRule: 1 "ports" list NetworkPolicyPort, 2 "from" list NetworkPolicyPeer;
    NetworkPolicyPeer:
        1 "podSelector" one LabelSelector, 2 "namespaceSelector" one LabelSelector, 3 "ipBlock" one IPBlock;
    NetworkPolicyPort: 1 "protocol" opt string, 2 "port" one int_or_string, 3 "endPort" opt int32;
    NetworkPolicySpec:
        1 "podSelector" one LabelSelector, 2 "ingress" list NetworkPolicyIngressRule,
        3 "egress" list NetworkPolicyEgressRule, 4 "policyTypes" list string;
    ParentReference: 1 "group" one string, 2 "resource" one string, 3 "namespace" one string, 4 "name" one string;
    ServiceBackendPort: 1 "name" one string, 2 "number" one int32;
    ServiceCIDR: 1 "metadata" one ObjectMeta, 2 "spec" one ServiceCIDRSpec, 3 "status" one ServiceCIDRStatus;
    ServiceCIDRSpec: 1 "cidrs" list string;
    ServiceCIDRStatus: 1 "conditions" list Condition;
}
