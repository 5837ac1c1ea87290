//! Every choice of reflection: a pure function from what there is and what was said and heard to a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluidos_identity::FabricPrefix;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::status;
use crate::frames::{PODS_MAX, Put, Reported, cut};

/// What was refused may fit later: others end.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// A link that comes back within this may still bring the provider's word that a pod is gone.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
pub(super) const REASON_LENGTH_MAX: usize = 1024;

/// What there is.
pub(crate) struct View {
    /// Pods bound to the virtual nodes of the contract.
    pub pods: Vec<Arc<Pod>>,
    /// What crosses the link for each that is not being deleted, by uid.
    pub packages: BTreeMap<String, Put>,
    /// Why pods may not be there, by uid.
    pub barred: BTreeMap<String, String>,
    /// Where the provider's pods are.
    pub prefix: Option<FabricPrefix>,
}

/// What was said and heard on the stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Whether there is a stream.
    pub connected: bool,
    /// When the last one ended.
    pub since: Option<Timestamp>,
    /// Whether the provider has said Ready on it.
    pub ready: bool,
    /// Why what was sold is not there, if the provider has said so.
    pub missing: Option<String>,
    /// Named in `Begin`.
    pub named: BTreeSet<String>,
    /// What was put: the digest of what went with it.
    pub put: BTreeMap<String, [u8; 32]>,
    /// Asked to be deleted.
    pub deleted: BTreeSet<String>,
    /// Whether the last stream has been served.
    pub was_connected: bool,
    /// How twins stand.
    pub observed: BTreeMap<String, PodStatus>,
    /// Why there is no twin, and when that was said.
    pub refused: BTreeMap<String, (String, Timestamp)>,
    /// Those of them that have to yield, as the contract says.
    pub yielding: BTreeSet<String>,
    /// Of which nothing runs, and why the provider has ended them, if it says.
    pub gone: BTreeMap<String, Option<String>>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Say that it shall exist.
    Put { uid: String, put: Box<Put>, digest: [u8; 32] },
    /// Say that it shall not.
    Delete { uid: String, grace_seconds: Option<u32> },
    /// Write on the pod how its twin stands.
    Status { namespace: String, name: String, uid: String, patch: serde_json::Value },
    /// Nothing of it runs any more.
    Remove { namespace: String, name: String, uid: String },
}

impl State {
    /// There has been no stream yet.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { since: Some(now), ..Self::default() }
    }

    /// A stream has been opened. What the last one said is not believed any more.
    pub(crate) fn connect(&mut self, view: &View) {
        let wanted = view.pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let wanted = wanted.filter_map(|pod| pod.uid()).filter(|uid| !view.barred.contains_key(uid));
        let named = wanted.take(PODS_MAX).collect();
        *self = Self { connected: true, named, ..Self::default() };
    }

    /// It has ended.
    pub(crate) fn disconnect(&mut self, now: Timestamp) {
        if self.connected || self.since.is_none() {
            self.since = Some(now);
        }
        self.was_connected |= self.connected;
        self.connected = false;
        self.ready = false;
    }

    /// The provider has said this. What it says about pods that are not here is not kept.
    pub(crate) fn hear(&mut self, reported: Reported, now: Timestamp) {
        match reported {
            Reported::Observed { uid, status } if self.knows(&uid) => {
                self.refused.remove(&uid);
                self.yielding.remove(&uid);
                self.observed.insert(uid, *status);
            }
            Reported::Refused { uid, reason, yields } if self.knows(&uid) => {
                if yields {
                    self.yielding.insert(uid.clone())
                } else {
                    self.yielding.remove(&uid)
                };
                self.refused.insert(uid, (cut(&reason, REASON_LENGTH_MAX), now));
            }
            Reported::Gone { uid, reason } if self.knows(&uid) => {
                self.observed.remove(&uid);
                self.gone.insert(uid, reason.map(|reason| cut(&reason, REASON_LENGTH_MAX)));
            }
            _ => {}
        }
    }

    /// Whether nobody can say anything about twins. A node that has just started looks for its peers first.
    fn is_lost(&self, now: Timestamp) -> bool {
        self.was_connected || self.since.is_some_and(|since| now.duration_since(since) >= PATIENCE)
    }

    fn knows(&self, uid: &str) -> bool {
        self.named.contains(uid) || self.put.contains_key(uid)
    }

    /// Forgets pods that are on neither side any more.
    pub(crate) fn tidy(&mut self, view: &View) {
        let here: BTreeSet<String> = view.pods.iter().filter_map(|pod| pod.uid()).collect();
        let over: Vec<String> = self.gone.keys().filter(|uid| !here.contains(*uid)).cloned().collect();
        for uid in &over {
            self.named.remove(uid);
            self.put.remove(uid);
            self.deleted.remove(uid);
            self.refused.remove(uid);
            self.yielding.remove(uid);
            self.gone.remove(uid);
        }
    }
}

/// What must be said of pods that shall exist.
pub(crate) fn puts(view: &View, state: &State) -> Vec<Action> {
    let mut actions = Vec::new();
    for pod in view.pods.iter().filter(|pod| !is_over(pod) && pod.metadata.deletion_timestamp.is_none()) {
        let uid = pod.uid().unwrap_or_default();
        let Some(package) = view.packages.get(&uid).filter(|_| !state.gone.contains_key(&uid)) else { continue };
        let digest = digest(package);
        if state.put.get(&uid) != Some(&digest) {
            actions.push(Action::Put { uid, put: Box::new(package.clone()), digest });
        }
    }
    actions
}

/// The plan.
pub(crate) fn plan(view: &View, state: &State, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    if state.connected {
        actions = puts(view, state);
        let again = |uid: &String| state.refused.get(uid).is_some_and(|(_, at)| now.duration_since(*at) >= ASK_AGAIN);
        for (uid, package) in view.packages.iter().filter(|(uid, _)| again(uid)) {
            if !actions.iter().any(|action| matches!(action, Action::Put { uid: putting, .. } if putting == uid)) {
                let digest = digest(package);
                actions.push(Action::Put { uid: uid.clone(), put: Box::new(package.clone()), digest });
            }
        }
    }
    let mut here = BTreeSet::new();
    for pod in &view.pods {
        let uid = pod.uid().unwrap_or_default();
        here.insert(uid.clone());
        if pod.metadata.deletion_timestamp.is_some() {
            actions.extend(deleting(pod, &uid, state, now));
        }
        if let Some(patch) = said(pod, &uid, view, state, now) {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            actions.push(Action::Status { namespace, name, uid, patch });
        }
    }
    if state.connected {
        // Removed here without waiting, such as by force or after it had ended.
        let known = state.named.iter().chain(state.put.keys()).filter(|uid| !here.contains(*uid));
        // Or there before it was kept for others.
        let known = known.chain(view.barred.keys().filter(|uid| state.knows(uid)));
        let orphans: BTreeSet<&String> = known.filter(|uid| !state.deleted.contains(*uid)).collect();
        actions.extend(orphans.into_iter().map(|uid| Action::Delete { uid: uid.clone(), grace_seconds: None }));
    }
    actions
}

/// What is to be done about a pod that is being deleted.
fn deleting(pod: &Pod, uid: &str, state: &State, now: Timestamp) -> Option<Action> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let remove = Action::Remove { namespace, name, uid: uid.to_owned() };
    if !state.connected {
        let deadline = pod.metadata.deletion_timestamp.as_ref().map(|at| at.0)?;
        let is_lost = state.since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
        return (is_lost && now >= deadline).then_some(remove);
    }
    if state.gone.contains_key(uid) {
        return Some(remove);
    }
    if state.knows(uid) {
        let grace = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u32::try_from(seconds).ok());
        return (!state.deleted.contains(uid)).then(|| Action::Delete { uid: uid.to_owned(), grace_seconds: grace });
    }
    // Not wanted when the stream began: Ready says that nothing of it runs.
    state.ready.then_some(remove)
}

/// What is to be written on a pod; `None` if it stands there already.
fn said(pod: &Pod, uid: &str, view: &View, state: &State, now: Timestamp) -> Option<serde_json::Value> {
    let old = pod.status.clone().unwrap_or_default();
    let wanted = if is_over(pod) {
        return None;
    } else if let Some(reason) = view.barred.get(uid) {
        status::barred(&old, reason)
    } else if let Some((reason, _)) = state.refused.get(uid) {
        status::refused(&old, reason, state.yielding.contains(uid))
    } else if state.connected && state.gone.contains_key(uid) && pod.metadata.deletion_timestamp.is_none() {
        status::lost(&old, state.gone.get(uid).and_then(Option::as_deref), now)
    } else if !state.connected && state.is_lost(now) {
        status::doubted(&old, now)
    } else if let Some(observed) = state.observed.get(uid) {
        status::merged(pod, observed, view.prefix.as_ref())
    } else {
        return None;
    };
    status::patch(&old, &wanted)
}

fn is_over(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).is_some_and(|p| p == "Succeeded" || p == "Failed")
}

/// What goes with a pod; its own spec does not change any more.
fn digest(put: &Put) -> [u8; 32] {
    let bytes = serde_json::to_vec(&(&put.config_maps, &put.secrets)).unwrap_or_default(); // maps of texts always have a form
    Sha256::digest(bytes).into()
}
