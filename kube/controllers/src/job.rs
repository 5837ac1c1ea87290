//! Job: pods that run until so many have succeeded, and CronJob's workers.
//!
//! ```text
//!  Jobs, Pods ──▶ plan: count, judge, delete or create ──▶ act: pods, status, then finalizers
//!
//!  a pod ends ──▶ status.uncountedTerminatedPods names it ──▶ its finalizer goes ──▶ it is counted
//! ```
//!
//! A pod that has ended is *counted* exactly once: its finalizer keeps it until the status names it, and it is named only
//! while it has the finalizer. A Job that is to end first says that it will (`FailureTarget`, `SuccessCriteriaMet`), and that
//! it has (`Failed`, `Complete`) when no pod runs and none is left to be counted.
//!
//! Not built: `managedBy` others is left alone, as it asks; there is no metric of Jobs.
mod act;
mod condition;
mod count;
mod indexes;
mod manage;
mod plan;
mod policy;

pub(crate) use act::run;
pub(crate) use condition::finished_at;
pub(crate) use count::FINALIZER;
