//! All links of a node: listens, dials, admits, hands streams and datagrams to whoever handles them.

mod accept;
mod dial;
mod establish;
mod run;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fluidos_identity::{ClientAuth, NodeId, NodeKey, client_config, server_config};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handler::Requests;
use crate::hello::{Hello, PROTOCOL_VERSIONS};
use crate::stream::code;
use crate::strikes::Strikes;
use crate::{Handler, LinkError, LinkStream, PeerInfo, RequestHandler, Session};

const ALPN: &[&[u8]] = &[b"fluidos-link/1"];
/// A link idles at some 10 KiB; a node with more peers than this needs a catalog, not links.
const SESSIONS_MAX: usize = 1024;
/// Of these, sessions that others dialled: strangers cannot take the places of those that this node looks for.
const INBOUND_MAX: usize = 512;
/// Of these, from one address: several nodes of one owner, or of one NAT. Keys are free, addresses less so.
const INBOUND_PER_ADDRESS_MAX: usize = 64;
/// Events that a slow listener may be behind before it must read the list again.
const EVENTS_MAX: usize = 256;
/// Datagrams that wait for their handler: 1.5 MiB, 10 ms at 1 Gbit/s. More are dropped, as a router would.
const DATAGRAMS_MAX: usize = 1024;
/// Logs, exec, port-forward, images: one stream each.
const STREAMS_MAX: u32 = 256;
/// 1 MiB in flight fills 100 Mbit/s at 80 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Several such streams, and no more memory than this for one peer.
const SESSION_WINDOW_BYTES: u32 = 8 << 20;
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;
/// Before the first measurement: peers are near more often than far, and the first packets are repeated after three of these.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Handshakes under way at a time, each five seconds at most.
const HANDSHAKES_MAX: usize = 64;
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The close is sent at once; a living peer has it within a round trip.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(250);

/// How the links of a node are set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// The name its owner gave this node: 1 to 63 printable characters.
    pub name: String,
    /// What its owner calls itself; may be empty.
    pub domain: String,
    /// What this node can.
    pub features: Vec<String>,
    /// What else peers are told early.
    pub attributes: BTreeMap<String, String>,
    /// Grows with every start (milliseconds since 1970 will do).
    pub incarnation: u64,
    /// How often a quiet session is heard.
    pub keep_alive: Duration,
    /// After which silence a session is over.
    pub idle_timeout: Duration,
}

impl Options {
    /// Returns the usual: heard every 5 s, over after 15 s, which is three lost in a row.
    pub fn new(listen: SocketAddr, name: impl Into<String>, incarnation: u64) -> Self {
        Self {
            listen,
            name: name.into(),
            domain: String::new(),
            features: Vec::new(),
            attributes: BTreeMap::new(),
            incarnation,
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
        }
    }
}

/// What happens to links. A listener that lags reads [`Links::peers`] and goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// There is a session with this peer. One that comes while another is up has replaced it: streams of the older one
    /// are gone.
    Up(PeerInfo),
    /// There is no session with this peer any more.
    Down {
        /// Which peer.
        peer: NodeId,
        /// The session that was up.
        session: u64,
        /// Why it ended.
        reason: String,
    },
    /// Two processes run with one key.
    Copies {
        /// Whose: a peer's, or this node's own.
        key: NodeId,
        /// Who has met both: this node, or a peer that says so.
        witness: NodeId,
        /// Which of them is the younger, in words.
        younger: String,
    },
}

/// A datagram from a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Whose it is, proven.
    pub peer: NodeId,
    /// What is in it, without the channel.
    pub payload: Bytes,
}

/// How a dial stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DialStatus {
    /// It is being tried.
    Trying {
        /// How often it has failed in a row.
        failures: u32,
        /// Why, the last time; empty at first.
        last_error: String,
    },
    /// There is a session with the peer it leads to.
    Up(NodeId),
    /// It leads to this very node and is not tried again.
    Itself,
}

/// What has been counted since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Handshakes and hellos that came to nothing, incoming ones.
    pub refused_sessions: u64,
    /// Garbage.
    pub strikes: u64,
    /// Streams whose kind nobody handles.
    pub unknown_streams: u64,
    /// Datagrams that nobody handles, or not fast enough.
    pub dropped_datagrams: u64,
}

/// The links of a node. Cheap to clone; [`Links::stop`] ends them all.
#[derive(Clone)]
pub struct Links {
    shared: Arc<Shared>,
}

struct Shared {
    key: NodeKey,
    /// What the next session begins with.
    hello: RwLock<Hello>,
    endpoint: quinn::Endpoint,
    transport: Arc<quinn::TransportConfig>,
    sessions: Mutex<HashMap<NodeId, Session>>,
    session_count: AtomicU64,
    handlers: RwLock<HashMap<String, Arc<dyn Handler>>>,
    channels: RwLock<HashMap<u8, mpsc::Sender<Datagram>>>,
    events: broadcast::Sender<Event>,
    dials: Mutex<HashMap<SocketAddr, dial::Dial>>,
    strikes: Mutex<Strikes>,
    /// Keys that count no more, and why.
    refused: RwLock<BTreeMap<NodeId, String>>,
    handshakes: Arc<Semaphore>,
    refused_sessions: AtomicU64,
    strike_count: AtomicU64,
    unknown_streams: AtomicU64,
    dropped_datagrams: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Links {
    /// Listens and returns the links of this node. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`] if the address is in use, the key gives no certificate, or the options are beyond their bounds.
    pub fn start(key: NodeKey, options: Options) -> Result<Self, LinkError> {
        let hello = Hello {
            version_min: *PROTOCOL_VERSIONS.start(),
            version_max: *PROTOCOL_VERSIONS.end(),
            incarnation: options.incarnation,
            name: options.name.clone(),
            domain: options.domain.clone(),
            features: options.features.clone(),
            attributes: options.attributes.clone(),
        };
        hello.check().map_err(|error| LinkError::OwnHello(error.to_string()))?;
        let transport = Arc::new(transport(&options)?);
        let tls = server_config(&key, ClientAuth::Demand, ALPN)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| LinkError::OwnHello(error.to_string()))?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(transport.clone()).max_incoming(HANDSHAKES_MAX);
        let bind = |source| LinkError::Bind { address: options.listen, source };
        let socket = std::net::UdpSocket::bind(options.listen).map_err(bind)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint_config(&key), Some(config), socket, runtime).map_err(bind)?;
        let shared = Arc::new(Shared {
            key,
            hello: RwLock::new(hello),
            endpoint,
            transport,
            sessions: Mutex::default(),
            session_count: AtomicU64::new(0),
            handlers: RwLock::default(),
            channels: RwLock::default(),
            events: broadcast::channel(EVENTS_MAX).0,
            dials: Mutex::default(),
            strikes: Mutex::default(),
            refused: RwLock::default(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            refused_sessions: AtomicU64::new(0),
            strike_count: AtomicU64::new(0),
            unknown_streams: AtomicU64::new(0),
            dropped_datagrams: AtomicU64::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        shared.tasks.spawn(accept::accept_loop(shared.clone()));
        Ok(Self { shared })
    }

    /// Returns this node's name.
    pub fn id(&self) -> NodeId {
        self.shared.key.id()
    }

    /// Returns where this node listens.
    ///
    /// # Errors
    /// [`LinkError::Bind`] if the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr, LinkError> {
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        self.shared.endpoint.local_addr().map_err(|source| LinkError::Bind { address, source })
    }

    /// Changes what peers are told early, from the next session on.
    ///
    /// # Errors
    /// [`LinkError::OwnHello`] if it is beyond its bounds; nothing is changed then.
    pub fn set_attribute(&self, name: &str, value: &str) -> Result<(), LinkError> {
        let mut hello = self.shared.hello.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = hello.clone();
        changed.attributes.insert(name.into(), value.into());
        changed.check().map_err(|error| LinkError::OwnHello(error.to_string()))?;
        *hello = changed;
        Ok(())
    }

    /// Hands streams of a kind to a handler, from now on and for all peers.
    ///
    /// # Errors
    /// [`LinkError::Taken`] if the kind has one.
    pub fn handle(&self, kind: &str, handler: Arc<dyn Handler>) -> Result<(), LinkError> {
        let mut handlers = self.shared.handlers.write().unwrap_or_else(PoisonError::into_inner);
        if handlers.contains_key(kind) {
            return Err(LinkError::Taken(kind.into()));
        }
        handlers.insert(kind.into(), handler);
        Ok(())
    }

    /// Hands requests of a kind to a handler.
    ///
    /// # Errors
    /// [`LinkError::Taken`] if the kind has one.
    pub fn handle_requests(&self, kind: &str, handler: Arc<dyn RequestHandler>) -> Result<(), LinkError> {
        self.handle(kind, Arc::new(Requests(handler)))
    }

    /// Returns the datagrams of a channel, from all peers. What is not taken fast enough is dropped and counted.
    ///
    /// # Errors
    /// [`LinkError::Taken`] if somebody receives them.
    pub fn handle_datagrams(&self, channel: u8) -> Result<mpsc::Receiver<Datagram>, LinkError> {
        let mut channels = self.shared.channels.write().unwrap_or_else(PoisonError::into_inner);
        if channels.get(&channel).is_some_and(|sender| !sender.is_closed()) {
            return Err(LinkError::Taken(format!("datagram channel {channel}")));
        }
        let (sender, receiver) = mpsc::channel(DATAGRAMS_MAX);
        channels.insert(channel, sender);
        Ok(receiver)
    }

    /// Dials this address for ever: again after every failure, and when the session it led to has ended. With
    /// `expected`, a node with another key is refused, and one that does not answer for long is tried less often. Dialling
    /// an address again changes whom to expect.
    pub fn dial(&self, address: SocketAddr, expected: Option<NodeId>) {
        dial::start(&self.shared, address, expected);
    }

    /// Dials this address no more; a session it made stays. There need not be such a dial.
    pub fn undial(&self, address: SocketAddr) {
        lock(&self.shared.dials).remove(&address);
    }

    /// Returns how every dial stands.
    pub fn dials(&self) -> Vec<(SocketAddr, DialStatus)> {
        lock(&self.shared.dials).iter().map(|(address, dial)| (*address, dial.status())).collect()
    }

    /// Returns the session with a peer, if there is one.
    pub fn get(&self, peer: &NodeId) -> Option<Session> {
        self.shared.session(peer)
    }

    /// Returns every peer that is up.
    pub fn peers(&self) -> Vec<PeerInfo> {
        lock(&self.shared.sessions).values().map(|session| session.peer().clone()).collect()
    }

    /// Returns what happens to links from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Opens a stream to a peer's handler of this kind, as [`Session::open`].
    ///
    /// # Errors
    /// [`LinkError::NotConnected`] if the peer is not up, or as [`Session::open`].
    pub async fn open(&self, peer: &NodeId, kind: &str, header: &impl Serialize) -> Result<LinkStream, LinkError> {
        self.connected(peer)?.open(kind, header).await
    }

    /// Asks a peer's request handler of this kind, as [`Session::request`].
    ///
    /// # Errors
    /// [`LinkError::NotConnected`] if the peer is not up, or as [`Session::request`].
    pub async fn request<Q: Serialize, A: DeserializeOwned>(
        &self,
        peer: &NodeId,
        kind: &str,
        request: &Q,
        timeout: Duration,
    ) -> Result<A, LinkError> {
        self.connected(peer)?.request(kind, request, timeout).await
    }

    /// Sends a datagram to a peer, as [`Session::send_datagram`].
    ///
    /// # Errors
    /// [`LinkError::NotConnected`] if the peer is not up, or as [`Session::send_datagram`].
    pub fn send_datagram(&self, peer: &NodeId, channel: u8, payload: &[u8]) -> Result<(), LinkError> {
        self.connected(peer)?.send_datagram(channel, payload)
    }

    /// Ends the session with a peer. A dial that leads to it makes a new one.
    pub fn disconnect(&self, peer: &NodeId) {
        if let Some(session) = self.get(peer) {
            session.close(code::DONE);
        }
    }

    /// Refuses these keys from now on, each for its reason, and no others: sessions with them end, and none begins.
    pub fn refuse(&self, keys: BTreeMap<NodeId, String>) {
        let mut refused = self.shared.refused.write().unwrap_or_else(PoisonError::into_inner);
        refused.clone_from(&keys);
        drop(refused);
        // After the list is in force: a session that begins meanwhile is refused or found here.
        for (key, reason) in keys {
            if let Some(session) = self.get(&key) {
                tracing::warn!(peer = %key, reason, "the link ends: this key counts no more");
                session.close(code::REFUSED);
            }
        }
    }

    /// Returns what has been counted.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            refused_sessions: read(&self.shared.refused_sessions),
            strikes: read(&self.shared.strike_count),
            unknown_streams: read(&self.shared.unknown_streams),
            dropped_datagrams: read(&self.shared.dropped_datagrams),
        }
    }

    /// Ends all links and tells the peers.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        lock(&self.shared.dials).clear();
        self.shared.endpoint.close(code::STOPPED, code::text(code::STOPPED).as_bytes());
        self.shared.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.shared.tasks.wait()).await.is_err() {
            tracing::debug!("links stopped with tasks left");
        }
        // What is over after this either has been told or cannot be reached.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, self.shared.endpoint.wait_idle()).await;
    }

    fn connected(&self, peer: &NodeId) -> Result<Session, LinkError> {
        self.get(peer).ok_or(LinkError::NotConnected { peer: *peer })
    }
}

impl Shared {
    fn hello(&self) -> Hello {
        self.hello.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn session(&self, peer: &NodeId) -> Option<Session> {
        lock(&self.sessions).get(peer).filter(|session| session.is_alive()).cloned()
    }

    /// Counts garbage of a peer; a session with one that sent too much of it is closed.
    fn strike(&self, peer: NodeId, error: &LinkError) {
        self.strike_count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, %error, "garbage on a link");
        if lock(&self.strikes).strike(peer, Instant::now()) {
            tracing::warn!(%peer, %error, "peer sent too much garbage and is not listened to for a while");
            if let Some(session) = self.session(&peer) {
                session.close(code::SILENCED);
            }
        }
    }

    fn why_refused(&self, peer: &NodeId) -> Option<String> {
        self.refused.read().unwrap_or_else(PoisonError::into_inner).get(peer).cloned()
    }

    /// Tells that two processes run with one key. Nobody need be listening.
    fn tell_copies(&self, key: NodeId, witness: NodeId, younger: String) {
        tracing::warn!(%key, %witness, younger, "two processes run with one key");
        let _ = self.events.send(Event::Copies { key, witness, younger });
    }

    fn is_silenced(&self, peer: &NodeId) -> bool {
        lock(&self.strikes).is_silenced(peer, Instant::now())
    }

    fn client(&self, expected: Option<NodeId>) -> Result<quinn::ClientConfig, LinkError> {
        let tls = client_config(&self.key, expected, ALPN)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| LinkError::OwnHello(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        Ok(config)
    }
}

/// Peers of a node that was restarted go on sending on a session that it has forgotten. It answers with a stateless reset
/// (RFC 9000 §10.3), which needs two things to outlive the restart, so both follow from the node key: how it recognises
/// connection ids as its own (no secret), and the secret by which peers recognise its reset.
fn endpoint_config(key: &NodeKey) -> quinn::EndpointConfig {
    let secret = key.sign(b"fluidos link stateless reset key v1");
    let mut config = quinn::EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret)));
    let [a, b, c, d, e, f, g, h, ..] = *key.id().public_key();
    let recognise = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(recognise)));
    config
}

fn transport(options: &Options) -> Result<quinn::TransportConfig, LinkError> {
    let idle_timeout = quinn::IdleTimeout::try_from(options.idle_timeout)
        .map_err(|error| LinkError::OwnHello(format!("idle time-out {:?}: {error}", options.idle_timeout)))?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle_timeout))
        .keep_alive_interval(Some(options.keep_alive))
        .initial_rtt(FIRST_ROUND_TRIP)
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(SESSION_WINDOW_BYTES.into())
        .send_window(SESSION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    Ok(transport)
}

/// The maps are consistent after every statement, so what a panicking task left behind is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
