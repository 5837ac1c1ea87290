//! What can go wrong between two nodes of a fabric.

use fluidos_identity::{JwsError, NodeId};
use fluidos_link::LinkError;

/// Why the fabric did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link refused or ended. Retry: it is dialled again.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The API server said no. Retry, unless it says that the object is wrong.
    #[error("{action}: {source}")]
    Api {
        /// What was to be done, with which object.
        action: String,
        /// What it said.
        source: kube::Error,
    },
    /// A stream broke. Retry.
    #[error("{what}: {source}")]
    Stream {
        /// What was being read or written.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// More bytes than may cross at once. Correct: make it smaller.
    #[error("{what} has {observed} bytes, at most {max}")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its size in bytes.
        observed: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// It cannot be read. The sender's fault.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// What it should have been.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A signature that does not hold.
    #[error("desired state: {0}")]
    Signature(#[from] JwsError),
    /// Signed by another than the one who may say it.
    #[error("desired state is signed by {observed}, needed {needed}")]
    Signer {
        /// Who signed.
        observed: NodeId,
        /// Who should have.
        needed: NodeId,
    },
    /// Said about something else, or to somebody else.
    #[error("desired state names {what} {observed}, needed {needed}")]
    Misdirected {
        /// Contract, consumer or provider.
        what: &'static str,
        /// What it names.
        observed: String,
        /// What this stream is about.
        needed: String,
    },
    /// Not newer than what was said before.
    #[error("desired state {}.{} is not newer than {}.{}", observed.0, observed.1, last.0, last.1)]
    Replayed {
        /// Its epoch and sequence.
        observed: (u64, u64),
        /// The newest that was accepted.
        last: (u64, u64),
    },
    /// There is no such contract that is live and between these two.
    #[error("contract {contract}: {reason}")]
    NoContract {
        /// Its name.
        contract: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The other side ended the stream and said why.
    #[error("the provider ended the stream: {0}")]
    Closing(String),
}

impl Error {
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        move |source| Self::Api { action, source }
    }

    /// Says whether somebody else was faster: the next look at the API mends it.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Api { source: kube::Error::Api(status), .. } if matches!(status.code, 404 | 409))
    }

    pub(crate) fn stream(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Stream { what, source }
    }
}
