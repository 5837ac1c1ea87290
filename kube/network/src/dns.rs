//! The cluster's DNS: names of Services for pods, everything else from the machine's own resolvers.
//!
//! ```text
//!  pod ──▶ gateway:53 (or the Service address .10) ──▶ in the cluster's zone?  yes: zone   answers with authority
//!                                                                              no:  forward asks the machine's resolvers
//! ```
//!
//! Follows "Kubernetes DNS-Based Service Discovery" 1.1.0. A pod has a name by its address (`10-1-0-2.NAMESPACE.pod.DOMAIN`), which is
//! answered for any address and namespace, as CoreDNS does unless told otherwise (`pods insecure`). Answers of the machine's resolvers are
//! kept for as long as they say, at most 30 s; those of the zone for as long as it is. Limits: IPv4.
mod cache;
mod datagrams;
mod forward;
mod said;
mod server;
mod zone;

pub use server::{DnsOptions, DnsServer};
