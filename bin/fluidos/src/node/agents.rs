//! What the server of a node does for its agents: machines of the same owner that joined (`fluidos join`).
//!
//! ```text
//! ConfigMap kube-system/fluidos-agents ─ server, authority, pods, services, of both families ─▶ invitations, agents
//! admission: a name that has a Node is not given again; no machine chooses its own range; guests stay away from agents
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fluidos_model::kinds::names;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use substrate_apiserver::admission::{Admission, Operation, Request};
use substrate_apiserver::status::Status;
use substrate_client::{Cache, certificates};
use substrate_controllers::PodRange;
use substrate_network::Cidr;

use super::Ranges;
use crate::invite::{ACCOUNT, NAMESPACE};

/// What is told to agents.
pub const CONFIG_MAP: &str = "fluidos-agents";
/// In it: where the API is reached from other machines, if it is.
pub const SERVER: &str = "server";
/// In it: the certificate of the API's authority, as PEM.
pub const AUTHORITY: &str = "authority";
/// In it: ranges that machines of this node can have for pods, between commas.
pub const PODS: &str = "pods";
/// In it: the range of Services.
pub const SERVICES: &str = "services";
/// The same two of IPv6, if pods and Services have both families.
pub const PODS_V6: &str = "pods-ipv6";
/// See [`PODS_V6`].
pub const SERVICES_V6: &str = "services-ipv6";
/// The signer of certificates of kubelets.
pub const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// What users of machines are called, before the name of their Node.
pub const USER: &str = "system:node:";

/// A range as text.
pub fn text((base, bits): (Ipv4Addr, u8)) -> String {
    format!("{base}/{bits}")
}

/// Which ranges the controller gives: this machine's is its own, the others are for agents.
pub fn ranges(own: Option<&str>, ranges: &Ranges) -> substrate_controllers::Ranges {
    let of = |v4, v6: Option<Cidr<Ipv6Addr>>| PodRange { v4: text(v4), v6: v6.map(|v6| v6.to_string()) };
    substrate_controllers::Ranges {
        reserved: own.map(|own| (own.to_owned(), of(ranges.pods, ranges.v6.map(|v6| v6.pods)))).into_iter().collect(),
        pool: ranges.agents().into_iter().map(|range| of(range.v4, range.v6)).collect(),
        not_for: Some(names::VIRTUAL_NODE.into()),
    }
}

/// Where other machines reach an API that listens at `address`; `own` is this machine's address.
pub fn reached(address: SocketAddr, own: Option<Ipv4Addr>) -> Option<SocketAddr> {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(own?) } else { address.ip() };
    (!ip.is_loopback()).then(|| SocketAddr::new(ip, address.port()))
}

/// Tells agents what they need.
pub async fn tell(client: kube::Client, ranges: &Ranges, server: Option<SocketAddr>, authority: &str) -> Result<()> {
    let server = server.map(|address| format!("https://{address}"));
    let (pods, v6) = (ranges.of_machines(), ranges.v6.map(|v6| v6.services.to_string()));
    let data = json!({
        SERVER: server, AUTHORITY: authority, PODS: list(&pods.v4), SERVICES: text(ranges.services),
        PODS_V6: v6.as_ref().map(|_| list(&pods.v6)), SERVICES_V6: v6,
    });
    let api = Api::<ConfigMap>::namespaced(client, NAMESPACE);
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": CONFIG_MAP }, "data": data });
    let exists = api.get_opt(CONFIG_MAP).await?.is_some();
    let written = match exists {
        true => api.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(&json!({ "data": data }))).await,
        // A merge patch takes `null` for nothing, as here.
        false => api.create(&Default::default(), &serde_json::from_value(without_nulls(map))?).await,
    };
    written.map(drop).with_context(|| format!("write the ConfigMap {NAMESPACE}/{CONFIG_MAP}"))
}

fn list<A: std::fmt::Display>(ranges: &[A]) -> String {
    ranges.iter().map(A::to_string).collect::<Vec<_>>().join(",")
}

fn without_nulls(mut map: Value) -> Value {
    if let Some(data) = map["data"].as_object_mut() {
        data.retain(|_, value| !value.is_null());
    }
    map
}

/// A step of admission.
pub struct Admit {
    /// All Nodes.
    pub nodes: Cache<Node>,
}

#[async_trait]
impl Admission for Admit {
    async fn admit(&self, request: &Request<'_>, object: &mut Value) -> Result<(), Status> {
        let refuse = |why: &str| Err(Status::forbidden(request.group, request.plural, request.name, why));
        match (request.group, request.plural, request.operation) {
            ("certificates.k8s.io", "certificatesigningrequests", Operation::Create)
                if is_account(&request.user.name) =>
            {
                match asked(object).and_then(|name| self.free(&name)) {
                    Ok(()) => Ok(()),
                    Err(why) => refuse(&why),
                }
            }
            ("", "nodes", Operation::Create | Operation::Update) => {
                let range = |node: &Value| ["podCIDR", "podCIDRs"].map(|field| node["spec"][field].clone());
                let is_node = request.user.groups.iter().any(|group| group == "system:nodes");
                match is_node && request.old.map(range).unwrap_or_default() != range(object) {
                    true => refuse("a node does not choose its range of pods"),
                    false => Ok(()),
                }
            }
            ("", "pods", Operation::Create) if is_guest(object) => {
                keep_from_agents(object);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Admit {
    fn free(&self, name: &str) -> Result<(), String> {
        if self.nodes.get("", name).is_none() {
            return Ok(());
        }
        Err(format!(
            "there is a node {name:?} already: give this machine another name (--name); if it is the same machine, joining anew, take the \
             old one away first: kubectl delete node {name}"
        ))
    }
}

fn is_account(user: &str) -> bool {
    user.strip_prefix("system:serviceaccount:").and_then(|user| user.split_once(':')) == Some((NAMESPACE, ACCOUNT))
}

/// The name of the node for which an invited machine asks.
fn asked(object: &Value) -> Result<String, String> {
    let pem = object["spec"]["request"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let asked = certificates::Request::read(&pem.unwrap_or_default())?;
    let name = asked.common_name.strip_prefix(USER).filter(|_| object["spec"]["signerName"] == SIGNER);
    name.map(str::to_owned).ok_or_else(|| format!("an invitation is for machines only: {USER}NAME, signed by {SIGNER}"))
}

fn is_guest(pod: &Value) -> bool {
    [names::LABEL_CONTRACT, names::LABEL_SERVICE].iter().any(|label| pod["metadata"]["labels"][*label].is_string())
}

/// Guests are confined by the fabric, which agents do not have.
fn keep_from_agents(pod: &mut Value) {
    let away = json!({ "key": names::AGENT, "operator": "DoesNotExist" });
    let required = &mut pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = &mut required["nodeSelectorTerms"];
    match terms.as_array_mut().filter(|terms| !terms.is_empty()) {
        None => *terms = json!([{ "matchExpressions": [away] }]),
        Some(terms) => {
            for term in terms {
                match term["matchExpressions"].as_array_mut() {
                    Some(expressions) => expressions.push(away.clone()),
                    None => term["matchExpressions"] = json!([away]),
                }
            }
        }
    }
}

/// The step, with what it looks at.
pub fn admission(nodes: Cache<Node>) -> Arc<dyn Admission> {
    Arc::new(Admit { nodes })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_api_is_reached_where_it_listens_if_that_is_not_this_machine_alone() {
        let own = Some(Ipv4Addr::new(192, 0, 2, 7));
        let told = |address: &str, own| reached(address.parse().unwrap(), own).map(|address| address.to_string());
        assert_eq!(told("0.0.0.0:6443", own).as_deref(), Some("192.0.2.7:6443"));
        assert_eq!(told("198.51.100.1:6443", own).as_deref(), Some("198.51.100.1:6443"));
        assert_eq!(
            [told("127.0.0.1:6443", own), told("0.0.0.0:6443", None), told("[::1]:6443", own)],
            [None, None, None]
        );
    }

    #[test]
    fn each_agent_has_a_range_of_each_family_that_nobody_else_has() {
        let first = fluidos_identity::NodeKey::generate().unwrap().id();
        let v6 = Ranges::of_v6(&first);
        let all = Ranges { v6, ..Ranges::of(&first) };
        let given = ranges(Some("own"), &all);
        assert_eq!(given.pool.len(), 7);
        let of = |range: &PodRange| range.v6.as_ref().unwrap().parse::<Cidr<Ipv6Addr>>().unwrap();
        let pods: Vec<_> = given.reserved.values().chain(&given.pool).map(of).collect();
        assert_eq!(pods, all.of_machines().v6);
        let services = v6.unwrap().services;
        for (n, one) in pods.iter().enumerate() {
            assert!(one.prefix_len() == 80 && !one.contains(services.network()), "{one}");
            assert!(pods.iter().skip(n + 1).all(|other| !one.contains(other.network())), "{one}");
        }
        let v4_alone = ranges(None, &Ranges::of(&first));
        assert!(v4_alone.reserved.is_empty() && v4_alone.pool.iter().all(|range| range.v6.is_none()));
    }

    #[test]
    fn guests_are_kept_from_agents_whatever_else_they_want() {
        let away = json!({ "key": names::AGENT, "operator": "DoesNotExist" });
        let wanted = |pod: &Value| {
            pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone()
        };
        let mut plain = json!({ "metadata": { "labels": { names::LABEL_CONTRACT: "c" } }, "spec": {} });
        assert!(is_guest(&plain) && !is_guest(&json!({ "metadata": {} })));
        keep_from_agents(&mut plain);
        assert_eq!(wanted(&plain), json!([{ "matchExpressions": [away] }]));
        let mut choosy = json!({ "spec": { "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
            { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "a", "operator": "Exists" }] }, { "matchFields": [] }] } } } } });
        keep_from_agents(&mut choosy);
        let wanted = wanted(&choosy);
        assert_eq!(wanted[0]["matchExpressions"], json!([{ "key": "a", "operator": "Exists" }, away]));
        assert_eq!(wanted[1]["matchExpressions"], json!([away]));
    }

    #[test]
    fn invitations_are_of_one_account_for_machines() {
        assert!(is_account("system:serviceaccount:kube-system:node-bootstrapper"));
        assert!(!is_account("system:serviceaccount:default:node-bootstrapper") && !is_account("system:node:a"));
        let request = |name: &str, signer: &str| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            let key = rcgen::KeyPair::generate().unwrap();
            let pem = params.serialize_request(&key).unwrap().pem().unwrap();
            asked(&json!({ "spec": { "request": BASE64_STANDARD.encode(pem), "signerName": signer } }))
        };
        assert_eq!(request("system:node:b", SIGNER).as_deref(), Ok("b"));
        for (name, signer) in [("admin", SIGNER), ("system:node:b", "kubernetes.io/kube-apiserver-client")] {
            assert!(request(name, signer).unwrap_err().contains("for machines only"), "{name} {signer}");
        }
    }
}
