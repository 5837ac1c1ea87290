//! What one sells and another sells on: three nodes over TLS, each with its own books.

use std::time::Duration;

use fluidos_identity::NodeKey;
use fluidos_model::kinds::{
    AcquisitionPolicy, Contract, PeeringCandidate, Reservation, SharingPolicy, Solver, Transaction,
};
use fluidos_model::market::CommitmentState;
use fluidos_rear as rear;
use jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{Node, until};

/// Sells at a price for a CPU and an hour; `reselling` is how it sells on.
async fn sells(node: &Node, amount: &str, reselling: Option<Value>) {
    let mut spec = json!({"price": {"amount": amount, "currency": "EUR", "period": "hour", "unit": "cpu"}});
    if let Some(reselling) = reselling {
        spec["reselling"] = reselling;
    }
    node.create::<SharingPolicy>(json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "SharingPolicy", "metadata": {"name": "standard"}, "spec": spec,
    }))
    .await;
}

/// May pay so much for an hour, also for what is sold on.
async fn pays(node: &Node, per_hour: &str) {
    node.create::<AcquisitionPolicy>(json!({
        "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "AcquisitionPolicy", "metadata": {"name": "household"},
        "spec": {"ceilings": [{"currency": "EUR", "perHour": per_hour}], "accepts": {"resold": true}},
    }))
    .await;
}

/// farm buys, broker sells on and has half a CPU itself, grid sells.
struct Chain {
    farm: Node,
    broker: Node,
    grid: Node,
}

impl Chain {
    async fn start() -> Self {
        let mut farm = Node::start(1, "farm", None).await;
        let broker = Node::start(2, "broker", Some(500)).await;
        let grid = Node::start(3, "grid", Some(4000)).await;
        farm.fabric();
        farm.know(&broker).await;
        broker.know(&grid).await;
        sells(&grid, "0.02", None).await;
        sells(&broker, "0.05", Some(json!({"margin": "10%"}))).await;
        Self { farm, broker, grid }
    }

    async fn policies(&self) {
        pays(&self.broker, "1").await;
        pays(&self.farm, "1").await;
    }
}

fn price(contract: &Contract) -> [String; 3] {
    let price = contract.spec.flavor.spec.price.clone();
    [price.amount, price.currency, price.period]
}

fn eur(amount: &str) -> [String; 3] {
    [amount.into(), "EUR".into(), "hour".into()]
}

/// The contracts that a node has sold, and those that it has bought.
async fn contracts(node: &Node) -> (Vec<Contract>, Vec<Contract>) {
    let own = node.key.id().to_string();
    let sells = |contract: &Contract| {
        contract.spec.seller.additional_information.as_ref().and_then(|more| more.did.clone()) == Some(own.clone())
    };
    node.list::<Contract>().await.into_iter().partition(sells)
}

/// Waits until a node has nothing of what it sold on, but what stands in the Ledger for itself.
async fn nothing_sold_on(node: &Node) {
    until(&format!("{} sells nothing on", node.name), async || {
        let mut left: Vec<String> = Vec::new();
        left.extend(node.list::<Solver>().await.iter().map(|solver| solver.metadata.name.clone().unwrap()));
        left.extend(node.list::<Reservation>().await.iter().map(|known| known.metadata.name.clone().unwrap()));
        left.extend(node.list::<Transaction>().await.iter().map(|known| known.metadata.name.clone().unwrap()));
        left.extend(node.list::<PeeringCandidate>().await.iter().map(|known| known.metadata.name.clone().unwrap()));
        left.extend(contracts(node).await.1.iter().map(|known| known.metadata.name.clone().unwrap()));
        let promised = node.ledger().await.commitments;
        left.extend(promised.iter().filter(|known| known.served_by.is_some()).map(|known| format!("{known:?}")));
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_has_not_it_buys_from_another_and_sells_on_with_its_margin() {
    let chain = Chain::start().await;
    chain.policies().await;
    let Chain { farm, broker, grid } = &chain;
    // Own capacity first, at the own price.
    farm.solver("small", "400m", &[]).await;
    farm.solver_is("small", "Solved").await;
    let (sold, bought) = contracts(broker).await;
    assert_eq!((sold.len(), bought.len(), sold[0].spec.served_by.clone()), (1, 0, None));
    assert_eq!(price(&sold[0]), eur("0.02"));
    assert!(grid.ledger().await.commitments.is_empty());

    // Two CPUs it has not.
    farm.solver("big", "2", &[("fluidos-intent-location", "Milan")]).await;
    farm.solver_is("big", "Solved").await;
    let (sold, bought) = contracts(broker).await;
    let sold = sold.iter().find(|contract| contract.spec.served_by.is_some()).unwrap();
    let [bought] = bought.try_into().unwrap();
    assert_eq!(sold.spec.served_by, bought.metadata.name);
    assert_eq!((price(&bought), price(sold)), (eur("0.04"), eur("0.044")), "two CPUs at 0.02, and 10 % on top");
    let mine = farm.api::<Contract>().get(sold.metadata.name.as_ref().unwrap()).await.unwrap();
    assert_eq!(mine.spec.signed_terms.as_ref().unwrap().payload, sold.spec.signed_terms.as_ref().unwrap().payload);
    assert_eq!(price(&mine), eur("0.044"));
    assert_eq!(mine.spec.served_by, None, "what serves it is not its buyer's business");
    let whole = serde_json::to_string(&mine).unwrap();
    let told =
        [&grid.name, &grid.key.id().to_string(), &grid.address.to_string(), bought.metadata.name.as_ref().unwrap()]
            .map(|word| whole.contains(word.as_str()));
    assert_eq!(told, [false; 4], "nor who does: {whole}");
    assert!(whole.contains(r#""resold":true"#), "that somebody does is: {whole}");
    assert!(sold.spec.expiration_time <= bought.spec.expiration_time, "nothing is sold for longer than it is bought");
    let promised = broker.ledger().await;
    assert_eq!(promised.free(Timestamp::now()).cpu_milli, 100, "what is sold on takes nothing of its own");
    let [behind] = grid.ledger().await.commitments.try_into().unwrap();
    assert_eq!((behind.amounts.cpu_milli, behind.buyer.clone()), (2000, broker.key.id().to_string()));
    let anchor = broker.list::<Solver>().await.remove(0);
    assert_eq!(anchor.status.unwrap().solver_phase.message, "bought, and sold on");

    // Its end is the end of what serves it.
    farm.delete_solver("big").await;
    nothing_sold_on(broker).await;
    until("grid has it back", async || {
        let left = grid.ledger().await.commitments;
        if left.is_empty() && contracts(grid).await.0.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(contracts(broker).await.0.len(), 1, "what it sells itself goes on");
    farm.delete_solver("small").await;
    for node in [farm, broker, grid] {
        node.empty().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_serves_a_contract_ends_and_so_does_the_contract_with_its_reason() {
    let chain = Chain::start().await;
    chain.policies().await;
    let Chain { farm, broker, grid } = &chain;
    farm.solver("big", "2", &[]).await;
    farm.solver_is("big", "Solved").await;
    let name = contracts(grid).await.0[0].metadata.name.clone().unwrap();
    grid.api::<Contract>().delete(&name, &DeleteParams::default()).await.unwrap();
    let message = farm.solver_is("big", "Failed").await;
    assert!(message.contains("has ended"), "{message}");
    assert!(farm.list::<Contract>().await.is_empty());
    let events = farm.list::<k8s_openapi::api::core::v1::Event>().await;
    let told = events.iter().filter_map(|event| event.message.as_ref());
    assert!(
        told.clone().any(|told| told.contains("what it was served with has ended")),
        "the buyer is told why: {:?}",
        told.collect::<Vec<_>>()
    );
    nothing_sold_on(broker).await;
    farm.delete_solver("big").await;
    for node in [farm, broker, grid] {
        node.empty().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sold_on_that_may_not_be_paid_or_that_the_buyer_does_not_want() {
    let chain = Chain::start().await;
    let Chain { farm, broker, grid } = &chain;
    pays(farm, "1").await;
    // Without a word about money nothing at a price is bought.
    farm.solver("none", "2", &[]).await;
    let message = farm.solver_is("none", "Failed").await;
    assert!(message.contains("broker: list: "), "{message}");
    assert!(message.contains("resale: ceiling: the seller may not pay what it costs elsewhere"), "{message}");
    assert!(!message.contains("household") && !message.contains("grid"), "whose word that is stays here: {message}");
    // 0.03 an hour are too little for two CPUs.
    pays(broker, "0.03").await;
    tokio::time::sleep(Duration::from_secs(5)).await; // so long it remembers what others said
    farm.solver("little", "2", &[]).await;
    let message = farm.solver_is("little", "Failed").await;
    assert!(message.contains("resale: ceiling: "), "{message}");
    farm.solver("less", "1", &[]).await;
    farm.solver_is("less", "Solved").await;
    // What is bought for somebody counts like all else: the rest of the ceiling is too little for the next.
    farm.solver("more", "600m", &[]).await;
    let message = farm.solver_is("more", "Failed").await;
    assert!(message.contains("resale: ceiling: "), "{message}");
    assert_eq!(grid.ledger().await.commitments.len(), 1);

    // A buyer that has not agreed to it does not buy what somebody else serves.
    let patch = Patch::Merge(json!({"spec": {"accepts": null}}));
    farm.api::<AcquisitionPolicy>().patch("household", &PatchParams::default(), &patch).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"ceilings": [{"currency": "EUR", "perHour": "1"}]}}));
    broker.api::<AcquisitionPolicy>().patch("household", &PatchParams::default(), &patch).await.unwrap();
    farm.solver("own", "1500m", &[]).await;
    let message = farm.solver_is("own", "Failed").await;
    assert!(message.contains("conditions: resold, needed what the seller serves itself"), "{message}");
    assert_eq!(grid.ledger().await.commitments.len(), 1, "nothing is held for who does not buy");
    for solver in ["none", "little", "less", "more", "own"] {
        farm.delete_solver(solver).await;
    }
    for node in [farm, broker, grid] {
        node.empty().await;
    }
}

/// A request for two CPUs, as another node would send it.
fn request(path: Option<rear::Envelope>) -> rear::ResourceRequest {
    let range =
        |name: &str, min: &str| rear::SelectorFilter::Range { name: name.into(), min: Some(min.into()), max: None };
    rear::ResourceRequest {
        flavor_type: rear::FlavorType::K8Slice,
        filters: vec![range("cpu", "2"), range("memory", "64Mi"), range("pods", "1")],
        intents: Default::default(),
        term_seconds: None,
        wait_millis: None,
        path,
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, rear::ClientError>) -> (rear::RefusalCode, String) {
    match answer {
        Err(rear::ClientError::Refused { refusal, .. }) => (refusal.code, refusal.detail),
        other => panic!("needed a refusal, observed {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_the_path_refuses_and_the_next_candidate_is_tried() {
    let mut farm = Node::start(1, "farm", Some(3000)).await;
    let broker = Node::start(2, "broker", None).await;
    let dealer = Node::start(4, "dealer", None).await;
    let grid = Node::start(3, "grid", Some(4000)).await;
    farm.fabric();
    // farm sells two CPUs cheaper than anybody; so the dealer would buy them, to sell them to who sells them to farm.
    farm.know(&broker).await;
    broker.know(&dealer).await;
    dealer.know(&farm).await;
    sells(&farm, "0.01", None).await;
    for node in [&broker, &dealer] {
        sells(node, "0.05", Some(json!({"margin": "10%"}))).await;
        pays(node, "1").await;
    }
    pays(&farm, "1").await;
    farm.solver("circle", "2", &[]).await;
    let message = farm.solver_is("circle", "Failed").await;
    assert!(message.contains("broker: list: "), "{message}");
    assert!(message.contains("resale: others were asked, and sell nothing that fits"), "{message}");
    assert!(farm.ledger().await.commitments.is_empty(), "nobody holds at farm what farm would buy");
    assert!(broker.list::<Solver>().await.is_empty() && dealer.list::<Solver>().await.is_empty());

    // With a seller that is not on the path the same need is met, through both.
    dealer.know(&grid).await;
    sells(&grid, "0.1", None).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    farm.solver("line", "2", &[]).await;
    farm.solver_is("line", "Solved").await;
    let [mine] = farm.list::<Contract>().await.try_into().unwrap();
    assert_eq!(price(&mine), eur("0.242"), "0.2, and 10 % on top, and again");
    assert_eq!(grid.ledger().await.commitments[0].buyer, dealer.key.id().to_string());
    assert_eq!(dealer.ledger().await.commitments[0].buyer, broker.key.id().to_string());
    farm.delete_solver("line").await;
    nothing_sold_on(&broker).await;
    nothing_sold_on(&dealer).await;
    grid.empty().await;

    // Word for word: farm is told of its own request by the dealer.
    let first = rear::Path::default().signed(&farm.key, dealer.key.id(), Timestamp::now()).unwrap();
    let seen = rear::Path::read(&first, farm.key.id(), &dealer.key, Timestamp::now()).unwrap();
    let back = seen.signed(&dealer.key, farm.key.id(), Timestamp::now()).unwrap();
    let (refusal, detail) = code(farm.rear(&dealer.key).request(&request(Some(back.clone()))).await);
    assert_eq!(refusal, rear::RefusalCode::Loop);
    assert!(detail.contains("this request has come through this node already, 2 hops ago"), "{detail}");
    let held = reservation(&farm.flavor_name(), "t", Some(back));
    let (refusal, _) = code(farm.rear(&dealer.key).reserve(&held).await);
    assert_eq!(refusal, rear::RefusalCode::Loop);
    assert!(farm.ledger().await.commitments.is_empty());
}

fn reservation(flavor: &str, transaction: &str, path: Option<rear::Envelope>) -> rear::ReserveRequest {
    let amounts =
        fluidos_model::market::Amounts { cpu_milli: 2000, memory_bytes: 64 << 20, pods: 1, ..Default::default() };
    let data = fluidos_model::kinds::Configuration::k8slice(&amounts).unwrap().data;
    rear::ReserveRequest {
        flavor_id: flavor.into(),
        buyer: rear::Party { node_id: "b".into(), liqo_id: Some("b".into()), ..rear::Party::default() },
        configuration: Some(rear::Configuration { flavor_type: rear::FlavorType::K8Slice, data }),
        transaction_id: Some(transaction.into()),
        term_seconds: None,
        path,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stands_too_far_behind_or_does_not_say_where_gets_nothing() {
    let chain = Chain::start().await;
    chain.policies().await;
    let (broker, buyer) = (&chain.broker, NodeKey::from_seed([9; 32]).unwrap());
    let client = broker.rear(&buyer);
    let denied = async |path: Option<rear::Envelope>| {
        client.request(&request(path)).await.unwrap().unwrap().denial.unwrap_or_else(|| "offered".into())
    };
    assert!(denied(None).await.contains("resale: the request has no path"), "who it comes from may be anybody");
    // The path of so many, of whom `buyer` is the last.
    let path = |seeds: &[u8], at: Timestamp| {
        let mut path = rear::Path::default();
        for pair in seeds.windows(2) {
            let [asker, asked] = [pair[0], pair[1]].map(|seed| NodeKey::from_seed([seed; 32]).unwrap());
            let sent = path.signed(&asker, asked.id(), at).unwrap();
            path = rear::Path::read(&sent, asker.id(), &asked, at).unwrap();
        }
        path.signed(&buyer, broker.key.id(), at).unwrap()
    };
    let now = Timestamp::now();
    // hopsMax is 2: A buyer whose buyer buys for somebody is one too many.
    let far = denied(Some(path(&[20, 21, 9], now))).await;
    assert!(far.contains("hops: 3 buyers stand one behind the other, needed at most 2"), "{far}");
    assert_eq!(denied(Some(path(&[20, 9], now))).await, "offered");
    // Recorded before, signed by another, of another.
    let late = code(client.request(&request(Some(path(&[20, 9], now - SignedDuration::from_secs(400))))).await);
    assert_eq!(late.0, rear::RefusalCode::Forbidden, "{late:?}");
    let thief = NodeKey::from_seed([10; 32]).unwrap();
    let stolen = code(broker.rear(&thief).request(&request(Some(path(&[20, 9], now)))).await);
    assert_eq!(stolen.0, rear::RefusalCode::Forbidden, "{stolen:?}");
    let mut forged = path(&[20, 9], now);
    forged.payload = path(&[9], now).payload;
    assert_eq!(code(client.request(&request(Some(forged))).await).0, rear::RefusalCode::Malformed);

    // What was offered to one is not held for another, nor without its path, nor in part.
    let offered = client.request(&request(Some(path(&[20, 9], now)))).await.unwrap().unwrap().offers.pop().unwrap();
    let name = offered.flavor.id.clone();
    let far = code(client.reserve(&reservation(&name, "t1", Some(path(&[20, 21, 9], now)))).await);
    assert!(far.1.contains("hops: 3"), "{far:?}");
    assert!(code(client.reserve(&reservation(&name, "t1", None)).await).1.contains("no path"));
    let foreign = code(broker.rear(&thief).reserve(&reservation(&name, "t1", None)).await);
    assert!(foreign.1.contains("what was offered is not known any more"), "{foreign:?}");
    let mut part = reservation(&name, "t1", Some(path(&[20, 9], now)));
    part.configuration.as_mut().unwrap().data["cpu"] = "1".into();
    let part = code(client.reserve(&part).await);
    assert!(part.1.contains("needed all of what was offered"), "{part:?}");
    assert!(broker.list::<Solver>().await.is_empty() && chain.grid.ledger().await.commitments.is_empty());

    // Held, it is held at both; given back, at neither.
    let asked = reservation(&name, "t1", Some(path(&[20, 9], now)));
    let held = client.reserve(&asked).await.unwrap();
    let again = client.reserve(&asked).await.unwrap();
    assert_eq!(held.terms, again.terms, "the same again is the same hold");
    let (mine, behind) = (broker.ledger().await.commitments, chain.grid.ledger().await.commitments);
    assert_eq!((mine.len(), behind.len()), (1, 1));
    assert!(mine[0].until() < behind[0].until(), "it ends here before it ends there");
    assert!(matches!(behind[0].state, CommitmentState::Held { .. }), "nothing is bought before it is sold");
    client.cancel("t1").await.unwrap();
    nothing_sold_on(broker).await;
    chain.grid.empty().await;

    // A buyer that holds as much as it may has nobody asked for more.
    for number in 0..16 {
        let small = reservation(&broker.flavor_name(), &format!("own{number}"), None);
        let mut small = rear::ReserveRequest { path: None, ..small };
        small.configuration.as_mut().unwrap().data["cpu"] = "1m".into();
        small.configuration.as_mut().unwrap().data["memory"] = "1Mi".into();
        client.reserve(&small).await.unwrap();
    }
    let full = code(client.reserve(&reservation(&name, "t2", Some(path(&[20, 9], now)))).await);
    assert_eq!(full.0, rear::RefusalCode::TooMany, "{full:?}");
    assert!(broker.list::<Solver>().await.is_empty() && chain.grid.ledger().await.commitments.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_that_rises_behind_the_quote_is_not_paid_and_its_margin_not_given_away() {
    let chain = Chain::start().await;
    chain.policies().await;
    let Chain { broker, grid, .. } = &chain;
    let buyer = NodeKey::from_seed([9; 32]).unwrap();
    let client = broker.rear(&buyer);
    let path = || Some(rear::Path::default().signed(&buyer, broker.key.id(), Timestamp::now()).unwrap());
    let offered = client.request(&request(path())).await.unwrap().unwrap().offers.pop().unwrap();
    assert_eq!(offered.price.amount, "0.044");
    let patch = Patch::Merge(json!({"spec": {"price": {"amount": "0.021"}}}));
    grid.api::<SharingPolicy>().patch("standard", &PatchParams::default(), &patch).await.unwrap();
    let refused = code(client.reserve(&reservation(&offered.flavor.id, "t1", path())).await);
    assert_eq!(refused.0, rear::RefusalCode::Conflict, "{refused:?}");
    assert!(refused.1.contains("resale: nobody holds it any more: 1 refused"), "{refused:?}");
    nothing_sold_on(broker).await;
    grid.empty().await;
    // Who else sells the same for no more is bought from instead, whichever of the two is asked first.
    let cloud = Node::start(5, "cloud", Some(4000)).await;
    sells(&cloud, "0.02", None).await;
    broker.know(&cloud).await;
    let costs = async |node: &Node, amount: &str| {
        let price = Patch::Merge(json!({"spec": {"price": {"amount": amount}}}));
        node.api::<SharingPolicy>().patch("standard", &PatchParams::default(), &price).await.unwrap();
    };
    for (dear, other, transaction) in [(grid, &cloud, "t2"), (&cloud, grid, "t3")] {
        costs(dear, "0.02").await;
        costs(other, "0.02").await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let offered = client.request(&request(path())).await.unwrap().unwrap().offers.pop().unwrap();
        assert_eq!(offered.price.amount, "0.044");
        costs(dear, "0.021").await;
        client.reserve(&reservation(&offered.flavor.id, transaction, path())).await.unwrap();
        let held = (dear.ledger().await.commitments.len(), other.ledger().await.commitments.len());
        assert_eq!(held, (0, 1), "{} does not hold it, {} does", dear.name, other.name);
        client.cancel(transaction).await.unwrap();
        nothing_sold_on(broker).await;
    }
    cloud.empty().await;
}
