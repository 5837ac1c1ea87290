//! A reseller that has lost its disk: what it sold on is served on by what it had bought for it, as the others give both back.

use fluidos_identity::Signed;
use fluidos_model::kinds::{Contract, LogState, names};
use fluidos_model::market::Ended;
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::api::DeleteParams;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{Node, agreed, until, wire};

/// A contract that both have signed, under this transaction and on these conditions.
fn signed(buyer: &Node, seller: &Node, number: u32, transaction: &str, resold: bool) -> rear::Contract {
    let usual = agreed(buyer, seller, number, SignedDuration::ZERO);
    let envelope = usual.signed_terms.as_ref().unwrap();
    let terms = Signed::<rear::ContractTerms>::open(envelope, rear::CONTRACT_PURPOSE).unwrap();
    let terms = rear::ContractTerms {
        transaction_id: transaction.into(),
        conditions: resold.then(|| json!({"resold": true, "tolerancePerMille": 10})),
        ..terms.value().clone()
    };
    let mut signed = terms.into_signed().unwrap();
    signed.sign(&buyer.key).unwrap();
    signed.sign(&seller.key).unwrap();
    wire(buyer, seller, &format!("contract-{number}"), signed.envelope())
}

async fn take_back(node: &Node, contract: &rear::Contract) {
    let back = (contract, None);
    fluidos_acquisition::restore::take_back(&node.client, &node.options, back, Ended::No, Timestamp::now())
        .await
        .unwrap();
}

/// As the exporter names the purchase behind a sale.
fn behind(transaction: &str, buyer: &Node) -> String {
    let digest = Sha256::digest(format!("{transaction}\n{}", buyer.key.id()));
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}0123456789abcdef")
}

async fn served_by(node: &Node, wanted: &str) {
    until(&format!("contract 1 is served by {wanted}"), async || {
        let known = node.api::<Contract>().get_opt("contract-1").await.unwrap();
        let served = known.and_then(|known| known.spec.served_by);
        let pool = node.ledger().await;
        let promised = pool.commitments.first().and_then(|known| known.served_by.clone());
        let both = (served.as_deref(), promised.as_deref());
        if both == (Some(wanted), Some(wanted)) { Ok(()) } else { Err(format!("{both:?} {:?}", node.log().await)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sold_on_is_served_again_by_what_was_bought_for_it() {
    let (farm, mut shop, mut grid) = (Node::start(1).await, Node::start(2).await, Node::start(3).await);
    let sold = signed(&farm, &shop, 1, "transaction-1", true);
    let bought = signed(&shop, &grid, 2, &behind("transaction-1", &farm), false);
    // Another that was bought, and has nothing to do with it.
    let other = signed(&shop, &grid, 3, "0123456789abcdef0123456789abcdef", false);
    for (contract, parties) in [(&bought, [&shop, &grid]), (&other, [&shop, &grid]), (&sold, [&shop, &farm])] {
        for node in parties {
            take_back(node, contract).await;
        }
    }
    served_by(&shop, "contract-2").await;
    shop.log_is(LogState::Complete, 3).await;
    shop.is_witnessed(&grid, 3).await;
    shop.is_witnessed(&farm, 3).await;

    // Only who bought is there: what it bought is not given up while it may come back what serves it.
    grid.kill().await;
    shop.lose_objects().await;
    shop.lose_log();
    shop.know(&farm).await;
    shop.know(&grid).await;
    shop.open().await;
    served_by(&shop, "lost").await;
    until("it is restoring", async || {
        let log = shop.log().await;
        if log.state == LogState::Restoring { Ok(()) } else { Err(format!("{log:?}")) }
    })
    .await;
    // The books are compared every ten seconds.
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    served_by(&shop, "lost").await;
    grid.open().await;
    served_by(&shop, "contract-2").await;
    shop.log_is(LogState::Complete, 3).await;
    let label = |contract: Contract| contract.metadata.labels.unwrap_or_default().remove(names::LABEL_RESALE);
    let labels = [
        label(shop.api::<Contract>().get("contract-2").await.unwrap()),
        label(shop.api::<Contract>().get("contract-3").await.unwrap()),
    ];
    assert_eq!(labels, [Some(behind("transaction-1", &farm)[..16].to_owned()), None]);
    assert_eq!(shop.ledger().await.free(Timestamp::now()).cpu_milli, 1000, "it takes nothing of its own");

    // It ends as any: with what was bought for it.
    farm.api::<Contract>().delete("contract-1", &DeleteParams::default()).await.unwrap();
    until("nothing is bought for nobody", async || {
        let names = (shop.names::<Contract>().await, grid.names::<Contract>().await);
        let left = vec!["contract-3".to_owned()];
        if names == (left.clone(), left) { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}
