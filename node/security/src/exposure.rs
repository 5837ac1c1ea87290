//! What a peer can see or do here now, each with what proves it. Pure: who asks has read the objects and made the probes.
//!
//! What was not or cannot be probed has no answer (`None`) and says why: silence is no proof of safety.

pub mod inside;

use std::collections::BTreeSet;

use fluidos_identity::{NodeId, fabric_prefix};
use fluidos_model::kinds::{Contract, FlavorType, MulticastState, NodeIdentity, Phase, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, PodSpec, Secret, Service};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;

use crate::policy::{Action, Decision};

/// How a peer stands to what it can see or do.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum As {
    /// Whoever is on the network.
    Anybody,
    /// Who has proven its key.
    Peer,
    /// Who runs our workloads.
    Provider,
    /// Whose workloads run here.
    Guest,
}

/// One thing.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// In which role.
    #[serde(rename = "as")]
    pub role: As,
    /// Of which sort: namespace, Secret, verb, …
    pub what: &'static str,
    /// Which one.
    pub item: String,
    /// Whether it can; `None` if that was not probed.
    pub can: Option<bool>,
    /// What proves it, or why nothing does.
    pub proof: String,
}

/// Names of ConfigMaps, and of Secrets.
pub type Named = (BTreeSet<String>, BTreeSet<String>);

/// What was read and probed.
pub struct View<'a> {
    /// The peer.
    pub peer: &'a str,
    /// All contracts.
    pub contracts: &'a [Contract],
    /// All nodes.
    pub nodes: &'a [Node],
    /// All namespaces.
    pub namespaces: &'a [Namespace],
    /// All pods.
    pub pods: &'a [Pod],
    /// All Services.
    pub services: &'a [Service],
    /// All Secrets.
    pub secrets: &'a [Secret],
    /// All ConfigMaps.
    pub config_maps: &'a [ConfigMap],
    /// Names of the ConfigMaps and Secrets that go with a pod: the fabric's own function.
    pub named: &'a dyn Fn(&PodSpec) -> Named,
    /// What was decided, about what.
    pub decisions: &'a [(Action, String, Decision)],
    /// What the API answered to somebody without a credential, asked for all Secrets: the status code, or why there is none.
    pub api: Result<u16, String>,
    /// What was tried from inside of guest pods.
    pub tried: &'a [inside::Tried],
    /// Whether this node announces itself.
    pub multicast: Option<MulticastState>,
    /// Now.
    pub now: Timestamp,
}

/// Returns everything, in the order of the roles.
pub fn rows(view: &View<'_>) -> Vec<Row> {
    let mut rows = anybody(view);
    rows.extend(view.decisions.iter().map(|(action, item, decision)| Row {
        role: As::Peer,
        what: "verb",
        item: format!("{action} {item}").trim_end().to_owned(),
        can: Some(decision.allowed),
        proof: format!("asked the policies: {}", decision.reason),
    }));
    rows.extend(provider(view));
    rows.extend(guest(view));
    rows
}

fn anybody(view: &View<'_>) -> Vec<Row> {
    let api = match &view.api {
        Ok(code @ (401 | 403)) => (Some(false), format!("GET /api/v1/secrets without a credential: answered {code}")),
        Ok(code) => (Some(*code == 200), format!("GET /api/v1/secrets without a credential: answered {code}")),
        Err(why) => (None, format!("the API could not be asked without a credential: {why}")),
    };
    let announced = match view.multicast {
        Some(MulticastState::Announcing) => (Some(true), "DiscoveryPolicy default: multicast is Announcing"),
        Some(MulticastState::Listening) => (Some(false), "DiscoveryPolicy default: multicast is Listening"),
        Some(MulticastState::Off) => (Some(false), "DiscoveryPolicy default: multicast is Off"),
        None => (None, "discovery has not reported yet"),
    };
    vec![
        row(As::Anybody, "API", "this node's Kubernetes API", api.0, api.1),
        row(As::Anybody, "name", "this node's name, domain, DID, features on the LAN", announced.0, announced.1),
    ]
}

/// What it has because it runs our workloads.
fn provider(view: &View<'_>) -> Vec<Row> {
    let role = As::Provider;
    let bought: Vec<&Contract> = view.live().filter(|contract| is(&contract.spec.seller, view.peer)).collect();
    let did = |node: &&Node| node.annotations().get(names::ANNOTATION_PEER_DID).map(String::as_str) == Some(view.peer);
    let nodes: BTreeSet<String> = view.nodes.iter().filter(did).map(|node| node.name_any()).collect();
    let there = |pod: &&Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        node.is_some_and(|node| nodes.contains(node)) && !is_over(pod)
    };
    let pods: Vec<&Pod> = view.pods.iter().filter(there).collect();
    let mut rows = Vec::new();
    if bought.is_empty() && pods.is_empty() {
        let proof = "no live contract by which it sells to us, and no pod of ours is on a node of it";
        return vec![row(role, "workload", "", Some(false), proof)];
    }
    for pod in &pods {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let shown = format!("{namespace}/{name}");
        rows.push(row(role, "pod", &shown, Some(true), format!("pod {shown} is on its node {node}")));
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone()).unwrap_or_default();
        if is_stand_in(view.peer, &address) {
            let proof =
                format!("its address {address} stands for one of somebody else, to whom the peer has passed it on");
            rows.push(row(role, "passed on", &format!("{shown} and all that goes with it"), Some(true), proof));
        }
        let (config_maps, secrets) = pod.spec.as_ref().map(view.named).unwrap_or_default();
        let present = |there: bool| if there { "and it is there" } else { "and there is none of that name" };
        for secret in secrets {
            let there = has(view.secrets, &namespace, &secret);
            let proof = format!("pod {shown} names it, {}", present(there));
            rows.push(row(role, "Secret", &format!("{namespace}/{secret}"), Some(there), proof));
        }
        for map in config_maps {
            let there = has(view.config_maps, &namespace, &map);
            let proof = format!("pod {shown} names it, {}", present(there));
            rows.push(row(role, "ConfigMap", &format!("{namespace}/{map}"), Some(there), proof));
        }
    }
    let namespaces: BTreeSet<String> = pods.iter().filter_map(|pod| pod.namespace()).collect();
    for namespace in &namespaces {
        rows.push(row(
            role,
            "namespace",
            namespace,
            Some(true),
            "its name goes with the pods above, other objects in it do not",
        ));
        for service in view.services.iter().filter(|service| service.namespace().as_deref() == Some(namespace)) {
            let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default();
            let item = format!("{namespace}/{} {address}", service.name_any());
            rows.push(row(
                role,
                "Service",
                item.trim_end(),
                Some(true),
                "its name and address are variables of the pods above",
            ));
        }
    }
    for contract in &bought {
        let own = contract.spec.buyer.additional_information.as_ref().and_then(|more| more.did.clone());
        let from = prefix(view.peer);
        let to = own.as_deref().map_or("?".into(), prefix);
        let proof = format!("contract {} is live: the link takes packets from {from}", contract.name_any());
        rows.push(row(role, "addresses", &format!("pods and Services here, in {to}"), Some(true), proof));
        rows.extend(served(view, contract));
        if service(contract).is_some() && says_resold(contract) {
            let item = format!("what is sent to {}", shown(contract));
            let proof =
                format!("contract {} says that it is resold: who serves it is behind the peer", contract.name_any());
            rows.push(row(role, "passed on", &item, Some(true), proof));
        }
    }
    if !pods.is_empty() {
        let proof = "not probed: its owner is root there, and only attested hardware would hinder it";
        rows.push(row(role, "memory", "memory, disk and traffic of the pods above", None, proof));
    }
    rows
}

/// What it has because its workloads run here.
fn guest(view: &View<'_>) -> Vec<Row> {
    let role = As::Guest;
    let sold = view.sold();
    let of_contract = |labels: &std::collections::BTreeMap<String, String>| {
        labels.get(names::LABEL_CONTRACT).is_some_and(|contract| sold.contains(contract))
    };
    let guests: Vec<&Pod> = view.pods.iter().filter(|pod| of_contract(pod.labels()) && !is_over(pod)).collect();
    if sold.is_empty() {
        let proof = "no live contract by which we sell to it";
        return vec![row(role, "workload", "", Some(false), proof)];
    }
    let mut rows: Vec<Row> =
        view.live().filter(|contract| is(&contract.spec.buyer, view.peer)).filter_map(passed_on).collect();
    for namespace in view.namespaces.iter().filter(|namespace| of_contract(namespace.labels())) {
        rows.push(row(
            role,
            "namespace",
            &namespace.name_any(),
            Some(true),
            "it was made for its contract, for what it sends",
        ));
    }
    for pod in &guests {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let shown = format!("{namespace}/{name}");
        rows.push(row(
            role,
            "pod",
            &shown,
            Some(true),
            match pod.annotations().contains_key(names::ANNOTATION_STAND_IN) {
                false => "it runs here under its contract: logs, exec and port-forward are its own",
                true => {
                    "it is passed on under its contract to who serves that: logs, exec and port-forward are its own"
                }
            },
        ));
        let (config_maps, secrets) = pod.spec.as_ref().map(view.named).unwrap_or_default();
        for secret in secrets {
            // A name that a guest uses must lead to what came with it, and to nothing of ours.
            let found =
                view.secrets.iter().find(|s| s.name_any() == secret && s.namespace().as_ref() == Some(&namespace));
            rows.push(used(view, role, "Secret", &namespace, &secret, found.map(|s| of_contract(s.labels()))));
        }
        for map in config_maps {
            let found =
                view.config_maps.iter().find(|m| m.name_any() == map && m.namespace().as_ref() == Some(&namespace));
            rows.push(used(view, role, "ConfigMap", &namespace, &map, found.map(|m| of_contract(m.labels()))));
        }
        let spec = pod.spec.clone().unwrap_or_default();
        let token = spec.automount_service_account_token != Some(false);
        let proof = format!("pod {shown}: automountServiceAccountToken is {:?}", spec.automount_service_account_token);
        rows.push(row(role, "token", &format!("a token of this API in {shown}"), Some(token), proof));
        let host = [("hostNetwork", spec.host_network), ("hostPID", spec.host_pid), ("hostIPC", spec.host_ipc)];
        let paths = spec.volumes.iter().flatten().any(|volume| volume.host_path.is_some());
        let privileged = spec.containers.iter().any(|container| {
            container.security_context.as_ref().and_then(|security| security.privileged).unwrap_or(false)
        });
        let mut open: Vec<&str> = host.iter().filter(|(_, on)| on.unwrap_or(false)).map(|(name, _)| *name).collect();
        open.extend(paths.then_some("hostPath"));
        open.extend(privileged.then_some("privileged"));
        let proof = match open.as_slice() {
            [] => format!("pod {shown} has no host namespace, host path or privilege"),
            open => format!("pod {shown} has {}", open.join(", ")),
        };
        rows.push(row(role, "machine", &format!("this machine, from {shown}"), Some(!open.is_empty()), proof));
    }
    rows.extend(inside::rows(view));
    rows
}

/// What a provider has of the services that this node sells on: it serves them with what this contract bought.
fn served(view: &View<'_>, bought: &Contract) -> Vec<Row> {
    let with_it =
        |sold: &&Contract| sold.spec.served_by.as_ref() == Some(&bought.name_any()) && service(sold).is_some();
    let rows = view.live().filter(with_it).map(|sold| {
        let item = format!("what the buyer of contract {} sends to {}", sold.name_any(), shown(sold));
        let proof = format!(
            "contract {} is served with {}: packets and credentials pass this node",
            sold.name_any(),
            bought.name_any()
        );
        row(As::Provider, "passed on", &item, Some(true), proof)
    });
    rows.collect()
}

/// What a guest has of the services that this node sells on to it.
fn passed_on(sold: &Contract) -> Option<Row> {
    let by = sold.spec.served_by.as_ref().filter(|_| service(sold).is_some())?;
    let proof = format!(
        "contract {} is served with {by}: packets and credentials pass this node, which keeps none",
        sold.name_any()
    );
    Some(row(As::Guest, "passed on", &format!("{}, which others serve", shown(sold)), Some(true), proof))
}

/// The name of the service that a contract is about.
fn service(contract: &Contract) -> Option<&str> {
    let of = &contract.spec.flavor.spec.flavor_type;
    (of.type_identifier == FlavorType::Service).then(|| of.type_data["name"].as_str().unwrap_or("?"))
}

fn shown(contract: &Contract) -> String {
    format!("service {}", service(contract).unwrap_or("?"))
}

/// Whether its seller has said that others serve it.
fn says_resold(contract: &Contract) -> bool {
    contract.spec.flavor.spec.flavor_type.type_data["policies"]["conditions"]["resold"].as_bool() == Some(true)
}

fn used(view: &View<'_>, role: As, what: &'static str, namespace: &str, name: &str, own: Option<bool>) -> Row {
    let item = format!("{namespace}/{name}");
    match own {
        None => row(role, what, &item, Some(false), "its pod names it, and there is none of that name"),
        Some(true) => row(role, what, &item, Some(true), "it came with the pod: its label names the contract"),
        Some(false) => row(
            role,
            what,
            &item,
            Some(true),
            format!("its pod names it, and it is NOT of a contract of {}", view.peer),
        ),
    }
}

fn row(role: As, what: &'static str, item: &str, can: Option<bool>, proof: impl Into<String>) -> Row {
    Row { role, what, item: item.to_owned(), can, proof: proof.into() }
}

impl View<'_> {
    /// The live contracts by which this node sells to the peer, by name.
    fn sold(&self) -> BTreeSet<String> {
        let sold = self.live().filter(|contract| is(&contract.spec.buyer, self.peer));
        sold.map(|contract| contract.name_any()).collect()
    }

    /// Contracts that are active, not ending, and whose time is not over.
    fn live(&self) -> impl Iterator<Item = &Contract> {
        self.contracts.iter().filter(|contract| {
            let until = contract.spec.expiration_time.as_ref().and_then(|until| until.parse::<Timestamp>().ok());
            let active = contract.status.as_ref().is_some_and(|status| status.phase == Phase::Active);
            active && contract.metadata.deletion_timestamp.is_none() && until.is_none_or(|until| until > self.now)
        })
    }
}

fn is(party: &NodeIdentity, did: &str) -> bool {
    party.additional_information.as_ref().and_then(|more| more.did.as_deref()) == Some(did)
}

fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn has<K: Resource>(objects: &[K], namespace: &str, name: &str) -> bool {
    objects.iter().any(|object| {
        let meta = object.meta();
        meta.namespace.as_deref() == Some(namespace) && meta.name.as_deref() == Some(name)
    })
}

/// Whether an address is one by which a key's node names a pod that it has another run.
fn is_stand_in(did: &str, address: &str) -> bool {
    did.parse::<NodeId>()
        .is_ok_and(|id| address.parse().is_ok_and(|address| fabric_prefix(&id, 0).is_stand_in(address)))
}

/// Where the pods and Services of a key are.
fn prefix(did: &str) -> String {
    did.parse::<NodeId>().map_or_else(|_| "?".into(), |id| fabric_prefix(&id, 0).v4_cidr())
}

#[cfg(test)]
mod tests;
