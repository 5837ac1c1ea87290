//! A presentation on its way: one stream, and one byte back when it has been taken.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fluidos_identity::{NodeId, PRESENTATION_BYTES_MAX, Presentation};
use fluidos_link::{Handler, LinkStream, PeerInfo, Session};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// The kind of the stream.
pub const KIND: &str = "presentation/1";
/// 256 KiB at 250 kbit/s, and a look at it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is said when it was taken.
const TAKEN: u8 = 1;
/// Presentations of one peer at once: one for the link, and some for what it hears meanwhile.
const BURST: f64 = 6.0;
/// Then one in ten seconds: to check a full one costs some 20 ms.
const PER_SECOND: f64 = 0.1;
/// Of all peers together: a fifth of a core with full ones.
const ALL_BURST: f64 = 64.0;
const ALL_PER_SECOND: f64 = 10.0;
/// Peers that are counted: as many as there are links.
const COUNTED_MAX: usize = 1024;

/// Shows this to a peer.
///
/// # Errors
/// Why it was not taken, in words. Later it may be.
pub async fn present(session: &Session, presentation: &[u8]) -> Result<(), String> {
    let showing = async {
        let mut stream = session.open(KIND, &Value::Null).await.map_err(|error| error.to_string())?;
        stream.write_all(presentation).await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())?;
        match stream.read_u8().await {
            Ok(TAKEN) => Ok(()),
            Ok(other) => Err(format!("it answered {other}")),
            Err(error) => Err(format!("it was not taken: {error}")),
        }
    };
    tokio::time::timeout(TIMEOUT, showing).await.unwrap_or_else(|_| Err(format!("not taken within {TIMEOUT:?}")))
}

/// Takes presentations of peers.
pub(super) struct Door {
    heard: mpsc::Sender<(NodeId, Presentation)>,
    allowance: Mutex<Allowance>,
}

impl Door {
    pub(super) fn new(heard: mpsc::Sender<(NodeId, Presentation)>) -> Self {
        Self { heard, allowance: Mutex::new(Allowance::new(Instant::now())) }
    }

    async fn take(&self, peer: NodeId, stream: &mut LinkStream) -> Result<(), String> {
        let mut bytes = Vec::new();
        let read = stream.take(PRESENTATION_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await;
        read.map_err(|error| error.to_string())?;
        let presentation = Presentation::parse(&bytes)?;
        self.heard.send((peer, presentation)).await.map_err(|_| "nobody listens any more".to_owned())?;
        stream.write_all(&[TAKEN]).await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Handler for Door {
    async fn stream(&self, peer: &PeerInfo, _header: Value, mut stream: LinkStream) {
        let allowed = self.allowance.lock().unwrap_or_else(PoisonError::into_inner).spend(peer.id, Instant::now());
        if !allowed {
            tracing::debug!(peer = %peer.id, "a peer shows itself too often");
            return stream.abandon();
        }
        let taken = tokio::time::timeout(TIMEOUT, self.take(peer.id, &mut stream)).await;
        if let Err(reason) = taken.unwrap_or_else(|_| Err(format!("not read within {TIMEOUT:?}"))) {
            tracing::debug!(peer = %peer.id, reason, "a presentation was not taken");
            stream.abandon();
        }
    }
}

/// Token buckets: one for each peer, one for all.
struct Allowance {
    peers: HashMap<NodeId, (f64, Instant)>,
    all: (f64, Instant),
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { peers: HashMap::new(), all: (ALL_BURST, now) }
    }

    /// Takes one for a peer, if there is one.
    fn spend(&mut self, peer: NodeId, now: Instant) -> bool {
        let filled = |(tokens, since): (f64, Instant), burst: f64, rate: f64| {
            (tokens + now.saturating_duration_since(since).as_secs_f64() * rate).min(burst)
        };
        if self.peers.len() >= COUNTED_MAX {
            // Whose bucket is full again is as one that was never seen.
            self.peers.retain(|_, bucket| filled(*bucket, BURST, PER_SECOND) < BURST);
        }
        let full = self.peers.len() >= COUNTED_MAX && !self.peers.contains_key(&peer);
        let mine = filled(self.peers.get(&peer).copied().unwrap_or((BURST, now)), BURST, PER_SECOND);
        let all = filled(self.all, ALL_BURST, ALL_PER_SECOND);
        if full || mine < 1.0 || all < 1.0 {
            return false;
        }
        self.peers.insert(peer, (mine - 1.0, now));
        self.all = (all - 1.0, now);
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use fluidos_identity::NodeKey;

    use super::*;

    #[test]
    fn one_peer_shows_itself_a_few_times_and_all_together_some_more() {
        let id = |n: u32| {
            let mut seed = [7; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            NodeKey::from_seed(seed).unwrap().id()
        };
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!((0..100).filter(|_| allowance.spend(id(0), start)).count(), BURST as usize);
        assert!(!allowance.spend(id(0), start + Duration::from_secs(9)));
        assert!(allowance.spend(id(0), start + Duration::from_secs(11)));
        let mut allowance = Allowance::new(start);
        assert_eq!((0..100).filter(|n| allowance.spend(id(*n), start)).count(), ALL_BURST as usize);
        // What is counted is bounded, and who was counted before is so no more.
        let mut allowance = Allowance::new(start);
        for n in 0..3000 {
            allowance.all = (ALL_BURST, start);
            allowance.spend(id(n), start);
        }
        assert_eq!(allowance.peers.len(), COUNTED_MAX);
        assert!(allowance.spend(id(9999), start + Duration::from_secs(60)));
        assert_eq!(allowance.peers.len(), 1);
    }
}
