//! Health checks of load balancers (`spec.healthCheckNodePort`): each machine says of a Service with `externalTrafficPolicy: Local` whether it
//! has endpoints of it, for what comes to one that has none is lost.
//!
//! ```text
//!  load balancer ── GET / ──▶ machine:healthCheckNodePort   endpoints here: 200, none: 503
//!                                   {"service": {"namespace": …, "name": …}, "localEndpoints": 2, "serviceProxyHealthy": true}
//! ```
//! Any path and method is answered so, as by kube-proxy. What is counted are the pods of this machine that are ready,
//! and it is said over both families where the node has both (over IPv4 alone where
//! `net.ipv6.bindv6only` is set).
//!
//! Limits: pods in the machine's own network count for none, as in [`crate::services`]; that a program of the machine has the port is
//! said in the log and by no Event, and it is tried again until it is free.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http::{Response, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_openapi::api::core::v1::Service;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

use engine_packets::Address;

use crate::here::Here;
use crate::services::{Slices, address, is_ready, slices_of};

/// Connections of all Services together; a load balancer has one or two. Who comes when they are all taken waits.
const CONNECTIONS_MAX: usize = 64;
/// A connection ends by then, asked or not: balancers ask every few seconds, and anybody may connect.
const CONNECTION: Duration = Duration::from_secs(10);
/// A request of a balancer has a line or ten.
const BUFFER_BYTES_MAX: usize = 8 * 1024;
/// After an error of the listener; it is the machine that has no more descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// What this machine says of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    namespace: String,
    name: String,
    local: usize,
}

/// What is to be said at which port; pods of `here` are this machine's.
pub(crate) fn plan<A: Address>(services: &[Arc<Service>], slices: &Slices, here: &Here<A>) -> BTreeMap<u16, Health> {
    let of = |service: &Arc<Service>| {
        let spec = service.spec.as_ref()?;
        let balanced = spec.type_.as_deref() == Some("LoadBalancer");
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        let port = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
        let port = port.filter(|port| *port != 0 && balanced && local)?;
        let endpoints = slices_of(slices, service).iter().flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|endpoint| is_ready(endpoint)).filter_map(address::<A>);
        let local = ready.filter(|address| here.contains(*address)).collect::<BTreeSet<_>>().len();
        let (namespace, name) = (service.metadata.namespace.clone()?, service.metadata.name.clone()?);
        Some((port, Health { namespace, name, local }))
    };
    services.iter().filter_map(of).collect()
}

/// What both families say together: a pod with two addresses is one.
pub(crate) fn join(known: &mut BTreeMap<u16, Health>, more: BTreeMap<u16, Health>) {
    for (port, health) in more {
        let known = known.entry(port).or_insert_with(|| health.clone());
        known.local = known.local.max(health.local);
    }
}

/// All addresses of the machine; those of IPv6, too, if it is to be so and the machine lets one socket have both.
fn everywhere(v6: bool) -> IpAddr {
    let apart = || std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|apart| apart.trim() == "1");
    if v6 && !apart() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

/// The ports at which this machine answers; they are closed when it is dropped.
pub(crate) struct HealthChecks {
    open: BTreeMap<u16, (watch::Sender<Health>, AbortHandle)>,
    tasks: JoinSet<()>,
    room: Arc<Semaphore>,
    /// How long a connection may last.
    patience: Duration,
    v6: bool,
}

impl HealthChecks {
    /// None yet; over both families, or over IPv4 alone.
    pub(crate) fn new(v6: bool) -> Self {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Self { open: BTreeMap::new(), tasks: JoinSet::new(), room, patience: CONNECTION, v6 }
    }

    /// Answers as planned from now on, and nowhere else.
    pub(crate) async fn set(&mut self, wanted: BTreeMap<u16, Health>) {
        self.open.retain(|port, (_, task)| {
            let keep = wanted.contains_key(port);
            if !keep {
                task.abort();
            }
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        for (port, health) in wanted {
            if let Some((said, _)) = self.open.get(&port) {
                said.send_if_modified(|old| std::mem::replace(old, health.clone()) != health);
                continue;
            }
            match TcpListener::bind((everywhere(self.v6), port)).await {
                Ok(listener) => {
                    let (said, health) = watch::channel(health);
                    let task = self.tasks.spawn(serve(listener, health, self.room.clone(), self.patience));
                    self.open.insert(port, (said, task));
                }
                Err(error) => tracing::warn!(
                    "health checks of Service {}/{}: port {port} of this machine, needed free: {error}",
                    health.namespace,
                    health.name
                ),
            }
        }
    }
}

async fn serve(listener: TcpListener, health: watch::Receiver<Health>, room: Arc<Semaphore>, patience: Duration) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // It is never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let health = health.clone();
        connections.spawn(async move {
            let answer = service_fn(move |_| {
                let response = answer(&health.borrow());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).max_buf_size(BUFFER_BYTES_MAX);
            let served = http.serve_connection(TokioIo::new(stream), answer);
            let _ = tokio::time::timeout(patience, served).await; // whoever asks may go when they like
            drop(place);
        });
    }
}

fn answer(health: &Health) -> Response<String> {
    let body = serde_json::json!({
        "service": { "namespace": health.namespace, "name": health.name },
        "localEndpoints": health.local,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(body.to_string());
    *response.status_mut() = match health.local {
        0 => http::StatusCode::SERVICE_UNAVAILABLE,
        _ => http::StatusCode::OK,
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", header::HeaderValue::from(health.local));
    response
}

#[cfg(test)]
mod tests;
