//! EndpointSlices, and the older Endpoints: where the pods of a Service are.
//!
//! ```text
//!  Services, Pods ──▶ plan: the slices that should be ──▶ act: create, replace, delete what differs
//! ```
//!
//! An endpoint is *ready* if its pod is and is not on its way out; *serving* if its pod is ready; *terminating* if its pod
//! is on its way out (KEP-1672). Services without a selector are left to whoever made them.
//!
//! A Service has slices of each of its families (`spec.ipFamilies`), with the pods that have an address of it; the older Endpoints are of the
//! first.
//!
//! Limits: no zones and hints.
mod act;
mod plan;

pub(crate) use act::run;
pub(crate) use plan::SERVICE_NAME;
