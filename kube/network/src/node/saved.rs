//! What a node network keeps in its data directory.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{HostPort, Options};
use crate::address::Addresses;
use crate::{ConfinedPod, Error, ServicePort};

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
}

impl Saved {
    /// The machine's ports that lead to pods, as what is translated; `address` tells a pod's, of which it has one while it is attached.
    pub fn published(&self, address: impl Fn(&str) -> Option<Ipv4Addr>) -> Vec<ServicePort> {
        let of_pod = |(uid, ports): (&String, &Vec<HostPort>)| {
            let address = address(uid)?;
            let one = |port: &HostPort| ServicePort {
                name: format!("pod {uid}"),
                addresses: port.address.into_iter().collect(),
                protocol: port.protocol,
                port: port.port,
                node_port: port.address.is_none().then_some(port.port),
                external: port.address.into_iter().collect(),
                sources: None,
                endpoints: vec![(address, port.to)],
                by_client: false,
            };
            Some(ports.iter().map(one).collect::<Vec<_>>())
        };
        self.host_ports.iter().filter_map(of_pod).flatten().collect()
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
