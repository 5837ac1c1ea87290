//! `node.k8s.io/v1`: how machines run pods.

mod runtime_class;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&runtime_class::KIND];
