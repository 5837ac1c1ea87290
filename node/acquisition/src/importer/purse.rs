//! What may be paid: the AcquisitionPolicy that counts, and what is paid already.

use std::sync::Arc;

use fluidos_model::kinds::{AcquisitionPolicy, Contract, names};
use fluidos_model::market::{Buying, Expense};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::expenses;

/// What may be paid, and what is paid already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Purse {
    /// `None` without a policy; an error is why it is not accepted.
    pub policy: Option<Result<Buying, String>>,
    pub expenses: Vec<Expense>,
}

/// Returns what stands in policies and contracts.
pub(crate) fn purse(policies: &[Arc<AcquisitionPolicy>], contracts: &[Arc<Contract>]) -> Purse {
    let Some(policy) = expenses::counting(policies.iter().map(AsRef::as_ref)) else { return Purse::default() };
    let rules = policy.spec.rules(&policy.name_any()).map_err(|error| error.to_string());
    let running = contracts.iter().filter_map(|contract| expenses::running(contract));
    // One that is being taken away is remembered a moment before it goes: it counts once.
    let there = |name: &String| contracts.iter().any(|contract| contract.metadata.name.as_ref() == Some(name));
    let ended = policy.status.iter().flat_map(|status| &status.ended).filter(|ended| !there(&ended.contract));
    let expenses = running.chain(ended.filter_map(|ended| ended.expense())).collect();
    Purse { policy: Some(rules), expenses }
}

/// Writes into each policy whether it is accepted.
pub(super) async fn judge(client: &Client, policies: &[Arc<AcquisitionPolicy>]) -> kube::Result<()> {
    let counting = expenses::counting(policies.iter().map(AsRef::as_ref)).map(|policy| policy.name_any());
    let Some(counting) = counting else { return Ok(()) };
    let api = Api::<AcquisitionPolicy>::namespaced(client.clone(), names::NAMESPACE);
    for policy in policies.iter().filter(|policy| policy.metadata.deletion_timestamp.is_none()) {
        let message = if policy.name_any() == counting {
            policy.spec.rules(&counting).err().map(|error| error.to_string()).unwrap_or_default()
        } else {
            format!("AcquisitionPolicy {counting} counts; this one is not used")
        };
        let accepted = message.is_empty();
        if policy.status.as_ref().is_some_and(|status| status.accepted == accepted && status.message == message) {
            continue;
        }
        let version = &policy.metadata.resource_version;
        let status = json!({"accepted": accepted, "message": message});
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": status}));
        match api.patch_status(&policy.name_any(), &PatchParams::default(), &patch).await {
            // Somebody changed or deleted it: it is looked at again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}
