//! `apiregistration.k8s.io/v1`: which groups are served, and by whom.

mod api_service;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&api_service::KIND];
