//! Capacity is bought before somebody needs it: two nodes in process, real REAR over TLS on loopback.

use fluidos_acquisition::buffers;
use fluidos_model::kinds::{AcquisitionPolicy, BufferStatus, Contract, Rating, SharingPolicy, Solver, names};
use k8s_openapi::api::core::v1::{Node as KubeNode, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::support::{Node, until};

async fn policy(buyer: &Node, per_hour: &str, buffers: Value) {
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "AcquisitionPolicy");
    let spec = json!({"ceilings": [{"currency": "EUR", "perHour": per_hour}], "buffers": buffers});
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    buyer.create::<AcquisitionPolicy>(policy).await;
}

/// Sells a CPU for ten cents an hour.
async fn sell(seller: &Node, amount: &str) {
    let spec = json!({"price": {"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"}});
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "SharingPolicy");
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    seller.create::<SharingPolicy>(policy).await;
}

async fn told(buyer: &Node, what: &str, is: impl Fn(&BufferStatus) -> bool) -> BufferStatus {
    until(what, async || {
        let status = buyer.api::<AcquisitionPolicy>().get("p").await.unwrap().status.unwrap_or_default();
        match status.buffers.first() {
            Some(buffer) if is(buffer) => Ok(buffer.clone()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// Writes what the fabric and a scheduler would: a virtual node, and a pod of so much on it.
async fn occupy(buyer: &Node, contract: &str, cpu: &str) {
    let node: KubeNode =
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": contract,
        "labels": {names::VIRTUAL_NODE: "true", names::LABEL_CONTRACT: contract}}}))
        .unwrap();
    Api::<KubeNode>::all(buyer.client.clone()).create(&PostParams::default(), &node).await.unwrap();
    let pod: Pod = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": contract},
        "spec": {"nodeName": contract, "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}}))
    .unwrap();
    buyer.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_free_is_bought_filled_up_and_given_back() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(8000)).await);
    buyer.know(&seller).await;
    buyer.fabric();
    sell(&seller, "0.1").await;
    let amounts = json!({"cpu": "2", "memory": "1Gi", "pods": "4"});
    let step = json!({"cpu": "1", "memory": "512Mi", "pods": "2"});
    policy(&buyer, "0.3", json!([{"name": "edge", "amounts": amounts, "step": step}])).await;
    buyer.rooms.spawn(buffers::run(buyer.client.clone()));
    let kept = told(&buyer, "two lots are bought", |status| status.message == "kept").await;
    assert_eq!((kept.lots, serde_json::to_value(&kept.free).unwrap()["cpu"].clone()), (2, json!("2")));
    assert_eq!(seller.ledger().await.commitments.len(), 2);
    let shown = buyer.api::<AcquisitionPolicy>().get("p").await.unwrap().status.unwrap().buffers_shown;
    assert_eq!(shown, "1 of 1 kept");

    // Somebody uses some of it: a third lot is bought, and it is the last that the ceiling allows.
    let contracts = buyer.list::<Contract>().await;
    occupy(&buyer, &contracts[0].name_any(), "100m").await;
    let three = told(&buyer, "a third lot", |status| status.lots == 3 && status.message == "kept").await;
    assert_eq!(serde_json::to_value(&three.free).unwrap()["cpu"], json!("2900m"));
    occupy(&buyer, &contracts[1].name_any(), "1").await;
    let rule = "ceiling: 0.4 EUR an hour with it, needed at most 0.3 (AcquisitionPolicy p)";
    let dear = told(&buyer, "a fourth is too dear", |status| status.message.contains(rule)).await;
    assert!(dear.message.starts_with("cpu: 1900m free, needed 2"), "{dear:?}");
    assert_eq!(seller.ledger().await.commitments.len(), 3, "nothing is bought beyond a ceiling");

    // Nobody uses it any more: with the two that are needed the third is spare, but not for ten minutes.
    buyer.api::<Pod>().delete_collection(&DeleteParams::default().grace_period(0), &Default::default()).await.unwrap();
    told(&buyer, "it is kept again", |status| status.message.starts_with("kept")).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(seller.ledger().await.commitments.len(), 3, "what was used a moment ago stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lots_of_others_are_left_alone_and_a_wrong_buffer_is_told() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(8000)).await);
    buyer.know(&seller).await;
    buyer.fabric();
    buyer.solver("shop", "1", &[]).await;
    buyer.solver_is("shop", "Solved").await;
    policy(&buyer, "1", json!([{"name": "Edge", "amounts": {"cpu": "1"}}])).await;
    buyer.rooms.spawn(buffers::run(buyer.client.clone()));
    let told = until("it is told", async || {
        let status = buyer.api::<AcquisitionPolicy>().get("p").await.unwrap().status.unwrap_or_default();
        if status.message.is_empty() { Err(format!("{status:?}")) } else { Ok(status.message) }
    })
    .await;
    assert!(told.starts_with("buffers[0].name is \"Edge\", needed at most 40"), "{told}");
    assert_eq!(buyer.list::<Solver>().await.len(), 1);
    assert_eq!(seller.ledger().await.commitments.len(), 1, "what somebody else has bought stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_depends_on_what_was_seen_of_the_buyer() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    sell(&seller, r#"rated && rating >= 80 ? "0.05" : "0.1""#).await;
    let quoted = async || {
        let key = buyer.key.clone();
        let flavors = seller.rear(&key).list_flavors(&Default::default()).await.unwrap();
        flavors[0].price.amount.clone()
    };
    assert_eq!(quoted().await, "0.1", "nothing was seen of it");
    let did = buyer.key.id().to_string();
    let rate = async |did: &str, value: u8| {
        let name = names::known_cluster(&buyer.key.id().tag());
        let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "Rating");
        let rating = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": {"did": did, "peer": "farm"}});
        seller.create::<Rating>(rating).await;
        let status = Patch::Merge(json!({"status": {"value": value}}));
        seller.api::<Rating>().patch_status(&name, &PatchParams::default(), &status).await.unwrap();
        name
    };
    let name = rate(&did, 85).await;
    assert_eq!(quoted().await, "0.05");
    seller.api::<Rating>().delete(&name, &DeleteParams::default()).await.unwrap();
    rate("did:key:zSomebodyElse", 99).await;
    assert_eq!(quoted().await, "0.1", "somebody else's rating is not its own");
}
