//! Buying and selling: what is offered, the REAR door, and the managers behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use fluidos_acquisition::exporter::{Decide, Exporter};
use fluidos_acquisition::{Options, buffers, contract_manager, importer, subscriber};
use fluidos_identity::{ClientAuth, NodeKey, Speakers, server_config};
use fluidos_model::kinds::{AdditionalInformation, NodeIdentity};
use fluidos_notary::Notary;
use fluidos_rear::{ALPN, Accountant, RearService};
use tokio::net::TcpListener;

use super::api::Api;
use super::machine;
use super::parts::Parts;
use crate::cli::Up;

/// What the Resource Acquisition Manager is told. `decide` is asked before anything is sold.
pub fn options(up: &Up, key: &NodeKey, rear: SocketAddr, decide: Decide, speakers: Speakers) -> Options {
    let identity = identity(up, key, rear);
    Options { decide: Some(decide), speakers, ..Options::new(key.clone(), identity, up.offer.clone()) }
}

/// Starts the managers of resources and acquisition, and serves REAR; at `plain`, if it is open, for official nodes. The accountant is
/// asked for receipts; while the notary knows that something is lost, nothing is sold.
pub fn open(
    up: &Up,
    key: &NodeKey,
    api: &Api,
    (rear, plain): (TcpListener, Option<TcpListener>),
    options: Options,
    (accountant, notary): (Arc<dyn Accountant>, Arc<Notary>),
    parts: &mut Parts,
) -> Result<Arc<Exporter>> {
    let identity = options.identity.clone();
    let closing = notary.clone();
    let options = Options { closed: Some(Arc::new(move || closing.closed())), ..options };
    parts.spawn_room(fluidos_resources::run(
        api.access("fluidos-resources"),
        fluidos_resources::Options {
            node: key.id(),
            identity,
            offer: up.offer.clone(),
            location: up.location.clone().unwrap_or_default(),
            architecture: architecture().into(),
            speakers: options.speakers.clone(),
        },
    ));
    let exporter = Arc::new(Exporter::new(api.access("fluidos-exporter"), options.clone()));
    parts.spawn_room(exporter.clone().run());
    parts.spawn_room(importer::run(api.access("fluidos-importer"), options.clone()));
    parts.spawn_room(subscriber::run(api.access("fluidos-subscriber"), options.clone()));
    parts.spawn_room(contract_manager::run(api.access("fluidos-contract-manager"), options));
    parts.spawn_room(buffers::run(api.access("fluidos-buffers")));
    let tls = Arc::new(server_config(key, ClientAuth::Accept, ALPN).context("REAR")?);
    let service = RearService::of(exporter.clone(), Some(accountant), Some(notary));
    if let Some(listener) = plain {
        let service = service.clone();
        parts.spawn(async move {
            let served = fluidos_rear::serve_plain(listener, &service, std::future::pending()).await;
            if let Err(error) = served {
                tracing::error!(%error, "REAR is not served to official nodes any more");
            }
        });
    }
    parts.spawn(async move {
        let served = fluidos_rear::serve(rear, tls, service, std::future::pending()).await;
        if let Err(error) = served {
            tracing::error!(%error, "REAR is not served any more");
        }
    });
    Ok(exporter)
}

/// Who this node says it is, and where it answers.
fn identity(up: &Up, key: &NodeKey, rear: SocketAddr) -> NodeIdentity {
    let did = key.id().to_string();
    let ip = if rear.ip().is_unspecified() { machine::address().map_or(rear.ip(), IpAddr::V4) } else { rear.ip() };
    NodeIdentity {
        domain: up.domain.clone(),
        node_id: did.rsplit(':').next().unwrap_or_default().to_owned(),
        ip: SocketAddr::new(ip, rear.port()).to_string(),
        additional_information: Some(AdditionalInformation {
            did: Some(did),
            name: Some(up.name.clone()),
            ..Default::default()
        }),
    }
}

/// The machine's architecture as Kubernetes spells it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
