#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::{View, schedule};

fn node(name: &str, zone: &str) -> Arc<Node> {
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
    let status = json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "9"}});
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "status": status})).unwrap())
}

fn pod(name: &str, on: Option<&str>, claims: &[&str]) -> Arc<Pod> {
    let volumes: Vec<Value> =
        claims.iter().map(|claim| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}})).collect();
    let spec = json!({"nodeName": on, "containers": [{"name": "c"}], "volumes": volumes});
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name, "namespace": "d"}, "spec": spec}))
            .unwrap(),
    )
}

/// `more` is merged at the top.
fn claim(name: &str, class: &str, more: Value) -> Arc<PersistentVolumeClaim> {
    let spec = json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let mut all = json!({"metadata": {"name": name, "uid": name, "namespace": "d"}, "spec": spec});
    merge(&mut all, &more);
    Arc::new(serde_json::from_value(all).unwrap())
}

fn merge(all: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        match &mut all[key] {
            known @ Value::Object(_) => merge(known, value),
            known => *known = value.clone(),
        }
    }
}

fn bound(name: &str, volume: &str) -> Arc<PersistentVolumeClaim> {
    let metadata = json!({"annotations": {"pv.kubernetes.io/bind-completed": "yes"}});
    claim(name, "late", json!({"metadata": metadata, "spec": {"volumeName": volume}, "status": {"phase": "Bound"}}))
}

fn volume(name: &str, on: &str, size: &str, zone: Option<&str>) -> Arc<PersistentVolume> {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}]}]);
    let affinity = if on.is_empty() { Value::Null } else { json!({"required": {"nodeSelectorTerms": terms}}) };
    let spec = json!({"storageClassName": "late", "accessModes": ["ReadWriteOnce", "ReadWriteOncePod"],
        "capacity": {"storage": size}, "nodeAffinity": affinity});
    let labels = zone.map(|zone| json!({"topology.kubernetes.io/zone": zone}));
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap())
}

fn class(name: &str, provisioner: &str, mode: &str) -> Arc<StorageClass> {
    let allowed = json!([{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["2"]}]}]);
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, "allowedTopologies": allowed});
    Arc::new(serde_json::from_value(class).unwrap())
}

fn check(
    claims: Vec<Arc<PersistentVolumeClaim>>,
    volumes: Vec<Arc<PersistentVolume>>,
    pods: &[Arc<Pod>],
    pod: &Pod,
    expected: Expect,
) {
    let classes = [
        class("late", "kubernetes.io/no-provisioner", "WaitForFirstConsumer"),
        class("made", "x.io/maker", "WaitForFirstConsumer"),
        class("now", "x.io/maker", "Immediate"),
    ];
    let storage = Storage::new(claims, volumes, classes);
    let view = View::new([node("a", "1"), node("b", "2")], pods.iter().cloned(), []).with_storage(storage.clone());
    let text = match schedule(&view, pod) {
        Err(error) => error.to_string(),
        Ok(choice) => {
            let promises = Needs::new(&Arc::new(storage), pod).promises(view.node(&choice.node).unwrap()).unwrap();
            let of = |promise: &Promise| {
                let volume = promise.volume.as_ref().and_then(|volume| volume.metadata.name.clone());
                let name = promise.claim.metadata.name.clone().unwrap();
                format!(" {name}={}{}", volume.unwrap_or("new".into()), if promise.is_open() { "" } else { " (told)" })
            };
            choice.node + &promises.iter().map(of).collect::<String>()
        }
    };
    expected.assert_eq(&text);
}

#[test]
fn before_any_node_is_looked_at() {
    let user = pod("p", None, &["data"]);
    let missing = expect![[r#"0/2 nodes are available: persistentvolumeclaim "data" not found."#]];
    check(vec![], vec![], &[], &user, missing);
    let going = claim("data", "now", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    check(
        vec![going],
        vec![],
        &[],
        &user,
        expect![[r#"0/2 nodes are available: persistentvolumeclaim "data" is being deleted."#]],
    );
    let immediate = expect!["0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."];
    check(vec![claim("data", "now", json!({}))], vec![], &[], &user, immediate);
    let lost = claim("data", "now", json!({"spec": {"volumeName": "v"}, "status": {"phase": "Lost"}}));
    let words = expect![[
        r#"0/2 nodes are available: persistentvolumeclaim "data" bound to non-existent persistentvolume "v"."#
    ]];
    check(vec![lost], vec![], &[], &user, words);
}

#[test]
fn where_the_data_is() {
    let user = pod("p", None, &["data"]);
    check(vec![bound("data", "v")], vec![volume("v", "b", "1Gi", None)], &[], &user, expect!["b"]);
    let conflict = expect!["0/2 nodes are available: 2 node(s) had volume node affinity conflict."];
    check(vec![bound("data", "v")], vec![volume("v", "c", "1Gi", None)], &[], &user, conflict);
    check(vec![bound("data", "v")], vec![volume("v", "", "1Gi", Some("2__3"))], &[], &user, expect!["b"]);
    let zone = expect!["0/2 nodes are available: 2 node(s) had no available volume zone."];
    check(vec![bound("data", "v")], vec![volume("v", "", "1Gi", Some("3"))], &[], &user, zone);
    let gone = expect![
        "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)."
    ];
    check(vec![bound("data", "v")], vec![], &[], &user, gone);
}

#[test]
fn where_a_volume_is_free_or_can_be_made() {
    let user = pod("p", None, &["data"]);
    let late = || claim("data", "late", json!({}));
    let two =
        || vec![volume("large", "b", "9Gi", None), volume("small", "b", "2Gi", None), volume("tiny", "a", "1Mi", None)];
    check(vec![late()], two(), &[], &user, expect!["b data=small"]);
    let both = pod("p", None, &["data", "logs"]);
    check(vec![late(), claim("logs", "late", json!({}))], two(), &[], &both, expect!["b data=small logs=large"]);
    let none = expect!["0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."];
    check(vec![late()], two()[2..].to_vec(), &[], &user, none);
    let mut promised = two();
    let reference = json!({"namespace": "d", "name": "data", "uid": "data"});
    Arc::make_mut(&mut promised[0]).spec.as_mut().unwrap().claim_ref = serde_json::from_value(reference).unwrap();
    check(vec![late()], promised, &[], &user, expect!["b data=large (told)"]);
    check(vec![claim("data", "made", json!({}))], vec![], &[], &user, expect!["b data=new"]);
    let told = |node: &str| claim("data", "made", json!({"metadata": {"annotations": {SELECTED_NODE: node}}}));
    check(vec![told("b")], vec![], &[], &user, expect!["b data=new (told)"]);
    let none = expect!["0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."];
    check(vec![told("c")], vec![], &[], &user, none);
}

#[test]
fn what_one_pod_alone_may_use() {
    let mut data = bound("data", "v");
    Arc::make_mut(&mut data).spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteOncePod".into()]);
    let volumes = || vec![volume("v", "", "1Gi", None)];
    let other = [pod("q", Some("a"), &["data"])];
    let words = expect![
        "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
    ];
    check(vec![data.clone()], volumes(), &other, &pod("p", None, &["data"]), words);
    let elsewhere = [pod("q", Some("a"), &["more"])];
    check(vec![data], volumes(), &elsewhere, &pod("p", None, &["data"]), expect!["b"]);
}
