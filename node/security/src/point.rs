//! The decision point: what is known of a peer is put beside the question, the answer is logged and counted.
//!
//! ```text
//!  question ─▶ asked already this minute, and nothing was written about peers since? ─▶ the same answer     (under a microsecond)
//!     │ no
//!     └─▶ what is known of the peer ─▶ request ─▶ decided already under these policies? ─▶ the same answer
//!                                         └─ no ─▶ Cedar
//! ```
//! Whether the key counts at all is looked at each time.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fluidos_identity::{NodeId, Speakers};
use fluidos_model::kinds::{KnownCluster, Rating, names};
use jiff::Timestamp;
use kube::ResourceExt as _;
use substrate_client::Cache;

use crate::policy::{Action, Circumstances, Decision, Goods, Peer, Policies, Request, Resource, decide};

/// Decisions that are kept for when they are asked again, within their minute; some 500 bytes each.
const KEPT_MAX: usize = 1024;

/// What is asked, without what is known of the peer.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// What.
    pub action: Action,
    /// DID of the key that the peer has proven.
    pub peer: Option<&'a str>,
    /// With what.
    pub resource: Resource,
    /// When, and so on.
    pub context: Circumstances,
}

/// The decision point of this node. Clones are the same one.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    speakers: Speakers,
    known: Cache<KnownCluster>,
    ratings: Cache<Rating>,
    policies: RwLock<Policies>,
    kept: Mutex<HashMap<Request, Decision>>,
    /// What was answered last to a question, by the question.
    answers: Mutex<HashMap<Asked, Answered>>,
    /// By policy (empty: none) and whether it was allowed. Bounded by the statements in force.
    counts: Mutex<BTreeMap<(String, bool), u64>>,
}

/// A question that owns what it says.
type Asked = (Action, Option<String>, Resource, Circumstances);

/// An answer, and what it was made of.
#[derive(Clone)]
struct Answered {
    /// How often KnownClusters and Ratings had changed.
    versions: (u64, u64),
    key: Option<NodeId>,
    request: Arc<Request>,
    decision: Arc<Decision>,
}

impl Handle {
    /// A decision point that permits nothing until it has policies.
    pub(crate) fn new(known: Cache<KnownCluster>, ratings: Cache<Rating>, speakers: Speakers) -> Self {
        let inner = Inner {
            speakers,
            known,
            ratings,
            policies: RwLock::default(),
            kept: Mutex::default(),
            answers: Mutex::default(),
            counts: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Decides, logs and counts.
    pub fn decide(&self, question: Question<'_>) -> Decision {
        let Question { action, peer, resource, context } = question;
        // Before anything is read: what is written meanwhile makes the next answer a new one.
        let versions = (self.inner.known.version(), self.inner.ratings.version());
        let asked = (action, peer.map(str::to_owned), resource, context);
        let before = lock(&self.inner.answers).get(&asked).filter(|answered| answered.versions == versions).cloned();
        let Answered { key, request, decision, .. } = before.unwrap_or_else(|| self.ask(asked, versions));
        let refused = key.and_then(|key| self.refused(&key));
        let decision = refused.map_or(decision, Arc::new);
        log(&request, &decision);
        self.count(&decision);
        Arc::unwrap_or_clone(decision)
    }

    fn ask(&self, asked: Asked, versions: (u64, u64)) -> Answered {
        let (action, peer, resource, context) = asked.clone();
        let request = self.request(Question { action, peer: peer.as_deref(), resource, context });
        self.follow();
        // As long as these are looked at, `set` waits: what is kept was decided by the same.
        let policies = self.inner.policies.read().unwrap_or_else(PoisonError::into_inner);
        let decision = self.answer(&policies, &request);
        let key = peer.and_then(|did| did.parse().ok());
        let answered = Answered { versions, key, request: Arc::new(request), decision: Arc::new(decision) };
        let mut answers = lock(&self.inner.answers);
        if answers.len() >= KEPT_MAX {
            answers.clear();
        }
        answers.insert(asked, answered.clone());
        answered
    }

    /// Decides whether something is bought from who answers at an address and proves no key: only where an entry says that it is an official
    /// node. It is named as the entry is.
    pub fn acquire(&self, address: SocketAddr, goods: Goods, context: Circumstances) -> Decision {
        let plain = |known: &Arc<KnownCluster>| known.spec.plain && known.spec.address.parse() == Ok(address);
        let Some(known) = self.inner.known.list().into_iter().find(plain) else {
            let reason = format!("no KnownCluster with `plain: true` names {address}");
            return Decision { allowed: false, policies: Vec::new(), reason };
        };
        let mut peer = Peer::of(None, Action::Acquire, Some(&known), None, Timestamp::now());
        if peer.name.is_empty() {
            peer.name = known.name_any();
        }
        let resource = Resource::Flavor(Box::new(goods));
        let request = Request { action: Action::Acquire, peer, resource, context };
        self.follow();
        let policies = self.inner.policies.read().unwrap_or_else(PoisonError::into_inner);
        let decision = self.answer(&policies, &request);
        log(&request, &decision);
        self.count(&decision);
        decision
    }

    /// Decides about a node that an entry tells of, and leaves no trace.
    pub(crate) fn look(&self, action: Action, known: &KnownCluster, context: Circumstances) -> Decision {
        let did = known.spec.did.as_deref();
        if let Some(refused) = did.and_then(|did| self.refused(&did.parse().ok()?)) {
            return refused;
        }
        let rating = did.and_then(|did| self.rating(did, Some(known)));
        let peer = Peer::of(did, action, Some(known), rating.as_deref(), Timestamp::now());
        self.follow();
        let policies = self.inner.policies.read().unwrap_or_else(PoisonError::into_inner);
        self.answer(&policies, &Request { action, peer, resource: Resource::Node, context })
    }

    /// How many decisions each policy has made since the start: by its name (empty: no policy permitted) and the outcome.
    pub fn counts(&self) -> BTreeMap<(String, bool), u64> {
        lock(&self.inner.counts).clone()
    }

    pub(crate) fn count(&self, decision: &Decision) {
        let mut counts = lock(&self.inner.counts);
        let none = [String::new()];
        for name in if decision.policies.is_empty() { &none[..] } else { &decision.policies } {
            *counts.entry((name.clone(), decision.allowed)).or_default() += 1;
        }
    }

    pub(crate) fn set(&self, policies: Policies) {
        let mut current = self.inner.policies.write().unwrap_or_else(PoisonError::into_inner);
        *current = policies.following(|named| self.inner.speakers.current(named)).unwrap_or(policies);
        lock(&self.inner.kept).clear();
        lock(&self.inner.answers).clear();
    }

    /// Policies that name a key that was handed over name the one that speaks now. Before each answer that is not kept, so that no decision
    /// comes between the hand-over and them.
    fn follow(&self) {
        let follows = |policies: &Policies| policies.following(|named| self.inner.speakers.current(named));
        let stale = follows(&self.inner.policies.read().unwrap_or_else(PoisonError::into_inner)).is_some();
        if !stale {
            return;
        }
        let mut current = self.inner.policies.write().unwrap_or_else(PoisonError::into_inner);
        // Others may have come in between.
        if let Some(fresh) = follows(&current) {
            tracing::info!(keys = fresh.followed().len(), "policies follow keys that were handed over");
            *current = fresh;
            lock(&self.inner.kept).clear();
            lock(&self.inner.answers).clear();
        }
    }

    fn request(&self, question: Question<'_>) -> Request {
        let Question { action, peer, resource, context } = question;
        let known = peer.and_then(|did| self.known(did));
        let rating = peer.and_then(|did| self.rating(did, known.as_deref()));
        let peer = Peer::of(peer, action, known.as_deref(), rating.as_deref(), Timestamp::now());
        Request { action, peer, resource, context }
    }

    /// A key that was handed over or revoked may do nothing, whatever a policy says.
    fn refused(&self, key: &NodeId) -> Option<Decision> {
        let reason = self.inner.speakers.counts(key).err()?;
        Some(Decision { allowed: false, policies: Vec::new(), reason: format!("its key counts no more: {reason}") })
    }

    fn answer(&self, policies: &Policies, request: &Request) -> Decision {
        if let Some(kept) = lock(&self.inner.kept).get(request) {
            return kept.clone();
        }
        let decision = decide(policies, request);
        let mut kept = lock(&self.inner.kept);
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(request.clone(), decision.clone());
        decision
    }

    fn known(&self, did: &str) -> Option<Arc<KnownCluster>> {
        let usual = self.inner.known.get(names::NAMESPACE, &entry_name(did)?);
        usual
            .filter(|known| known.spec.did.as_deref() == Some(did))
            .or_else(|| self.inner.known.list().into_iter().find(|known| known.spec.did.as_deref() == Some(did)))
    }

    /// What was seen of it, under this key or under that with which it was met first.
    fn rating(&self, did: &str, known: Option<&KnownCluster>) -> Option<Arc<Rating>> {
        let of = |did: &str| {
            self.inner.ratings.get(names::NAMESPACE, &entry_name(did)?).filter(|rating| rating.spec.did == did)
        };
        let origin = known.and_then(|known| known.status.as_ref()?.identity.as_ref()?.origin.as_deref());
        of(did).or_else(|| of(origin?))
    }
}

/// The name of the KnownCluster that discovery makes of a key, and of its Rating.
pub(crate) fn entry_name(did: &str) -> Option<String> {
    let id: fluidos_identity::NodeId = did.parse().ok()?;
    Some(names::known_cluster(&id.tag()))
}

/// One line for each decision. Anybody may list, and often: that is for who looks closely.
fn log(request: &Request, decision: &Decision) {
    let Request { action, peer, resource, .. } = request;
    let (did, policies) = (peer.did.as_deref().unwrap_or("none"), decision.policies.join(","));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "fluidos::decision",
                %action, peer = peer.shown(), did, ?resource, allowed = decision.allowed, policies, reason = decision.reason
            )
        };
    }
    if *action == Action::Discover { line!(debug) } else { line!(info) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps of values that are never half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
