//! The catalog over HTTPS. Clients prove a key, or are nobody.

use std::future::Future;
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fluidos_door::{ALPN, Host, Limits, Peer};
use fluidos_identity::{ClientAuth, NodeKey, server_config};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;

use crate::service::{Catalog, SWEEP};

const LIMITS: Limits = Limits {
    name: "catalog",
    // Readers keep one connection each; those of a full tenant do not all read at the same time. About 20 KiB each.
    connections: 2048,
    // Several nodes of one owner can sit behind one address.
    per_address: 64,
    // Longer than a node waits between two looks, so that it need not shake hands again.
    idle: Duration::from_secs(75),
};

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
    let sweeping = catalog.clone();
    let sweep = async move {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            sweeping.sweep();
        }
    };
    tokio::select! {
        served = fluidos_door::open(listener, Some(Arc::new(tls)), LIMITS, catalog, stop) => served,
        () = sweep => Ok(()), // it has no end
    }
}

impl Host for Catalog {
    type Body = Full<Bytes>;

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Self::Body> {
        // Who comes over no network would be of this machine.
        let address = peer.address.unwrap_or(Ipv6Addr::LOCALHOST.into());
        self.handle(request, peer.node, address).await
    }
}
