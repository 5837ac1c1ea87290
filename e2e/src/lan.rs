//! A LAN on this machine: a bridge in a network namespace of its own, and one namespace for each machine on it. The
//! machine's own network is not touched. Everything goes when the value is dropped.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::{output, run};

/// What all names of one LAN begin with; others are never touched.
const PREFIX: &str = "flt";

/// A LAN.
#[derive(Debug)]
pub struct Lan {
    name: String,
    machines: Vec<String>,
}

/// A machine on a LAN: a network namespace with a cable.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its network namespace, as `ip netns` names it.
    pub namespace: String,
    /// Its address on the LAN.
    pub address: Ipv4Addr,
    cable: String,
    lan: String,
}

impl Lan {
    /// A LAN with a name of at most four characters, unique on this machine.
    ///
    /// # Errors
    /// When namespaces cannot be made: it needs root.
    pub fn new(name: &str) -> Result<Self> {
        let lan = Self { name: format!("{PREFIX}-{name}"), machines: Vec::new() };
        lan.clear();
        run("ip", &["netns", "add", &lan.name])?;
        run("ip", &["-n", &lan.name, "link", "add", "lan", "type", "bridge", "mcast_snooping", "0"])?;
        run("ip", &["-n", &lan.name, "link", "set", "lan", "up"])?;
        Ok(lan)
    }

    /// One more machine.
    ///
    /// # Errors
    /// When its namespace or cable cannot be made.
    pub fn machine(&mut self, name: &str) -> Result<Machine> {
        let number = self.machines.len() + 1;
        let machine = Machine {
            namespace: format!("{}-{name}", self.name),
            address: Ipv4Addr::new(192, 168, 77, number as u8),
            cable: format!("c{number}"),
            lan: self.name.clone(),
        };
        let (space, cable) = (machine.namespace.as_str(), machine.cable.as_str());
        let _ = output("ip", &["netns", "del", space]);
        run("ip", &["netns", "add", space])?;
        self.machines.push(machine.namespace.clone());
        run("ip", &["-n", &self.name, "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space])?;
        run("ip", &["-n", &self.name, "link", "set", cable, "master", "lan", "up"])?;
        run("ip", &["-n", space, "link", "set", "lo", "up"])?;
        run("ip", &["-n", space, "addr", "add", &format!("{}/24", machine.address), "dev", "eth0"])?;
        run("ip", &["-n", space, "link", "set", "eth0", "up"])?;
        run("ip", &["-n", space, "route", "add", "default", "dev", "eth0"])?;
        Ok(machine)
    }

    /// A LAN that an earlier process left, to be taken away.
    pub fn found(name: &str) -> Self {
        Self { name: format!("{PREFIX}-{name}"), machines: Vec::new() }
    }

    /// Connects this machine itself to the LAN, at 192.168.77.254, so that a person can look at the nodes.
    ///
    /// # Errors
    /// When the cable cannot be made.
    pub fn connect_host(&self) -> Result<()> {
        run("ip", &["link", "add", &self.name, "type", "veth", "peer", "name", "host", "netns", &self.name])?;
        run("ip", &["-n", &self.name, "link", "set", "host", "master", "lan", "up"])?;
        run("ip", &["addr", "add", "192.168.77.254/24", "dev", &self.name])?;
        run("ip", &["link", "set", &self.name, "up"]).map(|_| ())
    }

    fn clear(&self) {
        let _ = output("ip", &["link", "del", &self.name]); // the cable to this machine; most have none
        let listed = run("ip", &["netns", "list"]).unwrap_or_default();
        for line in listed.lines() {
            let name = line.split(' ').next().unwrap_or_default();
            if name == self.name || name.starts_with(&format!("{}-", self.name)) {
                let _ = output("ip", &["netns", "del", name]);
            }
        }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Machine {
    /// A machine of a LAN that an earlier process left. Its cable and address are not known.
    pub fn found(lan: &str, name: &str) -> Self {
        let lan = format!("{PREFIX}-{lan}");
        let namespace = format!("{lan}-{name}");
        Self { namespace, address: Ipv4Addr::UNSPECIFIED, cable: String::new(), lan }
    }

    /// Pulls the cable out, or puts it back.
    ///
    /// # Errors
    /// When there is no such cable.
    pub fn plug(&self, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        run("ip", &["-n", &self.lan, "link", "set", &self.cable, state]).map(|_| ())
    }

    /// A device in its namespace by which a virtual machine has the cable instead: what it sends goes out, and what comes for it goes in.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn tap(&self) -> Result<&'static str> {
        const TAP: &str = "tap0";
        let space = self.namespace.as_str();
        for left in ["in", TAP] {
            let _ = output("ip", &["-n", space, "link", "del", left]); // of a machine that was here before
        }
        run("ip", &["-n", space, "link", "add", "in", "type", "bridge", "mcast_snooping", "0"])?;
        run("ip", &["-n", space, "addr", "flush", "dev", "eth0"])?;
        run("ip", &["-n", space, "link", "set", "eth0", "master", "in"])?;
        run("ip", &["-n", space, "tuntap", "add", TAP, "mode", "tap"])?;
        for (device, more) in [(TAP, &["master", "in"][..]), ("in", &[])] {
            run("ip", &[&["-n", space, "link", "set", device], more, &["up"]].concat())?;
        }
        Ok(TAP)
    }

    /// Has the LAN carry nothing between this machine and others that are isolated: they have no cable to each other.
    ///
    /// # Errors
    /// When there is no such cable.
    pub fn isolate(&self) -> Result<()> {
        run("ip", &["-n", &self.lan, "link", "set", &self.cable, "type", "bridge_slave", "isolated", "on"]).map(|_| ())
    }

    /// What the nodes that run here call what they make on a machine, as their gateway devices tell: `sb-INSTANCE`.
    ///
    /// # Errors
    /// When the machine cannot be entered.
    pub fn instances(&self) -> Result<Vec<String>> {
        let devices = run("ip", &["-n", &self.namespace, "-o", "link"])?;
        let names = devices.lines().filter_map(|line| line.split(": ").nth(1));
        Ok(names.filter_map(|name| name.strip_prefix("sb-")).map(str::to_owned).collect())
    }

    /// The processes of the containers of the nodes that run here, by their cgroups.
    ///
    /// # Errors
    /// When the machine cannot be entered.
    pub fn processes(&self) -> Result<BTreeSet<u32>> {
        let groups: Vec<String> = self.instances()?.iter().map(|instance| format!("kubelet-{instance}")).collect();
        let is_ours = |pid: &u32| {
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default(); // it may have ended
            groups.iter().any(|group| cgroups.contains(group))
        };
        let all = std::fs::read_dir("/proc")?.flatten();
        Ok(all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect())
    }

    /// Whether its network namespace is there.
    pub fn exists(&self) -> bool {
        Path::new("/run/netns").join(&self.namespace).exists()
    }

    /// The command line that runs a program on this machine. `nsenter` and not `ip netns exec`, which would hide cgroup v1.
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.namespace)]
    }
}

/// The cgroups that a node of this instance has on this machine, whichever version they are.
pub fn cgroups_of(instance: &str) -> Vec<PathBuf> {
    let mount = Path::new("/sys/fs/cgroup");
    let controllers = std::fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = std::iter::once(mount.to_owned()).chain(controllers);
    places.map(|place| place.join(format!("kubelet-{instance}"))).filter(|path| path.exists()).collect()
}
