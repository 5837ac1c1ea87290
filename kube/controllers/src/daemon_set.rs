//! DaemonSet: one pod on every node that it suits.
//!
//! ```text
//!  DaemonSets, Nodes, Pods, revisions ──▶ plan: node by node, then the roll-out ──▶ act
//!
//!   a node     suits          ──▶ a pod for it, which the scheduler binds there and nowhere else
//!              does not       ──▶ none; one that runs stays while no taint drives it out
//! ```
//!
//! A node *suits* if the template's name, selector and affinity mean it and every taint is tolerated; a daemon tolerates by
//! itself that a node is not ready, not reachable, under pressure or not to be used by others.
mod act;
mod node;
mod plan;
mod status;

pub(crate) use act::run;
