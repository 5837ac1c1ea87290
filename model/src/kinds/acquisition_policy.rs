//! AcquisitionPolicy: what may be paid, in which order candidates are tried, how long they are waited for. Ours.
//!
//! Without one, only what is offered at a stated price of 0 is bought. The first by name counts; others are not used and say so.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FlavorPrice, LedgerAmounts};
use crate::market::{
    Accepted, Buffer, BusinessModel, Buying, Ceiling, Criterion, Currency, Decimal, ENDED_MAX, Expense, LOTS_MAX,
    LeastRating, MoneyError, Price, Resource,
};

/// A few kinds of machines or places.
const BUFFERS_MAX: usize = 8;
/// It is part of the names of what is bought for it.
const BUFFER_NAME_MAX: usize = 40;
/// Thirty days, as a notice.
const BUFFER_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// A few currencies and namespaces.
const CEILINGS_MAX: usize = 64;
/// A peer on the same continent answers within two tenths of a second.
const DEADLINE_SECONDS_USUAL: u32 = 2;
/// Each costs a connection for the time of its answer.
const SHORTLIST: std::ops::RangeInclusive<u32> = 1..=64;
/// Always as it said.
const RATING_MAX: u8 = 100;
/// Half a minute: a Solver has five.
const DEADLINE_SECONDS: std::ops::RangeInclusive<u32> = 1..=30;

/// What may be paid and how it is chosen.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "AcquisitionPolicy",
    plural = "acquisitionpolicies",
    shortname = "acquisition",
    namespaced,
    status = "AcquisitionPolicyStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Accepted","type":"boolean","jsonPath":".status.accepted"}"#,
    printcolumn = r#"{"name":"Buffers","type":"string","jsonPath":".status.buffersShown"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct AcquisitionPolicySpec {
    /// What may be paid: at least one without a namespace for each currency in which anything is.
    #[serde(default)]
    pub ceilings: Vec<AcquisitionCeiling>,
    /// By what candidates are ranked, the first counts most: `price`, `rating`, `latency`, `surplus`. Absent is price, surplus, rating,
    /// latency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranking: Vec<String>,
    /// How many peers are asked at the same time, 1 to 64; when none of them sells, the next so many, until all were asked. Absent
    /// is 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortlist: Option<u32>,
    /// For how long is bought, 60 to ten years of seconds; absent is as long as the seller sells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_seconds: Option<u64>,
    /// The least rating of a peer that is asked, 0 to 100; absent is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_rating: Option<u32>,
    /// Whether a peer of which nothing was seen is asked; absent is yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrated: Option<Unrated>,
    /// What is signed beyond size, price and term; absent is what is reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepts: Option<AcquisitionAccepts>,
    /// How many seconds a peer has to say what it offers; absent is 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<u32>,
    /// What is bought before somebody needs it, at most 8; ceilings hold for it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub buffers: Vec<AcquisitionBuffer>,
}

/// Capacity of given characteristics that is kept free.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AcquisitionBuffer {
    /// Its name: a DNS label of at most 40 characters.
    pub name: String,
    /// How much is kept free: cpu, memory and pods are needed.
    pub amounts: LedgerAmounts,
    /// How much is bought at a time, at least the largest pod that it is for; absent is all of `amounts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<LedgerAmounts>,
    /// On which architecture, as `arm64`; absent is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Intents of its places, as a workload's annotations say them: `fluidos-intent-location: Turin`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub intents: BTreeMap<String, String>,
    /// Of which namespace the ceilings count it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// After how many seconds without use what is not needed is released, 60 to 30 days; absent is 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_seconds: Option<u64>,
    /// How many seconds before it ends it is replaced, unless it is renewed, 10 to 30 days; absent is 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead_seconds: Option<u64>,
}

/// How a buffer stands.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct BufferStatus {
    /// Its name.
    pub name: String,
    /// How much is to be free.
    pub wanted: LedgerAmounts,
    /// How much is.
    pub free: LedgerAmounts,
    /// Of how many lots.
    pub lots: u32,
    /// `kept`, or what is missing and why, in words.
    pub message: String,
}

/// What is signed beyond size, price and term. What is absent is not limited.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AcquisitionAccepts {
    /// How it may be sold: `reserved`, `pay-per-use`, `spot`; absent is reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub business_models: Vec<BusinessModel>,
    /// How many seconds before the end a seller of spot capacity must tell, at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_notice_seconds: Option<u64>,
    /// How many seconds before an early end this buyer has to tell, at most: so long it pays for what it does not need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_notice_seconds: Option<u64>,
    /// The availability that must be promised, per mille.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_availability_per_mille: Option<u32>,
    /// How often what is paid per use may be promised, at most, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_overcommit_per_cent: Option<u32>,
    /// Whether what the seller buys from somebody else is bought: that somebody then runs and sees what this buyer runs there. Absent is
    /// false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resold: bool,
}

impl AcquisitionAccepts {
    fn rules(&self) -> Accepted {
        let usual = Accepted::default();
        Accepted {
            models: if self.business_models.is_empty() { usual.models } else { self.business_models.clone() },
            least_notice_seconds: self.least_notice_seconds.unwrap_or(usual.least_notice_seconds),
            most_notice_seconds: self.most_notice_seconds.unwrap_or(usual.most_notice_seconds),
            least_availability_per_mille: self
                .least_availability_per_mille
                .unwrap_or(usual.least_availability_per_mille),
            most_overcommit_per_cent: self.most_overcommit_per_cent.unwrap_or(usual.most_overcommit_per_cent),
            resold: self.resold,
        }
    }
}

/// What is done with a peer of which nothing was seen.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unrated {
    /// It is asked: how else would it become known.
    #[default]
    Accept,
    /// It is not asked.
    Refuse,
}

/// What may be paid in one currency.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct AcquisitionCeiling {
    /// A code of ISO 4217.
    pub currency: String,
    /// For workloads of which namespace; absent is for all together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What all running contracts may cost for an hour: a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<String>,
    /// What a month of UTC may cost: a decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_month: Option<String>,
}

/// Whether it is understood, and what has been spent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct AcquisitionPolicyStatus {
    /// Whether it can be bought by it. While it is not accepted, only what costs 0 is bought.
    pub accepted: bool,
    /// Why not, in words.
    pub message: String,
    /// Contracts that have ended this month, at most 1,024.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub ended: Vec<EndedContract>,
    /// How its buffers stand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub buffers: Vec<BufferStatus>,
    /// How many of them are kept, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub buffers_shown: String,
}

/// A contract that was paid for and has ended. Times are RFC 3339.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
pub struct EndedContract {
    /// Its name.
    pub contract: String,
    /// Its price.
    pub price: FlavorPrice,
    /// From when.
    pub from: String,
    /// Until when.
    pub until: String,
    /// For which namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Why a policy is not accepted. Its owner must correct it.
#[derive(Debug, thiserror::Error)]
pub enum AcquisitionError {
    /// A currency or an amount.
    #[error("ceilings[{index}].{field}: {source}")]
    Ceiling {
        /// Which, from 0.
        index: usize,
        /// Which field.
        field: &'static str,
        /// What is wrong.
        source: MoneyError,
    },
    /// A ceiling that limits nothing.
    #[error("ceilings[{index}] has neither perHour nor perMonth, needed at least one")]
    Boundless {
        /// Which, from 0.
        index: usize,
    },
    /// A criterion that nobody knows.
    #[error("ranking: `{observed}` is not known, needed price, rating, latency or surplus")]
    Criterion {
        /// The beginning of what was given.
        observed: String,
    },
    /// A buffer that cannot be kept.
    #[error("buffers[{index}].{reason}")]
    Buffer {
        /// Which, from 0.
        index: usize,
        /// Which field, what it says, and what it needs.
        reason: String,
    },
    /// A number outside its bounds.
    #[error("{field} is {observed}, needed {least} to {most}")]
    Bounds {
        /// Which.
        field: &'static str,
        /// What it says.
        observed: usize,
        /// The least.
        least: usize,
        /// The most.
        most: usize,
    },
}

impl AcquisitionPolicySpec {
    /// Returns the rules of the policy of this name.
    ///
    /// # Errors
    /// [`AcquisitionError`] names the field and what it needs.
    pub fn rules(&self, name: &str) -> Result<Buying, AcquisitionError> {
        if self.ceilings.len() > CEILINGS_MAX {
            let observed = self.ceilings.len();
            return Err(AcquisitionError::Bounds { field: "ceilings", observed, least: 0, most: CEILINGS_MAX });
        }
        let seconds = self.deadline_seconds.unwrap_or(DEADLINE_SECONDS_USUAL);
        if !DEADLINE_SECONDS.contains(&seconds) {
            let (least, most) = (*DEADLINE_SECONDS.start() as usize, *DEADLINE_SECONDS.end() as usize);
            let observed = seconds as usize;
            return Err(AcquisitionError::Bounds { field: "deadlineSeconds", observed, least, most });
        }
        let shortlist = self.shortlist.unwrap_or(*SHORTLIST.end());
        if !SHORTLIST.contains(&shortlist) {
            let (observed, most) = (shortlist as usize, *SHORTLIST.end() as usize);
            return Err(AcquisitionError::Bounds { field: "shortlist", observed, least: 1, most });
        }
        if let Some(term) = self.term_seconds.filter(|term| !super::sharing_policy::TERM_SECONDS.contains(term)) {
            let term_seconds = super::sharing_policy::TERM_SECONDS;
            let bound = |seconds: u64| usize::try_from(seconds).unwrap_or(usize::MAX);
            let (least, most) = (bound(*term_seconds.start()), bound(*term_seconds.end()));
            return Err(AcquisitionError::Bounds { field: "termSeconds", observed: bound(term), least, most });
        }
        let least = self.minimum_rating.unwrap_or(0);
        let least = u8::try_from(least).ok().filter(|least| *least <= RATING_MAX).ok_or_else(|| {
            let (observed, most) = (usize::try_from(least).unwrap_or(usize::MAX), usize::from(RATING_MAX));
            AcquisitionError::Bounds { field: "minimumRating", observed, least: 0, most }
        })?;
        let ceilings = self.ceilings.iter().enumerate().map(|(index, ceiling)| ceiling.rule(index));
        let criterion = |name: &String| {
            let observed = name.chars().take(32).collect();
            Criterion::parse(name).ok_or(AcquisitionError::Criterion { observed })
        };
        let ranking: Vec<Criterion> = self.ranking.iter().map(criterion).collect::<Result<_, _>>()?;
        let usual = vec![Criterion::Price, Criterion::Surplus, Criterion::Rating, Criterion::Latency];
        Ok(Buying {
            name: name.into(),
            ceilings: ceilings.collect::<Result<_, _>>()?,
            ranking: if ranking.is_empty() { usual } else { ranking },
            shortlist: shortlist as usize,
            deadline: Duration::from_secs(seconds.into()),
            term: self.term_seconds.map(Duration::from_secs),
            buffers: self.buffer_rules()?,
            accepts: self.accepts.as_ref().map(AcquisitionAccepts::rules).unwrap_or_default(),
            rating: LeastRating { least, unknown: self.unrated.unwrap_or_default() == Unrated::Accept },
        })
    }
}

impl AcquisitionPolicySpec {
    fn buffer_rules(&self) -> Result<Vec<Buffer>, AcquisitionError> {
        if self.buffers.len() > BUFFERS_MAX {
            let observed = self.buffers.len();
            return Err(AcquisitionError::Bounds { field: "buffers", observed, least: 0, most: BUFFERS_MAX });
        }
        let mut rules: Vec<Buffer> = Vec::new();
        for (index, buffer) in self.buffers.iter().enumerate() {
            let wrong = |reason: String| AcquisitionError::Buffer { index, reason };
            let rule = buffer.rule().map_err(wrong)?;
            if rules.iter().any(|known| known.name == rule.name) {
                return Err(wrong(format!("name is {}, which another has", rule.name)));
            }
            rules.push(rule);
        }
        Ok(rules)
    }
}

impl AcquisitionBuffer {
    fn rule(&self) -> Result<Buffer, String> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = (1..=BUFFER_NAME_MAX).contains(&self.name.len()) && self.name.bytes().all(letter);
        if !is_label || self.name.starts_with('-') || self.name.ends_with('-') {
            let observed: String = self.name.chars().take(64).collect();
            return Err(format!(
                "name is {observed:?}, needed at most {BUFFER_NAME_MAX} lower-case letters, digits and dashes"
            ));
        }
        let amounts = self.amounts.amounts("amounts").map_err(|error| error.to_string())?;
        let step =
            self.step.as_ref().map(|step| step.amounts("step")).transpose().map_err(|error| error.to_string())?;
        let step = step.unwrap_or_else(|| amounts.clone());
        for resource in amounts.resources_with(&step) {
            let (name, amount, at_a_time) = (resource.name(), amounts.get(&resource), step.get(&resource));
            let is_needed = matches!(resource, Resource::Cpu | Resource::Memory | Resource::Pods);
            if amount == 0 && is_needed {
                return Err(format!("amounts.{name} is absent or 0, needed cpu, memory and pods"));
            }
            // Of what is not kept nothing is bought; of what is, something each time.
            if at_a_time > amount || (at_a_time == 0) != (amount == 0) {
                let (observed, most) = (resource.text(at_a_time), resource.text(amount));
                return Err(format!("step.{name} is {observed}, needed more than 0 and at most {most}"));
            }
        }
        let seconds = |field, observed: Option<u64>, usual: u64, least: u64| match observed.unwrap_or(usual) {
            within if (least..=BUFFER_SECONDS_MAX).contains(&within) => Ok(Duration::from_secs(within)),
            other => Err(format!("{field} is {other}, needed {least} to {BUFFER_SECONDS_MAX}")),
        };
        let texts = self.intents.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let intents = crate::intent::parse(texts);
        if !intents.is_clear() {
            return Err(format!("intents: {}", intents.warnings().join("; ")));
        }
        let buffer = Buffer {
            name: self.name.clone(),
            amounts,
            step,
            architecture: self.architecture.clone(),
            intents: self.intents.clone().into_iter().collect(),
            namespace: self.namespace.clone(),
            unused: seconds("unusedSeconds", self.unused_seconds, 600, 60)?,
            lead: seconds("leadSeconds", self.lead_seconds, 300, 10)?,
        };
        let needed = buffer.lots_needed();
        if needed > LOTS_MAX as u64 {
            return Err(format!("step asks for {needed} lots, needed at most {LOTS_MAX}: buy more at a time"));
        }
        Ok(buffer)
    }
}

impl AcquisitionCeiling {
    fn rule(&self, index: usize) -> Result<Ceiling, AcquisitionError> {
        let wrong = |field| move |source| AcquisitionError::Ceiling { index, field, source };
        let decimal =
            |field, text: &Option<String>| text.as_deref().map(Decimal::parse).transpose().map_err(wrong(field));
        let (hour, month) = (decimal("perHour", &self.per_hour)?, decimal("perMonth", &self.per_month)?);
        if hour.is_none() && month.is_none() {
            return Err(AcquisitionError::Boundless { index });
        }
        let currency = Currency::parse(self.currency.trim()).map_err(wrong("currency"))?;
        Ok(Ceiling { currency, namespace: self.namespace.clone(), hour, month })
    }
}

impl EndedContract {
    /// Returns what it has cost, or `None` if somebody has written nonsense into it.
    pub fn expense(&self) -> Option<Expense> {
        let FlavorPrice { amount, currency, period, .. } = &self.price;
        Some(Expense {
            price: Price::parse(amount, currency, period).ok()??,
            from: self.from.parse().ok()?,
            until: Some(self.until.parse().ok()?),
            namespace: self.namespace.clone(),
        })
    }
}

impl AcquisitionPolicyStatus {
    /// Returns the status with a contract that has ended, and without those that ended before `month`. One that is there stays
    /// as it is; beyond the most none is taken, and then nothing is bought at a price either.
    pub fn with_ended(&self, contract: EndedContract, month: Timestamp) -> Self {
        let mut status = self.clone();
        status.ended.retain(|known| known.until.parse::<Timestamp>().is_ok_and(|until| until > month));
        if status.ended.len() < ENDED_MAX && status.ended.iter().all(|known| known.contract != contract.contract) {
            status.ended.push(contract);
        }
        status
    }
}
