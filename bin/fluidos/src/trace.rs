//! `fluidos trace`: what happened to a workload, and when.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::collections::BTreeSet;

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::connection::{Connection, with};
use crate::output::Output;
use crate::story::Story;

/// What is asked.
#[derive(clap::Args, Clone, Debug)]
pub struct Trace {
    /// TYPE/NAME, as deployment/api; a bare name is a pod.
    workload: String,
    /// What to print; wide is the same as table, which has every column.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

struct Step {
    at: Timestamp,
    of: String,
    what: String,
}

/// Does what the verb says.
pub fn run(connection: &Connection, trace: &Trace) -> Result<()> {
    let story = with(async {
        let client = connection.client().await?;
        Story::of(&client, connection.namespace_or("default"), &trace.workload).await
    })?;
    let steps = steps(&story);
    let row = |step: &Step| json!({ "at": step.at.to_string(), "object": step.of, "what": step.what });
    if let Some(text) = trace.output.structured(&steps.iter().map(row).collect::<Vec<Value>>())? {
        println!("{text}");
        return Ok(());
    }
    if trace.output == Output::Name {
        let objects: BTreeSet<&str> = steps.iter().map(|step| step.of.as_str()).collect();
        objects.iter().for_each(|object| println!("{object}"));
        return Ok(());
    }
    let Some(first) = steps.first().map(|s| s.at) else {
        println!("nothing has happened to {} yet", story.asked);
        return Ok(());
    };
    let width = steps.iter().map(|s| s.of.len()).max().unwrap_or(0).max("OBJECT".len());
    println!("{:<10} {:>8}  {:<width$}  WHAT", "TIME", "AFTER", "OBJECT");
    for step in &steps {
        let after = (step.at.as_millisecond() - first.as_millisecond()) as f64 / 1000.0;
        println!(
            "{:<10} {:>7.1}s  {:<width$}  {}",
            step.at.strftime("%H:%M:%SZ").to_string(),
            after,
            step.of,
            step.what
        );
    }
    Ok(())
}

/// Everything that carries a time, in its order.
fn steps(story: &Story) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |at: Option<Timestamp>, of: String, what: String| {
        if let Some(at) = at {
            steps.push(Step { at, of, what });
        }
    };
    let time = |time: Option<&Time>| time.map(|t| t.0);
    for pod in &story.pods {
        let of = format!("pod/{}", pod.name_any());
        add(time(pod.metadata.creation_timestamp.as_ref()), of.clone(), "created".into());
        for condition in pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).filter(|c| c.status == "True") {
            add(time(condition.last_transition_time.as_ref()), of.clone(), condition.type_.clone());
        }
        for container in pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()) {
            let running = container.state.as_ref().and_then(|s| s.running.as_ref());
            add(
                time(running.and_then(|r| r.started_at.as_ref())),
                of.clone(),
                format!("container {} runs", container.name),
            );
        }
    }
    for solver in &story.solvers {
        let of = format!("solver/{}", solver.name_any());
        add(time(solver.metadata.creation_timestamp.as_ref()), of.clone(), "asks for what is missing".into());
        let phase = solver.status.clone().unwrap_or_default().solver_phase;
        let ended = phase.end_time.and_then(|t| t.parse().ok());
        add(ended, of, format!("{}: {}", phase.phase.as_str(), phase.message));
    }
    for (node, contract) in &story.contracts {
        let here = story.pods.iter().any(|p| p.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(node));
        if here {
            let of = format!("contract/{}", contract.name_any());
            add(time(contract.metadata.creation_timestamp.as_ref()), of, format!("signed by both; it is node {node}"));
        }
    }
    for event in &story.events {
        let at = time(event.first_timestamp.as_ref())
            .or(event.event_time.as_ref().map(|t| t.0))
            .or(time(event.metadata.creation_timestamp.as_ref()));
        let of = format!("pod/{}", event.involved_object.name.as_deref().unwrap_or("?"));
        add(
            at,
            of,
            format!(
                "{}: {}",
                event.reason.as_deref().unwrap_or("?"),
                event.message.as_deref().unwrap_or_default().trim()
            ),
        );
    }
    steps.sort_by_key(|s| s.at);
    steps
}
