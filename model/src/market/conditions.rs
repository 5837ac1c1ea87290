//! What a contract says beyond size and price: how it is used, how well, how it ends.
//!
//! Both parties sign the JSON text of this inside the terms, so it is read strictly: what is not known is not signed. All absent is
//! `reserved`, no service level, an end at once, and receipts of which both measures may differ by one per cent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Amounts, Renewal};

/// Levels of one contract; five are more than anybody reads.
const LEVELS_MAX: usize = 8;
/// Thirty days: who needs longer writes a term.
pub(super) const NOTICE_SECONDS_MAX: u64 = 30 * 24 * 3600;
const PER_MILLE: u32 = 1000;
const ONCE_PER_CENT: u32 = 100;
/// Ten times what there is: beyond that it is a raffle.
pub(super) const OVERCOMMIT_PER_CENT_MAX: u32 = 1000;

/// How capacity is sold (REAR business models, D2.1 §6.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BusinessModel {
    /// It is kept for the buyer and never promised twice; it is paid whether used or not.
    #[default]
    Reserved,
    /// It may be promised to several; what is used is paid. When it bursts, who yields is in [`Conditions::yields`].
    PayPerUse,
    /// The seller may take it back after the notice.
    Spot,
}

/// Who measures a service level, and a line of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredBy {
    /// Each for itself; what differs beyond the tolerance is disputed.
    #[default]
    Both,
    /// The buyer.
    Buyer,
    /// The seller: a claim.
    Seller,
}

/// What a service level is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Seconds in which the capacity was served, of those in which it was reserved.
    Availability,
}

/// A promise about quality, and what it costs to break it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceLevel {
    /// Of what; it names its formula.
    pub objective: Objective,
    /// The least, per mille of a month or of what of it the contract ran.
    pub per_mille: u32,
    /// Where it is measured.
    #[serde(default)]
    pub measured_by: MeasuredBy,
    /// Per mille of the month's charge that is given back for each per mille that is missing; never more than the charge.
    pub credit_per_mille: u32,
}

/// Everything of a contract beyond size, price and term.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Conditions {
    /// How it is sold.
    pub business_model: BusinessModel,
    /// How long before an early end it must be told, in seconds.
    pub notice_seconds: u64,
    /// By how much two measures may differ before a line is disputed, per mille of the larger.
    pub tolerance_per_mille: u32,
    /// What is promised about quality.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_levels: Vec<ServiceLevel>,
    /// For how long at most pods go on at the seller while their owner is unreachable, in seconds; absent is as Kubernetes does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disconnect_seconds: Option<u64>,
    /// Of contracts that are paid per use, those with the lower number yield first, and of equals the younger; absent yields last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yields: Option<u32>,
    /// How often capacity that is paid per use may be promised, in per cent: 250 promises two and a half times what there is. Absent is
    /// 100, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overcommit_per_cent: Option<u32>,
    /// How the contract goes on beyond its end; absent is that it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
    /// Under which RuntimeClass of the seller the buyer's pods run; absent is its usual runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_class: Option<String>,
    /// The seller serves it with what it buys from somebody else, who then runs and sees what the buyer runs there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub resold: bool,
}

/// Why conditions are not agreed to.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ConditionsError {
    /// An unknown member, or no such JSON.
    #[error("conditions: {0}")]
    Malformed(String),
    /// A number outside its bounds.
    #[error("conditions.{field} is {observed}, needed at most {most}")]
    Bounds {
        /// Which.
        field: &'static str,
        /// What it says.
        observed: u64,
        /// The most.
        most: u64,
    },
    /// A number outside its bounds on either side.
    #[error("conditions.{field} is {observed}, needed {least} to {most}")]
    Range {
        /// Which.
        field: &'static str,
        /// What it says.
        observed: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// A name that no RuntimeClass can have.
    #[error(
        "conditions.runtimeClass is {observed:?}, needed the name of a RuntimeClass: at most 63 lower-case letters, digits and dashes"
    )]
    RuntimeClass {
        /// The beginning of what it says.
        observed: String,
    },
    /// A member that goes with another business model.
    #[error("conditions.{field} is {observed} with {model}, needed pay-per-use")]
    OtherModel {
        /// Which.
        field: &'static str,
        /// What it says.
        observed: u32,
        /// How it is sold.
        model: &'static str,
    },
    /// Less than what there is would be promised.
    #[error("conditions.overcommitPerCent is {observed}, needed at least 100")]
    Undercommit {
        /// What it says.
        observed: u32,
    },
}

impl BusinessModel {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::PayPerUse => "pay-per-use",
            Self::Spot => "spot",
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            business_model: BusinessModel::default(),
            notice_seconds: 0,
            tolerance_per_mille: 10,
            service_levels: Vec::new(),
            disconnect_seconds: None,
            yields: None,
            overcommit_per_cent: None,
            renewal: None,
            runtime_class: None,
            resold: false,
        }
    }
}

impl Conditions {
    /// Returns what a signed text says; absent are the usual ones.
    ///
    /// # Errors
    /// [`ConditionsError`] if something is unknown or out of its bounds: then it must not be signed.
    pub fn read(value: Option<&Value>) -> Result<Self, ConditionsError> {
        let Some(value) = value else { return Ok(Self::default()) };
        let read = Self::deserialize(value).map_err(|error| ConditionsError::Malformed(error.to_string()))?;
        read.check()?;
        Ok(read)
    }

    /// Returns these conditions if they make sense.
    ///
    /// # Errors
    /// [`ConditionsError`] names the member and what it needs.
    pub fn checked(self) -> Result<Self, ConditionsError> {
        self.check().map(|()| self)
    }

    /// Returns how often capacity may be promised, in per cent.
    pub fn overcommit(&self) -> u32 {
        self.overcommit_per_cent.unwrap_or(ONCE_PER_CENT)
    }

    /// Returns what a promise takes of what there is, a rest rounded up: less than itself where capacity is promised more than once.
    pub fn takes(&self, amounts: &Amounts) -> Amounts {
        if self.business_model != BusinessModel::PayPerUse {
            return amounts.clone();
        }
        amounts.map(|amount| {
            let part = u128::from(amount) * u128::from(ONCE_PER_CENT);
            let part = part.div_ceil(u128::from(self.overcommit().max(ONCE_PER_CENT)));
            u64::try_from(part).unwrap_or(u64::MAX)
        })
    }

    /// Returns how much can be promised of what is free.
    pub fn promises(&self, free: &Amounts) -> Amounts {
        if self.business_model != BusinessModel::PayPerUse {
            return free.clone();
        }
        free.map(|amount| {
            let whole = u128::from(amount) * u128::from(self.overcommit()) / u128::from(ONCE_PER_CENT);
            u64::try_from(whole).unwrap_or(u64::MAX)
        })
    }

    /// Returns the text that is signed; `None` for the usual ones.
    pub fn text(&self) -> Option<Value> {
        // Words and whole numbers always have a JSON form.
        (*self != Self::default()).then(|| serde_json::to_value(self).unwrap_or_default())
    }

    fn check(&self) -> Result<(), ConditionsError> {
        let bound = |field, observed: u64, most: u64| {
            if observed > most { Err(ConditionsError::Bounds { field, observed, most }) } else { Ok(()) }
        };
        bound("noticeSeconds", self.notice_seconds, NOTICE_SECONDS_MAX)?;
        bound("tolerancePerMille", self.tolerance_per_mille.into(), PER_MILLE.into())?;
        bound("serviceLevels", self.service_levels.len() as u64, LEVELS_MAX as u64)?;
        let per_use = [("yields", self.yields), ("overcommitPerCent", self.overcommit_per_cent)];
        for (field, observed) in per_use.into_iter().filter_map(|(field, value)| Some((field, value?))) {
            if self.business_model != BusinessModel::PayPerUse {
                let model = self.business_model.as_str();
                return Err(ConditionsError::OtherModel { field, observed, model });
            }
        }
        if self.overcommit() < ONCE_PER_CENT {
            return Err(ConditionsError::Undercommit { observed: self.overcommit() });
        }
        bound("overcommitPerCent", self.overcommit().into(), OVERCOMMIT_PER_CENT_MAX.into())?;
        if let Some((field, observed, least, most)) = self.renewal.as_ref().and_then(Renewal::out_of_bounds) {
            return Err(ConditionsError::Range { field, observed, least, most });
        }
        if let Some(name) = self.runtime_class.as_ref().filter(|name| !is_label(name)) {
            return Err(ConditionsError::RuntimeClass { observed: name.chars().take(64).collect() });
        }
        for level in &self.service_levels {
            bound("serviceLevels.perMille", level.per_mille.into(), PER_MILLE.into())?;
            bound("serviceLevels.creditPerMille", level.credit_per_mille.into(), PER_MILLE.into())?;
        }
        Ok(())
    }
}

/// A DNS label, as the names of RuntimeClasses usually are; a signed text is bounded.
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn the_usual_conditions_are_not_written_and_others_are_read_as_they_were() {
        assert_eq!(Conditions::default().text(), None);
        assert_eq!(Conditions::read(None), Ok(Conditions::default()));
        let level = ServiceLevel {
            objective: Objective::Availability,
            per_mille: 995,
            measured_by: MeasuredBy::Buyer,
            credit_per_mille: 100,
        };
        let spot = Conditions {
            business_model: BusinessModel::Spot,
            notice_seconds: 120,
            service_levels: vec![level],
            ..Conditions::default()
        };
        assert_eq!(Conditions::read(spot.text().as_ref()), Ok(spot));
    }

    #[test]
    fn what_is_unknown_or_too_much_is_not_signed() {
        let refused = |value: Value| Conditions::read(Some(&value)).unwrap_err().to_string();
        assert!(refused(json!({"penalties": 3})).contains("unknown field `penalties`"));
        assert!(refused(json!({"businessModel": "auction"})).contains("unknown variant `auction`"));
        assert_eq!(
            refused(json!({"noticeSeconds": 2_592_001})),
            "conditions.noticeSeconds is 2592001, needed at most 2592000"
        );
        let level = json!({"objective": "availability", "perMille": 1001, "creditPerMille": 0});
        assert!(refused(json!({"serviceLevels": [level]})).contains("serviceLevels.perMille is 1001"));
        assert!(refused(json!({"tolerancePerMille": 1001})).contains("needed at most 1000"));
        assert_eq!(
            refused(json!({"overcommitPerCent": 200})),
            "conditions.overcommitPerCent is 200 with reserved, needed pay-per-use"
        );
        let per_use = |overcommit: u32| json!({"businessModel": "pay-per-use", "overcommitPerCent": overcommit});
        assert!(refused(per_use(99)).contains("needed at least 100"));
        assert!(refused(per_use(1001)).contains("needed at most 1000"));
        let renewal =
            |by: u64, before: u64| json!({"renewal": {"bySeconds": by, "beforeSeconds": before, "atMost": 3}});
        assert!(refused(renewal(59, 30)).contains("renewal.bySeconds is 59, needed 60 to"));
        assert!(refused(renewal(60, 61)).contains("renewal.beforeSeconds is 61, needed 10 to 60"));
        assert!(
            refused(json!({"renewal": {"bySeconds": 60, "beforeSeconds": 30, "atMost": 0}})).contains("atMost is 0")
        );
        assert!(refused(json!({"renewal": {"bySeconds": 60}})).contains("missing field `beforeSeconds`"));
        assert!(Conditions::read(Some(&renewal(60, 60))).is_ok());
        for name in ["", "-a", "A", "a/b", &"a".repeat(64)] {
            assert!(refused(json!({"runtimeClass": name})).contains("needed the name of a RuntimeClass"), "{name}");
        }
    }

    #[test]
    fn what_is_promised_more_than_once_takes_less_and_never_nothing() {
        let cpus = |cpu_milli| Amounts { cpu_milli, ..Amounts::default() };
        let per_use = Conditions {
            business_model: BusinessModel::PayPerUse,
            overcommit_per_cent: Some(250),
            ..Conditions::default()
        };
        assert_eq!(per_use.takes(&cpus(1000)), cpus(400));
        assert_eq!(per_use.takes(&cpus(1)), cpus(1), "a rest is rounded up");
        assert_eq!(per_use.promises(&cpus(1000)), cpus(2500));
        assert_eq!(Conditions::default().takes(&cpus(1000)), cpus(1000));
        assert_eq!(Conditions::default().promises(&cpus(1000)), cpus(1000));
    }
}
