//! What an owner sells on that it buys from others: the `reselling` of its SharingPolicy. Pure.
//!
//! A **margin** is the least that is asked on top of what is paid to the seller behind: never less, also where nine digits are too few.
//!
//! ```text
//!  own capacity fits ─▶ sold        else: reselling? ─▶ few enough stand behind the buyer? ─▶ sellers ─▶ price + margin, conditions
//! ```

use std::fmt;

use super::{Conditions, Decimal, MoneyError, Price};

/// 100 % in thousand-millionths of a per cent, as [`Decimal`] counts.
const WHOLE_NANO: u128 = 100 * 1_000_000_000;
/// Ten times what is paid is a mistake.
const PER_CENT_MAX: u128 = 1000;
/// Buyers one behind the other: a path holds eight, and who sells on adds itself to it.
pub const HOPS_MAX: u32 = 7;
/// Where nothing is said: the buyer may be a reseller itself, whose buyer is none.
pub const HOPS_USUAL: u32 = 2;

/// What is asked on top of what is paid.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Margin {
    per_cent: Decimal,
}

/// The rules of what is sold on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reselling {
    /// On top of what is paid, at least.
    pub margin: Margin,
    /// So many buyers may stand one behind the other, the one who asks among them.
    pub hops_max: u32,
    /// DIDs that are bought from for it; `None` is everybody who is bought from.
    pub allow: Option<Vec<String>>,
    /// DIDs that are not.
    pub deny: Vec<String>,
}

/// Why a text is no margin. Its writer must correct it.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
#[error("margin is `{observed}`, needed a percentage from 0% to {PER_CENT_MAX}% such as 10%")]
pub struct MarginError {
    /// The beginning of what was given.
    pub observed: String,
}

impl Margin {
    /// Returns the margin that a text says: `10%`, `12.5%`.
    ///
    /// # Errors
    /// [`MarginError`].
    pub fn parse(text: &str) -> Result<Self, MarginError> {
        let wrong = || MarginError { observed: text.chars().take(32).collect() };
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?;
        let per_cent = Decimal::parse(number.trim_end()).map_err(|_| wrong())?;
        if per_cent.nano() > PER_CENT_MAX * (WHOLE_NANO / 100) {
            return Err(wrong());
        }
        Ok(Self { per_cent })
    }

    /// Returns what is asked for what is paid: exact, a rest beyond nine digits rounded up. What is given away is given on.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] beyond 10^9 of the currency.
    pub fn on(&self, paid: &Price) -> Result<Price, MoneyError> {
        let too_large = || MoneyError::TooLarge { what: "the price of what is sold on" };
        let nano = paid.amount.nano().checked_mul(WHOLE_NANO + self.per_cent.nano()).ok_or_else(too_large)?;
        let amount = Decimal::from_nano(nano.div_ceil(WHOLE_NANO)).ok_or_else(too_large)?;
        Ok(Price { amount, ..*paid })
    }
}

/// Prints `10%`.
impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.per_cent)
    }
}

impl Reselling {
    /// Says whether anything is sold on to a buyer with so many buyers one behind the other, itself among them; 0 is one that does not
    /// say who stands behind it.
    ///
    /// # Errors
    /// The observed and the needed, in words.
    pub fn admits(&self, hops: usize) -> Result<(), String> {
        let most = self.hops_max;
        match u32::try_from(hops) {
            Ok(0) => Err("resale: the request has no path, needed one: who does not say who stands behind it may be asking in a circle".into()),
            Ok(hops) if hops <= most => Ok(()),
            _ => Err(format!("resale: hops: {hops} buyers stand one behind the other, needed at most {most}")),
        }
    }

    /// Says whether something is bought from this seller to be sold on.
    pub fn buys_from(&self, seller: &str) -> bool {
        let named = |dids: &[String]| dids.iter().any(|did| did == seller);
        !named(&self.deny) && self.allow.as_deref().is_none_or(named)
    }
}

/// Returns on which conditions something is sold on that is bought on these: the same, said to be sold on. It may go on as what is behind may, and
/// does if that does.
pub fn sold_on(bought: &Conditions) -> Conditions {
    Conditions { resold: true, ..bought.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;
    use crate::market::Renewal;

    fn on(margin: &str, paid: &str) -> String {
        let paid = Price::parse(paid, "EUR", "hour").unwrap().unwrap();
        Margin::parse(margin).unwrap().on(&paid).map_or_else(|error| error.to_string(), |price| price.to_string())
    }

    #[test]
    fn a_margin_is_exact_and_never_less() {
        assert_eq!(on("10%", "0.02"), "0.022 EUR/hour");
        assert_eq!(on("12.5%", "0.08"), "0.09 EUR/hour");
        assert_eq!(on("0%", "0.02"), "0.02 EUR/hour");
        // 0.000000001 and 10 % of it has no tenth digit: it is rounded up, not away.
        assert_eq!(on("10%", "0.000000001"), "0.000000002 EUR/hour");
        assert_eq!(on("1000%", "0.01"), "0.11 EUR/hour");
        assert_eq!(on("10%", "0"), "0 EUR/hour");
        assert_eq!(on("1%", "1000000000"), "the price of what is sold on is beyond what can be counted");
        for text in ["10", "", "%", "-1%", "1001%", "1000.000000001%", "1e3%", "ten%"] {
            let error = Margin::parse(text).unwrap_err().to_string();
            assert!(error.contains("needed a percentage from 0% to 1000%"), "{text}: {error}");
        }
        assert_eq!(Margin::parse(" 12.50 %").unwrap().to_string(), "12.5%");
    }

    #[test]
    fn who_stands_too_far_behind_gets_nothing_and_some_sellers_are_not_asked() {
        let rules = Reselling {
            margin: Margin::default(),
            hops_max: 2,
            allow: Some(vec!["did:a".into(), "did:b".into()]),
            deny: vec!["did:b".into()],
        };
        assert!(rules.admits(1).is_ok() && rules.admits(2).is_ok());
        let refused = rules.admits(3).unwrap_err();
        assert_eq!(refused, "resale: hops: 3 buyers stand one behind the other, needed at most 2");
        assert!(rules.admits(0).unwrap_err().contains("no path"));
        assert!(rules.buys_from("did:a") && !rules.buys_from("did:b") && !rules.buys_from("did:c"));
    }

    #[test]
    fn what_is_sold_on_is_said_to_be() {
        let renewal = Some(Renewal { by_seconds: 60, before_seconds: 30, at_most: Some(3) });
        let bought = Conditions { notice_seconds: 120, renewal, ..Conditions::default() };
        let sold = sold_on(&bought);
        assert_eq!((sold.resold, sold.notice_seconds, sold.renewal), (true, 120, renewal));
    }
}
