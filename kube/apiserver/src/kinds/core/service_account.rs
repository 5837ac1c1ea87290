//! Service accounts.

use crate::kinds::{Builtin, Description};
use crate::table::age;

pub static KIND: Description = Description {
    short: &["sa"],
    subresources: &[("token", "TokenRequest", &["create"])],
    rules: Builtin {
        columns: COLUMNS,
        cells: |account, now| {
            let secrets = account["secrets"].as_array().map_or(0, Vec::len);
            vec![account["metadata"]["name"].clone(), secrets.into(), age(account, now)]
        },
        ..Builtin::USUAL
    },
    ..Description::of(["", "v1", "ServiceAccount", "serviceaccounts"])
};

const COLUMNS: &str = "Name, Secrets, Age";
