//! Writes what sellers say into candidates. Every effect of the subscriber is here.

use std::collections::HashMap;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{PeeringCandidate, Solver, names};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::plan;

/// Searches write candidates at the same time.
const TRIES_MAX: u32 = 8;

/// Writes everything that a seller says: what it does not name is withdrawn.
pub(super) async fn everything(client: &Client, seller: NodeId, flavors: &[rear::Flavor]) -> kube::Result<()> {
    let said: HashMap<String, &rear::Flavor> =
        flavors.iter().map(|flavor| (plan::candidate(&flavor.id, seller), flavor)).collect();
    let api = Api::<PeeringCandidate>::namespaced(client.clone(), names::NAMESPACE);
    let of = ListParams::default().labels(&format!("{}={}", names::LABEL_PEER, seller.tag()));
    let did = seller.to_string();
    for candidate in api.list(&of).await?.items {
        // A tag is 8 digits of a key: two keys may share one.
        if candidate.spec.seller_did.as_ref() == Some(&did) {
            let name = candidate.name_any();
            write(client, &name, seller, said.get(&name).copied()).await?;
        }
    }
    Ok(())
}

/// Writes what a seller says of one flavor, if a Solver has found it.
pub(super) async fn refresh(client: &Client, seller: NodeId, flavor: &rear::Flavor) -> kube::Result<()> {
    write(client, &plan::candidate(&flavor.id, seller), seller, Some(flavor)).await
}

/// Writes that a flavor cannot be bought any more.
pub(super) async fn withdraw(client: &Client, seller: NodeId, flavor: &str) -> kube::Result<()> {
    write(client, &plan::candidate(flavor, seller), seller, None).await
}

/// Tells a Solver that a seller offers now what could serve it.
pub(super) async fn tell(client: &Client, solver: &str, seller: &str, now: Timestamp) -> kube::Result<()> {
    let said = json!({"metadata": {"annotations": {names::ANNOTATION_OFFERED: names::offered(seller, now)}}});
    let api = Api::<Solver>::namespaced(client.clone(), names::NAMESPACE);
    match api.patch(solver, &PatchParams::default(), &Patch::Merge(said)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(|_| ()),
    }
}

async fn write(client: &Client, name: &str, seller: NodeId, said: Option<&rear::Flavor>) -> kube::Result<()> {
    let api = Api::<PeeringCandidate>::namespaced(client.clone(), names::NAMESPACE);
    for _ in 0..TRIES_MAX {
        let Some(mut known) = api.get_opt(name).await? else { return Ok(()) };
        if known.spec.seller_did.as_ref() != Some(&seller.to_string()) {
            return Ok(());
        }
        let Some(next) = plan::current(&known.spec, seller, said) else { return Ok(()) };
        known.spec = next;
        match api.replace(name, &PostParams::default(), &known).await {
            // A search has written it in between: what it wrote is looked at first.
            Err(kube::Error::Api(status)) if status.code == 409 => continue,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            other => other?,
        };
        let times = Patch::Merge(json!({"status": {"lastUpdateTime": Timestamp::now().to_string()}}));
        return match api.patch_status(name, &PatchParams::default(), &times).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        };
    }
    tracing::debug!(candidate = name, "kept being changed by others; what it says is written with the next change");
    Ok(())
}
