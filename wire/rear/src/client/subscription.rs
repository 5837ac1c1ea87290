//! The buyer's side of a subscription: lines, read within bounds.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{ClientError, Open};
use crate::Change;
use crate::subscription::HEARTBEAT;

/// A flavor of a K8Slice with all its properties is about 2 KiB, one of a service has a schema of up to 16 KiB in it.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Two heartbeats may be lost in a busy seller.
const SILENCE: Duration = Duration::from_secs(HEARTBEAT.as_secs() * 3);

/// What a seller tells of its changes. It has a connection of its own, which ends with it.
pub struct Subscription {
    pub(super) seller: String,
    pub(super) body: Incoming,
    pub(super) buffer: BytesMut,
    pub(super) _connection: Open,
}

impl Subscription {
    /// Returns the next change, `None` when the seller has ended the subscription: whoever wants to go on subscribes again. After an
    /// error nothing more comes.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] if nothing was heard for 30 s or the connection broke, [`ClientError::Malformed`] for what is no
    /// change.
    pub async fn next(&mut self) -> Result<Option<Change>, ClientError> {
        loop {
            if let Some(line) = self.line()? {
                if let Some(change) = Change::read(&line).map_err(|reason| self.malformed(reason))? {
                    return Ok(Some(change));
                }
                continue;
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| self.unreachable(format!("silent for {} s", SILENCE.as_secs())))?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| self.unreachable(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }

    /// Takes a whole line out of what has come.
    fn line(&mut self) -> Result<Option<BytesMut>, ClientError> {
        let end = self.buffer.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
        if end.is_none() && self.buffer.len() >= LINE_BYTES_MAX {
            return Err(self.malformed(format!("a line of more than {LINE_BYTES_MAX} bytes")));
        }
        Ok(end.map(|end| {
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            line
        }))
    }

    fn malformed(&self, reason: String) -> ClientError {
        ClientError::Malformed { seller: self.seller.clone(), step: "subscribe", reason }
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable { seller: self.seller.clone(), step: "subscribe", reason }
    }
}
