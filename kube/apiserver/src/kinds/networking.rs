//! `networking.k8s.io/v1`: who may reach whom, and from outside.

mod ingress;
mod ingress_class;
mod ip_address;
mod network_policy;
mod service_cidr;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] =
    &[&ingress::KIND, &ingress_class::KIND, &ip_address::KIND, &network_policy::KIND, &service_cidr::KIND];
