//! Controllers at an API server in process, one subject a file.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod certificates;
mod limits;
mod node_ipam;
mod stories;
mod workloads;
mod world;
