//! One session with one peer: opens streams, asks, sends datagrams, measures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use fluidos_identity::NodeId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::LinkError;
use crate::frame::{self, ANSWER_BYTES_MAX, HEADER_BYTES_MAX};
use crate::handler::Answer;
use crate::hello::Hello;
use crate::stream::{LinkStream, code};
use crate::tie::Facts;

/// Opening is local unless the peer lets us wait for a free stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const KIND_LENGTH_MAX: usize = 64;

/// A peer as its session knows it. Only `id` and `address` are proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerInfo {
    /// Its key.
    pub id: NodeId,
    /// The name it says.
    pub name: String,
    /// The domain it says.
    pub domain: String,
    /// What it says it can.
    pub features: Vec<String>,
    /// What else it says.
    pub attributes: BTreeMap<String, String>,
    /// Which start of it this is.
    pub incarnation: u64,
    /// Where its packets come from.
    pub address: SocketAddr,
    /// Whether this node dialled.
    pub dialled: bool,
    /// The protocol version that both speak.
    pub version: u32,
    /// Counts the sessions of this node: tells two sessions with one peer apart.
    pub session: u64,
}

impl PeerInfo {
    /// Says whether the peer says that it can do this.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }
}

/// A session with a peer. Cheap to clone; it ends when the link ends, not when this is dropped.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: quinn::Connection,
    peer: PeerInfo,
    dialler: NodeId,
    since: Instant,
}

/// What is measured of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionStats {
    /// Round-trip time of the path.
    pub round_trip: Duration,
    /// Bytes sent, with everything that QUIC adds.
    pub sent_bytes: u64,
    /// Bytes received, with everything that QUIC adds.
    pub received_bytes: u64,
    /// Packets that were lost on the way.
    pub lost_packets: u64,
    /// The longest payload of a datagram now; `None` if the peer takes none.
    pub datagram_bytes_max: Option<usize>,
    /// How long it has been up.
    pub age: Duration,
}

/// What a stream begins with.
#[derive(Serialize, Deserialize)]
pub(crate) struct Opening<H> {
    pub(crate) kind: String,
    pub(crate) header: H,
}

impl Session {
    pub(crate) fn new(
        connection: quinn::Connection,
        id: NodeId,
        hello: Hello,
        version: u32,
        session: u64,
        dialler: NodeId,
    ) -> Self {
        let peer = PeerInfo {
            id,
            name: hello.name,
            domain: hello.domain,
            features: hello.features,
            attributes: hello.attributes,
            incarnation: hello.incarnation,
            address: canonical(connection.remote_address()),
            dialled: dialler != id,
            version,
            session,
        };
        Self { inner: Arc::new(Inner { connection, peer, dialler, since: Instant::now() }) }
    }

    /// Returns who the peer is.
    pub fn peer(&self) -> &PeerInfo {
        &self.inner.peer
    }

    /// Opens a stream to the peer's handler of this kind. Nothing is waited for: a peer that does not handle the kind
    /// closes the stream, which the first read reports.
    ///
    /// # Errors
    /// [`LinkError`] if the session has ended, the header is too large, or the peer lets no more streams be opened.
    pub async fn open(&self, kind: &str, header: &impl Serialize) -> Result<LinkStream, LinkError> {
        if kind.is_empty() || kind.len() > KIND_LENGTH_MAX {
            return Err(LinkError::TooLarge { what: "kind", observed: kind.len(), max: KIND_LENGTH_MAX });
        }
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.inner.connection.open_bi()).await;
        let (send, receive) = match opened {
            Ok(Ok(directions)) => directions,
            Ok(Err(error)) => return Err(self.closed(&error)),
            Err(_) => return Err(self.timed_out(kind, OPEN_TIMEOUT)),
        };
        let mut stream = LinkStream { send, receive };
        let opening = Opening { kind: kind.to_owned(), header };
        match frame::write(&mut stream.send, "header", &opening, HEADER_BYTES_MAX).await {
            Ok(()) => Ok(stream),
            Err(error) => {
                stream.abandon();
                Err(error)
            }
        }
    }

    /// Asks the peer's request handler of this kind and returns its answer.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the peer's reason; [`LinkError::TimedOut`]; [`LinkError`] if the session has ended or
    /// the answer is too large or cannot be read.
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: &str,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, LinkError> {
        let asked = tokio::time::timeout(timeout, self.ask(kind, request)).await;
        asked.unwrap_or_else(|_| Err(self.timed_out(kind, timeout)))
    }

    async fn ask<Q: Serialize, A: DeserializeOwned>(&self, kind: &str, request: &Q) -> Result<A, LinkError> {
        let mut stream = self.open(kind, request).await?;
        // Fails only if the peer has stopped reading, which the answer tells better.
        let _ = stream.send.finish();
        let json = stream.receive.read_to_end(ANSWER_BYTES_MAX).await.map_err(|error| self.unanswered(kind, error))?;
        let unreadable = |error: serde_json::Error| LinkError::Malformed { what: "answer", reason: error.to_string() };
        match serde_json::from_slice(&json).map_err(unreadable)? {
            Answer::Ok(value) => serde_json::from_value(value).map_err(unreadable),
            Answer::Refused(refusal) => Err(self.refused(kind, refusal.code, refusal.message)),
        }
    }

    fn unanswered(&self, kind: &str, error: quinn::ReadToEndError) -> LinkError {
        match error {
            quinn::ReadToEndError::TooLong => {
                LinkError::TooLarge { what: "answer", observed: ANSWER_BYTES_MAX + 1, max: ANSWER_BYTES_MAX }
            }
            quinn::ReadToEndError::Read(quinn::ReadError::Reset(code)) => {
                self.refused(kind, format!("stream-{code}"), code::text(code).into())
            }
            quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error)) => self.closed(&error),
            quinn::ReadToEndError::Read(error) => LinkError::Dropped { what: "answer", reason: error.to_string() },
        }
    }

    /// Sends a datagram: at once, once, perhaps never arriving. The payload is at most
    /// [`SessionStats::datagram_bytes_max`] long.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`] if it is longer; [`LinkError::Closed`] if the session has ended or the peer takes none.
    pub fn send_datagram(&self, channel: u8, payload: &[u8]) -> Result<(), LinkError> {
        let mut datagram = BytesMut::with_capacity(payload.len() + 1);
        datagram.put_u8(channel);
        datagram.put_slice(payload);
        self.send_datagram_frame(datagram.freeze())
    }

    /// Sends a datagram whose first byte is the channel already: without a copy.
    ///
    /// # Errors
    /// As [`Session::send_datagram`].
    pub fn send_datagram_frame(&self, frame: Bytes) -> Result<(), LinkError> {
        let observed = frame.len().saturating_sub(1);
        self.inner.connection.send_datagram(frame).map_err(|error| match error {
            quinn::SendDatagramError::TooLarge => {
                let max = self.stats().datagram_bytes_max.unwrap_or(0);
                LinkError::TooLarge { what: "datagram", observed, max }
            }
            other => LinkError::Closed { peer: self.inner.peer.id, reason: other.to_string() },
        })
    }

    /// Returns what is measured.
    pub fn stats(&self) -> SessionStats {
        let connection = &self.inner.connection;
        let stats = connection.stats();
        SessionStats {
            round_trip: connection.rtt(),
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            datagram_bytes_max: connection.max_datagram_size().map(|size| size.saturating_sub(1)),
            age: self.inner.since.elapsed(),
        }
    }

    /// Waits until the session has ended; returns why.
    pub async fn closed_reason(&self) -> String {
        reason(&self.inner.connection.closed().await)
    }

    /// Says whether the session is still there, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.inner.connection.close_reason().is_none()
    }

    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.inner.connection
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts { incarnation: self.inner.peer.incarnation, dialler: self.inner.dialler }
    }

    /// Whether another process of the same node is at the other end.
    pub(crate) fn is_of_another_process(&self, other: &Self) -> bool {
        self.inner.peer.incarnation != other.inner.peer.incarnation
    }

    pub(crate) fn age(&self) -> Duration {
        self.inner.since.elapsed()
    }

    pub(crate) fn close(&self, code: quinn::VarInt) {
        self.inner.connection.close(code, code::text(code).as_bytes());
    }

    fn closed(&self, error: &quinn::ConnectionError) -> LinkError {
        LinkError::Closed { peer: self.inner.peer.id, reason: reason(error) }
    }

    fn timed_out(&self, kind: &str, timeout: Duration) -> LinkError {
        LinkError::TimedOut { peer: self.inner.peer.id, kind: kind.into(), seconds: timeout.as_secs_f32() }
    }

    fn refused(&self, kind: &str, code: String, message: String) -> LinkError {
        // They end up in logs and terminals: no control characters of somebody else's.
        let shortened = |text: String| text.chars().filter(|c| !c.is_control()).take(512).collect();
        let (code, message) = (shortened(code), shortened(message));
        LinkError::Refused { peer: self.inner.peer.id, kind: kind.into(), code, message }
    }
}

/// An address of IPv4 that a socket of IPv6 shows is the same address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns why a connection ended, in words. What the peer wrote is not repeated: its code is enough.
pub(crate) fn reason(error: &quinn::ConnectionError) -> String {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => code::text(close.error_code).into(),
        quinn::ConnectionError::TimedOut => "nothing was heard for too long".into(),
        quinn::ConnectionError::LocallyClosed => "closed by this node".into(),
        other => other.to_string(),
    }
}

/// Reads what a peer's stream begins with.
pub(crate) async fn read_opening(stream: &mut LinkStream) -> Result<Opening<Value>, LinkError> {
    let opening: Opening<Value> = frame::read(&mut stream.receive, "header", HEADER_BYTES_MAX).await?;
    if opening.kind.is_empty() || opening.kind.len() > KIND_LENGTH_MAX {
        return Err(LinkError::TooLarge { what: "kind", observed: opening.kind.len(), max: KIND_LENGTH_MAX });
    }
    Ok(opening)
}
