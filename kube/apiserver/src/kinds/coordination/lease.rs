//! Leases: who leads, and by which a node shows that it lives.

use serde_json::Value;

use crate::kinds::rules::{Check, Rule, check};
use crate::kinds::{Builtin, Description};
use crate::table::{age, text};

pub static KIND: Description = Description {
    rules: Builtin {
        validate: |lease, errors| check(RULES, &lease["spec"], "spec", errors),
        heartbeat: Some(|lease| lease["spec"]["renewTime"] = Value::Null),
        columns: COLUMNS,
        cells: |lease, now| {
            vec![lease["metadata"]["name"].clone(), text(&lease["spec"]["holderIdentity"], ""), age(lease, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["coordination.k8s.io", "v1", "Lease", "leases"])
};

const RULES: &[Rule] =
    &[Rule("leaseDurationSeconds", Check::Says(above_zero)), Rule("leaseTransitions", Check::Range(0, i64::MAX))];

fn above_zero(seconds: &Value) -> Vec<&'static str> {
    if seconds.as_i64().is_some_and(|n| n > 0) { Vec::new() } else { vec!["must be greater than 0"] }
}

const COLUMNS: &str = "Name, Holder, Age";
