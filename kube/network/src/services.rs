//! From Services and EndpointSlices to the ports that rules are made of. No effects.
//!
//! An endpoint is *used* if it is ready. If a Service has no ready endpoint, those that still serve while they terminate
//! are used, so that a roll-out on one machine loses nothing (KEP-1669). With the traffic policy `Local` only endpoints on this machine are
//! used, of calls from pods (`internalTrafficPolicy`) or of those to a node port, an external address or a load balancer's
//! (`externalTrafficPolicy`); pods that call those are inside.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::Cidr;
use crate::here::Here;
use crate::rules::ServicePort;
use engine_packets::Address;
use engine_packets::nftables::Protocol;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a Service names another proxy than this one.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// EndpointSlices by namespace and Service.
pub(crate) type Slices = BTreeMap<(String, String), Vec<Arc<EndpointSlice>>>;

/// Slices of addresses of the family, by the Service that they name.
pub(crate) fn by_service<A: Address>(slices: &[Arc<EndpointSlice>]) -> Slices {
    let family = if A::BITS == 32 { "IPv4" } else { "IPv6" };
    sorted(slices.iter().filter(|slice| slice.address_type == family))
}

/// Slices of addresses of either family, by the Service that they name.
pub(crate) fn all_by_service(slices: &[Arc<EndpointSlice>]) -> Slices {
    sorted(slices.iter().filter(|slice| matches!(slice.address_type.as_str(), "IPv4" | "IPv6")))
}

fn sorted<'a>(slices: impl Iterator<Item = &'a Arc<EndpointSlice>>) -> Slices {
    let mut by_service = Slices::new();
    for slice in slices {
        let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).cloned();
        if let (Some(namespace), Some(service)) = (slice.metadata.namespace.clone(), service) {
            by_service.entry((namespace, service)).or_default().push(Arc::clone(slice));
        }
    }
    by_service
}

/// The slices of one Service.
pub(crate) fn slices_of<'a>(slices: &'a Slices, service: &Service) -> &'a [Arc<EndpointSlice>] {
    let namespace = service.metadata.namespace.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    slices.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default()
}

/// The cluster addresses of a Service in the family; none if it is headless or only a name.
pub(crate) fn cluster_addresses<A: Ord + FromStr>(spec: &ServiceSpec) -> Vec<A> {
    if spec.type_.as_deref() == Some("ExternalName") {
        return Vec::new();
    }
    let texts = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let addresses: BTreeSet<A> = texts.filter_map(|text| text.parse().ok()).collect();
    addresses.into_iter().collect()
}

/// Addresses outside of the cluster's ranges at which a Service is answered, if a packet for one comes to this machine. A pod's own
/// address is nobody else's.
struct Outside<A> {
    /// For everybody: `externalIPs`, and a load balancer's addresses.
    open: Vec<A>,
    /// A load balancer's addresses, if `loadBalancerSourceRanges` says who may call.
    guarded: Vec<A>,
    /// These ranges; those of the other family let nobody in here.
    sources: Option<Vec<Cidr<A>>>,
}

impl<A: Address> Outside<A> {
    fn of(service: &Service, here: &Here<A>) -> Outside<A> {
        let spec = service.spec.as_ref();
        let usable =
            |text: &String| text.parse().ok().filter(|address: &A| !forbidden(*address) && !here.contains(*address));
        let mut open: BTreeSet<A> =
            spec.into_iter().flat_map(|spec| spec.external_ips.iter().flatten()).filter_map(usable).collect();
        let balanced = spec.is_some_and(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
        let status = service.status.as_ref().filter(|_| balanced).and_then(|status| status.load_balancer.as_ref());
        let ingress = status.into_iter().flat_map(|status| status.ingress.iter().flatten());
        // Whose packets a `Proxy` sends with another address: they come by the node port.
        let ingress = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        let mut guarded: BTreeSet<A> = ingress.filter_map(|ingress| usable(ingress.ip.as_ref()?)).collect();
        let ranges = spec.and_then(|spec| spec.load_balancer_source_ranges.as_deref()).unwrap_or_default();
        if ranges.is_empty() {
            open.append(&mut guarded);
        }
        let sources = Some(ranges.iter().filter_map(|range| range.trim().parse().ok()).collect());
        Outside { open: open.into_iter().collect(), guarded: guarded.into_iter().collect(), sources }
    }
}

/// The ports of all Services that this machine makes work in one family, of which the slices are; pods of `here` are its own. One with a policy of its own for what comes from
/// outside is two.
pub(crate) fn ports<A: Address>(services: &[Arc<Service>], slices: &Slices, here: &Here<A>) -> Vec<ServicePort<A>> {
    let mut ports = Vec::new();
    for service in services {
        let elsewhere = service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_NAME));
        let Some(spec) = service.spec.as_ref().filter(|_| !elsewhere) else { continue };
        let addresses = cluster_addresses::<A>(spec);
        if addresses.is_empty() {
            continue;
        }
        let outside = Outside::of(service, here);
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                // SCTP: no rule, so a call is refused.
                Some(_) => continue,
            };
            let Ok(number) = u16::try_from(port.port) else { continue };
            let port_name = port.name.as_deref().unwrap_or_default();
            let of_slices = slices_of(slices, service);
            let used = |policy: &Option<String>| {
                let only = (policy.as_deref() == Some("Local")).then_some(here);
                endpoints(of_slices, port_name, protocol, only)
            };
            let inside = ServicePort {
                name: format!("{namespace}/{name}:{port_name}"),
                addresses: addresses.iter().chain(&outside.open).copied().collect(),
                protocol,
                port: number,
                node_port: None,
                external: Vec::new(),
                sources: None,
                endpoints: used(&spec.internal_traffic_policy),
                by_client: spec.session_affinity.as_deref() == Some("ClientIP"),
            };
            let from_outside = ServicePort {
                addresses: Vec::new(),
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
                external: outside.open.clone(),
                endpoints: used(&spec.external_traffic_policy),
                ..inside.clone()
            };
            if !outside.guarded.is_empty() {
                let (external, sources) = (outside.guarded.clone(), outside.sources.clone());
                ports.push(ServicePort { node_port: None, external, sources, ..from_outside.clone() });
            }
            if from_outside.endpoints == inside.endpoints {
                ports.push(ServicePort { addresses: inside.addresses, ..from_outside });
                continue;
            }
            if from_outside.node_port.is_some() || !from_outside.external.is_empty() {
                ports.push(from_outside);
            }
            ports.push(inside);
        }
    }
    ports.sort();
    ports
}

fn endpoints<A: Address>(
    slices: &[Arc<EndpointSlice>],
    port_name: &str,
    protocol: Protocol,
    only: Option<&Here<A>>,
) -> Vec<(A, u16)> {
    let mut ready = BTreeSet::new();
    let mut leaving = BTreeSet::new();
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|port| {
            let same = port.protocol.as_deref().unwrap_or("TCP").eq_ignore_ascii_case(protocol.name());
            same && port.name.as_deref().unwrap_or_default() == port_name
        });
        let Some(number) = port.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        for endpoint in &slice.endpoints {
            let in_use = |address: &A| only.is_none_or(|here| here.contains(*address));
            let Some(address) = address(endpoint).filter(in_use) else { continue };
            if is_ready(endpoint) {
                ready.insert((address, number));
            } else if is_leaving(endpoint) {
                leaving.insert((address, number));
            }
        }
    }
    if ready.is_empty() { leaving } else { ready }.into_iter().collect()
}

/// The endpoint's address, unless it is one that Kubernetes forbids for endpoints: connections of everybody would be led
/// to what a machine offers only to itself.
pub(crate) fn address<A: FromStr + Into<IpAddr> + Copy>(endpoint: &Endpoint) -> Option<A> {
    endpoint.addresses.first()?.parse().ok().filter(|address: &A| !forbidden(*address))
}

fn forbidden(address: impl Into<IpAddr>) -> bool {
    let address = address.into();
    let special = match address {
        IpAddr::V4(address) => address.is_link_local(),
        // An IPv4 address in the clothes of the other family (RFC 4291, section 2.5.5.2) is not judged as what it is.
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    special || address.is_loopback() || address.is_unspecified() || address.is_multicast()
}

/// Absent means yes (`EndpointConditions.ready`).
pub(crate) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_leaving(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().is_some_and(|c| c.serving.unwrap_or(false) && c.terminating.unwrap_or(false))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::net::{Ipv4Addr, Ipv6Addr};

    use serde_json::{Value, json};

    use super::*;

    /// `service("d/web", "10.96.0.5", …)`.
    pub fn service(name: &str, cluster_ip: &str, more: Value) -> Arc<Service> {
        let (namespace, name) = name.split_once('/').unwrap();
        let mut spec = json!({"clusterIP": cluster_ip, "ports": [{"name": "http", "port": 80}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Arc::new(
            serde_json::from_value(json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})).unwrap(),
        )
    }

    /// Endpoints as `[address, state]`; states are `ready`, `unready`, `leaving`, or a hostname, which is ready.
    pub fn slice(service: &str, endpoints: &[(&str, &str)]) -> Arc<EndpointSlice> {
        let (namespace, name) = service.split_once('/').unwrap();
        let family = if endpoints.iter().any(|(address, _)| address.contains(':')) { "IPv6" } else { "IPv4" };
        let endpoints: Vec<Value> = endpoints
            .iter()
            .map(|(address, state)| match *state {
                "ready" => json!({"addresses": [address]}),
                "unready" => json!({"addresses": [address], "conditions": {"ready": false}}),
                "leaving" => json!({"addresses": [address],
                    "conditions": {"ready": false, "serving": true, "terminating": true}}),
                hostname => json!({"addresses": [address], "hostname": hostname}),
            })
            .collect();
        Arc::new(serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": format!("{name}-1"), "labels": {SERVICE_NAME: name}},
            "addressType": family, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        }))
        .unwrap())
    }

    fn check(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let here: Cidr = "10.1.0.0/24".parse().unwrap();
        let ports = ports::<Ipv4Addr>(services, &by_service::<Ipv4Addr>(slices), &Here::of(here));
        let show = |port: ServicePort| {
            let to: Vec<String> = port.endpoints.iter().map(|(address, port)| format!("{address}:{port}")).collect();
            let protocol = port.protocol.name();
            format!(
                "{} {:?} {protocol} {} {:?}{}{} -> {}",
                port.name,
                port.addresses,
                port.port,
                port.node_port,
                if port.external.is_empty() { String::new() } else { format!(" outside {:?}", port.external) },
                port.sources.map(|sources| format!(" for {sources:?}")).unwrap_or_default(),
                to.join(" ")
            )
        };
        ports.into_iter().map(show).collect()
    }

    #[test]
    fn ready_endpoints_are_used() {
        let web = service("d/web", "10.96.0.5", json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}]}));
        let slices = [
            slice("d/web", &[("10.1.0.3", "ready"), ("10.1.0.2", "unready"), ("10.1.0.9", "leaving")]),
            slice(
                "d/web",
                &[("10.1.0.3", "ready"), ("10.1.0.4", "ready"), ("127.0.0.1", "ready"), ("169.254.169.254", "ready")],
            ),
            slice("other/web", &[("10.1.0.5", "ready")]),
        ];
        assert_eq!(
            check(&[web], &slices),
            ["d/web:http [10.96.0.5] tcp 80 Some(30080) -> 10.1.0.3:8080 10.1.0.4:8080"]
        );
    }

    #[test]
    fn each_family_has_its_own() {
        let of = |addresses: Value| {
            let port = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
            let web = service(
                "d/web",
                addresses[0].as_str().unwrap(),
                json!({"clusterIPs": addresses, "ports": port,
                "externalIPs": ["2001:db8::7", "fd00:1::7", "fe80::1", "::ffff:192.0.2.1", "192.0.2.7"]}),
            );
            let slices = [
                slice("d/web", &[("10.1.0.3", "ready")]),
                slice("d/web", &[("fd00:1::3", "ready"), ("::1", "ready"), ("::ffff:127.0.0.1", "ready")]),
            ];
            let here = "fd00:1::/64".parse().unwrap();
            let v6 = ports::<Ipv6Addr>(std::slice::from_ref(&web), &by_service::<Ipv6Addr>(&slices), &Here::of(here));
            let v4 = check(&[web], &slices).len();
            (v4, v6.into_iter().map(|port| (port.addresses, port.node_port, port.endpoints)).collect::<Vec<_>>())
        };
        let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        let told = vec![(vec![v6("fd00:9::5"), v6("2001:db8::7")], Some(30080), vec![(v6("fd00:1::3"), 8080)])];
        assert_eq!(of(json!(["10.96.0.5", "fd00:9::5"])), (1, told.clone()));
        assert_eq!(of(json!(["fd00:9::5"])), (0, told));
        assert_eq!(of(json!(["10.96.0.5"])), (1, vec![]));
    }

    #[test]
    fn endpoints_that_leave_are_used_when_nothing_is_ready() {
        let web = service("d/web", "10.96.0.5", json!({}));
        let slices = [slice("d/web", &[("10.1.0.2", "unready"), ("10.1.0.9", "leaving")])];
        assert_eq!(check(&[web], &slices), ["d/web:http [10.96.0.5] tcp 80 None -> 10.1.0.9:8080"]);
    }

    #[test]
    fn local_traffic_stays_on_the_machine() {
        let of = |more: Value| {
            let mut spec = json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let slices = [slice("d/web", &[("10.1.0.3", "ready"), ("10.9.0.4", "ready")])];
            check(&[service("d/web", "10.96.0.5", spec)], &slices)
        };
        let both = "d/web:http [10.96.0.5] tcp 80 Some(30080) -> 10.1.0.3:8080 10.9.0.4:8080";
        assert_eq!(of(json!({"internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster"})), [both]);
        let outside = [
            "d/web:http [] tcp 80 Some(30080) -> 10.1.0.3:8080",
            "d/web:http [10.96.0.5] tcp 80 None -> 10.1.0.3:8080 10.9.0.4:8080",
        ];
        assert_eq!(of(json!({"externalTrafficPolicy": "Local"})), outside);
        let inside = [
            "d/web:http [] tcp 80 Some(30080) -> 10.1.0.3:8080 10.9.0.4:8080",
            "d/web:http [10.96.0.5] tcp 80 None -> 10.1.0.3:8080",
        ];
        assert_eq!(of(json!({"internalTrafficPolicy": "Local"})), inside);
    }

    #[test]
    fn addresses_outside_of_the_cluster() {
        let of = |more: Value, balancer: Value| {
            let mut spec = json!({"ports": [{"name": "http", "port": 80, "nodePort": 30080}], "type": "LoadBalancer"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let mut web = Service::clone(&service("d/web", "10.96.0.5", spec));
            web.status = serde_json::from_value(json!({"loadBalancer": {"ingress": balancer}})).unwrap();
            check(&[Arc::new(web)], &[slice("d/web", &[("10.1.0.3", "ready"), ("10.9.0.4", "ready")])])
        };
        let balancer =
            || json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "192.0.2.9", "ipMode": "Proxy"}, {"hostname": "x"}]);
        let (all, here) = ("10.1.0.3:8080 10.9.0.4:8080", "10.1.0.3:8080");
        // What is a pod's, or the machine's own, is not taken.
        let external = json!({"externalIPs": ["198.51.100.7", "10.1.0.9", "127.0.0.1"]});
        let one =
            "d/web:http [10.96.0.5, 192.0.2.1, 198.51.100.7] tcp 80 Some(30080) outside [192.0.2.1, 198.51.100.7]";
        assert_eq!(of(external, balancer()), [format!("{one} -> {all}")]);
        assert_eq!(
            of(json!({"externalTrafficPolicy": "Local"}), balancer()),
            [
                format!("d/web:http [] tcp 80 Some(30080) outside [192.0.2.1] -> {here}"),
                format!("d/web:http [10.96.0.5, 192.0.2.1] tcp 80 None -> {all}"),
            ]
        );
        let guarded = |ranges: Value| of(json!({"loadBalancerSourceRanges": ranges}), balancer());
        let for_some = |who: &str| {
            let outside = format!("d/web:http [] tcp 80 None outside [192.0.2.1] for {who} -> {all}");
            [outside, format!("d/web:http [10.96.0.5] tcp 80 Some(30080) -> {all}")]
        };
        let range: Cidr = "203.0.113.0/24".parse().unwrap();
        assert_eq!(guarded(json!([" 203.0.113.0/24"])), for_some(&format!("[{range:?}]")));
        assert_eq!(guarded(json!(["2001:db8::/32"])), for_some("[]"), "nobody of IPv4");
        let plain = "d/web:http [10.96.0.5] tcp 80 Some(30080) -> 10.1.0.3:8080 10.9.0.4:8080";
        assert_eq!(of(json!({"type": "NodePort"}), balancer()), [plain], "no balancer any more");
    }

    #[test]
    fn headless_external_and_others_services_have_no_ports_here() {
        let mut elsewhere = Service::clone(&service("d/elsewhere", "10.96.0.6", json!({})));
        elsewhere.metadata.labels = Some([(PROXY_NAME.to_owned(), "mesh".to_owned())].into());
        let services = [
            service("d/headless", "None", json!({})),
            service("d/name", "10.96.0.7", json!({"type": "ExternalName", "externalName": "example.org"})),
            Arc::new(elsewhere),
        ];
        assert!(check(&services, &[]).is_empty());
        let sctp = service("d/sctp", "10.96.0.8", json!({"ports": [{"port": 1, "protocol": "SCTP"}, {"port": 2}]}));
        assert_eq!(check(&[sctp], &[]), ["d/sctp: [10.96.0.8] tcp 2 None -> "]);
    }
}
