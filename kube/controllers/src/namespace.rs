//! Deletion of namespaces: everything in them first, then their finalizer, with which the API server removes them.
//!
//! ```text
//!  deletionTimestamp set ──▶ delete all objects of all kinds in it ──▶ none left? ──▶ finalize without `kubernetes`
//!                                     ▲                                   │ some: say which, come back
//!                                     └───────────────────────────────────┘
//! ```
use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use crate::kinds::{Kind, discover};
use crate::objects::{name, stamp};
use crate::work::{Caches, Next, Rounds};

/// The finalizer that this controller answers for.
const FINALIZER: &str = "kubernetes";

/// Looks again first after this, then after twice as long each time: pods take a moment to end, a finalizer that nobody
/// answers takes for ever.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MOST: Duration = Duration::from_secs(15);

/// Removes namespaces until dropped.
pub(crate) async fn run(client: Client, caches: Caches) {
    let mut pauses: BTreeMap<String, Duration> = BTreeMap::new();
    // Pods are what takes longest; their end is seen at once.
    let mut rounds = Rounds::begin(vec![caches.namespaces.changes(), caches.pods.changes()]).await;
    loop {
        let next = round(&client, &caches, &mut pauses).await;
        rounds.wait(next).await;
    }
}

async fn round(client: &Client, caches: &Caches, pauses: &mut BTreeMap<String, Duration>) -> Next {
    let leaving: Vec<_> = caches.namespaces.list().into_iter().filter(|namespace| is_leaving(namespace)).collect();
    pauses.retain(|known, _| leaving.iter().any(|namespace| name(&namespace.metadata) == known));
    let mut next = Next::default();
    if leaving.is_empty() {
        return next;
    }
    let kinds = match discover(client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            warn!(%error, "kinds not found; namespaces stay for now");
            return Next { wake: None, failed: true };
        }
    };
    for namespace in leaving {
        match empty(client, &kinds, &namespace).await {
            Ok(true) => {
                pauses.remove(name(&namespace.metadata));
            }
            Ok(false) => {
                let pause = pauses.entry(name(&namespace.metadata).to_owned()).or_insert(AGAIN_FIRST);
                next.wake_in(Some(*pause));
                *pause = (*pause * 2).min(AGAIN_MOST);
            }
            Err(error) => {
                warn!(namespace = name(&namespace.metadata), %error, "not removed; will be tried again");
                next.failed = true;
            }
        }
    }
    next
}

fn is_leaving(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

/// What is left of one kind in a namespace.
struct Left {
    resource: String,
    count: usize,
    finalizers: BTreeMap<String, usize>,
}

/// Deletes what is in the namespace. Answers whether it was empty and is finalized.
async fn empty(client: &Client, kinds: &[Kind], namespace: &Namespace) -> Result<bool, kube::Error> {
    let home = name(&namespace.metadata);
    let mut left = Vec::new();
    for kind in kinds.iter().filter(|kind| kind.namespaced) {
        left.extend(delete_all(client, kind, home).await?);
    }
    if !left.is_empty() {
        say_what_is_left(client, namespace, &left).await?;
        return Ok(false);
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut finalized = namespace.clone();
    if let Some(spec) = finalized.spec.as_mut() {
        spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    }
    match namespaces.replace_subresource("finalize", home, &PostParams::default(), &finalized).await {
        Ok(_) => info!(namespace = home, "removed"),
        // Somebody wrote it since the view: the next round has the new version.
        Err(kube::Error::Api(status)) if status.code == 409 => return Ok(false),
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error),
    }
    Ok(true)
}

/// Asks for the deletion of all objects of a kind and answers what is there after that.
async fn delete_all(client: &Client, kind: &Kind, namespace: &str) -> Result<Option<Left>, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind.resource);
    let list = async || match api.list_metadata(&ListParams::default()).await {
        // The kind was taken away since it was found.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => Ok(Vec::new()),
        other => other.map(|list| list.items),
    };
    let found = list().await?;
    let fresh = found.iter().filter(|object| object.metadata.deletion_timestamp.is_none());
    let fresh: Vec<&str> = fresh.map(|object| name(&object.metadata)).collect();
    if fresh.is_empty() && found.is_empty() {
        return Ok(None);
    }
    if !fresh.is_empty() {
        debug!(namespace, resource = kind.resource.plural, count = fresh.len(), "deleting");
        if kind.collection {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        } else {
            for object in fresh {
                match api.delete(object, &DeleteParams::background()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    other => drop(other?),
                }
            }
        }
    }
    let rest = list().await?;
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for finalizer in rest.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
        *finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    let resource = match kind.resource.group.as_str() {
        "" => kind.resource.plural.clone(),
        group => format!("{}.{group}", kind.resource.plural),
    };
    Ok((!rest.is_empty()).then_some(Left { resource, count: rest.len(), finalizers }))
}

/// The conditions by which kube-controller-manager says why a namespace does not go.
async fn say_what_is_left(client: &Client, namespace: &Namespace, left: &[Left]) -> Result<(), kube::Error> {
    let content: Vec<String> =
        left.iter().map(|left| format!("{} has {} resource instances", left.resource, left.count)).collect();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for (finalizer, count) in left.iter().flat_map(|left| &left.finalizers) {
        *finalizers.entry(finalizer).or_default() += count;
    }
    let finalizers: Vec<String> =
        finalizers.into_iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    let mut wanted = vec![(
        "NamespaceContentRemaining",
        "SomeResourcesRemain",
        format!("Some resources are remaining: {}", content.join(", ")),
    )];
    if !finalizers.is_empty() {
        wanted.push((
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain",
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
        ));
    }
    let said = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let same = |(kind, _, message): &(&str, &str, String)| {
        said.iter().any(|condition| condition.type_ == *kind && condition.message.as_ref() == Some(message))
    };
    if wanted.iter().all(same) {
        return Ok(());
    }
    let now = stamp(Timestamp::now());
    let conditions: Vec<Value> = wanted
        .into_iter()
        .map(|(kind, reason, message)| {
            json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now})
        })
        .collect();
    let patch = json!({"metadata": {"uid": namespace.metadata.uid}, "status": {"conditions": conditions}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match namespaces.patch_status(name(&namespace.metadata), &PatchParams::default(), &Patch::Strategic(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other.map(|_| ()),
    }
}
