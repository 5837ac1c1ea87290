//! What the exporter reads from the API, and what its failures are called on the wire.

use std::collections::BTreeMap;

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{
    Contract, Flavor, Offer, Rating, ServiceBlueprint, SharingPolicy, SharingPolicyStatus, names,
};
use fluidos_model::market::{Plan, Sharing};
use fluidos_model::service::Recipe;
use fluidos_rear::{Refusal, RefusalCode};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use crate::Options;
use crate::contracts::WriteError;
use crate::convert;
use fluidos_ledger::BooksError;

/// An offer that is accepted.
pub(super) struct Shelf {
    /// Its name.
    pub name: String,
    /// In words for buyers.
    pub description: String,
    /// Its plans, each with the name of its flavor.
    pub plans: Vec<(String, Plan)>,
}

/// Why something was not sold, listed or mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Books(#[from] BooksError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("no flavor {name} is offered here")]
    NoFlavor { name: String },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    /// What a peer is told: the API's own words are nobody else's business.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Self::Refused(refusal) => refusal,
            Self::NoFlavor { .. } => Refusal::new(RefusalCode::NotFound, self.to_string()),
            Self::Books(BooksError::Missing) => Refusal::new(RefusalCode::NotFound, "nothing is offered here"),
            Self::Books(BooksError::Contended) => Refusal::new(RefusalCode::Unavailable, "too many buyers at once"),
            Self::Write(WriteError::Taken { .. } | WriteError::Ending { .. }) => {
                Refusal::new(RefusalCode::Conflict, self.to_string())
            }
            error => {
                tracing::warn!(%error, "exporter");
                Refusal::new(RefusalCode::Internal, "the seller's own records could not be read or written")
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        error.into_refusal()
    }
}

/// Returns own flavors.
pub(super) async fn flavors(client: &Client, own: NodeId) -> Result<Vec<Flavor>, Error> {
    let api = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    let flavors = api.list(&Default::default()).await?.items;
    Ok(flavors.into_iter().filter(|flavor| convert::did(&flavor.spec.owner) == Some(own)).collect())
}

/// Returns an own flavor.
pub(super) async fn flavor(client: &Client, name: &str, own: NodeId) -> Result<Option<Flavor>, Error> {
    // The name is a peer's text: only one that can be a name is asked for.
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if !name.chars().all(named) {
        return Ok(None);
    }
    let api = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    let flavor = api.get_opt(name).await?;
    Ok(flavor.filter(|flavor| convert::did(&flavor.spec.owner) == Some(own)))
}

/// Returns what was seen of a buyer, 0 to 100; `None` is nothing yet.
pub(super) async fn rating(client: &Client, buyer: &str) -> Result<Option<u8>, Error> {
    // Who has proven no key is nobody of whom anything was seen.
    let Ok(key) = buyer.parse::<NodeId>() else { return Ok(None) };
    let api = Api::<Rating>::namespaced(client.clone(), names::NAMESPACE);
    let known = api.get_opt(&names::known_cluster(&key.tag())).await?;
    // Eight digits of a key can be made to measure; the whole key cannot.
    Ok(known.filter(|known| known.spec.did == buyer).and_then(|known| known.status?.value))
}

/// Returns the contracts by which this node sells.
pub(super) async fn sold(client: &Client, own: NodeId, speakers: &Speakers) -> Result<Vec<Contract>, Error> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let contracts = api.list(&Default::default()).await?.items;
    let seller = |contract: &Contract| convert::did(&contract.spec.seller).map(|named| speakers.current(&named));
    Ok(contracts.into_iter().filter(|contract| seller(contract) == Some(own)).collect())
}

/// Returns the rules of all sharing policies by name; `None` is one that is not accepted. Who has handed its key over is still whom a policy
/// names by the old one.
pub(super) async fn policies(client: &Client, speakers: &Speakers) -> Result<Vec<Option<Sharing>>, Error> {
    let policies = listed(client).await?;
    let rules = policies.iter().map(|policy| policy.spec.rules(&policy.name_any()).ok());
    let current = |did: &str| {
        let named = did.parse::<NodeId>().ok()?;
        Some(speakers.current(&named)).filter(|current| *current != named).map(|current| current.to_string())
    };
    Ok(rules.map(|rules| rules.map(|sharing| sharing.following(current))).collect())
}

/// Returns the offers that are accepted, by name, each with its plans and the names of their flavors.
pub(super) async fn offers(client: &Client, options: &Options) -> Result<Vec<Shelf>, Error> {
    let mut offers = Api::<Offer>::namespaced(client.clone(), names::NAMESPACE).list(&Default::default()).await?.items;
    offers.retain(|offer| offer.metadata.deletion_timestamp.is_none());
    offers.sort_by_key(|offer| offer.name_any());
    let (domain, tag) = (&options.identity.domain, options.key.id().tag());
    let shelves = offers.into_iter().filter_map(|offer| {
        let accepted = offer.status.as_ref().is_some_and(|status| status.accepted);
        let name = offer.name_any();
        let plans = offer.spec.plans(&name).ok().filter(|_| accepted)?;
        let named = |plan: Plan| (names::plan_flavor(domain, &tag, &plan.offer, &plan.name), plan);
        Some(Shelf { description: offer.spec.description, plans: plans.into_iter().map(named).collect(), name })
    });
    Ok(shelves.collect())
}

/// What is sold as it is, by the names of the flavors.
pub(super) struct Shop {
    /// Of fixed size: plans of offers, and services.
    pub plans: BTreeMap<String, Plan>,
    /// Services.
    pub recipes: BTreeMap<String, Recipe>,
}

/// Returns what is sold as it is.
pub(super) async fn shop(client: &Client, options: &Options) -> Result<Shop, Error> {
    let blueprints = Api::<ServiceBlueprint>::namespaced(client.clone(), names::NAMESPACE);
    let (domain, tag) = (&options.identity.domain, options.key.id().tag());
    let mut recipes = BTreeMap::new();
    for blueprint in blueprints.list(&Default::default()).await?.items {
        let accepted = blueprint.status.as_ref().is_some_and(|status| status.accepted);
        if !accepted || blueprint.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let name = blueprint.name_any();
        // One that has changed since it was accepted is looked at again in a moment.
        if let Ok(recipe) = Recipe::of(&name, &blueprint.spec) {
            recipes.insert(names::service_flavor(domain, &tag, &name), recipe);
        }
    }
    let mut plans: BTreeMap<String, Plan> =
        offers(client, options).await?.into_iter().flat_map(|shelf| shelf.plans).collect();
    plans.extend(recipes.iter().map(|(name, recipe)| (name.clone(), recipe.plan.clone())));
    Ok(Shop { plans, recipes })
}

/// Writes into each sharing policy whether it is accepted.
pub(super) async fn judge(client: &Client) -> Result<(), Error> {
    let api = Api::<SharingPolicy>::namespaced(client.clone(), names::NAMESPACE);
    for policy in listed(client).await? {
        let refused = policy.spec.rules(&policy.name_any()).err().map(|error| error.to_string());
        let status = SharingPolicyStatus { accepted: refused.is_none(), message: refused.unwrap_or_default() };
        if policy.status.as_ref() == Some(&status) {
            continue;
        }
        let version = &policy.metadata.resource_version;
        let patch = json!({"metadata": {"resourceVersion": version}, "status": status});
        match api.patch_status(&policy.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            // Somebody changed or deleted it: it is looked at again.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(())
}

async fn listed(client: &Client) -> Result<Vec<SharingPolicy>, Error> {
    let api = Api::<SharingPolicy>::namespaced(client.clone(), names::NAMESPACE);
    let mut policies = api.list(&Default::default()).await?.items;
    policies.retain(|policy| policy.metadata.deletion_timestamp.is_none());
    policies.sort_by_key(|policy| policy.name_any());
    Ok(policies)
}
