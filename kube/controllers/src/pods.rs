//! What all controllers of pods share: whose a pod is, and the writes that make, adopt, release and delete one.
//!
//! A pod *belongs* to an owner if it names it as the owner that manages it. One without such an owner whose labels are
//! selected is adopted; one whose labels no longer are is released.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::debug;

use crate::expectations::Expectations;
use crate::objects::{controller_of, controller_reference, is_active, name, namespace, selects, uid};
use crate::recorder::{Kind, Recorder};

/// Which pods are an owner's.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    pub own: Vec<Arc<Pod>>,
    /// Among its own, but nobody has written so yet.
    pub adopt: Vec<Arc<Pod>>,
    pub release: Vec<Arc<Pod>>,
}

impl Claim {
    /// Whether owners have to be written.
    pub fn is_open(&self) -> bool {
        !self.adopt.is_empty() || !self.release.is_empty()
    }
}

/// What of `candidates`, the pods of its namespace, is the owner's. One that is being deleted neither adopts nor releases.
pub(crate) fn claim(
    owner: &ObjectMeta,
    selector: &LabelSelector,
    candidates: &[Arc<Pod>],
    may_adopt: impl Fn(&Pod) -> bool,
) -> Claim {
    let mut claim = Claim::default();
    let leaving = owner.deletion_timestamp.is_some();
    for pod in candidates {
        let selected = selects(selector, pod.metadata.labels.as_ref());
        match controller_of(&pod.metadata) {
            Some(found) if found.uid == uid(owner) && selected => claim.own.push(pod.clone()),
            Some(found) if found.uid == uid(owner) && !leaving => claim.release.push(pod.clone()),
            None if selected && !leaving && is_active(pod) && may_adopt(pod) => {
                claim.adopt.push(pod.clone());
                claim.own.push(pod.clone());
            }
            _ => {}
        }
    }
    claim
}

/// Pods by their namespace.
pub(crate) fn by_namespace(pods: &[Arc<Pod>]) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut sorted: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        sorted.entry(namespace(&pod.metadata).to_owned()).or_default().push(pod.clone());
    }
    sorted
}

/// A pod of a template, of this owner, without a name.
pub(crate) fn from_template(template: &PodTemplateSpec, home: &ObjectMeta, owner: OwnerReference) -> Pod {
    let of = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        namespace: home.namespace.clone(),
        labels: of.labels,
        annotations: of.annotations,
        finalizers: of.finalizers,
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

/// Writes pods in the name of one controller, and remembers what its view does not show yet.
pub(crate) struct PodControl {
    pub client: Client,
    pub recorder: Recorder,
    pub expectations: Expectations,
    api_version: &'static str,
    kind: &'static str,
    /// What every own pod carries.
    finalizer: Option<&'static str>,
}

impl PodControl {
    pub fn new(client: Client, component: &'static str, api_version: &'static str, kind: &'static str) -> Self {
        let recorder = Recorder { client: client.clone(), component };
        Self { client, recorder, expectations: Expectations::default(), api_version, kind, finalizer: None }
    }

    /// Adopted pods get this finalizer, released ones lose it.
    pub fn with_finalizer(mut self, finalizer: &'static str) -> Self {
        self.finalizer = Some(finalizer);
        self
    }

    /// The reference by which a pod is the owner's.
    pub fn owned_by(&self, owner: &ObjectMeta) -> OwnerReference {
        controller_reference(self.api_version, self.kind, owner)
    }

    /// Compares what was done with what is seen now.
    pub fn settle(&mut self, pods: &[Arc<Pod>]) {
        let by_uid: BTreeMap<&str, &Arc<Pod>> = pods.iter().map(|pod| (uid(&pod.metadata), pod)).collect();
        let seen = |uid: &str| by_uid.contains_key(uid);
        let leaving = |uid: &str| by_uid.get(uid).is_none_or(|pod| !is_active(pod));
        self.expectations.settle(seen, leaving, Instant::now());
    }

    fn pods(&self, owner: &ObjectMeta) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace(owner))
    }

    pub async fn claim(&self, owner: &ObjectMeta, claim: &Claim) -> Result<(), kube::Error> {
        for pod in &claim.adopt {
            let reference = self.owned_by(owner);
            let finalizers = self.finalizer.map(|finalizer| vec![finalizer]);
            let mut metadata = json!({"uid": uid(&pod.metadata), "ownerReferences": [reference]});
            if let (Some(map), Some(finalizers)) = (metadata.as_object_mut(), finalizers) {
                map.insert("finalizers".to_owned(), json!(finalizers));
            }
            self.patch(owner, pod, metadata).await?;
        }
        for pod in &claim.release {
            let gone = json!({"$patch": "delete", "uid": uid(owner)});
            let mut metadata = json!({"uid": uid(&pod.metadata), "ownerReferences": [gone]});
            if let (Some(map), Some(finalizer)) = (metadata.as_object_mut(), self.finalizer) {
                map.insert("$deleteFromPrimitiveList/finalizers".to_owned(), json!([finalizer]));
            }
            self.patch(owner, pod, metadata).await?;
        }
        Ok(())
    }

    /// Takes the finalizer from a pod; one that is gone has none.
    pub async fn release_finalizer(&self, owner: &ObjectMeta, pod: &Pod) -> Result<(), kube::Error> {
        let Some(finalizer) = self.finalizer else { return Ok(()) };
        let metadata = json!({"uid": uid(&pod.metadata), "$deleteFromPrimitiveList/finalizers": [finalizer]});
        self.patch(owner, pod, metadata).await
    }

    async fn patch(&self, owner: &ObjectMeta, pod: &Pod, metadata: Value) -> Result<(), kube::Error> {
        let patch = Patch::Strategic(json!({"metadata": metadata}));
        match self.pods(owner).patch(name(&pod.metadata), &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Creates a pod and says so.
    pub async fn create(&mut self, owner: &ObjectMeta, pod: &Pod) -> Result<Pod, kube::Error> {
        match self.pods(owner).create(&PostParams::default(), pod).await {
            Ok(pod) => {
                self.expectations.created(uid(owner), uid(&pod.metadata), Instant::now());
                let message = self.words("create", "Created", owner, &pod);
                self.event(owner, Kind::Normal, "SuccessfulCreate", &message).await;
                Ok(pod)
            }
            Err(error) => {
                let message = format!("Error creating: {error}");
                self.event(owner, Kind::Warning, "FailedCreate", &message).await;
                Err(error)
            }
        }
    }

    /// Deletes a pod and says so. One that is gone already, or is another by now, is fine.
    pub async fn delete(&mut self, owner: &ObjectMeta, pod: &Pod) -> Result<(), kube::Error> {
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        match self.pods(owner).delete(name(&pod.metadata), &DeleteParams::default().preconditions(same)).await {
            Ok(_) => {
                self.expectations.deleted(uid(owner), uid(&pod.metadata), Instant::now());
                let message = self.words("delete", "Deleted", owner, pod);
                self.event(owner, Kind::Normal, "SuccessfulDelete", &message).await;
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                debug!(pod = name(&pod.metadata), "gone already");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// As upstream says it, which has two ways.
    fn words(&self, verb: &str, done: &str, owner: &ObjectMeta, pod: &Pod) -> String {
        let title = name(&pod.metadata);
        match self.kind {
            "StatefulSet" => format!("{verb} Pod {title} in StatefulSet {} successful", name(owner)),
            _ => format!("{done} pod: {title}"),
        }
    }

    pub async fn event(&self, owner: &ObjectMeta, kind: Kind, reason: &str, message: &str) {
        self.recorder.event((self.api_version, self.kind, owner), kind, reason, message).await;
    }
}
