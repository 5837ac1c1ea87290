//! Why books were not brought forward.

use fluidos_identity::SignedError;
use fluidos_model::receipt::{InvoiceError, ReceiptError};
use fluidos_rear::{ClientError, Refusal, RefusalCode};

/// Why books were not brought forward. What can be mended by waiting is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API did not do it. Later.
    #[error("{what}: {source}")]
    Api {
        /// What was done.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// A contract or receipt is not signed as it must be.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// A receipt says what was not agreed.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// A month cannot be invoiced.
    #[error(transparent)]
    Invoice(#[from] InvoiceError),
    /// The contract cannot be accounted for.
    #[error("contract {contract}: {reason}")]
    Contract {
        /// Which.
        contract: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The other party has other books.
    #[error("the books of {contract} differ from the other party's: {reason}")]
    Fork {
        /// Of which contract.
        contract: String,
        /// Where.
        reason: String,
    },
    /// Nobody answered, or refused.
    #[error(transparent)]
    Peer(#[from] ClientError),
    /// There is no way to the peer.
    #[error("{0}")]
    Unreachable(String),
}

impl Error {
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source }
    }

    /// Says whether the books themselves are wrong; anything else may be mended by waiting.
    pub(crate) fn is_of_books(&self) -> bool {
        match self {
            Self::Signed(_) | Self::Receipt(ReceiptError::Differs { .. }) | Self::Invoice(_) => true,
            Self::Contract { .. } | Self::Fork { .. } => true,
            Self::Peer(ClientError::Refused { refusal, .. }) => refusal.code == RefusalCode::Conflict,
            Self::Receipt(ReceiptError::Early { .. }) | Self::Peer(_) | Self::Api { .. } | Self::Unreachable(_) => {
                false
            }
        }
    }

    /// What a peer is told: the API's own words are nobody else's business.
    pub(crate) fn into_refusal(self) -> Refusal {
        match self {
            Self::Signed(_) | Self::Receipt(ReceiptError::Differs { .. }) | Self::Fork { .. } => {
                Refusal::new(RefusalCode::Conflict, self.to_string())
            }
            Self::Receipt(ReceiptError::Early { .. }) => Refusal::new(RefusalCode::Unavailable, self.to_string()),
            error => {
                tracing::warn!(%error, "accounting");
                Refusal::new(RefusalCode::Internal, "the books could not be read or written")
            }
        }
    }
}
