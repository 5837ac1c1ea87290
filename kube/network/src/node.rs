//! What one node owns on its machine's network, and the pods attached to it.
mod ipv6;
mod plugged;
mod routes;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc::{EEXIST, ENODEV, ESRCH};
use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use self::plugged::{Plugged, Step};
use self::saved::{Saved, load, save, state_path};
use crate::address::Addresses;
use crate::here::Here;
use crate::rules::{self, View};
use crate::{
    Both, Cidr, ConfinedPod, Error, FabricRoute, Ipv6, Isolated, MachineRoute, ServicePort, conntrack, namespace,
};
use engine_packets::Address;
use engine_packets::netlink::Socket;
use engine_packets::nftables::{self, Batch, Protocol, Ruleset};
use engine_packets::route::{Route, Routing};

/// What a node network is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tells this node's names from those of others on the machine: 1 to 8 hexadecimal digits, always the same for the
    /// same node. An interface name has room for 15 bytes: `v`, these, `-`, and 5 digits of the pod's number.
    pub instance: String,
    /// Where addresses and namespaces are kept.
    pub data_dir: PathBuf,
    /// Addresses of pods; the first is the gateway's. At most 20 host bits.
    pub pod_cidr: Cidr,
    /// Addresses of Services; number 10 is the cluster's DNS.
    pub service_cidr: Cidr,
    /// The network that the machine has for pods already. The node's own pods are put on it; guests and what passes between nodes are not.
    pub cni: Option<engine_cni::Network>,
    /// The ranges of IPv6, if it is to have both families: what [`NodeNetwork::dual`] answers.
    pub ipv6: Option<Ipv6>,
}

/// A pod's place on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// File that keeps the pod's network namespace.
    pub netns: PathBuf,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// The length of its prefix in bits: always 32, everything else is behind the gateway.
    pub prefix_len: u8,
    /// The machine's address for pods: way out and DNS.
    pub gateway: Ipv4Addr,
    /// The pod's other address, if it has one; its prefix is of 128 bits.
    pub address_v6: Option<Ipv6Addr>,
}

/// A port of the machine that leads to a pod (`hostPort`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// At this address of the machine only (`hostIP`). Without: at all of both families but loopback ones.
    pub address: Option<IpAddr>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The machine's port. While it is taken, no program of the machine is reached there, and a node port of the same number counts more.
    pub port: u16,
    /// The pod's.
    pub to: u16,
}

/// The network of one node, in the network namespace in which it was opened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeNetwork {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    gateway: Ipv4Addr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    routing: Routing,
    nftables: Socket,
    saved: Saved,
    /// Pods on the machine's network, by their uid.
    plugged: BTreeMap<String, Plugged>,
    view: View,
    /// Of IPv6, where the node has both families.
    view_v6: Option<View<Ipv6Addr>>,
    applied: Option<Rules>,
}

/// What holds in the kernel: a table for each family.
type Rules = Both<Ruleset, Option<Ruleset<Ipv6Addr>>>;

impl NodeNetwork {
    /// Makes what the node needs on the machine, or finds what an earlier run left: the gateway device with its address
    /// and routes, forwarding, the rules. Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for pods.
    pub async fn open(options: Options) -> Result<NodeNetwork, Error> {
        blocking("open the node's network", move || Inner::open(options))
            .await
            .map(|inner| NodeNetwork { inner: Arc::new(inner) })
    }

    /// Gives a pod its namespace, address and routes. A second call answers the same, after mending what is missing.
    pub async fn attach(&self, pod_uid: &str) -> Result<Attachment, Error> {
        let (inner, pod_uid) = (self.inner.clone(), pod_uid.to_owned());
        blocking("attach a pod", move || inner.attach(&pod_uid, false)).await
    }

    /// Gives a pod of this node its place: on the machine's network if this node was told to use that, else as [`attach`](Self::attach) does.
    /// A second call answers the same. Plug-ins hear the pod's namespace and name in the API.
    pub async fn attach_as(&self, pod_uid: &str, namespace: &str, name: &str) -> Result<Attachment, Error> {
        let (inner, uid) = (self.inner.clone(), pod_uid.to_owned());
        let names = (namespace.to_owned(), name.to_owned());
        let step = blocking("attach a pod", move || inner.plan_plug(&uid, (&names.0, &names.1))).await?;
        let (plugged, left) = match step {
            Step::Done(attachment) => return Ok(attachment),
            Step::Add(both) => *both,
        };
        if let Some(left) = left {
            left.unplug().await?;
        }
        let (inner, begun) = (self.inner.clone(), plugged.clone());
        blocking("make a pod's namespace", move || inner.before_plug(&begun)).await?;
        let done = match plugged.plug().await {
            Ok(added) => {
                let (inner, plugged) = (self.inner.clone(), plugged.clone());
                blocking("attach a pod", move || inner.after_plug(plugged, added)).await
            }
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.inner.give_up(&plugged).await;
        }
        done
    }

    /// Like [`attach`](Self::attach), for a pod that is to be confined: from the first moment, over restarts, and until
    /// [`set_confined`](Self::set_confined) names its address, it may reach nothing.
    pub async fn attach_confined(&self, pod_uid: &str) -> Result<Attachment, Error> {
        let (inner, pod_uid) = (self.inner.clone(), pod_uid.to_owned());
        blocking("attach a pod", move || inner.attach(&pod_uid, true)).await
    }

    /// Takes a pod off the network and frees its address. Absence is fine.
    pub async fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        let (inner, pod_uid) = (self.inner.clone(), pod_uid.to_owned());
        if let Some(plugged) = inner.plug_of(&pod_uid) {
            plugged.unplug().await?;
        }
        blocking("detach a pod", move || inner.detach(&pod_uid)).await
    }

    /// Leads exactly these ports of the machine to an attached pod, also after a restart, until it is detached. Of two pods that want the
    /// same port one has it.
    pub async fn publish(&self, pod_uid: &str, ports: Vec<HostPort>) -> Result<(), Error> {
        let (inner, pod_uid) = (self.inner.clone(), pod_uid.to_owned());
        blocking("publish a pod's ports", move || inner.publish(&pod_uid, ports)).await
    }

    /// The pods that have an address here, also those of earlier runs.
    pub async fn attached(&self) -> Vec<String> {
        let state = self.inner.state();
        state.saved.addresses.pods.keys().chain(state.plugged.keys()).cloned().collect()
    }

    /// Takes everything of this node off the machine: pods, device, rules, files.
    pub async fn destroy(self) -> Result<(), Error> {
        let inner = self.inner.clone();
        let plugged: Vec<String> = inner.state().plugged.keys().cloned().collect();
        for pod in plugged {
            self.detach(&pod).await?;
        }
        blocking("remove the node's network", move || inner.destroy()).await
    }

    /// Which pods are this machine's, in each family that it has.
    pub(crate) fn here(&self) -> Both<Here<Ipv4Addr>, Option<Here<Ipv6Addr>>> {
        let v4 = Here::new(self.inner.options.pod_cidr, self.inner.state().plugged_addresses());
        Both { v4, v6: self.inner.options.ipv6.map(|ranges| Here::of(ranges.pods)) }
    }

    /// The machine's address for pods, where the cluster's DNS listens.
    pub fn gateway(&self) -> Ipv4Addr {
        self.inner.gateway
    }

    /// The Service address of the cluster's DNS. `None` if the Service range is too small to have it.
    pub fn dns_address(&self) -> Option<Ipv4Addr> {
        self.inner.options.service_cidr.nth(10)
    }

    /// What this network was made with.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Makes exactly these Services work. One transaction; on refusal the earlier ones stay.
    pub async fn set_services(
        &self,
        services: impl Into<Both<Vec<ServicePort>, Vec<ServicePort<Ipv6Addr>>>>,
    ) -> Result<(), Error> {
        let (inner, services) = (self.inner.clone(), services.into());
        blocking("set Services", move || inner.state().set_services(services)).await
    }

    /// Confines exactly these pods, also after a restart, until told otherwise or the pod is detached.
    ///
    /// A confined pod opens connections only to its `allow_to` and, if it says so, to the pods of this node's range and the
    /// cluster's DNS, judged by where the connection really ends. So Services work that lead there, and this machine's own
    /// addresses, its API, its LAN and everything else do not. Connections that others open to the pod are answered.
    pub async fn set_confined(&self, pods: Vec<ConfinedPod>) -> Result<(), Error> {
        let inner = self.inner.clone();
        let confine = move || {
            let mut state = inner.state();
            let before = std::mem::replace(&mut state.saved.confined, pods);
            let done = save(&inner.options, &state.saved).and_then(|()| state.confine());
            if done.is_err() {
                // What holds in the kernel is what is told again after a restart.
                state.saved.confined = before;
                save(&inner.options, &state.saved)?;
            }
            done
        };
        blocking("confine pods", confine).await
    }

    /// Isolates exactly these pods. Connections that are open stay. A restart forgets it: until it is called again nobody is isolated.
    pub async fn set_isolated(
        &self,
        pods: impl Into<Both<Vec<Isolated>, Vec<Isolated<Ipv6Addr>>>>,
    ) -> Result<(), Error> {
        let (inner, pods) = (self.inner.clone(), pods.into());
        let isolate = move || {
            inner.state().change(|view, view_v6| {
                view.isolated = pods.v4;
                if let Some(view) = view_v6 {
                    view.isolated = pods.v6;
                }
            })
        };
        blocking("isolate pods", isolate).await
    }

    /// Leads exactly these ranges to these devices, without translating this node's pod addresses on the way.
    ///
    /// A device that does not exist yet is an error of the kernel (`ENODEV`); call again when it does.
    pub async fn set_routes(&self, routes: Vec<FabricRoute>) -> Result<(), Error> {
        let inner = self.inner.clone();
        blocking("set routes", move || inner.set_routes(routes)).await
    }

    /// Leads exactly these ranges to these machines. One that is not reached directly is an error of the kernel (`ENETUNREACH`); the others
    /// are led all the same.
    pub async fn set_machines(
        &self,
        routes: impl Into<Both<Vec<MachineRoute>, Vec<MachineRoute<Ipv6Addr>>>>,
    ) -> Result<(), Error> {
        let (inner, routes) = (self.inner.clone(), routes.into());
        blocking("set routes to machines", move || inner.set_machines(routes)).await
    }

    /// Puts the rules back if somebody has removed them (`nft flush ruleset`, a firewall's restart).
    pub async fn mend(&self) -> Result<(), Error> {
        let inner = self.inner.clone();
        blocking("look after the rules", move || inner.state().mend()).await
    }
}

impl State {
    /// Changes the views and the kernel's rules with them, in both families at one moment, or none of it.
    fn change(&mut self, edit: impl FnOnce(&mut View, Option<&mut View<Ipv6Addr>>)) -> Result<(), Error> {
        let (mut view, mut view_v6) = (self.view.clone(), self.view_v6.clone());
        edit(&mut view, view_v6.as_mut());
        let rules = Both { v4: rules::plan(&view), v6: view_v6.as_ref().map(rules::plan) };
        if self.applied.as_ref() != Some(&rules) {
            let mut batch = Batch::new();
            batch.replace(&rules.v4);
            if let Some(v6) = &rules.v6 {
                batch.replace(v6);
            }
            batch
                .run(&mut self.nftables)
                .map_err(|(part, error)| Error::netlink(format!("nftables {}: {part}", rules.v4.table), error))?;
            self.applied = Some(rules);
        }
        (self.view, self.view_v6) = (view, view_v6);
        Ok(())
    }

    fn set_services(&mut self, services: Both<Vec<ServicePort>, Vec<ServicePort<Ipv6Addr>>>) -> Result<(), Error> {
        let stale = conntrack::stale(&self.view.services, &services.v4);
        let known = self.view_v6.as_ref().map(|view| view.services.as_slice()).unwrap_or_default();
        let stale_v6 = conntrack::stale(known, &services.v6);
        self.change(|view, view_v6| {
            view.services = services.v4;
            if let Some(view) = view_v6 {
                view.services = services.v6;
            }
        })?;
        self.forget(&stale);
        self.forget(&stale_v6);
        Ok(())
    }

    fn publish(&mut self) -> Result<(), Error> {
        let now = self.published();
        let now_v6 = if self.view_v6.is_some() { self.saved.published::<Ipv6Addr>(|_| None) } else { Vec::new() };
        let stale = conntrack::stale(&self.view.published, &now);
        let known = self.view_v6.as_ref().map(|view| view.published.as_slice()).unwrap_or_default();
        let stale_v6 = conntrack::stale(known, &now_v6);
        self.change(|view, view_v6| {
            view.published = now;
            if let Some(view) = view_v6 {
                view.published = now_v6;
            }
        })?;
        self.forget(&stale);
        self.forget(&stale_v6);
        Ok(())
    }

    fn forget<A: Address>(&mut self, stale: &BTreeSet<conntrack::Stale<A>>) {
        if !stale.is_empty() {
            // The rules are right already; a kernel that cannot be asked forgets by itself after a while.
            match conntrack::forget(&mut self.nftables, stale) {
                Ok(count) => debug!(count, "UDP connections to gone endpoints forgotten"),
                Err(error) => warn!(%error, "UDP connections to gone endpoints stay until they are idle"),
            }
        }
    }

    fn confine(&mut self) -> Result<(), Error> {
        let (confined, confined_v6) = (self.saved.effective(), self.saved.effective_v6());
        self.change(|view, view_v6| {
            view.confined = confined;
            if let Some(view) = view_v6 {
                view.confined = confined_v6;
            }
        })
    }

    fn mend(&mut self) -> Result<(), Error> {
        let table = self.view.table();
        let failed = |error| Error::netlink(format!("nftables {table}: find the table"), error);
        let v4 = nftables::exists::<Ipv4Addr>(&mut self.nftables, &table).map_err(failed)?;
        let has_v6 = self.view_v6.is_some();
        let v6 = !has_v6 || nftables::exists::<Ipv6Addr>(&mut self.nftables, &table).map_err(failed)?;
        if !(v4 && v6) {
            warn!(table, "the rules had been removed by somebody; they are made again");
            self.applied = None;
            self.change(|_, _| {})?;
        }
        Ok(())
    }
}

impl Inner {
    fn open(options: Options) -> Result<Inner, Error> {
        check(&options)?;
        options.cni.as_ref().map_or(Ok(()), plugged::prepare)?;
        let plugged = plugged::load(&options)?;
        let saved = load(&options)?.unwrap_or_else(|| Saved {
            addresses: Addresses::new(options.pod_cidr),
            confined: Vec::new(),
            held: BTreeSet::new(),
            host_ports: BTreeMap::new(),
            ipv6: options.ipv6,
        });
        // What was begun without stays so: the addresses of pods that run do not change.
        let options = Options { ipv6: options.ipv6.filter(|ranges| saved.ipv6 == Some(*ranges)), ..options };
        let gateway = saved.addresses.gateway();
        let view = View {
            instance: options.instance.clone(),
            pod_range: options.pod_cidr,
            service_range: options.service_cidr,
            gateway,
            services: Vec::new(),
            fabric: Vec::new(),
            machines: Vec::new(),
            confined: saved.effective(),
            isolated: Vec::new(),
            published: Vec::new(),
            plugged: BTreeSet::new(),
        };
        let view_v6 = options.ipv6.map(|ranges| ipv6::view(&view, ranges, &saved));
        let mut routing = Routing::open().map_err(|error| Error::netlink("open a routing socket", error))?;
        let nftables = Socket::open(SockProtocol::NetlinkNetFilter)
            .map_err(|error| Error::netlink("open an nftables socket", error))?;
        open_gateway(&mut routing, &view)?;
        sysctl("net/ipv4/ip_forward", "1")?;
        match &view_v6 {
            Some(view) => ipv6::open(&mut routing, view)?,
            None => ipv6::off(&view.gateway_device())?,
        }
        let mut state = State { routing, nftables, saved, plugged, view, view_v6, applied: None };
        (state.view.plugged, state.view.published) = (state.plugged_addresses(), state.published());
        state.change(|_, _| {})?;
        info!(instance = options.instance, pods = %options.pod_cidr, services = %options.service_cidr, "network open");
        if let Some(ranges) = &options.ipv6 {
            info!(instance = options.instance, pods = %ranges.pods, services = %ranges.services, "network open for IPv6");
        }
        Ok(Inner { options, gateway, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panicking holder left is a list that the next call mends, as after a crash.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace_path(&self, pod_uid: &str) -> PathBuf {
        self.options.data_dir.join("net").join(pod_uid)
    }

    fn cable(&self, number: u32) -> String {
        format!("v{}-{number:x}", self.options.instance)
    }

    fn attach(&self, pod_uid: &str, confined: bool) -> Result<Attachment, Error> {
        check_uid(pod_uid)?;
        if let Some(there) = self.plugged(pod_uid).filter(|_| !confined) {
            return Ok(there);
        }
        let mut state = self.state();
        let mut saved = state.saved.clone();
        let known = saved.addresses.pods.contains_key(pod_uid);
        let number = saved.addresses.allocate(pod_uid)?;
        let newly_held = confined && saved.held.insert(pod_uid.to_owned());
        if !known || newly_held {
            save(&self.options, &saved)?;
            state.saved = saved;
        }
        if confined {
            // Before the pod has a cable.
            state.confine()?;
        }
        let address = state.saved.addresses.address(number);
        let netns = self.namespace_path(pod_uid);
        let cable = self.cable(number);
        let refused = |what: &str| {
            let what = format!("{what} {cable} of pod {pod_uid}");
            move |error| Error::netlink(what, error)
        };
        let mut link = state.routing.link(&cable).map_err(refused("find"))?;
        if !namespace::exists(&netns) {
            if let Some(stale) = link.take() {
                state.routing.delete_link(stale).map_err(refused("remove the stale"))?;
            }
            namespace::create(&netns)?;
        }
        let link = match link {
            Some(link) => link,
            None => {
                let file = fs::File::open(&netns).map_err(|error| Error::file("open", &netns, error))?;
                let namespace = std::os::fd::AsFd::as_fd(&file);
                state.routing.add_veth(&cable, POD_DEVICE, namespace).map_err(refused("make"))?;
                let made = state.routing.link(&cable).map_err(refused("find"))?;
                made.ok_or_else(|| refused("find")(io::Error::from_raw_os_error(ENODEV)))?
            }
        };
        let address_v6 = state.view_v6.as_ref().and_then(|_| state.saved.address_v6(pod_uid));
        match address_v6 {
            Some(_) => ipv6::on(&cable)?,
            None => ipv6::off(&cable)?,
        }
        state.routing.set_up(link).map_err(refused("switch on"))?;
        let route =
            Route { to: Cidr::host(address), device: link, gateway: None, source: Some(self.gateway), metric: None };
        state.routing.replace_route(route).map_err(refused("route to"))?;
        let gateway_v6 = state.view_v6.as_ref().map(|view| view.gateway);
        if let (Some(address), Some(gateway)) = (address_v6, gateway_v6) {
            ipv6::lead(&mut state.routing, link, address, gateway).map_err(refused("route IPv6 to"))?;
        }
        let gateway = self.gateway;
        namespace::within(&netns, move || set_up_pod(address, gateway, address_v6))?;
        debug!(pod = pod_uid, %address, "attached");
        Ok(Attachment { netns, address, prefix_len: 32, gateway, address_v6 })
    }

    fn publish(&self, pod_uid: &str, ports: Vec<HostPort>) -> Result<(), Error> {
        let mut state = self.state();
        if state.saved.host_ports.get(pod_uid).map_or(ports.is_empty(), |known| *known == ports) {
            return Ok(());
        }
        let mut saved = state.saved.clone();
        saved.host_ports.remove(pod_uid);
        if !ports.is_empty() {
            saved.host_ports.insert(pod_uid.to_owned(), ports);
        }
        save(&self.options, &saved)?;
        state.saved = saved;
        state.publish()
    }

    fn detach(&self, pod_uid: &str) -> Result<(), Error> {
        check_uid(pod_uid)?;
        self.publish(pod_uid, Vec::new())?;
        if self.plug_of(pod_uid).is_some() {
            return self.after_unplug(pod_uid);
        }
        let mut state = self.state();
        if let Some(number) = state.saved.addresses.pods.get(pod_uid).copied() {
            let cable = self.cable(number);
            let refused = |error| Error::netlink(format!("remove {cable} of pod {pod_uid}"), error);
            if let Some(link) = state.routing.link(&cable).map_err(refused)? {
                gone(state.routing.delete_link(link)).map_err(refused)?;
            }
        }
        namespace::remove(&self.namespace_path(pod_uid))?;
        if let Some(number) = state.saved.addresses.release(pod_uid) {
            // Who gets the address next is somebody else.
            let address = state.saved.addresses.address(number);
            state.saved.confined.retain(|pod| pod.address != address);
            state.saved.held.remove(pod_uid);
            save(&self.options, &state.saved)?;
            state.confine()?;
            debug!(pod = pod_uid, "detached");
        }
        Ok(())
    }

    fn destroy(&self) -> Result<(), Error> {
        let pods: Vec<String> = self.state().saved.addresses.pods.keys().cloned().collect();
        for pod in pods {
            self.detach(&pod)?;
        }
        self.set_routes(Vec::new())?;
        let mut state = self.state();
        let refused = |error| Error::netlink(format!("remove the devices of {}", self.options.instance), error);
        // Whatever bears this node's name, also what no list knows any more.
        let prefix = state.view.cable_prefix();
        let device = state.view.gateway_device();
        for (link, name) in state.routing.links().map_err(refused)? {
            if name == device || name.starts_with(&prefix) {
                gone(state.routing.delete_link(link)).map_err(refused)?;
            }
        }
        let table = state.view.table();
        let mut batch = Batch::new();
        batch.remove::<Ipv4Addr>(&table);
        if state.view_v6.is_some() {
            batch.remove::<Ipv6Addr>(&table);
        }
        batch
            .run(&mut state.nftables)
            .map_err(|(part, error)| Error::netlink(format!("nftables {table}: {part}"), error))?;
        state.applied = None;
        let net = self.options.data_dir.join("net");
        for entry in fs::read_dir(&net).into_iter().flatten().flatten() {
            namespace::remove(&entry.path())?;
        }
        absent(fs::remove_dir(&net), &net)?;
        let file = state_path(&self.options);
        absent(fs::remove_file(&file), &file)
    }
}

/// The pod's end of the cable, as everywhere in Kubernetes.
const POD_DEVICE: &str = "eth0";

fn set_up_pod(address: Ipv4Addr, gateway: Ipv4Addr, address_v6: Option<Ipv6Addr>) -> Result<(), Error> {
    let refused = |what: &'static str| move |error| Error::netlink(format!("{what} in the pod's namespace"), error);
    let mut routing = Routing::open().map_err(refused("open a routing socket"))?;
    // The loopback is number 1 in every namespace.
    routing.set_up(1).map_err(refused("switch on lo"))?;
    let device = routing.link(POD_DEVICE).map_err(refused("find eth0"))?;
    let device = device.ok_or_else(|| refused("find eth0")(io::Error::from_raw_os_error(ENODEV)))?;
    match address_v6 {
        Some(_) => ipv6::on(POD_DEVICE)?,
        None => ipv6::off(POD_DEVICE)?,
    }
    routing.add_address(device, address, 32).map_err(refused("give eth0 its address"))?;
    routing.set_up(device).map_err(refused("switch on eth0"))?;
    let to_gateway = Route { to: Cidr::host(gateway), device, gateway: None, source: None, metric: None };
    routing.replace_route(to_gateway).map_err(refused("route to the gateway"))?;
    let default = Route { to: Cidr::ANY, device, gateway: Some(gateway), source: None, metric: None };
    routing.replace_route(default).map_err(refused("route to everything"))?;
    match address_v6 {
        Some(address) => ipv6::set_up_pod(&mut routing, device, address).map_err(refused("set IPv6 up")),
        None => Ok(()),
    }
}

fn open_gateway(routing: &mut Routing, view: &View) -> Result<(), Error> {
    let name = view.gateway_device();
    let refused = |what: &'static str| {
        let name = name.clone();
        move |error| Error::netlink(format!("{what} {name}"), error)
    };
    // A bridge without ports: a device of our own to put an address and routes on, present in every kernel.
    match routing.add_bridge(&name) {
        Err(error) if error.raw_os_error() != Some(EEXIST) => return Err(refused("make bridge")(error)),
        _ => {}
    }
    let device = routing.link(&name).map_err(refused("find"))?;
    let device = device.ok_or_else(|| refused("find")(io::Error::from_raw_os_error(ENODEV)))?;
    let addresses = routing.addresses().map_err(refused("list addresses for"))?;
    if let Some((interface, _)) = addresses.iter().find(|(link, ip)| *ip == view.gateway && *link != device) {
        let taken = Error::AddressInUse { address: view.gateway, interface: *interface };
        gone(routing.delete_link(device)).map_err(refused("remove"))?;
        return Err(taken);
    }
    routing.add_address(device, view.gateway, view.pod_range.prefix_len()).map_err(refused("give an address to"))?;
    routing.set_up(device).map_err(refused("switch on"))?;
    // Nodes in one namespace may have the same Service range: each gets a route of its own, the oldest device's wins.
    let services = Route {
        to: view.service_range,
        device,
        gateway: None,
        source: Some(view.gateway),
        metric: Some(1000 + device),
    };
    routing.replace_route(services).map_err(refused("route Services to"))
}

fn check(options: &Options) -> Result<(), Error> {
    let wrong = |option, value: String, needed| Err(Error::Option { option, value, needed });
    let instance = &options.instance;
    if instance.is_empty() || instance.len() > 8 || !instance.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return wrong("instance", instance.clone(), "1 to 8 lower-case hexadecimal digits");
    }
    if !(12..=29).contains(&options.pod_cidr.prefix_len()) {
        return wrong("pod_cidr", options.pod_cidr.to_string(), "a prefix of 12 to 29 bits");
    }
    if !(8..=28).contains(&options.service_cidr.prefix_len()) {
        return wrong("service_cidr", options.service_cidr.to_string(), "a prefix of 8 to 28 bits");
    }
    if options.pod_cidr.overlaps(options.service_cidr) {
        return wrong("service_cidr", options.service_cidr.to_string(), "no address of the pod range");
    }
    Ok(())
}

fn check_uid(pod_uid: &str) -> Result<(), Error> {
    let usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fits = (1..=64).contains(&pod_uid.len()) && !pod_uid.starts_with('.') && pod_uid.bytes().all(usable);
    if fits { Ok(()) } else { Err(Error::PodUid(pod_uid.to_owned())) }
}

fn absent(result: io::Result<()>, path: &Path) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", path, error)),
        _ => Ok(()),
    }
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(ENODEV | ESRCH)) => Ok(()),
        other => other,
    }
}

fn sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    // Reading first lets it work where the value is right and the folder cannot be written, as in a container.
    if fs::read_to_string(&path).is_ok_and(|found| found.trim() == value) {
        return Ok(());
    }
    fs::write(&path, value).map_err(|error| Error::file("write", &path, error))
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Thread(what))?
}

#[cfg(test)]
pub(crate) mod tests;
