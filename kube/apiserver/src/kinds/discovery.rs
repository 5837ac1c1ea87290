//! `discovery.k8s.io/v1`: where a Service's traffic goes.

mod endpoint_slice;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&endpoint_slice::KIND];
