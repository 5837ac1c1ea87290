//! Writes what was seen into the entries of who was seen.

use std::collections::{BTreeMap, BTreeSet};

use fluidos_identity::NodeId;
use fluidos_model::kinds::{KnownCluster, names};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::plan;

/// Writes what is due. Returns whether something stands in any entry then.
pub(super) async fn write(
    client: &Client,
    seen: &BTreeMap<NodeId, BTreeSet<String>>,
    now: Timestamp,
) -> kube::Result<bool> {
    let api = Api::<KnownCluster>::namespaced(client.clone(), names::NAMESPACE);
    let nothing = BTreeSet::new();
    let mut stands = false;
    for known in api.list(&Default::default()).await? {
        let Some(did) = known.spec.did.as_deref().and_then(|did| did.parse::<NodeId>().ok()) else { continue };
        let before = known.status.as_ref().map(|status| status.measured.clone()).unwrap_or_default();
        let Some(measured) = plan::due(&before, seen.get(&did).unwrap_or(&nothing), now) else {
            stands |= !before.is_empty();
            continue;
        };
        stands |= !measured.is_empty();
        let patch = Patch::Merge(json!({"status": {"measured": measured}}));
        match api.patch_status(&known.name_any(), &PatchParams::default(), &patch).await {
            // It was forgotten meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(stands)
}
