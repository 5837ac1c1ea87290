//! The objects of a twin, made of what its consumer sent: field by field, so that what is not known here is not taken. Pure.

use std::collections::BTreeMap;

use fluidos_identity::NodeId;
use fluidos_model::kinds::names;
use fluidos_model::market::{Amounts, Quantity, Resource, requested};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, Pod, PodDNSConfig, PodSecurityContext, PodSpec, ResourceRequirements,
    SeccompProfile, Secret, SecurityContext, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};
use substrate_network::Cidr;

use crate::deal::Deal;
use crate::frames::Put;
use crate::reflection::named;
use crate::resale::Onward;

/// Labels of a pod; real ones have fewer than ten.
const LABELS_MAX: usize = 64;

/// What a twin consists of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Twin {
    pub namespace: Namespace,
    pub config_maps: Vec<ConfigMap>,
    pub secrets: Vec<Secret>,
    pub pod: Pod,
}

/// Returns the namespace here of a namespace of a consumer.
pub(crate) fn namespace_name(consumer: &NodeId, namespace: &str) -> String {
    let hash: String = Sha256::digest(namespace).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    names::twin_namespace(&consumer.tag(), namespace, &hash)
}

/// Where a twin stands between its owner and what runs it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// The prefix of its consumer.
    pub consumer: Option<Cidr>,
    /// That of its owner, if it is another.
    pub home: Option<Cidr>,
    /// Where it goes, if this node does not run it.
    pub onward: Option<Onward>,
}

/// Returns the objects of a twin.
///
/// # Errors
/// Why the pod may not run here, in words.
pub(crate) fn build(deal: &Deal, put: &Put, standing: &Standing) -> Result<Twin, String> {
    let metadata = &put.pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (from, name, uid) = (text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
    if [&from, &name].iter().any(|part| part.is_empty() || part.contains('/') || part.len() > 253) {
        return Err("a pod needs a namespace and a name".into());
    }
    let spec = put.pod.spec.as_ref().ok_or("it has no spec")?;
    super::admit::admit(spec)?;
    let namespace = namespace_name(&deal.buyer_named, &from);
    let ours = labels(deal);
    let named = named(spec);
    let bare = |name: String| ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.clone()),
        labels: Some(ours.clone()),
        ..ObjectMeta::default()
    };
    let config_maps =
        put.config_maps.iter().filter(|map| named.config_maps.contains(&map.name_any())).map(|map| ConfigMap {
            metadata: bare(map.name_any()),
            data: map.data.clone(),
            binary_data: map.binary_data.clone(),
            immutable: None,
        });
    let secrets = put.secrets.iter().filter(|secret| named.secrets.contains(&secret.name_any())).map(|secret| Secret {
        metadata: bare(secret.name_any()),
        data: secret.data.clone(),
        type_: Some("Opaque".into()),
        ..Secret::default()
    });
    let mut pod_labels: BTreeMap<String, String> = put
        .pod
        .labels()
        .iter()
        .filter(|(key, _)| !is_reserved(key))
        .take(LABELS_MAX)
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    pod_labels.extend(ours.clone());
    let mut annotations = BTreeMap::from([(names::ANNOTATION_ORIGIN.to_owned(), format!("{from}/{name}/{uid}"))]);
    annotations.extend(standing.home.map(|home| (names::ANNOTATION_HOME.to_owned(), home.to_string())));
    let address = standing.onward.as_ref().map(|onward| onward.stand_in.to_string());
    annotations.extend(address.map(|address| (names::ANNOTATION_STAND_IN.to_owned(), address)));
    let pod = Pod {
        metadata: ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..bare(name) },
        spec: Some(pod_spec(deal, spec, standing)?),
        status: None,
    };
    let peer = BTreeMap::from([(names::ANNOTATION_PEER_DID.to_owned(), deal.buyer_named.to_string())]);
    // On a cluster that has the admission of Kubernetes, it watches too.
    let mut namespace_labels = ours.clone();
    namespace_labels.insert("pod-security.kubernetes.io/enforce".into(), "baseline".into());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(namespace.clone()),
            labels: Some(namespace_labels),
            annotations: Some(peer),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    Ok(Twin { namespace, config_maps: config_maps.collect(), secrets: secrets.collect(), pod })
}

fn labels(deal: &Deal) -> BTreeMap<String, String> {
    let pairs = [(names::LABEL_CONTRACT, deal.name.clone()), (names::LABEL_PEER, deal.buyer_named.tag())];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Labels of the system and of this fabric are this cluster's to give.
fn is_reserved(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let under = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    under("kubernetes.io") || under("k8s.io") || under("fluidos.eu")
}

fn pod_spec(deal: &Deal, spec: &PodSpec, standing: &Standing) -> Result<PodSpec, String> {
    let runtime_default = || SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None };
    let context = spec.security_context.clone().unwrap_or_default();
    let seccomp_profile = context.seccomp_profile.clone().or_else(|| Some(runtime_default()));
    let twin = |container: &Container| confined(container, &deal.amounts);
    Ok(PodSpec {
        containers: spec.containers.iter().map(twin).collect(),
        init_containers: spec.init_containers.as_ref().map(|init| init.iter().map(twin).collect()),
        volumes: spec.volumes.clone(),
        restart_policy: spec.restart_policy.clone(),
        termination_grace_period_seconds: spec.termination_grace_period_seconds,
        active_deadline_seconds: spec.active_deadline_seconds,
        hostname: spec.hostname.clone(),
        subdomain: spec.subdomain.clone(),
        host_aliases: spec.host_aliases.clone(),
        share_process_namespace: spec.share_process_namespace,
        security_context: Some(PodSecurityContext { seccomp_profile, ..context }),
        dns_policy: Some("None".into()),
        dns_config: Some(dns(spec.dns_config.clone().unwrap_or_default(), standing.home.or(standing.consumer))?),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        // Who runs it has signed which it is, with this node.
        runtime_class_name: deal.runtime_class.clone().filter(|_| standing.onward.is_none()),
        node_selector: standing.onward.as_ref().map(only),
        tolerations: standing.onward.as_ref().map(|_| tolerations()),
        ..PodSpec::default()
    })
}

/// The node of the contract that serves it, and no other: without that it waits.
fn only(onward: &Onward) -> BTreeMap<String, String> {
    BTreeMap::from([(names::LABEL_CONTRACT.to_owned(), onward.contract.clone())])
}

/// When a pod is given up is its owner's to say, however long nobody reaches it.
fn tolerations() -> Vec<Toleration> {
    let place = [(names::VIRTUAL_NODE, "NoSchedule"), (names::LABEL_RESALE, "NoSchedule")];
    let silence = [("node.kubernetes.io/not-ready", "NoExecute"), ("node.kubernetes.io/unreachable", "NoExecute")];
    let exists = |(key, effect): (&str, &str)| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".into()),
        effect: Some(effect.to_owned()),
        ..Toleration::default()
    };
    place.into_iter().chain(silence).map(exists).collect()
}

/// A twin resolves where its owner is, its consumer or who stands behind that, and nowhere else.
fn dns(config: PodDNSConfig, home: Option<Cidr>) -> Result<PodDNSConfig, String> {
    let home = home.ok_or("where its consumer's addresses are is not known yet")?;
    let is_there = |server: &String| server.parse().is_ok_and(|address| home.contains(address));
    let servers: Vec<String> = config.nameservers.into_iter().flatten().filter(is_there).collect();
    if servers.is_empty() {
        return Err(format!("none of its name servers is its consumer's own, in {home}"));
    }
    Ok(PodDNSConfig { nameservers: Some(servers), ..config })
}

/// What a container leaves unset is set; it uses no more than was bought.
fn confined(container: &Container, bought: &Amounts) -> Container {
    let context = container.security_context.clone().unwrap_or_default();
    let security_context =
        SecurityContext { allow_privilege_escalation: context.allow_privilege_escalation.or(Some(false)), ..context };
    let given = container.resources.clone().unwrap_or_default();
    let (mut limits, mut requests) = (given.limits.unwrap_or_default(), given.requests.unwrap_or_default());
    for (name, resource) in [("cpu", Resource::Cpu), ("memory", Resource::Memory)] {
        let all = bought.get(&resource);
        let within =
            limits.get(name).and_then(|limit| amount(&resource, limit)).is_some_and(|limit| limit <= all && limit > 0);
        if !within {
            limits.insert(name.into(), Text(resource.text(all)));
        }
        // Absent, it would become the limit.
        requests.entry(name.into()).or_insert_with(|| Text("0".into()));
    }
    let resources = ResourceRequirements { limits: Some(limits), requests: Some(requests), claims: None };
    Container { security_context: Some(security_context), resources: Some(resources), ..container.clone() }
}

fn amount(resource: &Resource, text: &Text) -> Option<u64> {
    Quantity::parse(&text.0).ok().map(|quantity| resource.asked(quantity))
}

/// Says whether one more pod fits into what was bought, beside the twins that there are.
///
/// # Errors
/// What is missing, in words.
pub(crate) fn fits(deal: &Deal, twins: &[Pod], spec: &PodSpec) -> Result<(), String> {
    let mut sum = requested(spec)?;
    let is_over =
        |pod: &&Pod| matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    for twin in twins.iter().filter(|pod| !is_over(pod)) {
        let other = twin.spec.as_ref().map(requested).transpose()?.unwrap_or_default();
        sum = sum.checked_add(&other).ok_or("together they ask for more than can be counted")?;
    }
    match deal.amounts.lack(&sum, "bought") {
        None => Ok(()),
        Some(short) => Err(format!("it does not fit into the contract: {short}")),
    }
}
