//! A node that takes back what it has lost, killed before and after each of its writes to the API: what it has at the end is what it had.

// The fuse of the reseller's crashes: one for both.
#[path = "../../../acquisition/tests/acquisition/support/fuse.rs"]
#[allow(dead_code)]
mod fuse;

use std::collections::BTreeSet;

use fluidos_model::kinds::{Account, Allocation, Contract, Invoice, LogState, Receipt};
use fluidos_model::market::Pool;
use futures::future::join_all;
use jiff::SignedDuration;
use kube::api::DeleteParams;

use fuse::{Fuse, fused};

use crate::support::{Node, deal, until};

/// Pairs of nodes at the same time: most of the time is waiting.
const LANES: usize = 4;

/// What is to come back.
#[derive(Clone, PartialEq, Debug)]
struct Had {
    contracts: Vec<String>,
    allocations: Vec<String>,
    promised: BTreeSet<String>,
    accounts: Vec<String>,
    invoices: Vec<String>,
    /// By digest.
    receipts: BTreeSet<String>,
}

impl Had {
    async fn of(node: &Node) -> Self {
        let promised = |pool: Pool| {
            pool.commitments.iter().map(|known| format!("{} {}", known.transaction, known.amounts)).collect()
        };
        let receipts = node.list::<Receipt>().await.into_iter().map(|receipt| receipt.spec.digest).collect();
        Self {
            contracts: node.names::<Contract>().await,
            allocations: node.names::<Allocation>().await,
            promised: promised(node.ledger().await),
            accounts: node.names::<Account>().await,
            invoices: node.names::<Invoice>().await,
            receipts,
        }
    }

    /// Whether everything is there; receipts go on meanwhile.
    fn is_in(&self, now: &Self) -> bool {
        self.receipts.is_subset(&now.receipts) && *self == Self { receipts: self.receipts.clone(), ..now.clone() }
    }
}

/// Whatever was sold to the buyer is in the seller's log, and the buyer keeps that.
async fn pair(lane: u8) -> (Node, Node, u64, Had) {
    let (buyer, seller) = (Node::start(2 * lane + 1).await, Node::start(2 * lane + 2).await);
    for number in 1..=2 {
        deal(&buyer, &seller, number, SignedDuration::from_hours(2)).await;
    }
    for node in [&seller, &buyer] {
        until("every hour has its receipt", async || {
            let receipts = node.list::<Receipt>().await.len();
            if receipts >= 4 { Ok(()) } else { Err(format!("{receipts}")) }
        })
        .await;
    }
    // One of them is over: its books come back, it does not.
    buyer.api::<Contract>().delete("contract-2", &DeleteParams::default()).await.unwrap();
    let size = until("the books of contract 2 are closed", async || {
        let (log, invoices) = (seller.log().await, seller.names::<Invoice>().await.len() as u64);
        if invoices > 0 && log.size == 4 + invoices { Ok(log.size) } else { Err(format!("{invoices} {log:?}")) }
    })
    .await;
    seller.is_witnessed(&buyer, size).await;
    let had = Had::of(&seller).await;
    (buyer, seller, size, had)
}

/// Loses everything and is killed at each of its moments; returns how many there are.
async fn at_moments(lane: u8) -> i64 {
    let (buyer, mut seller, size, had) = pair(lane).await;
    for moment in (i64::from(lane)..).step_by(LANES) {
        seller.lose_objects().await;
        seller.lose_log();
        seller.know(&buyer).await;
        let fuse = Fuse::at(moment);
        let client = fused(&seller.client, &fuse);
        let restored = async {
            seller.open_as(client).await;
            seller.log_is(LogState::Complete, size).await;
        };
        let killed = tokio::select! {
            () = fuse.burnt() => true,
            () = restored => false,
        };
        if killed {
            seller.kill().await;
            seller.open().await;
            seller.log_is(LogState::Complete, size).await;
        }
        until(&format!("killed at moment {moment}, everything is back"), async || {
            let now = Had::of(&seller).await;
            if had.is_in(&now) { Ok(()) } else { Err(format!("had {had:?}, has {now:?}")) }
        })
        .await;
        if !killed {
            return moment;
        }
    }
    unreachable!("what was lost has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_back_what_it_has_lost_is_killed_at_any_moment_and_has_it_all() {
    let moments = join_all((0..LANES as u8).map(at_moments)).await.into_iter().min().unwrap();
    assert!(
        moments > 20,
        "{moments} moments: a ledger, a contract, two accounts, receipts, and what is said of the log"
    );
}
