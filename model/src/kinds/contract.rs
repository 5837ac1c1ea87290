//! Contract: what both parties have signed; each keeps its own copy. Transaction: what is held for a buyer.

use std::collections::{BTreeMap, BTreeSet};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Condition, Configuration, EmbeddedFlavor, NodeIdentity, Phase, PhaseStatus, TelemetryServer, names};

/// Who sells what to whom until when.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "reservation.fluidos.eu",
    version = "v1alpha1",
    kind = "Contract",
    plural = "contracts",
    shortname = "contr",
    namespaced,
    status = "ContractStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Flavor ID","type":"string","jsonPath":".spec.flavor.metadata.name"}"#,
    printcolumn = r#"{"name":"Buyer","type":"string","jsonPath":".spec.buyer.domain"}"#,
    printcolumn = r#"{"name":"Seller","type":"string","jsonPath":".spec.seller.domain"}"#,
    printcolumn = r#"{"name":"Transaction ID","type":"string","priority":1,"jsonPath":".spec.transactionID"}"#,
    printcolumn = r#"{"name":"Buyer Cluster ID","type":"string","priority":1,"jsonPath":".spec.buyerClusterID"}"#,
    printcolumn = r#"{"name":"Served By","type":"string","priority":1,"jsonPath":".spec.servedBy"}"#,
    printcolumn = r#"{"name":"Logged","type":"string","priority":1,"jsonPath":".status.conditions[?(@.type==\"LoggedByOtherParty\")].reason"}"#,
    printcolumn = r#"{"name":"Expiration Time","type":"string","jsonPath":".spec.expirationTime"}"#,
    printcolumn = r#"{"name":"Status","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct ContractSpec {
    /// What it was cut from.
    pub flavor: EmbeddedFlavor,
    /// The transaction that held it.
    #[serde(rename = "transactionID")]
    pub transaction_id: String,
    /// What exactly is sold; absent is the whole flavor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Who buys.
    pub buyer: NodeIdentity,
    /// Liqo id of an official buyer; the DID of ours.
    #[serde(rename = "buyerClusterID", default)]
    pub buyer_cluster_id: String,
    /// Who sells.
    pub seller: NodeIdentity,
    /// What official sellers hand out. Ours never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peering_target_credentials: Option<LiqoCredentials>,
    /// Until when (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<String>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_information: BTreeMap<String, String>,
    /// Name of a ConfigMap with network requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_requests: Option<String>,
    /// Where the seller is to send measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_telemetry_endpoint: Option<TelemetryServer>,
    /// The exact bytes that both parties signed, with their signatures (ours). In the spec, so that an object is never
    /// there without them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_terms: Option<SignedTerms>,
    /// The last renewal, signed by both (ours).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<SignedTerms>,
    /// At the buyer: the next renewal, which it has asked for and of which it does not know yet what came of it (ours). Beside the last one, for
    /// a seller to have that back which has lost it meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_asked: Option<SignedTerms>,
    /// At a reseller, in what it has sold: the contract that it has bought from somebody else and serves this one with (ours). Absent is
    /// that it serves it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
}

/// Returns which of these contracts serve others: by the name of one that was bought, the names of those that were sold and are served
/// with it, none of one that was bought to be sold on ([`names::LABEL_RESALE`]) and serves nobody yet. It is kept for them alone.
pub fn serving<'a>(contracts: impl IntoIterator<Item = &'a Contract>) -> BTreeMap<String, BTreeSet<String>> {
    let mut serving: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for contract in contracts {
        if let (true, Some(bought)) = (
            contract.metadata.labels.iter().flatten().any(|(key, _)| key == names::LABEL_RESALE),
            &contract.metadata.name,
        ) {
            serving.entry(bought.clone()).or_default();
        }
        if let (Some(bought), Some(sold)) = (&contract.spec.served_by, &contract.metadata.name) {
            serving.entry(bought.clone()).or_default().insert(sold.clone());
        }
    }
    serving
}

/// Bytes and the signatures over them, as they came over the wire.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct SignedTerms {
    /// What was signed.
    pub purpose: String,
    /// The exact bytes, base64url.
    pub payload: String,
    /// Detached JWS, one per party.
    pub signatures: Vec<String>,
}

/// How a contract stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct ContractStatus {
    /// Where it stands.
    pub phase: Phase,
    /// Why, in words (ours).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it ends, before its time and after its notice (RFC 3339, ours); absent is that nobody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// The other side has given less notice than both have signed (ours).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short_notice: bool,
    /// What became of its renewal, in words (ours).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub renewal: String,
    /// Ours: `LoggedByOtherParty`, whether the other party has shown that this contract is in its log; `Peering` is `False` where nothing can
    /// run under it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Contract {
    /// Returns the condition of this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// What official nodes hand to a buyer.
#[derive(Serialize, Deserialize, JsonSchema, Clone, PartialEq, Eq, Default)]
pub struct LiqoCredentials {
    /// Liqo cluster id.
    #[serde(rename = "liqoID")]
    pub liqo_id: String,
    /// base64 of a kubeconfig.
    pub kubeconfig: String,
}

/// Prints no credential.
impl std::fmt::Debug for LiqoCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiqoCredentials").field("liqo_id", &self.liqo_id).field("kubeconfig", &"(redacted)").finish()
    }
}

/// What is held for a buyer.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Default)]
#[kube(
    group = "reservation.fluidos.eu",
    version = "v1alpha1",
    kind = "Transaction",
    plural = "transactions",
    shortname = "tr",
    namespaced,
    status = "TransactionStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Flavor ID","type":"string","jsonPath":".spec.flavorID"}"#,
    printcolumn = r#"{"name":"Buyer","type":"string","jsonPath":".spec.buyer.domain"}"#,
    printcolumn = r#"{"name":"Cluster ID","type":"string","priority":1,"jsonPath":".spec.clusterID"}"#,
    printcolumn = r#"{"name":"Expiration Time","type":"string","jsonPath":".spec.expirationTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TransactionSpec {
    /// Of which flavor.
    #[serde(rename = "flavorID")]
    pub flavor_id: String,
    /// For whom.
    pub buyer: NodeIdentity,
    /// Liqo id of an official buyer; the DID of ours.
    #[serde(rename = "clusterID", default)]
    pub cluster_id: String,
    /// What exactly; absent is the whole flavor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Until when (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<String>,
}

/// How it stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct TransactionStatus {
    /// With the reason in words.
    pub phase: PhaseStatus,
}
