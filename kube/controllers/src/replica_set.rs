//! ReplicaSet: so many pods of one template at any time.
//!
//! ```text
//!  ReplicaSets, Pods ──▶ plan: adopt, release, create, delete, status ──▶ act
//! ```
//!
//! A pod *belongs* to a ReplicaSet if it names it as the owner that manages it. One without such an owner whose labels
//! are selected is adopted; one whose labels no longer are is released.
mod act;
mod plan;

pub(crate) use act::{run, run_legacy};
