//! `rbac.authorization.k8s.io/v1`: who may do what.

mod cluster_role;
mod cluster_role_binding;
pub mod role;
mod role_binding;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] =
    &[&cluster_role::KIND, &cluster_role_binding::KIND, &role::KIND, &role_binding::KIND];
