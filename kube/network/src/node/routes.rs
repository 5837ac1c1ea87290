//! Which ranges lead away from this machine: to peers by devices of the fabric, to other machines of the cluster by their addresses.
//!
//! ```text
//!  set_routes    RANGE ─▶ dev DEVICE          set_machines   RANGE ─▶ via MACHINE          both: source GATEWAY
//! ```
//! The machine's own packets carry the gateway's address, the only one of this node that others know.
use std::io;
use std::net::Ipv6Addr;

use engine_packets::Address;
use engine_packets::route::{Route, Routing};
use nix::libc::ENODEV;

use super::{Inner, State, gone};
use crate::rules::View;
use crate::{Both, Error, FabricRoute, MachineRoute};

impl Inner {
    pub(super) fn set_routes(&self, wanted: Vec<FabricRoute>) -> Result<(), Error> {
        let mut state = self.state();
        let route = |to, device| Route { to, device, gateway: None, source: Some(self.gateway), metric: None };
        let kept: Vec<FabricRoute> = state.view.fabric.clone();
        for stale in kept.iter().filter(|route| !wanted.contains(route)) {
            let refused = |error| Error::netlink(format!("remove the route to {}", stale.to), error);
            // With its device a route is gone already.
            if let Some(device) = state.routing.link(&stale.device).map_err(refused)? {
                gone(state.routing.delete_route(route(stale.to, device))).map_err(refused)?;
            }
        }
        for wanted in &wanted {
            let refused = |error| Error::netlink(format!("route {} to {}", wanted.to, wanted.device), error);
            let device = state.routing.link(&wanted.device).map_err(refused)?;
            let device = device.ok_or_else(|| refused(io::Error::from_raw_os_error(ENODEV)))?;
            state.routing.replace_route(route(wanted.to, device)).map_err(refused)?;
        }
        state.change(|view, _| view.fabric = wanted)
    }

    pub(super) fn set_machines(
        &self,
        wanted: Both<Vec<MachineRoute>, Vec<MachineRoute<Ipv6Addr>>>,
    ) -> Result<(), Error> {
        let mut state = self.state();
        let State { routing, view, view_v6, .. } = &mut *state;
        let (held, done) = lead(routing, view, wanted.v4)?;
        let (held_v6, done_v6) = match view_v6 {
            Some(view) => lead(routing, view, wanted.v6)?,
            None => (Vec::new(), Ok(())),
        };
        state.change(|view, view_v6| {
            view.machines = held;
            if let Some(view) = view_v6 {
                view.machines = held_v6;
            }
        })?;
        done.and(done_v6)
    }
}

/// Those that are led to, and what the kernel said of one that is not.
type Led<A> = (Vec<MachineRoute<A>>, Result<(), Error>);

/// Leads to these machines and to no others that `view` knows.
fn lead<A: Address>(routing: &mut Routing, view: &View<A>, wanted: Vec<MachineRoute<A>>) -> Result<Led<A>, Error> {
    // The kernel finds the device by the other machine's address.
    let route = |MachineRoute { to, via }: MachineRoute<A>| Route {
        to,
        device: 0,
        gateway: Some(via),
        source: Some(view.gateway),
        metric: None,
    };
    let failed = |what, MachineRoute { to, via }: MachineRoute<A>| {
        move |error| Error::netlink(format!("{what} {to} via {via}"), error)
    };
    for stale in view.machines.iter().copied().filter(|known| !wanted.contains(known)) {
        gone(routing.delete_route(route(stale))).map_err(failed("remove the route to", stale))?;
    }
    let (mut held, mut done) = (Vec::new(), Ok(()));
    for wanted in wanted {
        match routing.replace_route(route(wanted)).map_err(failed("route", wanted)) {
            Ok(()) => held.push(wanted),
            Err(error) => done = Err(error),
        }
    }
    Ok((held, done))
}
