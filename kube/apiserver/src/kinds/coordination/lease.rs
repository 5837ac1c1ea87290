//! Leases: who leads, and by which a node shows that it lives.

use serde_json::Value;

use crate::kinds::{Builtin, Column, Description, column};
use crate::protobuf;
use crate::table::{age, text};

pub static KIND: Description = Description {
    rules: Builtin {
        heartbeat: Some(|lease| lease["spec"]["renewTime"] = Value::Null),
        columns: COLUMNS,
        cells: |lease, now| {
            vec![lease["metadata"]["name"].clone(), text(&lease["spec"]["holderIdentity"], ""), age(lease, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["coordination.k8s.io", "v1", "Lease", "leases", "lease"], &protobuf::coordination::Lease)
};

const COLUMNS: &[Column] = &[column("Name", 0), column("Holder", 0), column("Age", 0)];
