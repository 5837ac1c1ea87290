//! Services of type `LoadBalancer` where no cloud is: the machines' own addresses are the balancer's.
//!
//! ```text
//!  Services, Nodes, EndpointSlices ──▶ plan: whose addresses, which ports are free there ──▶ act: status.loadBalancer.ingress
//! ```
//! A Service gets each address of a ready node at which all of its ports are free; two Services share an address with different ports,
//! and who has one keeps it. With `externalTrafficPolicy: Local` only nodes with an endpoint count. Nodes that say nothing of an address
//! (those of other owners) and those labelled `node.kubernetes.io/exclude-from-external-load-balancers` have none to give. Services with a
//! `loadBalancerClass` are somebody else's.
//!
//! It gets those of its families (`spec.ipFamilies`).
//!
//! Limits: a port that a program of the machine has is not known here: the Service wins.
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::endpoint_slice::SERVICE_NAME;
use crate::objects::{name, namespace, uid};
use crate::recorder::{Kind, Recorder};
use crate::work::{Caches, Next, Rounds};

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Keeps the addresses until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let recorder = Recorder { client: client.clone(), component: "service-controller" };
    let changes = vec![caches.services.changes(), caches.nodes.changes(), caches.slices.changes()];
    let mut rounds = Rounds::begin(changes).await;
    let mut told = BTreeMap::new();
    loop {
        let plans = plan(&caches.services.list(), &caches.nodes.list(), &caches.slices.list());
        rounds.wait(act(&client, &recorder, plans, &mut told).await).await;
    }
}

/// What one Service should have.
struct Plan {
    service: Arc<Service>,
    addresses: Vec<IpAddr>,
    /// Why there are none, in words for its owner.
    refused: Option<String>,
}

async fn act(client: &Client, recorder: &Recorder, plans: Vec<Plan>, told: &mut BTreeMap<String, String>) -> Next {
    let mut next = Next::default();
    told.retain(|known, _| plans.iter().any(|plan| uid(&plan.service.metadata) == known));
    for Plan { service, addresses, refused } in plans {
        let metadata = &service.metadata;
        let of = ("v1", "Service", metadata);
        if given(&service) != addresses {
            let ingress: Vec<_> = addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
            let status = json!({"loadBalancer": {"ingress": ingress}});
            let patch =
                Patch::Merge(json!({"metadata": {"resourceVersion": metadata.resource_version}, "status": status}));
            let api: Api<Service> = Api::namespaced(client.clone(), namespace(metadata));
            let result = api.patch_status(name(metadata), &PatchParams::default(), &patch).await;
            if result.is_ok() && !addresses.is_empty() {
                recorder.event(of, Kind::Normal, "EnsuredLoadBalancer", "Ensured load balancer").await;
            }
            next.judge("Service", metadata, result.map(|_| ()));
        }
        match refused.map(|why| format!("Error syncing load balancer: {why}")) {
            None => _ = told.remove(uid(metadata)),
            Some(why) if told.get(uid(metadata)) == Some(&why) => {}
            Some(why) => {
                recorder.event(of, Kind::Warning, "SyncLoadBalancerFailed", &why).await;
                told.insert(uid(metadata).to_owned(), why);
            }
        }
    }
    next
}

/// One for each Service that has, or should have, addresses of ours.
fn plan(services: &[Arc<Service>], nodes: &[Arc<Node>], slices: &[Arc<EndpointSlice>]) -> Vec<Plan> {
    let nodes = offered(nodes);
    let class = |service: &Service| service.spec.as_ref().and_then(|spec| spec.load_balancer_class.clone());
    let mut ours: Vec<&Arc<Service>> = services.iter().filter(|service| class(service).is_none()).collect();
    // Who has an address keeps it, then who came first.
    ours.sort_by_key(|s| {
        (given(s).is_empty(), s.metadata.creation_timestamp.clone(), namespace(&s.metadata), name(&s.metadata))
    });
    let mut taken = Taken::new();
    let of = |service: &&Arc<Service>| {
        let (addresses, refused) = match balanced(service) {
            false if given(service).is_empty() => return None,
            false => (Vec::new(), None),
            true => match choose(service, &nodes, slices, &mut taken) {
                Ok(addresses) => (addresses, None),
                Err(why) => (Vec::new(), Some(why)),
            },
        };
        Some(Plan { service: Arc::clone(service), addresses, refused })
    };
    ours.iter().filter_map(of).collect()
}

/// Who has a port of an address.
type Taken = BTreeMap<(IpAddr, String, i32), String>;

fn choose(
    service: &Service,
    nodes: &BTreeMap<String, Vec<IpAddr>>,
    slices: &[Arc<EndpointSlice>],
    taken: &mut Taken,
) -> Result<Vec<IpAddr>, String> {
    let Some(spec) = &service.spec else { return Ok(Vec::new()) };
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let with_endpoint = local.then(|| nodes_with_endpoint(service, slices));
    let has_endpoint = |node: &String| with_endpoint.as_ref().is_none_or(|nodes| nodes.contains(node));
    let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
    let has_family = |address: &IpAddr| families.iter().any(|family| (family == "IPv4") == address.is_ipv4());
    let of_nodes = nodes.iter().filter(|(node, _)| has_endpoint(node)).flat_map(|(_, addresses)| addresses.clone());
    let mut candidates: BTreeSet<IpAddr> = of_nodes.filter(has_family).collect();
    if let Some(asked) = spec.load_balancer_ip.as_deref().filter(|asked| !asked.is_empty()) {
        let all: BTreeSet<String> = nodes.values().flatten().map(IpAddr::to_string).collect();
        if !all.contains(asked) {
            let all: Vec<String> = all.into_iter().collect();
            return Err(format!("spec.loadBalancerIP {asked} is no node's address; there are: {}", all.join(", ")));
        }
        candidates.retain(|address| address.to_string() == asked);
    }
    let ports: Vec<(String, i32)> =
        spec.ports.iter().flatten().map(|port| (port.protocol.clone().unwrap_or("TCP".into()), port.port)).collect();
    let (mut free, mut used) = (Vec::new(), None);
    for address in &candidates {
        let at = |(protocol, port): &(String, i32)| (*address, protocol.clone(), *port);
        match ports.iter().find_map(|port| Some((port, taken.get(&at(port))?))) {
            None => free.push(*address),
            Some(((protocol, port), by)) => used = Some(format!("port {port}/{protocol} of {address} is used by {by}")),
        }
    }
    let title = format!("{}/{}", namespace(&service.metadata), name(&service.metadata));
    for address in &free {
        taken.extend(ports.iter().map(|(protocol, port)| ((*address, protocol.clone(), *port), title.clone())));
    }
    match used {
        Some(used) if free.is_empty() => Err(used),
        None if nodes.is_empty() => Err("no node has an address to give".into()),
        _ => Ok(free),
    }
}

/// The nodes whose addresses are given away: those that are ready, or all if none is, for a restart should not move a balancer.
fn offered(nodes: &[Arc<Node>]) -> BTreeMap<String, Vec<IpAddr>> {
    let excluded = |node: &Node| node.metadata.labels.iter().flatten().any(|(key, _)| key == EXCLUDED);
    let ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let open: Vec<&Arc<Node>> = nodes.iter().filter(|node| !excluded(node) && !addresses_of(node).is_empty()).collect();
    let any = open.iter().any(|node| ready(node));
    let counted = open.into_iter().filter(|node| !any || ready(node));
    counted.map(|node| (name(&node.metadata).to_owned(), addresses_of(node))).collect()
}

/// The addresses by which others reach a machine: external ones, else its own.
fn addresses_of(node: &Node) -> Vec<IpAddr> {
    let all = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let of = |kind: &str| -> Vec<IpAddr> {
        all.iter().filter(|address| address.type_ == kind).filter_map(|address| address.address.parse().ok()).collect()
    };
    Some(of("ExternalIP")).filter(|external| !external.is_empty()).unwrap_or_else(|| of("InternalIP"))
}

fn nodes_with_endpoint(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let of_service = |slice: &&Arc<EndpointSlice>| {
        let named = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        named == service.metadata.name.as_ref() && slice.metadata.namespace == service.metadata.namespace
    };
    let endpoints = slices.iter().filter(of_service).flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

fn balanced(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    kind == Some("LoadBalancer") && service.metadata.deletion_timestamp.is_none()
}

/// The addresses that it has now.
fn given(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    ingress.iter().filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::Value;

    use super::*;

    fn node(name: &str, address: Option<&str>, ready: bool, labels: Value) -> Arc<Node> {
        let addresses: Vec<Value> = address.iter().map(|a| json!({"type": "InternalIP", "address": a})).collect();
        let ready = json!({"type": "Ready", "status": if ready { "True" } else { "Unknown" }, "lastHeartbeatTime": null,
            "lastTransitionTime": null});
        let status = json!({"addresses": addresses, "conditions": [ready]});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap(),
        )
    }

    fn service(name: &str, port: u16, more: Value, has: &[&str]) -> Arc<Service> {
        let mut spec = json!({"type": "LoadBalancer", "ports": [{"port": port}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let ingress: Vec<Value> = has.iter().map(|ip| json!({"ip": ip})).collect();
        let object = json!({"metadata": {"namespace": "d", "name": name}, "spec": spec,
            "status": {"loadBalancer": {"ingress": ingress}}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn nodes() -> Vec<Arc<Node>> {
        vec![
            node("a", Some("192.0.2.1"), true, json!({})),
            node("b", Some("192.0.2.2"), true, json!({})),
            node("asleep", Some("192.0.2.3"), false, json!({})),
            node("kept", Some("192.0.2.4"), true, json!({ EXCLUDED: "" })),
            node("virtual", None, true, json!({})),
        ]
    }

    fn shown(services: &[Arc<Service>], nodes: &[Arc<Node>], slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let show = |plan: Plan| {
            let addresses: Vec<String> = plan.addresses.iter().map(IpAddr::to_string).collect();
            format!("{} {}{}", name(&plan.service.metadata), addresses.join(","), plan.refused.unwrap_or_default())
        };
        plan(services, nodes, slices).into_iter().map(show).collect()
    }

    #[test]
    fn a_service_has_the_addresses_of_ready_machines() {
        let web = service("web", 80, json!({}), &[]);
        assert_eq!(shown(std::slice::from_ref(&web), &nodes(), &[]), ["web 192.0.2.1,192.0.2.2"]);
        let asleep = [node("a", Some("192.0.2.1"), false, json!({}))];
        assert_eq!(shown(std::slice::from_ref(&web), &asleep, &[]), ["web 192.0.2.1"], "a restart does not move it");
        assert_eq!(shown(std::slice::from_ref(&web), &[], &[]), ["web no node has an address to give"]);
        let slice: EndpointSlice = serde_json::from_value(
            json!({"metadata": {"namespace": "d", "name": "s", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"], "nodeName": "b"},
                {"addresses": ["10.1.0.2"], "nodeName": "a", "conditions": {"ready": false}}]}),
        )
        .unwrap();
        let local = service("web", 80, json!({"externalTrafficPolicy": "Local"}), &[]);
        assert_eq!(shown(&[local], &nodes(), &[Arc::new(slice)]), ["web 192.0.2.2"]);
    }

    #[test]
    fn a_service_has_addresses_of_its_families() {
        let mut both = Node::clone(&node("a", Some("192.0.2.1"), true, json!({})));
        let more = json!({"type": "InternalIP", "address": "2001:db8::1"});
        both.status.as_mut().unwrap().addresses.as_mut().unwrap().push(serde_json::from_value(more).unwrap());
        let nodes = [Arc::new(both), node("b", Some("192.0.2.2"), true, json!({}))];
        let told = |families: Value| shown(&[service("web", 80, json!({"ipFamilies": families}), &[])], &nodes, &[]);
        assert_eq!(told(json!(null)), ["web 192.0.2.1,192.0.2.2"]);
        assert_eq!(told(json!(["IPv4"])), ["web 192.0.2.1,192.0.2.2"]);
        assert_eq!(told(json!(["IPv6"])), ["web 2001:db8::1"]);
        assert_eq!(told(json!(["IPv6", "IPv4"])), ["web 192.0.2.1,192.0.2.2,2001:db8::1"]);
    }

    #[test]
    fn a_port_has_one_owner_who_keeps_it() {
        let services = [
            service("first", 80, json!({}), &[]),
            service("has", 80, json!({}), &["192.0.2.1"]),
            service("other", 81, json!({}), &[]),
            service("udp", 80, json!({"ports": [{"port": 80, "protocol": "UDP"}]}), &[]),
        ];
        let expected = [
            "has 192.0.2.1,192.0.2.2",
            "first port 80/TCP of 192.0.2.2 is used by d/has",
            "other 192.0.2.1,192.0.2.2",
            "udp 192.0.2.1,192.0.2.2",
        ];
        assert_eq!(shown(&services, &nodes(), &[]), expected);
    }

    #[test]
    fn addresses_that_are_asked_for_and_what_is_not_ours() {
        let asked = |ip: &str| service("web", 80, json!({"loadBalancerIP": ip}), &[]);
        assert_eq!(shown(&[asked("192.0.2.2")], &nodes(), &[]), ["web 192.0.2.2"]);
        let why = "web spec.loadBalancerIP 203.0.113.9 is no node's address; there are: 192.0.2.1, 192.0.2.2";
        assert_eq!(shown(&[asked("203.0.113.9")], &nodes(), &[]), [why]);
        let elsewhere = service("web", 80, json!({"loadBalancerClass": "example.com/metal"}), &["203.0.113.9"]);
        let plain = service("plain", 80, json!({"type": "NodePort"}), &[]);
        assert!(shown(&[elsewhere, plain], &nodes(), &[]).is_empty());
        let no_more = service("was", 80, json!({"type": "ClusterIP"}), &["192.0.2.1"]);
        assert_eq!(shown(&[no_more], &nodes(), &[]), ["was "], "what it had is taken back");
    }
}
