//! The cluster's DNS: names of Services for pods, everything else from the machine's own resolvers.
//!
//! ```text
//!  pod ──▶ gateway:53 (or the Service address .10) ──▶ in the cluster's zone?  yes: zone   answers with authority
//!                                                                              no:  forward asks the machine's resolvers
//! ```
//!
//! Follows "Kubernetes DNS-Based Service Discovery" 1.1.0. Limits: IPv4; no records for pods themselves; answers are not
//! cached, the machine's resolvers do that.
mod forward;
mod server;
mod zone;

pub use server::{DnsOptions, DnsServer};
