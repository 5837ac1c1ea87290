//! Volumes: where the data of a pod is, or can be.
//!
//! ```text
//!  Pod ── claim ── bound ────▶ volume: its node affinity and zone
//!              └── waits for its first consumer: a free volume that fits and can be used on the node, or one that is made there
//! ```
//! A pod whose claims wait gets a node first: the volume is promised to the claim (or the claim told the node), and when it is bound the
//! pod is bound, too. Until then its room on the node is kept as that of a nominated pod.
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use substrate_client::lookup::node_selector_term_matches;
use substrate_client::volumes::{claims_of, is_for, smallest};

use crate::filters::Failure;
use crate::view::NodeInfo;

pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Claims, volumes and classes.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    claims: BTreeMap<(String, String), Arc<PersistentVolumeClaim>>,
    volumes: Vec<Arc<PersistentVolume>>,
    classes: BTreeMap<String, Arc<StorageClass>>,
}

impl Storage {
    /// All of each.
    pub fn new(
        claims: impl IntoIterator<Item = Arc<PersistentVolumeClaim>>,
        volumes: Vec<Arc<PersistentVolume>>,
        classes: impl IntoIterator<Item = Arc<StorageClass>>,
    ) -> Storage {
        let key = |claim: &PersistentVolumeClaim| {
            (claim.metadata.namespace.clone().unwrap_or_default(), claim.metadata.name.clone().unwrap_or_default())
        };
        let title = |class: &StorageClass| class.metadata.name.clone().unwrap_or_default();
        Storage {
            claims: claims.into_iter().map(|claim| (key(&claim), claim)).collect(),
            volumes,
            classes: classes.into_iter().map(|class| (title(&class), class)).collect(),
        }
    }
}

/// What is to be written for a claim before its pod is bound: the volume that is promised to it, or none if one is to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Promise {
    pub claim: Arc<PersistentVolumeClaim>,
    pub volume: Option<Arc<PersistentVolume>>,
}

impl Promise {
    /// Whether it is not written yet.
    pub fn is_open(&self) -> bool {
        match &self.volume {
            Some(volume) => is_for(volume, &self.claim).is_none(),
            None => self.claim.metadata.annotations.as_ref().is_none_or(|all| !all.contains_key(SELECTED_NODE)),
        }
    }
}

/// What a pod needs of volumes, worked out once.
#[derive(Default)]
pub(crate) struct Needs {
    storage: Arc<Storage>,
    /// Why no node would do.
    pub refused: Option<String>,
    bound: Vec<Arc<PersistentVolume>>,
    /// A claim is bound to a volume that is not there.
    lost: bool,
    waiting: Vec<Arc<PersistentVolumeClaim>>,
    /// Claims that one pod alone may use.
    pub exclusive: Vec<String>,
}

impl Needs {
    pub fn new(storage: &Arc<Storage>, pod: &Pod) -> Needs {
        let mut needs = Needs { storage: storage.clone(), ..Needs::default() };
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let mut immediate = false;
        for name in claims_of(pod) {
            let Some(claim) = storage.claims.get(&(namespace.clone(), name.clone())) else {
                needs.refused = Some(format!("persistentvolumeclaim {name:?} not found"));
                return needs;
            };
            if claim.metadata.deletion_timestamp.is_some() {
                needs.refused = Some(format!("persistentvolumeclaim {name:?} is being deleted"));
                return needs;
            }
            let spec = claim.spec.clone().unwrap_or_default();
            if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
                needs.exclusive.push(name.clone());
            }
            let completed = claim
                .metadata
                .annotations
                .as_ref()
                .is_some_and(|all| all.contains_key("pv.kubernetes.io/bind-completed"));
            let volume = spec.volume_name.filter(|volume| !volume.is_empty());
            let class = spec.storage_class_name.and_then(|class| storage.classes.get(&class));
            let waits = class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
            match volume {
                Some(volume) if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") => {
                    needs.refused = Some(format!(
                        "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                    ));
                    return needs;
                }
                Some(volume) if completed => {
                    let mut known = storage.volumes.iter();
                    match known.find(|known| known.metadata.name.as_ref() == Some(&volume)) {
                        Some(volume) => needs.bound.push(volume.clone()),
                        None => needs.lost = true,
                    }
                }
                None if waits => needs.waiting.push(claim.clone()),
                _ => immediate = true,
            }
        }
        if immediate {
            needs.refused = Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        needs
    }

    /// Whether some of its claims wait for a node.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is promised if the pod goes to this node; nothing if a claim finds no volume there.
    pub fn promises(&self, node: &NodeInfo) -> Option<Vec<Promise>> {
        let mut taken: Vec<Arc<PersistentVolume>> = Vec::new();
        let mut promises = Vec::new();
        for claim in &self.waiting {
            let selected = claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
            let usable = |volume: &&Arc<PersistentVolume>| is_usable(volume, node);
            let promised = self.storage.volumes.iter().find(|volume| is_for(volume, claim) == Some(true));
            let free =
                self.storage.volumes.iter().filter(|volume| !taken.iter().any(|other| Arc::ptr_eq(other, volume)));
            let volume = match (promised, selected) {
                (Some(volume), _) => Some(Some(volume).filter(usable)?),
                (None, Some(selected)) if selected == node.name() => None,
                (None, Some(_)) => return None,
                (None, None) => smallest(claim, free.filter(usable)),
            };
            if volume.is_none() && !self.can_be_made(claim, node) {
                return None;
            }
            taken.extend(volume.cloned());
            promises.push(Promise { claim: claim.clone(), volume: volume.cloned() });
        }
        Some(promises)
    }

    fn can_be_made(&self, claim: &PersistentVolumeClaim, node: &NodeInfo) -> bool {
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
        let Some(class) = class.and_then(|class| self.storage.classes.get(class)) else { return false };
        let mut allowed = class.allowed_topologies.iter().flatten().peekable();
        class.provisioner != "kubernetes.io/no-provisioner"
            && (allowed.peek().is_none()
                || allowed.any(|term| {
                    let mut all = term.match_label_expressions.iter().flatten();
                    all.all(|one| node.label(&one.key).is_some_and(|value| one.values.iter().any(|v| v == value)))
                }))
    }

    pub fn binding(&self, node: &NodeInfo) -> Option<Failure> {
        if self.lost {
            return Some(Failure::lasting("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"));
        }
        if self.bound.iter().any(|volume| !is_usable(volume, node)) {
            return Some(Failure::lasting("node(s) had volume node affinity conflict"));
        }
        let none = self.waits() && self.promises(node).is_none();
        none.then(|| Failure::lasting("node(s) didn't find available persistent volumes to bind"))
    }

    pub fn zone(&self, node: &NodeInfo) -> Option<Failure> {
        const KEYS: [&str; 4] = [
            "topology.kubernetes.io/zone",
            "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/zone",
            "failure-domain.beta.kubernetes.io/region",
        ];
        if KEYS.iter().all(|key| node.label(key).is_none()) {
            return None;
        }
        // A volume in several zones names them all in one label.
        let elsewhere = |volume: &Arc<PersistentVolume>| {
            let of = |key: &&str| volume.metadata.labels.as_ref().and_then(|labels| labels.get(*key));
            KEYS.iter()
                .any(|key| of(key).is_some_and(|zones| !zones.split("__").any(|zone| node.label(key) == Some(zone))))
        };
        let other = self.bound.iter().any(elsewhere);
        other.then(|| Failure::lasting("node(s) had no available volume zone"))
    }
}

fn is_usable(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| node_selector_term_matches(term, &node.node))
    })
}

#[cfg(test)]
mod tests;
