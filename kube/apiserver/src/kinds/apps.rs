//! `apps/v1`: what keeps pods running.

mod controller_revision;
mod daemon_set;
pub mod deployment;
pub mod replica_set;
mod stateful_set;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] =
    &[&controller_revision::KIND, &daemon_set::KIND, &deployment::KIND, &replica_set::KIND, &stateful_set::KIND];
