//! `fluidos why`: why a workload is where it is, or nowhere, in words.
#![allow(clippy::print_stdout)] // the answer of a verb

use anyhow::Result;
use fluidos_model::kinds::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::connection::{Connection, with};
use crate::output::Output;
use crate::story::Story;

/// What is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct Why {
    /// TYPE/NAME, as deployment/api; a bare name is a pod.
    workload: String,
    /// What to print; wide is the same as table, which has every reason.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// Does what the verb says.
pub fn run(connection: &Connection, why: &Why) -> Result<()> {
    let story = with(async {
        let client = connection.client().await?;
        Story::of(&client, connection.namespace_or("default"), &why.workload).await
    })?;
    let reasons = |pod: &Pod| json!({ "pod": pod.name_any(), "node": node(pod), "because": because(pod, &story) });
    if let Some(text) = why.output.structured(&story.pods.iter().map(reasons).collect::<Vec<Value>>())? {
        println!("{text}");
        return Ok(());
    }
    if why.output == Output::Name {
        listed(&story).iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if story.pods.is_empty() {
        println!("{} has no pods.", story.asked);
    }
    for pod in &story.pods {
        match node(pod) {
            Some(node) => println!("pod/{} is on {node}:", pod.name_any()),
            None => println!("pod/{} is nowhere yet:", pod.name_any()),
        }
        for line in because(pod, &story) {
            println!("  {line}");
        }
    }
    Ok(())
}

/// The pods as kubectl takes them again.
fn listed(story: &Story) -> Vec<String> {
    story.pods.iter().map(|pod| format!("pod/{}", pod.name_any())).collect()
}

fn node(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// The reasons, most telling first.
fn because(pod: &Pod, story: &Story) -> Vec<String> {
    let mut lines = Vec::new();
    match pod.annotations().get(names::ANNOTATION_DECISION).and_then(|d| d.split_once(": ")) {
        Some((chosen, why)) => lines.push(format!("placed on {chosen}: {why}")),
        None if node(pod).is_some() => {
            lines.push("it carries no intent and its namespace does not let it leave, so the scheduler chose".into())
        }
        None => {}
    }
    if let Some(contract) = node(pod).and_then(|n| story.contracts.get(n)) {
        let until = contract.spec.expiration_time.as_deref().unwrap_or("?");
        lines.push(format!("that node is contract {}, until {until}", contract.name_any()));
        let bought =
            story.solvers.iter().filter_map(|solver| solver.status.as_ref()).flat_map(|status| &status.contracts);
        for bought in bought.filter(|bought| bought.name == contract.name_any() && !bought.why.is_empty()) {
            lines.push(format!("bought from {}, {}", bought.peer, bought.why));
        }
    }
    let status = pod.status.as_ref();
    for condition in status.iter().flat_map(|s| s.conditions.iter().flatten()) {
        let told = condition.message.as_deref().unwrap_or_default();
        let placed = condition.type_ == "fluidos.eu/Placed" && node(pod).is_some();
        if condition.status != "True" && !told.is_empty() && !placed {
            lines.push(format!("{} is {}: {told}", condition.type_, condition.status));
        }
    }
    for container in status.iter().flat_map(|s| s.container_statuses.iter().flatten()) {
        if let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) {
            let (reason, told) =
                (waiting.reason.as_deref().unwrap_or("?"), waiting.message.as_deref().unwrap_or_default());
            lines.push(format!("container {} waits: {reason} {told}", container.name).trim_end().to_owned());
        }
    }
    if node(pod).is_none() {
        for solver in &story.solvers {
            let phase = solver.status.clone().unwrap_or_default().solver_phase;
            lines.push(format!("Solver {} is {}: {}", solver.name_any(), phase.phase.as_str(), phase.message));
        }
    }
    if lines.is_empty() {
        lines.push("nothing has been said about it yet".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::collections::BTreeMap;

    use fluidos_model::kinds::{Contract, Solver};

    use super::*;

    fn story(pods: &[Value]) -> Story {
        let mut contract = Contract::new("contract-grid-1", Default::default());
        contract.spec.expiration_time = Some("2026-12-01T00:00:00Z".into());
        let mut other = contract.clone();
        other.metadata.name = Some("contract-cloud-2".into());
        let mut solver = Solver::new("shop-api", Default::default());
        solver.status = Some(
            serde_json::from_value(json!({
                "solverPhase": {"phase": "Solved", "message": "bought of two"},
                "contracts": [{"name": "contract-cloud-2", "peer": "cloud", "why": "the nearest"},
                    {"name": "contract-grid-1", "peer": "grid", "why": "the cheapest of 3"}]}))
            .unwrap(),
        );
        Story {
            asked: "deployment/api".into(),
            pods: pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect(),
            solvers: vec![solver],
            contracts: BTreeMap::from([("grid".into(), contract), ("cloud".into(), other)]),
            events: Vec::new(),
        }
    }

    #[test]
    fn a_pod_is_told_with_the_names_of_its_node_contract_and_seller_and_of_no_other() {
        let placed = json!({names::ANNOTATION_DECISION: "grid: it is in Milan"});
        let bought = json!({"metadata": {"name": "api-1", "annotations": placed}, "spec": {"nodeName": "grid", "containers": []}});
        let waits = json!({"metadata": {"name": "api-2"}, "spec": {"containers": []}});
        let own = json!({"metadata": {"name": "api-3"}, "spec": {"nodeName": "farm", "containers": []}});
        let story = story(&[bought, waits, own]);
        assert_eq!(listed(&story), ["pod/api-1", "pod/api-2", "pod/api-3"]);
        let told: Vec<Vec<String>> = story.pods.iter().map(|pod| because(pod, &story)).collect();
        assert_eq!(
            told[0],
            [
                "placed on grid: it is in Milan",
                "that node is contract contract-grid-1, until 2026-12-01T00:00:00Z",
                "bought from grid, the cheapest of 3",
            ]
        );
        assert_eq!(told[1], ["Solver shop-api is Solved: bought of two"]);
        assert_eq!(told[2], ["it carries no intent and its namespace does not let it leave, so the scheduler chose"]);
    }
}
