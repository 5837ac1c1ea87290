//! A service that one sells and another sells on: configured by who uses it, checked at both, at one's own price.

use fluidos_model::kinds::{AcquisitionPolicy, Contract, Flavor, SharingPolicy, Solver};
use fluidos_rear as rear;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::service::{sells, solver};
use crate::support::{Node, until};

/// farm buys, broker sells on and has nothing itself, grid sells a cache.
struct Chain {
    farm: Node,
    broker: Node,
    grid: Node,
    /// As grid calls it.
    flavor: String,
}

impl Chain {
    async fn start() -> Self {
        let mut farm = Node::start(1, "farm", None).await;
        let broker = Node::start(2, "broker", None).await;
        let grid = Node::start(3, "grid", Some(1000)).await;
        farm.fabric();
        farm.know(&broker).await;
        broker.know(&grid).await;
        let price = |amount: &str| json!({"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"});
        let policy = async |node: &Node, spec: Value| {
            let api = "nodecore.fluidos.eu/v1alpha1";
            let object =
                json!({"apiVersion": api, "kind": "SharingPolicy", "metadata": {"name": "standard"}, "spec": spec});
            node.create::<SharingPolicy>(object).await;
        };
        policy(&grid, json!({"price": price("0.02")})).await;
        policy(&broker, json!({"price": price("0.05"), "reselling": {"margin": "10%"}})).await;
        for node in [&farm, &broker] {
            node.create::<AcquisitionPolicy>(json!({
                "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "AcquisitionPolicy", "metadata": {"name": "household"},
                "spec": {"ceilings": [{"currency": "EUR", "perHour": "1"}], "accepts": {"resold": true}},
            }))
            .await;
        }
        let flavor = sells(&grid).await;
        Self { farm, broker, grid, flavor }
    }

    async fn empty(&self) {
        for node in [&self.farm, &self.broker, &self.grid] {
            node.empty().await;
        }
        until("no Solver is left at broker", async || {
            let left = self.broker.list::<Solver>().await.len();
            if left == 0 { Ok(()) } else { Err(left.to_string()) }
        })
        .await;
    }
}

fn price(contract: &Contract) -> String {
    contract.spec.flavor.spec.price.amount.clone()
}

fn memory(contract: &Contract) -> Value {
    contract.spec.configuration.as_ref().unwrap().service().unwrap().configuration_data["memory"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_bought_elsewhere_and_sold_on_as_it_is_configured() {
    let chain = Chain::start().await;
    let Chain { farm, broker, grid, flavor } = &chain;
    solver(farm, "cache", "redis", json!({"memory": "32mb"})).await;
    farm.solver_is("cache", "Solved").await;
    let mine = farm.list::<Contract>().await.remove(0);
    let at_broker = broker.list::<Contract>().await;
    let (sold, bought) = at_broker.iter().partition::<Vec<_>, _>(|contract| contract.spec.served_by.is_some());
    let (sold, bought, behind) = (sold[0], bought[0], grid.list::<Contract>().await.remove(0));
    assert_eq!(sold.spec.served_by, bought.metadata.name);
    assert_eq!(behind.metadata.name, bought.metadata.name);
    for contract in [&mine, sold, bought, &behind] {
        assert_eq!(memory(contract), "32mb");
    }
    assert_eq!((price(bought), price(&mine)), ("0.005".into(), "0.0055".into()), "a quarter of a CPU, and 10 % on top");
    assert_eq!(bought.spec.flavor.metadata.name, *flavor);
    let whole = serde_json::to_string(&mine).unwrap();
    for word in [&grid.name, &grid.key.id().to_string(), bought.metadata.name.as_ref().unwrap(), flavor] {
        assert!(!whole.contains(word.as_str()), "who is behind is not its buyer's business: {word} in {whole}");
    }
    assert!(whole.contains(r#""resold":true"#) && mine.spec.flavor.spec.service().unwrap().blueprint.is_empty());
    let promised = broker.ledger().await.commitments.remove(0);
    assert_eq!(promised.amounts.to_string(), "cpu 250m, memory 64Mi, pods 1", "as large as is signed behind");
    assert_eq!(promised.served_by, bought.metadata.name);
    assert_eq!(broker.ledger().await.free(Timestamp::now()).cpu_milli, 0, "of nothing of its own");

    farm.delete_solver("cache").await;
    chain.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_configured_so_is_held_nowhere() {
    let chain = Chain::start().await;
    let Chain { farm, broker, grid, .. } = &chain;
    solver(farm, "wrong", "redis", json!({"memory": "32mb; FLUSHALL"})).await;
    let message = farm.solver_is("wrong", "Failed").await;
    assert!(message.contains("broker: reserve: configurationData.memory: "), "{message}");
    solver(farm, "other", "mysql", json!({"memory": "32mb"})).await;
    let message = farm.solver_is("other", "Failed").await;
    assert!(message.contains("resale: others were asked, and sell nothing that fits"), "{message}");
    assert!(grid.ledger().await.commitments.is_empty() && broker.list::<Solver>().await.is_empty());

    // Word for word.
    let client = broker.rear(&farm.key);
    let path = || Some(rear::Path::default().signed(&farm.key, broker.key.id(), Timestamp::now()).unwrap());
    let tag = rear::SelectorFilter::Match { name: "tags".into(), value: "redis".into() };
    let request = rear::ResourceRequest {
        flavor_type: rear::FlavorType::Service,
        filters: vec![tag],
        intents: Default::default(),
        term_seconds: None,
        wait_millis: None,
        path: path(),
    };
    let offered = client.request(&request).await.unwrap().unwrap().offers.remove(0).flavor;
    let services = rear::Selector { flavor_type: Some(rear::FlavorType::Service), filters: Vec::new() };
    let listed = client.list_flavors(&services).await.unwrap();
    assert!(listed.iter().any(|flavor| flavor.id == offered.id), "so long it is offered it is listed: {listed:?}");
    let slices = rear::Selector { flavor_type: Some(rear::FlavorType::K8Slice), filters: Vec::new() };
    assert!(client.list_flavors(&slices).await.unwrap().is_empty());
    let reserve = |configured: Option<Value>| rear::ReserveRequest {
        flavor_id: offered.id.clone(),
        buyer: rear::Party { node_id: "b".into(), ..rear::Party::default() },
        configuration: configured.map(|configured| rear::Configuration {
            flavor_type: rear::FlavorType::Service,
            data: json!({"configurationData": configured}),
        }),
        transaction_id: Some("t".into()),
        term_seconds: None,
        path: path(),
    };
    let refused = async |request: rear::ReserveRequest| match client.reserve(&request).await {
        Err(rear::ClientError::Refused { refusal, .. }) => refusal.detail,
        other => panic!("{other:?}"),
    };
    assert!(refused(reserve(None)).await.contains("memory"));
    let password = refused(reserve(Some(json!({"memory": "32mb", "password": "mine"})))).await;
    assert!(password.contains("configurationData.password: needed none"), "{password}");
    assert!(grid.ledger().await.commitments.is_empty());
    let held = client.reserve(&reserve(Some(json!({"memory": "32mb"})))).await.unwrap();
    assert_eq!(client.reserve(&reserve(Some(json!({"memory": "32mb"})))).await.unwrap().terms, held.terms);
    for other in [Some(json!({"memory": "64mb"})), None] {
        let refused = refused(reserve(other)).await;
        assert!(refused.contains("exists with other content"), "{refused}");
    }
    assert_eq!(grid.ledger().await.commitments.len(), 1);
    client.cancel("t").await.unwrap();
    farm.delete_solver("wrong").await;
    farm.delete_solver("other").await;
    chain.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_leads_in_a_circle_is_not_followed() {
    let chain = Chain::start().await;
    let Chain { farm, grid, flavor, .. } = &chain;
    let circle = json!({"type": "object", "properties": {"memory": {"type": "string"}}, "allOf": [{"$ref": "#"}]});
    let patch = json!({"spec": {"flavorType": {"typeData": {"configurationTemplate": circle}}}});
    grid.api::<Flavor>().patch(flavor, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    solver(farm, "cache", "redis", json!({"memory": "32mb"})).await;
    let message = farm.solver_is("cache", "Failed").await;
    assert!(message.contains("$ref in the schema of another seller, needed none"), "{message}");
    assert!(grid.ledger().await.commitments.is_empty());
    farm.delete_solver("cache").await;
    chain.empty().await;
}
