//! This machine as part of the node: the network of its pods, and the kubelet.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use engine_images::{ImageStore, Registry};
use fluidos_fabric::Admit;
use fluidos_identity::{NodeId, NodeKey, Speakers};
use fluidos_link::Links;
use substrate_kubelet::{Handle, Kubelet, StopPods};
use substrate_network::{Cidr, DnsOptions, DnsServer, NodeNetwork, PolicyAgent, ServiceCaches, ServiceProxy};

use super::Ranges;
use super::api::Api;
use super::fabric;
use super::parts::Parts;
use crate::cli::Up;

/// The machine that this process runs on.
pub struct Machine {
    /// Its address for pods.
    pub gateway: Ipv4Addr,
    /// Counts packets.
    pub packets: fluidos_fabric::network::Handle,
    kubelet: Handle,
}

impl Machine {
    /// Takes the machine into use.
    pub async fn start(
        up: &Up,
        (key, first): (&Arc<NodeKey>, NodeId),
        api: &Api,
        ranges: Ranges,
        (links, speakers): (&Links, &Speakers),
        admit: Admit,
        parts: &mut Parts,
    ) -> Result<Self> {
        let instance = first.tag();
        let cidr =
            |(base, bits): (Ipv4Addr, u8)| Cidr::new(base, bits).ok_or_else(|| anyhow!("{base}/{bits} is no range"));
        let network = NodeNetwork::open(substrate_network::Options {
            instance: instance.clone(),
            data_dir: up.data_dir.join("network"),
            pod_cidr: cidr(ranges.pods)?,
            service_cidr: cidr(ranges.services)?,
        })
        .await
        .context("the pods' network cannot be set up; it needs root (or: --no-agent runs no pods here)")?;
        let copies = api.access("kube-proxy").caches;
        let caches = ServiceCaches::start(&copies);
        let dns = DnsServer::bind(DnsOptions::for_network(&network)).await.context("cluster DNS")?;
        parts.spawn(dns.run(caches.clone()));
        parts.spawn(ServiceProxy::run(caches, network.clone()));
        parts.spawn(PolicyAgent::run(copies, network.clone()));
        let gateway = network.gateway();
        let dns_address = network.dns_address();
        let images = ImageStore::open(up.data_dir.join("kubelet/images"))?;
        let dns = dns_address.unwrap_or(gateway);
        let peers = fabric::start(up, key.clone(), api, (links.clone(), speakers.clone()), Some(images), dns, admit)?;
        let packets = fabric::connect(key, api, (links.clone(), speakers.clone()), Some(network.clone()), parts);
        let kubelet = Kubelet::start(substrate_kubelet::Options {
            node_name: up.name.clone(),
            node_address: address().unwrap_or(gateway),
            data_dir: up.data_dir.join("kubelet"),
            client: api.client(&format!("kubelet-{}", up.name)),
            network: Some(Arc::new(network)),
            cluster_dns: dns_address,
            cluster_domain: "cluster.local".into(),
            node_labels: BTreeMap::new(),
            supervisor: supervisor()?,
            // A peer's image comes from the peer; a registry may have the rest.
            image_sources: vec![peers.image_source(), Arc::new(Registry)],
            instance,
            reserve: Default::default(),
            guests: Some(Arc::new(fabric::Confirmed(peers.clone()))),
        })
        .await
        .context("kubelet")?;
        let volumes = up.data_dir.join("volumes");
        parts.spawn(substrate_kubelet::local_path::run(api.access("local-path-provisioner"), up.name.clone(), volumes));
        api.proxies.register(&up.name, Arc::new(kubelet.clone()));
        parts.spawn(peers.run());
        Ok(Self { gateway, packets, kubelet })
    }

    /// What tells the usage of its pods.
    pub fn kubelet(&self) -> Handle {
        self.kubelet.clone()
    }

    /// Waits until what an earlier run left has been looked after.
    pub async fn ready(&self) {
        self.kubelet.recovered().await;
    }

    /// Leaves the machine, with or without its pods.
    pub async fn stop(self, pods: StopPods) {
        self.kubelet.stop(pods).await;
    }
}

async fn open_network(directory: &Path, instance: &str, ranges: Ranges) -> Result<NodeNetwork> {
    let cidr = |(base, bits): (Ipv4Addr, u8)| Cidr::new(base, bits).ok_or_else(|| anyhow!("{base}/{bits} is no range"));
    let options = substrate_network::Options {
        instance: instance.to_owned(),
        data_dir: directory.join("network"),
        pod_cidr: cidr(ranges.pods)?,
        service_cidr: cidr(ranges.services)?,
    };
    Ok(NodeNetwork::open(options).await?)
}

/// Takes the pods and the network of the node in `directory` off the machine; how many pods there were. No node runs in it.
pub async fn leave(directory: &Path) -> Result<usize> {
    let identity = directory.join("identity");
    let first = super::first_of(&identity, &NodeKey::load_or_create(&identity)?);
    let instance = first.tag();
    let kubelet = directory.join("kubelet");
    let pods = std::fs::read_dir(kubelet.join("run")).into_iter().flatten().count();
    Kubelet::purge(&kubelet, &instance).await.context("end its pods")?;
    if directory.join("network").exists() {
        // Opening finds what there is; only what is found can be taken away.
        let network =
            open_network(directory, &instance, Ranges::of(&first)).await.context("find its network; it needs root")?;
        network.destroy().await.context("remove its network")?;
    }
    Ok(pods)
}

/// How a pod's supervisor is started: this program again. By its file, so that replacing the binary does not matter to
/// what already runs.
fn supervisor() -> Result<Vec<OsString>> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(vec![program.into_os_string(), crate::SUPERVISOR.into()])
}

/// The address by which others reach this machine: the one that the way to anywhere begins with. Nothing is sent.
pub fn address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?; // TEST-NET-1 (RFC 5737)
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() => Some(address),
        _ => None,
    }
}
