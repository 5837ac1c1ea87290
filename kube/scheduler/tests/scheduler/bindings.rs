//! The scheduler over a real API server in process.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use substrate_apiserver::admission::{Admission, Request};
use substrate_apiserver::status::Status;
use substrate_scheduler::{FitStrategy, Guarantee, Options, Profile, Resources};
use tokio::sync::watch;

use crate::world::{add_node, add_pod, by_node, cluster, cluster_by, cluster_of, cluster_with, pods, until};

#[tokio::test]
async fn a_burst_fills_the_nodes_exactly_and_the_rest_waits_for_room() {
    let (client, _tasks) = cluster().await;
    for node in ["a", "b", "c"] {
        add_node(&client, node).await;
    }
    for number in 0..14 {
        add_pod(&client, &format!("p-{number}"), json!({})).await;
    }
    until("twelve fit", async || {
        let counts = by_node(&client).await;
        let right = ["a", "b", "c"].iter().all(|node| counts.get(*node) == Some(&4)) && counts.get("") == Some(&2);
        if right { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    until("the others say why not", async || {
        let all = pods(&client).list(&Default::default()).await.unwrap().items;
        let said = all.iter().filter(|pod| pod.spec.as_ref().unwrap().node_name.is_none());
        let said: Vec<_> =
            said.map(|pod| serde_json::to_string(&pod.status.as_ref().unwrap().conditions).unwrap()).collect();
        let words = "0/3 nodes are available: 3 Insufficient cpu.";
        let right = said.len() == 2 && said.iter().all(|text| text.contains(words) && text.contains("Unschedulable"));
        if right { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    add_node(&client, "d").await;
    until("the new node takes them", async || {
        let counts = by_node(&client).await;
        if counts.get("d") == Some(&2) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    until("it is told", async || {
        let all = events.list(&Default::default()).await.unwrap().items;
        let of = |reason: &str| all.iter().filter(|event| event.reason.as_deref() == Some(reason)).count();
        if (of("Scheduled"), of("FailedScheduling")) == (14, 2) {
            Ok(())
        } else {
            Err(format!("{} {}", of("Scheduled"), of("FailedScheduling")))
        }
    })
    .await;
    let all = pods(&client).list(&Default::default()).await.unwrap().items;
    let scheduled =
        |pod: &Pod| serde_json::to_string(&pod.status).unwrap().contains(r#""status":"True","type":"PodScheduled""#);
    assert!(all.iter().all(scheduled), "{:?}", all.iter().map(|pod| &pod.status).collect::<Vec<_>>());
}

/// Never answers who makes an event.
struct NoEvents;

#[async_trait::async_trait]
impl Admission for NoEvents {
    async fn admit(&self, request: &Request<'_>, _: &mut Value) -> Result<(), Status> {
        if request.plural == "events" {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn no_binding_waits_for_an_event() {
    let (client, _tasks) = cluster_of(Options::default(), vec![Arc::new(NoEvents)]).await;
    for node in 0..20 {
        add_node(&client, &format!("flt-{node}")).await;
    }
    // More than there may be requests on their way at a time.
    for number in 0..70 {
        add_pod(&client, &format!("p-{number}"), json!({})).await;
    }
    until("all are bound", async || match by_node(&client).await.get("") {
        None => Ok(()),
        waiting => Err(format!("{waiting:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_gate_holds_a_pod_until_it_is_opened() {
    let (client, _tasks) = cluster().await;
    add_node(&client, "a").await;
    add_pod(&client, "gated", json!({"schedulingGates": [{"name": "x.io/plan"}]})).await;
    add_pod(&client, "other", json!({"schedulerName": "somebody"})).await;
    add_pod(&client, "free", json!({})).await;
    until("the free one is bound, the gate is told", async || {
        let counts = by_node(&client).await;
        let gated = serde_json::to_string(&pods(&client).get("gated").await.unwrap().status).unwrap();
        let right =
            counts == BTreeMap::from([("a".to_owned(), 1), (String::new(), 2)]) && gated.contains("SchedulingGated");
        if right { Ok(()) } else { Err(format!("{counts:?} {gated}")) }
    })
    .await;
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    pods(&client).patch("gated", &PatchParams::default(), &open).await.unwrap();
    until("it is bound", async || {
        let counts = by_node(&client).await;
        if counts == BTreeMap::from([("a".to_owned(), 2), (String::new(), 1)]) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
}

/// One scheduler for two names, one of which fills nodes.
#[tokio::test]
async fn each_name_has_its_profile() {
    let mut full = Profile::named("flt-full");
    full.fit = FitStrategy::MostAllocated;
    full.weights.insert("NodeResourcesBalancedAllocation".into(), 0);
    let (client, _tasks) = cluster_by(Options { profiles: vec![Profile::default(), full], ..Options::default() }).await;
    add_node(&client, "a").await;
    add_node(&client, "b").await;
    let pin = json!({"nodeSelector": null, "nodeName": "b"});
    add_pod(&client, "there", pin).await;
    let on =
        async |name: &str| pods(&client).get(name).await.unwrap().spec.unwrap().node_name.ok_or("waits".to_owned());
    add_pod(&client, "fills", json!({"schedulerName": "flt-full"})).await;
    assert_eq!(until("it is bound", async || on("fills").await).await, "b");
    add_pod(&client, "spreads", json!({})).await;
    assert_eq!(until("it is bound", async || on("spreads").await).await, "a");
    add_pod(&client, "too-large", json!({"schedulerName": "flt-full", "nodeSelector": {"no": "such"}})).await;
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    until("it is told in that name", async || {
        let all = events.list(&Default::default()).await.unwrap().items;
        let from = |event: &Event| event.source.as_ref().and_then(|source| source.component.clone());
        let said = all.iter().filter(|event| event.reason.as_deref() == Some("FailedScheduling")).map(from);
        let said: Vec<_> = said.collect();
        if said == [Some("flt-full".to_owned())] { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
}

#[tokio::test]
async fn what_is_guaranteed_is_kept_until_it_is_not_and_who_waited_is_woken_by_that() {
    let (told, guarantees) = watch::channel(None);
    let (client, _tasks) = cluster_with(Some(guarantees)).await;
    add_node(&client, "a").await;
    add_pod(&client, "early", json!({})).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let bound = by_node(&client).await;
    assert_eq!(bound, BTreeMap::from([(String::new(), 1)]), "nothing before it is known what is guaranteed");
    let amounts = Resources([("cpu".to_owned(), "3".parse().unwrap())].into());
    let labels = vec![("tenant".to_owned(), "x".to_owned())];
    told.send_replace(Some([Guarantee { name: "contract-1".into(), labels, amounts }].into()));
    until("the first one is bound", async || match by_node(&client).await.get("a") {
        Some(1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    add_pod(&client, "own", json!({})).await;
    until("another waits, and says what for", async || {
        let status = serde_json::to_string(&pods(&client).get("own").await.unwrap().status).unwrap();
        let words = "cpu: 0 free, needed 1, 3 kept for 1 guarantee(s): contract-1";
        if status.contains(words) && status.contains("Unschedulable") { Ok(()) } else { Err(status) }
    })
    .await;
    let spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]});
    let guest = json!({"metadata": {"name": "guest", "labels": {"tenant": "x"}}, "spec": spec});
    pods(&client).create(&PostParams::default(), &serde_json::from_value(guest).unwrap()).await.unwrap();
    until("for whom it is kept runs", async || match by_node(&client).await.get("a") {
        Some(2) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    until("it has been tried again, and waits for less", async || {
        let status = serde_json::to_string(&pods(&client).get("own").await.unwrap().status).unwrap();
        if status.contains("1 kept for 1 guarantee(s)") { Ok(()) } else { Err(status) }
    })
    .await;
    // What that has written is heard.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Nothing else changes, and the next try without a change is five minutes away.
    told.send_replace(Some([].into()));
    until("what was kept is taken", async || match by_node(&client).await.get("a") {
        Some(3) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
