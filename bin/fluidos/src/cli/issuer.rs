//! `--trust-issuer`: whose word this owner believes, and for what.

use std::str::FromStr;

use anyhow::{Result, anyhow, bail};
use fluidos_identity::{NodeId, TrustedIssuers, is_domain};

/// One trusted issuer, as `DID[=DOMAIN]`, `certifier:DID` or `attester:DID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// Says which nodes are its own; of this domain, if one is given.
    Owner(NodeId, Option<String>),
    /// Says what nodes are.
    Certifier(NodeId),
    /// Says what hardware has attested.
    Attester(NodeId),
}

impl FromStr for Issuer {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let key = |did: &str| {
            did.parse::<NodeId>()
                .map_err(|error| anyhow!("{error}; needed DID[=DOMAIN], certifier:DID or attester:DID"))
        };
        if let Some(did) = text.strip_prefix("certifier:") {
            return Ok(Self::Certifier(key(did)?));
        }
        if let Some(did) = text.strip_prefix("attester:") {
            return Ok(Self::Attester(key(did)?));
        }
        let (did, domain) = match text.split_once('=') {
            Some((did, domain)) => (did, Some(domain)),
            None => (text, None),
        };
        if let Some(domain) = domain.filter(|domain| !is_domain(domain)) {
            bail!("{domain:?} is no domain, needed one as farm.example");
        }
        Ok(Self::Owner(key(did.strip_prefix("owner:").unwrap_or(did))?, domain.map(str::to_owned)))
    }
}

/// All of them together.
pub fn trusted(issuers: &[Issuer]) -> TrustedIssuers {
    let mut trusted = TrustedIssuers::default();
    for issuer in issuers {
        match issuer {
            Issuer::Owner(did, None) => trusted.trust_owner(*did),
            Issuer::Owner(did, Some(domain)) => trusted.trust_owner_of(*did, domain),
            Issuer::Certifier(did) => trusted.trust_certifier(*did),
            Issuer::Attester(did) => trusted.trust_attester(*did),
        }
    }
    trusted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_identity::{EvidenceLevel, NodeKey};

    use super::*;

    #[test]
    fn an_issuer_is_trusted_for_what_was_said_and_nothing_else() {
        let [owner, certifier, attester] = [1, 2, 3].map(|seed| NodeKey::from_seed([seed; 32]).unwrap().id());
        let words = [format!("{owner}=farm.example"), format!("certifier:{certifier}"), format!("attester:{attester}")];
        let issuers: Vec<Issuer> = words.iter().map(|word| word.parse().unwrap()).collect();
        assert_eq!(issuers[0], Issuer::Owner(owner, Some("farm.example".into())));
        assert_eq!(format!("owner:{owner}").parse::<Issuer>().unwrap(), Issuer::Owner(owner, None));
        let trusted = trusted(&issuers);
        assert!(trusted.is_owner(&owner) && !trusted.is_owner(&certifier));
        assert_eq!(trusted.level_of(&certifier), Some(EvidenceLevel::Audited));
        assert_eq!((trusted.level_of(&attester), trusted.level_of(&owner)), (Some(EvidenceLevel::Attested), None));
        for wrong in ["", "farm.example", "certifier:x", &format!("{owner}=a b"), &format!("judge:{owner}")] {
            assert!(wrong.parse::<Issuer>().is_err(), "{wrong}");
        }
    }
}
