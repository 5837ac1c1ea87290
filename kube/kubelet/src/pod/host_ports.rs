//! Ports of the machine that lead to a pod: `hostPort`, at one address of the machine (`hostIP`) or at all of them. No effects.
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use substrate_network::{HostPort, Protocol};

/// The ports that a pod with a network of its own wants; each that cannot be had is left out, see [`refused`].
pub fn wanted(pod: &Pod) -> Vec<HostPort> {
    super::all_containers(pod).flat_map(|c| c.ports.clone().unwrap_or_default()).filter_map(|p| one(&p).ok()?).collect()
}

/// Why a port of a container cannot be had; `dual` says whether pods have both families.
pub fn refused(port: &ContainerPort, dual: bool) -> Option<&'static str> {
    match one(port) {
        Ok(Some(HostPort { address: Some(IpAddr::V6(_)), .. })) if !dual => Some("hostIP of IPv6"),
        other => other.err(),
    }
}

fn one(port: &ContainerPort) -> Result<Option<HostPort>, &'static str> {
    let Some(number) = port.host_port.filter(|number| *number != 0) else { return Ok(None) };
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some(_) => return Err("hostPort for SCTP"),
    };
    let address = match port.host_ip.as_deref().filter(|text| !text.is_empty()).map(str::parse::<IpAddr>) {
        Some(Err(_)) => return Err("hostIP that is no address"),
        // From there the kernel sends to no pod.
        Some(Ok(address)) if address.is_loopback() => return Err("hostIP of the loopback"),
        Some(Ok(address)) => Some(address),
        None => None,
    };
    let port_of = |number: i32| u16::try_from(number).map_err(|_| "hostPort beyond 65535");
    Ok(Some(HostPort { address, protocol, port: port_of(number)?, to: port_of(port.container_port)? }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::net::{Ipv4Addr, Ipv6Addr};

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn ports_of_all_containers() {
        let ports = |port: Value| {
            let pod = json!({"metadata": {}, "spec": {
                "initContainers": [{"name": "i", "ports": [port]}],
                "containers": [{"name": "c", "ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 0}]}]}});
            wanted(&serde_json::from_value(pod).unwrap())
        };
        let expected = |address, protocol| vec![HostPort { address, protocol, port: 80, to: 8080 }];
        let port = |more: Value| {
            let mut port = json!({"containerPort": 8080, "hostPort": 80});
            port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            port
        };
        assert_eq!(ports(port(json!({}))), expected(None, Protocol::Tcp));
        assert_eq!(
            ports(port(json!({"protocol": "UDP", "hostIP": "0.0.0.0"}))),
            expected(Some(Ipv4Addr::UNSPECIFIED.into()), Protocol::Udp)
        );
        let at = Some(Ipv4Addr::new(192, 0, 2, 1).into());
        assert_eq!(ports(port(json!({"hostIP": "192.0.2.1"}))), expected(at, Protocol::Tcp));
        for (more, why) in [
            (json!({"protocol": "SCTP"}), "hostPort for SCTP"),
            (json!({"hostIP": "::1"}), "hostIP of the loopback"),
            (json!({"hostIP": "x"}), "hostIP that is no address"),
            (json!({"hostIP": "127.0.0.1"}), "hostIP of the loopback"),
        ] {
            assert!(ports(port(more.clone())).is_empty());
            assert_eq!(refused(&serde_json::from_value(port(more)).unwrap(), true), Some(why));
        }
        let v6 = || port(json!({"hostIP": "2001:db8::1"}));
        let at = Some("2001:db8::1".parse::<Ipv6Addr>().unwrap().into());
        assert_eq!(ports(v6()), expected(at, Protocol::Tcp));
        for (dual, why) in [(true, None), (false, Some("hostIP of IPv6"))] {
            assert_eq!(refused(&serde_json::from_value(v6()).unwrap(), dual), why);
        }
    }
}
