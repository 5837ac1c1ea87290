//! `fluidos join STRING`: makes this machine an *agent* of a node: it runs pods for it, and has no API of its own.
//!
//! ```text
//! STRING ─▶ key, certificate ─▶ Node ─▶ range of pods ─▶ network ─ Services, DNS, policies, routes ─ kubelet ─▶ ready
//! DIR/agent/  client.pem (0600)  ca.crt  agent.json      the tunnel by which the API looks inside; a new certificate in time
//! ```
//!
//! Without a string it goes on with what is in DIR, also while the server is away.

mod enroll;
mod member;
mod renew;
mod tunnel;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use engine_images::{ImageStore, Registry};
use fluidos_model::kinds::names;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use substrate_client::{Access, Cache, Caches};
use substrate_kubelet::{Guests, Handle, Kubelet, StopPods};
use substrate_network::{DnsOptions, DnsServer, MachineRoutes, NodeNetwork, PolicyAgent, ServiceCaches, ServiceProxy};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

pub use self::member::{Membership, lock};
use crate::cli::OnStop;
use crate::cli::pods::Pods;
use crate::invite::Invitation;
use crate::node::{address_v6, directory, machine, runtimes};
use crate::{check, given_back};

/// What a stopping kubelet is given before the agent ends all the same.
const STOP: Duration = Duration::from_secs(10);

/// What an agent is told when it starts.
#[derive(clap::Args, Clone, Debug)]
pub struct Join {
    /// The invitation; - reads it from standard input, where no list of processes shows it. Without it the machine goes on as what it has joined.
    #[arg(env = "FLUIDOS_INVITATION", hide_env_values = true, value_name = "STRING")]
    invitation: Option<String>,
    /// Where the agent keeps its key, images and pods. The same directory is the same machine.
    #[arg(long, env = "FLUIDOS_DATA_DIR", value_name = "DIR", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
    /// The name of its Node. Default: the host's.
    #[arg(long, env = "FLUIDOS_NAME", value_parser = crate::cli::up::name)]
    name: Option<String>,
    /// What happens to running containers when the agent is told to stop with SIGTERM.
    #[arg(long, env = "FLUIDOS_ON_STOP", value_enum, default_value_t = OnStop::Keep)]
    on_stop: OnStop,
    #[command(flatten)]
    pods: Pods,
}

/// Runs an agent until a signal ends it.
pub fn run(join: &Join) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLUIDOS_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    let shown = join.data_dir.display();
    let invitation = match join.invitation.as_deref() {
        Some("-") => Some(std::io::read_to_string(std::io::stdin().lock()).context("read the invitation")?),
        given => given.map(str::to_owned),
    };
    let invitation = invitation.map(|text| text.parse::<Invitation>()).transpose()?;
    check::machine::require(&check::machine::look())?;
    directory::prepare(&join.data_dir)?;
    if join.data_dir.join("store").exists() {
        bail!("--data-dir {shown}: a node has run there (fluidos up); an agent needs a directory of its own");
    }
    let _lock = lock(&join.data_dir)?;
    let member = Membership::find(&join.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let member = match (member, invitation) {
            (Some(member), None) => member,
            (None, Some(invitation)) => enroll::join(&join.data_dir, &invitation, name(join)?).await?,
            (Some(member), Some(_)) => bail!(
                "--data-dir {shown}: this machine has joined {} as {} already: without a string it goes on; to join another node, or anew: \
                 fluidos reset --data-dir {shown}",
                member.server,
                member.name
            ),
            (None, None) => bail!(
                "--data-dir {shown}: this machine has not joined yet: give it the string that `fluidos invite --agent` prints on the node's machine"
            ),
        };
        if let Some(other) = join.name.as_ref().filter(|name| **name != member.name) {
            bail!("--name {other}: in {shown} this machine is {}, and stays so until it is reset", member.name);
        }
        Agent::run(join, member).await
    })
}

fn name(join: &Join) -> Result<String> {
    match &join.name {
        Some(name) => Ok(name.clone()),
        None => {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            crate::cli::up::name(&host.trim().to_lowercase())
                .context("the host's name cannot be a node's; give one: --name")
        }
    }
}

/// An agent at work.
struct Agent {
    kubelet: Handle,
    /// What runs pods that name no handler.
    runtime: String,
    tasks: JoinSet<()>,
}

impl Agent {
    async fn run(join: &Join, member: Membership) -> Result<()> {
        let (directory, name, server) = (&join.data_dir, member.name.clone(), member.server.clone());
        let current = member.client(directory)?;
        let client = current.client();
        let member = member.refresh(directory, &client).await;
        let mut agent = Self::start(directory, &member, &client, &join.pods).await?;
        let own = Cache::<Node>::start_with(Api::all(client), watch_only(&name));
        let proxy = Arc::new(agent.kubelet.clone());
        agent.tasks.spawn(tunnel::keep(current.clone(), proxy));
        agent.tasks.spawn(renew::keep(directory.clone(), current, member.clone()));
        let mut terminate = signal(SignalKind::terminate())?;
        let ready = async {
            agent.kubelet.recovered().await;
            say_ready(&name, &server, (&member.pod_cidr, &agent.runtime));
            given_back::run().await;
        };
        let ended = tokio::select! {
            () = ready => Ok(OnStop::Keep),
            replaced = replaced(&own, &member) => Err(replaced),
            _ = terminate.recv() => Ok(join.on_stop),
            result = tokio::signal::ctrl_c() => result.map(|()| OnStop::Stop).context("cannot wait for Ctrl-C"),
        };
        let pods = if matches!(ended, Ok(OnStop::Stop)) { StopPods::Stop } else { StopPods::Keep };
        tracing::info!(?ended, "stopping");
        if tokio::time::timeout(STOP, agent.kubelet.stop(pods)).await.is_err() {
            tracing::warn!("the kubelet did not stop within {STOP:?}");
        }
        agent.tasks.shutdown().await;
        ended.map(drop)
    }

    /// The parts of a machine, over a client that is elsewhere.
    async fn start(
        directory: &std::path::Path,
        member: &Membership,
        client: &kube::Client,
        pods: &Pods,
    ) -> Result<Self> {
        let (instance, name) = (member.instance(), member.name.clone());
        let ranges = (member.pods()?, member.services()?);
        let ipv6 = machine::dual(directory, &instance, ranges, member.ipv6()).await?;
        let options =
            substrate_network::Options { cni: pods.cni()?, ..machine::options(directory, &instance, ranges, ipv6)? };
        let opened = machine::open_network(options).await;
        let network = opened.context("the pods' network cannot be set up; it needs root")?;
        let mut tasks = JoinSet::new();
        let copies = Caches::new(client.clone());
        let caches = ServiceCaches::start(&copies);
        let dns = DnsServer::bind(DnsOptions::for_network(&network)).await.context("cluster DNS")?;
        tasks.spawn(dns.run(caches.clone()));
        tasks.spawn(ServiceProxy::run(caches, network.clone()));
        tasks.spawn(PolicyAgent::run(copies.clone(), network.clone()));
        tasks.spawn(MachineRoutes::run(copies.all(), name.clone(), member.of_machines(), network.clone()));
        let volumes = Access { client: client.clone(), caches: copies };
        tasks.spawn(substrate_kubelet::local_path::run(volumes, name, directory.join("volumes")));
        let (kubelet, runtime) = kubelet(directory, member, client, (network, pods)).await?;
        Ok(Self { kubelet, runtime, tasks })
    }
}

async fn kubelet(
    directory: &std::path::Path,
    member: &Membership,
    client: &kube::Client,
    (network, pods): (NodeNetwork, &Pods),
) -> Result<(Handle, String)> {
    ImageStore::open(directory.join("kubelet/images"))?;
    let chosen = runtimes::choose(pods, &directory.join("kubelet")).await?;
    let (gateway, cluster_dns) = (network.gateway(), network.dns_address());
    let options = substrate_kubelet::Options {
        node_name: member.name.clone(),
        node_address: address_towards(&member.server).or_else(machine::address).unwrap_or(gateway),
        node_address_v6: network.options().ipv6.and_then(|_| address_v6::find()),
        data_dir: directory.join("kubelet"),
        client: client.clone(),
        network: Some(Arc::new(network)),
        cluster_dns,
        cluster_domain: "cluster.local".into(),
        node_labels: BTreeMap::from([(names::AGENT.to_owned(), "true".to_owned())]),
        supervisor: machine::supervisor()?,
        runners: machine::runners(),
        image_sources: vec![Arc::new(Registry::new(pods.registry_config.clone()))],
        instance: member.instance(),
        reserve: pods.reserve,
        guests: Some(Arc::new(NoGuests)),
        static_pods: pods.static_pods.clone(),
        eviction: pods.eviction(),
        container_runtime: chosen.container_runtime,
        default_runtime: Some(chosen.handler.clone()),
    };
    Ok((Kubelet::start(options).await.context("kubelet")?, chosen.handler))
}

/// An agent cannot confine the pods of others, so it starts none.
struct NoGuests;

impl Guests for NoGuests {
    fn is_guest(&self, pod: &Pod) -> bool {
        fluidos_fabric::guests::is_guest(pod)
    }

    fn owner(&self, pod: &Pod) -> Option<String> {
        // It brings nothing, and of the machine's own images it gets what is for everybody.
        fluidos_fabric::guests::is_guest(pod).then(|| "guest".to_owned())
    }

    fn may_start(&self, _: &Pod) -> bool {
        false
    }
}

fn watch_only(name: &str) -> kube::runtime::watcher::Config {
    kube::runtime::watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Returns when the Node is another one than that of this machine, and so what its pods' addresses are.
async fn replaced(own: &Cache<Node>, member: &Membership) -> anyhow::Error {
    let mut changes = own.changes();
    loop {
        changes.mark_unchanged();
        let node = own.get("", &member.name);
        if let Some(other) = node.filter(|node| node.metadata.uid.as_deref() != Some(&member.node_uid)) {
            let uid = other.metadata.uid.as_deref().unwrap_or_default();
            return anyhow!(
                "the Node {} was deleted ({} is another one, not {}): this machine does not belong to it any more; to join anew: fluidos reset, \
                 kubectl delete node {}, and a new invitation",
                member.name,
                uid,
                member.node_uid,
                member.name
            );
        }
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// This machine's address on the way to the server; `None` if that is this machine.
fn address_towards(server: &str) -> Option<Ipv4Addr> {
    let url: http::Uri = server.parse().ok()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((url.host()?, url.port_u16().unwrap_or(443))).ok()?; // nothing is sent
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_unspecified() && !address.is_loopback() => Some(address),
        _ => None,
    }
}

/// The one line on standard output: it is what scripts wait for.
#[allow(clippy::print_stdout)] // it is what scripts wait for
fn say_ready(name: &str, server: &str, (pods, runtime): (&str, &str)) {
    println!("ready name={name} server={server} pods={pods} runtime={runtime}");
}
