//! Which nodes a daemon is for, and the pod for a node. No effects.
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use substrate_client::lookup::{node_matches_affinity, taints, tolerates};

use crate::history::POD_REVISION;
use crate::objects::{controller_reference, name};
use crate::pods::from_template;

/// What a daemon tolerates by itself: key, effect, and whether only on the node's own network.
const TOLERATED: [(&str, &str, bool); 7] = [
    ("node.kubernetes.io/not-ready", "NoExecute", false),
    ("node.kubernetes.io/unreachable", "NoExecute", false),
    ("node.kubernetes.io/disk-pressure", "NoSchedule", false),
    ("node.kubernetes.io/memory-pressure", "NoSchedule", false),
    ("node.kubernetes.io/pid-pressure", "NoSchedule", false),
    ("node.kubernetes.io/unschedulable", "NoSchedule", false),
    ("node.kubernetes.io/network-unavailable", "NoSchedule", true),
];

/// Whether a node is to have a daemon, and whether it may keep one.
pub(crate) fn suits(spec: &DaemonSetSpec, node: &Node) -> (bool, bool) {
    let mut pod = Pod { spec: spec.template.spec.clone(), ..Pod::default() };
    let of = pod.spec.get_or_insert_default();
    tolerate(of);
    let wanted = of.node_name.as_deref().unwrap_or_default();
    if (!wanted.is_empty() && wanted != name(&node.metadata)) || !node_matches_affinity(&pod, node) {
        return (false, false);
    }
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let forbidden = |effects: &[&str]| {
        let mut hard = taints(node).iter().filter(|taint| effects.contains(&taint.effect.as_str()));
        hard.any(|taint| !tolerates(tolerations, taint))
    };
    let expelled = forbidden(&["NoExecute"]);
    (!expelled && !forbidden(&["NoSchedule"]), !expelled)
}

fn tolerate(spec: &mut PodSpec) {
    let on_host = spec.host_network == Some(true);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect, host_only) in TOLERATED {
        let same = |found: &Toleration| {
            found.key.as_deref() == Some(key)
                && found.effect.as_deref() == Some(effect)
                && found.operator.as_deref() == Some("Exists")
                && found.toleration_seconds.is_none()
        };
        if (on_host || !host_only) && !tolerations.iter().any(same) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    }
}

/// The daemon for a node, of the revision with this hash.
pub(crate) fn pod_for(set: &DaemonSet, spec: &DaemonSetSpec, node: &str, hash: &str) -> Pod {
    let owner = controller_reference("apps/v1", "DaemonSet", &set.metadata);
    let mut pod = from_template(&spec.template, &set.metadata, owner);
    pod.metadata.generate_name = Some(format!("{}-", name(&set.metadata)));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_REVISION.to_owned(), hash.to_owned());
    let generation =
        set.metadata.annotations.as_ref().and_then(|all| all.get("deprecated.daemonset.template.generation"));
    if let Some(generation) = generation {
        labels.insert("pod-template-generation".to_owned(), generation.clone());
    }
    let of = pod.spec.get_or_insert_default();
    tolerate(of);
    bind(of.affinity.get_or_insert_default(), node);
    pod
}

/// Only this node, whatever the affinity says of others: it was asked already.
fn bind(affinity: &mut Affinity, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    affinity.node_affinity.get_or_insert_default().required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a daemon is on or for.
pub(crate) fn node_of(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let required =
        spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
    named.find_map(|field| field.values.as_ref()?.first().cloned())
}
