//! `scheduling.k8s.io/v1`: which pods come first.

pub mod priority_class;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&priority_class::KIND];
