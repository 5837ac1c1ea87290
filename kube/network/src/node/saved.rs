//! What a node network keeps in its data directory.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{HostPort, Options};
use crate::address::Addresses;
use crate::{ConfinedPod, Error, Ipv6, ServicePort};
use engine_packets::Address;

/// What has to be known again after a restart, before anything runs: otherwise a pod would be free for a moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    #[serde(flatten)]
    pub addresses: Addresses,
    /// As told by `set_confined`.
    #[serde(default)]
    pub confined: Vec<ConfinedPod>,
    /// Pods attached to be confined. One that `set_confined` says nothing of may reach nothing.
    #[serde(default)]
    pub held: BTreeSet<String>,
    /// Ports of the machine, by the pod that has them.
    #[serde(default)]
    pub host_ports: BTreeMap<String, Vec<HostPort>>,
    /// The ranges of IPv6 with which it began; what began without has none for ever.
    #[serde(default)]
    pub ipv6: Option<Ipv6>,
}

impl Saved {
    /// The pod's address of IPv6. None without ranges, and for those that are to be confined: what they may reach is said of IPv4 alone.
    pub fn address_v6(&self, uid: &str) -> Option<Ipv6Addr> {
        let number = self.addresses.pods.get(uid).filter(|_| !self.held.contains(uid))?;
        self.ipv6?.pods.nth(*number)
    }

    /// The machine's ports that lead to pods, as what is translated in one family.
    pub fn published<A: Address>(&self) -> Vec<ServicePort<A>> {
        let of_pod = |(uid, ports): (&String, &Vec<HostPort>)| {
            let v4 = || Some(IpAddr::V4(self.addresses.address(*self.addresses.pods.get(uid)?)));
            let address = A::of(if A::BITS == 32 { v4()? } else { self.address_v6(uid)?.into() })?;
            let one = |port: &HostPort| {
                let at = port.address.map(A::of);
                // At an address of the other family.
                let at = if at == Some(None) { return None } else { at.flatten() };
                // Of its family, all.
                let at = at.filter(|at| at.number() != 0);
                Some(ServicePort {
                    name: format!("pod {uid}"),
                    addresses: at.into_iter().collect(),
                    protocol: port.protocol,
                    port: port.port,
                    node_port: at.is_none().then_some(port.port),
                    external: at.into_iter().collect(),
                    sources: None,
                    endpoints: vec![(address, port.to)],
                    by_client: false,
                })
            };
            Some(ports.iter().filter_map(one).collect::<Vec<_>>())
        };
        self.host_ports.iter().filter_map(of_pod).flatten().collect()
    }

    /// Confined pods that have an address of IPv6 all the same: what they may reach is said of IPv4, so over IPv6 it is nothing.
    pub fn effective_v6(&self) -> Vec<ConfinedPod<Ipv6Addr>> {
        let is_confined = |number: u32| self.confined.iter().any(|pod| pod.address == self.addresses.address(number));
        let confined = self.addresses.pods.iter().filter(|(_, number)| is_confined(**number));
        let addresses = confined.filter_map(|(uid, _)| self.address_v6(uid));
        addresses.map(|address| ConfinedPod { address, allow_to: Vec::new(), own_cluster: false }).collect()
    }

    /// All pods to be confined now.
    pub fn effective(&self) -> Vec<ConfinedPod> {
        let told = |address: Ipv4Addr| self.confined.iter().any(|pod| pod.address == address);
        let held = self.held.iter().filter_map(|uid| self.addresses.pods.get(uid));
        let held = held.map(|number| self.addresses.address(*number)).filter(|address| !told(*address));
        let nothing = |address| ConfinedPod { address, allow_to: Vec::new(), own_cluster: false };
        self.confined.iter().cloned().chain(held.map(nothing)).collect()
    }
}

pub(crate) fn state_path(options: &Options) -> PathBuf {
    options.data_dir.join("network.json")
}

/// What an earlier run saved. Another pod range begins anew: its pods are gone from the network with their range.
pub(crate) fn load(options: &Options) -> Result<Option<Saved>, Error> {
    let path = state_path(options);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| Error::file("read", &path, error))?,
    };
    let saved: Saved = serde_json::from_slice(&bytes)
        .map_err(|error| Error::State { path: path.clone(), reason: error.to_string() })?;
    if saved.addresses.range != options.pod_cidr {
        warn!(before = %saved.addresses.range, now = %options.pod_cidr, "the pod range has changed; pods get new addresses");
        return Ok(None);
    }
    Ok(Some(saved))
}

/// Written aside, then renamed: a crash leaves the old list or the new one.
pub(crate) fn save(options: &Options, saved: &Saved) -> Result<(), Error> {
    let path = state_path(options);
    let aside = path.with_extension("new");
    let bytes =
        serde_json::to_vec(saved).map_err(|error| Error::State { path: path.clone(), reason: error.to_string() })?;
    fs::create_dir_all(&options.data_dir).map_err(|error| Error::file("create", &options.data_dir, error))?;
    fs::write(&aside, bytes).map_err(|error| Error::file("write", &aside, error))?;
    fs::rename(&aside, &path).map_err(|error| Error::file("replace", &path, error))
}
