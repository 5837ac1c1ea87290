//! A node: its parts, composed. Rooms do not know each other; they are introduced here.
//!
//! ```text
//! directory ─ key ─┬─ store ─ API ─ door (TLS)
//!                  ├─ controllers, scheduler
//!                  ├─ network ─ Services, DNS ─ kubelet        unless --no-agent
//!                  └─ managers of §6.4
//! ```

mod accounting;
pub mod address_v6;
pub mod agents;
mod api;
pub mod directory;
pub mod encryption;
mod fabric;
mod kept;
pub mod machine;
mod market;
pub mod notary;
mod parts;
mod peers;
pub mod runtimes;
mod security;
mod window;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use fluidos_identity::{IdentityDirectory, NodeId, NodeKey, Shown, Speakers, fabric_prefix, first_key};
use fluidos_orchestrator::{gate, placement};
use substrate_kubelet::StopPods;
use substrate_network::{Both, Cidr, Ipv6};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use self::api::Api;
use self::parts::Parts;
use self::peers::Doors;
use crate::cli::{OnStop, Up};
use crate::{check, given_back};

/// The Kubernetes version whose API this is.
const VERSION: &str = "v1.34.0";
/// What a stopping node's parts are given before it ends all the same.
const STOP: Duration = Duration::from_secs(10);

/// Where pods and Services of a node have their addresses.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    /// Base and prefix length.
    pub pods: (Ipv4Addr, u8),
    /// Base and prefix length.
    pub services: (Ipv4Addr, u8),
    /// Those of IPv6, if pods and Services have both families.
    pub v6: Option<Ipv6>,
    /// The first address of the /20 that is this node's among peers.
    block: u32,
}

/// Where pods of an agent have their addresses.
#[derive(Clone, Copy, Debug)]
struct AgentRange {
    v4: (Ipv4Addr, u8),
    v6: Option<Cidr<Ipv6Addr>>,
}

impl Ranges {
    /// The /20 of the node's first key: pods in its first half, Services in its last 256 addresses. So both are unique among
    /// peers, and a pod reaches either over the link without translation.
    pub fn of(first: &NodeId) -> Self {
        let base = u32::from(fabric_prefix(first, 0).v4);
        Self { pods: (Ipv4Addr::from(base), 21), services: (Ipv4Addr::from(base + 0xf00), 24), v6: None, block: base }
    }

    /// The same in IPv6, where the node's own is a /64 (RFC 4193): pods in its first /80, Services in the first /112 of its second.
    pub fn of_v6(first: &NodeId) -> Option<Ipv6> {
        let base = fabric_prefix(first, 0).v6.to_bits();
        let range = |from, bits| Cidr::new(Ipv6Addr::from_bits(from), bits);
        Some(Ipv6 { pods: range(base, 80)?, services: range(base + (1 << 48), 112)? })
    }

    /// What is left of the /20 for agents, 256 addresses each; of IPv6 a /80 each beside it, after those of this machine and of Services.
    fn agents(&self) -> Vec<AgentRange> {
        let last = |(base, bits): (Ipv4Addr, u8)| u32::from(base) + (u32::MAX >> bits);
        let free = |third: &u32| {
            let (first, end) = (self.block + (third << 8), self.block + (third << 8) + 255);
            [self.pods, self.services].iter().all(|taken| end < u32::from(taken.0) || last(*taken) < first)
        };
        let v6 = |third: u32| {
            let base = self.v6?.pods.network().to_bits() & (u128::MAX << 64);
            Cidr::new(Ipv6Addr::from_bits(base + (u128::from(third + 2) << 48)), 80)
        };
        let range = |third| AgentRange { v4: (Ipv4Addr::from(self.block + (third << 8)), 24), v6: v6(third) };
        (0..16).filter(free).map(range).collect()
    }

    /// All that machines of this node can have for pods, in both families.
    fn of_machines(&self) -> Both<Vec<Cidr>, Vec<Cidr<Ipv6Addr>>> {
        let agents = self.agents();
        let v4 = std::iter::once(self.pods).chain(agents.iter().map(|range| range.v4));
        let v6 = self.v6.map(|v6| v6.pods).into_iter().chain(agents.iter().filter_map(|range| range.v6));
        Both { v4: v4.filter_map(|(base, bits)| Cidr::new(base, bits)).collect(), v6: v6.collect() }
    }

    /// The Service address of the cluster's DNS: the tenth, as everywhere.
    fn dns(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.0) + 10)
    }

    /// What the owner has said counts more.
    fn given(up: &Up, first: &NodeId) -> Self {
        let own = Self::of(first);
        let masked = |(base, bits): (Ipv4Addr, u8)| (Ipv4Addr::from(u32::from(base) & !(u32::MAX >> bits)), bits);
        let (pods, services) = (up.pod_cidr.map(masked), up.service_cidr.map(masked));
        Self { pods: pods.unwrap_or(own.pods), services: services.unwrap_or(own.services), ..own }
    }
}

/// The first of the keys that a node in this identity directory has had: its addresses and what it has on this machine are named
/// after it, and stay when the key changes.
pub fn first_of(identity: &std::path::Path, key: &NodeKey) -> NodeId {
    first_key(key.id(), &Shown::read(identity, &key.id()).history)
}

/// Runs a node until a signal ends it.
pub fn up(up: &Up) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLUIDOS_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    if !up.no_agent {
        // Before anything is made: what cannot start leaves nothing.
        check::machine::require(&check::machine::look())?;
    }
    directory::prepare(&up.data_dir)?;
    let encryption_config = up.encryption_config.clone();
    directory::migrate(&crate::backup::Place { data_dir: up.data_dir.clone(), encryption_config })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2) // a device has no more to give, and a server's load is in the kernel
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let rooms = parts::rooms().context("cannot start the rooms")?;
    runtime.block_on(run(up, rooms.handle().clone()))
}

async fn run(up: &Up, rooms: Handle) -> Result<()> {
    // Made of their types: a quarter of all instructions of a start, and nobody waits for them yet.
    let definitions = tokio::task::spawn_blocking(fluidos_model::kinds::crds);
    let identity = up.data_dir.join("identity");
    notary::begin(up)?;
    let key = Arc::new(IdentityDirectory::key_to_run(&identity)?);
    let first = first_of(&identity, &key);
    let mut ranges = Ranges::given(up, &first);
    ranges.v6 = match up.no_agent {
        // What the machines can that join is theirs to find out.
        true => Ranges::of_v6(&first),
        false => {
            let own = (ranges.pods, ranges.services);
            machine::dual(&up.data_dir, &first.tag(), own, Ranges::of_v6(&first)).await?
        }
    };
    let mut api = Api::open(up, ranges).await?;
    let doors = Doors::open(up, &key).await?;
    let (links, rear) = (doors.links.clone(), doors.address()?);
    let mut parts = Parts::new(rooms);
    controllers(up, &api, ranges, &mut parts);
    api.define(&definitions.await.context("the kinds of FLUIDOS")?).await?;
    scheduler(up, &api, &mut parts);
    api.server.add_admission(agents::admission(api.access("fluidos-agents").caches.all()));
    api.server.add_admission(Arc::new(gate::Gate::new(api.access("fluidos-gate"))));
    let speakers = Speakers::default();
    let introductions = peers::introduce(up, &key, &api, &links, speakers.clone()).await?;
    parts.spawn_room(introductions.run());
    let decisions = security::open(up, &key, &api, speakers.clone(), &mut parts).await?;
    let admit = security::admit(decisions.clone());
    let mut machine = None;
    let packets;
    if up.no_agent {
        // Without pods of its own it has no images to give and no DNS that twins could ask.
        let fabric =
            fabric::start(up, key.clone(), &api, (links.clone(), speakers.clone()), None, ranges.dns(), admit)?;
        parts.spawn(fabric.run());
        packets = fabric::connect(&key, &api, (links.clone(), speakers.clone()), None, &mut parts);
    } else {
        let started =
            machine::Machine::start(up, (&key, first), &api, ranges, (&links, &speakers), admit, &mut parts).await?;
        packets = started.packets.clone();
        machine = Some(started);
    }
    api.serve(up, &ranges, machine.as_ref().map(|m| m.gateway), &mut parts).await?;
    let location = up.location.clone().unwrap_or_default();
    parts.spawn_room(placement::run(api.access(placement::MANAGER), placement::Options { location }));
    let (window, offers) = tokio::sync::watch::channel(Vec::new());
    let discovery = peers::discover(up, key.clone(), &api, &doors, (speakers.clone(), offers), &mut parts)?;
    let accountant =
        accounting::open((&key, &identity), &api, (&links, &speakers), (packets, machine.as_ref()), &mut parts).await?;
    let (access, selling) = (
        api.access("fluidos-services"),
        fluidos_services::Options { own: key.id(), links: links.clone(), speakers: speakers.clone() },
    );
    parts.spawn_room(async move {
        if let Err(error) = fluidos_services::run(access, selling).await {
            tracing::error!(%error, "services are neither sold nor used");
        }
    });
    let acquire = Some(security::acquire(decisions.clone()));
    let options = market::options(up, &key, rear, security::decide(decisions), speakers);
    let options = fluidos_acquisition::Options { acquire, ..options };
    let notary = notary::open(up, (&key, first), &api, options.clone(), accountant.clone(), &mut parts)?;
    let exporter = market::open(up, &key, &api, (doors.rear, doors.plain), options, (accountant, notary), &mut parts)?;
    parts.spawn_room(window::run(exporter, window));
    if let Some(machine) = &machine {
        machine.ready().await;
    }
    ready(up, &key, &api, (rear, machine.as_ref()))?;
    parts.spawn(given_back::run());
    let stop = wait(up).await?;
    tracing::info!(?stop, "stopping");
    if let Some(machine) = machine {
        let stopping = machine.stop(if stop == OnStop::Keep { StopPods::Keep } else { StopPods::Stop });
        if tokio::time::timeout(STOP, stopping).await.is_err() {
            tracing::warn!("the kubelet did not stop within {STOP:?}");
        }
    }
    discovery.withdraw().await;
    parts.shutdown().await;
    links.stop().await;
    api.server.end_audit().await;
    Ok(())
}

fn controllers(up: &Up, api: &Api, ranges: Ranges, parts: &mut Parts) {
    let client_for = api.client_for();
    let options = substrate_controllers::Options {
        root_certificate: Some(api.authority_pem()),
        signer: Some(api.signer()),
        minter: Some(api.minter()),
        node_ranges: Some(agents::ranges((!up.no_agent).then_some(&up.name), &ranges)),
        caches: Some(api.access("shared-informers").caches),
        ..Default::default()
    };
    parts.spawn(async move { substrate_controllers::run(client_for, options).await });
}

/// It knows what is promised, so it begins when that kind is there.
fn scheduler(up: &Up, api: &Api, parts: &mut Parts) {
    let guarantees = Some(kept::follow(&api.access("kube-scheduler"), parts));
    let options = substrate_scheduler::Options { guarantees, ..up.scheduler_config.clone().unwrap_or_default() };
    parts.spawn(substrate_scheduler::run(api.access("kube-scheduler"), options));
}

/// The one line on standard output: everything serves.
#[allow(clippy::print_stdout)] // it is what scripts wait for
fn ready(up: &Up, key: &NodeKey, api: &Api, (rear, machine): (SocketAddr, Option<&machine::Machine>)) -> Result<()> {
    let runtime = machine.map(|machine| format!(" runtime={}", machine.runtime)).unwrap_or_default();
    println!(
        "ready name={} did={} api=https://{} rear=https://{} kubeconfig={}{runtime}",
        up.name,
        key.id(),
        api.address(),
        rear,
        up.data_dir.join("kubeconfig").display()
    );
    Ok(())
}

/// Waits for the signal that ends the node. SIGTERM is a service manager's: pods run on unless told otherwise. Ctrl-C is
/// a person's: they stop.
async fn wait(up: &Up) -> Result<OnStop> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(up.on_stop),
        result = tokio::signal::ctrl_c() => result.map(|()| OnStop::Stop).context("cannot wait for Ctrl-C"),
    }
}
