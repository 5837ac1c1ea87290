#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::schedule;

fn node(name: &str, cpu: &str, spec: Value) -> Arc<Node> {
    let status = json!({"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}});
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": status})).unwrap())
}

/// A pod of whom the label `tenant` says.
fn pod(name: &str, tenant: &str, on: Option<&str>, cpu: &str) -> Arc<Pod> {
    let metadata = json!({"name": name, "uid": name, "namespace": "d", "labels": {"tenant": tenant}});
    let spec = json!({"nodeName": on, "tolerations": [{"key": "far", "operator": "Exists"}],
        "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

/// So much for the pods of one tenant; of `""` for nobody's yet.
fn guarantee(name: &str, tenant: &str, amounts: &[(&str, &str)]) -> Guarantee {
    let amounts = amounts.iter().map(|(name, text)| ((*name).to_owned(), text.parse().unwrap())).collect();
    let labels = if tenant.is_empty() { vec![] } else { vec![("tenant".to_owned(), tenant.to_owned())] };
    Guarantee { name: name.to_owned(), labels, amounts: Resources(amounts) }
}

fn view(nodes: &[Arc<Node>], pods: &[Arc<Pod>], guarantees: &[Guarantee]) -> View {
    View::new(nodes.to_vec(), pods.to_vec(), []).with_guarantees(guarantees.to_vec())
}

fn check(view: &View, pod: &Pod, expected: Expect) {
    expected.assert_eq(&schedule(view, pod).map_or_else(|error| error.to_string(), |choice| choice.node));
}

#[test]
fn others_do_not_take_what_is_kept_and_its_own_pods_do() {
    let nodes = [node("a", "4", json!({}))];
    let kept = [guarantee("contract-1", "x", &[("cpu", "2"), ("memory", "1Gi"), ("pods", "3")])];
    let with = |pods: &[Arc<Pod>]| view(&nodes, pods, &kept);
    check(&with(&[]), &pod("p", "own", None, "2"), expect!["a"]);
    let waits = expect![
        "0/1 nodes are available: 1 node(s) keep what is guaranteed to others (cpu: 2 free, needed 2001m, 2 kept for 1 guarantee(s): contract-1)."
    ];
    check(&with(&[]), &pod("p", "own", None, "2001m"), waits);
    let full = [pod("own", "own", Some("a"), "2")];
    check(&with(&full), &pod("p", "x", None, "2"), expect!["a"]);
    // What is used is not kept beside that.
    let used = [full[0].clone(), pod("x", "x", Some("a"), "1500m")];
    let waits = expect![
        "0/1 nodes are available: 1 node(s) keep what is guaranteed to others (cpu: 0 free, needed 1m, 500m kept for 1 guarantee(s): contract-1)."
    ];
    check(&with(&used), &pod("p", "own", None, "1m"), waits);
    // What was taken before it was promised is not given back; the promise still comes first.
    let over = [pod("own", "own", Some("a"), "3")];
    check(&with(&over), &pod("p", "x", None, "1"), expect!["a"]);
}

#[test]
fn pods_are_kept_as_well_and_several_are_counted_and_the_first_named() {
    let nodes = [node("a", "8", json!({})), node("b", "8", json!({}))];
    let mut kept: Vec<Guarantee> =
        ["1", "2", "3"].map(|n| guarantee(&format!("contract-{n}"), n, &[("cpu", "4"), ("pods", "6")])).into();
    kept.push(guarantee("hold 7", "", &[("pods", "2")]));
    kept.push(guarantee("idle", "i", &[]));
    let waits = expect![
        "0/2 nodes are available: 2 node(s) keep what is guaranteed to others (cpu: 4 free, needed 6, 12 kept for 3 guarantee(s): contract-1, contract-2, contract-3; pods: 0 free, needed 1, 20 kept for 4 guarantee(s): contract-1, contract-2, contract-3 and 1 more)."
    ];
    check(&view(&nodes, &[], &kept), &pod("p", "own", None, "6"), waits);
}

#[test]
fn a_pod_that_goes_elsewhere_takes_nothing_of_the_pool() {
    let far = node("far", "3", json!({"taints": [{"key": "far", "effect": "NoSchedule"}]}));
    // More is kept than the pool has: with what is elsewhere it would be enough to take some.
    let kept = [guarantee("contract-1", "x", &[("cpu", "5")])];
    check(&view(&[node("a", "4", json!({})), far], &[], &kept), &pod("p", "own", None, "3"), expect!["far"]);
}

#[test]
fn the_last_room_in_one_piece_is_not_cut() {
    let nodes = [node("a", "4", json!({})), node("b", "4", json!({}))];
    let half = [pod("o", "own", Some("a"), "2")];
    let kept = [guarantee("contract-1", "x", &[("cpu", "3")])];
    check(&view(&nodes, &half, &kept), &pod("p", "own", None, "2"), expect!["a"]);
    let waits = expect![
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) keep room in one piece for what is guaranteed to contract-1."
    ];
    check(&view(&nodes, &[pod("o", "own", Some("a"), "2500m")], &kept), &pod("p", "own", None, "2"), waits);
    // Where no node has room for it there is no piece to keep: the sum counts.
    let all = [pod("o", "own", Some("a"), "2"), pod("q", "own", Some("b"), "2")];
    let kept = [guarantee("contract-1", "x", &[("cpu", "3")])];
    assert!(schedule(&view(&nodes, &all, &kept), &pod("p", "own", None, "1")).is_ok());
}

#[test]
fn pieces_are_looked_at_together_and_moved_out_of_the_way() {
    let nodes = [node("a", "4", json!({})), node("b", "4", json!({}))];
    let kept = ["1", "2"].map(|n| guarantee(&format!("contract-{n}"), n, &[("cpu", "2")]));
    // Each of them would find its two on the other node, both do not.
    let ones = [pod("o", "own", Some("a"), "1"), pod("q", "own", Some("b"), "1")];
    let waits =
        expect!["0/2 nodes are available: 2 node(s) keep room in one piece for what is guaranteed to contract-2."];
    check(&view(&nodes, &ones, &kept), &pod("p", "own", None, "2"), waits);
    check(&view(&nodes, &ones, &kept), &pod("p", "own", None, "1"), expect!["b"]);
    // Wherever the pieces were thought to be, a whole node is given to who needs one.
    check(&view(&nodes, &[], &kept), &pod("p", "own", None, "4"), expect!["b"]);
}

#[test]
fn who_takes_what_is_its_own_need_not_spare_the_room_of_others() {
    let nodes = [node("a", "4", json!({})), node("b", "500m", json!({}))];
    let kept = [("contract-1", "x", "1"), ("contract-2", "y", "4")];
    let kept = kept.map(|(name, tenant, cpu)| guarantee(name, tenant, &[("cpu", cpu)]));
    check(&view(&nodes, &[], &kept), &pod("p", "x", None, "1"), expect!["a"]);
    // Beyond its own it is as any other.
    let waits = expect![
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) keep what is guaranteed to others (cpu: 500m free, needed 2, 4 kept for 1 guarantee(s): contract-2)."
    ];
    check(&view(&nodes, &[], &kept), &pod("p", "x", None, "2"), waits);
}

#[test]
fn what_is_counted_follows_pods_nodes_and_guarantees() {
    let nodes = [node("a", "4", json!({})), node("b", "4", json!({}))];
    let kept = |cpu: &str| vec![guarantee("contract-1", "x", &[("cpu", cpu)])];
    let left = |view: &View| view.guarantees().kept(None)[0].get("cpu").to_string();
    let mut view = view(&nodes, &[pod("x", "x", Some("a"), "1")], &kept("3"));
    assert_eq!(left(&view), "2");
    view.assume(pod("y", "x", None, "500m"), "b");
    view.assume(pod("z", "x", None, "500m"), "nowhere");
    assert_eq!(left(&view), "1500m");
    assert!(!view.set_guarantees(kept("4").into()), "more is promised: that makes no room");
    assert_eq!(left(&view), "2500m");
    view.remove_node("b");
    assert_eq!(left(&view), "3");
    view.forget(&pod("x", "x", None, "1"), "a");
    assert_eq!(left(&view), "4");
    assert!(view.set_guarantees(kept("3").into()), "less");
    assert!(!view.set_guarantees(kept("3").into()), "the same");
    assert!(view.set_guarantees(Arc::default()), "none");
}
