//! Pods that make others leave, over a real API server in process.
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::world::{add_node, add_pod, cluster, pods, until};

async fn add_class(client: &Client, name: &str, value: i32, policy: &str) {
    let class = json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": policy});
    let classes: Api<PriorityClass> = Api::all(client.clone());
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
}

fn asks(cpu: &str, class: &str) -> Value {
    let containers = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]);
    json!({"containers": containers, "priorityClassName": class})
}

async fn status(client: &Client, name: &str) -> String {
    serde_json::to_string(&pods(client).get(name).await.unwrap().status).unwrap()
}

async fn on(client: &Client, name: &str) -> Option<String> {
    pods(client).get(name).await.unwrap().spec.unwrap().node_name
}

async fn bound(client: &Client, name: &str, node: &str) {
    until(name, async || match on(client, name).await {
        Some(at) if at == node => Ok(()),
        other => Err(format!("{other:?} {}", status(client, name).await)),
    })
    .await;
}

async fn begin() -> (Client, tokio::task::JoinSet<()>) {
    let (client, tasks) = cluster().await;
    for (name, value, policy) in
        [("flt-low", 1, "PreemptLowerPriority"), ("flt-high", 1000, "PreemptLowerPriority"), ("flt-shy", 1000, "Never")]
    {
        add_class(&client, name, value, policy).await;
    }
    add_node(&client, "a").await;
    (client, tasks)
}

#[tokio::test]
async fn the_victim_is_told_and_leaves_with_grace_and_the_room_is_kept_for_whom_it_was_made() {
    let (client, _tasks) = begin().await;
    for name in ["flt-one", "flt-two"] {
        add_pod(&client, name, asks("2", "flt-low")).await;
        bound(&client, name, "a").await;
    }
    add_pod(&client, "flt-vip", asks("2", "flt-high")).await;
    let victim = until("a victim leaves", async || {
        let all = pods(&client).list(&Default::default()).await.unwrap().items;
        let leaving: Vec<&Pod> = all.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some()).collect();
        match leaving[..] {
            [one] => Ok(one.clone()),
            _ => Err(format!("{} leave; {}", leaving.len(), status(&client, "flt-vip").await)),
        }
    })
    .await;
    let said = serde_json::to_string(&victim.status).unwrap();
    assert!(said.contains("DisruptionTarget") && said.contains("PreemptionByScheduler"), "{said}");
    until("it is nominated", async || {
        let said = status(&client, "flt-vip").await;
        let right = said.contains(r#""nominatedNodeName":"a""#) && said.contains("1 Insufficient cpu.");
        if right { Ok(()) } else { Err(said) }
    })
    .await;
    // Less important, and would fit as soon as the victim has left.
    add_pod(&client, "flt-late", asks("2", "flt-low")).await;
    until("the late one is told", async || {
        let said = status(&client, "flt-late").await;
        if said.contains("Unschedulable") { Ok(()) } else { Err(said) }
    })
    .await;
    let name = victim.metadata.name.clone().unwrap();
    pods(&client).delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    bound(&client, "flt-vip", "a").await;
    assert_eq!(on(&client, "flt-late").await, None);
    let left = pods(&client).list(&Default::default()).await.unwrap().items;
    assert_eq!(left.len(), 3, "one victim is enough: {left:?}");
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let vip = pods(&client).get("flt-vip").await.unwrap().metadata.uid.unwrap();
    until("the event", async || {
        let all = events.list(&Default::default()).await.unwrap().items;
        let told = all.iter().filter(|event| event.reason.as_deref() == Some("Preempted"));
        let told: Vec<_> = told.map(|event| (event.involved_object.name.clone(), event.message.clone())).collect();
        let wanted = (Some(name.clone()), Some(format!("Preempted by pod {vip} on node a")));
        if told == [wanted] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

#[tokio::test]
async fn who_may_not_preempt_waits() {
    let (client, _tasks) = begin().await;
    add_pod(&client, "flt-one", asks("4", "flt-low")).await;
    bound(&client, "flt-one", "a").await;
    add_pod(&client, "flt-shy", asks("2", "flt-shy")).await;
    until("it says why", async || {
        let said = status(&client, "flt-shy").await;
        let words =
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
    assert!(pods(&client).get("flt-one").await.unwrap().metadata.deletion_timestamp.is_none());
}
