//! SharingPolicy: what is sold of the offer, to whom, in which blocks, at what price. Ours.
//!
//! Without one, all of `--offer` is sold to anybody who proves a key, at a price of 0. With some, the first by name that admits
//! a buyer counts for it; while one of them is not accepted, nothing is sold.

use std::time::Duration;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FlavorError, K8SlicePartitionability, LedgerAmounts, LedgerError};
use crate::market::{
    Amounts, Conditions, ConditionsError, Currency, Decimal, HOPS_MAX, HOPS_USUAL, Margin, MarginError, MoneyError,
    Period, PriceError, Rate, RateError, Reselling, Sharing, Unit,
};

/// A buyer compares, signs and buys within seconds; longer than an hour is a contract.
const HOLD_SECONDS: std::ops::RangeInclusive<u32> = 5..=3600;
/// From what a peering is worth being made for to ten years.
pub(super) const TERM_SECONDS: std::ops::RangeInclusive<u64> = 60..=10 * 366 * 24 * 3600;
/// DIDs in one list: owners of more write several policies.
const BUYERS_MAX: usize = 256;

/// What is sold, to whom, for what.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "SharingPolicy",
    plural = "sharingpolicies",
    shortname = "sharing",
    namespaced,
    status = "SharingPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Amount","type":"string","jsonPath":".spec.price.amount"}"#,
    printcolumn = r#"{"name":"Currency","type":"string","jsonPath":".spec.price.currency"}"#,
    printcolumn = r#"{"name":"Period","type":"string","jsonPath":".spec.price.period"}"#,
    printcolumn = r#"{"name":"Unit","type":"string","jsonPath":".spec.price.unit"}"#,
    printcolumn = r#"{"name":"Margin","type":"string","priority":1,"jsonPath":".spec.reselling.margin"}"#,
    printcolumn = r#"{"name":"Accepted","type":"boolean","jsonPath":".status.accepted"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SharingPolicySpec {
    /// For what.
    pub price: SharingPrice,
    /// How much is sold under this policy altogether, at most the offer; what is absent is not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LedgerAmounts>,
    /// To whom; absent is anybody who proves a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyers: Option<SharingBuyers>,
    /// Into which blocks; absent is as finely as pods ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<K8SlicePartitionability>,
    /// How long a hold stands; absent is 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u32>,
    /// How long a contract lasts; absent is a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_seconds: Option<u64>,
    /// What the running contracts of one buyer may have cost before it gets no further one: a decimal in the currency of the
    /// price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_limit: Option<String>,
    /// How it is used, how well, how it ends: business model, notice, service levels, over-commitment. Both sign it. Absent is reserved,
    /// with an end at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Conditions>,
    /// How what others sell is sold on where the offer does not suffice; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reselling: Option<SharingReselling>,
}

/// How what others sell is sold on: bought within the AcquisitionPolicy that counts, when somebody buys it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct SharingReselling {
    /// What is asked on top of what is paid, at least: `10%`, from 0% to 1000%.
    pub margin: String,
    /// So many buyers may stand one behind the other, the one who asks among them: 1 sells on to nobody who sells on, up to 7; absent is 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops_max: Option<u32>,
    /// Whom it is bought from; absent is everybody whom this owner buys from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sellers: Option<SharingSellers>,
}

/// Who is bought from to sell on.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct SharingSellers {
    /// DIDs that are; absent is everybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// DIDs that are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// A price, or the rule that makes it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct SharingPrice {
    /// A decimal, or a CEL expression over `utilisation`, `hour`, `weekday`, `month`, `buyer`, `contracts`, `rated`, `rating`.
    pub amount: String,
    /// A code of ISO 4217; may be absent if the amount is 0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// `second`, `minute`, `hour`, `day`, `month`; may be absent if the amount is 0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub period: String,
    /// For one of what: `cpu`, `gib`, `pod`, `gpu`, an extended resource such as `example.com/fpga`; absent is for what is bought, whatever its size.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
}

/// Who may buy.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct SharingBuyers {
    /// DIDs that may; absent is everybody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Vec<String>>,
    /// DIDs that may not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// Whether it is understood.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct SharingPolicyStatus {
    /// Whether it can be sold by it. While one policy is not accepted, nothing is sold.
    pub accepted: bool,
    /// Why not, in words.
    pub message: String,
}

/// Why a policy is not accepted. Its owner must correct it.
#[derive(Debug, thiserror::Error)]
pub enum SharingError {
    /// Its rate.
    #[error("price.amount: {0}")]
    Rate(#[from] RateError),
    /// Its currency or credit limit.
    #[error("{field}: {source}")]
    Money {
        /// Which.
        field: &'static str,
        /// What is wrong.
        source: MoneyError,
    },
    /// Its period or unit.
    #[error("price: {0}")]
    Price(#[from] PriceError),
    /// Its limits.
    #[error("limits: {0}")]
    Limits(#[from] LedgerError),
    /// Its blocks.
    #[error("blocks: {0}")]
    Blocks(#[from] FlavorError),
    /// What it says beyond size, price and term.
    #[error(transparent)]
    Conditions(#[from] ConditionsError),
    /// What is asked on top of what is paid.
    #[error("reselling.{0}")]
    Margin(#[from] MarginError),
    /// A number outside its bounds.
    #[error("{field} is {observed}, needed {least} to {most}")]
    Bounds {
        /// Which.
        field: &'static str,
        /// What it says.
        observed: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
}

impl SharingPolicySpec {
    /// Returns the rules of the policy of this name.
    ///
    /// # Errors
    /// [`SharingError`] names the field and what it needs.
    pub fn rules(&self, name: &str) -> Result<Sharing, SharingError> {
        let rate = Rate::parse(&self.price.amount)?;
        let is_zero = matches!(&rate, Rate::Fixed(amount) if amount.is_zero());
        let absent = |text: &str| is_zero && text.trim().is_empty();
        let currency = if absent(&self.price.currency) { None } else { Some(currency(&self.price.currency)?) };
        let period = if absent(&self.price.period) { None } else { Some(Period::parse(&self.price.period)?) };
        if let Some(seconds) = self.hold_seconds.filter(|seconds| !HOLD_SECONDS.contains(seconds)) {
            let (least, most) = (u64::from(*HOLD_SECONDS.start()), u64::from(*HOLD_SECONDS.end()));
            return Err(SharingError::Bounds { field: "holdSeconds", observed: u64::from(seconds), least, most });
        }
        if let Some(observed) = self.term_seconds.filter(|seconds| !TERM_SECONDS.contains(seconds)) {
            let (least, most) = (*TERM_SECONDS.start(), *TERM_SECONDS.end());
            return Err(SharingError::Bounds { field: "termSeconds", observed, least, most });
        }
        let buyers = self.buyers.clone().unwrap_or_default();
        for (field, count) in
            [("buyers.allow", buyers.allow.as_ref().map_or(0, Vec::len)), ("buyers.deny", buyers.deny.len())]
        {
            if count > BUYERS_MAX {
                let (observed, most) = (count as u64, BUYERS_MAX as u64);
                return Err(SharingError::Bounds { field, observed, least: 0, most });
            }
        }
        let credit = self.credit_limit.as_deref().map(Decimal::parse).transpose();
        Ok(Sharing {
            name: name.into(),
            limit: self.limits.as_ref().map_or(Ok(Amounts::UNLIMITED), LedgerAmounts::limits)?,
            allow: buyers.allow,
            deny: buyers.deny,
            blocks: self.blocks.as_ref().map(K8SlicePartitionability::rules).transpose()?,
            rate,
            currency,
            period,
            unit: Unit::parse(&self.price.unit)?,
            hold: self.hold_seconds.map(|seconds| Duration::from_secs(seconds.into())),
            term: self.term_seconds.map(Duration::from_secs),
            credit: credit.map_err(|source| SharingError::Money { field: "creditLimit", source })?,
            conditions: self.conditions.clone().unwrap_or_default().checked()?,
            reselling: self.reselling.as_ref().map(SharingReselling::rules).transpose()?,
        })
    }
}

impl SharingReselling {
    fn rules(&self) -> Result<Reselling, SharingError> {
        let hops_max = self.hops_max.unwrap_or(HOPS_USUAL);
        let bounds = |field, observed: u64, least: u64, most: u64| match (least..=most).contains(&observed) {
            true => Ok(()),
            false => Err(SharingError::Bounds { field, observed, least, most }),
        };
        bounds("reselling.hopsMax", hops_max.into(), 1, HOPS_MAX.into())?;
        let SharingSellers { allow, deny } = self.sellers.clone().unwrap_or_default();
        bounds("reselling.sellers.allow", allow.as_ref().map_or(0, Vec::len) as u64, 0, BUYERS_MAX as u64)?;
        bounds("reselling.sellers.deny", deny.len() as u64, 0, BUYERS_MAX as u64)?;
        Ok(Reselling { margin: Margin::parse(&self.margin)?, hops_max, allow, deny })
    }
}

fn currency(code: &str) -> Result<Currency, SharingError> {
    Currency::parse(code.trim()).map_err(|source| SharingError::Money { field: "price.currency", source })
}
