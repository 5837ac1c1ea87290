//! The manager over a real API server in process.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fluidos_identity::NodeKey;
use fluidos_model::kinds::{Flavor, Ledger, LedgerSpec, NodeIdentity, SharingPolicy, crds, names};
use fluidos_model::market::{Amounts, HoldRequest, Location, Pool};
use fluidos_resources::Options;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::PostParams;
use kube::{Api, Client};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_store::Store;

/// Much longer than anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

async fn api() -> Client {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    let client = substrate_client::in_process(server.as_user(User::new("admin", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    client
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => panic!("{what}: not within {DEADLINE:?}; last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn price(client: &Client) -> [String; 4] {
    let flavors = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE).list(&Default::default()).await.unwrap();
    let price = flavors.items[0].spec.price.clone();
    [price.amount, price.currency, price.period, price.unit]
}

async fn flavor_is(client: &Client, what: &str, cpu: &str, available: bool) {
    let api = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    until(what, async || {
        let flavors = api.list(&Default::default()).await.unwrap().items;
        let seen: Vec<_> = flavors
            .iter()
            .map(|flavor| (flavor.spec.k8slice().unwrap().characteristics.cpu.0, flavor.spec.availability))
            .collect();
        if seen == [(cpu.to_owned(), available)] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_flavor_follows_the_ledger_and_goes_with_the_offer() {
    let client = api().await;
    let node = NodeKey::from_seed([7; 32]).unwrap().id();
    let offer = Amounts { cpu_milli: 2000, memory_bytes: 1 << 30, pods: 10, ..Amounts::default() };
    let options = Options {
        node,
        identity: NodeIdentity {
            domain: "grid.example".into(),
            node_id: node.tag(),
            ip: "192.0.2.1:7300".into(),
            additional_information: None,
        },
        offer: Some(offer.clone()),
        location: Location::default(),
        architecture: "amd64".into(),
        speakers: fluidos_identity::Speakers::default(),
    };
    let running = tokio::spawn(fluidos_resources::run(client.clone(), options.clone()));
    let ledgers = Api::<Ledger>::namespaced(client.clone(), names::NAMESPACE);
    let mut pool = Pool { capacity: offer.clone(), commitments: vec![] };
    let mut ledger =
        ledgers.create(&PostParams::default(), &Ledger::new(names::LEDGER, LedgerSpec::from(&pool))).await.unwrap();
    flavor_is(&client, "whole offer", "2", true).await;

    let now = Timestamp::now();
    let hold = HoldRequest {
        transaction: "t1".into(),
        buyer: "did:key:z".into(),
        flavor: "f".into(),
        amounts: offer,
        until: now + SignedDuration::from_secs(1),
        agreed: None,
    };
    pool = pool.hold(&hold, now).unwrap();
    ledger.spec = LedgerSpec::from(&pool);
    ledgers.replace(names::LEDGER, &PostParams::default(), &ledger).await.unwrap();
    flavor_is(&client, "all is held", "0", false).await;
    flavor_is(&client, "the hold is over by itself", "2", true).await;

    let policy = serde_json::from_value(serde_json::json!({
        "price": {"amount": "0.02", "currency": "EUR", "period": "hour", "unit": "cpu"}, "limits": {"cpu": "1"},
    }));
    let policies = Api::<SharingPolicy>::namespaced(client.clone(), names::NAMESPACE);
    let policy = SharingPolicy::new("dear", policy.unwrap());
    assert_eq!(price(&client).await, ["0", "", "", ""], "without a policy it is given away, and that is stated");
    policies.create(&PostParams::default(), &policy).await.unwrap();
    flavor_is(&client, "a policy limits it at once", "1", true).await;
    assert_eq!(price(&client).await, ["0.02", "EUR", "hour", "cpu"]);
    policies.delete("dear", &Default::default()).await.unwrap();
    flavor_is(&client, "and its end too", "2", true).await;

    let identity = Api::<ConfigMap>::namespaced(client.clone(), names::NAMESPACE);
    let identity = identity.get(names::IDENTITY_CONFIG_MAP).await.unwrap().data.unwrap();
    assert_eq!((identity["domain"].as_str(), identity["port"].as_str()), ("grid.example", "7300"));

    running.abort();
    let running = tokio::spawn(fluidos_resources::run(client.clone(), Options { offer: None, ..options }));
    let flavors = Api::<Flavor>::namespaced(client.clone(), names::NAMESPACE);
    until("the flavor is withdrawn", async || {
        let left = flavors.list(&Default::default()).await.unwrap().items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} flavors")) }
    })
    .await;
    running.abort();
}
