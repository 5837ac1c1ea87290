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
    let (query, entities) = match question(request) {
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

/// The question in the words of Cedar.
fn question(request: &Request) -> Result<(Query, Entities), String> {
    let types = TYPES.as_ref().ok_or("its words cannot be read")?;
    let uid = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let principal = uid(&types.peer, request.peer.did.as_deref().unwrap_or(ANONYMOUS));
    let peer = attributes(peer(&request.peer, types));
    let (resource, goods) = match &request.resource {
        Resource::Flavor(goods) => (uid(&types.flavor, &goods.name), attributes(flavor(goods))),
        Resource::Workload { namespace } => {
            (uid(&types.workload, namespace), attributes([("namespace", text(namespace))]))
        }
        Resource::Node => (uid(&types.node, THIS_NODE), HashMap::new()),
    };
    // What is said of the key under which it was met first is said of it.
    let before = request.peer.origin.iter().map(|origin| uid(&types.peer, origin)).collect::<HashSet<_>>();
    let entities = [
        Entity::new(principal.clone(), peer, before).map_err(|e| failed(&e))?,
        Entity::new(resource.clone(), goods, HashSet::new()).map_err(|e| failed(&e))?,
    ];
    let entities = Entities::from_entities(entities, None).map_err(|e| failed(&e))?;
    let context = circumstances(&request.context).map(|(name, value)| (name.to_owned(), value));
    let context = Context::from_pairs(context).map_err(|e| failed(&e))?;
    let action = uid(&types.action, request.action.as_str());
    let query = Query::new(principal, action, resource, context, None).map_err(|e| failed(&e))?;
    Ok((query, entities))
}

/// The id of who has proven no key.
const ANONYMOUS: &str = "anonymous";
/// The id of this node.
const THIS_NODE: &str = "this";

fn attributes(pairs: impl IntoIterator<Item = (&'static str, Value)>) -> HashMap<String, Value> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(value: &str) -> Value {
    Value::new_string(value.to_owned())
}

fn peer(peer: &Peer, types: &Types) -> Vec<(&'static str, Value)> {
    let word = |kind: &EntityTypeName, word: String| {
        Value::new_entity_uid(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(word)))
    };
    let set = |words: &std::collections::BTreeSet<String>| Value::new_set(words.iter().map(|word| text(word)));
    let mut attributes = vec![
        ("proven", Value::new_bool(peer.did.is_some())),
        ("did", text(peer.did.as_deref().unwrap_or_default())),
        ("name", text(&peer.name)),
        ("domain", text(&peer.domain)),
        ("domainProven", Value::new_bool(peer.domain_proven)),
        ("source", word(&types.source, format!("{:?}", peer.source))),
        ("trust", word(&types.trust, format!("{:?}", peer.trust))),
        ("features", set(&peer.features)),
        ("credentials", set(&peer.credentials)),
        ("evidence", set(&peer.evidence)),
        ("ratingWeight", Value::new_long(i64::try_from(peer.rating_weight).unwrap_or(i64::MAX))),
    ];
    attributes.extend(peer.owner.as_deref().map(|owner| ("owner", text(owner))));
    attributes.extend(peer.rating.map(|rating| ("rating", Value::new_long(rating.into()))));
    attributes
}

fn flavor(goods: &Goods) -> Vec<(&'static str, Value)> {
    let Asked { cpu_milli, memory_bytes, pods, storage_bytes, gpu } = goods.amounts;
    let mut attributes = vec![
        ("name", text(&goods.name)),
        ("type", text(&goods.kind)),
        ("architecture", text(&goods.architecture)),
        ("city", text(&goods.city)),
        ("country", text(&goods.country)),
        ("cpuMilli", Value::new_long(cpu_milli)),
        ("memoryBytes", Value::new_long(memory_bytes)),
        ("pods", Value::new_long(pods)),
        ("storageBytes", Value::new_long(storage_bytes)),
        ("gpu", Value::new_long(gpu)),
        ("currency", text(&goods.currency)),
        ("period", text(&goods.period)),
    ];
    attributes.extend(goods.price_milli.map(|price| ("priceMilli", Value::new_long(price))));
    attributes
}

fn circumstances(context: &Circumstances) -> impl Iterator<Item = (&'static str, Value)> + use<> {
    let (hour, weekday) = context.hour_and_weekday();
    let numbers = [
        ("now", context.minute),
        ("hour", hour),
        ("weekday", weekday),
        ("heldCpuMilli", context.held.cpu_milli),
        ("heldMemoryBytes", context.held.memory_bytes),
        ("heldPods", context.held.pods),
        ("heldCount", context.held_count),
    ];
    numbers.into_iter().map(|(name, number)| (name, Value::new_long(number)))
}
