//! The decision.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{
    Authorizer, Context, Decision as Verdict, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    Request as Query, RestrictedExpression as Value,
};

use super::Policies;
use super::request::{Asked, Circumstances, Goods, Peer, Request, Resource};

/// What was decided, and by which policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// The statements that decided, by name. None: nothing permits it.
    pub policies: Vec<String>,
    /// Why, in words. A peer may read it: it names policies and what their authors wrote into `@reason`, and nothing else.
    pub reason: String,
}

/// Decides one question.
pub fn decide(policies: &Policies, request: &Request) -> Decision {
    let denied = |reason: String| Decision { allowed: false, policies: Vec::new(), reason };
    if policies.closed.is_some() {
        return denied("policies here cannot be read, so nothing is permitted".into());
    }
    if let Some(reason) = &request.peer.refused {
        return denied(format!("its key counts no more: {reason}"));
    }
    // What it says of its own words is nobody's secret.
    let (query, entities) = match question(request, policies) {
        Ok(question) => question,
        Err(error) => return denied(format!("the policies cannot be asked about {}: {error}", request.action)),
    };
    let response = Authorizer::new().is_authorized(&query, &policies.set, &entities);
    let failed = response.diagnostics().errors().map(|error| match error {
        cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id(),
    });
    // A permit that fails permits nothing, which harms nobody. A forbid that fails must not open what it guards.
    let forbids = |id: &&PolicyId| policies.set.policy(id).is_some_and(|policy| policy.effect() == Effect::Forbid);
    let mut failed: Vec<String> = failed.filter(forbids).map(ToString::to_string).collect();
    failed.sort();
    if !failed.is_empty() {
        let reason = format!("policy {} forbids {} and could not be asked", failed.join(", "), request.action);
        return Decision { allowed: false, policies: failed, reason };
    }
    let mut names: Vec<String> = response.diagnostics().reason().map(ToString::to_string).collect();
    names.sort();
    let allowed = response.decision() == Verdict::Allow;
    let reason = match (allowed, names.is_empty()) {
        (true, _) => format!("policy {} permits {}", names.join(", "), request.action),
        (false, true) => format!("no policy permits {}", request.action),
        (false, false) => format!("policy {} forbids {}{}", names.join(", "), request.action, said(policies, &names)),
    };
    Decision { allowed, policies: names, reason }
}

/// What the authors of these statements say about them.
fn said(policies: &Policies, names: &[String]) -> String {
    let reasons = names
        .iter()
        .filter_map(|name| policies.set.policy(&PolicyId::new(name)).and_then(|policy| policy.annotation("reason")));
    let reasons: Vec<&str> = reasons.filter(|reason| !reason.is_empty()).collect();
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}

/// The names of the types, read once.
struct Types {
    peer: EntityTypeName,
    flavor: EntityTypeName,
    workload: EntityTypeName,
    node: EntityTypeName,
    source: EntityTypeName,
    trust: EntityTypeName,
    action: EntityTypeName,
}

/// `None` could only be a mistake in the words below, and a test asks every question; then nothing is permitted.
static TYPES: LazyLock<Option<Types>> = LazyLock::new(|| {
    let name = |text: &str| text.parse::<EntityTypeName>().ok();
    Some(Types {
        peer: name("Peer")?,
        flavor: name("Flavor")?,
        workload: name("Workload")?,
        node: name("Node")?,
        source: name("Source")?,
        trust: name("Trust")?,
        action: name("Action")?,
    })
});

/// The question in the words of Cedar: only what these policies may ask for. Making values of all that is known takes longer than asking.
fn question(request: &Request, policies: &Policies) -> Result<(Query, Entities), String> {
    let types = TYPES.as_ref().ok_or("its words cannot be read")?;
    let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let principal = uid(&types.peer, request.peer.did.as_deref().unwrap_or(ANONYMOUS));
    let peer = peer(&request.peer, types, policies);
    let (resource, goods, devices) = match &request.resource {
        Resource::Flavor(goods) => (uid(&types.flavor, &goods.name), flavor(goods, policies), devices(goods)),
        Resource::Workload { namespace } => {
            let mut told = Told::nothing(policies);
            told.text("namespace", namespace);
            (uid(&types.workload, namespace), told.pairs, HashMap::new())
        }
        Resource::Node => (uid(&types.node, THIS_NODE), HashMap::new(), HashMap::new()),
    };
    // What is said of the key under which it was met first is said of it.
    let before = request.peer.origin.iter().map(|origin| uid(&types.peer, origin)).collect::<HashSet<_>>();
    let entities = [
        Entity::new(principal.clone(), peer, before).map_err(|e| failed(&e))?,
        Entity::new_with_tags(resource.clone(), goods, HashSet::new(), devices).map_err(|e| failed(&e))?,
    ];
    let entities = Entities::from_entities(entities, None).map_err(|e| failed(&e))?;
    // All of it or nothing: a policy may compare it as a whole.
    let context = if policies.may_ask("context") {
        let pairs = circumstances(&request.context).map(|(name, value)| (name.to_owned(), Value::new_long(value)));
        Context::from_pairs(pairs).map_err(|e| failed(&e))?
    } else {
        Context::empty()
    };
    let action = uid(&types.action, request.action.as_str());
    let query = Query::new(principal, action, resource, context, None).map_err(|e| failed(&e))?;
    Ok((query, entities))
}

/// The id of who has proven no key.
const ANONYMOUS: &str = "anonymous";
/// The id of this node.
const THIS_NODE: &str = "this";

/// What is told of one thing, as far as it may be asked for.
struct Told<'a> {
    policies: &'a Policies,
    pairs: HashMap<String, Value>,
}

impl<'a> Told<'a> {
    fn nothing(policies: &'a Policies) -> Self {
        Self { policies, pairs: HashMap::new() }
    }

    fn tell(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if self.policies.may_ask(name) {
            self.pairs.insert(name.to_owned(), value());
        }
    }

    fn text(&mut self, name: &'static str, value: &str) {
        self.tell(name, || text(value));
    }

    fn number(&mut self, name: &'static str, value: i64) {
        self.tell(name, || Value::new_long(value));
    }
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn peer(peer: &Peer, types: &Types, policies: &Policies) -> HashMap<String, Value> {
    let word = |kind: &EntityTypeName, word: String| {
        Value::new_entity_uid(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(word)))
    };
    let set = |words: &std::collections::BTreeSet<String>| Value::new_set(words.iter().map(|word| text(word)));
    let mut told = Told::nothing(policies);
    told.tell("proven", || Value::new_bool(peer.did.is_some()));
    told.text("did", peer.did.as_deref().unwrap_or_default());
    told.text("name", &peer.name);
    told.text("domain", &peer.domain);
    told.tell("domainProven", || Value::new_bool(peer.domain_proven));
    told.tell("source", || word(&types.source, format!("{:?}", peer.source)));
    told.tell("trust", || word(&types.trust, format!("{:?}", peer.trust)));
    told.tell("features", || set(&peer.features));
    told.tell("credentials", || set(&peer.credentials));
    told.tell("evidence", || set(&peer.evidence));
    told.number("ratingWeight", i64::try_from(peer.rating_weight).unwrap_or(i64::MAX));
    if let Some(owner) = &peer.owner {
        told.text("owner", owner);
    }
    if let Some(rating) = peer.rating {
        told.number("rating", rating.into());
    }
    told.pairs
}

fn flavor(goods: &Goods, policies: &Policies) -> HashMap<String, Value> {
    let Asked { cpu_milli, memory_bytes, pods, storage_bytes, gpu, .. } = goods.amounts;
    let mut told = Told::nothing(policies);
    for (name, value) in [
        ("name", &goods.name),
        ("type", &goods.kind),
        ("architecture", &goods.architecture),
        ("city", &goods.city),
        ("country", &goods.country),
        ("currency", &goods.currency),
        ("period", &goods.period),
    ] {
        told.text(name, value);
    }
    let amounts = [
        ("cpuMilli", cpu_milli),
        ("memoryBytes", memory_bytes),
        ("pods", pods),
        ("storageBytes", storage_bytes),
        ("gpu", gpu),
    ];
    let price = goods.price_milli.map(|price| ("priceMilli", price));
    for (name, value) in amounts.into_iter().chain(price) {
        told.number(name, value);
    }
    told.pairs
}

/// The tags of a flavor: its extended resources, by their names.
fn devices(goods: &Goods) -> HashMap<String, Value> {
    let devices = goods.amounts.extended.iter();
    devices.map(|(name, amount)| (name.to_string(), Value::new_long(*amount))).collect()
}

fn circumstances(context: &Circumstances) -> [(&'static str, i64); 7] {
    let (hour, weekday) = context.hour_and_weekday();
    [
        ("now", context.minute),
        ("hour", hour),
        ("weekday", weekday),
        ("heldCpuMilli", context.held.cpu_milli),
        ("heldMemoryBytes", context.held.memory_bytes),
        ("heldPods", context.held.pods),
        ("heldCount", context.held_count),
    ]
}
