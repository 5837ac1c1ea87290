//! Pods that are on the network of the machine: its CNI plug-ins gave them their place, and this node's Services, policies and DNS hold for them.
//!
//! ```text
//!  attach_as ──▶ noted in plugged/UID.json ──▶ namespace ──▶ ADD ──▶ noted with its address ──▶ rules
//!  detach    ──▶ DEL, by the note ───────────▶ namespace away ────▶ note away
//! ```
//!
//! A note stands before anything is done and goes when all is undone: whatever ends in between is found by the next call, which takes away first.
//! Guests never come here: what confines them stands on cables that are ours.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use engine_cni::{Added, Network, Pod};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::{Attachment, Inner, Options, POD_DEVICE, State, absent, check_uid, ipv6, namespace, sysctl};
use crate::{Error, ServicePort};
use engine_packets::route::Routing;

/// Where the kernel says whether rules see what passes a bridge.
const BRIDGE_RULES: &str = "net/bridge/bridge-nf-call-iptables";

/// A pod on the machine's network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plugged {
    network: Network,
    pod: Pod,
    /// Absent until all plug-ins have done their part.
    added: Option<Added>,
}

impl Plugged {
    /// Its address, once it has one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.added.as_ref().map(Added::address)
    }

    /// Puts the pod on its network.
    pub async fn plug(&self) -> Result<Added, Error> {
        Ok(self.network.add(&self.pod).await?)
    }

    /// Takes the pod off its network.
    pub async fn unplug(&self) -> Result<(), Error> {
        Ok(self.network.del(&self.pod, self.added.as_ref()).await?)
    }
}

/// What an attachment needs now.
pub(crate) enum Step {
    /// Nothing more.
    Done(Attachment),
    /// To be added; what an earlier run left is to be taken away before.
    Add(Box<(Plugged, Option<Plugged>)>),
}

fn directory(options: &Options) -> PathBuf {
    options.data_dir.join("plugged")
}

fn file(options: &Options, pod_uid: &str) -> PathBuf {
    directory(options).join(format!("{pod_uid}.json"))
}

/// The pods that earlier runs put on the machine's network.
pub(crate) fn load(options: &Options) -> Result<BTreeMap<String, Plugged>, Error> {
    let mut all = BTreeMap::new();
    let directory = directory(options);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        other => other.map_err(|error| Error::file("read", &directory, error))?,
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|end| end != "json") {
            continue; // written aside by one that ended meanwhile
        }
        let bytes = fs::read(&path).map_err(|error| Error::file("read", &path, error))?;
        let plugged: Plugged = serde_json::from_slice(&bytes)
            .map_err(|error| Error::State { path: path.clone(), reason: error.to_string() })?;
        all.insert(plugged.pod.uid.clone(), plugged);
    }
    Ok(all)
}

fn note(options: &Options, plugged: &Plugged) -> Result<(), Error> {
    let (directory, path) = (directory(options), file(options, &plugged.pod.uid));
    let bytes =
        serde_json::to_vec(plugged).map_err(|error| Error::State { path: path.clone(), reason: error.to_string() })?;
    fs::create_dir_all(&directory).map_err(|error| Error::file("create", &directory, error))?;
    let aside = path.with_extension("new");
    fs::write(&aside, bytes).map_err(|error| Error::file("write", &aside, error))?;
    fs::rename(&aside, &path).map_err(|error| Error::file("replace", &path, error))
}

/// What the machine must have for the rules to hold on its network.
pub(crate) fn prepare(network: &Network) -> Result<(), Error> {
    info!(network = network.name(), "this machine's own pods are on its CNI network");
    let there = std::path::Path::new("/proc/sys").join(BRIDGE_RULES).exists();
    match (there, network.is_bridged()) {
        (true, _) => sysctl(BRIDGE_RULES, "1"),
        (false, false) => Ok(()),
        (false, true) => Err(Error::Option {
            option: "cni",
            value: network.name().to_owned(),
            needed: "the kernel's br_netfilter (modprobe br_netfilter): without it neither Services nor policies hold between pods on one bridge",
        }),
    }
}

impl State {
    /// The rules for the pods on the machine's network, and for ports that lead to them.
    pub(super) fn replug(&mut self) -> Result<(), Error> {
        let addresses = self.plugged_addresses();
        self.change(|view, _| view.plugged = addresses)?;
        self.publish()
    }

    pub(super) fn plugged_addresses(&self) -> BTreeSet<Ipv4Addr> {
        self.plugged.values().filter_map(Plugged::address).collect()
    }

    /// The ports of the machine that lead to pods.
    pub(super) fn published(&self) -> Vec<ServicePort> {
        self.saved.published(|uid| self.plugged.get(uid).and_then(Plugged::address))
    }
}

impl Inner {
    /// The place of a pod that is on the machine's network.
    pub(super) fn plugged(&self, pod_uid: &str) -> Option<Attachment> {
        let netns = self.namespace_path(pod_uid);
        let address = self.state().plugged.get(pod_uid)?.address()?;
        namespace::exists(&netns).then_some(Attachment {
            netns,
            address,
            prefix_len: 32,
            gateway: self.gateway,
            address_v6: None,
        })
    }

    /// What is to be done for a pod that may be on the machine's network.
    pub(super) fn plan_plug(&self, pod_uid: &str, (namespace, name): (&str, &str)) -> Result<Step, Error> {
        check_uid(pod_uid)?;
        if let Some(there) = self.plugged(pod_uid) {
            return Ok(Step::Done(there));
        }
        let known = self.state().saved.addresses.pods.contains_key(pod_uid);
        let (Some(network), false) = (&self.options.cni, known) else {
            return self.attach(pod_uid, false).map(Step::Done);
        };
        let pod = Pod {
            uid: pod_uid.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            netns: self.namespace_path(pod_uid),
        };
        let left = self.state().plugged.get(pod_uid).cloned();
        Ok(Step::Add(Box::new((Plugged { network: network.clone(), pod, added: None }, left))))
    }

    /// Its note and its namespace, empty but for the loopback.
    pub(super) fn before_plug(&self, plugged: &Plugged) -> Result<(), Error> {
        let (uid, netns) = (&plugged.pod.uid, &plugged.pod.netns);
        note(&self.options, plugged)?;
        self.state().plugged.insert(uid.clone(), plugged.clone());
        namespace::remove(netns)?;
        namespace::create(netns)?;
        namespace::within(netns, || {
            // Of devices that are to come: what no rule sees must be no way around one.
            ipv6::off("default")?;
            let refused =
                |what: &'static str| move |error| Error::netlink(format!("{what} in the pod's namespace"), error);
            let mut routing = Routing::open().map_err(refused("open a routing socket"))?;
            routing.set_up(1).map_err(refused("switch on lo"))
        })
    }

    /// The pod has its place: from here on it is known and the rules hold for it.
    pub(super) fn after_plug(&self, mut plugged: Plugged, added: Added) -> Result<Attachment, Error> {
        let address = added.address();
        for (range, whose) in
            [(self.options.pod_cidr, "pods at peers and guests"), (self.options.service_cidr, "Services")]
        {
            if range.contains(address) {
                return Err(Error::Plugged { network: plugged.network.name().to_owned(), address, range, whose });
            }
        }
        let uid = plugged.pod.uid.clone();
        let netns = plugged.pod.netns.clone();
        debug!(pod = uid, %address, device = POD_DEVICE, gateway = ?added.gateway(), "plugged in");
        plugged.added = Some(added);
        note(&self.options, &plugged)?;
        let mut state = self.state();
        state.plugged.insert(uid, plugged);
        state.replug()?;
        Ok(Attachment { netns, address, prefix_len: 32, gateway: self.gateway, address_v6: None })
    }

    /// Nothing is left of a pod on the machine's network but what its plug-ins have to take away, which they did.
    pub(super) fn after_unplug(&self, pod_uid: &str) -> Result<(), Error> {
        namespace::remove(&self.namespace_path(pod_uid))?;
        let path = file(&self.options, pod_uid);
        absent(fs::remove_file(&path), &path)?;
        let mut state = self.state();
        state.plugged.remove(pod_uid);
        if state.plugged.is_empty() {
            // Absent again when nobody is; one that was left there does not matter.
            if let Err(error) = fs::remove_dir(directory(&self.options)) {
                debug!(%error, "the directory of notes stays");
            }
        }
        state.replug()
    }

    /// The note of a pod, if it is one of these.
    pub(super) fn plug_of(&self, pod_uid: &str) -> Option<Plugged> {
        self.state().plugged.get(pod_uid).cloned()
    }

    /// Undoes what was begun for a pod that got no place.
    pub(super) async fn give_up(&self, plugged: &Plugged) {
        if let Err(error) = plugged.unplug().await {
            warn!(pod = plugged.pod.uid, %error, "what was begun stays until the pod goes");
        } else if let Err(error) = self.after_unplug(&plugged.pod.uid) {
            warn!(pod = plugged.pod.uid, %error, "what was begun stays until the pod goes");
        }
    }
}
