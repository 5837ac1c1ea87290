//! Clients of others, in the versions that `cargo xtask clients` brings, as a user has them: against a node of ours with real
//! containers.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod helm;
mod inside;
mod judged;
mod kube_rs;
mod kubectl;
mod protobuf;
mod python;
