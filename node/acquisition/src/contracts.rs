//! Contract and Allocation objects, as both sides write and end them.

use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{Allocation, AllocationSpec, Contract, ContractSpec, GenericRef, Phase, names};
use fluidos_rear as rear;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;
use substrate_client::Brief;

use crate::convert;

/// Others may change the finalizers of a contract at the same time, of which there are a handful.
const TRIES_MAX: u32 = 8;

/// Why a contract could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("contract {name}: {source}")]
    Api { name: String, source: kube::Error },
    #[error("contract {name} exists with other terms")]
    Taken { name: String },
    #[error("contract {name} is ending")]
    Ending { name: String },
}

/// Returns a contract object. `owner` is what it goes with, at the buyer its Solver.
pub(crate) fn contract(name: &str, spec: ContractSpec, peer: NodeId, owner: Option<OwnerReference>) -> Contract {
    let mut contract = Contract::new(name, spec);
    contract.metadata.namespace = Some(names::NAMESPACE.into());
    contract.metadata.finalizers = Some(vec![names::FINALIZER_RELEASE.into()]);
    contract.metadata.owner_references = owner.map(|owner| vec![owner]);
    contract.labels_mut().insert(names::LABEL_PEER.into(), peer.tag());
    contract.annotations_mut().insert(names::ANNOTATION_PEER_DID.into(), peer.to_string());
    contract
}

/// Returns a contract object with who has proven no key. Nobody has signed it, and no label leads from it to a peer.
pub(crate) fn unproven(name: &str, spec: ContractSpec) -> Contract {
    let mut contract = Contract::new(name, spec);
    contract.metadata.namespace = Some(names::NAMESPACE.into());
    contract.metadata.finalizers = Some(vec![names::FINALIZER_RELEASE.into()]);
    contract
}

/// Writes a contract, which is in force then. The same one again changes nothing.
pub(crate) async fn write(client: &Client, contract: &Contract) -> Result<Contract, WriteError> {
    let written = create(client, contract).await?;
    begin(client, &written).await?;
    Ok(written)
}

/// Writes a contract that is sold, with its allocation. The same one again changes nothing.
pub(crate) async fn sell(client: &Client, contract: &Contract) -> Result<Contract, WriteError> {
    let written = create(client, contract).await?;
    let allocated = async { allocate(client, &written).await.map_err(|source| failed(&written, source)) };
    // Neither needs the other, and each is a write that is waited for.
    tokio::try_join!(begin(client, &written), allocated)?;
    Ok(written)
}

fn failed(contract: &Contract, source: kube::Error) -> WriteError {
    WriteError::Api { name: contract.name_any(), source }
}

async fn create(client: &Client, contract: &Contract) -> Result<Contract, WriteError> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let name = contract.name_any();
    match Brief::namespaced::<Contract>(client, names::NAMESPACE).create(contract).await {
        Ok(metadata) => Ok(Contract { metadata, ..contract.clone() }),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let known = api.get(&name).await.map_err(|source| failed(contract, source))?;
            let payload = |contract: &Contract| contract.spec.signed_terms.as_ref().map(|terms| terms.payload.clone());
            if payload(&known) != payload(contract) {
                return Err(WriteError::Taken { name });
            }
            if known.metadata.deletion_timestamp.is_some() {
                return Err(WriteError::Ending { name });
            }
            Ok(known)
        }
        Err(source) => Err(failed(contract, source)),
    }
}

/// Says that a contract is in force, if nothing is said of it yet.
async fn begin(client: &Client, written: &Contract) -> Result<(), WriteError> {
    if written.status.is_some() {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"status": {"phase": "Active"}}));
    let begun = Brief::namespaced::<Contract>(client, names::NAMESPACE).patch_status(&written.name_any(), &patch).await;
    begun.map(|_| ()).map_err(|source| failed(written, source))
}

/// Writes the allocation of a contract, which goes with it. One that is there stays as it is. Nothing is said of how it stands: whoever uses it
/// says that, and until then it is `Inactive`.
pub(crate) async fn allocate(client: &Client, contract: &Contract) -> kube::Result<()> {
    let api = Brief::namespaced::<Allocation>(client, names::NAMESPACE);
    let contract_name = contract.name_any();
    let name = names::allocation(&contract_name);
    let reference = GenericRef {
        name: contract_name.clone(),
        namespace: names::NAMESPACE.into(),
        api_version: Contract::api_version(&()).into_owned(),
        kind: Contract::kind(&()).into_owned(),
    };
    let mut allocation = Allocation::new(&name, AllocationSpec { contract: reference, forwarding: false });
    allocation.metadata.namespace = Some(names::NAMESPACE.into());
    allocation.metadata.owner_references = contract.controller_owner_ref(&()).map(|owner| vec![owner]);
    allocation.labels_mut().insert(names::LABEL_CONTRACT.into(), contract_name);
    for key in [names::LABEL_PEER] {
        if let Some(value) = contract.labels().get(key) {
            allocation.labels_mut().insert(key.into(), value.clone());
        }
    }
    match api.create(&allocation).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Takes the allocation of a contract away. It need not be there.
pub(crate) async fn unallocate(client: &Client, contract: &str) -> kube::Result<()> {
    let api = Api::<Allocation>::namespaced(client.clone(), names::NAMESPACE);
    absent_is_well(api.delete(&names::allocation(contract), &DeleteParams::background()).await.map(|_| ()))
}

/// Writes an annotation of a contract.
pub(crate) async fn annotate(client: &Client, contract: &Contract, name: &str, text: &str) -> kube::Result<()> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let patch = json!({"metadata": {"uid": contract.uid(), "annotations": {name: text}}});
    absent_is_well(api.patch(&contract.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()))
}

/// Writes a label of a contract.
pub(crate) async fn label(client: &Client, contract: &Contract, name: &str, text: &str) -> kube::Result<()> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let patch = json!({"metadata": {"uid": contract.uid(), "labels": {name: text}}});
    absent_is_well(api.patch(&contract.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ()))
}

/// Writes with what a contract that was sold is served.
pub(crate) async fn serve(client: &Client, contract: &Contract, by: &str) -> kube::Result<()> {
    absent_is_well(spec(client, contract, json!({"servedBy": by})).await)
}

/// Writes how a contract stands.
pub(crate) async fn stands(client: &Client, contract: &Contract, phase: Phase, message: &str) -> kube::Result<()> {
    status(client, contract, json!({"phase": phase, "message": message})).await
}

/// Writes when a contract ends: notice was given. What was bought is not used any more, so that pods move while there is time.
pub(crate) async fn ends(
    client: &Client,
    contract: &Contract,
    ends: Timestamp,
    reason: &str,
    buys: bool,
) -> kube::Result<()> {
    if buys {
        unallocate(client, &contract.name_any()).await?;
    }
    status(client, contract, json!({"ends": ends.to_string(), "message": format!("ends {ends}: {reason}")})).await
}

/// Writes what the buyer asks for before it is sent: what is open after a crash is asked again.
pub(crate) async fn renewing(
    client: &Client,
    contract: &Contract,
    renewal: &Signed<rear::RenewalTerms>,
) -> kube::Result<()> {
    spec(client, contract, json!({"renewalAsked": convert::signed_terms(renewal.envelope())})).await
}

/// Writes that a contract goes on: both have signed it.
pub(crate) async fn renewed(
    client: &Client,
    contract: &Contract,
    renewal: &Signed<rear::RenewalTerms>,
    until: Timestamp,
) -> kube::Result<()> {
    let signed = convert::signed_terms(renewal.envelope());
    spec(client, contract, json!({"renewal": signed, "renewalAsked": null, "expirationTime": until.to_string()}))
        .await?;
    let told = format!("renewal {}: it goes on until {until}", renewal.value().number);
    status(client, contract, json!({"renewal": told})).await
}

/// Writes that a contract does not go on, and why. `last` is the renewal that stays, if there is one.
pub(crate) async fn not_renewed(
    client: &Client,
    contract: &Contract,
    last: Option<&Signed<rear::RenewalTerms>>,
    reason: &str,
) -> kube::Result<()> {
    let last = last.map(|last| convert::signed_terms(last.envelope()));
    spec(client, contract, json!({"renewal": last, "renewalAsked": null})).await?;
    status(client, contract, json!({"renewal": format!("not renewed: {reason}")})).await
}

async fn spec(client: &Client, contract: &Contract, spec: serde_json::Value) -> kube::Result<()> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let patch = json!({"metadata": {"uid": contract.uid()}, "spec": spec});
    api.patch(&contract.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.map(|_| ())
}

/// Remembers that the other side has given less notice than was agreed: it is rated for it, whoever lets the contract go.
pub(crate) async fn cut_short(client: &Client, contract: &Contract) -> kube::Result<()> {
    status(client, contract, json!({"shortNotice": true})).await
}

async fn status(client: &Client, contract: &Contract, status: serde_json::Value) -> kube::Result<()> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let patch = Patch::Merge(json!({"status": status}));
    absent_is_well(api.patch_status(&contract.name_any(), &PatchParams::default(), &patch).await.map(|_| ()))
}

/// Asks for the end of a contract: the other side is told before it goes.
pub(crate) async fn delete(client: &Client, contract: &Contract) -> kube::Result<()> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let only_this = Preconditions { uid: contract.uid(), resource_version: None };
    let params = DeleteParams { preconditions: Some(only_this), ..DeleteParams::background() };
    absent_is_well(api.delete(&contract.name_any(), &params).await.map(|_| ()))
}

/// Lets a contract go without another word to the other side, and asks for its end if nobody has.
pub(crate) async fn forget(client: &Client, contract: &Contract) -> kube::Result<()> {
    crate::expenses::record(client, contract).await?;
    unallocate(client, &contract.name_any()).await?;
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let (name, uid) = (contract.name_any(), contract.uid());
    for _ in 0..TRIES_MAX {
        let Some(known) = api.get_opt(&name).await?.filter(|known| known.uid() == uid) else { return Ok(()) };
        if known.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER_RELEASE) {
            let kept: Vec<_> =
                known.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER_RELEASE).collect();
            let version = &known.metadata.resource_version;
            let patch = json!({"metadata": {"resourceVersion": version, "finalizers": kept}});
            match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                other => absent_is_well(other.map(|_| ()))?,
            }
        }
        return if known.metadata.deletion_timestamp.is_some() { Ok(()) } else { delete(client, contract).await };
    }
    tracing::warn!(contract = name, "others keep changing a contract that is to go; it is tried again");
    Ok(())
}

/// What is gone need not be taken away; what has its name now is something else.
fn absent_is_well(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other,
    }
}
