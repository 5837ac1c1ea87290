//! Amounts of extended resources as objects and documents write them: `{example.com/fpga: "2"}`.
//!
//! What official nodes write as `gpu` is `nvidia.com/gpu`: it is written there and nowhere else, so that an amount has one text.

use std::collections::BTreeMap;

use super::QuantityText;
use crate::market::{Amounts, ExtendedResource, Quantity, QuantityError, Resource, ResourceError};

/// Amounts by the names of extended resources.
pub type ExtendedTexts = BTreeMap<String, QuantityText>;

/// Extended resources of one document: a machine has a handful of kinds of devices.
pub const EXTENDED_MAX: usize = 16;

/// Why extended resources cannot be read. Their writer must correct them.
#[derive(Debug, thiserror::Error)]
pub enum ExtendedError {
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] ResourceError),
    /// An amount that is none.
    #[error("{resource}: {source}")]
    Quantity {
        /// Of what.
        resource: ExtendedResource,
        /// What is wrong.
        source: QuantityError,
    },
    /// GPUs are written in two places.
    #[error("nvidia.com/gpu stands there twice: as gpu and by its name")]
    Twice,
    /// Too many.
    #[error("{observed} extended resources, needed at most {EXTENDED_MAX}")]
    Many {
        /// How many.
        observed: usize,
    },
}

/// Sets amounts to what texts say. `amount` makes a number of a quantity: [`Resource::asked`] or [`Resource::offered`].
///
/// # Errors
/// [`ExtendedError`] names the resource and what it needs.
pub(super) fn read(
    texts: &ExtendedTexts,
    amounts: &mut Amounts,
    amount: fn(&Resource, Quantity) -> u64,
) -> Result<(), ExtendedError> {
    if texts.len() > EXTENDED_MAX {
        return Err(ExtendedError::Many { observed: texts.len() });
    }
    for (name, text) in texts {
        let name = ExtendedResource::parse(name)?;
        let quantity = text.parse().map_err(|source| ExtendedError::Quantity { resource: name.clone(), source })?;
        let resource = Resource::Extended(name);
        if resource == Resource::GPU && amounts.get(&resource) != 0 {
            return Err(ExtendedError::Twice);
        }
        amounts.set(&resource, amount(&resource, quantity));
    }
    Ok(())
}

/// Returns the texts of the extended resources of amounts, without what is 0 and what official nodes write as `gpu`.
pub fn extended_texts(amounts: &Amounts) -> ExtendedTexts {
    let others = amounts.extended.iter().filter(|(name, _)| **name != ExtendedResource::GPU);
    others.map(|(name, amount)| (name.as_str().to_owned(), QuantityText(amount.to_string()))).collect()
}
