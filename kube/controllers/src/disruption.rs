//! PodDisruptionBudget: how many pods may be taken away now.
//!
//! ```text
//!  budgets, Pods, who manages them ──▶ plan: expected, wanted, well ──▶ status.disruptionsAllowed
//! ```
//!
//! An eviction takes one from `disruptionsAllowed` and notes the pod in `disruptedPods` until it is seen to go. This
//! controller counts anew. Pods are *expected* by what their managers want, not by what there is: a Deployment that is short
//! of pods cannot spare any.
//!
//! Thin: of managers that are custom kinds the size is not asked (`scale`); their budgets say so, and allow nothing.
mod act;
mod plan;

pub(crate) use act::run;
