//! Pods on a machine: runtimes, images, volumes, probes, logs, exec.

pub mod files;
pub mod images;
pub mod rooted;
mod sys;
