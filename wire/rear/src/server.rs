//! REAR over HTTPS, or on any stream.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use fluidos_door::{Host, Limits, Peer};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use crate::{Body, RearService};

/// Peers keep one connection each; a thousand-node market is asked in turns. Several nodes of one owner can sit behind one address.
const LIMITS: Limits = Limits { name: "REAR", connections: 256, per_address: 32, idle: Duration::from_secs(10) };

/// Nobody there has proven anything: fewer, so that they take nothing from those who have.
const LIMITS_PLAIN: Limits =
    Limits { name: "plain REAR", connections: 64, per_address: 8, idle: Duration::from_secs(10) };

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
#[error("REAR listener: {0}")]
pub struct ServeError(#[from] io::Error);

/// Serves REAR on a listener until `stop` is ready. `tls` is made by `fluidos_identity::server_config` with [`crate::ALPN`].
///
/// # Errors
/// [`ServeError`] if the listener itself is unusable; connections that fail are logged and forgotten.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    service: RearService,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Ok(fluidos_door::open(listener, Some(tls), LIMITS, service, stop).await?)
}

/// Serves REAR without TLS on a listener until `stop` is ready, for official nodes: see [`RearService::plain`].
///
/// # Errors
/// [`ServeError`] if the listener itself is unusable; connections that fail are logged and forgotten.
pub async fn serve_plain(
    listener: TcpListener,
    service: &RearService,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Ok(fluidos_door::open(listener, None, LIMITS_PLAIN, service.plain(), stop).await?)
}

/// Answers the requests of one peer on a stream that it has opened, until either side ends it. Who `peer` is must have been
/// proven by whatever carries the stream.
pub async fn serve_stream<S>(stream: S, peer: Peer, service: RearService)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fluidos_door::converse(stream, peer, LIMITS, service).await;
}

impl Host for RearService {
    type Body = Body;

    async fn answer(&self, mut request: Request<Incoming>, peer: Peer) -> Response<Self::Body> {
        request.extensions_mut().insert(peer);
        self.handle(request).await
    }

    fn garbage(&self, peer: Peer) {
        self.strike(&peer);
    }
}
