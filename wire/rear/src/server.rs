//! REAR over HTTPS: accepts, limits, hands on.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluidos_identity::peer_node_id;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::guard::origin;
use crate::{Peer, RearService};

/// Protocol names offered in the handshake.
pub const ALPN: &[&[u8]] = &[b"http/1.1"];
/// Peers keep one connection each; a thousand-node market is asked in turns.
const CONNECTIONS_MAX: usize = 256;
/// Several nodes of one owner can sit behind one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 32;
/// A handshake is two round trips; headers are one packet.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Our requests have under ten headers.
const HEADERS_MAX: usize = 32;
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Time for requests under way when the server is told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// After an accept that failed for want of descriptors there is nothing to do but wait for some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
#[error("REAR listener: {0}")]
pub struct ServeError(#[from] io::Error);

/// Serves REAR on a listener until `stop` is ready. `tls` is made by `fluidos_identity::server_config`.
///
/// # Errors
/// [`ServeError`] if the listener itself is unusable; connections that fail are logged and forgotten.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    service: RearService,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "REAR listening");
    let acceptor = TlsAcceptor::from(tls);
    let open = Arc::new(Mutex::new(HashMap::new()));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            // Dropping it is safe: an accepted connection is only taken out of the queue when it is returned.
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match Slot::take(&open, origin(from.ip())) {
                    Some(slot) => {
                        connections.spawn(connection(acceptor.clone(), stream, from.ip(), service.clone(), slot));
                    }
                    None => tracing::debug!(%from, "REAR connection refused: too many are open"),
                },
                Err(error) => {
                    tracing::warn!(%error, "REAR connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Dropping it is safe: a task that ended is only removed when it is returned.
            Some(_) = connections.join_next() => {}
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::debug!("REAR stopped with connections open");
    }
    Ok(())
}

type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// A place among the open connections, given back when dropped.
struct Slot {
    open: Open,
    address: IpAddr,
}

impl Slot {
    fn take(open: &Open, address: IpAddr) -> Option<Self> {
        let mut counts = open.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= CONNECTIONS_MAX {
            return None;
        }
        let count = counts.entry(address).or_insert(0);
        if *count >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Self { open: open.clone(), address })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, from: IpAddr, service: RearService, _slot: Slot) {
    let nobody = Peer { node: None, address: Some(from) };
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "REAR handshake failed");
            return service.strike(&nobody);
        }
        Err(_) => return tracing::debug!(%from, "REAR handshake took too long"),
    };
    let node = match peer_node_id(stream.get_ref().1.peer_certificates()) {
        Ok(node) => node,
        Err(error) => return tracing::debug!(%from, %error, "REAR peer is no node"),
    };
    serve_stream(stream, Peer { node, address: Some(from) }, service).await;
}

/// Answers the requests of one peer on a stream that it has opened, until either side ends it. Who `peer` is must have been
/// proven by whatever carries the stream.
pub async fn serve_stream<S>(stream: S, peer: Peer, service: RearService)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let service = service.clone();
        async move { Ok::<_, std::convert::Infallible>(service.handle(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = served.await {
        tracing::debug!(?peer, %error, "REAR connection ended");
    }
}
