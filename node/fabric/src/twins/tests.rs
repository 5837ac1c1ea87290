#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::sweep::{Idle, View, plan};

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn labels(contract: &str) -> Value {
    json!({"reservation.fluidos.eu/contract": contract})
}

fn twin(name: &str, contract: &str, map: &str) -> Pod {
    from(
        json!({"metadata": {"name": name, "namespace": "twin-1-shop", "labels": labels(contract), "annotations": {"fluidos.eu/origin": format!("shop/{name}/{name}")}},
        "spec": {"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": map}}]}]}}),
    )
}

struct Stage {
    pods: Vec<Pod>,
    namespaces: Vec<Namespace>,
    maps: Vec<ConfigMap>,
    secrets: Vec<Secret>,
    idle: Idle,
}

impl Stage {
    fn check(&mut self, live: &[&str], second: i64, expected: Expect) {
        let view = View {
            live: live.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
            pods: self.pods.iter().collect(),
            namespaces: self.namespaces.iter().collect(),
            config_maps: self.maps.iter().collect(),
            secrets: self.secrets.iter().collect(),
        };
        let plan = plan(&view, &mut self.idle, Timestamp::from_second(second).unwrap());
        let pods = plan.pods.iter().map(|o| o.name_any());
        let maps = plan.config_maps.iter().map(|o| o.name_any());
        let secrets = plan.secrets.iter().map(|o| o.name_any());
        let namespaces = plan.namespaces.iter().map(|o| o.name_any());
        let all: Vec<String> = pods.chain(maps).chain(secrets).chain(namespaces).collect();
        expected.assert_eq(&all.join(" "));
    }
}

#[test]
fn what_no_live_contract_needs_goes_and_what_may_be_needed_at_once_waits() {
    let own: Pod = from(json!({"metadata": {"name": "own", "namespace": "twin-1-shop", "labels": labels("gone")}}));
    let mut stage = Stage {
        pods: vec![twin("a", "one", "used"), twin("b", "two", "other"), own],
        namespaces: vec![
            from(
                json!({"metadata": {"name": "twin-1-shop", "labels": labels("one"), "annotations": {"fluidos.eu/peer-did": "d"}}}),
            ),
            from(json!({"metadata": {"name": "mine", "labels": labels("one")}})),
        ],
        maps: ["used", "other", "stale"]
            .map(|name| from(json!({"metadata": {"name": name, "namespace": "twin-1-shop", "labels": labels("one")}})))
            .into(),
        secrets: vec![from(json!({"metadata": {"name": "mine", "namespace": "twin-1-shop"}}))],
        idle: Idle::new(),
    };
    stage.check(&["one", "two"], 0, expect![""]);
    stage.check(&["one", "two"], 9, expect![""]);
    stage.check(&["one", "two"], 10, expect!["stale"]);
    // The other contract of the same consumer goes on in the same namespace.
    stage.check(&["two"], 11, expect!["a stale"]);
    stage.pods.remove(0);
    stage.check(&["two"], 12, expect!["stale"]);
    stage.check(&["two"], 22, expect!["used stale"]);
    stage.check(&[], 23, expect!["b used stale"]);
    stage.pods.remove(0);
    stage.check(&[], 24, expect!["twin-1-shop"]);
}
