//! Offer: packages that an owner sells (§7.6). Ours.
//!
//! An *offer* is a collection of plans. A *plan* is a flavor of fixed size: the Local Resource Manager makes a Flavor of each, which is
//! listed, reserved and bought as it is.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FlavorPrice, LedgerAmounts, LedgerError};
use crate::market::{MoneyError, Plan, PriceError, Unit};

/// Plans of one offer: more are no choice but a catalog.
pub const PLANS_MAX: usize = 16;
/// A name is part of the name of a flavor.
const NAME_LENGTH_MAX: usize = 63;
/// A description is some sentences.
pub(crate) const DESCRIPTION_LENGTH_MAX: usize = 1024;

/// Packages that are sold.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[kube(
    group = "nodecore.fluidos.eu",
    version = "v1alpha1",
    kind = "Offer",
    plural = "offers",
    namespaced,
    status = "OfferStatus",
    derive = "PartialEq",
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description"}"#,
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".spec.sharingPolicy"}"#,
    printcolumn = r#"{"name":"Accepted","type":"boolean","jsonPath":".status.accepted"}"#,
    printcolumn = r#"{"name":"Message","type":"string","priority":1,"jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct OfferSpec {
    /// What it is good for, in words for buyers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Name of the SharingPolicy whose buyers, hold, term, credit limit and conditions count; absent is the first that admits the buyer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharing_policy: Option<String>,
    /// The packages, at most 16.
    #[schemars(length(max = 16))]
    pub plans: Vec<OfferPlan>,
}

/// A package of fixed size.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct OfferPlan {
    /// Its name in the offer: a DNS label.
    pub name: String,
    /// What it is good for, in words for buyers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its size: CPU, memory and pods.
    pub resources: LedgerAmounts,
    /// The price of all of it; absent is what the policy says for this size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<FlavorPrice>,
}

/// Whether it is understood.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct OfferStatus {
    /// Whether its plans are sold.
    pub accepted: bool,
    /// Why not, in words.
    pub message: String,
    /// The flavors that came of it, in the order of the plans.
    pub flavors: Vec<String>,
}

/// Why an offer is not accepted. Its owner must correct it; nothing of it is sold until then.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// It has no plans or too many.
    #[error("plans: {observed}, needed 1 to {PLANS_MAX}")]
    Plans {
        /// How many.
        observed: usize,
    },
    /// A name that cannot be part of a flavor's.
    #[error(
        "{field} is {observed:?}, needed 1 to {NAME_LENGTH_MAX} lower-case letters, digits and dashes, a letter or digit at both ends"
    )]
    Name {
        /// Whose.
        field: &'static str,
        /// What it is.
        observed: String,
    },
    /// Two plans of one name.
    #[error("plan {name} stands there twice")]
    Twice {
        /// Its name.
        name: String,
    },
    /// Its size cannot be read.
    #[error("plan {plan}: {source}")]
    Resources {
        /// Which plan.
        plan: String,
        /// What is wrong.
        source: LedgerError,
    },
    /// A slice needs these three.
    #[error("plan {plan}: resources are {observed}, needed some cpu, memory and pods")]
    Small {
        /// Which plan.
        plan: String,
        /// What it has.
        observed: String,
    },
    /// Its price is none.
    #[error("plan {plan}: price: {source}")]
    Price {
        /// Which plan.
        plan: String,
        /// What is wrong.
        source: PriceError,
    },
    /// Its price is not of the whole.
    #[error("plan {plan}: price.unit is {observed}, needed none: a plan is sold whole")]
    Unit {
        /// Which plan.
        plan: String,
        /// What it is for.
        observed: String,
    },
    /// Its price is an empty text, which nobody buys at.
    #[error("plan {plan}: price.amount is empty, needed a decimal, or no price at all for that of the policy")]
    Unstated {
        /// Which plan.
        plan: String,
    },
    /// Its price cannot be counted.
    #[error("plan {plan}: price: {source}")]
    Money {
        /// Which plan.
        plan: String,
        /// What is wrong.
        source: MoneyError,
    },
}

impl OfferSpec {
    /// Returns the plans of the offer of this name.
    ///
    /// # Errors
    /// [`OfferError`] names the plan and what it needs.
    pub fn plans(&self, offer: &str) -> Result<Vec<Plan>, OfferError> {
        if self.plans.is_empty() || self.plans.len() > PLANS_MAX {
            return Err(OfferError::Plans { observed: self.plans.len() });
        }
        if !is_label(offer) {
            return Err(OfferError::Name { field: "metadata.name", observed: offer.chars().take(64).collect() });
        }
        let mut plans: Vec<Plan> = Vec::new();
        for plan in &self.plans {
            let plan = plan.plan(offer, self.sharing_policy.as_deref())?;
            if plans.iter().any(|earlier| earlier.name == plan.name) {
                return Err(OfferError::Twice { name: plan.name });
            }
            plans.push(plan);
        }
        Ok(plans)
    }
}

impl OfferPlan {
    fn plan(&self, offer: &str, policy: Option<&str>) -> Result<Plan, OfferError> {
        if !is_label(&self.name) {
            return Err(OfferError::Name { field: "plans.name", observed: self.name.chars().take(64).collect() });
        }
        let plan = || self.name.clone();
        let amounts =
            self.resources.amounts("resources").map_err(|source| OfferError::Resources { plan: plan(), source })?;
        if amounts.cpu_milli == 0 || amounts.memory_bytes == 0 || amounts.pods == 0 {
            return Err(OfferError::Small { plan: plan(), observed: amounts.to_string() });
        }
        let parsed = |price: &FlavorPrice| {
            let price = price.parse().map_err(|source| OfferError::Price { plan: plan(), source })?;
            let price = price.ok_or_else(|| OfferError::Unstated { plan: plan() })?;
            if price.unit != Unit::Slice {
                return Err(OfferError::Unit { plan: plan(), observed: price.unit.as_str().into() });
            }
            price.of(&amounts).map_err(|source| OfferError::Money { plan: plan(), source })?;
            Ok(price)
        };
        Ok(Plan {
            offer: offer.into(),
            name: plan(),
            description: self.description.chars().take(DESCRIPTION_LENGTH_MAX).collect(),
            price: self.price.as_ref().map(parsed).transpose()?,
            amounts,
            policy: policy.map(str::to_owned),
        })
    }
}

/// Says whether a text is a DNS label (RFC 1123 §2.1).
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let bytes = text.as_bytes();
    (1..=NAME_LENGTH_MAX).contains(&bytes.len())
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.first() != Some(&b'-')
        && bytes.last() != Some(&b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::{Value, json};

    use super::*;

    fn check(plans: &Value, expected: &str) {
        let spec: OfferSpec = serde_json::from_value(json!({"plans": plans})).unwrap();
        let observed = spec.plans("web").map_or_else(
            |error| error.to_string(),
            |plans| plans.iter().map(|plan| format!("{}: {}", plan.reference(), plan.amounts)).collect(),
        );
        assert_eq!(observed, expected);
    }

    #[test]
    fn an_offer_is_understood_or_says_which_plan_is_wrong() {
        let size = json!({"cpu": "500m", "memory": "1Gi", "pods": 10});
        let with = |price: Value| json!([{"name": "small", "resources": size, "price": price}]);
        check(&json!([{"name": "small", "resources": size}]), "web/small: cpu 500m, memory 1Gi, pods 10");
        check(
            &with(json!({"amount": "9", "currency": "EUR", "period": "month"})),
            "web/small: cpu 500m, memory 1Gi, pods 10",
        );
        check(&json!([]), "plans: 0, needed 1 to 16");
        check(
            &json!([{"name": "a", "resources": size}, {"name": "a", "resources": size}]),
            "plan a stands there twice",
        );
        check(
            &json!([{"name": "Big", "resources": size}]),
            "plans.name is \"Big\", needed 1 to 63 lower-case letters, digits and dashes, a letter or digit at both ends",
        );
        check(
            &json!([{"name": "a", "resources": {"cpu": "1"}}]),
            "plan a: resources are cpu 1, needed some cpu, memory and pods",
        );
        check(
            &with(json!({"amount": "", "currency": "", "period": ""})),
            "plan small: price.amount is empty, needed a decimal, or no price at all for that of the policy",
        );
        check(
            &with(json!({"amount": "9", "currency": "EUR", "period": "month", "unit": "cpu"})),
            "plan small: price.unit is cpu, needed none: a plan is sold whole",
        );
    }
}
