//! The renewal of what is sold on, with the reseller, who serves, or who uses it killed between any two of its writes and messages: in the
//! end all four contracts go on, with the same ends at both parties of each, and nothing is promised for longer than it is served.

use std::sync::Arc;

use fluidos_acquisition::contract_manager;
use fluidos_acquisition::exporter::Exporter;
use fluidos_model::kinds::{AcquisitionPolicy, Contract, SharingPolicy};
use fluidos_model::market::CommitmentState;
use futures::future::join_all;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::support::fuse::{Fuse, Fused, fused};
use crate::support::{Node, until};

/// Markets at the same time: most of the time is waiting.
const LANES: usize = 4;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Who {
    /// Who uses it.
    Farm,
    /// Who sells it on.
    Broker,
    /// Who serves it.
    Grid,
}

struct Market {
    dies: Who,
    farm: Node,
    broker: Node,
    grid: Node,
}

async fn sells(node: &Node, spec: Value) {
    let api = "nodecore.fluidos.eu/v1alpha1";
    let policy = json!({"apiVersion": api, "kind": "SharingPolicy", "metadata": {"name": "standard"}, "spec": spec});
    node.create::<SharingPolicy>(policy).await;
}

fn price(amount: &str) -> Value {
    json!({"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"})
}

fn wrapped(fuse: &Fuse) -> impl FnOnce(Arc<Exporter>) -> Arc<Fused<Exporter>> {
    let fuse = fuse.clone();
    move |seller| Arc::new(Fused { seller, fuse, sells: true })
}

impl Market {
    async fn new(dies: Who) -> Self {
        let farm = Node::without_rooms(1, "farm", None).await;
        let broker = Node::without_rooms(2, "broker", None).await;
        let grid = Node::without_rooms(3, "grid", Some(64_000)).await;
        farm.know(&broker).await;
        broker.know(&grid).await;
        // A minute, that may be renewed from its beginning, once.
        let renewal = json!({"bySeconds": 60, "beforeSeconds": 60, "atMost": 1});
        sells(&grid, json!({"price": price("0.02"), "termSeconds": 60, "conditions": {"renewal": renewal}})).await;
        sells(&broker, json!({"price": price("0.05"), "reselling": {"margin": "10%"}})).await;
        for node in [&farm, &broker] {
            node.create::<AcquisitionPolicy>(json!({
                "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "AcquisitionPolicy", "metadata": {"name": "household"},
                "spec": {"ceilings": [{"currency": "EUR", "perHour": "100"}], "accepts": {"resold": true}},
            }))
            .await;
        }
        Self { dies, farm, broker, grid }
    }

    /// Everybody opens; what the one that dies writes, hears and answers passes the fuse. Who uses it asks for no renewal yet.
    async fn open(&mut self, fuse: &Fuse) {
        let dies = self.dies;
        let client = |node: &Node, who| if dies == who { fused(&node.client, fuse) } else { node.client.clone() };
        let never = Fuse::at(i64::MAX);
        let of = |who: &[Who]| if who.contains(&dies) { fuse } else { &never };
        self.kill().await;
        let (of_farm, of_broker, of_grid) =
            (client(&self.farm, Who::Farm), client(&self.broker, Who::Broker), client(&self.grid, Who::Grid));
        self.grid.open_as(of_grid, wrapped(of(&[Who::Broker, Who::Grid]))).await;
        self.broker.open_as(of_broker, wrapped(of(&[Who::Farm, Who::Broker]))).await;
        self.farm.rooms.spawn(fluidos_acquisition::importer::run(of_farm, self.farm.options.clone()));
        self.farm.fabric();
    }

    async fn kill(&mut self) {
        for node in [&mut self.farm, &mut self.broker, &mut self.grid] {
            node.kill().await;
        }
    }

    /// From now on it is renewed.
    fn renew(&mut self, fuse: &Fuse) {
        let client = if self.dies == Who::Farm { fused(&self.farm.client, fuse) } else { self.farm.client.clone() };
        self.farm.rooms.spawn(contract_manager::run(client, self.farm.options.clone()));
    }

    /// Waits until both contracts have their renewal at both parties, and both promises follow.
    async fn is_renewed(&self, moment: i64) {
        let (who, told) = (self.dies, |node: &Node| node.name.clone());
        until(&format!("{who:?} killed at {moment}: all are renewed"), async || {
            let (mut ends, mut all) = (std::collections::BTreeMap::<String, Vec<String>>::new(), String::new());
            for node in [&self.farm, &self.broker, &self.grid] {
                for contract in node.list::<Contract>().await {
                    let (signed, status) = (contract.spec.renewal.clone(), contract.status.clone().unwrap_or_default());
                    let signatures = signed.map_or(0, |renewal| renewal.signatures.len());
                    let end = contract.spec.expiration_time.clone().unwrap();
                    all =
                        format!("{all}{} {} {signatures} {end} {}; ", told(node), contract.name_any(), status.renewal);
                    if signatures == 2 {
                        ends.entry(contract.name_any()).or_default().push(end);
                    }
                }
            }
            let same = |ends: &Vec<String>| ends.len() == 2 && ends[0] == ends[1];
            if ends.len() != 2 || !ends.values().all(same) {
                return Err(all);
            }
            let (sold, served) = (promised(&self.broker).await, promised(&self.grid).await);
            let of_contracts = |(name, until): &(String, Timestamp)| ends[name][0] == until.to_string();
            let agree =
                [&sold, &served].into_iter().all(|promised| promised.len() == 1 && promised.iter().all(of_contracts));
            if agree && sold[0].1 <= served[0].1 {
                Ok(())
            } else {
                Err(format!("sold {sold:?} served {served:?}; {all}"))
            }
        })
        .await;
    }
}

/// The contracts that a node has promised, and until when.
async fn promised(node: &Node) -> Vec<(String, Timestamp)> {
    let commitments = node.ledger().await.commitments.into_iter();
    let sold = commitments.filter_map(|known| match &known.state {
        CommitmentState::Committed { contract, until } => Some((contract.clone(), (*until)?)),
        CommitmentState::Held { .. } => None,
    });
    sold.collect()
}

async fn at_every_moment(dies: Who) -> i64 {
    join_all((0..LANES).map(|lane| at_moments(dies, lane))).await.into_iter().min().unwrap()
}

async fn at_moments(dies: Who, first: usize) -> i64 {
    let mut market = Market::new(dies).await;
    for moment in (i64::try_from(first).unwrap()..).step_by(LANES) {
        let fuse = Fuse::at(i64::MAX);
        market.open(&fuse).await;
        market.farm.solver("shop", "2", &[]).await;
        market.farm.solver_is("shop", "Solved").await;
        fuse.arm(moment);
        market.renew(&fuse);
        let killed = tokio::select! {
            () = fuse.burnt() => true,
            // Of what comes after it nothing is killed here.
            () = market.is_renewed(moment) => fuse.arm(i64::MAX),
        };
        if killed {
            let never = Fuse::at(i64::MAX);
            market.open(&never).await;
            market.renew(&never);
            market.is_renewed(moment).await;
        }
        market.farm.delete_solver("shop").await;
        for node in [&market.farm, &market.broker, &market.grid] {
            node.empty().await;
        }
        if !killed {
            return moment;
        }
    }
    unreachable!("a renewal has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseller_killed_at_any_moment_of_a_renewal_has_both_go_on() {
    let moments = at_every_moment(Who::Broker).await;
    assert!(moments >= 12, "{moments} moments: two messages each way, and what is written of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_when_who_serves_is_killed() {
    let moments = at_every_moment(Who::Grid).await;
    assert!(moments >= 6, "{moments} moments");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_when_who_uses_it_is_killed() {
    let moments = at_every_moment(Who::Farm).await;
    assert!(moments >= 6, "{moments} moments");
}
