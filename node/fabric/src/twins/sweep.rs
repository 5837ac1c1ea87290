//! Takes away what no contract needs any more: twins, what went with them, their namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fluidos_model::kinds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt as _};
use substrate_client::Pace;

use super::{Origin, burst, session};

use crate::Error;
use crate::deal::Deal;
use crate::fabric::Shared;
use crate::reflection::named;
use crate::virtual_node::absent_is_well;

/// A twin is written after what goes with it: what nobody names goes only when nobody has named it for this long.
const IDLE: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
const GATHER: Duration = Duration::from_millis(20);
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What there is.
pub(crate) struct View<'a> {
    /// Contracts that this node provides and that are live.
    pub live: BTreeSet<String>,
    pub pods: Vec<&'a Pod>,
    pub namespaces: Vec<&'a Namespace>,
    pub config_maps: Vec<&'a ConfigMap>,
    pub secrets: Vec<&'a Secret>,
}

/// What is to go.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a> {
    pub pods: Vec<&'a Pod>,
    pub config_maps: Vec<&'a ConfigMap>,
    pub secrets: Vec<&'a Secret>,
    pub namespaces: Vec<&'a Namespace>,
}

/// Since when nobody has needed a thing, by kind, namespace and name.
pub(crate) type Idle = BTreeMap<(&'static str, String, String), Timestamp>;

/// Sweeps for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut pods = shared.pods.changes();
    let mut contracts = shared.contracts.changes();
    let [mut ledgers, mut pages] = shared.books.changes();
    let mut idle = Idle::new();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        pods.mark_unchanged();
        contracts.mark_unchanged();
        ledgers.mark_unchanged();
        pages.mark_unchanged();
        // The turn is held while it is decided.
        if let Some(_turn) = burst::turn(&shared).await
            && let Err(error) = burst::settle(&shared).await
        {
            tracing::warn!(%error, "a twin that should yield stays for now");
        }
        sweep(&shared, &mut idle).await;
        pace.end();
        // Each arm only waits: losing the race loses nothing.
        tokio::select! {
            _ = pods.changed() => {}
            _ = contracts.changed() => {}
            _ = ledgers.changed() => {}
            _ = pages.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

async fn sweep(shared: &Shared, idle: &mut Idle) {
    let now = Timestamp::now();
    let list = shared.contracts.list();
    let deals = list.iter().filter_map(|contract| Deal::of(contract, &shared.speakers).ok());
    let live: BTreeSet<String> =
        deals.filter(|deal| deal.seller == shared.id() && deal.is_live(now)).map(|deal| deal.name).collect();
    shared.providing.retain(|contract| live.contains(contract));
    shared.yielding.retain(|contract| live.contains(contract));
    shared.confirm_under(&live);
    let (pods, namespaces) = (shared.pods.list(), shared.namespaces.list());
    let (config_maps, secrets) = (shared.config_maps.list(), shared.secrets.list());
    let view = View {
        live,
        pods: pods.iter().map(AsRef::as_ref).collect(),
        namespaces: namespaces.iter().map(AsRef::as_ref).collect(),
        config_maps: config_maps.iter().map(AsRef::as_ref).collect(),
        secrets: secrets.iter().map(AsRef::as_ref).collect(),
    };
    for error in act(shared, plan(&view, idle, now)).await {
        tracing::warn!(%error, "a twin's remains stay for now");
    }
}

/// The plan for what there is.
pub(crate) fn plan<'a>(view: &View<'a>, idle: &mut Idle, now: Timestamp) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut needed: BTreeSet<(&'static str, String, String)> = BTreeSet::new();
    for pod in view.pods.iter().filter(|pod| Origin::of(pod).is_some()) {
        let Some(contract) = pod.labels().get(names::LABEL_CONTRACT) else { continue };
        if !view.live.contains(contract) && pod.metadata.deletion_timestamp.is_none() {
            plan.pods.push(pod);
        }
        let namespace = pod.namespace().unwrap_or_default();
        let named = pod.spec.as_ref().map(named).unwrap_or_default();
        needed.extend(named.config_maps.into_iter().map(|name| ("ConfigMap", namespace.clone(), name)));
        needed.extend(named.secrets.into_iter().map(|name| ("Secret", namespace.clone(), name)));
        needed.insert(("Namespace", String::new(), namespace));
    }
    let mut seen = BTreeSet::new();
    let mut is_idle = |kind: &'static str, namespace: Option<String>, name: String| {
        let key = (kind, namespace.unwrap_or_default(), name);
        if needed.contains(&key) {
            return false;
        }
        let since = *idle.entry(key.clone()).or_insert(now);
        seen.insert(key);
        now.duration_since(since) >= IDLE
    };
    let is_twins = |namespace: &&&Namespace| {
        namespace.labels().contains_key(names::LABEL_CONTRACT)
            && namespace.annotations().contains_key(names::ANNOTATION_PEER_DID)
    };
    let mut ours = BTreeSet::new();
    for namespace in view.namespaces.iter().filter(is_twins) {
        let name = namespace.name_any();
        // Without a live contract nothing is on its way into it.
        let is_over =
            namespace.labels().get(names::LABEL_CONTRACT).is_some_and(|contract| !view.live.contains(contract));
        let is_empty = !needed.contains(&("Namespace", String::new(), name.clone()));
        let has_waited = is_idle("Namespace", None, name.clone());
        if namespace.metadata.deletion_timestamp.is_none() && is_empty && (is_over || has_waited) {
            plan.namespaces.push(namespace);
        } else {
            ours.insert(name);
        }
    }
    let is_ours = |labels: &BTreeMap<String, String>, namespace: Option<String>| {
        labels.contains_key(names::LABEL_CONTRACT) && namespace.is_some_and(|namespace| ours.contains(&namespace))
    };
    for map in view.config_maps.iter().filter(|map| is_ours(map.labels(), map.namespace())) {
        if is_idle("ConfigMap", map.namespace(), map.name_any()) {
            plan.config_maps.push(map);
        }
    }
    for secret in view.secrets.iter().filter(|secret| is_ours(secret.labels(), secret.namespace())) {
        if is_idle("Secret", secret.namespace(), secret.name_any()) {
            plan.secrets.push(secret);
        }
    }
    idle.retain(|key, _| seen.contains(key));
    plan
}

async fn act(shared: &Shared, plan: Plan<'_>) -> Vec<Error> {
    let mut errors = Vec::new();
    let client = &shared.client;
    for pod in plan.pods {
        errors.extend(session::delete(shared, pod, None).await.err());
    }
    let only =
        |uid: Option<String>| DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
    for map in plan.config_maps {
        let (namespace, name) = (map.namespace().unwrap_or_default(), map.name_any());
        let deleted = Api::<ConfigMap>::namespaced(client.clone(), &namespace).delete(&name, &only(map.uid())).await;
        errors.extend(
            absent_is_well(deleted.map(drop)).map_err(Error::api(format!("delete ConfigMap {namespace}/{name}"))).err(),
        );
    }
    for secret in plan.secrets {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let deleted = Api::<Secret>::namespaced(client.clone(), &namespace).delete(&name, &only(secret.uid())).await;
        errors.extend(
            absent_is_well(deleted.map(drop)).map_err(Error::api(format!("delete Secret {namespace}/{name}"))).err(),
        );
    }
    for namespace in plan.namespaces {
        let name = namespace.name_any();
        let deleted = Api::<Namespace>::all(client.clone()).delete(&name, &only(namespace.uid())).await;
        errors.extend(absent_is_well(deleted.map(drop)).map_err(Error::api(format!("delete namespace {name}"))).err());
    }
    errors
}
