//! What is promised to buyers and not used yet, told to the scheduler: the Ledger's promises as its guarantees.
//!
//! ```text
//!  Ledger ─▶ Pool::kept ─▶ guarantees: amounts, and the labels of the pods that may use them ─▶ scheduler
//! ```
//! It follows from the Ledger each time anew, from the first hold to the end of the contract: nothing is written, so nothing can stay
//! behind when the process is killed.

use std::sync::Arc;
use std::time::Duration;

use fluidos_ledger::View;
use fluidos_model::kinds::names;
use fluidos_model::market::{Amounts, Kept};
use jiff::Timestamp;
use substrate_client::{Access, Pace};
use substrate_scheduler::{Guarantee, Guaranteed, Resources};
use tokio::sync::watch;

use super::parts::Parts;

/// An hour is no load: holds end after a minute, contracts when their Ledger says so.
const LOOK_AGAIN_MOST: Duration = Duration::from_secs(3600);
/// What ends at a moment is looked at just after it.
const LOOK_AGAIN_LEAST: Duration = Duration::from_millis(10);

/// Follows the Ledger for ever.
pub fn follow(access: &Access, parts: &mut Parts) -> Guaranteed {
    let books = View::shared(&access.caches);
    let (told, guaranteed) = watch::channel(None);
    parts.spawn_room(tell(books, told));
    guaranteed
}

async fn tell(books: View, told: watch::Sender<Option<Arc<[Guarantee]>>>) {
    books.synced().await;
    let [mut ledger, mut pages] = books.changes();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        ledger.mark_unchanged();
        pages.mark_unchanged();
        let now = Timestamp::now();
        let next = match books.pool() {
            Ok(pool) => {
                let kept = pool.as_ref().map(|pool| pool.kept(now)).unwrap_or_default();
                let all: Arc<[Guarantee]> = kept.iter().map(guarantee).collect();
                told.send_if_modified(|known| {
                    let changed = known.as_ref() != Some(&all);
                    *known = Some(all);
                    changed
                });
                pool.and_then(|pool| pool.next_expiry())
            }
            // Nothing is sold from it until it is mended; what was kept stays so, and the owner's own pods do not wait for that.
            Err(error) => {
                tracing::error!(%error, "what is promised cannot be read, and so not kept anew");
                told.send_if_modified(|known| {
                    let first = known.is_none();
                    known.get_or_insert_default();
                    first
                });
                None
            }
        };
        pace.end();
        let until = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok()).unwrap_or(LOOK_AGAIN_MOST);
        // Either only waits: losing the race loses nothing.
        tokio::select! {
            changed = ledger.changed() => if changed.is_err() { return },
            changed = pages.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(until.clamp(LOOK_AGAIN_LEAST, LOOK_AGAIN_MOST)) => {}
        }
    }
}

/// Twins carry the one label, pods of services the other; under a hold nobody runs anything.
fn guarantee(kept: &Kept) -> Guarantee {
    let labels = [names::LABEL_CONTRACT, names::LABEL_SERVICE].into_iter().zip(kept.contract.iter().cycle());
    let labels = labels.map(|(key, contract)| (key.to_owned(), contract.clone())).collect();
    Guarantee { name: kept.name(), labels, amounts: resources(&kept.amounts) }
}

fn resources(amounts: &Amounts) -> Resources {
    let present = amounts.resources().filter(|resource| amounts.get(resource) != 0);
    // What the model prints is a quantity.
    let texts = present.filter_map(|r| Some((r.kubernetes_name().to_owned(), r.text(amounts.get(&r)).parse().ok()?)));
    Resources(texts.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_model::market::Resource;

    use super::*;

    #[test]
    fn a_promise_is_a_guarantee_in_the_names_of_kubernetes() {
        let fpga = Resource::parse("example.com/fpga").unwrap();
        let texts = [(Resource::Cpu, "1500m"), (Resource::Memory, "1Gi"), (Resource::Storage, "2Gi"), (fpga, "1")];
        let amounts = Amounts { pods: 3, ..Amounts::asked(texts).unwrap() };
        let kept = |contract: Option<&str>| Kept {
            contract: contract.map(str::to_owned),
            transaction: "t".into(),
            amounts: amounts.clone(),
        };
        let sold = guarantee(&kept(Some("contract-1")));
        let told: Vec<String> = sold.amounts.0.iter().map(|(name, amount)| format!("{name} {amount}")).collect();
        let needed = ["cpu 1500m", "ephemeral-storage 2Gi", "example.com/fpga 1", "memory 1Gi", "pods 3"];
        assert_eq!((sold.name.as_str(), told), ("contract-1", needed.map(str::to_owned).into()));
        let labels = [(names::LABEL_CONTRACT, "contract-1"), (names::LABEL_SERVICE, "contract-1")];
        assert_eq!(sold.labels, labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let held = guarantee(&kept(None));
        assert_eq!((held.name.as_str(), held.labels.len()), ("hold t", 0));
    }
}
