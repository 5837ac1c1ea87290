//! A contract goes on beyond its end: two nodes in process, real REAR over TLS on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use fluidos_acquisition::exporter::Exporter;
use fluidos_identity::{NodeId, Signed};
use fluidos_model::kinds::{Allocation, Contract, SharingPolicy};
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use rear::{Refusal, RefusalCode, Seller};
use serde_json::json;

use crate::support::{Node, until};

/// Loses the first answers to renewals, after the books were written.
struct Lossy {
    exporter: Arc<Exporter>,
    lose: AtomicU32,
}

#[async_trait]
impl Seller for Lossy {
    async fn list_flavors(&self, selector: &rear::Selector, peer: &rear::Peer) -> Result<Vec<rear::Flavor>, Refusal> {
        self.exporter.list_flavors(selector, peer).await
    }

    async fn request(&self, request: rear::ResourceRequest, buyer: NodeId) -> Result<rear::ResourceAnswer, Refusal> {
        self.exporter.request(request, buyer).await
    }

    async fn reserve(&self, request: rear::ReserveRequest, buyer: NodeId) -> Result<rear::Transaction, Refusal> {
        self.exporter.reserve(request, buyer).await
    }

    async fn purchase(
        &self,
        transaction: &str,
        request: rear::PurchaseRequest,
        terms: Signed<rear::ContractTerms>,
        buyer: NodeId,
    ) -> Result<rear::Contract, Refusal> {
        self.exporter.purchase(transaction, request, terms, buyer).await
    }

    async fn renew(
        &self,
        contract: &str,
        renewal: Signed<rear::RenewalTerms>,
        party: NodeId,
    ) -> Result<Signed<rear::RenewalTerms>, Refusal> {
        let answer = self.exporter.renew(contract, renewal, party).await?;
        if self.lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Refusal::new(RefusalCode::Unavailable, "lost on the way"));
        }
        Ok(answer)
    }

    async fn release(&self, contract: &str, release: Signed<rear::ReleaseTerms>, party: NodeId) -> Result<(), Refusal> {
        self.exporter.release(contract, release, party).await
    }
}

/// A minute, that may be renewed all the time, once.
async fn sell(seller: &Node) {
    let renewal = json!({"bySeconds": 60, "beforeSeconds": 60, "atMost": 1});
    let spec = json!({"price": {"amount": "0"}, "termSeconds": 60, "conditions": {"renewal": renewal}});
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "SharingPolicy");
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    seller.create::<SharingPolicy>(policy).await;
}

fn ends(contract: &Contract) -> Timestamp {
    contract.spec.expiration_time.as_ref().unwrap().parse().unwrap()
}

/// Waits until both have the renewal; returns both contracts.
async fn both_renewed(buyer: &Node, seller: &Node) -> [Contract; 2] {
    until("both have the renewal, signed by both", async || {
        let (bought, sold) = (buyer.list::<Contract>().await, seller.list::<Contract>().await);
        match (bought.into_iter().next(), sold.into_iter().next()) {
            (Some(bought), Some(sold))
                if bought.spec.renewal == sold.spec.renewal
                    && bought.spec.renewal.as_ref().is_some_and(|renewal| renewal.signatures.len() == 2)
                    && bought.spec.expiration_time == sold.spec.expiration_time =>
            {
                Ok([bought, sold])
            }
            other => Err(format!("{:?}", other.0.map(|contract| contract.status))),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_goes_on_under_its_own_name_also_when_the_answer_is_lost() {
    let mut seller = Node::without_rooms(2, "grid", Some(4000)).await;
    seller.open(|exporter| Arc::new(Lossy { exporter, lose: 2.into() })).await;
    let mut buyer = Node::start(1, "farm", None).await;
    buyer.know(&seller).await;
    buyer.fabric();
    sell(&seller).await;
    buyer.solver("shop", "1", &[]).await;
    let [bought, sold] = both_renewed(&buyer, &seller).await;
    let term = ends(&bought).duration_since(bought.metadata.creation_timestamp.as_ref().unwrap().0);
    assert!(term > SignedDuration::from_secs(110) && term < SignedDuration::from_secs(125), "{term}: twice a minute");
    assert_eq!(buyer.list::<Contract>().await.len() + seller.list::<Contract>().await.len(), 2, "it is the same one");
    buyer.solver_is("shop", "Solved").await;
    let pool = seller.ledger().await;
    assert_eq!(pool.commitments.len(), 1, "{pool:?}");
    assert_eq!(pool.commitments[0].until(), Some(ends(&sold)));
    let allocation = buyer.list::<Allocation>().await.remove(0);
    assert_eq!(allocation.spec.contract.name, bought.name_any(), "what runs under it stays");
    let told = bought.status.unwrap_or_default().renewal;
    assert!(told.is_empty() || told.starts_with("renewal 1: it goes on until"), "{told}");
    // Once, it says: there is no second.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(ends(&buyer.list::<Contract>().await[0]), ends(&sold));
    let renewed = buyer.list::<Event>().await;
    assert_eq!(renewed.iter().filter(|event| event.reason.as_deref() == Some("Renewed")).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_that_dies_before_the_answer_asks_again_and_finds_it_signed() {
    let mut seller = Node::without_rooms(2, "grid", Some(4000)).await;
    seller.open(|exporter| Arc::new(Lossy { exporter, lose: u32::MAX.into() })).await;
    let mut buyer = Node::start(1, "farm", None).await;
    buyer.know(&seller).await;
    buyer.fabric();
    sell(&seller).await;
    buyer.solver("shop", "1", &[]).await;
    let asked = until("the seller has signed it, and the buyer only asked", async || {
        let (bought, sold) = (buyer.list::<Contract>().await, seller.list::<Contract>().await);
        let of = |contracts: &[Contract]| {
            contracts.first().map(|it| (it.spec.renewal.clone(), it.spec.renewal_asked.clone()))
        };
        match (of(&bought), of(&sold)) {
            (Some((None, Some(asked))), Some((Some(both), None))) => {
                assert_eq!(
                    (asked.signatures.len(), both.signatures.len(), asked.payload),
                    (1, 2, both.payload.clone())
                );
                Ok(Some(both))
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    buyer.kill().await;
    seller.kill().await;
    seller.open(|exporter| exporter).await;
    buyer.open(|exporter| exporter).await;
    let [bought, _] = both_renewed(&buyer, &seller).await;
    assert_eq!(bought.spec.renewal, asked, "the same bytes and signatures");
    assert_eq!(bought.spec.renewal_asked, None, "nothing is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_renews_only_what_it_would_sell_today() {
    let mut seller = Node::without_rooms(2, "grid", Some(4000)).await;
    seller.open(|exporter| exporter).await;
    let mut buyer = Node::without_rooms(1, "farm", None).await;
    buyer.open(|exporter| exporter).await;
    buyer.know(&seller).await;
    buyer.fabric();
    // It may be renewed in its last 50 s: so long there is time to change the policy.
    let renewal = json!({"bySeconds": 60, "beforeSeconds": 58});
    let spec = json!({"price": {"amount": "0"}, "termSeconds": 60, "conditions": {"renewal": renewal}});
    let (api_version, kind) = ("nodecore.fluidos.eu/v1alpha1", "SharingPolicy");
    let policy = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "p"}, "spec": spec});
    seller.create::<SharingPolicy>(policy).await;
    buyer.solver("shop", "1", &[]).await;
    buyer.solver_is("shop", "Solved").await;
    let deny = Patch::Merge(json!({"spec": {"buyers": {"deny": [buyer.key.id().to_string()]}}}));
    seller.api::<SharingPolicy>().patch("p", &PatchParams::default(), &deny).await.unwrap();
    let told = until("the buyer knows why it does not go on", async || {
        let status = buyer.list::<Contract>().await[0].status.clone().unwrap_or_default();
        if status.renewal.is_empty() { Err(format!("{status:?}")) } else { Ok(status.renewal) }
    })
    .await;
    assert!(told.starts_with("not renewed: no sharing policy sells to did:key:"), "{told}");
    let known = buyer.list::<Contract>().await.remove(0);
    assert_eq!((known.spec.renewal, known.spec.renewal_asked), (None, None));
    // Sold again, it goes on.
    let admit = Patch::Merge(json!({"spec": {"buyers": null}}));
    seller.api::<SharingPolicy>().patch("p", &PatchParams::default(), &admit).await.unwrap();
    both_renewed(&buyer, &seller).await;
}
