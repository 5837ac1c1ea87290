//! The roles of the parts of a cluster: nodes, scheduler, proxy and controllers, by the names that they have upstream.
//!
//! ```text
//! system:nodes (group) ──────────▶ system:node          and NodeRestriction keeps each to itself
//! system:kube-scheduler ─────────▶ system:kube-scheduler
//! system:kube-controller-manager ▶ system:kube-controller-manager      reads for all controllers
//! system:kube-proxy ─────────────▶ system:node-proxier
//! account NAME of kube-system ───▶ system:controller:NAME
//! ```
//!
//! Where upstream has the Node authorizer, which looks at what pods of a node use, here `system:node` is bound to the group.

use super::{READ, Role};

const EVENTS: (&str, &str, &str) = ("create patch update", ",events.k8s.io", "events");
const CHANGE: &str = "create delete get list patch update watch";
const STATUS: &str = "patch update";

pub const ROLES: &[Role] = &[
    (
        "system:node",
        "",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
            (READ, "", "configmaps secrets serviceaccounts services"),
            ("create get list patch update watch", "", "nodes"),
            (STATUS, "", "nodes/status persistentvolumeclaims/status pods/status"),
            ("create delete get list watch", "", "pods"),
            ("create", "", "pods/eviction serviceaccounts/token"),
            ("get", "", "endpoints persistentvolumeclaims persistentvolumes"),
            ("create get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            ("create delete get patch update", "coordination.k8s.io", "leases"),
            ("get", "storage.k8s.io", "volumeattachments"),
            (READ, "storage.k8s.io", "csidrivers"),
            ("create delete get patch update", "storage.k8s.io", "csinodes"),
            (READ, "node.k8s.io", "runtimeclasses"),
            EVENTS,
        ],
    ),
    (
        "system:node-proxier",
        "",
        &[
            ("list watch", "", "endpoints services"),
            (READ, "", "nodes"),
            ("list watch", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "system:kube-scheduler",
        "",
        &[
            (READ, "", "namespaces nodes persistentvolumeclaims persistentvolumes replicationcontrollers services"),
            ("delete get list watch", "", "pods"),
            ("create", "", "bindings pods/binding"),
            (STATUS, "", "persistentvolumeclaims persistentvolumes pods/status"),
            (READ, "apps", "replicasets statefulsets"),
            (READ, "policy", "poddisruptionbudgets"),
            (READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
            ("create get update", "coordination.k8s.io", "leases"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "system:kube-controller-manager",
        "",
        &[
            ("list watch", "*", "*"),
            ("get", "", "configmaps namespaces secrets serviceaccounts"),
            ("create delete update", "", "secrets"),
            ("create update", "", "serviceaccounts"),
            ("create", "", "serviceaccounts/token"),
            ("create get update", "coordination.k8s.io", "leases"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "system:controller:certificate-controller",
        "",
        &[
            ("delete get list watch", "certificates.k8s.io", "certificatesigningrequests"),
            (STATUS, "certificates.k8s.io", "certificatesigningrequests/approval certificatesigningrequests/status"),
            ("approve", "certificates.k8s.io", "signers=kubernetes.io/kube-apiserver-client-kubelet"),
            (
                "sign",
                "certificates.k8s.io",
                "signers=kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet \
                 kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
            ),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    (
        "system:controller:clusterrole-aggregation-controller",
        "",
        &[("escalate get list patch update watch", super::GROUP, "clusterroles")],
    ),
    (
        "system:controller:cronjob-controller",
        "",
        &[
            ("get list update watch", "batch", "cronjobs"),
            (CHANGE, "batch", "jobs"),
            (STATUS, "batch", "cronjobs/status"),
            ("update", "batch", "cronjobs/finalizers"),
            ("delete list watch", "", "pods"),
            EVENTS,
        ],
    ),
    (
        "system:controller:daemon-set-controller",
        "",
        &[
            (READ, "apps", "daemonsets"),
            (STATUS, "apps", "daemonsets/status"),
            ("update", "apps", "daemonsets/finalizers"),
            ("list watch", "", "nodes"),
            ("create delete list patch watch", "", "pods"),
            ("create", "", "pods/binding"),
            (CHANGE, "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "system:controller:deployment-controller",
        "",
        &[
            ("get list patch update watch", "apps", "deployments"),
            (STATUS, "apps", "deployments/status"),
            ("update", "apps", "deployments/finalizers"),
            (CHANGE, "apps", "replicasets"),
            ("get list update watch", "", "pods"),
            EVENTS,
        ],
    ),
    (
        "system:controller:disruption-controller",
        "",
        &[
            (READ, "apps", "deployments replicasets statefulsets"),
            (READ, "", "replicationcontrollers"),
            (READ, "policy", "poddisruptionbudgets"),
            (STATUS, "policy", "poddisruptionbudgets/status"),
            (STATUS, "", "pods/status"),
            ("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "system:controller:endpointslice-controller",
        "",
        &[
            (READ, "", "nodes pods services"),
            ("update", "", "services/finalizers"),
            ("create delete get list update watch", "discovery.k8s.io", "endpointslices"),
            ("create delete get list update watch", "", "endpoints"), // upstream has a controller of its own for them
            EVENTS,
        ],
    ),
    ("system:controller:generic-garbage-collector", "", &[("delete get list patch update watch", "*", "*"), EVENTS]),
    (
        "system:controller:horizontal-pod-autoscaler",
        "",
        &[
            (READ, "autoscaling", "horizontalpodautoscalers"),
            (STATUS, "autoscaling", "horizontalpodautoscalers/status"),
            ("get update", "*", "*/scale"),
            ("list watch", "", "pods"),
            ("list watch", "metrics.k8s.io", "pods"),
            (READ, "custom.metrics.k8s.io", "*"),
            (READ, "external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "system:controller:job-controller",
        "",
        &[
            ("get list patch update watch", "batch", "jobs"),
            (STATUS, "batch", "jobs/status"),
            ("update", "batch", "jobs/finalizers"),
            ("create delete list patch watch", "", "pods"),
            EVENTS,
        ],
    ),
    (
        "system:controller:namespace-controller",
        "",
        &[
            ("delete get list watch", "", "namespaces"),
            (STATUS, "", "namespaces/finalize namespaces/status"),
            ("delete deletecollection get list watch", "*", "*"),
        ],
    ),
    (
        "system:controller:node-controller",
        "",
        &[
            ("delete get list patch update watch", "", "nodes"),
            (STATUS, "", "nodes/status pods/status"),
            ("delete get list watch", "", "pods"),
            EVENTS,
        ],
    ),
    (
        "system:controller:persistent-volume-binder",
        "",
        &[
            (CHANGE, "", "persistentvolumes"),
            ("get list patch update watch", "", "persistentvolumeclaims"),
            (STATUS, "", "persistentvolumeclaims/status persistentvolumes/status"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("create delete get list watch", "", "pods"),
            ("get list watch", "", "nodes"),
            EVENTS,
        ],
    ),
    (
        "system:controller:pod-garbage-collector",
        "",
        &[("delete list watch", "", "pods"), ("get list", "", "nodes"), (STATUS, "", "pods/status")],
    ),
    (
        "system:controller:replicaset-controller",
        "",
        &[
            ("get list update watch", "apps", "replicasets"),
            (STATUS, "apps", "replicasets/status"),
            ("update", "apps", "replicasets/finalizers"),
            ("create delete list patch watch", "", "pods"),
            EVENTS,
        ],
    ),
    (
        "system:controller:replication-controller",
        "",
        &[
            ("get list update watch", "", "replicationcontrollers"),
            (STATUS, "", "replicationcontrollers/status"),
            ("update", "", "replicationcontrollers/finalizers"),
            ("create delete list patch watch", "", "pods"),
            EVENTS,
        ],
    ),
    (
        "system:controller:resourcequota-controller",
        "",
        &[("list watch", "*", "*"), (STATUS, "", "resourcequotas/status"), EVENTS],
    ),
    ("system:controller:root-ca-cert-publisher", "", &[("create patch update", "", "configmaps"), EVENTS]),
    ("system:controller:service-account-controller", "", &[("create", "", "serviceaccounts"), EVENTS]),
    (
        "system:controller:statefulset-controller",
        "",
        &[
            ("list watch", "", "pods"),
            ("get list watch", "apps", "statefulsets"),
            (STATUS, "apps", "statefulsets/status"),
            ("update", "apps", "statefulsets/finalizers"),
            ("create delete get patch update", "", "pods"),
            (CHANGE, "apps", "controllerrevisions"),
            ("create delete get list patch update watch", "", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    ("system:controller:ttl-after-finished-controller", "", &[("delete get list watch", "batch", "jobs"), EVENTS]),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        "",
        &[("approve", "certificates.k8s.io", "signers=kubernetes.io/kube-apiserver-client")],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        "",
        &[("approve", "certificates.k8s.io", "signers=kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        "",
        &[("approve", "certificates.k8s.io", "signers=kubernetes.io/kubelet-serving")],
    ),
];

/// Cluster role, and the kind and name of whom it is bound to; those of controllers follow from their names.
pub const BINDINGS: &[(&str, &str, &str)] = &[
    ("system:node", "Group", "system:nodes"),
    ("system:node-proxier", "User", "system:kube-proxy"),
    ("system:kube-scheduler", "User", "system:kube-scheduler"),
    ("system:kube-controller-manager", "User", "system:kube-controller-manager"),
];
