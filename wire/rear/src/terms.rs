//! What both parties sign, and the checks that each makes before it does.
//!
//! ```text
//!   seller: terms ──────────────► buyer: check_offer, sign
//!   seller: check_purchase, sign ◄──────────────┘
//!      └───────────────────────► buyer: check_contract; both keep the same bytes with both signatures
//! ```
//! A signature is over the exact bytes that the seller offered; no party ever signs what it has not compared.

use fluidos_identity::{Envelope, NodeId, Signed, SignedError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{FlavorType, ReserveRequest};

/// `typ` of the signatures over a contract.
pub const CONTRACT_PURPOSE: &str = "fluidos-contract+jws";
/// `typ` of the signature over the end of a contract.
pub const RELEASE_PURPOSE: &str = "fluidos-release+jws";
/// What the digest of a configuration is of. It is not signed by itself.
const CONFIGURATION_PURPOSE: &str = "fluidos-configuration";
const VERSION: u32 = 1;

/// The terms of a contract: what is signed.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContractTerms {
    /// 1. A party that does not know the version does not sign.
    pub version: u32,
    /// Name of the contract at both parties.
    #[serde(rename = "contractID")]
    pub contract_id: String,
    /// The transaction that holds it.
    #[serde(rename = "transactionID")]
    pub transaction_id: String,
    /// What it is cut from.
    #[serde(rename = "flavorID")]
    pub flavor_id: String,
    /// Of which type, as on the wire.
    pub flavor_type: String,
    /// What exactly is sold.
    pub configuration: Value,
    /// Who buys.
    pub buyer: NodeId,
    /// Who sells.
    pub seller: NodeId,
    /// Price of the contract, whatever its size: amount, currency, period. Contracts of older versions have empty ones and
    /// cost nothing.
    pub price: [String; 3],
    /// Everything beyond size, price and term, in the words of the model; absent are the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Value>,
    /// When the terms were written (RFC 3339).
    pub issued: String,
    /// When the contract ends by itself (RFC 3339); absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The end of a contract: what is signed by the party that ends it.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseTerms {
    /// 1.
    pub version: u32,
    /// Which contract.
    #[serde(rename = "contractID")]
    pub contract_id: String,
    /// SHA-256 of the contract's signed bytes, so that it can only be this one.
    pub terms_digest: String,
    /// Why, in words.
    pub reason: String,
    /// When (RFC 3339).
    pub at: String,
    /// When it takes effect, after the notice that the contract asks for (RFC 3339); absent is at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
}

/// Why terms are not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TermsError {
    /// They are not signed as they must be.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// They say something else than was agreed.
    #[error("contract terms: {field} is {observed}, needed {needed}")]
    Differ {
        /// What differs.
        field: &'static str,
        /// What they say.
        observed: String,
        /// What was agreed.
        needed: String,
    },
    /// They are other bytes than those that were offered.
    #[error("contract terms are not the ones that were offered (digest {observed}, needed {needed})")]
    OtherBytes {
        /// SHA-256 of what came.
        observed: String,
        /// SHA-256 of what was offered.
        needed: String,
    },
}

impl ContractTerms {
    /// Returns the terms ready to be signed.
    ///
    /// # Errors
    /// [`SignedError`] if they have no canonical form (fractions in the configuration) or are too long.
    pub fn into_signed(self) -> Result<Signed<Self>, SignedError> {
        Signed::new(CONTRACT_PURPOSE, self)
    }
}

impl ReleaseTerms {
    /// Returns the end of a contract, ready to be signed.
    ///
    /// # Errors
    /// [`SignedError`] if the reason is too long.
    pub fn of(
        contract: &Signed<ContractTerms>,
        reason: &str,
        at: jiff::Timestamp,
        ends: Option<jiff::Timestamp>,
    ) -> Result<Signed<Self>, SignedError> {
        let release = Self {
            version: VERSION,
            contract_id: contract.value().contract_id.clone(),
            terms_digest: contract.digest(),
            reason: reason.into(),
            at: at.to_string(),
            ends: ends.map(|ends| ends.to_string()),
        };
        Signed::new(RELEASE_PURPOSE, release)
    }
}

/// Who runs a service: its seller. Nothing else is signed.
const PROVIDER: &str = "Provider";

/// What terms say of a service, in the place of its configuration: the digest of that, so that whoever is shown the contract does not see what
/// was configured, and neither side can say that it was something else; and how large it is, so that what it takes of its seller's capacity is
/// known to who has only the contract left.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceTerms {
    /// `Provider`.
    pub hosting_policy: String,
    /// SHA-256 of what is configured, in hex ([`configuration_digest`]).
    pub configuration_digest: String,
    /// What one instance takes, written as the configuration of a K8Slice of that size. Contracts of older versions do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Value>,
}

impl ServiceTerms {
    /// Returns the terms of a service that runs at its seller.
    pub fn new(digest: &str, size: Option<Value>) -> Self {
        Self { hosting_policy: PROVIDER.into(), configuration_digest: digest.into(), size }
    }

    /// Returns what terms say of a service.
    ///
    /// # Errors
    /// [`TermsError::Differ`] if they say something else in that place, or that it runs elsewhere.
    pub fn of(terms: &ContractTerms) -> Result<Self, TermsError> {
        let service: Self = Self::deserialize(&terms.configuration).map_err(|error| TermsError::Differ {
            field: "configuration",
            observed: error.to_string().chars().take(200).collect(),
            needed: "hostingPolicy, configurationDigest and size".into(),
        })?;
        equal("configuration.hostingPolicy", &service.hosting_policy.as_str(), &PROVIDER)?;
        Ok(service)
    }
}

/// What stands in the terms.
impl From<ServiceTerms> for Value {
    fn from(terms: ServiceTerms) -> Self {
        let ServiceTerms { hosting_policy, configuration_digest, size } = terms;
        let mut value =
            serde_json::json!({"hostingPolicy": hosting_policy, "configurationDigest": configuration_digest});
        if let Some(size) = size {
            value["size"] = size;
        }
        value
    }
}

/// Returns the SHA-256 of what is configured of a service (`configurationData`, absent is nothing), of its canonical JSON (RFC 8785), in hex.
///
/// # Errors
/// [`SignedError::NotCanonical`] for fractions: write them as texts.
pub fn configuration_digest(data: &Value) -> Result<String, SignedError> {
    let nothing = serde_json::json!({});
    let configured = data.get("configurationData").filter(|data| !data.is_null()).unwrap_or(&nothing);
    Ok(Signed::new(CONFIGURATION_PURPOSE, configured.clone())?.digest())
}

/// Buyer: checks the terms that a seller offers against what was asked for. Then they may be signed.
///
/// # Errors
/// [`TermsError::Differ`] names the first thing that was not asked for.
pub fn check_offer(
    offered: &Envelope,
    asked: &ReserveRequest,
    transaction_id: &str,
    buyer: NodeId,
    seller: NodeId,
) -> Result<Signed<ContractTerms>, TermsError> {
    let signed = open_contract(offered)?;
    let terms = signed.value();
    equal("buyer", &terms.buyer, &buyer)?;
    equal("seller", &terms.seller, &seller)?;
    equal("transactionID", &terms.transaction_id, &transaction_id.to_owned())?;
    equal("flavorID", &terms.flavor_id, &asked.flavor_id)?;
    if let Some(configuration) = &asked.configuration {
        equal("flavorType", &terms.flavor_type, &configuration.flavor_type.as_str().to_owned())?;
        match configuration.flavor_type {
            // How large it is is its seller's to say; whether that can be read, its buyer's to check.
            FlavorType::Service => {
                let (observed, needed) = (ServiceTerms::of(terms)?, configuration_digest(&configuration.data)?);
                equal("configuration.configurationDigest", &observed.configuration_digest, &needed)?;
            }
            _ => equal("configuration", &terms.configuration, &configuration.data)?,
        }
    }
    Ok(signed)
}

/// Seller: checks that a buyer signed exactly what it was offered. Then the seller may sign.
///
/// # Errors
/// [`TermsError`] if the bytes differ or the buyer has not signed.
pub fn check_purchase(offered: &Envelope, received: &Signed<ContractTerms>, buyer: NodeId) -> Result<(), TermsError> {
    same_bytes(received, &open_contract(offered)?)?;
    received.require(&[buyer])?;
    Ok(())
}

/// Buyer: checks that a seller signed exactly what the buyer did. Then there is a contract.
///
/// # Errors
/// [`TermsError`] if the bytes differ or one of both has not signed.
pub fn check_contract(received: &Envelope, sent: &Signed<ContractTerms>) -> Result<Signed<ContractTerms>, TermsError> {
    let signed = open_contract(received)?;
    same_bytes(&signed, sent)?;
    signed.require(&[sent.value().buyer, sent.value().seller])?;
    Ok(signed)
}

/// Either party: checks that a release ends this contract and is signed by one of its parties; returns which.
/// `speaks` says which key speaks now for one that the contract names; where keys do not change, itself.
///
/// # Errors
/// [`TermsError`] if it is about another contract or signed by nobody of it.
pub fn check_release(
    release: &Signed<ReleaseTerms>,
    contract: &Signed<ContractTerms>,
    speaks: impl Fn(&NodeId) -> NodeId,
) -> Result<NodeId, TermsError> {
    let (terms, parties) =
        (release.value(), [contract.value().buyer, contract.value().seller].map(|named| speaks(&named)));
    equal("contractID", &terms.contract_id, &contract.value().contract_id)?;
    equal("termsDigest", &terms.terms_digest, &contract.digest())?;
    let signer = release.signers().find(|signer| parties.contains(signer));
    signer.ok_or_else(|| SignedError::Missing(parties[0]).into())
}

pub(crate) fn open_contract(envelope: &Envelope) -> Result<Signed<ContractTerms>, TermsError> {
    let signed: Signed<ContractTerms> = Signed::open(envelope, CONTRACT_PURPOSE)?;
    equal("version", &signed.value().version, &VERSION)?;
    let known = FlavorType::from_name(&signed.value().flavor_type).map(FlavorType::as_str);
    equal("flavorType", &Some(signed.value().flavor_type.as_str()), &known)?;
    Ok(signed)
}

pub(crate) fn open_release(envelope: &Envelope) -> Result<Signed<ReleaseTerms>, TermsError> {
    let signed: Signed<ReleaseTerms> = Signed::open(envelope, RELEASE_PURPOSE)?;
    equal("version", &signed.value().version, &VERSION)?;
    Ok(signed)
}

fn same_bytes(received: &Signed<ContractTerms>, offered: &Signed<ContractTerms>) -> Result<(), TermsError> {
    if received.bytes() == offered.bytes() {
        return Ok(());
    }
    Err(TermsError::OtherBytes { observed: received.digest(), needed: offered.digest() })
}

pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(
    field: &'static str,
    observed: &T,
    needed: &T,
) -> Result<(), TermsError> {
    if observed == needed {
        return Ok(());
    }
    let text = |value: &T| format!("{value:?}").chars().take(200).collect();
    Err(TermsError::Differ { field, observed: text(observed), needed: text(needed) })
}
