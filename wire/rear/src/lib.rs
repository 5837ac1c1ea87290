//! REAR: how one node lists what it sells and another reserves and buys it (REAR v2, FLUIDOS D2.1 §6.3).
//!
//! ```text
//!   buyer                                   seller
//!     │ GET    /api/v2/openapi.json            │  this protocol, for programs
//!     │ GET    /api/v2/flavors[/k8slice]       │  anybody may ask
//!     │ GET    /api/v2/subscription            │  the same as a stream of changes (ours)
//!     │ GET    /api/v2/offers                  │  packages of fixed size, in pages (ours)
//!     │ POST   /api/v2/requests                │  what could be sold for what is needed (ours); nothing is held
//!     │ POST   /api/v2/reservations            │  held for 60 s; answer: transaction + contract terms
//!     │ DELETE /api/v2/transactions/ID         │  given back before its time is over (ours)
//!     │ POST   /api/v2/transactions/ID/purchase│  terms signed by the buyer; answer: signed by both
//!     │ DELETE /api/v2/contracts/ID            │  signed by either party (ours)
//!     │ POST   /api/v2/contracts/ID/receipts   │  what was used, measured and signed by both (ours)
//!     │ …      /api/v2/log, contracts          │  witnesses, and getting back what was lost: see the module `log` (ours)
//! ```
//! The messages are the official implementation's dialect; what it lacks rides in optional fields (`signedTerms`, `did`), so
//! official nodes interoperate up to the contract. Nothing secret is on the wire: no kubeconfig is ever sent, and one that
//! is received is dropped while parsing.
//!
//! This crate names no Kubernetes type: a [`Seller`] decides, whatever stands behind it. [`RearService`] is a tower service
//! and knows no transport; [`serve`] mounts it on HTTPS, [`serve_stream`] on one stream of anything, such as a link.
//!
//! Limits: without TLS only what official nodes can say is answered ([`serve_plain`]); requests, cancelling and releasing need a key.

mod client;
mod connect;
mod guard;
mod log;
mod messages;
mod path;
mod proof;
mod query;
mod receipts;
mod renewal;
mod seller;
mod server;
mod service;
mod subscription;
mod terms;

pub use client::{Client, ClientError, Subscription};
pub use connect::{Connect, PlainHttp, Stream, Target};
pub use fluidos_door::{ALPN, Peer};
pub use fluidos_identity::Envelope;
pub use log::{
    BOOKS_MAX, CONTRACTS_MAX, Consistency, ENTRIES_MAX, HeadSubmission, Inclusion, KeptBooks, KeptContract,
    KeptContracts, KeptHead, KeptLeaves, LEAVES_MAX, Notary,
};
pub use messages::{
    Change, Configuration, Contract, Fit, Flavor, FlavorType, Location, OFFERS_MAX, Offer, OfferedPlan, OffersPage,
    OffersQuery, Party, Price, PurchaseRequest, ReserveRequest, ResourceAnswer, ResourceOffer, ResourceRequest,
    Telemetry, Transaction,
};
pub use path::{PATH_LEEWAY, PATH_MARKS_MAX, PATH_PURPOSE, Path, PathError, PathTerms};
pub use proof::{
    PROOF_BYTES_MAX, PROOF_WITH_HANDOVERS_BYTES_MAX, Proof, ProofError, export_contract, export_signed,
    export_with_handovers, handovers_of, require_party, verify_contract, verify_signed, verify_with_handovers,
};
pub use query::{Selector, SelectorFilter};
pub use receipts::{Accountant, PAYMENTS_MAX, ReceiptAnswer, ReceiptRequest};
pub use renewal::{RENEWAL_PURPOSE, RenewalTerms, check_renewal, check_renewed, open_renewal};
pub use seller::{Refusal, RefusalCode, Seller};
pub use server::{ServeError, serve, serve_plain, serve_stream};
pub use service::{BODY_BYTES_MAX, Body, OPENAPI, RearService};
pub use subscription::Lines;
pub use terms::{
    CONTRACT_PURPOSE, ContractTerms, RELEASE_PURPOSE, ReleaseTerms, ServiceTerms, TermsError, check_contract,
    check_offer, check_purchase, check_release, configuration_digest,
};

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
