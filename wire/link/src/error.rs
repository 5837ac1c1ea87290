//! What can go wrong on a link.

use std::net::SocketAddr;

use fluidos_identity::{NodeId, TlsError};

/// Why something on a link did not happen. [`LinkError::is_retryable`] says whether to try again.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The address cannot be listened on.
    #[error("link cannot listen on {address}/udp: {source}")]
    Bind {
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key gives no TLS material.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What this node says about itself is not allowed.
    #[error("own hello: {0}")]
    OwnHello(String),
    /// No session could be made.
    #[error("no link to {address}: {reason}")]
    Dial {
        /// Where.
        address: SocketAddr,
        /// Why, in words.
        reason: String,
    },
    /// There is no session with this peer now.
    #[error("no link to {peer}")]
    NotConnected {
        /// Which peer.
        peer: NodeId,
    },
    /// The session ended underneath.
    #[error("link to {peer} ended: {reason}")]
    Closed {
        /// Which peer.
        peer: NodeId,
        /// Why.
        reason: String,
    },
    /// The peer did not answer in time.
    #[error("{peer} did not answer `{kind}` within {seconds} s")]
    TimedOut {
        /// Which peer.
        peer: NodeId,
        /// What was asked.
        kind: String,
        /// How long was waited.
        seconds: f32,
    },
    /// The peer said no.
    #[error("{peer} refused `{kind}`: {code}: {message}")]
    Refused {
        /// Which peer.
        peer: NodeId,
        /// What was asked.
        kind: String,
        /// Its word for the reason.
        code: String,
        /// Its reason in words.
        message: String,
    },
    /// More than may be sent or received at once.
    #[error("{what} of {observed} bytes, at most {max}")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How large.
        observed: usize,
        /// How large it may be.
        max: usize,
    },
    /// Something that cannot be read.
    #[error("malformed {what}: {reason}")]
    Malformed {
        /// What.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A stream that ended before it should have.
    #[error("stream ended while {what} was on its way: {reason}")]
    Dropped {
        /// What was on its way.
        what: &'static str,
        /// What the stream said.
        reason: String,
    },
    /// The kind or channel is taken.
    #[error("`{0}` is handled already")]
    Taken(String),
}

impl LinkError {
    /// Says whether the same may succeed later without anything being mended.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Dial { .. }
                | Self::NotConnected { .. }
                | Self::Closed { .. }
                | Self::TimedOut { .. }
                | Self::Dropped { .. }
        )
    }

    /// Says whether the peer is to blame: what is counted as garbage.
    pub(crate) fn is_garbage(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::TooLarge { .. })
    }
}
