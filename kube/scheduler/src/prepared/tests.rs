//! What is kept of one pod for the next never gives another answer than a new look would.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use k8s_openapi::api::core::v1::Node;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schedule::{Kept, choose, fit_error, schedule_by};
use crate::{Guarantee, Resources};

const ZONES: &str = "topology.kubernetes.io/zone";
const SHAPES: usize = 10;

fn node(number: usize) -> Arc<Node> {
    let mut labels = json!({"kubernetes.io/hostname": format!("n-{number}"), "cores": number.to_string()});
    if !(number + 1).is_multiple_of(5) {
        labels[ZONES] = json!(format!("z-{}", number % 3));
    }
    let taints =
        if (number + 1).is_multiple_of(4) { json!([{"key": "k", "effect": "PreferNoSchedule"}]) } else { json!([]) };
    let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "6"}});
    let metadata = json!({"name": format!("n-{number}"), "labels": labels});
    Arc::new(
        serde_json::from_value(json!({"metadata": metadata, "spec": {"taints": taints}, "status": status})).unwrap(),
    )
}

/// A pod of one of the shapes; `serial` tells it from its equals.
fn pod(shape: usize, serial: usize) -> Arc<Pod> {
    let term = |app: usize, key: &str| json!({"labelSelector": {"matchLabels": {"app": format!("s-{app}")}}, "topologyKey": key});
    let required = |kind: &str, term: Value| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let preferred = |kind: &str, term: Value| {
        let weighted = json!([{"weight": 7, "podAffinityTerm": term}]);
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": weighted}}})
    };
    let spread = |when: &str, key: &str, app: usize| {
        json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": format!("s-{app}")}}}]})
    };
    let more = match shape {
        1 => required("podAffinity", term(1, ZONES)),
        2 => required("podAntiAffinity", term(2, "kubernetes.io/hostname")),
        3 => required("podAntiAffinity", term(0, ZONES)),
        4 => preferred("podAffinity", term(5, ZONES)),
        5 => preferred("podAntiAffinity", term(4, ZONES)),
        6 => spread("DoNotSchedule", ZONES, 6),
        7 => spread("ScheduleAnyway", ZONES, 0),
        8 => json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
        _ => json!({}),
    };
    let cpu = if shape.is_multiple_of(2) { "700m" } else { "1" };
    let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": format!("r-{shape}"), "controller": true}]);
    let name = format!("p-{shape}-{serial}");
    let metadata = json!({"name": name, "uid": name, "namespace": "d", "labels": {"app": format!("s-{shape}")}, "ownerReferences": owner});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Schedule(usize),
    Leave(usize),
    AddNode(usize),
    RemoveNode(usize),
    Guarantee(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..SHAPES).prop_map(Step::Schedule),
        4 => (0usize..64).prop_map(Step::Leave),
        1 => (0usize..9).prop_map(Step::AddNode),
        1 => (0usize..9).prop_map(Step::RemoveNode),
        1 => (0i64..4).prop_map(Step::Guarantee),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_kept_never_gives_another_answer(steps in prop::collection::vec(step(), 1..70)) {
        let mut view = View::new((0..5).map(node), [], []);
        let (mut kept, profile) = (Kept::default(), Arc::new(Profile::default()));
        let mut placed: Vec<(Arc<Pod>, String)> = Vec::new();
        for (serial, step) in steps.into_iter().enumerate() {
            match step {
                Step::Schedule(shape) => {
                    let pod = pod(shape, serial);
                    let prepared = kept.of(&view, &pod, &profile);
                    let fast = choose(&view, &pod, prepared, &[], None).map_err(|failures| fit_error(&view, prepared, failures));
                    prop_assert_eq!(&fast, &schedule_by(&view, &pod, &profile));
                    if let Ok(choice) = fast {
                        view.assume(pod.clone(), &choice.node);
                        placed.push((pod, choice.node));
                    }
                }
                Step::Leave(at) if !placed.is_empty() => {
                    let (pod, node) = placed.swap_remove(at % placed.len());
                    view.forget(&pod, &node);
                }
                Step::Leave(_) => {}
                Step::AddNode(number) => view.put_node(node(number)),
                Step::RemoveNode(number) => view.remove_node(&format!("n-{number}")),
                Step::Guarantee(cpu) => {
                    let amounts = Resources([("cpu".to_owned(), substrate_client::quantity::Quantity::whole(cpu))].into());
                    let labels = vec![("app".to_owned(), "s-9".to_owned())];
                    view.set_guarantees([Guarantee { name: "g".into(), labels, amounts }].into());
                }
            }
        }
    }
}
