//! The fabric: what lets pods of one owner run at another.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use fluidos_fabric::{Admit, Fabric, Options, guests, network};
use fluidos_identity::{NodeKey, fabric_prefix};
use fluidos_link::Links;
use fluidos_model::kinds::{Contract, names};
use k8s_openapi::api::core::v1::Pod;
use substrate_client::Cache;
use substrate_kubelet::Guests;
use substrate_kubelet::images::ImageStore;
use substrate_network::NodeNetwork;
use tokio::task::JoinSet;

use super::api::Api;
use crate::cli::Up;

/// Starts the fabric. `images` is what this node gives to its providers, `dns` where twins of its pods ask for names,
/// `admit` who may run what here.
pub fn start(
    up: &Up,
    key: Arc<NodeKey>,
    api: &Api,
    links: Links,
    images: Option<ImageStore>,
    dns: Ipv4Addr,
    admit: Admit,
) -> Result<Fabric> {
    let options = Options {
        client: api.client("fluidos-fabric"),
        key,
        links,
        node_name: up.name.clone(),
        proxies: api.proxies.clone(),
        images,
        dns_address: dns,
        cluster_domain: "cluster.local".into(),
        prefix_of: Arc::new(|peer| Some(fabric_prefix(peer, 0))),
        admit: Some(admit),
    };
    Fabric::start(options).context("fabric")
}

/// Carries packets between this machine and those of peers under contract, and keeps guests confined. What is returned counts them.
pub fn connect(
    key: &NodeKey,
    api: &Api,
    links: Links,
    network: NodeNetwork,
    parts: &mut JoinSet<()>,
) -> network::Handle {
    let client = api.client("fluidos-network");
    let contracts = Cache::<Contract>::start(kube::Api::namespaced(client.clone(), names::NAMESPACE));
    parts.spawn(guests::confine(client, contracts.clone(), network.clone()));
    let options = network::Options { own: key.id(), contracts, links, network };
    let handle = network::Handle::default();
    let counting = handle.clone();
    parts.spawn(async move {
        if let Err(error) = network::run(options, counting).await {
            // Pods of peers run, and cannot be reached: the node is of use without, and its operator is told.
            tracing::error!(%error, "no packets to or from peers");
        }
    });
    handle
}

/// What the kubelet asks about guests.
pub struct Confirmed(pub Fabric);

impl Guests for Confirmed {
    fn is_guest(&self, pod: &Pod) -> bool {
        guests::is_guest(pod)
    }

    fn may_start(&self, pod: &Pod) -> bool {
        self.0.is_confirmed(pod)
    }
}
