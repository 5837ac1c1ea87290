//! `certificates.k8s.io/v1`: who asks for a certificate.

mod certificate_signing_request;

use super::Description;

/// Kinds of this group.
pub static KINDS: &[&Description] = &[&certificate_signing_request::KIND];
