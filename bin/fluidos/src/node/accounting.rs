//! Accounting, introduced to what it measures by: links, packets, and the pods' cgroups.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use fluidos_accounting::{Accounts, Meters, Options, Traffic, Usage};
use fluidos_fabric::network;
use fluidos_identity::{NodeId, NodeKey, Speakers};
use fluidos_link::Links;
use substrate_kubelet::Handle;

use super::api::Api;
use super::machine::Machine;
use super::notary::keys;
use super::parts::Parts;

/// Loads the accounts and keeps them. What is returned answers peers.
pub async fn open(
    (key, identity): (&NodeKey, &Path),
    api: &Api,
    (links, speakers): (&Links, &Speakers),
    (packets, machine): (network::Handle, Option<&Machine>),
    parts: &mut Parts,
) -> Result<Arc<Accounts>> {
    let dialling = key.clone();
    let meters = OfNode { links: links.clone(), packets, kubelet: machine.map(Machine::kubelet) };
    let options = Options {
        client: api.client(fluidos_accounting::MANAGER),
        caches: api.access(fluidos_accounting::MANAGER).caches,
        key: key.clone(),
        keys: keys(identity, key)?,
        speakers: speakers.clone(),
        dial: Arc::new(move |target| fluidos_rear::Client::new(&dialling, target).map_err(|error| error.to_string())),
        meters: Arc::new(meters),
    };
    let (accounts, keep) = fluidos_accounting::start(options).await.context("the accounts cannot be read")?;
    parts.spawn_room(keep);
    Ok(accounts)
}

/// What this node can measure; without pods of its own no usage.
struct OfNode {
    links: Links,
    packets: network::Handle,
    kubelet: Option<Handle>,
}

impl Meters for OfNode {
    fn is_up(&self, peer: &NodeId) -> bool {
        self.links.get(peer).is_some()
    }

    fn traffic(&self, peer: &NodeId) -> Option<Traffic> {
        let bytes = self.packets.exchanged(peer);
        Some(Traffic { to_peer: bytes.sent, from_peer: bytes.received })
    }

    fn usage(&self, pod_uid: &str) -> Option<Usage> {
        let (memory, cpu) = self.kubelet.as_ref()?.usage(pod_uid)?;
        Some(Usage { cpu_ms: u64::try_from(cpu.as_millis()).unwrap_or(u64::MAX), memory_mib: memory >> 20 })
    }
}
