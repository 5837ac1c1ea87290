//! What the exporter reads, and what its failures are called on the wire.
//!
//! What is sold, by which rules and to whom is read from the copies of the process ([`Copies`]): each message of a purchase needs all of it, and
//! twelve of the eighteen requests that a purchase made of the API asked for it. A rule that has changed counts as soon as the copies have it, as in
//! the policy point. What is promised and signed is the Ledger's and the contracts', and is read there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

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
use substrate_client::{Cache, Caches};

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

/// What is sold, and by which rules, as this process knows it.
pub(super) struct Copies {
    flavors: Cache<Flavor>,
    policies: Cache<SharingPolicy>,
    offers: Cache<Offer>,
    blueprints: Cache<ServiceBlueprint>,
    ratings: Cache<Rating>,
    contracts: Cache<Contract>,
    /// What offers and blueprints said when it was read last, and how often each had changed then.
    shop: Mutex<Option<([u64; 2], Arc<Shop>)>>,
}

impl Copies {
    /// Begins to follow them.
    pub fn new(caches: &Caches) -> Self {
        Self {
            flavors: caches.namespaced(names::NAMESPACE),
            policies: caches.namespaced(names::NAMESPACE),
            offers: caches.namespaced(names::NAMESPACE),
            blueprints: caches.namespaced(names::NAMESPACE),
            ratings: caches.namespaced(names::NAMESPACE),
            contracts: caches.namespaced(names::NAMESPACE),
            shop: Mutex::default(),
        }
    }

    /// Returns own flavors.
    pub async fn flavors(&self, own: NodeId) -> Vec<Flavor> {
        self.flavors.synced().await;
        let flavors = self.flavors.list();
        let owned = flavors.iter().filter(|flavor| convert::did(&flavor.spec.owner) == Some(own));
        owned.map(|flavor| Flavor::clone(flavor)).collect()
    }

    /// Returns an own flavor. The name is a peer's text: of one that can be no name there is none.
    pub async fn flavor(&self, name: &str, own: NodeId) -> Option<Flavor> {
        self.flavors.synced().await;
        let flavor = self.flavors.get(names::NAMESPACE, name)?;
        (convert::did(&flavor.spec.owner) == Some(own)).then(|| Flavor::clone(&flavor))
    }

    /// Returns the contracts by which this node sells, as far as this process knows.
    pub async fn sold(&self, own: NodeId, speakers: &Speakers) -> Vec<Arc<Contract>> {
        self.contracts.synced().await;
        let mut contracts = self.contracts.list();
        contracts.retain(|contract| is_sold(contract, own, speakers));
        contracts
    }

    /// Returns what was seen of a buyer, 0 to 100; `None` is nothing yet.
    pub async fn rating(&self, buyer: &str) -> Option<u8> {
        // Who has proven no key is nobody of whom anything was seen.
        let key = buyer.parse::<NodeId>().ok()?;
        self.ratings.synced().await;
        let known = self.ratings.get(names::NAMESPACE, &names::known_cluster(&key.tag()))?;
        // Eight digits of a key can be made to measure; the whole key cannot.
        if known.spec.did == buyer { known.status.as_ref()?.value } else { None }
    }

    /// Returns the rules of all sharing policies by name; `None` is one that is not accepted. Who has handed its key over is still whom a policy
    /// names by the old one.
    pub async fn policies(&self, speakers: &Speakers) -> Vec<Option<Sharing>> {
        self.policies.synced().await;
        let mut policies = self.policies.list();
        policies.retain(|policy| policy.metadata.deletion_timestamp.is_none());
        let current = |did: &str| {
            let named = did.parse::<NodeId>().ok()?;
            Some(speakers.current(&named)).filter(|current| *current != named).map(|current| current.to_string())
        };
        let rules = policies.iter().map(|policy| policy.spec.rules(&policy.name_any()).ok());
        rules.map(|rules| rules.map(|sharing| sharing.following(current))).collect()
    }

    /// Returns what is sold as it is.
    pub async fn shop(&self, options: &Options) -> Arc<Shop> {
        tokio::join!(self.offers.synced(), self.blueprints.synced());
        // Before they are read: what changes meanwhile is read again.
        let versions = [self.offers.version(), self.blueprints.version()];
        // Nothing panics between two states of it.
        let mut shop = self.shop.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, shop)) = shop.as_ref()
            && *known == versions
        {
            return shop.clone();
        }
        let made = Arc::new(Shop::of(&self.offers.list(), &self.blueprints.list(), options));
        *shop = Some((versions, made.clone()));
        made
    }
}

/// Returns the contracts by which this node sells, as the API has them.
pub(super) async fn sold(client: &Client, own: NodeId, speakers: &Speakers) -> Result<Vec<Arc<Contract>>, Error> {
    let api = Api::<Contract>::namespaced(client.clone(), names::NAMESPACE);
    let contracts = api.list(&Default::default()).await?.items;
    Ok(contracts.into_iter().filter(|contract| is_sold(contract, own, speakers)).map(Arc::new).collect())
}

fn is_sold(contract: &Contract, own: NodeId, speakers: &Speakers) -> bool {
    convert::did(&contract.spec.seller).is_some_and(|named| speakers.current(&named) == own)
}

/// What is sold as it is.
pub(super) struct Shop {
    /// The offers that are accepted, by name.
    pub shelves: Vec<Shelf>,
    /// Of fixed size, by the names of the flavors: plans of offers, and services.
    pub plans: BTreeMap<String, Plan>,
    /// Services, by the names of the flavors.
    pub recipes: BTreeMap<String, Recipe>,
}

impl Shop {
    fn of(offers: &[Arc<Offer>], blueprints: &[Arc<ServiceBlueprint>], options: &Options) -> Self {
        let (domain, tag) = (&options.identity.domain, options.key.id().tag());
        let mut recipes = BTreeMap::new();
        for blueprint in blueprints {
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
        let shelves = offers.iter().filter(|offer| offer.metadata.deletion_timestamp.is_none()).filter_map(|offer| {
            let accepted = offer.status.as_ref().is_some_and(|status| status.accepted);
            let name = offer.name_any();
            let plans = offer.spec.plans(&name).ok().filter(|_| accepted)?;
            let named = |plan: Plan| (names::plan_flavor(domain, &tag, &plan.offer, &plan.name), plan);
            let description = offer.spec.description.clone();
            Some(Shelf { description, plans: plans.into_iter().map(named).collect(), name })
        });
        let shelves: Vec<Shelf> = shelves.collect();
        let mut plans: BTreeMap<String, Plan> = shelves.iter().flat_map(|shelf| shelf.plans.iter().cloned()).collect();
        plans.extend(recipes.iter().map(|(name, recipe)| (name.clone(), recipe.plan.clone())));
        Self { shelves, plans, recipes }
    }
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
