//! `metrics.k8s.io/v1beta1`: what is measured when it is asked for, and not kept. How: [`crate::usage`].

mod node_metrics;
mod pod_metrics;

use serde_json::Value;

use super::{Builtin, Description};

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&node_metrics::KIND, &pod_metrics::KIND];

const COLUMNS: &str = "Name, Cpu, Memory, Window";

fn row(object: &Value, usage: &Value) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), usage["cpu"].clone(), usage["memory"].clone(), object["window"].clone()]
}
