#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{Namespace, Node};
use serde_json::{Value, json};

use super::*;

/// A node with 4 CPUs and 8Gi; `more` is merged at the top.
fn node(name: &str, labels: Value, spec: Value) -> Arc<Node> {
    let mut all = json!({"kubernetes.io/hostname": name});
    all.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": all}, "spec": spec,
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "5", "example.com/gpu": "1"}},
        }))
        .unwrap(),
    )
}

fn pod(name: &str, on: Option<&str>, spec: Value) -> Arc<Pod> {
    let mut all = json!({"nodeName": on, "containers": [{"name": "c"}]});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let app = name.split('-').next().unwrap();
    let metadata = json!({"name": name, "uid": name, "namespace": "d", "labels": {"app": app}});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": all})).unwrap())
}

fn asks(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

fn three() -> Vec<Arc<Node>> {
    vec![
        node("a", json!({"zone": "1"}), json!({})),
        node("b", json!({"zone": "1"}), json!({})),
        node("c", json!({"zone": "2"}), json!({})),
    ]
}

fn check(nodes: Vec<Arc<Node>>, pods: &[Arc<Pod>], pod: &Pod, expected: Expect) {
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "d", "labels": {"team": "x"}}})).unwrap();
    let view = View::new(nodes, pods.iter().cloned(), [Arc::new(namespace)]);
    let text = match schedule(&view, pod) {
        Ok(choice) => choice.node,
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&text);
}

#[test]
fn nothing_to_choose_from() {
    check(vec![], &[], &pod("p", None, json!({})), expect!["no nodes available to schedule pods"]);
}

#[test]
fn resources_fit_exactly_or_not() {
    let full = [pod("x", Some("a"), asks("3500m")), pod("y", Some("b"), asks("3")), pod("z", Some("c"), asks("4"))];
    check(three(), &full, &pod("p", None, asks("1")), expect!["b"]);
    check(three(), &full, &pod("p", None, asks("1001m")), expect!["0/3 nodes are available: 3 Insufficient cpu."]);
    let gpu = json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "2", "cpu": "5"}}}]});
    check(
        three(),
        &[],
        &pod("p", None, gpu),
        expect!["0/3 nodes are available: 3 Insufficient cpu, 3 Insufficient example.com/gpu."],
    );
    let many: Vec<Arc<Pod>> = (0..5).map(|n| pod(&format!("m-{n}"), Some("a"), json!({}))).collect();
    check(
        three()[..1].to_vec(),
        &many,
        &pod("p", None, json!({})),
        expect!["0/1 nodes are available: 1 Too many pods."],
    );
    let mut ended = Pod::clone(&many[0]);
    ended.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
    let mut pods = many;
    pods[0] = Arc::new(ended);
    check(three()[..1].to_vec(), &pods, &pod("p", None, json!({})), expect!["a"]);
}

#[test]
fn taints_cordon_and_selectors() {
    let nodes = vec![
        node("a", json!({}), json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]})),
        node("b", json!({}), json!({"unschedulable": true})),
        node("c", json!({"disk": "hdd", "cores": "8"}), json!({})),
    ];
    check(
        nodes.clone(),
        &[],
        &pod("p", None, json!({"nodeSelector": {"disk": "ssd"}})),
        expect![
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable."
        ],
    );
    let tolerant =
        json!({"tolerations": [{"key": "k", "operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "a"}});
    check(nodes.clone(), &[], &pod("p", None, tolerant), expect!["a"]);
    let everything = json!({"tolerations": [{"operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "b"}});
    check(nodes.clone(), &[], &pod("p", None, everything), expect!["b"]);
    let affinity = |expression: Value| {
        let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
        pod("p", None, json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}))
    };
    let greater = |than: &str| affinity(json!({"key": "cores", "operator": "Gt", "values": [than]}));
    check(nodes.clone(), &[], &greater("7"), expect!["c"]);
    let none = expect![
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable."
    ];
    check(nodes, &[], &greater("8"), none);
}

/// As the pods of a DaemonSet say where they belong.
#[test]
fn an_affinity_by_name_leaves_other_nodes_out() {
    let by_name = |names: &[&str]| {
        let fields = json!([{"key": "metadata.name", "operator": "In", "values": names}]);
        let terms = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
        let mut spec = asks("5");
        spec["affinity"] = affinity;
        pod("p", None, spec)
    };
    let words =
        expect!["0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."];
    check(three(), &[], &by_name(&["b"]), words);
    check(three(), &[], &by_name(&[]), expect!["0/3 nodes are available: pod affinity terms conflict."]);
}

#[test]
fn host_ports_are_taken_once() {
    let port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip}]}]});
    let nodes = || three()[..1].to_vec();
    let used = [pod("x", Some("a"), port("10.0.0.1"))];
    check(nodes(), &used, &pod("p", None, port("10.0.0.2")), expect!["a"]);
    let taken = expect!["0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."];
    check(nodes(), &used, &pod("p", None, port("")), taken);
}

/// In another namespace, which is named or selected.
#[test]
fn pods_of_other_namespaces() {
    let near = |more: Value| {
        let mut one = term("db", "zone")[0].clone();
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [one]}});
        let mut pod = pod("web-0", None, json!({"affinity": affinity}));
        Arc::make_mut(&mut pod).metadata.namespace = Some("e".into());
        pod
    };
    let db = [pod("db-0", Some("c"), json!({}))];
    let none = || expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."];
    check(three(), &db, &near(json!({})), none());
    check(three(), &db, &near(json!({"namespaces": ["d"]})), expect!["c"]);
    check(three(), &db, &near(json!({"namespaceSelector": {"matchLabels": {"team": "x"}}})), expect!["c"]);
    check(three(), &db, &near(json!({"namespaceSelector": {"matchLabels": {"team": "y"}}})), none());
    check(three(), &db, &near(json!({"namespaceSelector": {}})), expect!["c"]);
    let mut keyed = near(json!({"namespaces": ["d"], "matchLabelKeys": ["app"]}));
    check(three(), &db, &keyed, none());
    Arc::make_mut(&mut keyed).metadata.labels = Some([("app".into(), "db".into())].into());
    check(three(), &db, &keyed, expect!["c"]);
    let mut other = near(json!({"namespaces": ["d"], "mismatchLabelKeys": ["app"]}));
    Arc::make_mut(&mut other).metadata.labels = Some([("app".into(), "db".into())].into());
    check(three(), &db, &other, none());
}

fn term(app: &str, key: &str) -> Value {
    json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}])
}

#[test]
fn pods_near_and_apart() {
    let near = |app: &str| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app, "zone")}}});
    let apart = |app: &str| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term(app, "zone")}}});
    let db = [pod("db-0", Some("c"), json!({}))];
    check(three(), &db, &pod("web-0", None, near("db")), expect!["c"]);
    let mut both = near("db");
    let required = &mut both["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    required.as_array_mut().unwrap().push(term("cache", "zone")[0].clone());
    let beside = [db[0].clone(), pod("cache-0", Some("c"), json!({}))];
    let words = expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."];
    check(three(), &beside, &pod("web-0", None, both), words);
    check(
        three(),
        &[],
        &pod("web-0", None, near("db")),
        expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."],
    );
    let first = schedule(&View::new(three(), [], []), &pod("web-0", None, near("web")));
    assert!(first.is_ok(), "the first of its group may go anywhere");
    let one = [pod("db-0", Some("a"), json!({})), pod("db-1", Some("c"), json!({}))];
    let words = expect!["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules."];
    check(three(), &one, &pod("web-0", None, apart("db")), words);
    let shy = [pod("db-0", Some("a"), apart("web"))];
    check(three(), &shy, &pod("web-0", None, json!({})), expect!["c"]);
    let shy = [pod("db-0", Some("a"), apart("web")), pod("db-1", Some("c"), apart("web"))];
    let words = expect!["0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules."];
    check(three(), &shy, &pod("web-0", None, json!({})), words);
    let mut elsewhere = Pod::clone(&db[0]);
    elsewhere.metadata.namespace = Some("other".to_owned());
    let words = expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules."];
    check(three(), &[Arc::new(elsewhere)], &pod("web-0", None, near("db")), words);
}

#[test]
fn spread_over_topologies() {
    let spread = |when: &str, skew: i32| {
        json!({"topologySpreadConstraints": [{"maxSkew": skew, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "web"}}}]})
    };
    let two = [pod("web-0", Some("a"), json!({})), pod("web-1", Some("b"), json!({}))];
    check(three(), &two, &pod("web-2", None, spread("DoNotSchedule", 1)), expect!["c"]);
    check(three(), &two, &pod("web-2", None, spread("ScheduleAnyway", 1)), expect!["c"]);
    let mut domains = spread("DoNotSchedule", 1);
    domains["topologySpreadConstraints"][0]["minDomains"] = json!(3);
    let one_each = [pod("web-0", Some("a"), json!({})), pod("web-1", Some("c"), json!({}))];
    let words = expect!["0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints."];
    check(three(), &one_each, &pod("web-2", None, domains), words);
    let mut keyed = spread("DoNotSchedule", 1);
    keyed["topologySpreadConstraints"][0]["matchLabelKeys"] = json!(["version"]);
    let mut next = pod("web-2", None, keyed);
    let labels = [("app".to_owned(), "web".to_owned()), ("version".to_owned(), "2".to_owned())];
    Arc::make_mut(&mut next).metadata.labels = Some(labels.into());
    let view = View::new(three(), two.iter().cloned(), []);
    let prepared = Prepared::new(&view, shape(&next), Arc::new(Profile::default()));
    let judge = prepared.judge();
    assert!((0..3).all(|at| judge.failure(&view, at).is_none()), "those of another version are no group of it");
    let cordoned = vec![three()[0].clone(), node("c", json!({"zone": "2"}), json!({"unschedulable": true}))];
    let words = expect![
        "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable."
    ];
    check(cordoned, &two[..1], &pod("web-2", None, spread("DoNotSchedule", 1)), words);
    let bare = vec![node("x", json!({}), json!({}))];
    let words = expect![
        "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label)."
    ];
    check(bare, &[], &pod("web-2", None, spread("DoNotSchedule", 1)), words);
}

#[test]
fn better_nodes_win() {
    check(
        three(),
        &[pod("x", Some("a"), asks("2")), pod("y", Some("b"), asks("1"))],
        &pod("p", None, asks("1")),
        expect!["c"],
    );
    let soft = vec![
        node("a", json!({}), json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]})),
        node("b", json!({}), json!({})),
    ];
    check(soft, &[pod("x", Some("b"), asks("1"))], &pod("p", None, json!({})), expect!["b"]);
    let prefers = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["2"]}]}}]}}});
    check(three(), &[pod("x", Some("c"), asks("1"))], &pod("p", None, prefers), expect!["c"]);
    let likes = |app: &str, kind: &str| {
        json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "podAffinityTerm": term(app, "kubernetes.io/hostname")[0]}]}}})
    };
    let there = [pod("db-0", Some("b"), json!({}))];
    check(three(), &there, &pod("web-0", None, likes("db", "podAffinity")), expect!["b"]);
    let two = vec![three()[0].clone(), three()[1].clone()];
    check(two, &there, &pod("web-0", None, likes("db", "podAntiAffinity")), expect!["a"]);
}

/// Pods of one set, without constraints of their own: by name of the node and by zone. A node without a zone has only the one count, as
/// upstream's.
#[test]
fn siblings_spread_by_themselves() {
    let zoned = |name: &str, zone: &str| node(name, json!({"topology.kubernetes.io/zone": zone}), json!({}));
    let nodes = || vec![zoned("a", "1"), zoned("b", "1"), zoned("c", "2"), node("d", json!({}), json!({}))];
    let owned = |name: &str, on: Option<&str>| {
        let mut pod = pod(name, on, json!({}));
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
        Arc::make_mut(&mut pod).metadata.owner_references = serde_json::from_value(owner).unwrap();
        pod
    };
    let on = |names: &[&str]| -> Vec<Arc<Pod>> {
        names.iter().enumerate().map(|(n, at)| owned(&format!("r-{n}"), Some(at))).collect()
    };
    check(nodes(), &on(&["a", "d"]), &owned("r-9", None), expect!["d"]);
    check(nodes()[..3].to_vec(), &on(&["a"]), &owned("r-9", None), expect!["c"]);
    check(nodes(), &on(&["a", "c", "b"]), &owned("r-9", None), expect!["d"]);
    let foreign = [pod("x", Some("c"), asks("1"))];
    check(nodes()[..3].to_vec(), &[&on(&["a"])[..], &foreign].concat(), &owned("r-9", None), expect!["c"]);
}

#[test]
fn an_image_that_is_there_counts() {
    let mut with_image = Node::clone(&three()[1]);
    let status = with_image.status.as_mut().unwrap();
    status.images = serde_json::from_value(json!([{"names": ["r/web:1"], "sizeBytes": 900 << 20}])).unwrap();
    let nodes = vec![three()[0].clone(), Arc::new(with_image), three()[2].clone()];
    check(nodes, &[], &pod("p", None, json!({"containers": [{"name": "c", "image": "r/web:1"}]})), expect!["b"]);
}

#[test]
fn a_burst_does_not_overcommit_and_spreads() {
    let mut view = View::new(three(), [], []);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..7 {
        let pod = pod(&format!("p-{number}"), None, asks("2"));
        match schedule(&view, &pod) {
            Ok(choice) => {
                *counts.entry(choice.node.clone()).or_default() += 1;
                view.assume(pod, &choice.node);
            }
            Err(error) => {
                assert_eq!((number, error.to_string().as_str()), (6, "0/3 nodes are available: 3 Insufficient cpu."))
            }
        }
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}
