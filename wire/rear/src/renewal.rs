//! A renewal: a contract goes on beyond its end. What both sign, and the checks that each makes before it does.
//!
//! ```text
//!   buyer: renewal, signed ──────► seller: is it the next one, in time, and sold now? Ledger, sign
//!      ◄───────────── the same bytes, signed by both ─┘   however often it is asked for
//! ```
//! It names the contract by its digest, so everything else of it stays as it was signed. What is open after a crash is asked again.

use fluidos_identity::{Envelope, NodeId, Signed, SignedError};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::terms::{ContractTerms, TermsError, equal};

/// `typ` of the signatures over a renewal.
pub const RENEWAL_PURPOSE: &str = "fluidos-renewal+jws";
const VERSION: u32 = 1;

/// A contract goes on: what is signed.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RenewalTerms {
    /// 1.
    pub version: u32,
    /// Which contract.
    #[serde(rename = "contractID")]
    pub contract_id: String,
    /// SHA-256 of the contract's signed bytes, so that it can only be this one.
    pub terms_digest: String,
    /// From 1, without a gap.
    pub number: u32,
    /// When it would have ended (RFC 3339).
    pub from: String,
    /// When it ends now (RFC 3339).
    pub until: String,
}

impl RenewalTerms {
    /// Returns a renewal, ready to be signed.
    ///
    /// # Errors
    /// [`SignedError`] if it has no canonical form.
    pub fn of(
        contract: &Signed<ContractTerms>,
        number: u32,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Signed<Self>, SignedError> {
        let terms = Self {
            version: VERSION,
            contract_id: contract.value().contract_id.clone(),
            terms_digest: contract.digest(),
            number,
            from: from.to_string(),
            until: until.to_string(),
        };
        Signed::new(RENEWAL_PURPOSE, terms)
    }

    /// Returns when the contract would have ended, and when it ends now.
    ///
    /// # Errors
    /// [`TermsError::Differ`] if one is no time, or the second is not the later.
    pub fn times(&self) -> Result<(Timestamp, Timestamp), TermsError> {
        let time = |field, text: &str| {
            let observed = text.chars().take(64).collect();
            text.parse::<Timestamp>().map_err(|_| TermsError::Differ {
                field,
                observed,
                needed: "an RFC 3339 time".into(),
            })
        };
        let (from, until) = (time("from", &self.from)?, time("until", &self.until)?);
        if until <= from {
            let (observed, needed) = (self.until.clone(), format!("after {from}"));
            return Err(TermsError::Differ { field: "until", observed, needed });
        }
        Ok((from, until))
    }
}

/// Returns a renewal with the signatures that hold.
///
/// # Errors
/// [`TermsError`] if it is none.
pub fn open_renewal(envelope: &Envelope) -> Result<Signed<RenewalTerms>, TermsError> {
    let signed: Signed<RenewalTerms> = Signed::open(envelope, RENEWAL_PURPOSE)?;
    equal("version", &signed.value().version, &VERSION)?;
    Ok(signed)
}

/// Either party: checks that a renewal is of this contract and signed by these.
///
/// # Errors
/// [`TermsError`] if it is of another contract, or somebody has not signed.
pub fn check_renewal(
    renewal: &Signed<RenewalTerms>,
    contract: &Signed<ContractTerms>,
    signers: &[NodeId],
) -> Result<(), TermsError> {
    equal("contractID", &renewal.value().contract_id, &contract.value().contract_id)?;
    equal("termsDigest", &renewal.value().terms_digest, &contract.digest())?;
    renewal.value().times()?;
    renewal.require(signers)?;
    Ok(())
}

/// Buyer: checks that a seller signed exactly what the buyer did. Then the contract goes on.
///
/// # Errors
/// [`TermsError`] if the bytes differ or one of both has not signed.
pub fn check_renewed(
    received: &Envelope,
    sent: &Signed<RenewalTerms>,
    signers: &[NodeId],
) -> Result<Signed<RenewalTerms>, TermsError> {
    let signed = open_renewal(received)?;
    if signed.bytes() != sent.bytes() {
        return Err(TermsError::OtherBytes { observed: signed.digest(), needed: sent.digest() });
    }
    signed.require(signers)?;
    Ok(signed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_identity::NodeKey;

    use super::*;

    #[test]
    fn a_renewal_is_of_one_contract_and_counts_when_both_have_signed_the_same_bytes() {
        let key = |seed| NodeKey::from_seed([seed; 32]).unwrap();
        let (buyer, seller) = (key(1), key(2));
        let contract = |id: &str| {
            let terms = ContractTerms {
                version: 1,
                contract_id: id.into(),
                transaction_id: "t".into(),
                flavor_id: "f".into(),
                flavor_type: "k8slice".into(),
                configuration: serde_json::json!({}),
                buyer: buyer.id(),
                seller: seller.id(),
                price: Default::default(),
                conditions: None,
                issued: "1970-01-01T00:00:00Z".into(),
                until: None,
            };
            terms.into_signed().unwrap()
        };
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let both = [buyer.id(), seller.id()];
        let mut asked = RenewalTerms::of(&contract("c"), 1, at(100), at(200)).unwrap();
        assert!(check_renewal(&asked, &contract("c"), &[buyer.id()]).is_err(), "nobody has signed");
        asked.sign(&buyer).unwrap();
        check_renewal(&asked, &contract("c"), &[buyer.id()]).unwrap();
        assert!(check_renewal(&asked, &contract("d"), &[buyer.id()]).unwrap_err().to_string().contains("contractID"));
        assert!(check_renewed(&asked.envelope(), &asked, &both).is_err(), "the seller has not");
        let mut answered = asked.clone();
        answered.sign(&seller).unwrap();
        assert_eq!(
            check_renewed(&answered.envelope(), &asked, &both).unwrap().value().times().unwrap(),
            (at(100), at(200))
        );
        let mut other = RenewalTerms::of(&contract("c"), 1, at(100), at(300)).unwrap();
        other.sign(&buyer).unwrap();
        other.sign(&seller).unwrap();
        assert!(matches!(check_renewed(&other.envelope(), &asked, &both), Err(TermsError::OtherBytes { .. })));
        let back = RenewalTerms::of(&contract("c"), 1, at(200), at(200)).unwrap();
        assert!(back.value().times().unwrap_err().to_string().contains("until"), "no time at all");
    }
}
