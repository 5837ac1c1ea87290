//! HorizontalPodAutoscaler v2: how many pods there should be, by what they use.
//!
//! ```text
//!  every 15 s, for each:  size of the target ─┐
//!                         Pods, what they use ─┼▶ calculate: a number for each metric ─▶ the largest
//!                         what was said before ┘   ─▶ behavior: not too soon, not too fast ─▶ scale, status
//! ```
//!
//! What pods use is asked of the metrics API (`metrics.k8s.io`), which not every cluster has; without it the conditions say so, in upstream's
//! words, and the limits are kept all the same.
//!
//! Not built: metrics of kinds `Pods`, `Object` and `External`; their conditions say so.
mod act;
mod behavior;
mod calculate;
mod metrics;
mod plan;

pub(crate) use act::run;
