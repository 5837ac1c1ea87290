//! Services (SaaS, §6.4.3): instances of what this node sells, and access to what it buys.
//!
//! An *instance* is what a ServiceBlueprint makes for one contract: a namespace of its own, credentials of its own, the blueprint's
//! manifests. *Access* is what the buyer has of it: a Secret with the credentials, and a Service that leads to the instance.
//!
//! ```text
//!        seller                                                        buyer
//!  Contract (Service) ─▶ namespace, credentials, manifests      Contract (Service)
//!        │                      │ ready                               │ asks, over the link
//!        ▼                      ▼                                     ▼
//!  Allocation Active      answer ◀──── request `service/1` ──── Secret, Service, EndpointSlice ─▶ Allocation Active
//!
//!  contract over: the namespace goes, and with it everything        contract over: Secret and Service go
//! ```
//! The configuration of a buyer is hostile: it was checked against the schema when it was held, is bound into what both signed by its digest,
//! and takes the place of whole values only ([`fluidos_model::service`]). The pods of an instance are confined as guests are: they reach their
//! buyer's addresses and one another, nothing else of their owner, and nobody else of other owners reaches them.
//!
//! *Credentials* of a service are what is bought: they stand in a Secret of the instance and in the buyer's, travel on the link, whose both
//! keys are proven, and are in no contract, REAR message, Event or log. They have nothing to do with the peering, which has none.
//!
//! Watches Contracts, Allocations, ServiceBlueprints, EndpointSlices of its own; writes instances, access, and the status of Allocations of
//! services.
//!
//! Limits: an instance is made once and not changed when its blueprint is; the pods of an instance find each other by Service addresses (the
//! variables `…_SERVICE_HOST`), not by DNS; no volume outlives a pod; what an instance uses is not metered.

mod answer;
pub mod buyer;
pub mod seller;

pub use answer::KIND;

use fluidos_identity::{NodeId, Speakers};
use fluidos_link::Links;
use fluidos_model::kinds::{Contract, FlavorType, NodeIdentity, Phase};
use jiff::Timestamp;
use substrate_client::Access;

/// What this room is told.
#[derive(Clone)]
pub struct Options {
    /// This node.
    pub own: NodeId,
    /// The way to peers.
    pub links: Links,
    /// Which key speaks for whom now.
    pub speakers: Speakers,
}

/// Makes instances and keeps access, for ever.
///
/// # Errors
/// [`fluidos_link::LinkError::Taken`] if somebody else answers for services.
pub async fn run(access: Access, options: Options) -> Result<(), fluidos_link::LinkError> {
    let door = answer::Door::new(access.client.clone(), options.clone());
    options.links.handle_requests(KIND, std::sync::Arc::new(door))?;
    tokio::join!(seller::run(access.clone(), options.clone()), buyer::run(access, options));
    Ok(())
}

/// What this room reads of a contract of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deal {
    pub contract: String,
    pub buyer: NodeId,
    pub seller: NodeId,
    /// The seller's first key, from which its addresses follow.
    pub seller_first: NodeId,
    /// Neither ended nor over.
    pub live: bool,
}

impl Deal {
    /// Returns the deal of a contract; `None` if it is of something else, or of who has proven no key.
    pub(crate) fn of(contract: &Contract, speakers: &Speakers, now: Timestamp) -> Option<Self> {
        let spec = &contract.spec;
        if spec.flavor.spec.flavor_type.type_identifier != FlavorType::Service {
            return None;
        }
        let did = |party: &NodeIdentity| -> Option<NodeId> {
            party.additional_information.as_ref()?.did.as_ref()?.parse().ok()
        };
        let until = spec.expiration_time.as_ref().map(|until| until.parse::<Timestamp>());
        // A time that cannot be read is no time to go on by.
        let in_time = until.is_none_or(|until| until.is_ok_and(|until| now < until));
        let active = contract.status.as_ref().is_some_and(|status| status.phase == Phase::Active);
        let (buyer, seller) = (did(&spec.buyer)?, did(&spec.seller)?);
        Some(Self {
            contract: contract.metadata.name.clone()?,
            buyer: speakers.current(&buyer),
            seller: speakers.current(&seller),
            seller_first: speakers.first(&seller),
            live: contract.metadata.deletion_timestamp.is_none() && in_time && active,
        })
    }
}
