//! The seller behind the protocol: what decides, whatever it is made of.

use std::net::IpAddr;

use async_trait::async_trait;
use fluidos_identity::{NodeId, Signed};
use http::StatusCode;
use tokio::sync::watch;

use crate::{
    Contract, ContractTerms, Flavor, OffersPage, OffersQuery, Peer, PurchaseRequest, ReleaseTerms, RenewalTerms,
    ReserveRequest, ResourceAnswer, ResourceRequest, Selector, Transaction,
};

/// Who sells. Everything that arrives has been parsed and bounded; signatures and buyer have been checked.
///
/// Every method is *idempotent*: asked again with the same ids and content it answers the same and changes nothing. A
/// buyer whose answer was lost simply asks again. The path of a request is the seller's to read ([`Path::read`](crate::Path::read)): it
/// takes the seller's key to know itself again.
#[async_trait]
pub trait Seller: Send + Sync + 'static {
    /// Returns what is on offer and matches. Nothing on offer is an empty list.
    async fn list_flavors(&self, selector: &Selector, peer: &Peer) -> Result<Vec<Flavor>, Refusal>;

    /// Returns a counter that grows whenever what [`Seller::list_flavors`] answers to anybody may have changed; `None` for a seller that
    /// does not know, whose changes are not told.
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Returns the packages that a peer may see, by name, each with at least one plan.
    async fn list_offers(&self, _query: &OffersQuery, _peer: &Peer) -> Result<OffersPage, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "no packages are sold here: list the flavors"))
    }

    /// Returns what could be sold for what a buyer needs, or why nothing could. A seller that does not answer requests is asked
    /// for its flavors.
    async fn request(&self, _request: ResourceRequest, _buyer: NodeId) -> Result<ResourceAnswer, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "requests are not answered here: list the flavors"))
    }

    /// Holds something for a buyer that has proven its key, under the id it chose or a new one. The answer carries the
    /// terms of the contract, unsigned, whose buyer is this node.
    async fn reserve(&self, request: ReserveRequest, buyer: NodeId) -> Result<Transaction, Refusal>;

    /// Gives back what is held for a buyer, before its time is over. What is not held for it is `Ok`; what is sold is ended by a
    /// release. A seller that does not take holds back lets them end by themselves.
    async fn cancel(&self, _transaction_id: &str, _buyer: NodeId) -> Result<(), Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "holds end by themselves here"))
    }

    /// Sells what is held. `terms` carry the buyer's signature, which holds, and the buyer named in them is the one that
    /// asks; the seller compares their bytes with what it offered and signs them too.
    async fn purchase(
        &self,
        transaction_id: &str,
        request: PurchaseRequest,
        terms: Signed<ContractTerms>,
        buyer: NodeId,
    ) -> Result<Contract, Refusal>;

    /// Holds something for who proves no key and signs nothing, as official nodes: known by where it comes from, `origin`, and by what
    /// it says of itself. Only asked at a plain listener.
    async fn reserve_unproven(&self, _request: ReserveRequest, _origin: IpAddr) -> Result<Transaction, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "nothing is sold here to who proves no key"))
    }

    /// Sells what is held for an origin. The contract is signed by nobody.
    async fn purchase_unproven(
        &self,
        _transaction_id: &str,
        _request: PurchaseRequest,
        _origin: IpAddr,
    ) -> Result<Contract, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "nothing is sold here to who proves no key"))
    }

    /// Has a contract go on. `renewal` is signed by the node that asks; the answer carries both signatures, and is the same however
    /// often it is asked for. A seller that renews nothing lets contracts end.
    async fn renew(
        &self,
        _contract_id: &str,
        _renewal: Signed<RenewalTerms>,
        _party: NodeId,
    ) -> Result<Signed<RenewalTerms>, Refusal> {
        Err(Refusal::new(RefusalCode::NotBuilt, "contracts are not renewed here: buy again"))
    }

    /// Ends a contract. `release` is signed by the node that asks, which must be a party; a contract that has ended is
    /// `Ok`.
    async fn release(&self, contract_id: &str, release: Signed<ReleaseTerms>, party: NodeId) -> Result<(), Refusal>;
}

/// Why a seller says no.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalCode {
    /// The request cannot be read or makes no sense. Correct it.
    Malformed,
    /// A key must be proven first.
    Unauthenticated,
    /// This peer may not.
    Forbidden,
    /// No such flavor, transaction or contract.
    NotFound,
    /// The hold is over. Reserve again.
    Expired,
    /// Not enough is left, or the id is used for something else.
    Conflict,
    /// Too many requests, or too much garbage. Later.
    TooMany,
    /// It has come through this node already. Ask somebody else.
    Loop,
    /// Known, but not built.
    NotBuilt,
    /// The seller failed. Later.
    Internal,
    /// The seller is not ready. Later.
    Unavailable,
}

impl RefusalCode {
    const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Expired,
        Self::Conflict,
        Self::TooMany,
        Self::Loop,
        Self::NotBuilt,
        Self::Internal,
        Self::Unavailable,
    ];

    /// Returns the word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::Expired => "expired",
            Self::Conflict => "conflict",
            Self::TooMany => "too-many",
            Self::Loop => "loop",
            Self::NotBuilt => "not-built",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    /// Returns the HTTP status, official where there is one (400, 404, 408, 500, 503).
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Expired => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NotBuilt => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the code of a status, `Internal` for one that nobody should send.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        // What has another method only is not there for who asks.
        if status == StatusCode::METHOD_NOT_ALLOWED {
            return Self::NotBuilt;
        }
        let known = Self::ALL.into_iter().find(|code| code.status() == status);
        known.unwrap_or(if status.is_client_error() { Self::Malformed } else { Self::Internal })
    }
}

/// A no with its reason in words: what was observed and what was needed. Shown to the peer: nothing private in it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {detail}", code.as_str())]
pub struct Refusal {
    /// What kind of no.
    pub code: RefusalCode,
    /// Why.
    pub detail: String,
}

impl Refusal {
    /// Returns a refusal.
    pub fn new(code: RefusalCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }

    /// Says whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.code, RefusalCode::TooMany | RefusalCode::Internal | RefusalCode::Unavailable)
    }
}
