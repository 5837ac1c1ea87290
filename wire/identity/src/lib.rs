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
//! What others say about a node travels as **credentials**; what they prove for us, and how well an attribute is known, is
//! decided by pure functions:
//!
//! ```text
//!   owner, certifier ── Credential ──▶ VerifiedCredential ──▶ proven(…)    owner, domain, features
//!   domain's web server ── did:web ───────────────────────▶ evidence(…)  claimed < measured < audited < attested
//! ```
//!
//! Keys change and the node stays: **hand-overs** and **revocations** say which key speaks for it ([`resolve`], [`KeyHistory`]).
//! All of it comes together when a peer is met: [`Acquaintances::meet`].
//!
//! Limits: one key for all purposes, told apart by the `typ` of a signature.

mod acquaintances;
#[cfg(test)]
mod acquaintances_tests;
mod base58;
mod copies;
mod credential;
mod did_web;
mod evidence;
mod fabric;
mod files;
#[cfg(test)]
mod fuzz_tests;
mod history;
mod id;
mod json;
mod jws;
mod key;
mod memo;
mod origin;
mod shown;
mod signed;
mod speakers;
mod tls;
mod trust;
#[cfg(test)]
mod trust_tests;

pub use acquaintances::{Acquaintances, Met, PRESENTATION_BYTES_MAX, PRESENTED_LISTS_MAX, Presentation};
pub use copies::{COPY_PROBE, Incarnation, WhoStays, who_stays};
pub use credential::{
    CHECK_STEPS, CLAIM_LENGTH_MAX, CLAIMS_MAX, CLOCK_SKEW_LEEWAY, CREDENTIAL_LENGTH_MAX, CheckStep, Credential,
    CredentialDraft, CredentialError, CredentialKind, Demands, Finding, STATUS_ENTRIES, STATUS_TEXT_LENGTH_MAX,
    StatusEntry, StatusList, VerifiedCredential,
};
pub use did_web::{DID_DOCUMENT_BYTES_MAX, DidWeb, DidWebError, is_domain};
pub use evidence::{Attribute, Demotion, Evidence, EvidenceLevel, Measurement, evidence};
pub use fabric::{FabricPrefix, fabric_prefix};
pub use files::{FileError, read_file, replace_file};
pub use history::{
    Doubt, HANDOVERS_MAX, HISTORY_FILE, Handover, IdentityDirectory, IdentityError, KeyHistory, OwnerError, Owners,
    REASON_LENGTH_MAX, Revocation, STATEMENT_BYTES_MAX, STATEMENTS_BYTES_MAX, STATEMENTS_MAX, Standing, Statement,
    StatementError, Vouch, first_key, resolve,
};
pub use id::{IdError, NodeId};
pub use json::strict_json;
pub use jws::{JwsError, jws_sign, jws_verify};
pub use key::{KeyError, NODE_KEY_FILE, NodeKey};
pub use origin::origin;
pub use shown::{Held, HeldKind, STATEMENTS_DIRECTORY, Shown};
pub use signed::{
    ENVELOPE_PAYLOAD_BYTES_MAX, ENVELOPE_SIGNATURES_MAX, Envelope, Signed, SignedError, canonical_json, sha256_hex,
};
pub use speakers::Speakers;
pub use tls::{ClientAuth, TlsError, certificate_node_id, client_config, peer_node_id, server_config};
pub use trust::{Fact, Feature, PEER_CREDENTIALS_MAX, Proven, TrustedIssuers, proven};
