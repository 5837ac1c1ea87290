//! `metrics.k8s.io`: what kubelets say, for whom it is asked. The kubelets are this test.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use substrate_apiserver::node_proxy::{Error, NodeProxy};

use crate::support;
use crate::support::Api;

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

/// A machine that says this of itself; nothing is a node that is no machine.
struct Machine(Option<Value>);

#[async_trait]
impl NodeProxy for Machine {
    async fn read(&self, path: &str) -> Result<Option<(&'static str, String)>, Error> {
        assert_eq!(path, "stats/summary");
        let said = self.0.as_ref().ok_or_else(|| Error::NotImplemented("no machine".into()))?;
        Ok(Some(("application/json", said.to_string())))
    }
}

/// What was measured; a rate is not known at first.
fn measured(nanos: Option<u64>, bytes: u64) -> Value {
    let mut cpu = json!({ "time": "2026-01-02T03:04:05Z", "usageCoreNanoSeconds": 1 });
    if let Some(nanos) = nanos {
        (cpu["usageNanoCores"], cpu["usageWindowMilliseconds"]) = (nanos.into(), 15_012.into());
    }
    json!({ "cpu": cpu, "memory": { "workingSetBytes": bytes } })
}

async fn pod(api: &Api, name: &str, node: &str) -> Value {
    let mut pod = support::pod(name);
    pod["spec"]["nodeName"] = node.into();
    pod["metadata"]["labels"] = json!({ "app": name });
    let (code, made) = api.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{made}");
    made["metadata"]["uid"].clone()
}

async fn world() -> Api {
    let api = support::api().await;
    for node in ["m1", "m2", "far"] {
        let object = json!({ "metadata": { "name": node, "labels": { "kind": node } } });
        assert_eq!(api.post("/api/v1/nodes", object).await.0, 201);
    }
    let (web, new, far) = (pod(&api, "web", "m1").await, pod(&api, "new", "m1").await, pod(&api, "away", "far").await);
    let said = |uid: &Value, containers: &[(&str, Option<u64>)]| {
        let container = |(name, nanos): &(&str, Option<u64>)| {
            let mut of = measured(*nanos, 3 << 20);
            of["name"] = (*name).into();
            of
        };
        json!({ "podRef": { "uid": uid }, "containers": containers.iter().map(container).collect::<Vec<_>>() })
    };
    let pods = [said(&web, &[("a", Some(7_000_000)), ("b", Some(5))]), said(&new, &[("a", Some(1)), ("b", None)])];
    api.proxies
        .register("m1", Arc::new(Machine(Some(json!({ "node": measured(Some(250_000_000), 1 << 30), "pods": pods })))));
    api.proxies.register(
        "m2",
        Arc::new(Machine(Some(json!({ "node": measured(None, 1 << 30), "pods": [said(&far, &[("a", Some(1))])] })))),
    );
    api.proxies.register("far", Arc::new(Machine(None)));
    api
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_has_a_rate_is_listed() {
    let api = world().await;
    let (code, nodes) = api.get(&format!("{METRICS}/nodes")).await;
    assert_eq!((code, names(&nodes), &nodes["kind"]), (200, vec!["m1"], &json!("NodeMetricsList")));
    let node = &nodes["items"][0];
    assert_eq!(node["usage"], json!({ "cpu": "250000000n", "memory": "1048576Ki" }));
    assert_eq!((&node["timestamp"], &node["window"]), (&json!("2026-01-02T03:04:05Z"), &json!("15.012s")));
    assert_eq!((&node["kind"], &node["metadata"]["labels"]["kind"]), (&json!("NodeMetrics"), &json!("m1")));

    let (_, pods) = api.get(&format!("{METRICS}/pods")).await;
    assert_eq!(names(&pods), ["web"], "one is not known whole, one is on no machine");
    let (code, web) = api.get(&format!("{METRICS}/namespaces/default/pods/web")).await;
    assert_eq!(
        (code, &web["containers"][1]),
        (200, &json!({ "name": "b", "usage": { "cpu": "5n", "memory": "3072Ki" } }))
    );
    assert_eq!(web["metadata"]["namespace"], "default");
    for (query, expected) in [
        ("labelSelector=app%3Dweb", 1),
        ("labelSelector=app%3Dnew", 0),
        ("fieldSelector=metadata.name%3Dweb", 1),
        ("fieldSelector=metadata.name%3Dnone", 0),
    ] {
        let (_, list) = api.get(&format!("{METRICS}/namespaces/default/pods?{query}")).await;
        assert_eq!(names(&list).len(), expected, "{query}");
    }
    for path in ["nodes/m2", "nodes/none", "namespaces/default/pods/new", "namespaces/other/pods/web"] {
        let (code, told) = api.get(&format!("{METRICS}/{path}")).await;
        assert_eq!((code, &told["details"]["group"]), (404, &json!("metrics.k8s.io")), "{path}");
    }
    assert_eq!(names(&api.get(&format!("{METRICS}/namespaces/other/pods")).await.1), Vec::<&str>::new());
    assert_eq!(api.post(&format!("{METRICS}/nodes"), json!({})).await.0, 405);
    assert_eq!(api.get(&format!("{METRICS}/nodes?watch=true")).await.0, 405);
}

#[tokio::test]
async fn it_is_found_shown_and_allowed() {
    let api = world().await;
    let (_, found) = api.get(METRICS).await;
    let found: Vec<_> =
        found["resources"].as_array().unwrap().iter().map(|r| (r["name"].clone(), r["verbs"].clone())).collect();
    assert_eq!(found, [(json!("nodes"), json!(["get", "list"])), (json!("pods"), json!(["get", "list"]))]);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = api.raw(http::Method::GET, &format!("{METRICS}/namespaces/default/pods"), &accept, "").await;
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let table: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["web", "7000005n", "6144Ki", "15.012s"]));
    // By `view`, to which the role is added.
    let binding = json!({ "metadata": { "name": "ada" }, "roleRef": { "kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io" },
        "subjects": [{ "kind": "User", "name": "ada", "apiGroup": "rbac.authorization.k8s.io" }] });
    let ada = api.asked_by("ada", &[]);
    assert_eq!(ada.get(&format!("{METRICS}/nodes")).await.0, 403);
    assert_eq!(api.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.0, 201);
    assert_eq!(ada.get(&format!("{METRICS}/nodes")).await.0, 200);
}
