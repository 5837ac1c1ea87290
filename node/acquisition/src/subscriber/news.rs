//! News: what sellers change for the better, and the Solvers that wait for it.
//!
//! A change is *news* if and only if something appears, comes back, grows, or is cheaper. A Solver *waits* if and only if the orchestrator
//! wrote it and it has bought nothing: it is looking, or has failed. What a person wrote is never woken: who writes a Solver reads
//! how it ended, and money that is spent an hour later is a surprise.
//!
//! ```text
//!  REFRESH ─▶ Known: better than before? ─▶ Inbox ─ once a second ─▶ woken: whom could this serve? ─▶ annotation of the Solver
//! ```
//! A Solver is woken by what it would buy, judged as an answer is judged, and at most once in [`WOKEN_LEAST`]. What a seller says when it is
//! first followed is what it was asked a moment before, and no news.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluidos_identity::NodeId;
use fluidos_model::kinds::{Phase, Solver, names};
use fluidos_model::market::{Amounts, Buying, UnitPrice};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::Notify;

use crate::importer::heard::Heard;
use crate::importer::view::Peer;
use crate::importer::weigh;
use crate::terms;

/// Flavors of a seller that can be news; an answer to a Solver has as many.
const FLAVORS_MAX: usize = 64;
/// Solvers of failed workloads are made anew every 30 s anyway: a seller that changes all the time has them made six times as often.
pub(super) const WOKEN_LEAST: Duration = Duration::from_secs(5);

/// How a flavor stands.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    available: bool,
    whole: Amounts,
    price: Option<UnitPrice>,
}

impl Standing {
    fn of(heard: &Heard) -> Self {
        Self { available: heard.available, whole: heard.offer.whole.clone(), price: heard.price().cloned() }
    }

    /// Whether somebody may want it now who did not before.
    fn is_better(&self, before: &Self) -> bool {
        let cheaper = match (&self.price, &before.price) {
            (Some(now), Some(before)) if now.unit == before.unit && now.price.currency == before.price.currency => {
                now.price.hourly() < before.price.hourly()
            }
            (now, before) => now != before,
        };
        self.available && (!before.available || !before.whole.holds(&self.whole) || cheaper)
    }
}

/// What one seller was last heard to say; `None` before the first time.
#[derive(Debug, Default)]
pub(super) struct Known(Option<BTreeMap<String, Standing>>);

impl Known {
    /// Takes all that a seller says, and returns what of it is news.
    pub fn all(&mut self, seller: NodeId, flavors: &[rear::Flavor]) -> Vec<Heard> {
        let Some(known) = &mut self.0 else {
            let heard = flavors.iter().take(FLAVORS_MAX).filter_map(|flavor| Heard::read(flavor, Some(seller)).ok());
            self.0 = Some(heard.map(|heard| (heard.offer.flavor.clone(), Standing::of(&heard))).collect());
            return Vec::new();
        };
        known.retain(|id, _| flavors.iter().any(|flavor| flavor.id == *id));
        flavors.iter().filter_map(|flavor| self.one(seller, flavor)).collect()
    }

    /// Takes one flavor, and returns it if it is news.
    pub fn one(&mut self, seller: NodeId, flavor: &rear::Flavor) -> Option<Heard> {
        let known = self.0.as_mut()?;
        // What cannot be read cannot be bought.
        let heard = Heard::read(flavor, Some(seller)).ok()?;
        let now = Standing::of(&heard);
        let is_news = known.get(&flavor.id).map_or(now.available, |before| now.is_better(before));
        if known.contains_key(&flavor.id) || known.len() < FLAVORS_MAX {
            known.insert(flavor.id.clone(), now);
            return is_news.then_some(heard);
        }
        None
    }

    /// A flavor is withdrawn.
    pub fn gone(&mut self, flavor: &str) {
        self.0.iter_mut().for_each(|known| drop(known.remove(flavor)));
    }
}

/// By the seller's DID, and the flavor.
type News = BTreeMap<String, (NodeId, BTreeMap<String, Heard>)>;

/// News that nobody has looked at yet: the newest of each flavor.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    news: Mutex<News>,
    there: Notify,
}

impl Inbox {
    /// Puts news of a seller in.
    pub fn put(&self, seller: NodeId, news: impl IntoIterator<Item = Heard>) {
        let mut all = self.lock();
        let mut any = false;
        for heard in news {
            let (_, of) = all.entry(seller.to_string()).or_insert_with(|| (seller, BTreeMap::new()));
            if of.len() < FLAVORS_MAX || of.contains_key(&heard.offer.flavor) {
                of.insert(heard.offer.flavor.clone(), heard);
                any = true;
            }
        }
        if any {
            self.there.notify_one();
        }
    }

    /// Waits until there is news.
    pub async fn there(&self) {
        self.there.notified().await;
    }

    /// Takes all there is.
    pub fn take(&self) -> Vec<(NodeId, Vec<Heard>)> {
        let all = std::mem::take(&mut *self.lock());
        all.into_values().map(|(seller, of)| (seller, of.into_values().collect())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a Solver waits for somebody to offer something.
pub(super) fn waits(solver: &Solver) -> bool {
    let phase = solver.status.as_ref().map(|status| (status.solver_phase.phase, status.contracts.is_empty()));
    let (phase, has_nothing) = phase.unwrap_or((Phase::Idle, true));
    solver.metadata.deletion_timestamp.is_none()
        && solver.labels().contains_key(names::LABEL_SOLVER_FOR)
        && has_nothing
        && phase != Phase::Solved
}

/// Returns the waiting Solvers that news of a seller could serve, each with the name of the first such seller.
pub(super) fn woken<'a>(
    solvers: impl Iterator<Item = &'a Solver>,
    peers: &[Peer],
    news: Vec<(NodeId, Vec<Heard>)>,
    buying: Option<&Buying>,
    now: Timestamp,
) -> Vec<(String, String)> {
    // Who is not trusted any more is not bought from.
    let of = |did: NodeId| peers.iter().find(|peer| peer.did == Some(did)).cloned();
    let news: Vec<(Peer, weigh::Answer)> = news
        .into_iter()
        .filter_map(|(did, flavors)| {
            let flavors = flavors.into_iter().map(Ok).collect();
            Some((of(did)?, Ok(weigh::Said { seller: did.into(), flavors, denial: None, open: false })))
        })
        .collect();
    let waiting = solvers.filter(|solver| waits(solver) && !is_fresh(solver, now));
    waiting
        .filter_map(|solver| {
            let served = news.iter().find(|answer| weigh::serves(solver, buying, std::slice::from_ref(*answer)))?;
            Some((solver.name_any(), served.0.name.clone()))
        })
        .collect()
}

/// Whether it was woken a moment ago.
fn is_fresh(solver: &Solver, now: Timestamp) -> bool {
    let woken = solver.annotations().get(names::ANNOTATION_OFFERED).and_then(|text| names::offered_at(text));
    woken.and_then(|at| terms::shifted(at, WOKEN_LEAST, 1)).is_some_and(|until| until > now)
}

#[cfg(test)]
mod tests;
