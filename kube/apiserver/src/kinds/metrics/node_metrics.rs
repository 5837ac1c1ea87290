//! What a node uses.

use super::{Builtin, COLUMNS, Description, row};

pub static KIND: Description = Description {
    namespaced: false,
    verbs: &["get", "list"],
    rules: Builtin { columns: COLUMNS, cells: |object, _| row(object, &object["usage"]), ..Builtin::USUAL },
    ..Description::of(["metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes"])
};
