//! Who owns whom. No effects.
use std::collections::{BTreeSet, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object {
    /// `apiVersion` and kind.
    pub kind: (String, String),
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub version: Option<String>,
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    pub leaving: bool,
}

impl Object {
    pub fn new(kind: (String, String), metadata: &ObjectMeta) -> Object {
        Object {
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            leaving: metadata.deletion_timestamp.is_some(),
        }
    }

    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|found| found == finalizer)
    }
}

/// All objects by identity, and the dependents of each.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    objects: HashMap<String, Object>,
    dependents: HashMap<String, BTreeSet<String>>,
}

impl Graph {
    /// An object is there, or has changed.
    pub fn apply(&mut self, object: Object) {
        self.delete(&object.uid);
        for owner in &object.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(object.uid.clone());
        }
        self.objects.insert(object.uid.clone(), object);
    }

    /// An object is gone.
    pub fn delete(&mut self, uid: &str) {
        let Some(object) = self.objects.remove(uid) else { return };
        for owner in &object.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    /// Of this kind exactly these are there.
    pub fn reset(&mut self, kind: &(String, String), objects: Vec<Object>) {
        let kept: BTreeSet<&str> = objects.iter().map(|object| object.uid.as_str()).collect();
        let of_kind = self.objects.values().filter(|object| object.kind == *kind);
        let gone: Vec<String> =
            of_kind.filter(|object| !kept.contains(object.uid.as_str())).map(|object| object.uid.clone()).collect();
        gone.iter().for_each(|uid| self.delete(uid));
        objects.into_iter().for_each(|object| self.apply(object));
    }

    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// The objects that name this one as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Object> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.objects.get(uid))
    }
}
