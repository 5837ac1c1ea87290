//! The other family: whether a node has it, and what is set up for it.
//!
//! ```text
//!   pod eth0: ADDRESS/128, default via fe80::1        machine: fe80::1 on each cable, ADDRESS/128 by its cable
//! ```
//! An IPv6 machine answers who asks for an address only on the device that has it, so the pods' way out is an address that each cable has,
//! not the gateway's. Nobody else is on a cable, so no address is asked for before it is used (RFC 4862, section 5.4), and no router is
//! listened to.
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::path::Path;

use engine_packets::route::{Route, Routing};
use tracing::{info, warn};

use super::saved::{Saved, load};
use super::{NodeNetwork, Options, sysctl};
use crate::rules::View;
use crate::{Cidr, Error, Ipv6};

/// The machine, as each pod knows it.
const CABLE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

impl NodeNetwork {
    /// The ranges of IPv6 that the network of these options will have: `wanted`, unless the kernel has no IPv6 or not all of the rules for
    /// it, or an earlier run in the same directory began without. Why not is told in the log.
    ///
    /// # Errors
    /// What an earlier run left cannot be read.
    pub async fn dual(options: &Options, wanted: Ipv6) -> Result<Option<Ipv6>, Error> {
        let options = options.clone();
        super::blocking("look for IPv6", move || {
            if load(&options)?.is_some_and(|saved| saved.ipv6 != Some(wanted)) {
                info!("the network of pods began with IPv4 alone and stays so");
                return Ok(None);
            }
            match engine_packets::probe::ipv6() {
                Ok(()) => Ok(Some(wanted)),
                Err(error) => {
                    warn!(%error, "the kernel has no IPv6, or not the rules for it: pods and Services have IPv4 alone");
                    Ok(None)
                }
            }
        })
        .await
    }
}

/// What the rules of IPv6 are made from at first.
pub(super) fn view(of: &View, ranges: Ipv6, saved: &Saved) -> View<Ipv6Addr> {
    View {
        instance: of.instance.clone(),
        pod_range: ranges.pods,
        service_range: ranges.services,
        gateway: Ipv6Addr::from_bits(ranges.pods.network().to_bits().saturating_add(1)),
        services: Vec::new(),
        fabric: Vec::new(),
        machines: Vec::new(),
        confined: saved.effective_v6(),
        isolated: Vec::new(),
        published: saved.published(|_| None),
        plugged: Default::default(),
    }
}

/// Gives the gateway's device its address and the routes of the ranges, and lets the machine send on what is not for itself.
pub(super) fn open(routing: &mut Routing, view: &View<Ipv6Addr>) -> Result<(), Error> {
    let name = view.gateway_device();
    let refused = |what: &'static str| {
        let name = name.clone();
        move |error| Error::netlink(format!("{what} {name}"), error)
    };
    let device = routing.link(&name).map_err(refused("find"))?;
    let device = device.ok_or_else(|| refused("find")(io::Error::from_raw_os_error(nix::libc::ENODEV)))?;
    on(&name)?;
    let bits = view.pod_range.prefix_len();
    routing.add_address(device, view.gateway, bits).map_err(refused("give an IPv6 address to"))?;
    let services = Route {
        to: view.service_range,
        device,
        gateway: None,
        source: Some(view.gateway),
        metric: Some(1000 + device),
    };
    routing.replace_route(services).map_err(refused("route Services of IPv6 to"))?;
    forward()
}

/// Makes the machine a router. One that has its own way out from a router keeps listening to it, which a router otherwise does not
/// (`accept_ra` in the kernel's ip-sysctl.rst).
fn forward() -> Result<(), Error> {
    let all = Path::new("/proc/sys/net/ipv6/conf");
    if fs::read_to_string(all.join("all/forwarding")).is_ok_and(|found| found.trim() == "1") {
        return Ok(());
    }
    let devices = fs::read_dir(all).map_err(|error| Error::file("read", all, error))?;
    for device in devices.flatten() {
        let listens = device.path().join("accept_ra");
        if fs::read_to_string(&listens).is_ok_and(|found| found.trim() == "1") {
            match fs::write(&listens, "2") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::file("write", &listens, error));
                }
                // A device may go at any time.
                _ => {}
            }
        }
    }
    sysctl("net/ipv6/conf/all/forwarding", "1")
}

/// Leads the pod's address to its cable.
pub(super) fn lead(routing: &mut Routing, cable: u32, pod: Ipv6Addr, gateway: Ipv6Addr) -> io::Result<()> {
    routing.add_address(cable, CABLE, 64)?;
    let to = Cidr::host(pod);
    routing.replace_route(Route { to, device: cable, gateway: None, source: Some(gateway), metric: None })
}

/// The pod's end, in its namespace.
pub(super) fn set_up_pod(routing: &mut Routing, device: u32, address: Ipv6Addr) -> io::Result<()> {
    routing.add_address(device, address, 128)?;
    routing.replace_route(Route { to: Cidr::any(), device, gateway: Some(CABLE), source: None, metric: None })
}

/// Switches IPv6 on for a device that has nobody at its other end but us.
pub(super) fn on(device: &str) -> Result<(), Error> {
    for (name, value) in [("disable_ipv6", "0"), ("accept_dad", "0"), ("accept_ra", "0")] {
        sysctl(&format!("net/ipv6/conf/{device}/{name}"), value)?;
    }
    Ok(())
}

pub(super) fn off(device: &str) -> Result<(), Error> {
    // A kernel without IPv6 has nothing to switch off.
    if Path::new("/proc/sys/net/ipv6").exists() {
        sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
