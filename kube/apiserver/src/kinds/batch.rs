//! `batch/v1`: work that ends.

mod cron_job;
mod job;
mod pod_policies;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&cron_job::KIND, &job::KIND];
