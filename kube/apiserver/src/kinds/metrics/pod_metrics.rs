//! What the containers of a pod use. Its row shows the sum.

use serde_json::{Value, json};

use super::{Builtin, COLUMNS, Description, row};
use crate::table::list;

pub static KIND: Description = Description {
    verbs: &["get", "list"],
    rules: Builtin { columns: COLUMNS, cells: |object, _| row(object, &sum(object)), ..Builtin::USUAL },
    ..Description::of(["metrics.k8s.io", "v1beta1", "PodMetrics", "pods"])
};

fn sum(object: &Value) -> Value {
    let of = |resource: &str, unit: &str| -> u64 {
        let values = list(&object["containers"]).iter().filter_map(|c| c["usage"][resource].as_str());
        values.filter_map(|text| text.strip_suffix(unit)?.parse::<u64>().ok()).sum()
    };
    json!({ "cpu": format!("{}n", of("cpu", "n")), "memory": format!("{}Ki", of("memory", "Ki")) })
}
