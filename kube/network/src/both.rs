//! The two families of one network.
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::Cidr;

/// The ranges of IPv6 that a node has beside those of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6 {
    /// Addresses of pods; the first is the gateway's, and a pod has the number that it has among those of IPv4.
    pub pods: Cidr<Ipv6Addr>,
    /// Addresses of Services.
    pub services: Cidr<Ipv6Addr>,
}

/// What is said of IPv4, and the same of IPv6. A network of IPv4 alone leaves out the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Both<V4, V6> {
    /// Of IPv4.
    pub v4: V4,
    /// Of IPv6.
    pub v6: V6,
}

impl<V4, V6> From<Vec<V4>> for Both<Vec<V4>, Vec<V6>> {
    fn from(v4: Vec<V4>) -> Self {
        Both { v4, v6: Vec::new() }
    }
}
