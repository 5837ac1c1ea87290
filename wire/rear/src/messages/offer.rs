//! Offers (§7.6, ours): collections of plans, in pages. A plan is a flavor of fixed size, reserved and bought like any other.

use serde::{Deserialize, Serialize};

use super::Flavor;
use super::wire::{FlavorWire, id, message};

/// Offers of one page: 16 of 16 plans, of some 2 KiB each, are half of what an answer may have.
pub const OFFERS_MAX: usize = 16;
/// Plans of one offer.
const PLANS_MAX: usize = 16;
/// A description is some sentences.
const DESCRIPTION_LENGTH_MAX: usize = 1024;

/// Which offers are asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffersQuery {
    /// How many at most, 1 to 16.
    pub limit: usize,
    /// Those after this one, by name; `None` is from the first.
    pub after: Option<String>,
}

impl Default for OffersQuery {
    fn default() -> Self {
        Self { limit: OFFERS_MAX, after: None }
    }
}

/// A page of offers, by name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct OffersPage {
    /// The offers.
    pub offers: Vec<Offer>,
    /// The name after which to ask for more; `None` if this is the end.
    pub next: Option<String>,
}

/// A collection of plans.
#[derive(Clone, PartialEq, Debug)]
pub struct Offer {
    /// Its name at the seller.
    pub id: String,
    /// What it is good for, in words.
    pub description: String,
    /// The packages.
    pub plans: Vec<OfferedPlan>,
}

/// A package of fixed size.
#[derive(Clone, PartialEq, Debug)]
pub struct OfferedPlan {
    /// Its name in the offer.
    pub name: String,
    /// What it is good for, in words.
    pub description: String,
    /// What is bought, at its price, with whether it can be bought now.
    pub flavor: Flavor,
}

#[derive(Serialize, Deserialize)]
struct PageWire {
    #[serde(default)]
    offers: Vec<OfferWire>,
    #[serde(rename = "continue", default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OfferWire {
    #[serde(rename = "offerID")]
    id: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    plans: Vec<PlanWire>,
}

#[derive(Serialize, Deserialize)]
struct PlanWire {
    name: String,
    #[serde(default)]
    description: String,
    flavor: FlavorWire,
}

message!(OffersPage, PageWire);

impl From<&OffersPage> for PageWire {
    fn from(page: &OffersPage) -> Self {
        let plan = |plan: &OfferedPlan| PlanWire {
            name: plan.name.clone(),
            description: plan.description.clone(),
            flavor: (&plan.flavor).into(),
        };
        let offers = page.offers.iter().map(|offer| OfferWire {
            id: offer.id.clone(),
            description: offer.description.clone(),
            plans: offer.plans.iter().map(plan).collect(),
        });
        Self { offers: offers.collect(), next: page.next.clone() }
    }
}

impl TryFrom<PageWire> for OffersPage {
    type Error = String;

    fn try_from(wire: PageWire) -> Result<Self, String> {
        if wire.offers.len() > OFFERS_MAX {
            return Err(format!("{} offers on a page, at most {OFFERS_MAX}", wire.offers.len()));
        }
        let offers = wire.offers.into_iter().map(Offer::try_from).collect::<Result<_, _>>()?;
        Ok(Self { offers, next: wire.next.map(|text| id("continue", text)).transpose()? })
    }
}

impl TryFrom<OfferWire> for Offer {
    type Error = String;

    fn try_from(wire: OfferWire) -> Result<Self, String> {
        if wire.plans.len() > PLANS_MAX {
            return Err(format!("{} plans in an offer, at most {PLANS_MAX}", wire.plans.len()));
        }
        let cut = |text: String| text.chars().take(DESCRIPTION_LENGTH_MAX).collect();
        let plan = |plan: PlanWire| {
            let name = id("name", plan.name)?;
            Ok::<_, String>(OfferedPlan { name, description: cut(plan.description), flavor: plan.flavor.try_into()? })
        };
        let plans = wire.plans.into_iter().map(plan).collect::<Result<_, _>>()?;
        Ok(Self { id: id("offerID", wire.id)?, description: cut(wire.description), plans })
    }
}

impl OffersQuery {
    /// Returns what a query asks for.
    ///
    /// # Errors
    /// A sentence that names the key and says what is known.
    pub(crate) fn from_query(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("limit", text) => {
                    let limit = text.parse().ok().filter(|limit| (1..=OFFERS_MAX).contains(limit));
                    asked.limit = limit.ok_or_else(|| format!("limit: needed 1 to {OFFERS_MAX}"))?;
                }
                ("continue", text) => asked.after = Some(id("continue", text.to_owned())?),
                (key, _) => {
                    let key: String = key.chars().take(64).collect();
                    return Err(format!("`{key}` is not known: needed limit or continue"));
                }
            }
        }
        Ok(asked)
    }

    /// Returns the path and query that ask for this.
    pub(crate) fn path_and_query(&self) -> String {
        let after = self.after.as_ref().map(|after| format!("&continue={after}")).unwrap_or_default();
        format!("/api/v2/offers?limit={}{after}", self.limit)
    }
}
