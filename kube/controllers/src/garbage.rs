//! Garbage collection: what is owned goes with its owners.
//!
//! ```text
//!  all kinds ──watch──▶ Graph: who owns whom ──▶ plan ──▶ ask who is not in the graph, delete, strip, let go ──▶ act
//! ```
//!
//! An object is *garbage* if it names owners and none of them exists any more. An owner that is being deleted *in the
//! foreground* waits for its dependents that block it; one that is deleted with *orphaning* is struck from its dependents'
//! owners first. The API server writes these two wishes as finalizers (`foregroundDeletion`, `orphan`); here they are met.
//!
//! That an owner is not in the graph proves nothing (its kind may be young, a watch behind), so the API server is asked
//! before anything is deleted.
mod act;
mod graph;
mod plan;

pub(crate) use act::run;
