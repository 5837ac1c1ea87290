//! Node Orchestrator (§6.4.2): where the pods of service requests run.
//!
//! A *service request* is a pod that may leave its owner's nodes: it (or an owner up its chain) carries an intent, or its
//! namespace says so. It is *gated* on creation, *judged* against own nodes and virtual nodes, and *opened* onto the chosen
//! one. When nothing fits, a Solver asks for what is missing.
//!
//! ```text
//! create pod ─▶ gate (admission) ─▶ View: pods, nodes, Solvers ─▶ plan(&View, now) ─▶ act
//!                                                                  │ opens the gate onto a node
//!                                                                  │ writes or deletes a Solver
//!                                                                  └ says why not (condition, event)
//! ```
//! Watches pods, nodes, namespaces and Solvers; writes gates, affinities and conditions of gated pods, and Solvers.
//!
//! Limits: a placed pod is not moved when its intents are violated later; soft intents only order the candidates; capacity
//! that was bought is kept until the workload is gone.

pub mod gate;
pub mod placement;
