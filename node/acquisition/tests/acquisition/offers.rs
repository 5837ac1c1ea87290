//! Packages of fixed size: listed in pages to whom they are for, and bought as they are. Real nodes, REAR over TLS on loopback.

use fluidos_identity::NodeKey;
use fluidos_model::kinds::{Contract, Flavor, Offer, SharingPolicy, Solver, names};
use fluidos_rear as rear;
use fluidos_rear::{ClientError, RefusalCode};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::Node;

/// What the Local Resource Manager makes of an Offer: it is accepted, and there is a Flavor of each plan.
async fn sells(node: &Node, offer: &str, policy: Option<&str>, plans: &[(&str, &str, Option<&str>)]) {
    let price = |amount: &str| json!({"amount": amount, "currency": "EUR", "period": "hour"});
    let plan = |(name, cpu, amount): &(&str, &str, Option<&str>)| {
        json!({"name": name, "description": format!("{cpu} CPUs"), "price": amount.map(price),
               "resources": {"cpu": cpu, "memory": "1Gi", "pods": 10}})
    };
    let plans_of: Vec<Value> = plans.iter().map(plan).collect();
    node.create::<Offer>(json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Offer", "metadata": {"name": offer},
        "spec": {"description": "for the web", "sharingPolicy": policy, "plans": plans_of},
    }))
    .await;
    let status = Patch::Merge(json!({"status": {"accepted": true, "message": "", "flavors": []}}));
    node.api::<Offer>().patch_status(offer, &PatchParams::default(), &status).await.unwrap();
    for (plan, cpu, _) in plans {
        let name = names::plan_flavor(&node.options.identity.domain, &node.key.id().tag(), offer, plan);
        let mut flavor = json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Flavor", "metadata": {"name": name},
            "spec": {
                "providerID": node.key.id().tag(), "owner": node.options.identity, "availability": true,
                "price": {"amount": "", "currency": "", "period": ""},
                "flavorType": {"typeIdentifier": "K8Slice", "typeData": {
                    "characteristics": {"architecture": "amd64", "cpu": cpu, "memory": "1Gi", "pods": "10"},
                    "policies": {"partitionability": {"cpuMin": cpu, "memoryMin": "1Gi", "podsMin": "10"}},
                    "properties": {"additionalProperties": {"plan": format!("{offer}/{plan}")}}}},
            },
        });
        flavor["spec"]["owner"]["additionalInformation"] = json!({"did": node.key.id().to_string()});
        node.create::<Flavor>(flavor).await;
    }
}

fn told(page: &rear::OffersPage) -> Vec<String> {
    let plan = |offer: &rear::Offer, plan: &rear::OfferedPlan| {
        let (price, cpu) = (&plan.flavor.price.amount, &plan.flavor.data["characteristics"]["cpu"]);
        format!("{}/{}: {} at {price}, {}", offer.id, plan.name, cpu.as_str().unwrap_or("?"), plan.flavor.availability)
    };
    page.offers.iter().flat_map(|offer| offer.plans.iter().map(move |of| plan(offer, of))).collect()
}

async fn policy(node: &Node, name: &str, spec: Value) {
    node.create::<SharingPolicy>(json!({"apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "SharingPolicy",
        "metadata": {"name": name}, "spec": spec}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_are_listed_in_pages_to_whom_they_are_for() {
    let seller = Node::start(2, "grid", Some(4000)).await;
    let (farm, mill) = (NodeKey::from_seed([1; 32]).unwrap(), NodeKey::from_seed([3; 32]).unwrap());
    let price = json!({"amount": "0.02", "currency": "EUR", "period": "hour", "unit": "cpu"});
    policy(&seller, "standard", json!({"price": price})).await;
    policy(&seller, "z-friends", json!({"price": price, "buyers": {"allow": [farm.id().to_string()]}})).await;
    sells(&seller, "web", None, &[("small", "1", None), ("large", "8", Some("0.1"))]).await;
    sells(&seller, "club", Some("z-friends"), &[("one", "2", Some("0.01"))]).await;

    let page = seller.rear(&farm).list_offers(&rear::OffersQuery::default()).await.unwrap().unwrap();
    assert_eq!(told(&page), ["club/one: 2 at 0.01, true", "web/small: 1 at 0.02, true", "web/large: 8 at 0.1, false"]);
    assert_eq!((page.offers[1].description.as_str(), page.next), ("for the web", None));
    let page = seller.rear(&mill).list_offers(&rear::OffersQuery::default()).await.unwrap().unwrap();
    assert_eq!(told(&page), ["web/small: 1 at 0.02, true", "web/large: 8 at 0.1, false"], "the club is not for it");

    let one = rear::OffersQuery { limit: 1, after: None };
    let first = seller.rear(&farm).list_offers(&one).await.unwrap().unwrap();
    assert_eq!((told(&first), first.next.as_deref()), (vec!["club/one: 2 at 0.01, true".to_owned()], Some("club")));
    let rest = rear::OffersQuery { limit: 1, after: first.next };
    let rest = seller.rear(&farm).list_offers(&rest).await.unwrap().unwrap();
    assert_eq!((told(&rest).len(), rest.next), (2, None));
    // They are flavors, too, and the one that is cut as it is wanted is there beside them.
    let listed = seller.rear(&mill).list_flavors(&rear::Selector::default()).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed[0].id == seller.flavor_name(), "it comes first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_is_bought_whole_at_its_own_price() {
    let (buyer, seller) = (Node::start(1, "farm", None).await, Node::start(2, "grid", Some(4000)).await);
    buyer.know(&seller).await;
    sells(&seller, "web", None, &[("small", "1", Some("0.5")), ("large", "3", Some("0"))]).await;
    let filters = |plan: &str| json!({"planFilter": {"name": "Match", "data": {"value": plan}}});
    let solver = async |name: &str, plan: &str| {
        buyer
            .create::<Solver>(json!({
                "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Solver", "metadata": {"name": name},
                "spec": {"intentID": name, "findCandidate": true, "reserveAndBuy": true,
                         "selector": {"flavorType": "K8Slice", "filters": filters(plan)}},
            }))
            .await;
    };
    solver("large", "web/large").await;
    buyer.solver_is("large", "Solved").await;
    let bought = buyer.list::<Contract>().await.remove(0).spec;
    assert_eq!(bought.configuration.unwrap().amounts().unwrap().to_string(), "cpu 3, memory 1Gi, pods 10");
    assert_eq!(bought.flavor.metadata.name, format!("grid.example-k8slice-{}-web.large", seller.key.id().tag()));
    // Its price is more than who has no AcquisitionPolicy pays.
    solver("small", "web/small").await;
    let message = buyer.solver_is("small", "Failed").await;
    assert!(message.contains("price: 0.5 EUR/hour, needed 0"), "{message}");
    // There is one CPU left.
    solver("again", "web/large").await;
    let message = buyer.solver_is("again", "Failed").await;
    assert!(message.contains("nothing can be bought"), "{message}");
    solver("none", "web/huge").await;
    let message = buyer.solver_is("none", "Failed").await;
    assert!(message.contains("plan: web/small offered, needed web/huge"), "{message}");

    let held = |id: &str, cpu: Option<&str>| rear::ReserveRequest {
        flavor_id: format!("grid.example-k8slice-{}-web.small", seller.key.id().tag()),
        buyer: rear::Party { node_id: "b".into(), ..rear::Party::default() },
        configuration: cpu.map(|cpu| rear::Configuration {
            flavor_type: rear::FlavorType::K8Slice,
            data: json!({"cpu": cpu, "memory": "1Gi", "pods": "10"}),
        }),
        transaction_id: Some(id.into()),
        term_seconds: None,
        path: None,
    };
    let refused = seller.rear(&buyer.key).reserve(&held("t1", Some("500m"))).await.unwrap_err();
    let ClientError::Refused { refusal, .. } = refused else { panic!("{refused}") };
    assert_eq!(refusal.code, RefusalCode::Conflict);
    let needed =
        "plan web/small: cpu 500m, memory 1Gi, pods 10 asked for, needed all of it: cpu 1, memory 1Gi, pods 10";
    assert!(refusal.detail.starts_with(needed), "{}", refusal.detail);
    let transaction = seller.rear(&buyer.key).reserve(&held("t2", None)).await.unwrap();
    assert_eq!(transaction.configuration.unwrap().data["cpu"], "1", "without a size it is all of it");
    assert_eq!(seller.ledger().await.commitments.len(), 2);
    // An offer that is gone sells nothing, even before its flavors follow.
    seller.api::<Offer>().delete("web", &Default::default()).await.unwrap();
    let refused = seller.rear(&buyer.key).reserve(&held("t3", None)).await.unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused { refusal, .. } if refusal.code == RefusalCode::NotFound),
        "{refused}"
    );
}
