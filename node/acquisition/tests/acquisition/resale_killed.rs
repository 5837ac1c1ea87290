//! A reseller that is killed between any two of its writes and messages: what it sold is served, and nothing is left bought for nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fluidos_acquisition::exporter::Exporter;
use fluidos_model::kinds::{AcquisitionPolicy, Contract, SharingPolicy, Solver};
use fluidos_model::market::CommitmentState;
use futures::future::join_all;
use serde_json::json;

use crate::support::fuse::{Fuse, Fused, fused};
use crate::support::service::{sells, solver};
use crate::support::{Node, until};

/// Markets at the same time: most of the time is waiting.
const LANES: usize = 4;

/// What is bought.
#[derive(Clone, Copy)]
enum What {
    Slice,
    Service,
}

struct Market {
    farm: Node,
    broker: Node,
    grid: Node,
}

impl Market {
    async fn new(what: What) -> Self {
        let mut farm = Node::without_rooms(1, "farm", None).await;
        let mut broker = Node::without_rooms(2, "broker", None).await;
        // Room for what is held for tries that broke off, until its time is over.
        let mut grid = Node::without_rooms(3, "grid", Some(64_000)).await;
        for node in [&mut farm, &mut broker, &mut grid] {
            node.options.hold = Duration::from_secs(3);
        }
        farm.know(&broker).await;
        broker.know(&grid).await;
        let price = |amount: &str| json!({"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"});
        let sharing = |spec: serde_json::Value| json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": "standard"}, "spec": spec});
        grid.create::<SharingPolicy>(sharing(json!({"price": price("0.02")}))).await;
        let reselling = json!({"margin": "10%"});
        broker.create::<SharingPolicy>(sharing(json!({"price": price("0.05"), "reselling": reselling}))).await;
        for node in [&farm, &broker] {
            node.create::<AcquisitionPolicy>(json!({
                "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "AcquisitionPolicy", "metadata": {"name": "household"},
                "spec": {"ceilings": [{"currency": "EUR", "perHour": "100"}], "accepts": {"resold": true}},
            }))
            .await;
        }
        if let What::Service = what {
            sells(&grid).await;
        }
        farm.open(|exporter| exporter).await;
        farm.fabric();
        // What is written once, whoever is killed.
        broker.open(|exporter| exporter).await;
        until("the policies are judged", async || {
            let sharing = broker.list::<SharingPolicy>().await.remove(0).status.is_some_and(|status| status.accepted);
            let buying =
                broker.list::<AcquisitionPolicy>().await.remove(0).status.is_some_and(|status| status.accepted);
            if sharing && buying { Ok(()) } else { Err(format!("{sharing} {buying}")) }
        })
        .await;
        Self { farm, broker, grid }
    }

    /// The writes of the reseller pass the fuse, and so do its messages to who serves.
    async fn open(&mut self, fuse: &Fuse) {
        self.broker.kill().await;
        self.grid.kill().await;
        let messages = fuse.clone();
        self.grid.open(|seller: Arc<Exporter>| Arc::new(Fused { seller, fuse: messages, sells: true })).await;
        self.broker.open_as(fused(&self.broker.client, fuse), |exporter| exporter).await;
    }

    /// What the reseller has promised to be served with is what it has bought, which is what grid has sold; and what farm has bought is
    /// what the reseller has sold.
    async fn books_agree(&self, moment: i64) {
        until(&format!("killed at {moment}, the books agree"), async || {
            let sold_at = |pool: fluidos_model::market::Pool| {
                let sold = pool.commitments.into_iter().map(|known| match &known.state {
                    CommitmentState::Committed { contract, .. } => contract.clone(),
                    CommitmentState::Held { until } => format!("held until {until}"),
                });
                sold.collect::<BTreeSet<String>>()
            };
            let promised = self.broker.list::<fluidos_model::kinds::Ledger>().await;
            let promised = promised.first().map(|ledger| ledger.spec.pool().unwrap()).unwrap_or_default();
            let served: BTreeSet<String> = promised.commitments.iter().filter_map(|known| known.served_by.clone()).collect();
            let (of_grid, of_broker) = (sold_at(self.grid.ledger().await), sold_at(promised));
            let own = self.broker.key.id().to_string();
            let (mut bought, mut sold) = (BTreeSet::new(), BTreeSet::new());
            for contract in self.broker.list::<Contract>().await {
                let name = contract.metadata.name.unwrap();
                if contract.spec.buyer.additional_information.and_then(|more| more.did) == Some(own.clone()) {
                    bought.insert(name);
                } else {
                    assert!(contract.spec.served_by.is_some_and(|by| served.contains(&by)), "{name} is served with nothing");
                    sold.insert(name);
                }
            }
            let of_farm: BTreeSet<String> =
                self.farm.list::<Contract>().await.into_iter().map(|contract| contract.metadata.name.unwrap()).collect();
            let same = served == bought && bought == of_grid && sold == of_broker && of_farm == sold;
            let told = format!(
                "served {served:?} bought {bought:?} grid {of_grid:?}; sold {sold:?} promised {of_broker:?} farm {of_farm:?}"
            );
            if same { Ok(()) } else { Err(told) }
        })
        .await;
    }

    /// Whatever moment it was killed at: what is sold is served.
    async fn nothing_is_sold_before_it_is_bought(&self, moment: i64) {
        let bought: BTreeSet<String> =
            self.broker.list::<Contract>().await.into_iter().map(|contract| contract.metadata.name.unwrap()).collect();
        for ledger in self.broker.list::<fluidos_model::kinds::Ledger>().await {
            for known in ledger.spec.pool().unwrap().commitments.iter().filter(|known| !known.is_held()) {
                let by = known.served_by.as_ref().unwrap();
                assert!(bought.contains(by), "killed at moment {moment}: {known:?} is served with nothing: {bought:?}");
            }
        }
    }

    async fn empty(&self) {
        for node in [&self.farm, &self.broker, &self.grid] {
            node.empty().await;
        }
        until("no Solver is left", async || {
            let left: Vec<String> =
                self.broker.list::<Solver>().await.into_iter().map(|solver| solver.metadata.name.unwrap()).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
    }
}

/// Buys through the reseller and kills it at each moment in turn. `goes` says whether its buyer gives up then.
async fn at_every_moment(what: What, goes: bool) -> i64 {
    let lanes = (0..LANES).map(|lane| at_moments(what, goes, lane));
    join_all(lanes).await.into_iter().min().unwrap()
}

async fn at_moments(what: What, goes: bool, first: usize) -> i64 {
    let mut market = Market::new(what).await;
    for moment in (i64::try_from(first).unwrap()..).step_by(LANES) {
        let fuse = Fuse::at(moment);
        market.open(&fuse).await;
        match what {
            What::Slice => market.farm.solver("shop", "2", &[]).await,
            What::Service => solver(&market.farm, "shop", "redis", json!({"memory": "32mb"})).await,
        }
        let ends = async {
            market.farm.solver_is("shop", "Solved").await;
            market.books_agree(moment).await;
        };
        let killed = tokio::select! {
            () = fuse.burnt() => true,
            () = ends => false,
        };
        if killed {
            market.broker.kill().await;
            market.nothing_is_sold_before_it_is_bought(moment).await;
            if goes {
                market.farm.delete_solver("shop").await;
                // Longer than it asks again for what it was to buy: what it does not know of is the reseller's to take back.
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
            market.open(&Fuse::at(i64::MAX)).await;
            if !goes {
                market.farm.solver_is("shop", "Solved").await;
            }
        }
        market.books_agree(moment).await;
        if !(killed && goes) {
            assert_eq!(market.farm.list::<Contract>().await.len(), 1, "killed at moment {moment}");
            market.farm.delete_solver("shop").await;
        }
        if !killed {
            return moment;
        }
        market.empty().await;
    }
    unreachable!("a purchase has an end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseller_killed_at_any_moment_serves_what_it_sold_and_keeps_nothing_else() {
    let moments = at_every_moment(What::Slice, false).await;
    assert!(moments > 40, "{moments} moments: a hold and a sale behind, and all that is written of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseller_killed_at_any_moment_whose_buyer_gives_up_keeps_nothing() {
    let moments = at_every_moment(What::Slice, true).await;
    assert!(moments > 40, "{moments} moments");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_services() {
    let moments = at_every_moment(What::Service, false).await;
    assert!(moments > 40, "{moments} moments");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_with_services_whose_buyer_gives_up() {
    let moments = at_every_moment(What::Service, true).await;
    assert!(moments > 40, "{moments} moments");
}
