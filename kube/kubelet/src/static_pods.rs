//! *Static pods*: pods of files on the machine, run with or without an API.
//!
//! ```text
//! DIR/web.yaml ── read ──▶ pod NAME-NODE ──▶ worker         uid: of node, file and text, so the same after a restart
//!                              └── mirror: what the API shows of it; deleted there it comes back
//! ```
//!
//! [`files`] reads, [`mirrors`] keeps the API told. A static pod uses nothing of the API: no accounts, Secrets, ConfigMaps, claims. A file
//! that cannot be read as a pod is complained of, and what it was before runs on.

mod files;
mod mirrors;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub(crate) use files::watch;
pub(crate) use mirrors::{Mirrors, keep, mirror_key};

/// The mark of a mirror; its value is the uid of the static pod.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";
const SEEN: &str = "kubernetes.io/config.seen";

/// Static pods by uid.
pub(crate) type Statics = BTreeMap<String, Arc<Pod>>;

/// What the files say; none while they have not been read.
pub(crate) type Said = Option<Statics>;

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The static pod that a pod of the API shows, if it shows one.
pub(crate) fn shown(pod: &Pod) -> Option<&str> {
    annotation(pod, MIRROR)
}

/// Whether a pod comes from a file. One of the API that says so of itself is none: its uid is the server's.
pub(crate) fn is_static(pod: &Pod) -> bool {
    pod.metadata.uid.as_deref().is_some_and(is_own) && annotation(pod, SOURCE) == Some("file") && shown(pod).is_none()
}

/// Whether a uid is one of ours: those of the API have dashes.
pub(crate) fn is_own(uid: &str) -> bool {
    uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_of_the_api_cannot_say_that_it_is_of_a_file() {
        let pod = |uid: &str| -> Pod {
            serde_json::from_value(json!({"metadata": {"uid": uid, "annotations": {SOURCE: "file"}}})).unwrap()
        };
        assert!(is_static(&pod(&"0a".repeat(16))));
        assert!(!is_static(&pod("0a1b2c3d-4e5f-6789-abcd-ef0123456789")), "or nothing would evict it");
    }
}
