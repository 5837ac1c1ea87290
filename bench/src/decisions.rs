//! A decision of the policy point, beside cedar-policy as it comes.
//!
//! The peer gets the question as finished Cedar values, and only evaluates. Ours begins with what is known of the asking node and ends
//! with the words that are told: what the exporter pays for each message.

use std::collections::{BTreeSet, HashSet};
use std::hint::black_box;

use anyhow::{Context as _, Result};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityUid, PolicySet, Request as Query, RestrictedExpression,
};
use fluidos_identity::{NodeKey, Speakers};
use fluidos_model::market::Amounts;
use fluidos_security::policy::{
    Action, Asked, Circumstances, Flags, Goods, Peer, Policies, Request, Resource, Text, compile, decide, offer, trust,
};
use fluidos_security::{Options, Question};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::figures::{Samples, rounded, spread};
use crate::seller;

const CALLS: usize = 5_000;
const ROUNDS: usize = 7;

/// The figures.
pub async fn measure() -> Result<Value> {
    let mut grown = Vec::new();
    for further in [0, 8, 64, 256] {
        grown.push(beside_cedar(further)?);
    }
    Ok(json!({ "calls_a_round": CALLS, "by_statements": grown, "kept": kept().await? }))
}

/// The statements of the two flags, and of an owner who writes more.
fn texts(further: usize) -> Vec<(String, String)> {
    let flags = Flags { offers: true, known: true, ..Flags::default() };
    let mut texts = vec![("offer".to_owned(), offer(&flags)), ("trust".to_owned(), trust(&flags))];
    texts.extend((0..further).map(|number| {
        let text = format!(
            "forbid (principal, action in [Action::\"Reserve\", Action::\"Buy\"], resource)\n\
             when {{ principal.domain == \"rival-{number}.example\" && resource.cpuMilli > {number} }};"
        );
        (format!("further-{number}"), text)
    }));
    texts
}

fn compiled(further: usize) -> Policies {
    let texts = texts(further);
    // One object has at most a page: those of many statements are written together.
    let (few, more) = texts.split_at(2);
    let more = more.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("\n");
    let mut all: Vec<Text<'_>> = few.iter().map(|(name, text)| Text { name, text, accepted: "" }).collect();
    if !more.is_empty() {
        all.push(Text { name: "further", text: &more, accepted: "" });
    }
    compile(&all).0
}

fn request(did: &str) -> Request {
    let amounts = Amounts { cpu_milli: 500, memory_bytes: 64 << 20, pods: 1, ..Amounts::default() };
    let peer = Peer {
        did: Some(did.to_owned()),
        name: "farm".into(),
        domain: "farm.example".into(),
        features: BTreeSet::from(["arch=amd64".into(), "city=Milan".into()]),
        rating: Some(80),
        rating_weight: 300,
        ..Peer::default()
    };
    let goods =
        Goods { name: "grid-slice".into(), kind: "K8Slice".into(), amounts: Asked::from(&amounts), ..Goods::default() };
    let context = Circumstances::at(Timestamp::UNIX_EPOCH);
    Request { action: Action::Reserve, peer, resource: Resource::Flavor(Box::new(goods)), context }
}

fn beside_cedar(further: usize) -> Result<Value> {
    let did = NodeKey::from_seed([7; 32])?.id().to_string();
    let (policies, request) = (compiled(further), request(&did));
    let text: String = texts(further).into_iter().map(|(_, text)| text + "\n").collect();
    let set: PolicySet = text.parse().context("policies")?;
    let (query, entities) = question(&did)?;
    let authorizer = Authorizer::new();
    anyhow::ensure!(decide(&policies, &request).allowed, "it should be permitted");
    let (mut ours, mut theirs, mut ratios) = (Samples::default(), Samples::default(), Vec::new());
    for _ in 0..ROUNDS {
        let a = Samples::of(CALLS, || drop(black_box(decide(&policies, black_box(&request)))));
        let b = Samples::of(CALLS, || drop(black_box(authorizer.is_authorized(black_box(&query), &set, &entities))));
        ratios.push(a.micros(500) / b.micros(500));
        ours.extend(a);
        theirs.extend(b);
    }
    let statements = set.num_of_policies();
    Ok(json!({ "statements": statements, "ours": ours.figures(), "cedar": theirs.figures(), "ratio": spread(ratios) }))
}

/// The same question in finished values.
fn question(did: &str) -> Result<(Query, Entities)> {
    let uid = |text: String| text.parse::<EntityUid>().context("uid");
    let string = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let long = RestrictedExpression::new_long;
    let principal = uid(format!("Peer::\"{did}\""))?;
    let resource = uid("Flavor::\"grid-slice\"".into())?;
    let set = RestrictedExpression::new_set([string("arch=amd64"), string("city=Milan")]);
    let peer = [
        ("proven", RestrictedExpression::new_bool(true)),
        ("did", string(did)),
        ("name", string("farm")),
        ("domain", string("farm.example")),
        ("features", set),
        ("rating", long(80)),
    ];
    let goods =
        [("name", string("grid-slice")), ("cpuMilli", long(500)), ("memoryBytes", long(64 << 20)), ("pods", long(1))];
    let entity = |uid: &EntityUid, pairs: Vec<(&str, RestrictedExpression)>| {
        let attributes = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Entity::new(uid.clone(), attributes, HashSet::new()).context("entity")
    };
    let entities = [entity(&principal, peer.into())?, entity(&resource, goods.into())?];
    let query = Query::new(principal, uid("Action::\"Reserve\"".into())?, resource, Context::empty(), None)?;
    Ok((query, Entities::from_entities(entities, None)?))
}

/// A decision that was made before within its minute, over an API in process, as the exporter asks it.
async fn kept() -> Result<Value> {
    let client = seller::api().await?;
    let flags = Flags { offers: true, known: true, ..Flags::default() };
    let caches = substrate_client::Caches::new(client.clone());
    let options = Options { client, caches, flags, speakers: Speakers::default() };
    let (handle, keeping) = fluidos_security::start(options).await?;
    let keeping = tokio::spawn(keeping);
    let did = NodeKey::from_seed([7; 32])?.id().to_string();
    let Request { action, resource, context, .. } = request(&did);
    let ask =
        || handle.decide(Question { action, peer: Some(&did), resource: resource.clone(), context: context.clone() });
    anyhow::ensure!(ask().allowed, "it should be permitted");
    let mut rounds = Samples::default();
    for _ in 0..ROUNDS {
        rounds.extend(Samples::of(CALLS, || drop(black_box(ask()))));
    }
    keeping.abort();
    Ok(json!({ "ours": rounds.figures(), "p50_ns": rounded(rounds.micros(500) * 1000.0) }))
}
