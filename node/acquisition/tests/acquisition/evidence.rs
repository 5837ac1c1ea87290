//! How well it must be known what a seller says of itself: real nodes, REAR over TLS on loopback.

use fluidos_model::intent::INTENT_EVIDENCE;
use fluidos_model::kinds::{Flavor, KnownCluster};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::Node;

/// What discovery writes of a node that has shown its credentials.
async fn introduced(buyer: &Node, seller: &Node, level: &str) {
    let evidence = json!([{"name": "country", "value": "Italy", "level": level, "until": "2100-01-01T00:00:00Z"}]);
    let status = json!({"expirationTime": "", "lastUpdateTime": "", "identity": {"evidence": evidence}});
    let name = format!("knowncluster-{}", seller.name);
    let patch = Patch::Merge(json!({ "status": status }));
    buyer.api::<KnownCluster>().patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seller_is_bought_from_once_it_is_known_well_enough_where_it_is() {
    let (mut buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.fabric();
    let place = Patch::Merge(json!({"spec": {"location": {"city": "Milan", "country": "Italy"}}}));
    seller.api::<Flavor>().patch(&seller.flavor_name(), &PatchParams::default(), &place).await.unwrap();
    buyer.know(&seller).await;
    introduced(&buyer, &seller, "Claimed").await;
    let intents = [("fluidos-intent-location", "Italy"), (INTENT_EVIDENCE, "location=audited")];
    buyer.solver("doubts", "1", &intents).await;
    let told = buyer.solver_is("doubts", "Failed").await;
    assert_eq!(told, "grid: list: location: Milan, Italy (claimed), needed Italy (audited)");

    introduced(&buyer, &seller, "Audited").await;
    buyer.solver("believes", "1", &intents).await;
    buyer.solver_is("believes", "Solved").await;

    // What nobody can vouch for is said before anybody is asked.
    buyer.solver("confused", "1", &[("fluidos-intent-cpu", "1"), (INTENT_EVIDENCE, "cpu=audited")]).await;
    let told = buyer.solver_is("confused", "Failed").await;
    assert!(told.contains("nobody vouches for that"), "{told}");
}
