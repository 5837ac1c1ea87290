//! Selectors and tolerations: what the conditions in pods say about nodes and other pods. Asked by the scheduler and by
//! controllers that put pods on nodes or take them off. Pure.
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// Labels of an object that may have none.
pub type Labels = BTreeMap<String, String>;

/// Whether a label selector selects. `None` selects nothing, an empty selector everything; one that cannot be read
/// selects nothing.
pub fn label_selector_matches(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    let empty = Labels::new();
    let selector = selector.and_then(|selector| Selector::try_from(selector.clone()).ok());
    selector.is_some_and(|selector| selector.matches(labels.unwrap_or(&empty)))
}

/// Whether one term of a node selector matches. An empty term matches nothing.
pub fn node_selector_term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| node.metadata.name.as_deref().filter(|_| key == "metadata.name");
    expressions.iter().all(|requirement| meets(requirement, label(&requirement.key)))
        && fields.iter().all(|requirement| meets(requirement, field(&requirement.key)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|listed| listed == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |greater: bool| {
        let pair = value.and_then(number).zip(values.first().and_then(|limit| number(limit)));
        pair.is_some_and(|(value, limit)| if greater { value > limit } else { value < limit })
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

/// Whether a node has what the pod's node selector and required node affinity ask for.
pub fn node_matches_affinity(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let has = |key: &String, value: &String| node.metadata.labels.as_ref().is_some_and(|l| l.get(key) == Some(value));
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| has(key, value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let matches = |term: &NodeSelectorTerm| node_selector_term_matches(term, node);
    selected && required.is_none_or(|required| required.node_selector_terms.iter().any(matches))
}

/// Whether one of the tolerations tolerates the taint.
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let effect = some(&toleration.effect).is_none_or(|effect| effect == taint.effect);
        let key = some(&toleration.key);
        let exists = toleration.operator.as_deref() == Some("Exists");
        let value = exists || toleration.value.clone().unwrap_or_default() == taint.value.clone().unwrap_or_default();
        // Without a key only `Exists` has a meaning: everything.
        effect && key.as_ref().map_or(exists, |key| *key == taint.key) && value
    })
}

/// The pod's tolerations.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}
