//! What was bought costs: contracts at a price as expenses, and the record of those that have ended.
//!
//! A contract goes when it ends, but the month it ended in counts it. So before a bought contract goes it is written into
//! `status.ended` of the AcquisitionPolicy that counts, once, whatever ends it.

use fluidos_model::kinds::{AcquisitionPolicy, Contract, EndedContract, names};
use fluidos_model::market::{Expense, month_of};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

/// The importer and a person may write the policy at the same time.
const TRIES_MAX: u32 = 8;

/// Returns what a contract costs while it runs, or `None` for one that was sold, or costs nothing.
pub(crate) fn running(contract: &Contract) -> Option<Expense> {
    let until = contract.spec.expiration_time.clone().unwrap_or_else(|| Timestamp::MAX.to_string());
    entry(contract, &until)?.expense()
}

/// Returns what is remembered of a contract that ends now; `None` for one that was sold, or cost nothing.
pub(crate) fn ended(contract: &Contract, now: Timestamp) -> Option<EndedContract> {
    let expires = contract.spec.expiration_time.as_ref().and_then(|until| until.parse::<Timestamp>().ok());
    entry(contract, &expires.unwrap_or(now).min(now).to_string())
}

fn entry(contract: &Contract, until: &str) -> Option<EndedContract> {
    // At the buyer a contract belongs to the Solver that bought it; at the seller it belongs to nobody.
    let bought = contract.owner_references().iter().any(|owner| owner.kind == "Solver");
    let price = contract.spec.flavor.spec.price.clone();
    let costs = price.parse().ok().flatten().is_some_and(|price| !price.price.is_zero());
    let from = contract.metadata.creation_timestamp.as_ref()?.0.to_string();
    (bought && costs).then(|| EndedContract {
        contract: contract.name_any(),
        price,
        from,
        until: until.to_owned(),
        namespace: contract.annotations().get(names::ANNOTATION_NAMESPACE).cloned(),
    })
}

/// Remembers a contract that ends, in the policy that counts. Without a policy nothing at a price is bought, and there is nothing
/// to be counted.
pub(crate) async fn record(client: &Client, contract: &Contract) -> kube::Result<()> {
    let now = Timestamp::now();
    let Some(ended) = ended(contract, now) else { return Ok(()) };
    let api = Api::<AcquisitionPolicy>::namespaced(client.clone(), names::NAMESPACE);
    let mut tries = 0;
    loop {
        let policies = api.list(&Default::default()).await?.items;
        let Some(policy) = counting(policies.iter()) else { return Ok(()) };
        let old = policy.status.clone().unwrap_or_default();
        let status = old.with_ended(ended.clone(), month_of(now).0);
        if status == old {
            return Ok(());
        }
        let version = &policy.metadata.resource_version;
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "status": {"ended": status.ended}}));
        tries += 1;
        match api.patch_status(&policy.name_any(), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) && tries < TRIES_MAX => {}
            other => return other.map(|_| ()),
        }
    }
}

/// Returns the policy that counts: the first by name.
pub(crate) fn counting<'a>(policies: impl Iterator<Item = &'a AcquisitionPolicy>) -> Option<&'a AcquisitionPolicy> {
    policies.filter(|policy| policy.metadata.deletion_timestamp.is_none()).min_by_key(|policy| policy.name_any())
}
