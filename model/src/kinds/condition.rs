//! One thing that holds or does not, as Kubernetes says it; the kinds that have such a list share it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that holds or does not, as Kubernetes says it (`metav1.Condition`).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Of what: `Connected`, `LoggedByOtherParty`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// One word why.
    pub reason: String,
    /// In words.
    pub message: String,
    /// Since when, RFC 3339.
    pub last_transition_time: String,
    /// Of which version of the spec.
    #[serde(default)]
    pub observed_generation: i64,
}

impl Condition {
    /// Returns this condition as it follows one of before: what has not changed is so since then. `None` if nothing changes.
    pub fn after(mut self, before: Option<&Self>) -> Option<Self> {
        let Some(before) = before else { return Some(self) };
        if before.status == self.status {
            self.last_transition_time.clone_from(&before.last_transition_time);
        }
        (*before != self).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_is_so_since_it_began_to_and_not_since_it_was_looked_at() {
        let condition = |status: &str, message: &str, at: &str| Condition {
            kind: "Connected".into(),
            status: status.into(),
            reason: "Why".into(),
            message: message.into(),
            last_transition_time: at.into(),
            observed_generation: 1,
        };
        let first = condition("False", "a", "1").after(None);
        assert_eq!(first, Some(condition("False", "a", "1")));
        assert_eq!(condition("False", "a", "2").after(first.as_ref()), None);
        assert_eq!(condition("False", "b", "2").after(first.as_ref()), Some(condition("False", "b", "1")));
        assert_eq!(condition("True", "a", "2").after(first.as_ref()), Some(condition("True", "a", "2")));
    }
}
