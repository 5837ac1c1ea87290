//! Node life cycle: what is believed of a node that is silent, and what becomes of its pods.
//!
//! ```text
//!  Lease renewed        ──▶ as the node says
//!  Lease old            ──▶ Ready=Unknown, its pods not ready, taints unreachable:NoSchedule and :NoExecute
//!  taint :NoExecute     ──▶ pods that do not tolerate it are deleted, others when their tolerationSeconds are over
//! ```
//!
//! A node is *silent* when its Lease has not been seen to change for the grace period. It is the change that counts, by
//! this machine's clock; the time written in the Lease is the node's.
mod act;
mod plan;

pub(crate) use act::run;
