//! A **door**: where strangers knock over HTTP. It accepts within limits, proves the key of who comes, and hands each request to its
//! **host**.
//!
//! ```text
//!   accept ─▶ a place? ─▶ handshake (5 s) ─▶ which key? ─▶ headers ─▶ Host::answer
//!     │          └ no: closed at once     └ garbage: Host::garbage
//!     └ so many at once, so many of one address
//! ```
//! What a request may say and how often is the host's to decide: it knows the protocol. A door without TLS proves nobody. An answer
//! may go on for as long as the host likes; who does not take what is said to it is cut.

mod pace;
mod places;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::{NodeId, origin, peer_node_id};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use pace::Paced;
use places::{Place, Places};

/// Protocol names offered in the handshake.
pub const ALPN: &[&[u8]] = &[b"http/1.1"];
/// A handshake is two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Our requests have under ten headers.
const HEADERS_MAX: usize = 32;
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// The largest answer, 1 MiB, over a line of 300 kbit/s. Who takes longer, or does not read, is cut.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// Time for requests under way when the door is told to close.
const GRACE: Duration = Duration::from_secs(2);
/// After an accept that failed for want of descriptors there is nothing to do but wait for some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many may be inside.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What it is, in logs.
    pub name: &'static str,
    /// Connections altogether.
    pub connections: usize,
    /// Connections of one address; in IPv6 of one /64.
    pub per_address: usize,
    /// How long a connection may be silent between two requests, and its headers take.
    pub idle: Duration,
}

/// Who knocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The key it has proven; `None` is nobody.
    pub node: Option<NodeId>,
    /// Where it came from, if it came over the network.
    pub address: Option<IpAddr>,
}

/// Who answers.
pub trait Host: Clone + Send + Sync + 'static {
    /// What the answers are made of.
    type Body: http_body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;

    /// Answers one request.
    fn answer(&self, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Hears that somebody sent what is no handshake.
    fn garbage(&self, _peer: Peer) {}
}

/// Keeps a door open until `stop` is ready, with TLS (made by `fluidos_identity::server_config` with [`ALPN`]) or, without, for
/// strangers only. Connections that fail are logged and forgotten.
///
/// # Errors
/// If the listener itself is unusable.
pub async fn open(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
    host: impl Host,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(door = limits.name, %address, tls = tls.is_some(), "listening");
    let acceptor = tls.map(TlsAcceptor::from);
    let places = Places::new(limits.connections, limits.per_address);
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            // Dropping it is safe: an accepted connection is only taken out of the queue when it is returned.
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match places.take(origin(from.ip())) {
                    Some(place) => {
                        connections.spawn(enter(acceptor.clone(), stream, from.ip(), limits, host.clone(), place));
                    }
                    None => tracing::debug!(door = limits.name, %from, "refused: too many are open"),
                },
                Err(error) => {
                    tracing::warn!(door = limits.name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Dropping it is safe: a task that ended is only removed when it is returned.
            Some(_) = connections.join_next() => {}
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::debug!(door = limits.name, "closed with connections open");
    }
    Ok(())
}

async fn enter(
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    address: IpAddr,
    limits: Limits,
    host: impl Host,
    _place: Place,
) {
    let nobody = Peer { node: None, address: Some(address) };
    let _ = stream.set_nodelay(true); // slower without, not wrong
    let Some(acceptor) = acceptor else { return converse(stream, nobody, limits, host).await };
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(door = limits.name, %address, %error, "handshake failed");
            return host.garbage(nobody);
        }
        Err(_) => return tracing::debug!(door = limits.name, %address, "handshake took too long"),
    };
    match peer_node_id(stream.get_ref().1.peer_certificates()) {
        Ok(node) => converse(stream, Peer { node, address: Some(address) }, limits, host).await,
        Err(error) => tracing::debug!(door = limits.name, %address, %error, "who knocks is no node"),
    }
}

/// Answers the requests of one peer on a stream, until either side ends it. Who the peer is must have been proven by whatever
/// carries the stream.
pub async fn converse<S>(stream: S, peer: Peer, limits: Limits, host: impl Host)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let host = host.clone();
        async move { Ok::<_, Infallible>(host.answer(request, peer).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Paced::new(stream, TAKEN_WITHIN)), answer);
    if let Err(error) = served.await {
        tracing::debug!(door = limits.name, ?peer, %error, "a connection ended");
    }
}
