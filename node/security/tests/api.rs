//! The manager over a real API server in process.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use fluidos_identity::{NodeKey, Speakers};
use fluidos_model::kinds::{
    AccessPolicy, Allocation, Contract, KnownCluster, ObservationKind, PolicyState, Rating, Reservation, crds, names,
};
use fluidos_security::policy::{Action, Circumstances, Flags, Goods, Resource};
use fluidos_security::{Handle, Options, Question};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
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

fn of<K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), names::NAMESPACE)
}

async fn create<K>(client: &Client, object: Value) -> K
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    of::<K>(client).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

fn did(seed: u8) -> String {
    NodeKey::from_seed([seed; 32]).unwrap().id().to_string()
}

async fn known(client: &Client, seed: u8, spec: Value) -> String {
    let id = NodeKey::from_seed([seed; 32]).unwrap().id();
    let mut whole = json!({"address": "192.0.2.1:7300", "did": id.to_string(), "name": format!("n{seed}")});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let name = names::known_cluster(&id.tag());
    create::<KnownCluster>(client, json!({
        "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster", "metadata": {"name": name}, "spec": whole,
    }))
    .await;
    name
}

async fn write_policy(client: &Client, name: &str, cedar: &str) {
    let policy = json!({
        "apiVersion": "security.fluidos.eu/v1alpha1", "kind": "AccessPolicy",
        "metadata": {"name": name}, "spec": {"cedar": cedar},
    });
    match of::<AccessPolicy>(client).get_opt(name).await.unwrap() {
        None => drop(create::<AccessPolicy>(client, policy).await),
        Some(_) => {
            let change = Patch::Merge(json!({"spec": {"cedar": cedar}}));
            of::<AccessPolicy>(client).patch(name, &PatchParams::default(), &change).await.unwrap();
        }
    }
}

async fn policy_is(client: &Client, name: &str, state: PolicyState, message: &str) {
    until(&format!("policy {name} is {state:?}"), async || {
        let status = of::<AccessPolicy>(client).get(name).await.unwrap().status.unwrap_or_default();
        let right = status.state == Some(state) && status.message.contains(message);
        if right { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

async fn trust_is(client: &Client, name: &str, trust: &str, policy: &str) {
    until(&format!("{name} is {trust} by {policy}"), async || {
        let known = of::<KnownCluster>(client).get(name).await.unwrap();
        let by = known.annotations().get(names::ANNOTATION_TRUST_POLICY).cloned().unwrap_or_default();
        let seen = format!("{:?} by {by}", known.spec.trust);
        if seen == format!("Some({trust}) by {policy}") { Ok(()) } else { Err(seen) }
    })
    .await;
}

fn buys(handle: &Handle, peer: Option<&str>) -> Result<String, String> {
    let resource = Resource::Flavor(Box::default());
    let context = Circumstances::at(Timestamp::now());
    let decision = handle.decide(Question { action: Action::Buy, peer, resource, context });
    if decision.allowed { Ok(decision.reason) } else { Err(decision.reason) }
}

#[tokio::test]
async fn flags_become_policies_and_policies_decide_who_is_trusted() {
    let client = api().await;
    let named = known(&client, 1, json!({"source": "Static"})).await;
    let found = known(&client, 2, json!({"source": "Multicast"})).await;
    let by_hand = known(&client, 3, json!({"trust": "Trusted"})).await;
    let flags = Flags { offers: true, known: true, ..Flags::default() };
    let (handle, keep) = fluidos_security::start(Options {
        client: client.clone(),
        caches: Caches::new(client.clone()),
        flags,
        speakers: Speakers::default(),
    })
    .await
    .unwrap();
    assert_eq!(buys(&handle, Some(&did(9))).unwrap(), "policy offer/sell permits Buy", "before anything runs");
    assert_eq!(buys(&handle, None).unwrap_err(), "no policy permits Buy");
    let keeping = tokio::spawn(keep);
    policy_is(&client, "offer", PolicyState::InForce, "").await;
    trust_is(&client, &named, "Trusted", "trust/known").await;
    trust_is(&client, &found, "Untrusted", "none").await;
    trust_is(&client, &by_hand, "Trusted", "trust/hand").await;

    // A policy of the owner counts at once, for trust and for sales.
    write_policy(
        &client,
        "no-n1",
        r#"@reason("not them") forbid (principal, action, resource) when { principal.name == "n1" };"#,
    )
    .await;
    policy_is(&client, "no-n1", PolicyState::InForce, "").await;
    trust_is(&client, &named, "Untrusted", "no-n1").await;
    assert_eq!(buys(&handle, Some(&did(1))).unwrap_err(), "policy no-n1 forbids Buy: not them");
    assert!(buys(&handle, Some(&did(2))).is_ok());

    // What is written about a peer counts for a question that was answered a moment ago.
    assert!(buys(&handle, Some(&did(4))).is_ok(), "nothing is known of it");
    known(&client, 4, json!({"name": "n1", "source": "Static"})).await;
    let denied = until("the answer follows", async || match buys(&handle, Some(&did(4))) {
        Err(reason) => Ok(reason),
        Ok(reason) => Err(reason),
    });
    assert_eq!(denied.await, "policy no-n1 forbids Buy: not them");

    // A text with a fault changes nothing, and says where it is.
    write_policy(&client, "no-n1", "permit (principal,\n  action, resorce);").await;
    policy_is(&client, "no-n1", PolicyState::Refused, "line 2").await;
    assert!(buys(&handle, Some(&did(1))).is_err());
    // Also not after a restart.
    keeping.abort();
    let flags = Flags { offers: true, lan: true, ..Flags::default() };
    let (handle, keep) = fluidos_security::start(Options {
        client: client.clone(),
        caches: Caches::new(client.clone()),
        flags,
        speakers: Speakers::default(),
    })
    .await
    .unwrap();
    let keeping = tokio::spawn(keep);
    assert!(buys(&handle, Some(&did(1))).is_err(), "what was accepted before is in force");
    trust_is(&client, &found, "Trusted", "trust/lan").await;
    // Whatever somebody writes there: the policies say it.
    let change = Patch::Merge(json!({"spec": {"trust": "Untrusted"}}));
    of::<KnownCluster>(&client).patch(&found, &PatchParams::default(), &change).await.unwrap();
    trust_is(&client, &found, "Trusted", "trust/lan").await;

    assert_eq!(handle.counts()[&("no-n1".to_owned(), false)], 1, "{:?}", handle.counts());
    of::<AccessPolicy>(&client).delete("no-n1", &DeleteParams::default()).await.unwrap();
    until("the policy is gone", async || buys(&handle, Some(&did(1)))).await;
    // Without its first rule nobody buys.
    of::<AccessPolicy>(&client).delete("offer", &DeleteParams::default()).await.unwrap();
    until("nothing is sold", async || match buys(&handle, Some(&did(1))) {
        Err(_) => Ok(()),
        Ok(reason) => Err(reason),
    })
    .await;
    keeping.abort();
}

/// What is answered about buying from whoever is at an address without a key.
fn acquires(handle: &Handle, address: &str) -> Result<String, String> {
    let decision = handle.acquire(address.parse().unwrap(), Goods::default(), Circumstances::at(Timestamp::now()));
    if decision.allowed { Ok(decision.reason) } else { Err(decision.reason) }
}

#[tokio::test]
async fn an_official_node_sells_here_only_where_the_owner_has_named_it_and_a_policy_permits_it() {
    let client = api().await;
    let (caches, speakers) = (Caches::new(client.clone()), Speakers::default());
    let options = Options { client: client.clone(), caches, flags: Flags::default(), speakers };
    let (handle, keep) = fluidos_security::start(options).await.unwrap();
    let keeping = tokio::spawn(keep);
    known(&client, 1, json!({"trust": "Trusted"})).await;
    create::<KnownCluster>(
        &client,
        json!({
            "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster", "metadata": {"name": "turin"},
            "spec": {"address": "192.0.2.9:30001", "plain": true},
        }),
    )
    .await;
    let denied = until("it is known", async || match acquires(&handle, "192.0.2.9:30001") {
        Err(reason) if reason == "no policy permits Acquire" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    denied.await;
    let cedar = r#"permit (principal, action == Action::"Acquire", resource) when { !principal.proven && principal.name == "turin" };"#;
    write_policy(&client, "turin", cedar).await;
    let permitted = until("the policy permits it", async || acquires(&handle, "192.0.2.9:30001")).await;
    assert_eq!(permitted, "policy turin permits Acquire");
    // Nobody else, whatever is permitted, and whoever is trusted by key.
    write_policy(&client, "all", "permit (principal, action, resource);").await;
    policy_is(&client, "all", PolicyState::InForce, "").await;
    for other in ["192.0.2.9:30002", "192.0.2.1:7300"] {
        assert_eq!(acquires(&handle, other).unwrap_err(), format!("no KnownCluster with `plain: true` names {other}"));
    }
    assert_eq!(handle.counts()[&("turin".to_owned(), true)], 1, "{:?}", handle.counts());
    keeping.abort();
}

#[tokio::test]
async fn a_policy_that_names_a_key_goes_on_with_its_successor_from_the_moment_of_the_hand_over() {
    let client = api().await;
    let speakers = Speakers::default();
    let caches = Caches::new(client.clone());
    let options = Options { client: client.clone(), caches, flags: Flags::default(), speakers: speakers.clone() };
    let (handle, keep) = fluidos_security::start(options).await.unwrap();
    let keeping = tokio::spawn(keep);
    let text = format!("permit (principal == Peer::\"{}\", action == Action::\"Buy\", resource);", did(1));
    write_policy(&client, "farm", &text).await;
    policy_is(&client, "farm", PolicyState::InForce, "").await;
    until("it is in force", async || buys(&handle, Some(&did(1)))).await;
    assert_eq!(buys(&handle, Some(&did(2))).unwrap_err(), "no policy permits Buy");

    let key = |seed: u8| NodeKey::from_seed([seed; 32]).unwrap().id();
    let now = |current: u8| {
        let standing = fluidos_identity::Standing::Current(key(current));
        speakers.set((1..=current).map(|seed| (key(seed), standing.clone())).collect(), Default::default());
    };
    now(3);
    assert_eq!(buys(&handle, Some(&did(3))).unwrap(), "policy farm permits Buy");
    assert!(buys(&handle, Some(&did(1))).unwrap_err().contains("was handed over to"));
    // The next texts follow from the start, and so does the next key.
    write_policy(&client, "farm", &format!("// again\n{text}")).await;
    until("it is taken", async || {
        let said = of::<AccessPolicy>(&client).get("farm").await.unwrap().status.unwrap_or_default().accepted;
        if said.starts_with("// again") { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(buys(&handle, Some(&did(3))).unwrap(), "policy farm permits Buy");
    now(4);
    assert_eq!(buys(&handle, Some(&did(4))).unwrap(), "policy farm permits Buy");
    keeping.abort();
}

fn party(did: &str) -> Value {
    json!({"domain": "x", "ip": "192.0.2.1:7300", "nodeID": "x", "additionalInformation": {"did": did}})
}

fn flavor(owner: &str) -> Value {
    json!({"metadata": {"name": "f", "namespace": "fluidos"}, "spec": {
        "providerID": "x", "owner": party(owner), "availability": true,
        "price": {"amount": "", "currency": "", "period": ""},
        "flavorType": {"typeIdentifier": "K8Slice", "typeData": {}}}})
}

async fn contract(client: &Client, name: &str, buyer: &str, seller: &str, finalizers: Value) {
    create::<Contract>(
        client,
        json!({
            "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Contract",
            "metadata": {"name": name, "finalizers": finalizers},
            "spec": {"flavor": flavor(seller), "transactionID": "t", "buyer": party(buyer), "seller": party(seller),
                     "buyerClusterID": buyer, "expirationTime": "2999-01-01T00:00:00Z",
                     "peeringTargetCredentials": {"liqoID": "", "kubeconfig": ""}},
        }),
    )
    .await;
}

async fn seen_of(client: &Client, peer: &str) -> Vec<ObservationKind> {
    let ratings = of::<Rating>(client).list(&Default::default()).await.unwrap().items;
    let status = ratings.into_iter().find(|rating| rating.spec.did == peer).and_then(|rating| rating.status);
    let mut kinds: Vec<_> = status.unwrap_or_default().observations.iter().map(|seen| seen.kind).collect();
    kinds.sort();
    kinds
}

async fn kinds_are(client: &Client, peer: &str, wanted: &[ObservationKind]) {
    until(&format!("{wanted:?} was seen"), async || {
        let seen = seen_of(client, peer).await;
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn what_is_seen_of_a_peer_is_kept_as_its_rating() {
    use ObservationKind::*;
    let client = api().await;
    let (own, good, stranger) = (NodeKey::from_seed([7; 32]).unwrap().id(), did(1), did(2));
    let entry = known(&client, 1, json!({"source": "Multicast"})).await;
    let other = known(&client, 2, json!({"source": "Multicast"})).await;
    let rating = tokio::spawn(fluidos_security::rating::run(client.clone(), own));
    for name in [&entry, &other] {
        let link = json!({"state": "Up", "since": "2026-01-01T00:00:00Z", "roundTripMicros": 900});
        let up = Patch::Merge(json!({"status": {"link": link}}));
        of::<KnownCluster>(&client).patch_status(name, &PatchParams::default(), &up).await.unwrap();
    }
    create::<Reservation>(&client, json!({
        "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Reservation", "metadata": {"name": "r"},
        "spec": {"solverID": "s", "buyer": party(&own.to_string()), "seller": party(&good), "reserve": true, "purchase": true},
    }))
    .await;
    let solved = json!({"phase": {"phase": "Solved"}, "reservePhase": "Solved", "purchasePhase": "Solved"});
    let patch = Patch::Merge(json!({ "status": solved }));
    of::<Reservation>(&client).patch_status("r", &PatchParams::default(), &patch).await.unwrap();
    kinds_are(&client, &good, &[OfferHonoured, LinkUp]).await;
    let status = of::<Rating>(&client).get(&entry).await.unwrap().status.unwrap();
    assert_eq!((status.shown.as_str(), status.round_trip_micros), ("68", Some(900)), "{status:?}");

    contract(&client, "contract-1", &own.to_string(), &good, json!([])).await;
    create::<Allocation>(
        &client,
        json!({
            "apiVersion": "nodecore.fluidos.eu/v1alpha1", "kind": "Allocation",
            "metadata": {"name": "allocation-1", "labels": {names::LABEL_CONTRACT: "contract-1"}},
            "spec": {"contract": {"name": "contract-1", "namespace": "fluidos"}, "forwarding": false},
        }),
    )
    .await;
    let active = Patch::Merge(json!({"status": {"status": "Active", "lastUpdateTime": "", "message": ""}}));
    of::<Allocation>(&client).patch_status("allocation-1", &PatchParams::default(), &active).await.unwrap();
    kinds_are(&client, &good, &[OfferHonoured, Delivered, LinkUp]).await;

    // One that we end is first marked as ending; one whose seller ends it just goes.
    contract(&client, "contract-2", &own.to_string(), &good, json!([names::FINALIZER_RELEASE])).await;
    let contracts = of::<Contract>(&client);
    contracts.delete("contract-2", &DeleteParams::default()).await.unwrap();
    let told = Patch::Merge(json!({"metadata": {"finalizers": []}}));
    contracts.patch("contract-2", &PatchParams::default(), &told).await.unwrap();
    let uid = async |name: &str| contracts.get(name).await.unwrap().uid().unwrap();
    let by_seller = uid("contract-1").await;
    contracts.delete("contract-1", &DeleteParams::default()).await.unwrap();
    kinds_are(&client, &good, &[OfferHonoured, Delivered, ContractBroken, LinkUp]).await;
    // Deletions are seen in their order: the second one was not held against its seller.
    let rating_of = of::<Rating>(&client);
    let seen = rating_of.get(&entry).await.unwrap().status.unwrap().observations;
    let broken: Vec<_> = seen.iter().filter(|seen| seen.kind == ContractBroken).map(|seen| &seen.id).collect();
    assert_eq!(broken, [&by_seller]);
    let status = of::<Rating>(&client).get(&entry).await.unwrap().status.unwrap();
    assert_eq!((status.shown.as_str(), status.count), ("38", 4), "{status:?}");
    // Who was only met on the network has no rating; and what we sell to somebody says nothing about it.
    assert_eq!(seen_of(&client, &stranger).await, []);
    rating.abort();

    // After a restart the same objects add nothing.
    let rating = tokio::spawn(fluidos_security::rating::run(client.clone(), own));
    let once_more =
        json!({"phase": {"phase": "Failed", "message": "gone"}, "reservePhase": "Failed", "purchasePhase": "Idle"});
    create::<Reservation>(
        &client,
        json!({
            "apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Reservation", "metadata": {"name": "r2"},
            "spec": {"solverID": "s", "buyer": party(&own.to_string()), "seller": party(&good), "reserve": true},
        }),
    )
    .await;
    let patch = Patch::Merge(json!({ "status": once_more }));
    of::<Reservation>(&client).patch_status("r2", &PatchParams::default(), &patch).await.unwrap();
    kinds_are(&client, &good, &[OfferHonoured, OfferRefused, Delivered, ContractBroken, LinkUp]).await;
    rating.abort();
}
