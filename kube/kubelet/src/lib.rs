//! Pods on a machine: runtimes, images, volumes, probes, logs, exec.

pub mod capabilities;
pub mod cgroups;
pub mod files;
pub mod images;
pub mod rooted;
pub mod runtime;
pub mod supervisor;
mod sys;
