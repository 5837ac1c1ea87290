//! What is special about capacity, as its owner says: a trusted execution environment, hardware such as a TPM, standards.
//!
//! They are the official properties of a flavor: `additionalProperties.TEE`, `additionalProperties.additional-hardware` and
//! `securityStandards`. A claim: how well it is known stands in the evidence of the peer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Of each kind so many, each a label long: what is more is not looked at.
const MOST: usize = 16;
const LENGTH_MAX: usize = 63;

/// What an owner says about a place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Features {
    /// Its trusted execution environment: `true`, or which, such as `sev-snp`; empty is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tee: String,
    /// Hardware, such as `tpm`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hardware: Vec<String>,
    /// Standards that it meets, such as `ISO 27001`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub standards: Vec<String>,
}

impl Features {
    /// Returns what properties of a flavor say; whatever has another shape says nothing.
    pub fn of(tee: Option<&Value>, hardware: Option<&Value>, standards: &[String]) -> Self {
        let tee = match tee {
            Some(Value::Bool(true)) => "true".to_owned(),
            Some(Value::String(text)) if !text.eq_ignore_ascii_case("false") => text.clone(),
            _ => String::new(),
        };
        let hardware = hardware.and_then(Value::as_array).into_iter().flatten();
        let hardware = hardware.filter_map(Value::as_str).map(str::to_owned).collect();
        Self { tee, hardware, standards: standards.to_vec() }.bounded()
    }

    /// Returns what an annotation of a Node says; one that cannot be read says nothing.
    pub fn of_annotation(text: &str) -> Self {
        serde_json::from_str::<Self>(text).unwrap_or_default().bounded()
    }

    /// Says whether there is nothing special.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it has a trusted execution environment; `which` is one by its name, empty is any.
    pub fn has_tee(&self, which: &str) -> bool {
        !self.tee.is_empty() && (which.is_empty() || self.tee.eq_ignore_ascii_case(which))
    }

    /// Whether it has this hardware, whatever the case.
    pub fn has_hardware(&self, name: &str) -> bool {
        self.hardware.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// Whether it meets this standard, whatever the case.
    pub fn meets(&self, standard: &str) -> bool {
        self.standards.iter().any(|known| known.eq_ignore_ascii_case(standard))
    }

    fn bounded(mut self) -> Self {
        let is_label = |text: &str| !text.is_empty() && text.len() <= LENGTH_MAX && !text.contains(char::is_control);
        if !is_label(&self.tee) {
            self.tee.clear();
        }
        for texts in [&mut self.hardware, &mut self.standards] {
            texts.retain(|text| is_label(text));
            texts.truncate(MOST);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use serde_json::json;

    use super::*;

    #[test]
    fn official_properties_are_read_and_bounded() {
        let many: Vec<String> = (0..40).map(|n| format!("ISO {n}")).collect();
        let features = Features::of(Some(&json!("SEV-SNP")), Some(&json!(["TPM", 7, "", "x".repeat(64)])), &many);
        assert!(features.has_tee("") && features.has_tee("sev-snp") && !features.has_tee("tdx"));
        assert!(features.has_hardware("tpm") && features.hardware.len() == 1);
        assert!(features.meets("iso 3") && !features.meets("ISO 39") && features.standards.len() == MOST);
        let text = serde_json::to_string(&features).unwrap();
        assert_eq!(Features::of_annotation(&text), features);
        for none in [json!(false), json!("False"), json!(null), json!(["true"]), json!("a\nb")] {
            assert!(Features::of(Some(&none), None, &[]).is_empty(), "{none}");
        }
        assert!(Features::of(Some(&json!(true)), None, &[]).has_tee(""));
        assert!(Features::of_annotation("{\"tee\": 1}").is_empty());
    }
}
