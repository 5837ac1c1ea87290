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
use substrate_network::{
    Cidr, DnsOptions, DnsServer, Ipv6, MachineRoutes, NodeNetwork, PolicyAgent, ServiceCaches, ServiceProxy,
};

use super::api::Api;
use super::fabric;
use super::parts::Parts;
use super::runtimes;
use super::{Ranges, address_v6};
use crate::cli::Up;
use crate::join::Membership;

/// The machine that this process runs on.
pub struct Machine {
    /// Its address for pods.
    pub gateway: Ipv4Addr,
    /// Counts packets.
    pub packets: fluidos_fabric::network::Handle,
    /// What runs pods that name no handler.
    pub runtime: String,
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
        let own = options(&up.data_dir, &instance, (ranges.pods, ranges.services), ranges.v6)?;
        let network = open_network(substrate_network::Options { cni: up.pods.cni()?, ..own })
            .await
            .context("the pods' network cannot be set up; it needs root (or: --no-agent runs no pods here)")?;
        let copies = api.access("kube-proxy").caches;
        let caches = ServiceCaches::start(&copies);
        let dns = DnsServer::bind(DnsOptions::for_network(&network)).await.context("cluster DNS")?;
        parts.spawn(dns.run(caches.clone()));
        parts.spawn(ServiceProxy::run(caches, network.clone()));
        parts.spawn(MachineRoutes::run(copies.all(), up.name.clone(), ranges.of_machines(), network.clone()));
        parts.spawn(PolicyAgent::run(copies, network.clone()));
        let gateway = network.gateway();
        let dns_address = network.dns_address();
        let images = ImageStore::open(up.data_dir.join("kubelet/images"))?;
        let dns = dns_address.unwrap_or(gateway);
        let peers = fabric::start(up, key.clone(), api, (links.clone(), speakers.clone()), Some(images), dns, admit)?;
        let packets = fabric::connect(key, api, (links.clone(), speakers.clone()), Some(network.clone()), parts);
        let chosen = runtimes::choose(&up.pods, &up.data_dir.join("kubelet")).await?;
        let kubelet = Kubelet::start(substrate_kubelet::Options {
            node_name: up.name.clone(),
            node_address: address().unwrap_or(gateway),
            node_address_v6: ranges.v6.and_then(|_| address_v6::find()),
            data_dir: up.data_dir.join("kubelet"),
            client: api.client(&format!("kubelet-{}", up.name)),
            network: Some(Arc::new(network)),
            cluster_dns: dns_address,
            cluster_domain: "cluster.local".into(),
            node_labels: BTreeMap::new(),
            supervisor: supervisor()?,
            runners: runners(),
            // A peer's image comes from the peer; a registry may have the rest.
            image_sources: vec![peers.image_source(), Arc::new(Registry::new(up.pods.registry_config.clone()))],
            instance,
            reserve: up.pods.reserve,
            guests: Some(Arc::new(fabric::Confirmed(peers.clone()))),
            static_pods: up.pods.static_pods.clone(),
            eviction: up.pods.eviction(),
            container_runtime: chosen.container_runtime,
            default_runtime: Some(chosen.handler.clone()),
        })
        .await
        .context("kubelet")?;
        let volumes = up.data_dir.join("volumes");
        parts.spawn(substrate_kubelet::local_path::run(api.access("local-path-provisioner"), up.name.clone(), volumes));
        api.proxies.register(&up.name, Arc::new(kubelet.clone()));
        parts.spawn(peers.run());
        Ok(Self { gateway, packets, kubelet, runtime: chosen.handler })
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

/// The network of pods in `directory`; the ranges are those of pods and Services.
pub fn options(
    directory: &Path,
    instance: &str,
    (pods, services): ((Ipv4Addr, u8), (Ipv4Addr, u8)),
    ipv6: Option<Ipv6>,
) -> Result<substrate_network::Options> {
    let cidr = |(base, bits): (Ipv4Addr, u8)| Cidr::new(base, bits).ok_or_else(|| anyhow!("{base}/{bits} is no range"));
    Ok(substrate_network::Options {
        instance: instance.to_owned(),
        data_dir: directory.join("network"),
        pod_cidr: cidr(pods)?,
        service_cidr: cidr(services)?,
        cni: None,
        ipv6,
    })
}

/// The network, made or found.
pub async fn open_network(options: substrate_network::Options) -> Result<NodeNetwork> {
    Ok(NodeNetwork::open(options).await?)
}

/// The ranges of IPv6 that the machine in `directory` has, if it has both families: those that it is to have, unless it cannot or began without.
pub async fn dual(
    directory: &Path,
    instance: &str,
    ranges: ((Ipv4Addr, u8), (Ipv4Addr, u8)),
    wanted: Option<Ipv6>,
) -> Result<Option<Ipv6>> {
    match wanted {
        Some(wanted) => Ok(NodeNetwork::dual(&options(directory, instance, ranges, None)?, wanted).await?),
        None => Ok(None),
    }
}

/// Takes the pods and the network of the node or agent in `directory` off the machine; how many pods there were. Neither runs in it.
pub async fn leave(directory: &Path) -> Result<usize> {
    let (instance, ranges, wanted) = match Membership::find(directory)? {
        Some(member) => (member.instance(), (member.pods()?, member.services()?), member.ipv6()),
        None => {
            let identity = directory.join("identity");
            let first = super::first_of(&identity, &NodeKey::load_or_create(&identity)?);
            let ranges = Ranges::of(&first);
            (first.tag(), (ranges.pods, ranges.services), Ranges::of_v6(&first))
        }
    };
    let v6 = dual(directory, &instance, ranges, wanted).await?;
    let kubelet = directory.join("kubelet");
    let count = |place: &str| std::fs::read_dir(kubelet.join(place)).into_iter().flatten().count();
    let pods = count("run") + count("cri/pods");
    Kubelet::purge(&kubelet, &instance).await.context("end its pods")?;
    if directory.join("network").exists() {
        // Opening finds what there is; only what is found can be taken away.
        let network = open_network(options(directory, &instance, ranges, v6)?).await;
        let network = network.context("find its network; it needs root")?;
        network.destroy().await.context("remove its network")?;
    }
    Ok(pods)
}

/// How a pod's supervisor is started: this program again. By its file, so that replacing the binary does not matter to
/// what already runs.
pub fn supervisor() -> Result<Vec<OsString>> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    Ok(vec![program.into_os_string(), crate::SUPERVISOR.into()])
}

/// The handlers of this program beside `oci`, and the words that begin it as what runs their containers.
pub fn runners() -> Vec<(String, Vec<String>)> {
    let all = [
        #[cfg(feature = "wasm")]
        ("wasm", crate::WASM_RUNNER),
    ];
    all.map(|(handler, word): (&str, &str)| (handler.to_owned(), vec![word.to_owned()])).into()
}

/// What a container runtime's pods get their network from: this program once more.
pub fn network_plugin() -> Result<engine_cri::network::Plugin> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let command = vec![program.into_os_string(), crate::NETWORK_PLUGIN.into()];
    Ok(engine_cri::network::Plugin { name: "fluidos".to_owned(), command })
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
