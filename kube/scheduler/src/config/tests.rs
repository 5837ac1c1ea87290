#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::json;

use super::*;
use crate::{View, schedule_by};

fn configuration(profile: Value) -> Value {
    json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration", "profiles": [profile]})
}

/// `a` is half full, `b` a quarter and cordoned softly, `c` empty and cordoned.
fn chosen(profile: Value) -> String {
    let node = |name: &str, spec: Value| -> Arc<Node> {
        let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9"}});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap())
    };
    let pod = |name: &str, on: Option<&str>, cpu: &str, memory: &str| -> Arc<Pod> {
        let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]);
        let spec = json!({"nodeName": on, "containers": containers});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).unwrap())
    };
    let options = match Options::configured(configuration(profile)) {
        Ok(options) => options,
        Err(error) => return error.to_string(),
    };
    let nodes = [
        node("a", json!({})),
        node("b", json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]})),
        node("c", json!({"unschedulable": true})),
    ];
    let running = [pod("x", Some("a"), "2", "4Gi"), pod("y", Some("b"), "1", "2Gi")];
    let view = View::new(nodes, running, []);
    let profile = Arc::new(options.profiles[0].clone());
    schedule_by(&view, &pod("p", None, "100m", "200Mi"), &profile).map_or_else(|e| e.to_string(), |choice| choice.node)
}

fn check(profile: Value, expected: Expect) {
    expected.assert_eq(&chosen(profile));
}

#[test]
fn what_is_configured_decides() {
    let fit = |strategy: Value| {
        json!({"plugins": {"score": {"disabled": [{"name": "TaintToleration"}]}},
            "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}}]})
    };
    check(json!({}), expect!["a"]);
    check(json!({"plugins": {"score": {"disabled": [{"name": "TaintToleration"}]}}}), expect!["b"]);
    check(json!({"plugins": {"multiPoint": {"disabled": [{"name": "NodeUnschedulable"}]}}}), expect!["c"]);
    check(fit(json!({"type": "MostAllocated"})), expect!["a"]);
    let ratio = |first: i64, last: i64| {
        let shape = json!([{"utilization": 0, "score": first}, {"utilization": 100, "score": last}]);
        let resources = json!([{"name": "cpu", "weight": 3}, {"name": "memory", "weight": 1}]);
        json!({"type": "RequestedToCapacityRatio", "resources": resources, "requestedToCapacityRatio": {"shape": shape}})
    };
    check(fit(ratio(0, 10)), expect!["a"]);
    check(fit(ratio(10, 0)), expect!["b"]);
    let heavier = json!({"plugins": {"score": {"enabled": [{"name": "NodeResourcesFit", "weight": 20}]}}});
    check(heavier, expect!["b"]);
}

#[test]
fn what_is_not_known_is_refused_by_its_name() {
    check(
        json!({"plugins": {"filter": {"disabled": [{"name": "Magic"}]}}}),
        expect![[r#"scheduler configuration: there is no plug-in "Magic""#]],
    );
    check(
        json!({"pluginConfig": [{"name": "NodeAffinity", "args": {}}]}),
        expect![[r#"scheduler configuration: plug-in "NodeAffinity" is not configured here"#]],
    );
    let strategy = json!({"scoringStrategy": {"type": "Best"}});
    check(
        json!({"pluginConfig": [{"name": "NodeResourcesFit", "args": strategy}]}),
        expect![[r#"scheduler configuration: there is no scoring strategy "Best""#]],
    );
    let args = json!({"defaultConstraints": [], "defaulting": "List"});
    check(
        json!({"pluginConfig": [{"name": "PodTopologySpread", "args": args}]}),
        expect![
            "scheduler configuration: unknown field `defaulting`, expected one of `apiVersion`, `kind`, `defaultConstraints`, `defaultingType`"
        ],
    );
    let mut other = configuration(json!({}));
    other["apiVersion"] = json!("kubescheduler.config.k8s.io/v1beta3");
    let words = Options::configured(other).unwrap_err().to_string();
    assert_eq!(
        words,
        "scheduler configuration: kubescheduler.config.k8s.io/v1beta3 KubeSchedulerConfiguration is not known"
    );
    let mut twice = configuration(json!({"schedulerName": "x"}));
    twice["profiles"] = json!([{"schedulerName": "x"}, {"schedulerName": "x"}]);
    assert!(Options::configured(twice).unwrap_err().to_string().contains("each of another schedulerName"));
}
