//! Who answers when a peer opens a stream or asks something.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::frame::ANSWER_BYTES_MAX;
use crate::session::PeerInfo;
use crate::stream::LinkStream;

/// Handles streams of one kind. The key of `peer` is proven; everything else it says is a claim.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Handles one stream until it is done. Cancelled when the session ends.
    async fn stream(&self, peer: &PeerInfo, header: Value, stream: LinkStream);
}

/// Handles requests of one kind: one bounded JSON value in, one out.
#[async_trait]
pub trait RequestHandler: Send + Sync + 'static {
    /// Returns the answer, or why there is none. Cancelled when the session ends or the peer gives up.
    async fn request(&self, peer: &PeerInfo, request: Value) -> Result<Value, RequestRefusal>;
}

/// A no with its reason. Shown to the peer: nothing private in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RequestRefusal {
    /// A word that programs look at.
    pub code: String,
    /// What was observed and what was needed.
    pub message: String,
}

impl RequestRefusal {
    /// Returns a refusal.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// The answer on the wire.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    Ok(Value),
    Refused(RequestRefusal),
}

/// Makes a stream handler of a request handler.
pub(crate) struct Requests<H: ?Sized>(pub(crate) std::sync::Arc<H>);

#[async_trait]
impl<H: RequestHandler + ?Sized> Handler for Requests<H> {
    async fn stream(&self, peer: &PeerInfo, header: Value, mut stream: LinkStream) {
        let answer = tokio::select! {
            answer = self.0.request(peer, header) => answer,
            // The peer gave up; what the request has done so far, the handler must be able to do again.
            _ = stream.send.stopped() => return,
        };
        let answer = answer.map_or_else(Answer::Refused, Answer::Ok);
        let json = match serde_json::to_vec(&answer) {
            Ok(json) if json.len() <= ANSWER_BYTES_MAX => json,
            Ok(json) => {
                let message = format!("the answer has {} bytes, at most {ANSWER_BYTES_MAX}", json.len());
                refused("too-large", message)
            }
            Err(error) => refused("internal", error.to_string()),
        };
        if let Err(error) = stream.write_all(&json).await {
            tracing::debug!(peer = %peer.id, %error, "answer could not be sent");
        }
    }
}

fn refused(code: &str, message: String) -> Vec<u8> {
    // Two texts always have a JSON form; an empty answer is malformed to the peer, which is right too.
    serde_json::to_vec(&Answer::Refused(RequestRefusal::new(code, message))).unwrap_or_default()
}
