//! StatefulSet: pods with names, and with claims for storage that outlive them.
//!
//! ```text
//!  StatefulSets, Pods, claims, revisions ──▶ plan: one step after the other ──▶ act
//!
//!  ordinals  0 ─▶ 1 ─▶ 2   made in order, each when those before it are available
//!            0 ◀─ 1 ◀─ 2   replaced and removed in the other, each when those after it are well
//! ```
//!
//! A pod is *well* if it runs, is ready, and is not on its way out. A set that is `Parallel` makes and removes without
//! waiting, but replaces in order.
//!
//! Not built: `maxUnavailable` of roll-outs (a gate of upstream's, off there, too).
mod act;
mod claims;
mod plan;
mod pod;

pub(crate) use act::run;
