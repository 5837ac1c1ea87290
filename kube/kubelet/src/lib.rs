//! Pods on a machine: runtimes, images, volumes, probes, logs, exec.
