//! A node changes what is its own, and nothing else (NodeRestriction).

use serde_json::{Value, json};

use crate::support::{Api, api, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// What it is told, after `… is forbidden: `.
fn refused((code, status): (u16, Value)) -> String {
    assert_eq!(code, 403, "{status}");
    let message = status["message"].as_str().unwrap();
    message.split_once("is forbidden: ").unwrap_or_else(|| panic!("{message}")).1.to_owned()
}

fn placed(name: &str, node: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = node.into();
    pod
}

/// As a node shows a pod of its own.
fn mirror_of(node: &Value) -> Value {
    let mut mirror = placed("mirror", "own");
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": "own", "uid": node, "controller": true });
    mirror["metadata"]["ownerReferences"] = json!([owner]);
    mirror
}

async fn cluster() -> (Api, Api) {
    let api = api().await;
    for node in ["own", "other"] {
        assert_eq!(api.post(NODES, json!({ "metadata": { "name": node } })).await.0, 201);
        assert_eq!(api.post(PODS, placed(&format!("at-{node}"), node)).await.0, 201);
    }
    let node = api.asked_by("system:node:own", &["system:nodes"]);
    (api, node)
}

#[tokio::test]
async fn a_node_says_of_itself_what_it_is_and_not_what_it_is_trusted_with() {
    let (api, node) = cluster().await;
    let labels = |labels: Value| json!({ "metadata": { "labels": labels } });
    let patch = async |name: &str, change: Value| node.patch(&format!("{NODES}/{name}"), "merge-patch", change).await;
    assert_eq!(patch("own", labels(json!({ "topology.kubernetes.io/zone": "a", "flt.example/x": "y" }))).await.0, 200);
    assert_eq!(patch("own", labels(json!({ "a.node.kubernetes.io/x": "y" }))).await.0, 200);
    let own =
        "is not allowed to modify labels: node-restriction.kubernetes.io/tier, node-role.kubernetes.io/control-plane";
    let role = json!({ "node-restriction.kubernetes.io/tier": "a", "node-role.kubernetes.io/control-plane": "" });
    assert_eq!(refused(patch("own", labels(role)).await), own);
    let taints = json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    assert_eq!(refused(patch("own", taints).await), "node \"own\" is not allowed to modify taints");
    let other = "node \"own\" is not allowed to modify node \"other\"";
    assert_eq!(refused(patch("other", labels(json!({ "a": "b" }))).await), other);
    let status = json!({ "status": { "phase": "Running" } });
    assert_eq!(node.patch(&format!("{NODES}/own/status"), "merge-patch", status.clone()).await.0, 200);
    assert_eq!(refused(node.patch(&format!("{NODES}/other/status"), "merge-patch", status).await), other);
    assert_eq!(
        refused(node.post(NODES, json!({ "metadata": { "name": "third" } })).await),
        "node \"own\" is not allowed to modify node \"third\""
    );
    // Of a new one, too; and others may what it may not.
    let third = api.asked_by("system:node:third", &["system:nodes"]);
    let told = "node \"third\" is not allowed to set the following labels: x.node-restriction.kubernetes.io/y";
    let labelled = json!({ "metadata": { "name": "third", "labels": { "x.node-restriction.kubernetes.io/y": "z" } } });
    assert_eq!(refused(third.post(NODES, labelled.clone()).await), told);
    assert_eq!(api.post(NODES, labelled).await.0, 201);
    let nameless = api.asked_by("somebody", &["system:nodes"]);
    let told = refused(nameless.patch(&format!("{NODES}/own"), "merge-patch", labels(json!({ "a": "b" }))).await);
    assert_eq!(told, "could not determine node from user \"somebody\"");
}

#[tokio::test]
async fn a_node_tells_of_its_own_pods_alone() {
    let (_api, node) = cluster().await;
    let status = json!({ "status": { "phase": "Running" } });
    let patch = async |name: &str, change: Value| node.put(&format!("{PODS}/{name}/status"), change).await;
    let mut own = node.get(&format!("{PODS}/at-own")).await.1;
    own["status"] = status["status"].clone();
    assert_eq!(patch("at-own", own.clone()).await.0, 200);
    let mut other = node.get(&format!("{PODS}/at-other")).await.1;
    other["status"] = status["status"].clone();
    let told = "node \"own\" can only update pod status for pods with spec.nodeName set to itself";
    assert_eq!(refused(patch("at-other", other).await), told);
    let told = "node \"own\" can only delete pods with spec.nodeName set to itself";
    assert_eq!(refused(node.delete(&format!("{PODS}/at-other")).await), told);
    assert_eq!(node.delete(&format!("{PODS}/at-own")).await.0, 200);
    let told = "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"own\" can only create mirror pods";
    assert_eq!(refused(node.post(PODS, placed("new", "own")).await), told);
    let uid = node.get(&format!("{NODES}/own")).await.1["metadata"]["uid"].clone();
    let mirror = mirror_of(&uid);
    let owner = mirror["metadata"]["ownerReferences"][0].clone();
    let changed = |field: &str, value: Value| {
        let mut owner = owner.clone();
        owner[field] = value;
        json!([owner])
    };
    for (owners, told) in [
        (json!([]), "can only create pods with an owner reference set to itself"),
        (json!([owner, owner]), "can only create pods with a single owner reference set to itself"),
        (changed("name", "other".into()), "can only create pods with an owner reference set to itself"),
        (changed("controller", false.into()), "can only create pods with a controller owner reference set to itself"),
        (changed("blockOwnerDeletion", true.into()), "must not set blockOwnerDeletion on an owner reference"),
    ] {
        let mut with = mirror.clone();
        with["metadata"]["ownerReferences"] = owners;
        assert_eq!(refused(node.post(PODS, with).await), format!("node \"own\" {told}"));
    }
    let mut with = mirror.clone();
    with["metadata"]["ownerReferences"] = changed("uid", "u".into());
    let told = format!("node own UID mismatch: expected u got {}", uid.as_str().unwrap());
    assert_eq!(refused(node.post(PODS, with).await), told);
    for (field, value, told) in [
        ("serviceAccountName", json!("default"), "a service account"),
        ("imagePullSecrets", json!([{ "name": "s" }]), "secrets"),
        ("volumes", json!([{ "name": "v", "configMap": { "name": "c" } }]), "configmaps"),
        ("volumes", json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }]), "persistentvolumeclaims"),
    ] {
        let mut with = mirror.clone();
        with["spec"][field] = value;
        let told = format!("node \"own\" can not create pods that reference {told}");
        assert_eq!(refused(node.post(PODS, with).await), told);
    }
    let mut elsewhere = mirror.clone();
    elsewhere["spec"]["nodeName"] = "other".into();
    let told = "node \"own\" can only create pods with spec.nodeName set to itself";
    assert_eq!(refused(node.post(PODS, elsewhere).await), told);
    let (code, made) = node.post(PODS, mirror).await;
    assert_eq!((code, &made["spec"]["serviceAccountName"]), (201, &Value::Null), "{made}");
    // What no node needs is refused by rights, before.
    assert_eq!(node.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").await.0, 403);
    assert_eq!(node.post("/api/v1/namespaces", json!({ "metadata": { "name": "n" } })).await.0, 403);
}

#[tokio::test]
async fn a_node_evicts_its_own_pods_and_takes_no_disruption_of_others() {
    let (api, node) = cluster().await;
    let budget = json!({ "metadata": { "name": "b" }, "spec": { "maxUnavailable": 1, "selector": {} } });
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let (_, mut budget) = api.post(budgets, budget).await;
    budget["status"] = json!({ "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2 });
    assert_eq!(api.put(&format!("{budgets}/b/status"), budget).await.0, 200);
    let running = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    for pod in ["at-own", "at-other"] {
        assert_eq!(api.patch(&format!("{PODS}/{pod}/status"), "merge-patch", running.clone()).await.0, 200);
    }
    let evict =
        async |name: &str| node.post(&format!("{PODS}/{name}/eviction"), json!({ "metadata": { "name": name } })).await;
    let allowed = async || api.get(&format!("{budgets}/b")).await.1["status"]["disruptionsAllowed"].clone();
    assert_eq!(refused(evict("at-other").await), "node own can only evict pods with spec.nodeName set to itself");
    assert_eq!(allowed().await, 1);
    assert_eq!(evict("at-own").await.0, 201);
    assert_eq!(allowed().await, 0);
}

#[tokio::test]
async fn of_a_claim_a_node_tells_its_size_alone() {
    let (api, node) = cluster().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
    assert_eq!(api.post(claims, json!({ "metadata": { "name": "c" }, "spec": spec })).await.0, 201);
    let patch = async |change: Value| node.patch(&format!("{claims}/c/status"), "merge-patch", change).await;
    assert_eq!(patch(json!({ "status": { "capacity": { "storage": "1Gi" } } })).await.0, 200);
    let told = "node \"own\" is not allowed to update fields other than status.capacity and status.conditions";
    assert_eq!(refused(patch(json!({ "status": { "phase": "Bound" } })).await), told);
}

#[tokio::test]
async fn a_node_renews_its_own_lease() {
    let (_api, node) = cluster().await;
    let lease = |name: &str| json!({ "metadata": { "name": name }, "spec": { "holderIdentity": name } });
    assert_eq!(node.post(LEASES, lease("own")).await.0, 201);
    let told = "can only access node lease with the same name as the requesting node";
    assert_eq!(refused(node.post(LEASES, lease("other")).await), told);
    let elsewhere = LEASES.replace("kube-node-lease", "default");
    let told = "can only access leases in the \"kube-node-lease\" system namespace";
    assert_eq!(refused(node.post(&elsewhere, lease("own")).await), told);
}

#[tokio::test]
async fn a_node_gets_tokens_of_its_own_pods() {
    let (api, node) = cluster().await;
    let keys = tempfile::tempdir().unwrap();
    let issuer = substrate_apiserver::auth::account_tokens::Issuer::open(keys.path(), "https://api.example").unwrap();
    api.server.issue_tokens(issuer);
    let uid = async |name: &str| api.get(&format!("{PODS}/{name}")).await.1["metadata"]["uid"].clone();
    let ask = async |spec: Value| {
        node.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({ "spec": spec })).await
    };
    let bound = |name: &str, uid: Value| json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid } });
    assert_eq!(refused(ask(json!({})).await), "node requested token not bound to a pod");
    assert_eq!(
        refused(ask(bound("at-own", Value::Null)).await),
        "node requested token with a pod binding without a uid"
    );
    let told = "node requested token bound to a pod scheduled on a different node";
    assert_eq!(refused(ask(bound("at-other", uid("at-other").await)).await), told);
    assert!(refused(ask(bound("at-own", uid("at-other").await)).await).contains("does not match the UID in record"));
    assert_eq!(ask(bound("none", json!("u"))).await.0, 404);
    assert_eq!(ask(bound("at-own", uid("at-own").await)).await.0, 201);
    // Of pods that it makes itself, in whatever namespace, it gets none, and they run as nobody.
    let own = api.get(&format!("{NODES}/own")).await.1["metadata"]["uid"].clone();
    assert_eq!(node.post(PODS, mirror_of(&own)).await.0, 201);
    let mirror = bound("mirror", uid("mirror").await);
    assert_eq!(refused(ask(mirror.clone()).await), "node requested token bound to a mirror pod");
    let (code, status) =
        api.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({ "spec": mirror })).await;
    let told = "cannot bind token for serviceaccount \"default\" to pod running with different serviceaccount name.";
    assert_eq!((code, status["message"].as_str().unwrap()), (400, told));
    assert_eq!(
        api.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({ "spec": {} })).await.0,
        201,
        "of another user"
    );
}

#[tokio::test]
async fn a_node_makes_volumes_on_itself_alone() {
    const VOLUMES: &str = "/api/v1/persistentvolumes";
    let (api, node) = cluster().await;
    let volume = |name: &str, on: &str, source: &str| {
        let here = json!([{ "key": "kubernetes.io/hostname", "operator": "In", "values": [on] }]);
        let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": here }] } });
        json!({ "metadata": { "name": name }, "spec": { "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"],
            source: { "path": "/x" }, "nodeAffinity": affinity } })
    };
    let told = "node \"own\" is only allowed to write local volumes on itself";
    assert_eq!(node.post(VOLUMES, volume("mine", "own", "local")).await.0, 201);
    assert_eq!(refused(node.post(VOLUMES, volume("theirs", "other", "local")).await), told);
    assert_eq!(refused(node.post(VOLUMES, volume("any", "own", "hostPath")).await), told);
    assert_eq!(api.post(VOLUMES, volume("theirs", "other", "local")).await.0, 201);
    let grow = json!({ "spec": { "capacity": { "storage": "2Gi" } } });
    assert_eq!(node.patch(&format!("{VOLUMES}/mine"), "merge-patch", grow.clone()).await.0, 200);
    assert_eq!(refused(node.patch(&format!("{VOLUMES}/theirs"), "merge-patch", grow).await), told);
    assert_eq!(refused(node.delete(&format!("{VOLUMES}/theirs")).await), told);
    assert_eq!(node.delete(&format!("{VOLUMES}/mine")).await.0, 200);
    let class = json!({ "metadata": { "name": "now" }, "provisioner": "x", "volumeBindingMode": "Immediate" });
    assert_eq!(node.post("/apis/storage.k8s.io/v1/storageclasses", class).await.0, 403);
}
