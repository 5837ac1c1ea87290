//! Network Manager of the fabric (§6.4.4): pods and Services of nodes under contract reach each other.
//!
//! A **fabric route** leads to the prefix of one peer: the /20 that follows from its first key, in which its pods and its Services
//! have their addresses. There is one while a contract with the peer is live, whoever of the two buys.
//!
//! ```text
//!  pod ── cable ── kernel: kube/network's rules ── flt<instance> (TUN, MTU 1280)
//!                                                        │ ▲
//!                           destination ─▶ peer's prefix │ │ source in the prefix of the peer that sent it,
//!                                      (table.rs)        ▼ │ destination a pod or Service of this node (table.rs)
//!                                             datagrams of the link, encrypted, channel 1
//!
//!  Contracts ─▶ plan(View) ─┬─▶ table: who sends and gets what
//!                           └─▶ NodeNetwork::set_routes: what the kernel leads here, and what may be reached from there
//! ```
//! *Resold* (`resale`): a pod of A's that R has P run. A and P have no contract, and each sends to R what is for the other. R changes one
//! address, that of the pod, and keeps no state; A's addresses are what they are, so the pod finds A's Services and names as anywhere.
//! ```text
//!  A                              R                                    P
//!  a ──▶ s, R's stand-in ──▶ table: s is A's ──▶ a ──▶ p ──▶ table: p's home is A's prefix, and R its consumer ──▶ pod
//!  a ◀── s ◀──────────────── table: p of P is s ◀── a ◀── p ◀── table: from p to its home goes to R, whoever else is there
//! ```
//! A service that is sold on goes the same way (`services`). A node without pods (`--no-agent`) carries all the same: this needs no device.
//! P lets p reach its home and nothing of R's, and takes packets of that home from R for p alone. R lets nothing of p's in but to A.
//!
//! *Service of A, called at B, served at C*: B's packet comes to A, whose rules translate the Service address to C's pod and
//! the source to A's gateway, because C knows A and not B. The reply comes back to A, which translates it for B.
//!
//! *Sizes*: every path takes 1,280 bytes, so pods may themselves speak QUIC (1,200 bytes and headers) and, later, IPv6. The
//! kernel tells larger senders so (ICMP, fragmentation needed) and cuts what may be cut. A datagram of the link carries that
//! once QUIC has measured the path: 1,413 bytes on Ethernet, but only 1,161 in its first round trips, at its minimum of 1,200.
//! A packet that does not fit goes in two parts (`packet.rs`). *Hops*: the kernels on both sides count them down, so nothing
//! goes round for ever; so do relays (`relay.rs`).
//!
//! *Speed*: the kernel hands over and takes up to 64 KiB of a TCP stream at a time (segmentation offload); no task and no
//! allocation per packet; what the link cannot send is dropped, as by any router.
//!
//! Watches Contracts and twins; writes nothing into the API. Must run in the network namespace in which the [`NodeNetwork`] was opened.
//!
//! Limits: IPv4; a clash of two prefixes (about one in 1,024 for a pair) is refused and reported, the second attempt of a key
//! is not negotiated yet; pod ranges outside the fabric prefix are refused, they need translation.

mod counters;
mod device;
mod packet;
mod plan;
mod pump;
mod relay;
mod services;
mod table;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use fluidos_identity::{FabricPrefix, NodeId, Speakers, fabric_prefix};
use fluidos_link::{LinkError, Links};
use fluidos_model::kinds::Contract;
#[cfg(doc)]
use fluidos_model::kinds::names;
use futures::future::select_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use substrate_client::{Cache, Pace};
use substrate_network::{Cidr, FabricRoute, NodeNetwork};

pub use self::counters::{Counters, Dropped, PeerBytes};
pub use self::device::MTU;
pub use self::plan::{Peer, Refused};
pub use self::services::Services;

use self::counters::Counting;
use self::device::Device;
use self::plan::{Own, View};
use self::table::Table;

/// Channel of the link's datagrams that carries packets.
pub const CHANNEL: u8 = 1;
/// How often contracts are looked at that ended by time, and what failed is tried again.
const TICK: Duration = Duration::from_secs(5);
/// Before a device that somebody has taken away is made again: what took it may do so again.
const REOPEN: Duration = Duration::from_secs(1);

/// What the network of the fabric is told.
#[derive(Clone)]
pub struct Options {
    /// This node.
    pub own: NodeId,
    /// The contracts of this node, shared with whoever else watches them.
    pub contracts: Cache<Contract>,
    /// The twins of this node ([`names::LABEL_CONTRACT`]): which addresses are whose.
    pub twins: Cache<Pod>,
    /// The services of this node, and those that it sells on.
    pub services: Services,
    /// Carry the packets.
    pub links: Links,
    /// This node's pods and Services; its instance names the device. Without one it has none, and carries between peers only.
    pub network: Option<NodeNetwork>,
    /// Which key speaks for whom now, and from which its addresses follow.
    pub speakers: Speakers,
}

/// Why there is no network to other nodes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The TUN device cannot be had.
    #[error(
        "device {name} for packets to other nodes: {source}; needed are /dev/net/tun, CAP_NET_ADMIN and that no other process has a device of that name"
    )]
    Device {
        /// Its name.
        name: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Somebody takes the packets already.
    #[error("packets of other nodes: {0}")]
    Channel(#[from] LinkError),
    /// The addresses of this node's pods or Services are not those that others expect.
    #[error(
        "{what} {range} is outside {prefix}, which follows from this node's key and is where others look for it; translation between them is not built yet"
    )]
    Range {
        /// Pod or Service range.
        what: &'static str,
        /// The range.
        range: Cidr,
        /// Where it would have to be.
        prefix: Cidr,
    },
}

/// What can be asked of the running network. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handle {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    table: RwLock<Arc<Table>>,
    refused: Mutex<Vec<Refused>>,
    counting: Counting,
}

impl Handle {
    /// What has been counted since the start.
    pub fn counters(&self) -> Counters {
        self.shared.counting.read()
    }

    /// What has been exchanged with a peer since the start; 0 with one that nothing was exchanged with.
    pub fn exchanged(&self, peer: &NodeId) -> PeerBytes {
        self.shared.counting.peer(peer)
    }

    /// The peers that packets are exchanged with.
    pub fn peers(&self) -> Vec<Peer> {
        self.shared.table().peers().to_vec()
    }

    /// The peers under contract that packets are not exchanged with, and why.
    pub fn refused(&self) -> Vec<Refused> {
        self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn table(&self) -> Arc<Table> {
        // One assignment writes it, so there is never half of it.
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, own: &Own, plan: &plan::Plan) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Table::new(own, plan));
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        for news in plan.refused.iter().filter(|one| !refused.contains(one)) {
            tracing::warn!(peer = %news.peer, prefix = %news.prefix, "no packets to or from a peer: {}", news.reason);
        }
        refused.clone_from(&plan.refused);
    }
}

/// Returns where the pods and Services of a node are; `node` is its first key.
pub fn prefix(node: &NodeId) -> Cidr {
    let prefix = fabric_prefix(node, 0);
    // The length is a constant below 33.
    Cidr::new(prefix.v4, FabricPrefix::V4_BITS).unwrap_or(Cidr::host(prefix.v4))
}

/// Carries packets until dropped. The device goes with it, if there is one.
///
/// # Errors
/// [`Error`] at once when the ranges do not fit, the device cannot be made, or the channel is taken. A device that is lost
/// later is made again.
pub async fn run(options: Options, handle: Handle) -> Result<(), Error> {
    let own = own(&options)?;
    let mut datagrams = options.links.handle_datagrams(CHANNEL)?;
    let Some(network) = &options.network else {
        tokio::join!(options.contracts.synced(), options.twins.synced(), options.services.synced());
        let never = tokio::select! {
            never = pump::relaying(&options.links, &mut datagrams, &handle.shared) => never,
            never = follow(&options, &own, None, &handle.shared) => never,
        };
        match never {}
    };
    let name = format!("flt{}", network.options().instance);
    let mut device = open(&name)?;
    tokio::join!(options.contracts.synced(), options.twins.synced(), options.services.synced());
    loop {
        let shared = &*handle.shared;
        // Dropping the others is safe: packets under way are lost as on any network.
        let lost = tokio::select! {
            error = pump::outgoing(&device, &options.links, shared) => error,
            error = pump::incoming(&device, &options.links, &mut datagrams, shared) => error,
            never = follow(&options, &own, Some((network, &name)), shared) => match never {},
        };
        tracing::warn!(device = name, error = %lost, "the device is gone; it is made again");
        drop(device);
        device = loop {
            tokio::time::sleep(REOPEN).await;
            match open(&name) {
                Ok(device) => break device,
                Err(error) => tracing::warn!(%error, "it is tried again"),
            }
        };
    }
}

fn own(options: &Options) -> Result<Own, Error> {
    let prefix = prefix(&options.speakers.first(&options.own));
    let Some(network) = &options.network else {
        // Nothing is there, and so nothing is reached.
        let none = Cidr::host(Ipv4Addr::UNSPECIFIED);
        return Ok(Own { id: options.own, prefix, pods: none, services: none });
    };
    let (pods, services) = (network.options().pod_cidr, network.options().service_cidr);
    for (what, range) in [("pod range", pods), ("Service range", services)] {
        if !prefix.contains(range.network()) || range.prefix_len() < prefix.prefix_len() {
            return Err(Error::Range { what, range, prefix });
        }
    }
    Ok(Own { id: options.own, prefix, pods, services })
}

fn open(name: &str) -> Result<Device, Error> {
    Device::open(name).map_err(|source| Error::Device { name: name.to_owned(), source })
}

/// Keeps table and routes as the contracts say; without a device the table alone.
async fn follow(
    options: &Options,
    own: &Own,
    device: Option<(&NodeNetwork, &str)>,
    shared: &Shared,
) -> std::convert::Infallible {
    let (mut changes, mut twins_changed) = (options.contracts.changes(), options.twins.changes());
    let mut services_changed = options.services.changes();
    let mut tick = tokio::time::interval(TICK);
    let mut applied: Option<Vec<FabricRoute>> = None;
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        changes.mark_unchanged();
        twins_changed.mark_unchanged();
        services_changed.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        let (contracts, twins) = (options.contracts.list(), options.twins.list());
        let contracts: Vec<&Contract> = contracts.iter().map(AsRef::as_ref).collect();
        let (twins, services) = (twins.iter().map(AsRef::as_ref), options.services.seen());
        let view = View::new(own, &options.speakers, &contracts, twins, &services, Timestamp::now());
        let plan = plan::plan(own, &view);
        // First who may send, then what leads there: nobody has a route whose packets are not judged.
        shared.set(own, &plan);
        if let Some((network, device)) = device
            && let routes = plan.routes(device)
            && applied.as_ref() != Some(&routes)
        {
            match network.set_routes(routes.clone()).await {
                Ok(()) => {
                    tracing::info!(device, peers = routes.len(), "routes to other nodes");
                    applied = Some(routes);
                }
                Err(error) => tracing::warn!(%error, "routes to other nodes cannot be set; it is tried again"),
            }
        }
        pace.end();
        let of_services = services_changed.iter_mut().map(|changes| Box::pin(changes.changed()));
        tokio::select! {
            // Losing the race loses nothing: each keeps what it has not yet given.
            changed = changes.changed() => if changed.is_err() {
                tick.tick().await;
            },
            changed = twins_changed.changed() => if changed.is_err() {
                tick.tick().await;
            },
            _ = tick.tick() => {}
            changed = select_all(of_services) => if changed.0.is_err() {
                tick.tick().await;
            },
        }
    }
}
