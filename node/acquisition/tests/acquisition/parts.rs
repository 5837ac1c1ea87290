//! What no seller has alone is bought from several together, or not at all, whenever the buyer is killed.

use std::sync::Arc;
use std::time::Duration;

use fluidos_acquisition::exporter::Exporter;
use fluidos_acquisition::{contract_manager, importer};
use fluidos_model::kinds::{Allocation, Contract, Solver};
use futures::future::join_all;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::fuse::{Fuse, Fused, fused};
use crate::support::{Node, books_agree, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pods_find_room_at_two_sellers_and_a_silent_one_spoils_nothing() {
    let mut buyer = Node::start(1, "farm", None).await;
    let (grid, cloud) = (Node::start(2, "grid", Some(2500)).await, Node::start(3, "cloud", Some(1500)).await);
    let mut silent = Node::start(4, "silent", Some(9000)).await;
    silent.kill().await;
    for seller in [&grid, &cloud, &silent] {
        buyer.know(seller).await;
    }
    buyer.fabric();
    // Without a word that it may be split nobody has it.
    buyer.solver_with("whole", "3", &[], json!({"reserveAndBuy": true})).await;
    let message = buyer.solver_is("whole", "Failed").await;
    assert!(
        message.contains("grid: list: cpu: 2500m (at least 0, in steps of 1m) offered, needed at least 3"),
        "{message}"
    );

    buyer.split_solver("shop", 3).await;
    let message = buyer.solver_is("shop", "Solved").await;
    assert_eq!(message, "Solver has completed all the phases: 2 contracts, with grid, cloud");
    books_agree(&buyer, &[&grid, &cloud]).await;
    let contracts = buyer.api::<Solver>().get("shop").await.unwrap().status.unwrap().contracts;
    assert!(
        contracts[0].why.starts_with("part 1 of 2: cpu 2, memory 128Mi, pods 2; nobody sells all of it"),
        "{contracts:?}"
    );
    assert!(contracts[1].why.starts_with("part 2 of 2: cpu 1, memory 64Mi, pods 1"), "{contracts:?}");
    assert_eq!(buyer.list::<Allocation>().await.len(), 2, "each part is used");

    // One of them ends: the Solver says so, and what is left goes on.
    cloud.api::<Contract>().delete(&contracts[1].name, &DeleteParams::default()).await.unwrap();
    until("one is left", async || {
        let status = buyer.api::<Solver>().get("shop").await.unwrap().status.unwrap();
        let left: Vec<&str> = status.contracts.iter().map(|contract| contract.peer.as_str()).collect();
        let said = status.solver_phase.message.starts_with(&format!("contract {} has ended", contracts[1].name));
        if left == ["grid"] && said { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(buyer.list::<Contract>().await.len(), 1);
    assert!(cloud.ledger().await.commitments.is_empty());

    // More than both have: nothing is held or bought, and it says how much there is.
    buyer.split_solver("more", 4).await;
    let message = buyer.solver_is("more", "Failed").await;
    assert!(message.contains("together: list: 3 of 4 units (cpu 1, memory 64Mi, pods 1) offered"), "{message}");
    books_agree(&buyer, &[&grid, &cloud]).await;
    for solver in ["shop", "more", "whole"] {
        buyer.delete_solver(solver).await;
    }
    for node in [&buyer, &grid, &cloud] {
        node.empty().await;
    }
}

/// Markets at the same time.
const LANES: usize = 4;

struct Market {
    buyer: Node,
    grid: Node,
    cloud: Node,
    /// Whether the second sells what it has held.
    cloud_sells: bool,
}

impl Market {
    async fn new(cloud_sells: bool) -> Self {
        let mut buyer = Node::without_rooms(1, "farm", None).await;
        let grid = Node::without_rooms(2, "grid", Some(2500)).await;
        let cloud = Node::without_rooms(3, "cloud", Some(1500)).await;
        for seller in [&grid, &cloud] {
            buyer.know(seller).await;
        }
        buyer.options.hold = Duration::from_secs(3);
        let mut market = Self { buyer, grid, cloud, cloud_sells };
        market.grid.options.hold = Duration::from_secs(3);
        market.cloud.options.hold = Duration::from_secs(3);
        market
    }

    /// Opens everybody; the buyer's writes pass the fuse, and so do the messages to grid.
    async fn open(&mut self, fuse: &Fuse) {
        let (never, messages, cloud_sells) = (Fuse::at(i64::MAX), fuse.clone(), self.cloud_sells);
        self.grid.kill().await;
        self.cloud.kill().await;
        self.grid.open(|seller| Arc::new(Fused { seller, fuse: messages, sells: true })).await;
        self.cloud.open(|seller| Arc::new(Fused { seller, fuse: never, sells: cloud_sells })).await;
        self.open_buyer(fused(&self.buyer.client, fuse)).await;
    }

    async fn open_buyer(&mut self, client: kube::Client) {
        self.buyer.kill().await;
        self.buyer.rooms.spawn(importer::run(client.clone(), self.buyer.options.clone()));
        self.buyer.rooms.spawn(contract_manager::run(client, self.buyer.options.clone()));
        self.buyer.fabric();
    }

    /// The buyer is dead, and comes back. Messages that hung at the fuse are lost with the process that answered them.
    async fn revive(&mut self) {
        self.grid.kill().await;
        self.buyer.kill().await;
        let fuse = Fuse::at(i64::MAX);
        self.grid.open(|seller: Arc<Exporter>| Arc::new(Fused { seller, fuse, sells: true })).await;
        self.open_buyer(self.buyer.client.clone()).await;
    }
}

/// Buys three pods' room at two sellers, kills the buyer at each moment in turn, and sees that all is as if nothing had been.
///
/// Only each `step`th moment is tried where a purchase fails: it waits for somebody who may come, which takes seconds. Most of the time
/// is waiting, so some markets are open at the same time, and each tries its share.
async fn at_every_moment(cloud_sells: bool, wanted: &str, step: usize) -> i64 {
    let lanes = (0..LANES).map(|lane| at_moments(cloud_sells, wanted, lane * step, step * LANES));
    join_all(lanes).await.into_iter().min().unwrap()
}

async fn at_moments(cloud_sells: bool, wanted: &str, first: usize, step: usize) -> i64 {
    let mut market = Market::new(cloud_sells).await;
    for moment in (i64::try_from(first).unwrap()..).step_by(step) {
        let fuse = Fuse::at(moment);
        market.open(&fuse).await;
        market.buyer.split_solver("shop", 3).await;
        let ends = async {
            market.buyer.solver_is("shop", wanted).await;
            books_agree(&market.buyer, &[&market.grid, &market.cloud]).await;
        };
        let killed = tokio::select! {
            () = fuse.burnt() => true,
            () = ends => false,
        };
        if killed {
            market.revive().await;
            let phase = until("the Solver ends", async || {
                let status = market.buyer.api::<Solver>().get("shop").await.unwrap().status.unwrap_or_default();
                let phase = status.solver_phase.phase;
                if phase.is_final() { Ok(phase.as_str()) } else { Err(format!("{status:?}")) }
            })
            .await;
            if phase != wanted {
                let reservations = market.buyer.list::<fluidos_model::kinds::Reservation>().await;
                let statuses: Vec<_> =
                    reservations.iter().map(|r| (&r.metadata.name, &r.spec.part, &r.status)).collect();
                let (grid, cloud) = (market.grid.ledger().await, market.cloud.ledger().await);
                panic!("killed at moment {moment}: {phase}: {statuses:#?} grid {grid:#?} cloud {cloud:#?}");
            }
            market.buyer.solver_is("shop", wanted).await;
            books_agree(&market.buyer, &[&market.grid, &market.cloud]).await;
        }
        let contracts = market.buyer.list::<Contract>().await.len();
        assert_eq!(contracts, if wanted == "Solved" { 2 } else { 0 }, "killed at moment {moment}");
        market.buyer.delete_solver("shop").await;
        if !killed {
            return moment;
        }
        for node in [&market.buyer, &market.grid, &market.cloud] {
            node.empty().await;
        }
    }
    unreachable!("a purchase has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_killed_at_any_moment_has_all_parts_in_the_end() {
    let moments = at_every_moment(true, "Solved", 1).await;
    assert!(moments > 40, "{moments} moments: holds, sales and all that is written between them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_killed_at_any_moment_keeps_no_part_of_what_it_cannot_have() {
    let moments = at_every_moment(false, "Failed", 3).await;
    assert!(moments > 30, "{moments} moments: holds, a sale, and what takes it back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_split_as_it_is_said_says_why() {
    let buyer = Node::start(1, "farm", None).await;
    buyer.split_solver("shop", 3).await;
    let wrong = Patch::Merge(json!({"spec": {"split": {"unit": {"pods": null}}}}));
    buyer.api::<Solver>().patch("shop", &PatchParams::default(), &wrong).await.unwrap();
    let message = buyer.solver_is("shop", "Failed").await;
    assert_eq!(message, "split.unit.pods is 0, needed more than 0: there is a filter for it");
}
