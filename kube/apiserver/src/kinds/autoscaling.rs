//! `autoscaling/v1` and `v2`: how many pods there should be.

mod horizontal_pod_autoscaler;
mod horizontal_pod_autoscaler_v1;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&horizontal_pod_autoscaler::KIND, &horizontal_pod_autoscaler_v1::KIND];
