//! What is made for each buyer of a service.

use std::collections::BTreeSet;

use super::error::CredentialError;
use super::substitute::is_name;
use crate::kinds::BlueprintCredential;

/// A password and a few more.
pub(super) const CREDENTIALS_MAX: usize = 8;
/// Letters and digits of a credential, of which each has log2(62) = 5.95 bits: 24 are 142 bits, 22 are the least for 128.
const CREDENTIAL_LENGTH: usize = 24;
pub(super) const CREDENTIAL_LENGTHS: std::ops::RangeInclusive<usize> = 22..=128;

/// A secret text that is made for one buyer: letters and digits by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Its name: of a placeholder, and in the Secret of the buyer.
    pub name: String,
    /// How many letters and digits, of 5.95 bits each.
    pub length: usize,
}

/// What is made for each buyer: what the blueprint says, or a password if it has a placeholder for one.
pub(super) fn credentials(
    said: Option<&[BlueprintCredential]>,
    placeholders: &BTreeSet<String>,
) -> Result<Vec<Credential>, CredentialError> {
    let Some(said) = said else {
        let password = placeholders.get("password").cloned();
        return Ok(password.map(|name| Credential { name, length: CREDENTIAL_LENGTH }).into_iter().collect());
    };
    if said.len() > CREDENTIALS_MAX {
        return Err(CredentialError::Count { observed: said.len() });
    }
    let mut credentials: Vec<Credential> = Vec::new();
    for credential in said {
        let name = credential.name.clone();
        if !is_name(&name) || credentials.iter().any(|earlier| earlier.name == name) {
            return Err(CredentialError::Name { observed: name.chars().take(64).collect() });
        }
        let length =
            credential.length.map_or(CREDENTIAL_LENGTH, |length| usize::try_from(length).unwrap_or(usize::MAX));
        if !CREDENTIAL_LENGTHS.contains(&length) {
            return Err(CredentialError::Length { name, observed: length });
        }
        credentials.push(Credential { name, length });
    }
    Ok(credentials)
}
