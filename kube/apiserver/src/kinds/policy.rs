//! `policy/v1`: how many pods may be missing.

mod pod_disruption_budget;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&pod_disruption_budget::KIND];
