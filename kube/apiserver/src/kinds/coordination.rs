//! `coordination.k8s.io/v1`: who leads, and who lives.

mod lease;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&lease::KIND];
