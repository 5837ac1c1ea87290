//! The Privacy and Security Manager, introduced to those who ask it.

use std::sync::Arc;

use anyhow::{Context, Result};
use fluidos_acquisition::exporter::{Act, Ask, Decide};
use fluidos_acquisition::importer::Acquire;
use fluidos_fabric::Admit;
use fluidos_identity::{NodeKey, Speakers};
use fluidos_security::policy::{Action, Circumstances, Flags, Goods, Resource};
use fluidos_security::{Handle, Options, Question};
use jiff::Timestamp;
use substrate_client::Access;

use super::api::Api;
use super::parts::Parts;
use crate::cli::Up;

/// Writes the policies of the flags and puts all of them in force. Nothing that asks may start before.
pub async fn open(up: &Up, key: &NodeKey, api: &Api, speakers: Speakers, parts: &mut Parts) -> Result<Handle> {
    let Access { client, caches } = api.access(fluidos_security::MANAGER);
    let options = Options { client, caches, flags: flags(up), speakers };
    let (handle, keep) = fluidos_security::start(options).await.context("the policies cannot be put in force")?;
    parts.spawn_room(keep);
    parts.spawn_room(fluidos_security::rating::run(api.access("fluidos-ratings"), key.id()));
    Ok(handle)
}

fn flags(up: &Up) -> Flags {
    let trust = &up.trust.0;
    Flags {
        offers: up.offer.as_ref().is_some_and(|offer| *offer != Default::default()),
        known: trust.known,
        lan: trust.lan,
        keys: trust.keys.clone(),
    }
}

/// What the exporter asks before it lists, holds and sells.
pub fn decide(handle: Handle) -> Decide {
    Arc::new(move |ask: &Ask<'_>| {
        let did = ask.peer.map(|peer| peer.to_string());
        let now = Timestamp::now();
        let context = match (ask.pool, ask.holder) {
            (Some(pool), Some(holder)) => Circumstances::of(pool, holder, ask.transaction, now),
            _ => Circumstances::at(now),
        };
        let action = match ask.act {
            Act::List => Action::Discover,
            Act::Request => Action::Negotiate,
            Act::Reserve => Action::Reserve,
            Act::Buy => Action::Buy,
        };
        let resource = Resource::Flavor(Box::new(Goods::of(ask.flavor, ask.amounts.as_ref())));
        let decision = handle.decide(Question { action, peer: did.as_deref(), resource, context });
        if decision.allowed { Ok(()) } else { Err(decision.reason) }
    })
}

/// What the importer asks before it buys from who proves no key.
pub fn acquire(handle: Handle) -> Acquire {
    Arc::new(move |address, flavor, amounts| {
        let decision = handle.acquire(address, Goods::of(flavor, Some(amounts)), Circumstances::at(Timestamp::now()));
        if decision.allowed { Ok(()) } else { Err(decision.reason) }
    })
}

/// What the fabric asks before a guest begins to run.
pub fn admit(handle: Handle) -> Admit {
    Arc::new(move |peer, namespace| {
        let resource = Resource::Workload { namespace: namespace.to_owned() };
        let context = Circumstances::at(Timestamp::now());
        let did = peer.to_string();
        let decision = handle.decide(Question { action: Action::Offload, peer: Some(&did), resource, context });
        if decision.allowed { Ok(()) } else { Err(decision.reason) }
    })
}
