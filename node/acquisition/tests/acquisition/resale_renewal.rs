//! What is sold on goes on as long as what serves it: three nodes over TLS, each with its own books.

use fluidos_model::kinds::{AcquisitionPolicy, Contract, SharingPolicy};
use fluidos_model::market::CommitmentState;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, until};

async fn sells(node: &Node, spec: Value) {
    let api = "nodecore.fluidos.eu/v1alpha1";
    let policy = json!({"apiVersion": api, "kind": "SharingPolicy", "metadata": {"name": "standard"}, "spec": spec});
    node.create::<SharingPolicy>(policy).await;
}

fn price(amount: &str) -> Value {
    json!({"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"})
}

/// When each contract of a node ends, and by how many its renewal is signed.
async fn ends(node: &Node) -> Vec<(Timestamp, usize)> {
    let contracts = node.list::<Contract>().await.into_iter();
    let told = contracts.map(|it| {
        let signed = it.spec.renewal.map_or(0, |renewal| renewal.signatures.len());
        (it.spec.expiration_time.unwrap().parse().unwrap(), signed)
    });
    told.collect()
}

async fn promised_until(node: &Node) -> Vec<Option<Timestamp>> {
    let until = node.ledger().await.commitments.into_iter().map(|known| match known.state {
        CommitmentState::Committed { until, .. } => until,
        CommitmentState::Held { until } => panic!("it is held until {until}"),
    });
    until.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sold_on_goes_on_if_what_serves_it_does() {
    let mut farm = Node::start(1, "farm", None).await;
    let broker = Node::start(2, "broker", None).await;
    let grid = Node::start(3, "grid", Some(4000)).await;
    farm.fabric();
    farm.know(&broker).await;
    broker.know(&grid).await;
    // A minute, that may be renewed in its last minute, twice.
    let renewal = json!({"bySeconds": 60, "beforeSeconds": 60, "atMost": 2});
    sells(&grid, json!({"price": price("0.02"), "termSeconds": 60, "conditions": {"renewal": renewal}})).await;
    sells(&broker, json!({"price": price("0.05"), "reselling": {"margin": "10%"}})).await;
    for node in [&farm, &broker] {
        node.create::<AcquisitionPolicy>(json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "AcquisitionPolicy", "metadata": {"name": "household"},
            "spec": {"ceilings": [{"currency": "EUR", "perHour": "1"}], "accepts": {"resold": true}},
        }))
        .await;
    }
    farm.solver("shop", "2", &[]).await;
    farm.solver_is("shop", "Solved").await;
    let end = until("all have the renewal, signed by both", async || {
        let all = [ends(&farm).await, ends(&broker).await, ends(&grid).await].concat();
        let signed = all.len() == 4 && all.iter().all(|(_, signed)| *signed == 2);
        let last = all.iter().map(|(end, _)| *end).min();
        let status: Vec<_> = farm.list::<Contract>().await.into_iter().map(|it| it.status.unwrap().renewal).collect();
        last.filter(|_| signed).ok_or_else(|| format!("{all:?} {status:?}"))
    })
    .await;
    let now = Timestamp::now();
    assert!(end.duration_since(now).as_secs() > 70, "a minute and the rest of the first: {end} at {now}");
    for node in [&broker, &grid] {
        let until = promised_until(node).await;
        assert!(until.len() == 1 && until[0] >= Some(end), "{}: {until:?}, sold until {end}", node.name);
    }
    assert!(
        promised_until(&grid).await >= promised_until(&broker).await,
        "nothing is sold for longer than it is bought"
    );

    // What is behind is not renewed any more: nor is what is sold, and its buyer hears why.
    let patch = Patch::Merge(json!({"spec": {"conditions": null}}));
    grid.api::<SharingPolicy>().patch("standard", &PatchParams::default(), &patch).await.unwrap();
    let opens = end.duration_since(Timestamp::now()).as_secs() - 60;
    tokio::time::sleep(std::time::Duration::from_secs(u64::try_from(opens.max(0)).unwrap())).await;
    let told = until("farm is told why it ends", async || {
        let contracts = farm.list::<Contract>().await;
        let told = contracts.first().and_then(|it| it.status.clone()).unwrap_or_default().renewal;
        if told.starts_with("not renewed") { Ok(told) } else { Err(told) }
    })
    .await;
    assert!(told.starts_with("not renewed: renewal: what it is served with is not renewed"), "{told}");
    assert!(ends(&farm).await.iter().all(|(until, _)| *until == end), "it ends when it ends");
    farm.delete_solver("shop").await;
    for node in [&farm, &broker, &grid] {
        node.empty().await;
    }
}
