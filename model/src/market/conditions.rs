//! What a contract says beyond size and price: how it is used, how well, how it ends.
//!
//! Both parties sign the JSON text of this inside the terms, so it is read strictly: what is not known is not signed. All absent is
//! `reserved`, no service level, an end at once, and receipts of which both measures may differ by one per cent.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Levels of one contract; five are more than anybody reads.
const LEVELS_MAX: usize = 8;
/// Thirty days: who needs longer writes a term.
const NOTICE_SECONDS_MAX: u64 = 30 * 24 * 3600;
const PER_MILLE: u32 = 1000;

/// How capacity is sold (REAR business models, D2.1 §6.4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Seconds in which the capacity was served, of those in which it was reserved.
    Availability,
}

/// A promise about quality, and what it costs to break it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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
    /// Of contracts that are paid per use, those with the lower number yield first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yields: Option<u32>,
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
        for level in &self.service_levels {
            bound("serviceLevels.perMille", level.per_mille.into(), PER_MILLE.into())?;
            bound("serviceLevels.creditPerMille", level.credit_per_mille.into(), PER_MILLE.into())?;
        }
        Ok(())
    }
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
    }
}
