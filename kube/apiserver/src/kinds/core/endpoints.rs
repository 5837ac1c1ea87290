//! Endpoints: the older form of endpoint slices, which `kubectl describe` reads.

use crate::kinds::{Builtin, Column, Description, column};
use crate::protobuf;
use crate::table::{age, list, some};

pub static KIND: Description = Description {
    short: &["ep"],
    rules: Builtin {
        columns: COLUMNS,
        cells: |object, now| {
            let mut shown = Vec::new();
            for subset in list(&object["subsets"]) {
                for address in list(&subset["addresses"]) {
                    let ip = address["ip"].as_str().unwrap_or_default();
                    let ports = list(&subset["ports"]);
                    shown.extend(ports.iter().map(|p| format!("{ip}:{}", p["port"])));
                    if ports.is_empty() {
                        shown.push(ip.to_owned());
                    }
                }
            }
            vec![object["metadata"]["name"].clone(), some(&shown), age(object, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "Endpoints", "endpoints", "endpoints"], &protobuf::core::Endpoints)
};

const COLUMNS: &[Column] = &[column("Name", 0), column("Endpoints", 0), column("Age", 0)];
