//! Keeps the accounts: opens them, looks, ends them with their contracts, and has them settled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_model::kinds::{AccountPhase, Allocation, Contract, Invoice, KnownCluster, names};
use fluidos_model::receipt::{End, Meter};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use substrate_client::{Cache, Pace};
use tokio::task::JoinSet;

use crate::accounts::{Accounts, Kept};
use crate::readings::View;
use crate::{Error, Options, events, settle};

/// A meter is looked at this often, and whenever something that it reads has changed.
const LOOK: Duration = Duration::from_secs(5);
/// Changes come in bursts.
const GATHER: Duration = Duration::from_millis(100);
/// Exchanges at a time; the others wait for the next look.
const SETTLING_MAX: usize = 16;
/// After an exchange that failed, or gave nothing; doubled each time up to the most.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(300);
const DOUBLINGS_MAX: u32 = 9;
/// As long as a meter keeps what it has measured ([`fluidos_model::receipt::PENDING_MAX`]).
const GIVE_UP: SignedDuration = SignedDuration::from_hours(31 * 24);
const MESSAGE_LENGTH_MAX: usize = 512;

struct Caches {
    contracts: Cache<Contract>,
    allocations: Cache<Allocation>,
    nodes: Cache<Node>,
    pods: Cache<Pod>,
    known: Cache<KnownCluster>,
    invoices: Cache<Invoice>,
}

/// When an account is settled next.
#[derive(Default)]
struct Turn {
    failures: u32,
    not_before: Option<Instant>,
}

/// Loads the accounts and returns them with what keeps them, for ever.
///
/// # Errors
/// The API's, if they cannot be read: then nothing may be answered.
pub async fn start(options: Options) -> Result<(Arc<Accounts>, impl Future<Output = ()> + Send + 'static), Error> {
    let caches = &options.caches;
    let caches = Caches {
        contracts: caches.namespaced(names::NAMESPACE),
        allocations: caches.namespaced(names::NAMESPACE),
        nodes: caches.all(),
        pods: caches.all(),
        known: caches.namespaced(names::NAMESPACE),
        invoices: caches.namespaced(names::NAMESPACE),
    };
    let accounts = Arc::new(Accounts::new(options));
    accounts.load().await?;
    let keeping = accounts.clone();
    Ok((accounts, async move { run(&keeping, caches).await }))
}

async fn run(accounts: &Arc<Accounts>, caches: Caches) {
    let Caches { contracts, allocations, nodes, pods, known, invoices } = &caches;
    tokio::join!(
        contracts.synced(),
        allocations.synced(),
        nodes.synced(),
        pods.synced(),
        known.synced(),
        invoices.synced()
    );
    let mut changes = [contracts.changes(), allocations.changes(), nodes.changes(), pods.changes(), invoices.changes()];
    let mut turns: BTreeMap<String, Turn> = BTreeMap::new();
    let mut settling: JoinSet<(String, Result<(), Error>)> = JoinSet::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let mut pace = Pace::default();
    loop {
        pace.begin().await;
        changes.iter_mut().for_each(tokio::sync::watch::Receiver::mark_unchanged);
        look(accounts, &caches, Timestamp::now(), &mut refused).await;
        for invoice in invoices.list() {
            if invoice.annotations().contains_key(names::ANNOTATION_PAID)
                && !accounts.has_said(&invoice)
                && let Err(error) = accounts.say_paid(&invoice).await
            {
                tracing::warn!(invoice = invoice.name_any(), %error, "the payment is not written yet");
            }
        }
        for (name, kept) in accounts.all().await {
            let turn = turns.entry(name.clone()).or_default();
            let early = turn.not_before.is_some_and(|at| at > Instant::now());
            if early || settling.len() >= SETTLING_MAX || busy.contains(&name) {
                continue;
            }
            {
                let kept = kept.lock().await;
                // The buyer asks for receipts; a seller only says what it has to say.
                if !kept.is_due() || (kept.sells() && !kept.tell) {
                    turn.failures = 0;
                    continue;
                }
            }
            busy.insert(name.clone());
            let (accounts, peers) = (accounts.clone(), known.list());
            settling.spawn(async move {
                let done = settle::settle(&accounts, &kept, &peers).await;
                (name, done)
            });
        }
        pace.end();
        let [a, b, c, d, e] = &mut changes;
        // Each arm only waits, or takes a result that is kept here: losing the race loses nothing.
        tokio::select! {
            _ = a.changed() => {}
            _ = b.changed() => {}
            _ = c.changed() => {}
            _ = d.changed() => {}
            _ = e.changed() => {}
            () = accounts.due.notified() => {}
            () = tokio::time::sleep(next(&turns)) => {}
            Some(done) = settling.join_next() => match done {
                Ok((name, done)) => {
                    busy.remove(&name);
                    settled(accounts, &mut turns, name, done).await;
                }
                Err(error) => {
                    tracing::error!(%error, "an exchange of receipts broke off");
                    busy.clear();
                }
            },
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// How long nothing is due.
fn next(turns: &BTreeMap<String, Turn>) -> Duration {
    let now = Instant::now();
    let due = turns.values().filter_map(|turn| turn.not_before).filter(|at| *at > now).min();
    due.map_or(LOOK, |at| (at - now).min(LOOK))
}

async fn settled(accounts: &Accounts, turns: &mut BTreeMap<String, Turn>, name: String, done: Result<(), Error>) {
    let Some(kept) = accounts.get(&name).await else { return };
    let mut kept = kept.lock().await;
    let turn = turns.entry(name).or_default();
    // Nothing failed, but what is due is not done: the other side has not measured it to its end yet.
    turn.failures = if done.is_ok() && !kept.is_due() { 0 } else { turn.failures.saturating_add(1) };
    let doublings = turn.failures.saturating_sub(1).min(DOUBLINGS_MAX);
    let pause = (RETRY_FIRST * 2u32.pow(doublings)).min(RETRY_MOST);
    turn.not_before = (turn.failures > 0).then(|| Instant::now() + pause);
    if let Err(error) = done {
        tracing::debug!(account = kept.name(), %error, "an account was not settled");
        complain(accounts, &mut kept, &error).await;
    }
}

/// Tells in the account what is wrong, once.
pub(crate) async fn complain(accounts: &Accounts, kept: &mut Kept, error: &Error) {
    let message: String = error.to_string().chars().filter(|c| !c.is_control()).take(MESSAGE_LENGTH_MAX).collect();
    let status = kept.object.status.get_or_insert_default();
    if status.message == message {
        return;
    }
    if matches!(error, Error::Fork { .. } | Error::Receipt(_) | Error::Signed(_)) {
        tracing::warn!(
            account = kept.object.spec.contract,
            peer = kept.object.spec.peer,
            message,
            "the other party's books are refused"
        );
    }
    status.message = message;
    status.waiting_since.get_or_insert_with(|| Timestamp::now().to_string());
    if let Err(error) = accounts.write(kept).await {
        tracing::warn!(%error, "an account could not be written");
    }
    if error.is_of_books() {
        let message = kept.status().message;
        events::warn(&accounts.options.client, kept.name(), "AccountWrong", None, &message).await;
    }
}

/// Opens, looks, ends. `refused` is what was said of contracts without an account: each once.
async fn look(accounts: &Accounts, caches: &Caches, now: Timestamp, refused: &mut BTreeMap<String, String>) {
    let contracts = caches.contracts.list();
    let before = std::mem::take(refused);
    for contract in contracts.iter().filter(|contract| contract.metadata.deletion_timestamp.is_none()) {
        if contract.spec.signed_terms.is_some()
            && let Err(error) = accounts.open(contract, now).await
        {
            let (name, reason) = (contract.name_any(), error.to_string());
            if before.get(&name) != Some(&reason) {
                tracing::warn!(
                    contract = name,
                    reason,
                    "no account is kept of a contract: nothing of it is measured or charged"
                );
            }
            refused.insert(name, reason);
        }
    }
    let there: BTreeSet<String> = contracts.iter().map(|contract| contract.name_any()).collect();
    if let Err(error) = accounts.forget_oldest(&there).await {
        tracing::warn!(%error, "settled accounts stay for now");
    }
    let view = View::new(&caches.allocations.list(), caches.nodes.list(), caches.pods.list());
    let by_name: BTreeMap<String, &Contract> =
        contracts.iter().map(|known| (known.name_any(), known.as_ref())).collect();
    // Whose packets have been counted, by the first contract of each peer.
    let mut counted: BTreeSet<fluidos_identity::NodeId> = BTreeSet::new();
    for (name, kept) in accounts.all().await {
        let mut kept = kept.lock().await;
        if kept.uninvoiced.is_some_and(|at| at <= Instant::now()) {
            accounts.try_invoice(&mut kept).await;
        }
        if kept.meter.ended && kept.phase() != AccountPhase::Open {
            give_up(accounts, &mut kept, now).await;
            continue;
        }
        let contract = by_name.get(&name);
        let before = (kept.meter.serving, kept.meter.closed.len());
        let clock = kept.clock(now);
        let handed_over = kept.note_keys(&accounts.options);
        let mut longer = false;
        for renewal in
            contract.iter().flat_map(|contract| [&contract.spec.renewal, &contract.spec.renewal_asked]).flatten()
        {
            longer |= kept.renew(renewal);
        }
        let until = kept.until().filter(|until| *until <= clock);
        let gone = contract.is_none_or(|contract| contract.metadata.deletion_timestamp.is_some());
        if let Some(until) = until {
            kept.meter.end(until, End::Expired);
        } else if gone {
            kept.meter.end(clock, End::Released);
        } else {
            let first = counted.insert(kept.peer());
            let reading = view.read(&mut kept, accounts.options.meters.as_ref(), first);
            kept.meter.look(clock, &reading);
        }
        if kept.meter.ended && kept.phase() == AccountPhase::Open {
            kept.object.status.get_or_insert_default().phase = AccountPhase::Closing;
        } else if before == (kept.meter.serving, kept.meter.closed.len())
            && !longer
            && !handed_over
            && !kept.must_write()
        {
            continue;
        }
        if let Err(error) = accounts.write(&mut kept).await {
            tracing::warn!(account = name, %error, "what was measured is not written yet");
        }
    }
}

/// An account of which the other party has not been heard for too long is closed as it is.
async fn give_up(accounts: &Accounts, kept: &mut Kept, now: Timestamp) {
    if kept.phase() != AccountPhase::Closing || !is_given_up(&kept.meter, now) {
        return;
    }
    let status = kept.object.status.get_or_insert_default();
    status.phase = AccountPhase::Unsettled;
    status.message = format!("no receipt was signed within 31 days of the end: {}", status.message);
    if let Err(error) = accounts.write(kept).await {
        tracing::warn!(%error, "an account could not be written");
    }
}

/// A meter that has ended goes on nowhere: its `from` is the end, also when all that it measured has its receipt.
fn is_given_up(meter: &Meter, now: Timestamp) -> bool {
    meter.ended && now.duration_since(meter.from) >= GIVE_UP
}

#[cfg(test)]
mod tests {
    use fluidos_model::receipt::Reading;

    use super::*;

    #[test]
    fn an_account_is_given_up_31_days_after_its_end_also_when_only_the_last_word_is_missing() {
        let at = |text: &str| text.parse::<Timestamp>();
        let (Ok(from), Ok(until), Ok(end)) =
            (at("2026-11-01T00:30:00Z"), at("2026-11-01T01:00:00Z"), at("2026-11-01T00:59:58Z"))
        else {
            unreachable!("three moments")
        };
        let mut meter = Meter::new(from);
        meter.look(from, &Reading::default());
        assert!(!is_given_up(&meter, end + GIVE_UP + GIVE_UP), "it runs");
        meter.end(end, End::Released);
        assert!(!is_given_up(&meter, end + GIVE_UP - SignedDuration::from_secs(1)));
        assert!(is_given_up(&meter, end + GIVE_UP));
        // The seller's hour went on to its end, and its last receipt never came.
        meter.settled(until, false);
        assert!(meter.closed.is_empty() && is_given_up(&meter, end + GIVE_UP));
    }
}
