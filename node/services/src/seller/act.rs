//! Makes and removes instances. Every effect at the seller is here.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use fluidos_model::kinds::{Allocation, names};
use fluidos_model::service::{BlueprintError, Credential, Recipe};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::{Value, json};

use super::plan::Action;
use crate::home::Home;

/// The Secret of an instance in which its credentials stand.
const CREDENTIALS: &str = "fluidos-credentials";
/// What a credential consists of.
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Why an instance is not made. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API did not do it.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// The manifests cannot be made.
    #[error(transparent)]
    Blueprint(#[from] BlueprintError),
    /// A manifest is none.
    #[error("{what}: {source}")]
    Manifest {
        /// Which.
        what: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// There is no chance to be had.
    #[error("the system gives no random bytes")]
    Random,
    /// Somebody has it.
    #[error("namespace {0} is not of this contract")]
    Taken(String),
}

/// Does one thing of a plan.
pub(super) async fn act(client: &Client, action: &Action) -> Result<(), Error> {
    match action {
        Action::Make { contract, recipe, configuration } => make(client, contract, recipe, configuration).await,
        Action::Remove { namespace, uid } => {
            let preconditions = Preconditions { uid: uid.clone(), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            well(Api::<Namespace>::all(client.clone()).delete(namespace, &parameters).await.map(|_| ()))
        }
        Action::Allocation { name, phase, message } => {
            let status = json!({"status": phase, "message": message, "lastUpdateTime": Timestamp::now().to_string()});
            let api = Api::<Allocation>::namespaced(client.clone(), names::NAMESPACE);
            let patch = Patch::Merge(json!({"status": status}));
            well(api.patch_status(name, &PatchParams::default(), &patch).await.map(|_| ()))
        }
    }
}

/// What is there already, or gone already, is well.
fn well(done: kube::Result<()>) -> Result<(), Error> {
    match done {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => Ok(other?),
    }
}

async fn make(client: &Client, contract: &str, recipe: &Recipe, configuration: &Value) -> Result<(), Error> {
    let namespace = names::service_namespace(contract);
    let api = Api::<Namespace>::all(client.clone());
    let known = match api.get_opt(&namespace).await? {
        Some(known) => known,
        None => api.create(&PostParams::default(), &own_namespace(&namespace, contract)).await?,
    };
    if known
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(names::LABEL_SERVICE))
        .is_none_or(|of| of != contract)
    {
        return Err(Error::Taken(namespace));
    }
    let credentials = made(client, &namespace, contract, &recipe.credentials).await?;
    let manifests = recipe.instance(configuration, &credentials)?;
    // Services first: their addresses stand in the pods.
    let (services, others): (Vec<Value>, Vec<Value>) = manifests.into_iter().partition(|it| it["kind"] == "Service");
    for manifest in services {
        create(client, &namespace, contract, manifest).await?;
    }
    let known = Api::<Service>::namespaced(client.clone(), &namespace).list(&ListParams::default()).await?.items;
    let aliases = aliases(&namespace, &known);
    for mut manifest in others {
        name(&mut manifest, &aliases);
        create(client, &namespace, contract, manifest).await?;
    }
    Ok(())
}

/// Lines of `/etc/hosts`, by which the pods of an instance find its Services: they do not reach this cluster's DNS, which knows all its names.
fn aliases(namespace: &str, services: &[Service]) -> Vec<Value> {
    let alias = |service: &Service| {
        let address =
            service.spec.as_ref()?.cluster_ip.as_ref().filter(|address| address.parse::<Ipv4Addr>().is_ok())?;
        let name = service.metadata.name.as_ref()?;
        let names = ["", ".svc", ".svc.cluster.local"].map(|end| format!("{name}.{namespace}{end}"));
        let names: Vec<String> = std::iter::once(name.clone()).chain(names).collect();
        Some(json!({"ip": address, "hostnames": names}))
    };
    services.iter().filter_map(alias).collect()
}

/// Gives the pods of a manifest names for addresses, before those that its blueprint gives them.
fn name(manifest: &mut Value, aliases: &[Value]) {
    let spec = pod(manifest).and_then(|pointer| manifest.pointer_mut(pointer)).filter(|spec| spec.is_object());
    if let Some(spec) = spec.filter(|_| !aliases.is_empty()) {
        let own = spec["hostAliases"].as_array().cloned().unwrap_or_default();
        spec["hostAliases"] = aliases.iter().cloned().chain(own).collect();
    }
}

/// Where the spec of the pods of a manifest is; `None` makes none.
fn pod(manifest: &Value) -> Option<&'static str> {
    match manifest["kind"].as_str() {
        Some("Pod") => Some("/spec"),
        Some("Deployment" | "ReplicaSet") => Some("/spec/template/spec"),
        _ => None,
    }
}

fn own_namespace(name: &str, contract: &str) -> Namespace {
    let labels = [(names::LABEL_SERVICE, contract), ("pod-security.kubernetes.io/enforce", "baseline")];
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    namespace.metadata.labels =
        Some(labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect());
    namespace
}

/// The credentials of an instance: those that were made first, whatever the blueprint says by now.
async fn made(
    client: &Client,
    namespace: &str,
    contract: &str,
    wanted: &[Credential],
) -> Result<BTreeMap<String, String>, Error> {
    if let Some(known) = credentials(client, namespace).await? {
        return Ok(known);
    }
    let mut fresh = BTreeMap::new();
    for credential in wanted {
        fresh.insert(credential.name.clone(), random(credential.length)?);
    }
    let mut secret = Secret { string_data: Some(fresh.clone()), ..Secret::default() };
    secret.metadata.name = Some(CREDENTIALS.to_owned());
    secret.metadata.labels = Some(BTreeMap::from([(names::LABEL_SERVICE.to_owned(), contract.to_owned())]));
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    match api.create(&PostParams::default(), &secret).await {
        // Another process of this node was faster: its credentials count.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Ok(credentials(client, namespace).await?.unwrap_or_default())
        }
        other => other.map(|_| fresh).map_err(Error::from),
    }
}

/// The credentials of the instance in a namespace; `None` before there are any.
pub(crate) async fn credentials(client: &Client, namespace: &str) -> kube::Result<Option<BTreeMap<String, String>>> {
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(CREDENTIALS).await?;
    let text = |ByteString(bytes): &ByteString| String::from_utf8_lossy(bytes).into_owned();
    let texts = |secret: Secret| {
        let data = secret.data.unwrap_or_default();
        data.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    Ok(secret.map(texts))
}

/// The Service that is the endpoint of the instance in a namespace, with what stands behind it; `None` before there is one.
pub(crate) async fn endpoint(client: &Client, namespace: &str) -> kube::Result<Option<(Service, Vec<EndpointSlice>)>> {
    let labelled = ListParams::default().labels(&format!("{}=true", names::LABEL_SERVICE_ENDPOINT));
    let mut services = Api::<Service>::namespaced(client.clone(), namespace).list(&labelled).await?.items;
    let Some(service) = services.pop() else { return Ok(None) };
    let name = service.metadata.name.clone().unwrap_or_default();
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&of_service).await?.items;
    Ok(Some((service, slices)))
}

/// Writes whose addresses use the instance in a namespace, if not those of its buyer. Before there is a namespace nothing is to be reached.
pub(crate) async fn used_from(client: &Client, namespace: &str, home: Home) -> kube::Result<()> {
    let api = Api::<Namespace>::all(client.clone());
    let Some(known) = api.get_opt(namespace).await? else { return Ok(()) };
    let home = home.to_string();
    let notes = known.metadata.annotations.unwrap_or_default();
    if notes.get(names::ANNOTATION_HOME) == Some(&home) {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": known.metadata.uid, "annotations": {names::ANNOTATION_HOME: home}}});
    match api.patch(namespace, &PatchParams::default(), &Patch::Merge(patch)).await {
        // It is going, or another of its name is there: it is asked for again.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// A text of letters and digits, each as likely as any other.
fn random(length: usize) -> Result<String, Error> {
    let (random, mut text) = (SystemRandom::new(), String::with_capacity(length));
    while text.len() < length {
        let mut bytes = [0; 64];
        random.fill(&mut bytes).map_err(|_| Error::Random)?;
        // 248 is the last multiple of 62 in a byte: what is beyond would make the first letters likelier.
        let letters = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(LETTERS[usize::from(*byte) % 62]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

/// Creates one object of an instance, if it is not there.
async fn create(client: &Client, namespace: &str, contract: &str, mut manifest: Value) -> Result<(), Error> {
    let text = |manifest: &Value, key: &str| manifest[key].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&manifest, "apiVersion"), text(&manifest, "kind"));
    own(&mut manifest, namespace, contract);
    let (group, version) = version.split_once('/').map_or(("", version.as_str()), |(group, version)| (group, version));
    let plural = format!("{}s", kind.to_ascii_lowercase());
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind), &plural);
    let object: DynamicObject =
        serde_json::from_value(manifest).map_err(|source| Error::Manifest { what: kind.clone(), source })?;
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
    match api.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => Ok(other.map(|_| ())?),
    }
}

/// Makes a manifest one of an instance: in its namespace, its pods marked, so that they are confined, and without a token of the API.
pub(super) fn own(manifest: &mut Value, namespace: &str, contract: &str) {
    manifest["metadata"]["namespace"] = namespace.into();
    mark(&mut manifest["metadata"], contract);
    // One of another shape makes no pods: the API refuses it.
    let template = match manifest["kind"].as_str() {
        Some("Deployment" | "ReplicaSet") => manifest.pointer_mut("/spec/template").filter(|it| it.is_object()),
        _ => None,
    };
    if let Some(template) = template {
        mark(&mut template["metadata"], contract);
    }
    if let Some(spec) = pod(manifest).and_then(|pointer| manifest.pointer_mut(pointer)).filter(|spec| spec.is_object())
    {
        spec["automountServiceAccountToken"] = false.into();
    }
}

fn mark(metadata: &mut Value, contract: &str) {
    if !metadata.is_object() {
        *metadata = json!({});
    }
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][names::LABEL_SERVICE] = contract.into();
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn credentials_are_of_their_length_and_never_twice_the_same() {
        let made: BTreeSet<String> = (0..1000).map(|_| random(24).unwrap()).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|text| text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())));
        let letters: BTreeSet<char> = made.iter().flat_map(|text| text.chars()).collect();
        assert_eq!(letters.len(), 62, "every letter and digit comes");
        assert_eq!(random(128).unwrap().len(), 128);
    }

    #[test]
    fn every_pod_of_an_instance_is_marked() {
        let mut deployment = json!({"kind": "Deployment", "metadata": {"name": "db"},
            "spec": {"template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}}});
        own(&mut deployment, "service-1", "contract-1");
        let labels = json!({"app": "db", names::LABEL_SERVICE: "contract-1"});
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], labels);
        assert_eq!(deployment["spec"]["template"]["spec"]["automountServiceAccountToken"], false);
        assert_eq!(deployment["metadata"]["namespace"], "service-1");
        let mut pod = json!({"kind": "Pod", "metadata": {"name": "db", "labels": {names::LABEL_SERVICE: "contract-2"}}, "spec": {}});
        own(&mut pod, "service-1", "contract-1");
        assert_eq!(pod["metadata"]["labels"][names::LABEL_SERVICE], "contract-1");
    }

    #[test]
    fn a_manifest_of_another_shape_is_left_to_the_api_to_refuse() {
        for spec in [json!("none"), json!({"template": 1}), json!(null)] {
            let mut manifest = json!({"kind": "Deployment", "metadata": {"name": "db"}, "spec": spec});
            own(&mut manifest, "service-one", "one");
            assert_eq!(manifest["spec"], spec);
        }
    }

    #[test]
    fn pods_of_an_instance_find_its_services_by_name() {
        let service = |name: &str, address: &str| -> Service {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"clusterIP": address}})).unwrap()
        };
        let aliases = aliases("service-1", &[service("db", "100.64.15.7"), service("headless", "None")]);
        let names = ["db", "db.service-1", "db.service-1.svc", "db.service-1.svc.cluster.local"];
        assert_eq!(aliases, [json!({"ip": "100.64.15.7", "hostnames": names})]);
        let mut pod = json!({"kind": "Pod", "spec": {"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["x"]}]}});
        name(&mut pod, &aliases);
        assert_eq!(pod["spec"]["hostAliases"].as_array().unwrap().len(), 2);
        let mut deployment = json!({"kind": "Deployment", "spec": {"template": {"spec": {}}}});
        name(&mut deployment, &aliases);
        assert_eq!(deployment["spec"]["template"]["spec"]["hostAliases"], json!(aliases));
        let mut secret = json!({"kind": "Secret"});
        name(&mut secret, &aliases);
        assert_eq!(secret, json!({"kind": "Secret"}));
    }
}
