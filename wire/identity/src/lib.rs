//! Keys, DIDs, signatures and TLS material: a node *is* its key.
//!
//! A **node key** is one Ed25519 key pair, made once and kept in the node's directory. Everything else that says who a
//! node is follows from it, so there is no authority to ask and nothing to enrol:
//!
//! ```text
//!   node.key (0600) ── NodeKey ──┬── NodeId            did:key:z6Mk…         the name everybody uses
//!                                ├── certificate       TLS 1.3, HTTPS + QUIC the peer's NodeId is read from it
//!                                ├── detached JWS      contracts, releases   over canonical JSON (RFC 8785)
//!                                └── fabric prefix     100.64.0.0/10, fd00::/8  where its pods live
//! ```
//!
//! Limits: one key for all purposes, told apart by the `typ` of a signature; no rotation, no credentials yet.

mod base58;
mod fabric;
mod id;
mod jws;
mod key;
mod signed;
mod tls;

pub use fabric::{FabricPrefix, fabric_prefix};
pub use id::{IdError, NodeId};
pub use jws::{JwsError, jws_sign, jws_verify};
pub use key::{KeyError, NodeKey};
pub use signed::{ENVELOPE_PAYLOAD_BYTES_MAX, ENVELOPE_SIGNATURES_MAX, Envelope, Signed, SignedError, canonical_json};
pub use tls::{ClientAuth, TlsError, certificate_node_id, client_config, peer_node_id, server_config};
