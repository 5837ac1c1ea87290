//! What is signed beyond size and price: two nodes in process, real REAR over TLS on loopback.

use fluidos_identity::Signed;
use fluidos_model::kinds::{AcquisitionPolicy, Allocation, Contract, SharingPolicy};
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, until};

async fn sell(seller: &Node, conditions: Value) {
    let spec = json!({"price": {"amount": "0"}, "conditions": conditions});
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "SharingPolicy");
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    seller.create::<SharingPolicy>(policy).await;
}

async fn accept(buyer: &Node, accepts: Value) {
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "AcquisitionPolicy");
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"},
                        "spec": {"ceilings": [], "accepts": accepts}});
    buyer.create::<AcquisitionPolicy>(policy).await;
    until("the policy is accepted", async || {
        let status = buyer.api::<AcquisitionPolicy>().get("p").await.unwrap().status;
        if status.as_ref().is_some_and(|status| status.accepted) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

async fn annotate(node: &Node, name: &str, key: &str, value: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
    node.api::<Contract>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spot_capacity_is_bought_by_who_accepts_it_and_taken_back_after_its_notice() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    buyer.fabric();
    sell(&seller, json!({"businessModel": "spot", "noticeSeconds": 3})).await;
    buyer.solver("careful", "1", &[]).await;
    let message = buyer.solver_is("careful", "Failed").await;
    let rule = "conditions: spot, needed reserved: there is no AcquisitionPolicy that says otherwise";
    assert_eq!(message, format!("grid: list: {rule}"));

    accept(&buyer, json!({"businessModels": ["reserved", "spot"], "leastNoticeSeconds": 2})).await;
    buyer.solver("shop", "1", &[]).await;
    buyer.solver_is("shop", "Solved").await;
    let name = seller.list::<Contract>().await.remove(0).metadata.name.unwrap();
    annotate(&seller, &name, "fluidos.eu/end-reason", json!("we need it ourselves")).await;
    until("both know when it ends, and the buyer stops using it", async || {
        let (bought, sold) = (buyer.list::<Contract>().await, seller.list::<Contract>().await);
        let ends = |contracts: &[Contract]| contracts.first()?.status.as_ref()?.ends.clone();
        let used = buyer.list::<Allocation>().await.len();
        match (ends(&bought), ends(&sold), used) {
            (Some(here), Some(there), 0) if here == there => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(seller.ledger().await.commitments.len(), 1, "until then it is promised");
    seller.empty().await;
    until("it is over at the buyer", async || {
        let left = buyer.list::<Contract>().await.len();
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
    let events = buyer.list::<k8s_openapi::api::core::v1::Event>().await;
    let told = events.iter().find(|event| event.reason.as_deref() == Some("NoticeByPeer"));
    assert!(told.and_then(|event| event.message.clone()).unwrap_or_default().ends_with(": we need it ourselves"));
    assert!(!events.iter().any(|event| event.reason.as_deref() == Some("ReleasedWithoutNotice")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_that_goes_at_once_has_its_notice_kept_for_it() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    sell(&seller, json!({"noticeSeconds": 4})).await;
    buyer.solver_with("shop", "1", &[], json!({"reserveAndBuy": true})).await;
    buyer.solver_is("shop", "Solved").await;
    buyer.delete_solver("shop").await;
    until("the seller knows when it ends", async || {
        let sold = seller.list::<Contract>().await;
        let ends = sold.first().and_then(|contract| contract.status.as_ref()?.ends.clone());
        if ends.is_some() { Ok(()) } else { Err(format!("{} contracts", sold.len())) }
    })
    .await;
    assert_eq!(seller.ledger().await.commitments.len(), 1, "so long it is promised, and paid");
    buyer.empty().await;
    seller.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paid_per_use_is_sold_more_than_once_and_suspended_without_an_end() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(1000)).await);
    buyer.know(&seller).await;
    buyer.fabric();
    sell(&seller, json!({"businessModel": "pay-per-use", "overcommitPerCent": 200, "yields": 1})).await;
    accept(&buyer, json!({"businessModels": ["pay-per-use"], "mostOvercommitPerCent": 200})).await;
    for name in ["one", "two"] {
        buyer.solver(name, "1", &[]).await;
        buyer.solver_is(name, "Solved").await;
    }
    buyer.solver("three", "1", &[]).await;
    let message = buyer.solver_is("three", "Failed").await;
    assert!(message.starts_with("grid: list: cpu: 0"), "{message}");
    assert_eq!(seller.ledger().await.commitments.len(), 2, "two CPUs of the one that there is");

    let name = buyer.list::<Contract>().await.remove(0).metadata.name.unwrap();
    annotate(&buyer, &name, "fluidos.eu/suspended", json!("the harvest is over")).await;
    let uses = async |wanted: usize, phase: &str| {
        until(&format!("{wanted} are used, and it is {phase}"), async || {
            let status = buyer.api::<Contract>().get(&name).await.unwrap().status.unwrap_or_default();
            let used = buyer.list::<Allocation>().await.len();
            if used == wanted && status.phase.as_str() == phase {
                Ok(status.message)
            } else {
                Err(format!("{used} {status:?}"))
            }
        })
        .await
    };
    assert_eq!(uses(1, "Inactive").await, "suspended: the harvest is over");
    assert_eq!(seller.ledger().await.commitments.len(), 2, "what is promised stays");
    annotate(&buyer, &name, "fluidos.eu/suspended", Value::Null).await;
    uses(2, "Active").await;
}

fn signed_terms(contract: &Contract) -> Signed<rear::ContractTerms> {
    let terms = contract.spec.signed_terms.clone().unwrap();
    let envelope = rear::Envelope { purpose: terms.purpose, payload: terms.payload, signatures: terms.signatures };
    Signed::open(&envelope, rear::CONTRACT_PURPOSE).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_keeps_what_it_has_sold_until_the_notice_is_over_whatever_its_buyer_says() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    sell(&seller, json!({"noticeSeconds": 3600})).await;
    buyer.solver_with("shop", "1", &[], json!({"reserveAndBuy": true})).await;
    buyer.solver_is("shop", "Solved").await;
    let sold = seller.list::<Contract>().await.remove(0);
    let now = Timestamp::now();
    let mut release = rear::ReleaseTerms::of(&signed_terms(&sold), "at once", now, None).unwrap();
    release.sign(&buyer.key).unwrap();
    seller.rear(&buyer.key).release(&release).await.unwrap();
    let status = seller.list::<Contract>().await.remove(0).status.unwrap();
    let ends: Timestamp = status.ends.clone().unwrap().parse().unwrap();
    assert!(ends.duration_since(now) > SignedDuration::from_secs(3500), "{status:?}");
    assert!(!status.short_notice, "a buyer pays for it: {status:?}");
    assert_eq!(seller.ledger().await.commitments.len(), 1, "so long it is promised, and paid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_that_gives_too_little_notice_is_remembered_for_it() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    buyer.fabric();
    sell(&seller, json!({"noticeSeconds": 3600})).await;
    buyer.solver("shop", "1", &[]).await;
    buyer.solver_is("shop", "Solved").await;
    let known = buyer.list::<Contract>().await.remove(0);
    let now = Timestamp::now();
    let ends = now.checked_add(SignedDuration::from_secs(60)).unwrap();
    let mut release = rear::ReleaseTerms::of(&signed_terms(&known), "we need it now", now, Some(ends)).unwrap();
    release.sign(&seller.key).unwrap();
    buyer.rear(&seller.key).release(&release).await.unwrap();
    let status = buyer.list::<Contract>().await.remove(0).status.unwrap();
    assert!(status.short_notice, "{status:?}");
    assert!(status.ends.is_some() && status.message.ends_with(": we need it now"), "{status:?}");
    let events = buyer.list::<k8s_openapi::api::core::v1::Event>().await;
    let told = events.iter().find(|event| event.reason.as_deref() == Some("ReleasedWithoutNotice")).unwrap();
    assert!(told.message.as_ref().unwrap().ends_with("needed a notice of 3600 s"), "{told:?}");
}
