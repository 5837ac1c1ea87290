//! What crosses the link for one pod: the pod, cut down to what runs, and the ConfigMaps and Secrets that it names. Pure.
//!
//! What only the consumer knows is made a value here: Services as environment variables, the pod's own names, its DNS.
//! What is the consumer's business alone stays here: nodes, tolerations, priorities, accounts, tokens, pull secrets,
//! annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVar, Pod, PodDNSConfig, PodDNSConfigOption, PodSpec, Secret, Service, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::frames::Put;

/// What is around a pod in its namespace.
pub(crate) struct Around<'a> {
    pub config_map: &'a dyn Fn(&str) -> Option<Arc<ConfigMap>>,
    pub secret: &'a dyn Fn(&str) -> Option<Arc<Secret>>,
    pub services: Vec<Arc<Service>>,
    pub dns_address: Ipv4Addr,
    pub cluster_domain: &'a str,
}

/// Names of the ConfigMaps and Secrets that a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Of the ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Of the Secrets.
    pub secrets: BTreeSet<String>,
}

/// Returns the names of what a pod's containers and volumes use: nothing else goes with it.
pub fn named(spec: &PodSpec) -> Named {
    let mut named = Named::default();
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for source in container.env_from.iter().flatten() {
            named.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
            named.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            named.config_maps.extend(from.config_map_key_ref.iter().map(|r| r.name.clone()));
            named.secrets.extend(from.secret_key_ref.iter().map(|r| r.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        named.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        named.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            named.config_maps.extend(source.config_map.iter().map(|source| source.name.clone()));
            named.secrets.extend(source.secret.iter().map(|source| source.name.clone()));
        }
    }
    named.config_maps.remove("");
    named.secrets.remove("");
    named
}

/// Returns what crosses the link for a pod.
pub(crate) fn package(pod: &Pod, around: &Around<'_>) -> Put {
    let mut spec = pod.spec.clone().unwrap_or_default();
    without_tokens(&mut spec);
    let named = named(&spec);
    let config_maps: Vec<ConfigMap> =
        named.config_maps.iter().filter_map(|name| (around.config_map)(name)).map(|found| config_map(&found)).collect();
    let secrets: Vec<Secret> =
        named.secrets.iter().filter_map(|name| (around.secret)(name)).map(|found| secret(&found)).collect();
    let services = match spec.enable_service_links {
        Some(false) => BTreeMap::new(),
        _ => service_variables(&around.services),
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        resolve(container, pod);
        add_services(container, &services, &config_maps, &secrets);
    }
    dns(&mut spec, &pod.namespace().unwrap_or_default(), around);
    Put {
        pod: Pod { metadata: metadata(&pod.metadata), spec: Some(own_business_left_out(spec)), status: None },
        config_maps,
        secrets,
        home: None,
    }
}

fn metadata(of: &ObjectMeta) -> ObjectMeta {
    let (name, namespace, uid, labels) = (of.name.clone(), of.namespace.clone(), of.uid.clone(), of.labels.clone());
    ObjectMeta { name, namespace, uid, labels, ..ObjectMeta::default() }
}

fn bare(of: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { name: of.name.clone(), ..ObjectMeta::default() }
}

fn config_map(found: &ConfigMap) -> ConfigMap {
    let (data, binary_data) = (found.data.clone(), found.binary_data.clone());
    ConfigMap { metadata: bare(&found.metadata), data, binary_data, ..ConfigMap::default() }
}

fn secret(found: &Secret) -> Secret {
    Secret { metadata: bare(&found.metadata), data: found.data.clone(), ..Secret::default() }
}

/// Tokens are for this cluster's API, which a twin does not reach.
fn without_tokens(spec: &mut PodSpec) {
    let is_token = |volume: &Volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        volume.name.starts_with("kube-api-access-")
            && sources.clone().any(|source| source.service_account_token.is_some())
    };
    let tokens: BTreeSet<String> =
        spec.volumes.iter().flatten().filter(|volume| is_token(volume)).map(|volume| volume.name.clone()).collect();
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !tokens.contains(&volume.name));
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| !tokens.contains(&mount.name));
        }
    }
}

/// Makes values of the pod's own fields, which are otherwise at its provider. Its addresses stay to be seen there, but
/// for that of the machine, which is the provider's business.
fn resolve(container: &mut Container, pod: &Pod) {
    for env in container.env.iter_mut().flatten() {
        let Some(field) = env.value_from.as_ref().and_then(|from| from.field_ref.as_ref()) else { continue };
        if let Some(value) = field_value(pod, &field.field_path) {
            env.value_from = None;
            // `$(NAME)` in a value would be expanded.
            env.value = Some(value.replace("$(", "$$("));
        }
    }
}

fn field_value(pod: &Pod, path: &str) -> Option<String> {
    let spec = pod.spec.as_ref();
    let keyed = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("']"));
    if let Some(key) = keyed("metadata.labels['") {
        return Some(pod.labels().get(key).cloned().unwrap_or_default());
    }
    if let Some(key) = keyed("metadata.annotations['") {
        return Some(pod.annotations().get(key).cloned().unwrap_or_default());
    }
    match path {
        "metadata.name" => pod.metadata.name.clone(),
        "metadata.namespace" => pod.metadata.namespace.clone(),
        "metadata.uid" => pod.metadata.uid.clone(),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => Some(spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()),
        "status.hostIP" | "status.hostIPs" => Some(String::new()),
        _ => None,
    }
}

/// The variables of the namespace's Services (`makeLinkVariables`, `{NAME}_SERVICE_HOST` and so on).
fn service_variables(services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let name = service.name_any().to_ascii_uppercase().replace('-', "_");
        let spec = service.spec.clone().unwrap_or_default();
        let Some(host) = spec.cluster_ip.filter(|ip| !ip.is_empty() && ip != "None") else { continue };
        // The API of this cluster is not for twins.
        if service.name_any() == "kubernetes" && service.namespace().as_deref() == Some("default") {
            continue;
        }
        let ports = spec.ports.unwrap_or_default();
        let Some(first) = ports.first() else { continue };
        let protocol =
            |port: &k8s_openapi::api::core::v1::ServicePort| port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let url = |port: &k8s_openapi::api::core::v1::ServicePort| {
            format!("{}://{host}:{}", protocol(port).to_ascii_lowercase(), port.port)
        };
        variables.insert(format!("{name}_SERVICE_HOST"), host.clone());
        variables.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        variables.insert(format!("{name}_PORT"), url(first));
        for port in &ports {
            if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
                let port_name = port_name.to_ascii_uppercase().replace('-', "_");
                variables.insert(format!("{name}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol(port));
            variables.insert(prefix.clone(), url(port));
            variables.insert(format!("{prefix}_PROTO"), protocol(port).to_ascii_lowercase());
            variables.insert(format!("{prefix}_PORT"), port.port.to_string());
            variables.insert(format!("{prefix}_ADDR"), host.clone());
        }
    }
    variables
}

/// Services come before all else that sets a variable, so whatever else sets it wins.
fn add_services(
    container: &mut Container,
    services: &BTreeMap<String, String>,
    config_maps: &[ConfigMap],
    secrets: &[Secret],
) {
    let mut set: BTreeSet<String> = container.env.iter().flatten().map(|env| env.name.clone()).collect();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let maps =
            config_maps.iter().filter(|m| source.config_map_ref.as_ref().is_some_and(|r| r.name == m.name_any()));
        set.extend(
            maps.flat_map(|map| map.data.iter().flat_map(|data| data.keys())).map(|key| format!("{prefix}{key}")),
        );
        let hidden = secrets.iter().filter(|s| source.secret_ref.as_ref().is_some_and(|r| r.name == s.name_any()));
        set.extend(
            hidden.flat_map(|map| map.data.iter().flat_map(|data| data.keys())).map(|key| format!("{prefix}{key}")),
        );
    }
    let variables = services.iter().filter(|(name, _)| !set.contains(*name)).map(|(name, value)| EnvVar {
        name: name.clone(),
        value: Some(value.clone()),
        value_from: None,
    });
    let all: Vec<EnvVar> = variables.chain(container.env.take().into_iter().flatten()).collect();
    container.env = (!all.is_empty()).then_some(all);
}

/// A twin resolves as its consumer's pods do (`dnsPolicy: ClusterFirst`), unless it says how to.
fn dns(spec: &mut PodSpec, namespace: &str, around: &Around<'_>) {
    let domain = around.cluster_domain;
    let own = spec.dns_config.take().unwrap_or_default();
    let from_policy = spec.dns_policy.take().as_deref() != Some("None");
    let mut config = PodDNSConfig::default();
    if from_policy {
        config.nameservers = Some(vec![around.dns_address.to_string()]);
        config.searches = Some(vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()]);
        let ndots = PodDNSConfigOption { name: Some("ndots".into()), value: Some("5".into()) };
        config.options = Some(vec![ndots]);
    }
    config.nameservers.get_or_insert_default().extend(own.nameservers.into_iter().flatten());
    config.searches.get_or_insert_default().extend(own.searches.into_iter().flatten());
    let options = config.options.get_or_insert_default();
    for option in own.options.into_iter().flatten() {
        options.retain(|known| known.name != option.name);
        options.push(option);
    }
    spec.dns_policy = Some("None".into());
    spec.dns_config = Some(config);
}

/// What says where and as whom a pod runs here says nothing there.
fn own_business_left_out(spec: PodSpec) -> PodSpec {
    PodSpec {
        node_name: None,
        node_selector: None,
        affinity: None,
        tolerations: None,
        topology_spread_constraints: None,
        scheduler_name: None,
        scheduling_gates: None,
        readiness_gates: None,
        priority: None,
        priority_class_name: None,
        preemption_policy: None,
        service_account: None,
        service_account_name: None,
        automount_service_account_token: None,
        image_pull_secrets: None,
        enable_service_links: None,
        ..spec
    }
}
