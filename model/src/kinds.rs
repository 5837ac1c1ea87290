//! What stands in the API: the kinds of FLUIDOS in the official spellings, with what they lack as optional fields.
//!
//! | group | kinds |
//! |---|---|
//! | `nodecore.fluidos.eu/v1alpha1` | Solver, Flavor, Allocation, ServiceBlueprint, Offer, SharingPolicy and AcquisitionPolicy (ours) |
//! | `advertisement.fluidos.eu/v1alpha1` | Discovery, PeeringCandidate |
//! | `reservation.fluidos.eu/v1alpha1` | Reservation, Contract, Transaction, Ledger and LedgerPage (ours) |
//! | `network.fluidos.eu/v1alpha1` | KnownCluster, Broker, DiscoveryPolicy (ours) |
//! | `security.fluidos.eu/v1alpha1` | AccessPolicy, Acquaintance, Rating, TransparencyLog (ours) |
//! | `accounting.fluidos.eu/v1alpha1` | Account, Receipt, Invoice (ours) |
//! | `fluidos.eu/v1` | FLUIDOSDeployment |
//!
//! All are namespaced and have a status subresource (a Ledger has none: it is changed as one object; nor have a LedgerPage and a Receipt, which never
//! change). Enumerations are in the
//! schema; inputs that official tools write (integer quantities, `enstablishPeering`) are accepted.

mod access_policy;
mod accounting;
mod acquaintance;
mod acquisition_policy;
mod allocation;
mod broker;
mod condition;
mod contract;
mod deployment;
mod discovery;
mod discovery_policy;
mod extended;
mod flavor;
mod known_cluster;
mod ledger;
pub mod names;
mod offer;
mod rating;
mod reservation;
mod service_blueprint;
mod shared;
mod sharing_policy;
mod solver;
mod transparency_log;

pub use access_policy::{AccessPolicy, AccessPolicySpec, AccessPolicyStatus, PolicyState};
pub use accounting::{
    Account, AccountPhase, AccountSpec, AccountStatus, Direction, Invoice, InvoiceSpec, InvoiceStatus, PaymentState,
    Receipt, ReceiptSpec,
};
pub use acquaintance::{Acquaintance, AcquaintanceSpec, AcquaintanceStanding, AcquaintanceStatus, AcquaintanceVouch};
pub use acquisition_policy::{
    AcquisitionAccepts, AcquisitionBuffer, AcquisitionCeiling, AcquisitionError, AcquisitionPolicy,
    AcquisitionPolicySpec, AcquisitionPolicyStatus, BufferStatus, EndedContract, Unrated,
};
pub use allocation::{Allocation, AllocationPhase, AllocationSpec, AllocationStatus};
pub use broker::{Broker, BrokerSpec, BrokerStatus};
pub use condition::Condition;
pub use contract::{
    Contract, ContractSpec, ContractStatus, LiqoCredentials, SignedTerms, Transaction, TransactionSpec,
    TransactionStatus, serving,
};
pub use deployment::{FLUIDOSDeployment, FLUIDOSDeploymentSpec, FLUIDOSDeploymentStatus};
pub use discovery::{
    Discovery, DiscoverySpec, DiscoveryStatus, EmbeddedPeeringCandidate, PeeringCandidate, PeeringCandidateList,
    PeeringCandidateSpec, PeeringCandidateStatus,
};
pub use discovery_policy::{
    DiscoveryPolicy, DiscoveryPolicySpec, DiscoveryPolicyStatus, FeatureOperator, FeatureRequirement,
    IncomingDiscovery, MulticastState, MulticastStatus, OutgoingDiscovery, RejectedPeer,
};
pub use extended::{EXTENDED_MAX, ExtendedError, ExtendedTexts, extended_texts};
pub use flavor::{
    EmbeddedFlavor, Flavor, FlavorError, FlavorLocation, FlavorPrice, FlavorSpec, FlavorStatus, FlavorTypeData, Gpu,
    K8Slice, K8SliceCharacteristics, K8SliceConfiguration, K8SlicePartitionability, K8SlicePolicies, K8SliceProperties,
    PLAN_PROPERTY,
};
pub use known_cluster::{
    AttributeEvidence, AttributeLevel, KnownCluster, KnownClusterEndpoints, KnownClusterIdentity, KnownClusterLink,
    KnownClusterMeasurement, KnownClusterOffer, KnownClusterOpinion, KnownClusterSource, KnownClusterSpec,
    KnownClusterStatus, KnownClusterTrust, LinkState, OFFERS_OF_NODE_MAX, ProvenFact,
};
pub use ledger::{
    Ledger, LedgerAgreed, LedgerAmounts, LedgerCommitment, LedgerError, LedgerPage, LedgerPageReference,
    LedgerPageSpec, LedgerSpec, commitments,
};
pub(crate) use offer::is_label;
pub use offer::{Offer, OfferError, OfferPlan, OfferSpec, OfferStatus, PLANS_MAX};
pub use rating::{FoldedObservations, ObservationKind, Rating, RatingObservation, RatingSpec, RatingStatus};
pub use reservation::{Reservation, ReservationPart, ReservationSpec, ReservationStatus};
pub use service_blueprint::{
    BlueprintCredential, ServiceBlueprint, ServiceBlueprintSpec, ServiceBlueprintStatus, ServiceConfiguration,
    ServiceFlavor, ServicePolicies, ServiceTemplate,
};
pub use shared::{
    AdditionalInformation, Configuration, EmbeddedMeta, FlavorType, GenericRef, NodeIdentity, Phase, PhaseStatus,
    QuantityText, Selector, TelemetryServer,
};
pub use sharing_policy::{
    SharingBuyers, SharingError, SharingPolicy, SharingPolicySpec, SharingPolicyStatus, SharingPrice, SharingReselling,
    SharingSellers,
};
pub use solver::{Solver, SolverContract, SolverSpec, SolverSplit, SolverStatus};
pub use transparency_log::{
    LogState, LogWitness, RestoredRecords, TransparencyLog, TransparencyLogSpec, TransparencyLogStatus, WhenUnreachable,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

/// Returns the definitions of all our kinds, to be created before anything else.
///
/// They have no defaults: what an owner applied comes back as it was, so that GitOps sees no drift. Absent is read as the
/// default by our own types.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        Solver::crd(),
        Flavor::crd(),
        Allocation::crd(),
        ServiceBlueprint::crd(),
        Offer::crd(),
        SharingPolicy::crd(),
        AcquisitionPolicy::crd(),
        Discovery::crd(),
        PeeringCandidate::crd(),
        Reservation::crd(),
        Contract::crd(),
        Transaction::crd(),
        Ledger::crd(),
        LedgerPage::crd(),
        KnownCluster::crd(),
        DiscoveryPolicy::crd(),
        AccessPolicy::crd(),
        Acquaintance::crd(),
        Rating::crd(),
        TransparencyLog::crd(),
        Account::crd(),
        Receipt::crd(),
        Invoice::crd(),
        Broker::crd(),
        FLUIDOSDeployment::crd(),
    ];
    let versions = crds.iter_mut().flat_map(|crd| &mut crd.spec.versions);
    let schemas = versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(remove_defaults);
    crds
}

/// Removes the defaults that schemars writes for every field that may be absent. Schemas are finite trees.
fn remove_defaults(schema: &mut JSONSchemaProps) {
    schema.default = None;
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(remove_defaults);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => remove_defaults(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(remove_defaults),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        remove_defaults(values);
    }
}

#[cfg(test)]
mod tests;
