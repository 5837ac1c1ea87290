//! The catalog over HTTPS: accepts, limits, hands on. Clients prove a key, or are nobody.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluidos_identity::{ClientAuth, NodeKey, peer_node_id, server_config};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::guard::origin;
use crate::service::{Catalog, SWEEP};

/// Protocol names offered in the handshake.
pub(crate) const ALPN: &[&[u8]] = &[b"http/1.1"];
/// Readers keep one connection each; those of a full tenant do not all read at the same time. About 20 KiB each.
const CONNECTIONS_MAX: usize = 2048;
/// Several nodes of one owner can sit behind one address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// A handshake is two round trips.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than a node waits between two looks, so that it need not shake hands again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Our requests have under ten headers.
const HEADERS_MAX: usize = 32;
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Time for requests under way when the server is told to stop.
const GRACE: Duration = Duration::from_secs(2);
/// After an accept that failed for want of descriptors there is nothing to do but wait for some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a catalog on a listener until `stop` is ready. Connections that fail are logged and forgotten.
///
/// # Errors
/// If the listener or the key is unusable.
pub async fn serve(
    listener: TcpListener,
    key: &NodeKey,
    catalog: Catalog,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let tls = server_config(key, ClientAuth::Accept, ALPN).map_err(io::Error::other)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let open = Arc::new(Mutex::new(HashMap::new()));
    let (mut connections, mut sweep) = (JoinSet::new(), tokio::time::interval(SWEEP));
    let mut stop = std::pin::pin!(stop);
    loop {
        // Losing the race loses nothing: what is not returned stays in its queue.
        tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match Slot::take(&open, origin(from.ip())) {
                    Some(slot) => {
                        connections.spawn(connection(acceptor.clone(), stream, from.ip(), catalog.clone(), slot));
                    }
                    None => tracing::debug!(%from, "catalog connection refused: too many are open"),
                },
                Err(error) => {
                    tracing::warn!(%error, "catalog connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = sweep.tick() => catalog.sweep(),
            Some(_) = connections.join_next() => {}
        }
    }
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, rest).await.is_err() {
        tracing::debug!("the catalog stopped with connections open");
    }
    Ok(())
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, from: IpAddr, catalog: Catalog, _slot: Slot) {
    let _ = stream.set_nodelay(true); // slower without, not wrong
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%from, %error, "catalog handshake failed"),
        Err(_) => return tracing::debug!(%from, "catalog handshake took too long"),
    };
    let node = match peer_node_id(stream.get_ref().1.peer_certificates()) {
        Ok(node) => node,
        Err(error) => return tracing::debug!(%from, %error, "catalog client is no node"),
    };
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let catalog = catalog.clone();
        async move { Ok::<_, std::convert::Infallible>(catalog.handle(request, node, from).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = served.await {
        tracing::debug!(%from, %error, "catalog connection ended");
    }
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
