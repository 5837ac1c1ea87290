//! The size of an instance, as it stands in what both parties sign: written as the configuration of a K8Slice of that size.

use serde_json::Value;

use crate::kinds::{Configuration, FlavorError, FlavorType};
use crate::market::Amounts;

/// Returns what is signed of these amounts.
///
/// # Errors
/// [`FlavorError::Shape`] in theory only.
pub fn size_text(amounts: &Amounts) -> Result<Value, FlavorError> {
    Configuration::k8slice(amounts).map(|configuration| configuration.data)
}

/// Returns the amounts that were signed: of one size there is one text.
///
/// # Errors
/// A sentence: what it says, and what is needed.
pub fn size_of(text: &Value) -> Result<Amounts, String> {
    let shown = || text.to_string().chars().take(128).collect::<String>();
    let read = Configuration { flavor_type: FlavorType::K8Slice, data: text.clone() };
    let amounts = read.amounts().map_err(|error| format!("size is {}: {error}", shown()))?;
    let needed = size_text(&amounts).map_err(|error| error.to_string())?;
    if needed != *text || amounts.is_zero() {
        return Err(format!("size is {}, needed {needed} and more than nothing", shown()));
    }
    Ok(amounts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_size_has_one_text() {
        let amounts = Amounts { cpu_milli: 250, memory_bytes: 64 << 20, pods: 1, ..Amounts::default() };
        let text = size_text(&amounts).unwrap();
        assert_eq!(text, json!({"cpu": "250m", "memory": "64Mi", "pods": "1"}));
        assert_eq!(size_of(&text), Ok(amounts));
        for wrong in [
            json!({"cpu": "0.25", "memory": "64Mi", "pods": "1"}),
            json!({"cpu": "250m", "memory": "64Mi", "pods": "1", "more": "1"}),
            json!({"cpu": "much", "memory": "64Mi", "pods": "1"}),
            json!({"cpu": "0", "memory": "0", "pods": "0"}),
            json!({}),
            json!("250m"),
        ] {
            assert!(size_of(&wrong).is_err(), "{wrong}");
        }
    }
}
