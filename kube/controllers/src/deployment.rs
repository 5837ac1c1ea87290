//! Deployment: replaces pods of one template by pods of the next, a few at a time.
//!
//! ```text
//!  Deployment ──▶ ReplicaSet of the template now   (the *new* one: up)
//!             └─▶ ReplicaSets of earlier templates (the *old* ones: down, then kept as history)
//! ```
//!
//! A ReplicaSet *is of* a template if its own is equal but for the label `pod-template-hash`. What may be missing or too
//! many at a time is `maxUnavailable` and `maxSurge`; everything follows from the numbers in the ReplicaSets' status, so
//! a controller that starts anew goes on where the last one stopped.
//! A ReplicaSet that nobody manages and whose labels are selected is adopted, before anything else is done.
mod act;
mod plan;
mod rollout;
mod status;
mod template;

pub(crate) use act::run;
