#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

/// `p owner word…`: `ready`, `leaving`; the owner is `-` for none.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split(' ').collect();
    let ready = if words.contains(&"ready") { "True" } else { "False" };
    let mut pod = json!({"metadata": {"name": words[0], "labels": {"app": "web"}}, "spec": {"containers": []},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    if words[1] != "-" {
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": words[1], "uid": words[1], "controller": true}]);
    }
    if words.contains(&"leaving") {
        pod["metadata"]["deletionTimestamp"] = NOW.into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// Owners want as many as their name ends with; `lost` is unknown.
fn check(spec: Value, status: Value, pods: &[&str], expected: Expect) {
    let mut wanted = json!({"selector": {"matchLabels": {"app": "web"}}});
    wanted.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let budget =
        json!({"metadata": {"name": "b", "namespace": "d", "generation": 3}, "spec": wanted, "status": status});
    let budget: PodDisruptionBudget = serde_json::from_value(budget).unwrap();
    let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
    let size = |owner: &OwnerReference| owner.name.get(3..)?.parse().ok().map(|size| (owner.uid.clone(), size));
    let plan = plan(&budget, &pods, &size, NOW.parse().unwrap());
    let s = plan.status.unwrap();
    let condition = &s.conditions.as_ref().unwrap()[0];
    let disrupted: Vec<&String> = s.disrupted_pods.iter().flatten().map(|(name, _)| name).collect();
    expected.assert_eq(&format!(
        "allowed {} well {} of {} wanted {} {} {:?} disrupted {disrupted:?} kept {:?} wake {:?}",
        s.disruptions_allowed,
        s.current_healthy,
        s.expected_pods,
        s.desired_healthy,
        condition.reason,
        condition.message,
        plan.kept,
        plan.wake
    ));
}

fn none() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}

#[test]
fn as_many_may_go_as_are_well_beyond_what_is_needed() {
    let three = ["a set3 ready", "b set3 ready", "c set3 ready"];
    check(
        json!({"minAvailable": 2}),
        none(),
        &three,
        expect![[r#"allowed 1 well 3 of 3 wanted 2 SufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"minAvailable": 3}),
        none(),
        &three,
        expect![[r#"allowed 0 well 3 of 3 wanted 3 InsufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"minAvailable": 2}),
        none(),
        &["a set3 ready", "b set3", "c set3 ready"],
        expect![[r#"allowed 0 well 2 of 3 wanted 2 InsufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"minAvailable": "50%"}),
        none(),
        &three,
        expect![[r#"allowed 1 well 3 of 3 wanted 2 SufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"maxUnavailable": 1}),
        none(),
        &three,
        expect![[r#"allowed 1 well 3 of 3 wanted 2 SufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"maxUnavailable": "34%"}),
        none(),
        &three,
        expect![[r#"allowed 2 well 3 of 3 wanted 1 SufficientPods "" disrupted [] kept [] wake None"#]],
    );
    // By what is wanted, not by what there is.
    check(
        json!({"maxUnavailable": 1}),
        none(),
        &["a set5 ready", "b set5 ready", "c set5 ready"],
        expect![[r#"allowed 0 well 3 of 5 wanted 4 InsufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"maxUnavailable": 1}),
        none(),
        &["a set1 ready", "b two1 ready", "c - ready"],
        expect![[r#"allowed 2 well 3 of 2 wanted 1 SufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"minAvailable": 0}),
        none(),
        &[],
        expect![[r#"allowed 0 well 0 of 0 wanted 0 InsufficientPods "" disrupted [] kept [] wake None"#]],
    );
    check(
        json!({"minAvailable": 1, "selector": null}),
        none(),
        &three,
        expect![[r#"allowed 0 well 0 of 0 wanted 1 InsufficientPods "" disrupted [] kept [] wake None"#]],
    );
}

#[test]
fn what_cannot_be_counted_may_not_be_disturbed() {
    check(
        json!({"maxUnavailable": 1}),
        none(),
        &["a lost ready"],
        expect![[
            r#"allowed 0 well 0 of 0 wanted 0 SyncFailed "found no controllers for pod \"a\"" disrupted [] kept [] wake None"#
        ]],
    );
}

#[test]
fn a_pod_that_was_evicted_is_gone_already() {
    let mut evicted = none();
    evicted["disruptedPods"] =
        json!({"a": "2026-01-01T00:59:00Z", "b": "2026-01-01T00:58:00Z", "gone": "2026-01-01T00:59:59Z"});
    let pods = ["a set3 ready", "b set3 ready", "c set3 ready"];
    check(
        json!({"minAvailable": 1}),
        evicted.clone(),
        &pods,
        expect![[r#"allowed 1 well 2 of 3 wanted 1 SufficientPods "" disrupted ["a"] kept ["b"] wake Some(60s)"#]],
    );
    check(
        json!({"minAvailable": 1}),
        evicted,
        &["a set3 ready leaving", "b set3 ready"],
        expect![[r#"allowed 0 well 1 of 2 wanted 1 InsufficientPods "" disrupted [] kept ["b"] wake None"#]],
    );
}
