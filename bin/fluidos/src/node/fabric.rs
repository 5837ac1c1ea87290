//! The fabric: what lets pods of one owner run at another.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result};
use engine_images::ImageStore;
use fluidos_fabric::{Admit, Fabric, Options, PrefixOf, guests, network};
use fluidos_identity::{NodeKey, Speakers, fabric_prefix};
use fluidos_link::Links;
use fluidos_model::kinds::{Contract, names};
use k8s_openapi::api::core::v1::Pod;
use substrate_client::{Access, Cache};
use substrate_kubelet::Guests;
use substrate_network::NodeNetwork;

use super::api::Api;
use super::parts::Parts;
use crate::cli::Up;

/// Starts the fabric. `images` is what this node gives to its providers, `dns` where twins of its pods ask for names,
/// `admit` who may run what here.
pub fn start(
    up: &Up,
    key: Arc<NodeKey>,
    api: &Api,
    (links, speakers): (Links, Speakers),
    images: Option<ImageStore>,
    dns: Ipv4Addr,
    admit: Admit,
) -> Result<Fabric> {
    let options = Options {
        client: api.client("fluidos-fabric"),
        caches: api.access("fluidos-fabric").caches,
        key,
        links,
        node_name: up.name.clone(),
        proxies: api.proxies.clone(),
        images,
        dns_address: dns,
        cluster_domain: "cluster.local".into(),
        prefix_of: prefix_of(&speakers),
        speakers,
        admit: Some(admit),
    };
    Fabric::start(options).context("fabric")
}

/// Where the pods of a peer are: its addresses follow from its first key.
fn prefix_of(speakers: &Speakers) -> PrefixOf {
    let speakers = speakers.clone();
    Arc::new(move |peer| Some(fabric_prefix(&speakers.first(peer), 0)))
}

/// Carries packets between this machine and those of peers under contract, and between those that this node sells on, and keeps guests
/// confined. Without a network of its own it has no guests. What is returned counts packets.
pub fn connect(
    key: &NodeKey,
    api: &Api,
    (links, speakers): (Links, Speakers),
    network: Option<NodeNetwork>,
    parts: &mut Parts,
) -> network::Handle {
    let Access { client, caches } = api.access("fluidos-network");
    let contracts = caches.namespaced::<Contract>(names::NAMESPACE);
    let labelled = kube::runtime::watcher::Config::default().labels(names::LABEL_CONTRACT);
    let twins = Cache::<Pod>::start_with(kube::Api::all(client.clone()), labelled);
    let services = network::Services::start(&client);
    if let Some(network) = network.clone() {
        parts.spawn(guests::confine(client, contracts.clone(), network, speakers.clone()));
    }
    let options = network::Options { own: key.id(), contracts, twins, services, links, network, speakers };
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

    fn owner(&self, pod: &Pod) -> Option<String> {
        guests::brings_images(pod)
    }

    fn may_start(&self, pod: &Pod) -> bool {
        self.0.is_confirmed(pod)
    }
}
