//! The environment of a container: what the API holds, as `NAME=value`.
//!
//! ```text
//! Service variables < image's Env < envFrom < env (later wins), then $(VAR) in env, command and args
//! ```
//!
//! [`resolve`] is pure: everything it may need has been fetched before ([`needed`]).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, EnvVarSource, Pod, Secret, Service};
use substrate_client::quantity::Quantity;

use super::ConfigError;
use super::located::Located;
use super::resources::Capacity;

/// Objects of a pod's namespace, as fetched; an absent key was not there.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
    /// The namespace's Services, and `kubernetes` of the namespace `default`.
    pub services: Vec<Service>,
    /// Tokens by volume and path.
    pub tokens: BTreeMap<(String, String), String>,
    /// Volumes that are mounted from where they are, by name.
    pub located: BTreeMap<String, Located>,
}

/// What of a pod is only known on the node.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The machine's addresses; the first is its `hostIP`.
    pub host_ips: Vec<String>,
    /// The pod's addresses; the first is its `podIP`.
    pub pod_ips: Vec<String>,
    /// The machine.
    pub capacity: Capacity,
}

/// Names of ConfigMaps and Secrets that a pod refers to anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// What has to be fetched before `pod` can start.
pub fn needed(pod: &Pod) -> Needed {
    let mut needed = Needed::default();
    let Some(spec) = &pod.spec else { return needed };
    for container in super::all_containers(pod) {
        for from in container.env_from.iter().flatten() {
            needed.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            needed.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            needed.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            needed.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        needed.config_maps.extend(volume.config_map.as_ref().map(|s| s.name.clone()));
        needed.secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            needed.config_maps.extend(source.config_map.as_ref().map(|s| s.name.clone()));
            needed.secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
        }
    }
    needed
}

/// The variables of `container`, in order.
///
/// # Errors
/// A ConfigMap, Secret or key that is not optional is missing, or a field is not known.
pub fn resolve(
    pod: &Pod,
    container: &Container,
    image_env: &[String],
    sources: &Sources,
    place: &Place,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Env::default();
    let links = pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    for (name, value) in service_variables(&sources.services, links) {
        env.set(name, value);
    }
    for (name, value) in image_env.iter().filter_map(|e| e.split_once('=')) {
        env.set(name.to_owned(), value.to_owned());
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.clone().unwrap_or_default();
        if let Some(r) = &from.config_map_ref {
            match sources.config_maps.get(&r.name) {
                Some(map) => map.data.iter().flatten().for_each(|(k, v)| env.set(format!("{prefix}{k}"), v.clone())),
                None if r.optional == Some(true) => {}
                None => return Err(missing("configmap", &r.name)),
            }
        }
        if let Some(r) = &from.secret_ref {
            match sources.secrets.get(&r.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if r.optional == Some(true) => {}
                None => return Err(missing("secret", &r.name)),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, variable, &env, sources, place)? {
            env.set(variable.name.clone(), value);
        }
    }
    Ok(env.0)
}

/// `subPathExpr` with its variables replaced; unlike in a command, a name without a value refuses the container.
///
/// # Errors
/// A variable that has no value, or a path that leads out; in the words of every kubelet.
pub fn sub_path(expression: &str, env: &[(String, String)]) -> Result<String, ConfigError> {
    let mut missing = BTreeSet::new();
    let path = expand_with(expression, |name| {
        let value = env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone()).filter(|v| !v.is_empty());
        value.or_else(|| {
            missing.insert(name.to_owned());
            None
        })
    });
    if !missing.is_empty() {
        let names = missing.into_iter().collect::<Vec<_>>().join(", ");
        return Err(ConfigError::Invalid(format!("missing value for {names}")));
    }
    if path.starts_with('/') {
        return Err(ConfigError::Invalid(format!("error SubPath `{path}` must not be an absolute path")));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(ConfigError::Invalid(format!("unable to provision SubPath `{path}`: must not contain '..'")));
    }
    Ok(path)
}

/// `$(NAME)` replaced by the variable's value; an unknown name stays as it is, `$$` is `$`.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    expand_with(text, |name| env.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
}

fn expand_with(text: &str, mut look_up: impl FnMut(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match look_up(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[derive(Default)]
struct Env(Vec<(String, String)>);

impl Env {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(old) => old.1 = value,
            None => self.0.push((name, value)),
        }
    }
}

/// `None`: the source is optional and not there.
fn value_of(
    pod: &Pod,
    variable: &EnvVar,
    env: &Env,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, ConfigError> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), &env.0)));
    };
    match from {
        EnvVarSource { config_map_key_ref: Some(r), .. } => {
            let map = sources.config_maps.get(&r.name);
            let value = map.and_then(|m| m.data.as_ref()?.get(&r.key).cloned());
            required(value, map.is_some(), r.optional, "configmap", &r.name, &r.key, pod)
        }
        EnvVarSource { secret_key_ref: Some(r), .. } => {
            let secret = sources.secrets.get(&r.name);
            let value =
                secret.and_then(|s| Some(String::from_utf8_lossy(&s.data.as_ref()?.get(&r.key)?.0).into_owned()));
            required(value, secret.is_some(), r.optional, "secret", &r.name, &r.key, pod)
        }
        EnvVarSource { field_ref: Some(r), .. } => field(pod, &r.field_path, place).map(Some),
        EnvVarSource { resource_field_ref: Some(r), .. } => {
            let divisor = r.divisor.as_ref().map(|q| q.0.as_str());
            resource(pod, r.container_name.as_deref().unwrap_or_default(), &variable.name, &r.resource, divisor, place)
                .map(Some)
        }
        _ => Err(ConfigError::Unsupported(format!("environment variable {}: this kind of source", variable.name))),
    }
}

fn required(
    value: Option<String>,
    object: bool,
    optional: Option<bool>,
    kind: &'static str,
    name: &str,
    key: &str,
    pod: &Pod,
) -> Result<Option<String>, ConfigError> {
    match value {
        Some(value) => Ok(Some(value)),
        None if optional == Some(true) => Ok(None),
        None if !object => Err(missing(kind, name)),
        None => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let kind = if kind == "secret" { "Secret" } else { "ConfigMap" };
            Err(ConfigError::Missing(format!("couldn't find key {key} in {kind} {namespace}/{name}")))
        }
    }
}

fn missing(kind: &str, name: &str) -> ConfigError {
    ConfigError::Missing(format!("{kind} \"{name}\" not found"))
}

/// A field of the pod, as the downward API names it.
///
/// # Errors
/// The downward API has no such field.
pub fn field(pod: &Pod, path: &str, place: &Place) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(ConfigError::Unsupported(format!("field {path}"))),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(&meta.labels),
        "metadata.annotations" => lines(&meta.annotations),
        "spec.nodeName" => spec.map(|s| text(&s.node_name)).unwrap_or_default(),
        "spec.serviceAccountName" => {
            spec.and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".to_owned())
        }
        "status.hostIP" => place.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => place.host_ips.join(","),
        "status.podIP" => place.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => place.pod_ips.join(","),
        other => return Err(ConfigError::Unsupported(format!("field {other}"))),
    })
}

/// `key="value"` lines, as files of the downward API have them.
fn lines(map: &Option<BTreeMap<String, String>>) -> String {
    let lines: Vec<_> = map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

/// A container's request or limit in units of `divisor`; without a limit, what the machine has.
///
/// # Errors
/// No such container or resource.
pub fn resource(
    pod: &Pod,
    container: &str,
    what: &str,
    resource: &str,
    divisor: Option<&str>,
    place: &Place,
) -> Result<String, ConfigError> {
    let mut candidates = super::all_containers(pod).filter(|c| container.is_empty() || c.name == container);
    let container =
        candidates.next().ok_or_else(|| ConfigError::Missing(format!("{what}: no container {container}")))?;
    let (kind, name) = resource.split_once('.').unwrap_or(("", resource));
    let listed = container
        .resources
        .as_ref()
        .and_then(|r| if kind == "limits" { r.limits.as_ref() } else { r.requests.as_ref() });
    let listed = listed.and_then(|l| l.get(name)).and_then(|q| Quantity::try_from(q).ok());
    let amount = match (listed, kind, name) {
        (Some(amount), ..) => amount,
        (None, "limits", "cpu") => Quantity::millis(i64::try_from(place.capacity.cpu_milli).unwrap_or(i64::MAX)),
        (None, "limits", "ephemeral-storage") => {
            Quantity::bytes(i64::try_from(place.capacity.storage_bytes).unwrap_or(i64::MAX))
        }
        (None, "limits", "memory") => Quantity::bytes(i64::try_from(place.capacity.memory_bytes).unwrap_or(i64::MAX)),
        (None, "requests", "cpu" | "memory") => Quantity::ZERO,
        _ => return Err(ConfigError::Unsupported(format!("{what}: resource {resource}"))),
    };
    let divisor: Quantity =
        divisor.filter(|d| !d.is_empty() && *d != "0").unwrap_or("1").parse().unwrap_or(Quantity::whole(1));
    let (amount, divisor) = (amount.nano_value(), divisor.nano_value().max(1));
    Ok(((amount + divisor - 1) / divisor).to_string())
}

/// The variables that name Services, as Docker links did (KEP-less; "Accessing the Service" of the documentation).
fn service_variables(services: &[Service], all: bool) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let is_api = name == "kubernetes" && service.metadata.namespace.as_deref() == Some("default");
        let spec = service.spec.as_ref();
        let ip = spec.and_then(|s| s.cluster_ip.as_deref()).filter(|ip| !ip.is_empty() && *ip != "None");
        let (Some(ip), Some(ports)) = (ip, spec.and_then(|s| s.ports.as_ref()).filter(|p| !p.is_empty())) else {
            continue;
        };
        if !all && !is_api {
            continue;
        }
        let upper = name.to_uppercase().replace('-', "_");
        out.push((format!("{upper}_SERVICE_HOST"), ip.to_owned()));
        out.push((format!("{upper}_SERVICE_PORT"), ports[0].port.to_string()));
        for port in ports {
            if let Some(port_name) = &port.name {
                out.push((
                    format!("{upper}_SERVICE_PORT_{}", port_name.to_uppercase().replace('-', "_")),
                    port.port.to_string(),
                ));
            }
        }
        for (n, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if n == 0 {
                out.push((format!("{upper}_PORT"), url.clone()));
            }
            let prefix = format!("{upper}_PORT_{}_{protocol}", port.port);
            out.push((prefix.clone(), url));
            out.push((format!("{prefix}_PROTO"), protocol.to_lowercase()));
            out.push((format!("{prefix}_PORT"), port.port.to_string()));
            out.push((format!("{prefix}_ADDR"), ip.to_owned()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use serde_json::json;

    fn pod(container: serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "containers": [container]},
        }))
        .unwrap()
    }

    fn sources() -> Sources {
        let map = json!({"metadata": {"name": "conf"}, "data": {"A": "1", "B": "two"}});
        let secret = json!({"metadata": {"name": "keys"}, "data": {"TOKEN": "czNjcmV0"}});
        let service = json!({"metadata": {"name": "my-db", "namespace": "shop"},
            "spec": {"clusterIP": "10.0.0.9", "ports": [{"name": "sql", "port": 5432}]}});
        Sources {
            config_maps: [("conf".to_owned(), serde_json::from_value(map).unwrap())].into(),
            secrets: [("keys".to_owned(), serde_json::from_value(secret).unwrap())].into(),
            services: vec![serde_json::from_value(service).unwrap()],
            ..Sources::default()
        }
    }

    fn check(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
        let pod = pod(container);
        let place = Place {
            pod_ips: vec!["10.1.0.2".into(), "fd00:1::2".into()],
            host_ips: vec!["192.0.2.1".into(), "2001:db8::1".into()],
            capacity: Capacity { cpu_milli: 4000, memory_bytes: 8 << 30, storage_bytes: 0 },
        };
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        let env = resolve(&pod, &container, &["PATH=/bin".into(), "A=image".into()], &sources(), &place);
        env.map(|e| e.into_iter().collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn every_source() {
        let env = check(json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}},
            "envFrom": [{"configMapRef": {"name": "conf"}}, {"prefix": "S_", "secretRef": {"name": "keys"}}, {"configMapRef": {"name": "no", "optional": true}}],
            "env": [
                {"name": "PLAIN", "value": "x$(A)$(UNKNOWN)$$(A)"},
                {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "B"}}},
                {"name": "SKIPPED", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "no", "optional": true}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
                {"name": "HOSTS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIPs"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ]}))
        .unwrap();
        for (name, value) in [
            ("A", "1"),
            ("B", "two"),
            ("S_TOKEN", "s3cret"),
            ("PLAIN", "x1$(UNKNOWN)$(A)"),
            ("KEY", "two"),
            ("IP", "10.1.0.2"),
            ("IPS", "10.1.0.2,fd00:1::2"),
            ("HOSTS", "192.0.2.1,2001:db8::1"),
            ("LABEL", "web"),
            ("MEM", "64"),
            ("CPU", "4"),
            ("PATH", "/bin"),
            ("MY_DB_SERVICE_HOST", "10.0.0.9"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT_5432_TCP", "tcp://10.0.0.9:5432"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!env.contains_key("SKIPPED"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let one = |from: serde_json::Value| {
            check(json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]})).unwrap_err()
        };
        assert_eq!(one(json!({"configMapKeyRef": {"name": "no", "key": "k"}})), "configmap \"no\" not found");
        assert_eq!(
            one(json!({"secretKeyRef": {"name": "keys", "key": "k"}})),
            "couldn't find key k in Secret shop/keys"
        );
        assert!(one(json!({"fieldRef": {"fieldPath": "spec.priority"}})).contains("spec.priority"));
    }
}
