//! `apiextensions.k8s.io/v1`: kinds that users bring.

mod custom_resource_definition;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&custom_resource_definition::KIND];
