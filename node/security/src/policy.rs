//! Policies: who may do what here. Pure: no I/O, and time is a part of the question.
//!
//! A question is *allowed* if and only if a `permit` holds and no `forbid` does. A `forbid` that fails while it is asked holds.
//!
//! ```text
//! AccessPolicies ─▶ compile ─▶ Policies ─┐
//!                     │                  ├─▶ decide ─▶ Decision { allowed, policies, reason }
//!            status of each     Request ─┘
//! ```
//! A text is taken as a whole or not at all: one that cannot be read, or that names what the schema does not know, changes
//! nothing, and what was accepted of that object before stays in force. A key that is named is followed to the one that speaks for its node
//! now (`follow`). Bounds: 64 objects of 64 KiB, 512 statements; Cedar has
//! no loops, so a decision costs no more than a walk over them.

mod compile;
mod decide;
mod first;
mod follow;
mod request;
#[cfg(test)]
mod tests;

pub use compile::{Policies, Text, Verdict, compile};
pub use decide::{Decision, decide};
pub use first::{Flags, offer, trust};
pub use request::{Action, Asked, Circumstances, Goods, Peer, Request, Resource, Source, Trust, word_of_owner};

/// The words that a policy may use.
pub const SCHEMA: &str = include_str!("policy/schema.cedarschema");
