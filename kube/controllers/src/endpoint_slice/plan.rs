//! The slices and Endpoints that should be. No effects.
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as OldPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::objects::{controller_reference, has_ended, is_ready, name, selects, uid};

/// The label by which a slice names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label by which a slice says who keeps it.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who keeps ours.
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The same for Endpoints.
pub(crate) const OLD_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Who keeps ours.
pub(crate) const OLD_MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

const IPV4: &str = "IPv4";

/// Endpoints in one slice, as in Kubernetes: a change of one pod rewrites that many.
const SLICE_MAX: usize = 100;
/// Addresses in one Endpoints object, as in Kubernetes; beyond it only the slices are complete.
const ENDPOINTS_MAX: usize = 1000;

type Ports = Vec<(Option<String>, String, i32)>;

/// The selector of a Service that is ours to follow.
pub(crate) fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    let labels = spec.selector.clone().filter(|labels| !labels.is_empty())?;
    let external = spec.type_.as_deref() == Some("ExternalName") || service.metadata.deletion_timestamp.is_some();
    (!external).then_some(LabelSelector { match_labels: Some(labels), match_expressions: None })
}

/// What should be for a Service; `pods` are those of its namespace.
pub(crate) fn plan(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSlice>, Endpoints) {
    let Some(selector) = selector(service) else { return (Vec::new(), Endpoints::default()) };
    let publish = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false);
    let pods: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| !has_ended(pod) && selects(&selector, pod.metadata.labels.as_ref())).collect();
    let mut slices: Vec<EndpointSlice> = Vec::new();
    let mut old = None;
    for family in families(service) {
        let mut groups: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
        for pod in &pods {
            if let Some(endpoint) = endpoint(service, pod, family, publish) {
                groups.entry(ports(service, pod)).or_default().push(endpoint);
            }
        }
        for endpoints in groups.values_mut() {
            endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        }
        let before = slices.len();
        for (ports, endpoints) in &groups {
            for chunk in endpoints.chunks(SLICE_MAX) {
                slices.push(slice(service, family, slices.len() - before, ports, chunk.to_vec()));
            }
        }
        if slices.len() == before {
            // So that everybody sees that there is none, not that nobody has looked.
            slices.push(slice(service, family, 0, &Ports::new(), Vec::new()));
        }
        old.get_or_insert(groups);
    }
    (slices, old_endpoints(service, old.unwrap_or_default()))
}

/// Those of a Service, of which the first is the one that the older Endpoints are of.
fn families(service: &Service) -> Vec<&str> {
    let said = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    match said {
        [] => vec![IPV4],
        said => said.iter().map(String::as_str).collect(),
    }
}

fn endpoint(service: &Service, pod: &Pod, family: &str, publish: bool) -> Option<Endpoint> {
    let status = pod.status.as_ref()?;
    let is_of = |text: &&String| text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4() == (family == IPV4));
    let mut all = status.pod_ips.iter().flatten().map(|address| &address.ip).chain(&status.pod_ip);
    let address = all.find(is_of)?.clone();
    let spec = pod.spec.as_ref()?;
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let serving = is_ready(pod);
    let named = spec.subdomain.as_deref() == Some(name(&service.metadata));
    Some(Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.hostname.clone().filter(|hostname| named && !hostname.is_empty()),
        node_name: spec.node_name.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    })
}

/// Name, protocol and number of the ports that lead to a pod. A named port that the pod does not have is left out.
fn ports(service: &Service, pod: &Pod) -> Ports {
    let wanted = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = match &port.target_port {
            None => port.port,
            Some(IntOrString::Int(0)) => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(text)) => {
                let containers = pod.spec.iter().flat_map(|spec| {
                    let sidecars = spec.init_containers.iter().flatten();
                    spec.containers.iter().chain(sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always")))
                });
                let mut all = containers.flat_map(|container| container.ports.iter().flatten());
                let same = all.find(|found| {
                    found.name.as_ref() == Some(text) && found.protocol.as_deref().unwrap_or("TCP") == protocol
                });
                same?.container_port
            }
        };
        Some((port.name.clone(), protocol, number))
    };
    wanted.filter_map(port).collect()
}

fn slice(service: &Service, family: &str, number: usize, ports: &Ports, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| key != HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let port = |(name, protocol, number): &(Option<String>, String, i32)| EndpointPort {
        name: Some(name.clone().unwrap_or_default()),
        protocol: Some(protocol.clone()),
        port: Some(*number),
        app_protocol: None,
    };
    // The family of a slice cannot change, so those of one are never named as those of the other.
    let of = if family == IPV4 { String::new() } else { format!("/{family}/") };
    let suffix = suffix(&format!("{}{of}", uid(&service.metadata)), number);
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(format!("{}-{suffix}", name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference("v1", "Service", &service.metadata)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints,
        ports: Some(ports.iter().map(port).collect()).filter(|ports: &Vec<EndpointPort>| !ports.is_empty()),
    }
}

/// Five letters that are always the same for the same slice of the same Service, so that it is never made twice.
fn suffix(uid: &str, number: usize) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in uid.bytes().chain(number.to_string().bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let letter = |place: u32| {
        let digit = hash / 27u64.pow(place) % 27;
        char::from(LETTERS[usize::try_from(digit).unwrap_or(0)])
    };
    // The low digits of FNV are the best mixed but for the last bits; five places from the third up.
    (3..8).map(letter).collect()
}

fn old_endpoints(service: &Service, groups: BTreeMap<Ports, Vec<Endpoint>>) -> Endpoints {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(OLD_MANAGED_BY.to_owned(), OLD_MANAGER.to_owned());
    let mut subsets = Vec::new();
    let mut room = ENDPOINTS_MAX;
    for (ports, endpoints) in groups {
        let (mut ready, mut unready) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let conditions = endpoint.conditions.unwrap_or_default();
            let is_ready = conditions.ready.unwrap_or(true);
            if room == 0 || (conditions.terminating.unwrap_or(false) && !is_ready) {
                continue;
            }
            room -= 1;
            let address = EndpointAddress {
                ip: endpoint.addresses.into_iter().next().unwrap_or_default(),
                hostname: endpoint.hostname,
                node_name: endpoint.node_name,
                target_ref: endpoint.target_ref,
            };
            if is_ready { ready.push(address) } else { unready.push(address) }
        }
        if ready.is_empty() && unready.is_empty() {
            continue;
        }
        let port = |(name, protocol, number): (Option<String>, String, i32)| OldPort {
            name: name.filter(|name| !name.is_empty()),
            port: number,
            protocol: Some(protocol),
            app_protocol: None,
        };
        subsets.push(EndpointSubset {
            addresses: Some(ready).filter(|list| !list.is_empty()),
            not_ready_addresses: Some(unready).filter(|list| !list.is_empty()),
            ports: Some(ports.into_iter().map(port).collect()).filter(|list: &Vec<OldPort>| !list.is_empty()),
        });
    }
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|subsets| !subsets.is_empty()),
    }
}

/// Whether a slice says what it should.
pub(crate) fn same_slice(found: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let ports = |slice: &EndpointSlice| slice.ports.clone().unwrap_or_default();
    found.endpoints == wanted.endpoints
        && ports(found) == ports(wanted)
        && found.metadata.labels == wanted.metadata.labels
        && found.address_type == wanted.address_type
}

/// Whether an Endpoints object says what it should.
pub(crate) fn same_endpoints(found: &Endpoints, wanted: &Endpoints) -> bool {
    found.subsets.clone().unwrap_or_default() == wanted.subsets.clone().unwrap_or_default()
        && found.metadata.labels == wanted.metadata.labels
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn service(more: Value) -> Service {
        let mut spec =
            json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "d", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    /// `address state`, where state lists `ready`, `leaving`, `ended`, `other`, `oldport`, `noport`.
    fn pod(text: &str) -> Arc<Pod> {
        let (address, states) = text.split_once(' ').unwrap_or((text, ""));
        let has = |state: &str| states.split(' ').any(|found| found == state);
        let port = if has("oldport") { 8080 } else { 80 };
        let mut pod = json!({
            "metadata": {"name": format!("p-{address}"), "namespace": "d", "labels": {"app": if has("other") { "x" } else { "web" }}},
            "spec": {"nodeName": "n", "hostname": "h", "subdomain": "web",
                "containers": [{"name": "c", "ports": if has("noport") { json!([]) } else { json!([{"name": "web", "containerPort": port}]) }}]},
            "status": {"podIP": address, "phase": if has("ended") { "Succeeded" } else { "Running" },
                "conditions": [{"type": "Ready", "status": if has("ready") { "True" } else { "False" }}]},
        });
        if has("leaving") {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn check(service: &Service, pods: &[&str], expected: Expect) {
        let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
        let (slices, old) = plan(service, &pods);
        let mut words = Vec::new();
        for slice in &slices {
            let ports: Vec<String> = slice
                .ports
                .iter()
                .flatten()
                .map(|p| format!("{}={}", p.name.clone().unwrap(), p.port.unwrap()))
                .collect();
            let show = |e: &Endpoint| {
                let c = e.conditions.clone().unwrap();
                let mark = |on: Option<bool>, text: &str| if on.unwrap() { text.to_owned() } else { String::new() };
                format!(
                    "{}{}{}{}",
                    e.addresses[0],
                    mark(c.ready, " ready"),
                    mark(c.serving, " serving"),
                    mark(c.terminating, " terminating")
                )
            };
            let endpoints: Vec<String> = slice.endpoints.iter().map(show).collect();
            words.push(format!(
                "{} [{}] {}",
                slice.metadata.name.clone().unwrap(),
                ports.join(","),
                endpoints.join(", ")
            ));
        }
        for subset in old.subsets.iter().flatten() {
            let list = |addresses: &Option<Vec<EndpointAddress>>| {
                addresses.iter().flatten().map(|a| a.ip.clone()).collect::<Vec<_>>().join(",")
            };
            words.push(format!("old ready {} unready {}", list(&subset.addresses), list(&subset.not_ready_addresses)));
        }
        expected.assert_eq(&words.join("\n"));
    }

    #[test]
    fn pods_become_endpoints_with_their_state() {
        check(
            &service(json!({})),
            &["10.1.0.3 ready", "10.1.0.2", "10.1.0.4 ready leaving", "10.1.0.5 ended", "10.1.0.6 other ready"],
            expect![[r#"
                web-ncbv2 [http=80] 10.1.0.2, 10.1.0.3 ready serving, 10.1.0.4 serving terminating
                old ready 10.1.0.3 unready 10.1.0.2"#]],
        );
        check(&service(json!({})), &[], expect!["web-ncbv2 [] "]);
    }

    #[test]
    fn named_ports_may_differ_between_pods() {
        check(
            &service(json!({})),
            &["10.1.0.3 ready", "10.1.0.4 ready oldport", "10.1.0.5 ready noport"],
            expect![[r#"
                web-ncbv2 [] 10.1.0.5 ready serving
                web-r7bzw [http=80] 10.1.0.3 ready serving
                web-v2c5s [http=8080] 10.1.0.4 ready serving
                old ready 10.1.0.5 unready 
                old ready 10.1.0.3 unready 
                old ready 10.1.0.4 unready "#]],
        );
    }

    #[test]
    fn unready_addresses_are_published_when_asked_for() {
        let words = expect![[r#"
            web-ncbv2 [http=80] 10.1.0.2 ready
            old ready 10.1.0.2 unready "#]];
        check(&service(json!({"publishNotReadyAddresses": true})), &["10.1.0.2"], words);
    }

    #[test]
    fn each_family_has_slices_of_its_own() {
        let with = |families: Value| {
            let both = |text: &str, v6: &str| {
                let mut pod = Pod::clone(&pod(text));
                let v4 = text.split(' ').next().unwrap();
                let ips = json!([{ "ip": v4 }, { "ip": v6 }]);
                pod.status.as_mut().unwrap().pod_ips = serde_json::from_value(ips).unwrap();
                Arc::new(pod)
            };
            let pods = [both("10.1.0.3 ready", "fd00:1::3"), pod("10.1.0.2 ready")];
            let (slices, old) = plan(&service(json!({"ipFamilies": families})), &pods);
            let names: std::collections::BTreeSet<_> = slices.iter().map(|slice| &slice.metadata.name).collect();
            assert_eq!(names.len(), slices.len());
            let addresses =
                |slice: &EndpointSlice| slice.endpoints.iter().map(|e| e.addresses[0].clone()).collect::<Vec<_>>();
            let told: Vec<String> =
                slices.iter().map(|slice| format!("{} {}", slice.address_type, addresses(slice).join(","))).collect();
            let old = old.subsets.iter().flatten().flat_map(|subset| subset.addresses.iter().flatten());
            (told, old.map(|address| address.ip.clone()).collect::<Vec<_>>().join(","))
        };
        let (v4, v6) = ("IPv4 10.1.0.2,10.1.0.3".to_owned(), "IPv6 fd00:1::3".to_owned());
        let both = "10.1.0.2,10.1.0.3".to_owned();
        assert_eq!(with(json!(null)), (vec![v4.clone()], both.clone()));
        assert_eq!(with(json!(["IPv4", "IPv6"])), (vec![v4.clone(), v6.clone()], both));
        assert_eq!(with(json!(["IPv6", "IPv4"])), (vec![v6.clone(), v4], "fd00:1::3".into()));
        assert_eq!(with(json!(["IPv6"])), (vec![v6], "fd00:1::3".into()));
    }

    #[test]
    fn many_pods_are_cut_into_slices() {
        let texts: Vec<String> = (0..250).map(|n| format!("10.1.1.{n} ready")).collect();
        let pods: Vec<Arc<Pod>> = texts.iter().map(|text| pod(text)).collect();
        let (slices, old) = plan(&service(json!({})), &pods);
        assert_eq!(slices.iter().map(|s| s.endpoints.len()).collect::<Vec<_>>(), [100, 100, 50]);
        assert_eq!(old.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), 250);
        let names: std::collections::BTreeSet<_> = slices.iter().map(|s| s.metadata.name.clone()).collect();
        assert_eq!(names.len(), 3);
    }

    #[test]
    fn services_of_others_are_left_alone() {
        for more in [json!({"selector": null}), json!({"selector": {}}), json!({"type": "ExternalName"})] {
            assert!(selector(&service(more)).is_none());
        }
    }
}
