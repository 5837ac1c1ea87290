//! What a buyer signs beyond size, price and term: the `accepts` of its AcquisitionPolicy.

use super::conditions::{NOTICE_SECONDS_MAX, OVERCOMMIT_PER_CENT_MAX};
use super::{BusinessModel, Conditions, Objective};

/// What a buyer agrees to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// How it may be sold.
    pub models: Vec<BusinessModel>,
    /// How long before the end a seller of spot capacity must tell, at least, in seconds.
    pub least_notice_seconds: u64,
    /// How long before an early end this buyer tells, at most, in seconds: so long it pays for what it does not need.
    pub most_notice_seconds: u64,
    /// The availability that must be promised, per mille; 0 needs none.
    pub least_availability_per_mille: u32,
    /// How often what is paid per use may be promised, at most, in per cent.
    pub most_overcommit_per_cent: u32,
    /// Whether it may be served by somebody whom the seller buys from, and whom this buyer does not know.
    pub resold: bool,
}

/// Without a word: reserved capacity of the seller itself, whatever its notice and level.
impl Default for Accepted {
    fn default() -> Self {
        Self {
            models: vec![BusinessModel::Reserved],
            least_notice_seconds: 0,
            most_notice_seconds: NOTICE_SECONDS_MAX,
            least_availability_per_mille: 0,
            most_overcommit_per_cent: OVERCOMMIT_PER_CENT_MAX,
            resold: false,
        }
    }
}

impl Accepted {
    /// Says whether conditions may be signed.
    ///
    /// # Errors
    /// The observed and the needed, in words.
    pub fn admits(&self, conditions: &Conditions) -> Result<(), String> {
        let model = conditions.business_model;
        if !self.models.contains(&model) {
            let models: Vec<&str> = self.models.iter().map(|model| model.as_str()).collect();
            return Err(format!("conditions: {}, needed {}", model.as_str(), models.join(" or ")));
        }
        if conditions.resold && !self.resold {
            return Err(
                "conditions: resold, needed what the seller serves itself: somebody else would see what runs there"
                    .into(),
            );
        }
        let notice = conditions.notice_seconds;
        if model == BusinessModel::Spot && notice < self.least_notice_seconds {
            return Err(format!("conditions: notice of {notice} s, needed at least {} s", self.least_notice_seconds));
        }
        if notice > self.most_notice_seconds {
            return Err(format!("conditions: notice of {notice} s, needed at most {} s", self.most_notice_seconds));
        }
        let levels = conditions.service_levels.iter().filter(|level| level.objective == Objective::Availability);
        let (promised, needed) =
            (levels.map(|level| level.per_mille).max().unwrap_or(0), self.least_availability_per_mille);
        if promised < needed {
            return Err(format!("conditions: availability of {promised} per mille, needed at least {needed}"));
        }
        let (overcommit, most) = (conditions.overcommit(), self.most_overcommit_per_cent);
        if overcommit > most {
            return Err(format!("conditions: promised to {overcommit} per cent, needed at most {most}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn a_buyer_agrees_to_what_it_said_only() {
        let spot = |notice_seconds| Conditions {
            business_model: BusinessModel::Spot,
            notice_seconds,
            ..Conditions::default()
        };
        let usual = Accepted::default();
        assert_eq!(usual.admits(&Conditions::default()), Ok(()));
        assert_eq!(usual.admits(&spot(60)), Err("conditions: spot, needed reserved".into()));
        let accepts = Accepted {
            models: vec![BusinessModel::Reserved, BusinessModel::Spot],
            least_notice_seconds: 60,
            most_notice_seconds: 600,
            ..Accepted::default()
        };
        assert_eq!(accepts.admits(&spot(60)), Ok(()));
        assert_eq!(accepts.admits(&spot(59)), Err("conditions: notice of 59 s, needed at least 60 s".into()));
        assert_eq!(accepts.admits(&spot(601)), Err("conditions: notice of 601 s, needed at most 600 s".into()));
        let resold = Conditions { resold: true, ..Conditions::default() };
        assert!(usual.admits(&resold).unwrap_err().starts_with("conditions: resold, needed"));
        assert_eq!(Accepted { resold: true, ..usual.clone() }.admits(&resold), Ok(()));
        let strict = Accepted { least_availability_per_mille: 990, ..usual };
        let refused = "conditions: availability of 0 per mille, needed at least 990";
        assert_eq!(strict.admits(&Conditions::default()), Err(refused.into()));
    }
}
