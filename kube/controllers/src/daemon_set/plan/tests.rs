#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
//! The cases of upstream's conformance tests of DaemonSets, as plans.
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn set(image: &str, spec: Value) -> DaemonSet {
    let mut set = json!({
        "metadata": {"name": "log", "namespace": "d", "uid": "set", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "log"}}, "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": {"app": "log"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    });
    merge(&mut set, json!({"spec": spec}));
    serde_json::from_value(set).unwrap()
}

fn revisions(images: &[&str]) -> Vec<Arc<ControllerRevision>> {
    let mut made: Vec<Arc<ControllerRevision>> = Vec::new();
    for image in images {
        let plan = plan(&set(image, json!({})), &[], &[], &made, &Pauses::new(), NOW.parse().unwrap());
        match plan.revise {
            Some(Revise::Create(one)) => made.push(Arc::new(*one)),
            other => panic!("{image}: {other:?}"),
        }
    }
    made
}

/// `n1 word…`: `disk` (a label), `cordoned`, `mine` and `out` (taints NoSchedule and NoExecute), `lost`.
fn node(text: &str) -> Arc<Node> {
    let mut words = text.split(' ');
    let mut node = json!({"metadata": {"name": words.next(), "labels": {}}, "spec": {"taints": []}});
    for word in words {
        let taint = match word {
            "disk" => {
                node["metadata"]["labels"]["disk"] = "ssd".into();
                continue;
            }
            "cordoned" => json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}),
            "lost" => json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}),
            "mine" => json!({"key": "mine", "effect": "NoSchedule"}),
            "out" => json!({"key": "mine", "effect": "NoExecute"}),
            other => panic!("{other}"),
        };
        node["spec"]["taints"].as_array_mut().unwrap().push(taint);
    }
    Arc::new(serde_json::from_value(node).unwrap())
}

/// `p1@n1 v1 word…`: `ready`, `new` (ready now), `leaving`, `Failed`, `Succeeded`, `unbound`, `young`.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split(' ').collect();
    let has = |word: &str| words[2..].contains(&word);
    let (title, node) = words[0].split_once('@').unwrap();
    let set = set(words[1], json!({}));
    let hash = crate::hash::short(&set.spec.as_ref().unwrap().template, 0);
    let mut pod = pod_for(&set, set.spec.as_ref().unwrap(), node, &hash);
    let phase = ["Failed", "Succeeded"].into_iter().find(|phase| has(phase)).unwrap_or("Running");
    let (since, ready) = (
        if has("new") { NOW } else { "2026-01-01T00:00:00Z" },
        if has("ready") || has("new") { "True" } else { "False" },
    );
    let status =
        json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]});
    pod.status = Some(serde_json::from_value(status).unwrap());
    let created = if has("young") { "2026-01-01T00:30:00Z" } else { "2026-01-01T00:00:00Z" };
    let mut metadata = json!({"name": title, "uid": title, "creationTimestamp": created});
    if has("leaving") {
        metadata["deletionTimestamp"] = NOW.into();
    }
    let mut whole = serde_json::to_value(&pod).unwrap();
    merge(&mut whole, json!({"metadata": metadata}));
    if !has("unbound") {
        whole["spec"]["nodeName"] = node.into();
    }
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn words(plan: &Plan) -> String {
    let mut text = Vec::new();
    let mut say = |label: &str, list: Vec<String>| {
        if !list.is_empty() {
            text.push(format!("{label} {}", list.join(",")));
        }
    };
    let image = |pod: &Pod| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    say("delete", plan.delete.iter().map(|pod| name(&pod.metadata).to_owned()).collect());
    say("create", plan.create.iter().map(|pod| format!("{}@{}", image(pod), node_of(pod).unwrap())).collect());
    say("forget", plan.forget.iter().map(|one| one.revision.to_string()).collect());
    text.extend(plan.events.iter().map(|(_, reason, message)| format!("{reason}: {message}")));
    if let Some(wake) = plan.wake {
        text.push(format!("wake {wake:?}"));
    }
    let s = plan.status.clone().unwrap();
    text.push(format!(
        "desired {} current {} ready {} available {} updated {} misscheduled {}",
        s.desired_number_scheduled,
        s.current_number_scheduled,
        s.number_ready,
        s.number_available.unwrap_or(0),
        s.updated_number_scheduled.unwrap_or(0),
        s.number_misscheduled
    ));
    text.join("\n")
}

/// A set whose image is v2 and was v1, if `rolls`; else v1 only.
fn check(rolls: bool, spec: Value, nodes: &[&str], pods: &[&str], expected: Expect) {
    let known = revisions(if rolls { &["v1", "v2"] } else { &["v1"] });
    // The template is the image's alone, so that its revision is the known one.
    let set = set(if rolls { "v2" } else { "v1" }, spec);
    let nodes: Vec<Arc<Node>> = nodes.iter().map(|text| node(text)).collect();
    let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
    let plan = plan(&set, &nodes, &pods, &known, &Pauses::new(), NOW.parse().unwrap());
    expected.assert_eq(&words(&plan));
}

#[test]
fn every_node_has_one() {
    check(
        false,
        json!({}),
        &["a", "b"],
        &[],
        expect![[r#"
        create v1@a,v1@b
        desired 2 current 0 ready 0 available 0 updated 0 misscheduled 0"#]],
    );
    check(
        false,
        json!({}),
        &["a", "b"],
        &["p@a v1 ready", "q@b v1 unbound"],
        expect!["desired 2 current 2 ready 1 available 1 updated 2 misscheduled 0"],
    );
    // A node that is not to be used, or does not answer, is not without.
    check(
        false,
        json!({}),
        &["a cordoned", "b lost", "c mine", "d out"],
        &[],
        expect![[r#"
        create v1@a,v1@b
        desired 2 current 0 ready 0 available 0 updated 0 misscheduled 0"#]],
    );
    // One that has a daemon keeps it unless it is driven out.
    check(
        false,
        json!({}),
        &["c mine", "d out"],
        &["p@c v1 ready", "q@d v1 ready"],
        expect![[r#"
        delete q
        desired 0 current 0 ready 0 available 0 updated 0 misscheduled 2"#]],
    );
    check(
        false,
        json!({}),
        &["a"],
        &["p@a v1 ready", "q@a v1 young"],
        expect![[r#"
        delete q
        desired 1 current 1 ready 1 available 1 updated 1 misscheduled 0"#]],
    );
    // The next one is made when the last is gone.
    check(
        false,
        json!({}),
        &["a"],
        &["p@a v1 leaving"],
        expect!["desired 1 current 1 ready 0 available 0 updated 1 misscheduled 0"],
    );
    check(
        false,
        json!({}),
        &["a"],
        &["p@a v1 ready", "q@gone v1 unbound", "r@gone v1 ready"],
        expect![[r#"
        delete q
        desired 1 current 1 ready 1 available 1 updated 1 misscheduled 0"#]],
    );
}

#[test]
fn one_that_has_ended_is_made_anew() {
    check(
        false,
        json!({}),
        &["a", "b"],
        &["p@a v1 Failed", "q@b v1 Succeeded"],
        expect![[r#"
        delete p,q
        FailedDaemonPod: Found failed daemon pod d/p on node a, will try to kill it
        SucceededDaemonPod: Found succeeded daemon pod d/q on node b, will try to delete it
        desired 2 current 2 ready 0 available 0 updated 2 misscheduled 0"#]],
    );
    let known = revisions(&["v1"]);
    let pauses = Pauses::from([("a".to_owned(), "2026-01-01T01:00:07Z".parse().unwrap())]);
    let plan =
        plan(&set("v1", json!({})), &[node("a")], &[pod("p@a v1 Failed")], &known, &pauses, NOW.parse().unwrap());
    expect![[r#"
        wake 7s
        desired 1 current 1 ready 0 available 0 updated 1 misscheduled 0"#]]
    .assert_eq(&words(&plan));
}

#[test]
fn old_ones_are_replaced_so_many_at_a_time() {
    let nodes = ["a", "b", "c", "d"];
    let old = ["p@a v1 ready", "q@b v1 ready", "r@c v1 ready", "s@d v1 ready"];
    let most = |value: Value| json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": value}}});
    check(
        true,
        json!({}),
        &nodes,
        &old,
        expect![[r#"
        delete p
        desired 4 current 4 ready 4 available 4 updated 0 misscheduled 0"#]],
    );
    check(
        true,
        most("50%".into()),
        &nodes,
        &old,
        expect![[r#"
        delete p,q
        desired 4 current 4 ready 4 available 4 updated 0 misscheduled 0"#]],
    );
    check(
        true,
        json!({}),
        &nodes,
        &["n@a v2", "q@b v1 ready", "r@c v1 ready", "s@d v1 ready"],
        expect!["desired 4 current 4 ready 3 available 3 updated 1 misscheduled 0"],
    );
    check(
        true,
        json!({}),
        &nodes,
        &["n@a v2 ready", "q@b v1 ready", "r@c v1 ready", "s@d v1 ready"],
        expect![[r#"
        delete q
        desired 4 current 4 ready 4 available 4 updated 1 misscheduled 0"#]],
    );
    // One that serves nobody may go at any time.
    check(
        true,
        json!({}),
        &nodes,
        &["p@a v1", "q@b v1 ready", "r@c v1", "s@d v1 ready"],
        expect![[r#"
        delete p,r
        desired 4 current 4 ready 2 available 2 updated 0 misscheduled 0"#]],
    );
    check(
        true,
        json!({"updateStrategy": {"type": "OnDelete"}}),
        &nodes,
        &old,
        expect!["desired 4 current 4 ready 4 available 4 updated 0 misscheduled 0"],
    );
    check(
        true,
        json!({"updateStrategy": {"type": "OnDelete"}}),
        &nodes,
        &old[1..],
        expect![[r#"
        create v2@a
        desired 4 current 3 ready 3 available 3 updated 0 misscheduled 0"#]],
    );
    let slow = json!({"minReadySeconds": 30});
    check(
        true,
        slow,
        &["a", "b"],
        &["n@a v2 new", "q@b v1 ready"],
        expect![[r#"
        wake 30s
        desired 2 current 2 ready 2 available 1 updated 1 misscheduled 0"#]],
    );
}

#[test]
fn a_new_one_may_stand_beside_the_old() {
    let surge = || json!({"updateStrategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}});
    let nodes = ["a", "b"];
    check(
        true,
        surge(),
        &nodes,
        &["p@a v1 ready", "q@b v1 ready"],
        expect![[r#"
        create v2@a
        desired 2 current 2 ready 2 available 2 updated 0 misscheduled 0"#]],
    );
    check(
        true,
        surge(),
        &nodes,
        &["p@a v1 ready", "n@a v2 young", "q@b v1 ready"],
        expect!["desired 2 current 2 ready 2 available 2 updated 0 misscheduled 0"],
    );
    check(
        true,
        surge(),
        &nodes,
        &["p@a v1 ready", "n@a v2 ready young", "q@b v1 ready"],
        expect![[r#"
        delete p
        desired 2 current 2 ready 2 available 2 updated 0 misscheduled 0"#]],
    );
    check(
        true,
        surge(),
        &nodes,
        &["p@a v1", "n@a v2 young", "q@b v1 ready"],
        expect![[r#"
        delete p
        desired 2 current 2 ready 1 available 1 updated 0 misscheduled 0"#]],
    );
    check(
        true,
        surge(),
        &nodes,
        &["n@a v2 ready", "q@b v1 ready"],
        expect![[r#"
        create v2@b
        desired 2 current 2 ready 2 available 2 updated 1 misscheduled 0"#]],
    );
}

#[test]
fn only_nodes_that_it_means_have_one() {
    let wants = |more: Value| {
        let mut set = set("v1", json!({"template": {"spec": more}}));
        set.metadata.uid = Some("set".to_owned());
        suits(set.spec.as_ref().unwrap(), &node("a disk"))
    };
    let term = |key: &str, operator: &str| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": operator}]}]}}}})
    };
    assert_eq!(wants(json!({"nodeSelector": {"disk": "ssd"}})), (true, true));
    assert_eq!(wants(json!({"nodeSelector": {"disk": "hdd"}})), (false, false));
    assert_eq!(wants(term("disk", "Exists")), (true, true));
    assert_eq!(wants(term("gpu", "Exists")), (false, false));
    assert_eq!(wants(json!({"nodeName": "b"})), (false, false));
    let set = set("v1", json!({"template": {"spec": {"hostNetwork": true, "tolerations": [{"operator": "Exists"}]}}}));
    let pod = pod_for(&set, set.spec.as_ref().unwrap(), "a", "h");
    assert_eq!(pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap().len(), 8);
    assert_eq!(node_of(&pod).as_deref(), Some("a"));
}

#[test]
fn a_share_is_rounded_up_and_never_nothing() {
    let limits = |rolling: Value, desired: usize| {
        let set = set("v1", json!({"updateStrategy": {"rollingUpdate": rolling}}));
        let limits = Limits::of(set.spec.as_ref().unwrap(), desired);
        (limits.unavailable, limits.surge)
    };
    assert_eq!(limits(json!({"maxUnavailable": "10%"}), 11), (2, 0));
    assert_eq!(limits(json!({"maxUnavailable": 0}), 5), (1, 0));
    assert_eq!(limits(json!({"maxUnavailable": 0, "maxSurge": "30%"}), 5), (0, 2));
}
