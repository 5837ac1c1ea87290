//! The templates that a StatefulSet or DaemonSet has had, kept as ControllerRevisions. No effects.
//!
//! A revision is *live* if it is the newest, the one that the status calls current, or that of a pod. So many others are
//! kept as the owner wants to be able to go back.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::objects::{controller_of, name, selects, uid};

/// Says of which revision a pod is.
pub(crate) const POD_REVISION: &str = "controller-revision-hash";

/// Who has revisions, and how they are named.
pub(crate) struct Owner<'a> {
    pub metadata: &'a ObjectMeta,
    pub reference: OwnerReference,
    pub selector: &'a LabelSelector,
    pub template: &'a PodTemplateSpec,
    /// The label under which a revision has its hash.
    pub label: &'static str,
    pub collisions: i32,
}

/// What has to be written before anything else is planned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Revise {
    /// Revisions that nobody manages.
    Adopt(Vec<Arc<ControllerRevision>>),
    /// The template is one that was never before.
    Create(Box<ControllerRevision>),
    /// It is one that was, and is the newest again.
    Renumber(Arc<ControllerRevision>, i64),
}

/// The owner's revisions, oldest first.
pub(crate) fn own(owner: &Owner<'_>, revisions: &[Arc<ControllerRevision>]) -> Vec<Arc<ControllerRevision>> {
    let is_own = |one: &&Arc<ControllerRevision>| {
        controller_of(&one.metadata).is_some_and(|found| found.uid == uid(owner.metadata))
    };
    let mut own: Vec<Arc<ControllerRevision>> = revisions.iter().filter(is_own).cloned().collect();
    own.sort_by_key(|one| (one.revision, one.metadata.creation_timestamp.clone(), one.metadata.name.clone()));
    own
}

/// The revision of the template now among the owner's, or what has to be written first. `all` are those of the namespace.
pub(crate) fn newest(
    owner: &Owner<'_>,
    own: &[Arc<ControllerRevision>],
    all: &[Arc<ControllerRevision>],
) -> Result<Arc<ControllerRevision>, Revise> {
    let is_free = |one: &&Arc<ControllerRevision>| {
        controller_of(&one.metadata).is_none()
            && one.metadata.deletion_timestamp.is_none()
            && selects(owner.selector, one.metadata.labels.as_ref())
    };
    let free: Vec<Arc<ControllerRevision>> = all.iter().filter(is_free).cloned().collect();
    if !free.is_empty() && owner.metadata.deletion_timestamp.is_none() {
        return Err(Revise::Adopt(free));
    }
    let data = data(owner.template);
    let next = own.last().map_or(1, |last| last.revision + 1);
    let same = |one: &&Arc<ControllerRevision>| one.data.as_ref().is_some_and(|found| found.0 == data);
    match own.iter().rev().find(same) {
        Some(found) if found.revision + 1 == next => Ok(found.clone()),
        Some(found) => Err(Revise::Renumber(found.clone(), next)),
        None => Err(Revise::Create(Box::new(revision(owner, data, next)))),
    }
}

/// A patch that makes a template be this one: what upstream keeps, so `kubectl rollout` can read it.
fn data(template: &PodTemplateSpec) -> Value {
    // A template is made of what came as JSON, so it can be written as JSON.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    json!({"spec": {"template": template}})
}

/// The template of a revision. `None` if it is none: somebody has written into it.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn revision(owner: &Owner<'_>, data: Value, number: i64) -> ControllerRevision {
    let hash = crate::hash::short(owner.template, owner.collisions);
    let mut labels = owner.template.metadata.clone().and_then(|of| of.labels).unwrap_or_default();
    labels.extend(owner.selector.match_labels.clone().unwrap_or_default());
    labels.insert(owner.label.to_owned(), hash.clone());
    // A name has 253 letters, and the hash and its hyphen have eleven.
    let start: String = name(owner.metadata).chars().take(242).collect();
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{start}-{hash}")),
            namespace: owner.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: annotations(owner.metadata),
            owner_references: Some(vec![owner.reference.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

fn annotations(owner: &ObjectMeta) -> Option<BTreeMap<String, String>> {
    let mut annotations = owner.annotations.clone().unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    Some(annotations).filter(|annotations| !annotations.is_empty())
}

/// Revisions beyond the limit, the oldest first. `live` are names or hashes that are in use.
pub(crate) fn surplus(
    own: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
    label: &str,
    limit: Option<i32>,
) -> Vec<Arc<ControllerRevision>> {
    let is_live = |one: &ControllerRevision| {
        let hash = one.metadata.labels.as_ref().and_then(|labels| labels.get(label));
        live.contains(name(&one.metadata)) || hash.is_some_and(|hash| live.contains(hash))
    };
    let mut dead: Vec<Arc<ControllerRevision>> = own.iter().filter(|one| !is_live(one)).cloned().collect();
    dead.truncate(dead.len().saturating_sub(usize::try_from(limit.unwrap_or(10)).unwrap_or(0)));
    dead
}
