//! Ledger: one object per pool of capacity, with everything that is promised of it. Ours; owned by acquisition.
//!
//! ```text
//!  Ledger ── capacity, what was promised last, which pages there are and what of each does not stand any more
//!    ├──▶ LedgerPage ── promises that have not changed for a while; never changes itself
//!    └──▶ LedgerPage
//! ```
//! It has no status: whoever promises reads the object, plans with [`Pool`], and writes it back with the resource
//! version it read. Of two writers one loses and plans again, on the embedded API and on a foreign one alike. Pages are why a promise
//! costs the same whether ten others stand or a thousand: they are written before the Ledger names them, and deleted after it does not.

use std::sync::Arc;

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extended::{self, ExtendedError, ExtendedTexts, extended_texts};
use super::{FlavorPrice, QuantityText};
use crate::market::{
    Agreed, AgreedService, Amounts, Commitment, CommitmentState, Conditions, ExtendedResource, Pool, Price,
    QuantityError, Resource,
};

/// A pool of capacity and what is promised of it.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "reservation.fluidos.eu",
    version = "v1alpha1",
    kind = "Ledger",
    plural = "ledgers",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"CPU","type":"string","jsonPath":".spec.capacity.cpu"}"#,
    printcolumn = r#"{"name":"Memory","type":"string","jsonPath":".spec.capacity.memory"}"#,
    printcolumn = r#"{"name":"Pods","type":"string","jsonPath":".spec.capacity.pods"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct LedgerSpec {
    /// What is sold altogether.
    pub capacity: LedgerAmounts,
    /// What is promised of it beside what stands on pages, at most 1,024.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub commitments: Vec<LedgerCommitment>,
    /// The pages that count, at most 512.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub pages: Vec<LedgerPageReference>,
}

/// One page that counts.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct LedgerPageReference {
    /// Name of the LedgerPage, in the same namespace.
    pub name: String,
    /// Transactions that stand on it and do not count: they ended, or stand in the Ledger itself as they are now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub gone: Vec<String>,
}

/// Promises of a Ledger, which goes by what the Ledger says of them.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "reservation.fluidos.eu",
    version = "v1alpha1",
    kind = "LedgerPage",
    plural = "ledgerpages",
    namespaced,
    derive = "PartialEq",
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct LedgerPageSpec {
    /// What is promised, at most 64.
    #[schemars(length(max = 64))]
    pub commitments: Vec<LedgerCommitment>,
}

/// Amounts as quantities; absent is 0. `gpu` is `nvidia.com/gpu`, which is written so and not among the others.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)] // the resources by their names
pub struct LedgerAmounts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<QuantityText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<QuantityText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<QuantityText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<QuantityText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<QuantityText>,
    #[serde(default, rename = "extendedResources", skip_serializing_if = "ExtendedTexts::is_empty")]
    pub extended: ExtendedTexts,
}

/// One promise. It is held while it has no `contract`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LedgerCommitment {
    /// The transaction that made it.
    #[serde(rename = "transactionID")]
    pub transaction_id: String,
    /// DID of the buyer.
    pub buyer: String,
    /// What it was cut from.
    #[serde(rename = "flavorID")]
    pub flavor_id: String,
    /// How much.
    pub amounts: LedgerAmounts,
    /// The contract that bought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Until when (RFC 3339); a held one always has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// What was agreed when it was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<LedgerAgreed>,
    /// The contract that this owner buys from somebody else and serves it with; absent is capacity of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_by: Option<String>,
}

/// What was agreed with a hold. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct LedgerAgreed {
    /// The SharingPolicy by which it was sold.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// When.
    pub issued: String,
    /// Until when it was held.
    pub hold_until: String,
    /// When the contract ends by itself; absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// The price of the contract.
    pub price: FlavorPrice,
    /// How it is used, how well, how it ends; absent are the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
    /// SHA-256 of what is configured of a service, in hex; absent is a slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration_digest: Option<String>,
    /// The size of a service stands in what is signed; absent in promises of older versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub size_signed: bool,
}

/// Why a ledger object cannot be read. Nothing is sold from it until it is mended.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Part of it stands elsewhere.
    #[error("ledger: {pages} pages belong to it, needed none: it cannot be read without them")]
    Paged {
        /// How many.
        pages: usize,
    },
    /// An amount is not a quantity.
    #[error("ledger {place}: {source}")]
    Quantity {
        /// Where.
        place: String,
        /// What is wrong.
        source: QuantityError,
    },
    /// Its extended resources cannot be read.
    #[error("ledger {place}: {source}")]
    Extended {
        /// Where.
        place: String,
        /// What is wrong.
        source: ExtendedError,
    },
    /// A time is not one.
    #[error("ledger commitment {transaction}: until is {observed:?}, needed an RFC 3339 time")]
    Until {
        /// Of which promise.
        transaction: String,
        /// What it says.
        observed: Option<String>,
    },
    /// What was agreed cannot be read.
    #[error("ledger commitment {transaction}: agreed {field}: {reason}")]
    Agreed {
        /// Of which promise.
        transaction: String,
        /// Which field.
        field: &'static str,
        /// What is wrong and what was needed.
        reason: String,
    },
}

impl LedgerSpec {
    /// Returns the pool of a Ledger that stands alone.
    ///
    /// # Errors
    /// [`LedgerError`] names what cannot be read; a Ledger with pages is [`LedgerError::Paged`].
    pub fn pool(&self) -> Result<Pool, LedgerError> {
        if !self.pages.is_empty() {
            return Err(LedgerError::Paged { pages: self.pages.len() });
        }
        let capacity = self.capacity.amounts("capacity")?;
        Ok(Pool { capacity, commitments: commitments(&self.commitments)? })
    }
}

impl From<&Pool> for LedgerSpec {
    /// A Ledger that stands alone.
    fn from(pool: &Pool) -> Self {
        let commitments = pool.commitments.iter().map(|known| LedgerCommitment::from(known.as_ref())).collect();
        Self { capacity: (&pool.capacity).into(), commitments, pages: Vec::new() }
    }
}

/// Reads promises, whether they stand in a Ledger or on a page.
///
/// # Errors
/// [`LedgerError`] names what cannot be read.
pub fn commitments(written: &[LedgerCommitment]) -> Result<Vec<Arc<Commitment>>, LedgerError> {
    written.iter().map(|known| known.commitment().map(Arc::new)).collect()
}

impl LedgerCommitment {
    fn commitment(&self) -> Result<Commitment, LedgerError> {
        let transaction = self.transaction_id.clone();
        let wrong_until = || LedgerError::Until { transaction: transaction.clone(), observed: self.until.clone() };
        let until = self.until.as_ref().map(|text| text.parse::<Timestamp>().map_err(|_| wrong_until())).transpose()?;
        let state = match &self.contract {
            Some(contract) => CommitmentState::Committed { contract: contract.clone(), until },
            None => CommitmentState::Held { until: until.ok_or_else(wrong_until)? },
        };
        let agreed = self.agreed.as_ref().map(|agreed| agreed.agreed(&transaction)).transpose()?;
        Ok(Commitment {
            agreed,
            served_by: self.served_by.clone(),
            buyer: self.buyer.clone(),
            flavor: self.flavor_id.clone(),
            amounts: self.amounts.amounts(&transaction)?,
            transaction,
            state,
        })
    }
}

impl From<&Commitment> for LedgerCommitment {
    fn from(commitment: &Commitment) -> Self {
        let contract = match &commitment.state {
            CommitmentState::Committed { contract, .. } => Some(contract.clone()),
            CommitmentState::Held { .. } => None,
        };
        Self {
            transaction_id: commitment.transaction.clone(),
            buyer: commitment.buyer.clone(),
            flavor_id: commitment.flavor.clone(),
            amounts: (&commitment.amounts).into(),
            contract,
            until: commitment.until().map(|until| until.to_string()),
            agreed: commitment.agreed.as_ref().map(LedgerAgreed::from),
            served_by: commitment.served_by.clone(),
        }
    }
}

impl LedgerAgreed {
    fn agreed(&self, transaction: &str) -> Result<Agreed, LedgerError> {
        let wrong = |field, reason: String| LedgerError::Agreed { transaction: transaction.to_owned(), field, reason };
        let time = |field, text: &str| {
            text.parse::<Timestamp>().map_err(|_| wrong(field, format!("observed {text:?}, needed an RFC 3339 time")))
        };
        let FlavorPrice { amount, currency, period, .. } = &self.price;
        let price = Price::parse(amount, currency, period).map_err(|error| wrong("price", error.to_string()))?;
        Ok(Agreed {
            policy: self.policy.clone(),
            issued: time("issued", &self.issued)?,
            hold_until: time("holdUntil", &self.hold_until)?,
            ends: self.ends.as_ref().map(|text| time("ends", text)).transpose()?,
            price: price.ok_or_else(|| wrong("price", "observed none, needed an amount".into()))?,
            conditions: self
                .conditions
                .clone()
                .unwrap_or_default()
                .checked()
                .map_err(|error| wrong("conditions", error.to_string()))?,
            service: self.configuration_digest.clone().map(|digest| AgreedService { digest, sized: self.size_signed }),
        })
    }
}

impl From<&Agreed> for LedgerAgreed {
    fn from(agreed: &Agreed) -> Self {
        Self {
            policy: agreed.policy.clone(),
            issued: agreed.issued.to_string(),
            hold_until: agreed.hold_until.to_string(),
            ends: agreed.ends.map(|ends| ends.to_string()),
            price: FlavorPrice::from(&agreed.price),
            conditions: (agreed.conditions != Conditions::default()).then(|| agreed.conditions.clone()),
            configuration_digest: agreed.service.as_ref().map(|service| service.digest.clone()),
            size_signed: agreed.service.as_ref().is_some_and(|service| service.sized),
        }
    }
}

impl LedgerAmounts {
    /// Returns the amounts, exactly; `place` is named in an error.
    ///
    /// # Errors
    /// [`LedgerError`] names the amount that is none.
    pub fn amounts(&self, place: &str) -> Result<Amounts, LedgerError> {
        let mut amounts = Amounts::default();
        for (resource, field, text) in self.fields() {
            let failed = |source| LedgerError::Quantity { place: format!("{place} {field}"), source };
            amounts.set(&resource, resource.asked(text.parse().map_err(failed)?));
        }
        let failed = |source| LedgerError::Extended { place: place.to_owned(), source };
        extended::read(&self.extended, &mut amounts, Resource::asked).map_err(failed)?;
        Ok(amounts)
    }

    /// What is written of the resources that have a field.
    fn fields(&self) -> impl Iterator<Item = (Resource, &'static str, &QuantityText)> {
        let fields = [
            (Resource::Cpu, "cpu", &self.cpu),
            (Resource::Memory, "memory", &self.memory),
            (Resource::Pods, "pods", &self.pods),
            (Resource::Storage, "storage", &self.storage),
            (Resource::GPU, "gpu", &self.gpu),
        ];
        fields.into_iter().filter_map(|(resource, field, text)| Some((resource, field, text.as_ref()?)))
    }

    /// Returns the limits that these amounts are: what is written is limited, a written 0 too; what is absent is not.
    ///
    /// # Errors
    /// [`LedgerError`] names the amount that is none.
    pub(super) fn limits(&self) -> Result<Amounts, LedgerError> {
        let written = self.amounts("limits")?;
        let mut limits = Amounts::UNLIMITED;
        let extended = self.extended.keys().filter_map(|name| ExtendedResource::parse(name).ok());
        let named = self.fields().map(|(resource, ..)| resource).chain(extended.map(Resource::Extended));
        named.for_each(|resource| limits.set(&resource, written.get(&resource)));
        Ok(limits)
    }
}

impl From<&Amounts> for LedgerAmounts {
    fn from(amounts: &Amounts) -> Self {
        let text = |resource: Resource| {
            let amount = amounts.get(&resource);
            (amount != 0).then(|| QuantityText(resource.text(amount)))
        };
        Self {
            cpu: text(Resource::Cpu),
            memory: text(Resource::Memory),
            pods: text(Resource::Pods),
            storage: text(Resource::Storage),
            gpu: text(Resource::GPU),
            extended: extended_texts(amounts),
        }
    }
}
