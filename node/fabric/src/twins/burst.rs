//! Has those yield who must: twins are told to end, and new ones are not begun. Every effect of [`super::yields`] is here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fluidos_model::kinds::names;
use fluidos_model::market::{BusinessModel, Pool};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::yields::{self, Asked, Yielder};
use super::{Origin, session};
use crate::Error;
use crate::fabric::Shared;

/// What is remembered of those who had to yield.
#[derive(Default)]
pub(crate) struct Yielding {
    /// Who decides about twins of what is paid per use does so alone until they are written: two do not both take the last room.
    pub turn: tokio::sync::Mutex<()>,
    /// Why twins were told to end, by contract and uid, until their consumer has been told.
    evicted: Mutex<BTreeMap<(String, String), String>>,
}

impl Yielding {
    /// Takes out why a twin had to end, if it did.
    pub(crate) fn take(&self, contract: &str, uid: &str) -> Option<String> {
        self.evicted().remove(&(contract.to_owned(), uid.to_owned()))
    }

    /// Forgets what was under contracts that are not live.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.evicted().retain(|(contract, _), _| keep(contract));
    }

    fn evicted(&self) -> MutexGuard<'_, BTreeMap<(String, String), String>> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is promised here, if some of it is paid per use: without that nobody ever yields, and nothing is looked at. `None` also
/// without a ledger, or with one that cannot be read, from which nothing new is sold either.
fn pool(shared: &Shared) -> Option<Arc<Pool>> {
    let pool = shared.books.pool().ok().flatten()?;
    let agreed = pool.commitments.iter().filter_map(|known| known.agreed.as_ref());
    let per_use = agreed.map(|agreed| agreed.conditions.business_model).any(|model| model == BusinessModel::PayPerUse);
    per_use.then_some(pool)
}

/// Waits for the turn to decide about twins; `None` while nobody can have to yield.
pub(crate) async fn turn(shared: &Shared) -> Option<tokio::sync::MutexGuard<'_, ()>> {
    match pool(shared) {
        Some(_) => Some(shared.yielding.turn.lock().await),
        None => None,
    }
}

/// Says why a new twin of a contract may not begin now; whoever yields before it is told to end. The caller has the turn.
pub(crate) async fn begin(shared: &Shared, contract: &str, asked: Asked) -> Result<Option<String>, Error> {
    let Some(pool) = pool(shared) else { return Ok(None) };
    let twins = ListParams::default().labels(names::LABEL_CONTRACT);
    let list = Api::<Pod>::all(shared.client.clone()).list(&twins).await.map_err(Error::api("list twins"))?;
    let (now, uid, twins) = (Timestamp::now(), asked.uid.clone(), list.items.iter().collect::<Vec<_>>());
    let planned = yields::plan(&yields::room(&pool, now), yields::claims(&pool, &twins, Some((contract, asked)), now));
    if let Some(own) = planned.iter().find(|yielder| yielder.contract == contract && yielder.uid == uid) {
        return Ok(Some(own.reason.clone()));
    }
    evict(shared, &twins, &planned).await?;
    Ok(None)
}

/// Has those yield for whom there is no room any more: something was reserved, or the owner offers less.
pub(crate) async fn settle(shared: &Shared) -> Result<(), Error> {
    let Some(pool) = pool(shared) else { return Ok(()) };
    let (now, pods) = (Timestamp::now(), shared.pods.list());
    let twins: Vec<&Pod> = pods.iter().map(AsRef::as_ref).filter(|pod| Origin::of(pod).is_some()).collect();
    let planned = yields::plan(&yields::room(&pool, now), yields::claims(&pool, &twins, None, now));
    evict(shared, &twins, &planned).await
}

async fn evict(shared: &Shared, twins: &[&Pod], planned: &[Yielder]) -> Result<(), Error> {
    for yielder in planned {
        let is = |twin: &&&Pod| {
            twin.labels().get(names::LABEL_CONTRACT) == Some(&yielder.contract)
                && twin.metadata.deletion_timestamp.is_none()
                && Origin::of(twin).is_some_and(|origin| origin.uid == yielder.uid)
        };
        let Some(twin) = twins.iter().find(is) else { continue };
        tracing::info!(contract = yielder.contract, uid = yielder.uid, reason = yielder.reason, "a twin yields");
        let key = (yielder.contract.clone(), yielder.uid.clone());
        shared.yielding.evicted().insert(key, yielder.reason.clone());
        session::delete(shared, twin, None).await?;
    }
    Ok(())
}
