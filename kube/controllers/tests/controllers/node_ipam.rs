//! Nodes get ranges of addresses for their pods, over a real API server in process, with the rights that the controller has.
use k8s_openapi::api::core::v1::{Event, Node};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;
use substrate_controllers::{Options, PodRange, Ranges};

use crate::world::{until, world};

#[tokio::test]
async fn nodes_get_ranges_and_who_gets_none_is_told_so() {
    let of = |v4: &str, v6: Option<&str>| PodRange { v4: v4.to_owned(), v6: v6.map(str::to_owned) };
    let ranges = Ranges {
        reserved: [("own".to_owned(), of("10.1.0.0/21", Some("fd00:1::/80")))].into(),
        pool: vec![of("10.1.8.0/24", None)],
        not_for: Some("flt/virtual".to_owned()),
    };
    let world = world(Options { node_ranges: Some(ranges), ..Options::default() }).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let create =
        async |node| nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let range = async |name: &str, expected: Option<&str>| {
        until(&format!("{name} has {expected:?}"), async || {
            let found = nodes.get(name).await.unwrap().spec.unwrap_or_default();
            let all = (found.pod_cidr.as_deref(), found.pod_cidrs.as_deref().and_then(<[String]>::first).cloned());
            if all == (expected, expected.map(str::to_owned)) { Ok(()) } else { Err(format!("{all:?}")) }
        })
        .await;
    };
    create(json!({ "metadata": { "name": "elsewhere", "labels": { "flt/virtual": "true" } } })).await;
    create(json!({ "metadata": { "name": "first" } })).await;
    range("first", Some("10.1.8.0/24")).await;
    create(json!({ "metadata": { "name": "own" } })).await;
    range("own", Some("10.1.0.0/21")).await;
    let both = async |name: &str| nodes.get(name).await.unwrap().spec.unwrap().pod_cidrs.unwrap();
    assert_eq!(both("own").await, ["10.1.0.0/21", "fd00:1::/80"]);
    assert_eq!(both("first").await, ["10.1.8.0/24"], "who has none of the other family reserved has one range");
    create(json!({ "metadata": { "name": "late" } })).await;
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    until("it is told", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let told = all.iter().filter(|event| event.reason.as_deref() == Some("CIDRNotAvailable"));
        let told: Vec<_> = told.map(|event| (event.involved_object.name.clone(), event.message.clone())).collect();
        let expected = (Some("late".to_owned()), Some("Node late status is now: CIDRNotAvailable".to_owned()));
        if told == [expected] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    range("late", None).await;
    range("elsewhere", None).await;
    nodes.delete("first", &DeleteParams::default()).await.unwrap();
    range("late", Some("10.1.8.0/24")).await;
}
