#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::schedule::{choose, fit_error};
use crate::{Guarantee, Profile, Resources};

fn node(name: &str) -> Arc<Node> {
    let metadata = json!({"name": name, "labels": {"zone": "1"}});
    let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9"}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap())
}

/// `more` goes into its spec; its name says which budget is for it.
fn pod(name: &str, on: Option<&str>, priority: i32, cpu: &str, more: Value) -> Arc<Pod> {
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": cpu}}}]);
    let mut spec = json!({"nodeName": on, "priority": priority, "containers": containers});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let app = name.split('-').next().unwrap();
    let metadata = json!({"name": name, "uid": name, "namespace": "d", "labels": {"app": app}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

fn victim(name: &str, on: &str, priority: i32, cpu: &str) -> Arc<Pod> {
    pod(name, Some(on), priority, cpu, json!({}))
}

fn vip(cpu: &str, more: Value) -> Arc<Pod> {
    pod("vip", None, 100, cpu, more)
}

/// Who leaves for the pod and where it goes then, or why not.
fn planned(view: &mut View, pod: &Pod, budgets: &[Value]) -> String {
    let before = format!("{:?}", sums(view));
    let budgets: Vec<_> = budgets.iter().map(|b| Arc::new(serde_json::from_value(b.clone()).unwrap())).collect();
    let mut prepared = Prepared::new(view, crate::prepared::shape(pod), Arc::new(Profile::default()));
    let Err(failures) = choose(view, pod, &prepared, &[], None) else { return "fits".to_owned() };
    let mut error = fit_error(view, &prepared, failures.clone());
    let plan = match ineligible(view, pod) {
        Some(words) => Err(words.to_owned()),
        None => plan(view, &mut prepared, pod, &failures, &budgets),
    };
    assert_eq!(before, format!("{:?}", sums(view)), "what was tried is undone");
    match plan {
        Ok(plan) => format!("{} instead of {:?}", plan.node, plan.victims.iter().map(|v| uid(v)).collect::<Vec<_>>()),
        Err(words) => {
            error.preemption = Some(words);
            error.to_string()
        }
    }
}

fn sums(view: &View) -> Vec<(String, Resources, usize)> {
    view.nodes().map(|node| (node.name().to_owned(), node.requested.clone(), node.pods.len())).collect()
}

fn check(pods: &[Arc<Pod>], pod: &Pod, budgets: &[Value], expected: Expect) {
    let mut view = View::new([node("a"), node("b")], pods.iter().cloned(), []);
    expected.assert_eq(&planned(&mut view, pod, budgets));
}

#[test]
fn as_few_as_possible_of_the_lowest() {
    let pods = [victim("x-0", "a", 1, "3"), victim("x-1", "a", 5, "1"), victim("y-0", "b", 100, "4")];
    check(&pods, &vip("2", json!({})), &[], expect![[r#"a instead of ["x-0"]"#]]);
    check(&pods, &vip("4", json!({})), &[], expect![[r#"a instead of ["x-1", "x-0"]"#]]);
    let equal = [victim("x-0", "a", 100, "4"), victim("y-0", "b", 100, "4")];
    let words = expect![
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    ];
    check(&equal, &vip("1", json!({})), &[], words);
}

/// One node after the other: what comes first decides.
#[test]
fn of_two_candidates_the_one_that_hurts_less() {
    let two = |a: &[(i32, &str)], b: &[(i32, &str)]| -> Vec<Arc<Pod>> {
        let on = |node: &'static str, all: &[(i32, &str)]| -> Vec<Arc<Pod>> {
            let pods = all.iter().enumerate();
            pods.map(|(n, (priority, cpu))| victim(&format!("{node}-{n}"), node, *priority, cpu)).collect()
        };
        [on("a", a), on("b", b)].concat()
    };
    let all = vip("4", json!({}));
    check(&two(&[(2, "4")], &[(1, "4")]), &all, &[], expect![[r#"b instead of ["b-0"]"#]]);
    check(&two(&[(2, "2"), (0, "2")], &[(2, "2"), (1, "2")]), &all, &[], expect![[r#"a instead of ["a-0", "a-1"]"#]]);
    check(&two(&[(2, "2"), (2, "2")], &[(2, "4")]), &all, &[], expect![[r#"b instead of ["b-0"]"#]]);
    for (earlier, expected) in
        [("a", expect![[r#"b instead of ["b-0"]"#]]), ("b", expect![[r#"a instead of ["a-0"]"#]])]
    {
        let mut pods = two(&[(2, "4")], &[(2, "4")]);
        for pod in &mut pods {
            let hour = if uid(pod).starts_with(earlier) { 1 } else { 2 };
            let status = json!({"startTime": format!("2026-01-01T0{hour}:00:00Z")});
            Arc::make_mut(pod).status = serde_json::from_value(status).unwrap();
        }
        check(&pods, &all, &[], expected);
    }
}

#[test]
fn budgets_are_kept_where_that_is_possible() {
    let budget = |app: &str, allowed: i32| {
        json!({"metadata": {"name": app, "namespace": "d"}, "spec": {"selector": {"matchLabels": {"app": app}}},
            "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}})
    };
    let pods = [victim("x-0", "a", 1, "2"), victim("y-0", "a", 2, "2"), victim("z-0", "b", 100, "4")];
    check(&pods, &vip("2", json!({})), &[], expect![[r#"a instead of ["x-0"]"#]]);
    check(&pods, &vip("2", json!({})), &[budget("x", 0)], expect![[r#"a instead of ["y-0"]"#]]);
    check(&pods, &vip("2", json!({})), &[budget("x", 1)], expect![[r#"a instead of ["x-0"]"#]]);
    check(&pods, &vip("4", json!({})), &[budget("x", 0)], expect![[r#"a instead of ["x-0", "y-0"]"#]]);
    let pods = [victim("x-0", "a", 1, "4"), victim("y-0", "b", 9, "4")];
    check(&pods, &vip("4", json!({})), &[budget("x", 0)], expect![[r#"b instead of ["y-0"]"#]]);
}

#[test]
fn only_where_it_helps_and_who_may() {
    let pods = [victim("x-0", "a", 1, "4"), victim("y-0", "b", 1, "4")];
    let never =
        expect!["0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."];
    check(&pods, &vip("1", json!({"preemptionPolicy": "Never"})), &[], never);
    let large = expect![
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    ];
    check(&pods, &vip("5", json!({})), &[], large);
    let selector = json!({"nodeSelector": {"zone": "2"}});
    let elsewhere = expect![
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    ];
    check(&pods, &vip("1", selector), &[], elsewhere);
    // Who keeps it away leaves; who is as important does not.
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "zone"}]}}});
    let zoned = [victim("x-0", "a", 1, "1")];
    let mut view = View::new([node("a"), node("b")], zoned.iter().cloned(), []);
    let words = planned(&mut view, &vip("1", apart), &[]);
    expect![[r#"a instead of ["x-0"]"#]].assert_eq(&words);
    let mut waits = vip("1", json!({}));
    Arc::make_mut(&mut waits).status = serde_json::from_value(json!({"nominatedNodeName": "a"})).unwrap();
    let mut leaving = pods.to_vec();
    Arc::make_mut(&mut leaving[0]).metadata.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let words = expect![
        "0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to a terminating pod on the nominated node."
    ];
    check(&leaving, &waits, &[], words);
}

/// Two CPUs for pods of `buyer`, one of which runs.
#[test]
fn what_is_guaranteed_is_not_taken_away() {
    let amounts = Resources([("cpu".to_owned(), "2".parse().unwrap())].into());
    let labels = vec![("app".to_owned(), "buyer".to_owned())];
    let kept = [Guarantee { name: "contract-1".into(), labels, amounts }];
    let pods = [victim("buyer-0", "a", 0, "1"), victim("own-0", "a", 1, "2")];
    let view = || View::new([node("a")], pods.iter().cloned(), []).with_guarantees(kept.to_vec());
    expect![[r#"a instead of ["own-0"]"#]].assert_eq(&planned(&mut view(), &vip("2", json!({})), &[]));
    // The one that is kept and the one that is used stay, however much more important the pod is.
    expect![
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 node(s) keep what is guaranteed to others (cpu: 2 free, needed 3, 1 kept for 1 guarantee(s): contract-1)."
    ]
    .assert_eq(&planned(&mut view(), &vip("3", json!({})), &[]));
    let more = pod("buyer-1", None, 100, "2", json!({}));
    expect![[r#"a instead of ["buyer-0"]"#]].assert_eq(&planned(&mut view(), &more, &[]));
}
