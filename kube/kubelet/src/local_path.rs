//! The built-in class of storage: a claim of class `local-path` gets a directory of the machine where its first pod goes.
//!
//! ```text
//! scheduler ── node ──▶ claim ──▶ directory DIR/pvc-UID ──▶ volume: local, only on this node, for this claim
//! claim grows ──▶ volume and claim say so (a directory has no size)
//! claim goes  ──▶ volume Released ── Delete ──▶ directory, then volume, are removed;  Retain ──▶ both stay
//! ```
//!
//! Each machine makes and removes its own directories, and nobody else's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use serde_json::json;
use substrate_client::quantity::Quantity;
use substrate_client::{Access, Cache};

/// The class that is made when there is none of that name.
const CLASS: &str = "local-path";
/// Whose classes are looked after here.
const PROVISIONER: &str = "substrate.io/local-path";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// What failed is tried again this soon, unless something changes before.
const RETRY: Duration = Duration::from_secs(5);

/// Looks after the local volumes of `node`, in `dir`, until dropped.
pub async fn run(access: Access, node: String, dir: PathBuf) {
    let (claims, volumes, classes) = (access.caches.all(), access.caches.all(), access.caches.all());
    let reporter = Reporter { controller: PROVISIONER.to_owned(), instance: Some(node.clone()) };
    let recorder = Recorder::new(access.client.clone(), reporter);
    let mut local =
        Local { client: access.client, recorder, node, dir, claims, volumes, classes, refused: BTreeSet::new() };
    let mut changes = [local.claims.changes(), local.volumes.changes(), local.classes.changes()];
    local.claims.synced().await;
    local.volumes.synced().await;
    local.classes.synced().await;
    while let Err(e) = local.class().await {
        tracing::warn!("make the storage class {CLASS}: {e}");
        tokio::time::sleep(RETRY).await;
    }
    loop {
        changes.iter_mut().for_each(watch_on);
        let again = !local.round().await;
        let [claims, volumes, classes] = &mut changes;
        tokio::select! {
            _ = claims.changed() => {}
            _ = volumes.changed() => {}
            _ = classes.changed() => {}
            () = tokio::time::sleep(RETRY), if again => {}
        }
    }
}

fn watch_on(changes: &mut tokio::sync::watch::Receiver<u64>) {
    changes.mark_unchanged();
}

struct Local {
    client: Client,
    recorder: Recorder,
    node: String,
    dir: PathBuf,
    claims: Cache<PersistentVolumeClaim>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    /// Claims that were told that they ask for what a directory cannot be.
    refused: BTreeSet<String>,
}

/// Why something was not done; said in the log and, for a claim, in its events.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("{}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

impl Local {
    /// Makes the class, as the default one, if there is none of its name.
    async fn class(&self) -> Result<(), kube::Error> {
        let class = json!({
            "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
            "allowVolumeExpansion": true,
        });
        let class: StorageClass = serde_json::from_value(class).map_err(kube::Error::SerdeError)?;
        match Api::all(self.client.clone()).create(&PostParams::default(), &class).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            other => other.map(drop),
        }
    }

    /// Does what is to be done now; whether all of it was.
    async fn round(&mut self) -> bool {
        let (claims, mut done) = (self.claims.list(), true);
        let uids: BTreeSet<_> = claims.iter().filter_map(|claim| claim.metadata.uid.clone()).collect();
        self.refused.retain(|uid| uids.contains(uid));
        for claim in &claims {
            let Some(class) = self.class_of(claim) else { continue };
            if let Err(why) = self.claim(claim, &class).await {
                done = false;
                tracing::warn!(claim = claim.metadata.name, "local volume: {why}");
                self.say(claim, EventType::Warning, "ProvisioningFailed", why.to_string()).await;
            }
        }
        for volume in self.volumes.list().iter().filter(|volume| self.is_ours(volume)) {
            let released = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Released");
            let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
            if released
                && policy == Some("Delete")
                && let Err(why) = self.remove(volume).await
            {
                done = false;
                tracing::warn!(volume = volume.metadata.name, "local volume: {why}");
            }
        }
        done
    }

    fn class_of(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let class = self.classes.get("", claim.spec.as_ref()?.storage_class_name.as_deref()?)?;
        (class.provisioner == PROVISIONER && claim.metadata.deletion_timestamp.is_none()).then_some(class)
    }

    async fn claim(&mut self, claim: &PersistentVolumeClaim, class: &StorageClass) -> Result<(), Failure> {
        let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
        if let Some(volume) = bound.and_then(|name| self.volumes.get("", name)) {
            let grows = class.allow_volume_expansion == Some(true) && self.is_ours(&volume);
            return if grows { self.grow(claim, &volume).await } else { Ok(()) };
        }
        let chosen = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
        if bound.is_some() || chosen != Some(&self.node) {
            return Ok(());
        }
        let Some(name) = claim.metadata.uid.as_ref().map(|uid| format!("pvc-{uid}")) else { return Ok(()) };
        if self.volumes.get("", &name).is_some() {
            return Ok(());
        }
        if let Some(why) = cannot_be_made(claim) {
            if self.refused.insert(name) {
                let text = format!("failed to provision volume with StorageClass {:?}: {why}", class_name(class));
                self.say(claim, EventType::Warning, "ProvisioningFailed", text).await;
            }
            return Ok(());
        }
        let path = self.dir.join(&name);
        make(&path).map_err(|source| Failure::Directory { path: path.clone(), source })?;
        match Api::all(self.client.clone())
            .create(&PostParams::default(), &self.volume(claim, class, &name, &path))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
            other => drop(other?),
        }
        let text = format!("Successfully provisioned volume {name}");
        self.say(claim, EventType::Normal, "ProvisioningSucceeded", text).await;
        Ok(())
    }

    fn volume(&self, claim: &PersistentVolumeClaim, class: &StorageClass, name: &str, path: &Path) -> PersistentVolume {
        let spec = claim.spec.clone().unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        let here = json!({"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [self.node]}]});
        let volume = json!({
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
            "spec": {
                "capacity": {"storage": requests.get("storage")},
                "accessModes": spec.access_modes,
                "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
                "storageClassName": class.metadata.name,
                "volumeMode": "Filesystem",
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.metadata.name,
                    "namespace": claim.metadata.namespace, "uid": claim.metadata.uid},
            },
        });
        // What is written here is a volume; a part of the claim that is none is left out and refused by the API.
        serde_json::from_value(volume).unwrap_or_default()
    }

    /// Whether the volume is a directory that this machine made: the name, the path and the node have to agree, so that
    /// an object that somebody else wrote leads to no other directory.
    fn is_ours(&self, volume: &PersistentVolume) -> bool {
        let annotations = volume.metadata.annotations.as_ref();
        let Some((spec, name)) = volume.spec.as_ref().zip(volume.metadata.name.as_ref()) else { return false };
        let path = spec.local.as_ref().map(|local| Path::new(&local.path));
        let affinity = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        let terms = affinity.map(|required| required.node_selector_terms.as_slice());
        let here = matches!(terms, Some([term]) if term.match_expressions.iter().flatten().any(|one| {
            one.key == HOSTNAME && one.values.as_deref() == Some(std::slice::from_ref(&self.node))
        }));
        annotations.and_then(|all| all.get(PROVISIONED_BY)).is_some_and(|by| by == PROVISIONER)
            && name.starts_with("pvc-")
            && path == Some(self.dir.join(name).as_path())
            && here
    }

    /// The volume first: what a claim says that it has, its volume has.
    async fn grow(&self, claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<(), Failure> {
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let Some(asked) = requests.and_then(|list| list.get("storage")) else { return Ok(()) };
        let size = |list: Option<&std::collections::BTreeMap<String, _>>| {
            list.and_then(|list| Quantity::try_from(list.get("storage")?).ok()).unwrap_or_default()
        };
        let wanted = size(requests);
        let has = size(volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref()));
        let told = size(claim.status.as_ref().and_then(|status| status.capacity.as_ref()));
        let capacity = json!({"capacity": {"storage": asked}});
        if wanted > has {
            let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
            let patch = Patch::Merge(json!({"spec": capacity}));
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            volumes.patch(name, &PatchParams::default(), &patch).await?;
        }
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        if bound && wanted > told {
            let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
            let patch = Patch::Merge(json!({"status": capacity}));
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            claims.patch_status(name, &PatchParams::default(), &patch).await?;
            let text = "Resize volume succeeded".to_owned();
            self.say(claim, EventType::Normal, "VolumeResizeSuccessful", text).await;
        }
        Ok(())
    }

    /// The directory first: a volume that is gone from the API says nothing more about it.
    async fn remove(&self, volume: &PersistentVolume) -> Result<(), Failure> {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let path = self.dir.join(name);
        let gone = tokio::task::spawn_blocking({
            let path = path.clone();
            move || fs::remove_dir_all(path)
        });
        match gone.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Failure::Directory { path, source }),
            _ => {}
        }
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        match volumes.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    async fn say(&self, claim: &PersistentVolumeClaim, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Provisioning".to_owned(),
            secondary: None,
        };
        if let Err(e) = self.recorder.publish(&event, &claim.object_ref(&())).await {
            tracing::debug!(reason, "write an event: {e}"); // the namespace may be going away with the claim
        }
    }
}

fn class_name(class: &StorageClass) -> &str {
    class.metadata.name.as_deref().unwrap_or_default()
}

/// What a directory of one machine cannot be.
fn cannot_be_made(claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let spec = claim.spec.as_ref()?;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Some("a directory is no block device");
    }
    if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteMany") {
        return Some("a directory of one node is not ReadWriteMany");
    }
    spec.data_source_ref.as_ref().map(|_| "a directory has no data source")
}

/// Any user of a pod may write there, as in an emptyDir; only root comes as far as the directory's name.
fn make(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
        fs::set_permissions(parent, fs::Permissions::from_mode(0o700))?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))
}
