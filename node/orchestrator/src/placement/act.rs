//! Carries a plan out. Every effect of placement is here.

use fluidos_model::kinds::{FlavorType, LedgerAmounts, Selector, Solver, SolverSpec, SolverSplit, names};
use fluidos_model::market::{Amounts, filters_of};
use k8s_openapi::api::core::v1::{Event, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::plan::Action;
use super::{CONDITION, MANAGER};

type Id = (String, String, String);

/// Does one thing of a plan.
pub async fn act(client: &Client, action: &Action) -> kube::Result<()> {
    match action {
        Action::Open { pod, nodes, is_virtual, why } => open(client, pod, nodes, *is_virtual, why).await,
        Action::Solve { name, workload, needs, largest, architecture, annotations } => {
            let mut solver = solver(name, workload, needs, architecture.as_deref(), annotations);
            solver.spec.split = largest.as_ref().map(split);
            let api = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
            ignore(api.create(&PostParams::default(), &solver).await.map(|_| ()), 409)
        }
        Action::Drop { solver } => {
            let api = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
            ignore(api.delete(solver, &DeleteParams::default()).await.map(|_| ()), 404)
        }
        Action::Say { pod, message, warning } => say(client, pod, message, *warning).await,
    }
}

/// Somebody else has done it already.
fn ignore(result: kube::Result<()>, code: u16) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == code => Ok(()),
        other => other,
    }
}

/// Opens the gate: node affinity, toleration and gate change in one write.
async fn open(
    client: &Client,
    (namespace, name, uid): &Id,
    nodes: &[String],
    is_virtual: bool,
    why: &str,
) -> kube::Result<()> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let Some(pod) = api.get_opt(name).await?.filter(|pod| pod.metadata.uid.as_deref() == Some(uid)) else {
        return Ok(());
    };
    let mut spec = pod.spec.clone().unwrap_or_default();
    let gates = spec.scheduling_gates.get_or_insert_default();
    if !gates.iter().any(|gate| gate.name == names::GATE) {
        return Ok(());
    }
    gates.retain(|gate| gate.name != names::GATE);
    let wanted = NodeSelectorRequirement {
        key: "kubernetes.io/hostname".into(),
        operator: "In".into(),
        values: Some(nodes.to_vec()),
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: Vec::new() });
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_expressions.get_or_insert_default().push(wanted.clone());
    }
    if is_virtual {
        spec.tolerations.get_or_insert_default().push(Toleration {
            key: Some(names::VIRTUAL_NODE.into()),
            operator: Some("Exists".into()),
            effect: Some("NoSchedule".into()),
            ..Toleration::default()
        });
    }
    let patch = json!({
        "metadata": {
            "resourceVersion": pod.metadata.resource_version,
            "annotations": { names::ANNOTATION_DECISION: format!("{}: {why}", nodes.join(",")) },
        },
        "spec": { "schedulingGates": spec.scheduling_gates, "affinity": spec.affinity, "tolerations": spec.tolerations },
    });
    ignore(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()), 409)
}

fn solver(
    name: &str,
    workload: &str,
    needs: &Amounts,
    architecture: Option<&str>,
    annotations: &std::collections::BTreeMap<String, String>,
) -> Solver {
    let mut filters = filters_of(needs);
    if let Some(architecture) = architecture {
        filters.insert("architectureFilter".into(), json!({ "name": "Match", "data": { "value": architecture } }));
    }
    let mut solver = Solver::new(
        name,
        SolverSpec {
            selector: Some(Selector { flavor_type: FlavorType::K8Slice, filters: filters.into() }),
            intent_id: name.to_owned(),
            find_candidate: true,
            reserve_and_buy: true,
            establish_peering: true,
            ..SolverSpec::default()
        },
    );
    solver.metadata.namespace = Some(names::NAMESPACE.to_owned());
    solver.labels_mut().insert(names::LABEL_SOLVER_FOR.to_owned(), workload.to_owned());
    solver.annotations_mut().extend(annotations.clone());
    solver
}

/// Parts of whole pods, the largest of them.
fn split(largest: &Amounts) -> SolverSplit {
    SolverSplit { unit: LedgerAmounts::from(largest), most: None }
}

/// Writes why a pod waits: a condition for who looks at it, an Event for who looks around.
async fn say(client: &Client, (namespace, name, uid): &Id, message: &str, warning: bool) -> kube::Result<()> {
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    let Some(pod) = api.get_opt(name).await?.filter(|pod| pod.metadata.uid.as_deref() == Some(uid)) else {
        return Ok(());
    };
    let reason = if warning { "IntentNotUnderstood" } else { "NoNodeFits" };
    let now = Time(jiff::Timestamp::now());
    let mut conditions: Vec<Value> = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .filter(|c| c.type_ != CONDITION)
        .filter_map(|c| serde_json::to_value(c).ok())
        .collect();
    conditions.push(json!({ "type": CONDITION, "status": "False", "reason": reason, "message": message, "lastTransitionTime": now }));
    let patch = json!({ "metadata": { "resourceVersion": pod.metadata.resource_version }, "status": { "conditions": conditions } });
    ignore(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()), 409)?;
    let event = Event {
        metadata: kube::core::ObjectMeta {
            generate_name: Some(format!("{name}.")),
            namespace: Some(namespace.clone()),
            ..Default::default()
        },
        involved_object: k8s_openapi::api::core::v1::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(name.clone()),
            namespace: Some(namespace.clone()),
            uid: Some(uid.clone()),
            ..Default::default()
        },
        type_: Some(if warning { "Warning" } else { "Normal" }.into()),
        reason: Some(reason.into()),
        message: Some(message.chars().take(1024).collect()),
        reporting_component: Some(MANAGER.into()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        ..Default::default()
    };
    Api::<Event>::namespaced(client.clone(), namespace).create(&PostParams::default(), &event).await.map(|_| ())
}
