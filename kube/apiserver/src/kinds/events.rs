//! `events.k8s.io/v1`: events in their newer form.

mod event;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&event::KIND];
