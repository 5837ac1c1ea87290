//! ResourceQuota: how much of what a namespace may have it has.
//!
//! ```text
//!  quotas, Pods, Services, names of other kinds ──▶ usage: what counts, and how much ──▶ status.used
//! ```
//!
//! Who admits objects adds to `used`; this controller counts anew, which is what gives back. Pods that have ended use nothing.
//!
//! Thin: kinds other than pods and services are counted when something of these changes, and every 30 s.
mod act;
mod usage;

pub(crate) use act::run;
