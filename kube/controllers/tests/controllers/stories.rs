//! The controllers over a real API server in process. A small kubelet in the test runs what it is given.
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};
use substrate_controllers::Options;

use crate::world::{World, gone, until, world};

fn deployment(image: &str) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}}},
    })
}

async fn complete(world: &World, revision: &str) -> Deployment {
    let api: Api<Deployment> = world.api();
    until("the Deployment is complete", async || {
        let found = api.get("web").await.unwrap();
        let status = found.status.clone().unwrap_or_default();
        let at = found.metadata.annotations.as_ref().and_then(|a| a.get("deployment.kubernetes.io/revision")).cloned();
        let conditions = status.conditions.iter().flatten();
        let progressed = conditions.clone().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
        let numbers = [status.replicas, status.updated_replicas, status.available_replicas, status.ready_replicas];
        let right = numbers.iter().all(|number| *number == Some(3)) && status.unavailable_replicas.is_none();
        if right && progressed && at.as_deref() == Some(revision) {
            Ok(found)
        } else {
            Err(format!("{at:?} {status:?}"))
        }
    })
    .await
}

async fn sizes(world: &World) -> Vec<i32> {
    let mut sets = world.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items;
    let revision =
        |set: &ReplicaSet| set.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone();
    sets.sort_by_key(revision);
    sets.iter().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).collect()
}

#[tokio::test]
async fn a_deployment_rolls_out_and_goes() {
    let world = world(Options::default()).await;
    world
        .create::<Service>(json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}]}}))
        .await;
    world.create::<Deployment>(deployment("r/web:1")).await;
    complete(&world, "1").await;
    assert_eq!(sizes(&world).await, [3]);
    let ready = async || {
        let slices = world.api::<EndpointSlice>().list(&Default::default()).await.unwrap().items;
        let endpoints: Vec<String> = slices.iter().flat_map(|s| &s.endpoints).map(|e| e.addresses[0].clone()).collect();
        let port = slices.first().and_then(|s| s.ports.as_ref()?.first()?.port);
        let old = world.api::<Endpoints>().get("web").await.unwrap();
        let old = old.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).count();
        if endpoints.len() == 3 && port == Some(8080) && old == 3 {
            Ok(endpoints)
        } else {
            Err(format!("{endpoints:?} {old}"))
        }
    };
    let first = until("three endpoints", ready).await;
    let patch =
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "r/web:2"}]}}}}));
    world.api::<Deployment>().patch("web", &PatchParams::default(), &patch).await.unwrap();
    complete(&world, "2").await;
    assert_eq!(sizes(&world).await, [0, 3]);
    until("three other endpoints", async || {
        let now = ready().await?;
        if now.iter().all(|address| !first.contains(address)) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let back =
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "r/web:1"}]}}}}));
    world.api::<Deployment>().patch("web", &PatchParams::default(), &back).await.unwrap();
    complete(&world, "3").await;
    assert_eq!(sizes(&world).await, [0, 3], "the first ReplicaSet is the third revision");
    let pods = world.api::<Pod>().list(&Default::default()).await.unwrap().items;
    assert_eq!(pods.len(), 3, "never one too many for good");
    world.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    gone("ReplicaSets", world.api::<ReplicaSet>()).await;
    gone("Pods", world.api::<Pod>()).await;
    world.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    gone("EndpointSlices", world.api::<EndpointSlice>()).await;
    gone("Endpoints", world.api::<Endpoints>()).await;
}

#[tokio::test]
async fn exactly_as_many_pods_are_made_as_wanted() {
    let world = world(Options::default()).await;
    world.create::<Deployment>(deployment("r/web:1")).await;
    let names: std::collections::BTreeSet<String> = until("pods", async || {
        let events: Api<k8s_openapi::api::core::v1::Event> = world.api();
        let made = events.list(&Default::default()).await.unwrap().items;
        let made: std::collections::BTreeSet<String> = made
            .iter()
            .filter(|e| e.reason.as_deref() == Some("SuccessfulCreate"))
            .filter_map(|e| e.message.clone())
            .collect();
        if made.len() >= 3 { Ok(made) } else { Err(format!("{made:?}")) }
    })
    .await;
    complete(&world, "1").await;
    assert_eq!(names.len(), 3, "{names:?}");
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    world.api::<Deployment>().patch("web", &PatchParams::default(), &scale).await.unwrap();
    until("one pod", async || {
        let pods = world.api::<Pod>().list(&Default::default()).await.unwrap().items;
        if pods.len() == 1 { Ok(()) } else { Err(pods.len().to_string()) }
    })
    .await;
}

#[tokio::test]
async fn owners_wait_or_let_go_as_asked() {
    let world = world(Options::default()).await;
    world.create::<Deployment>(deployment("r/web:1")).await;
    complete(&world, "1").await;
    world.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    gone("Deployments", world.api::<Deployment>()).await;
    let sets = world.api::<ReplicaSet>().list(&Default::default()).await.unwrap().items;
    assert_eq!(sets.len(), 1, "the ReplicaSet stays");
    assert_eq!(sets[0].metadata.owner_references, None);
    assert_eq!(world.api::<Pod>().list(&Default::default()).await.unwrap().items.len(), 3);
    world.create::<Deployment>(deployment("r/web:1")).await;
    complete(&world, "1").await;
    assert_eq!(sizes(&world).await, [3], "the new Deployment has taken it over");
    world.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    gone("Deployments", world.api::<Deployment>()).await;
    // A pod that takes its time holds up the owner that is deleted in the foreground.
    let pods = world.api::<Pod>().list(&Default::default()).await.unwrap().items;
    let slow = pods[0].metadata.name.clone().unwrap();
    let hold = Patch::Merge(json!({"metadata": {"annotations": {"test/held": "1"}}, "spec": {}}));
    world.api::<Pod>().patch(&slow, &PatchParams::default(), &hold).await.unwrap();
    let name = sets[0].metadata.name.clone().unwrap();
    // Bound, so that its end takes a kubelet.
    let binding = json!({"metadata": {"name": slow}, "target": {"kind": "Node", "name": "n"}});
    let _: Value =
        world.api::<Pod>().create_subresource("binding", &slow, &PostParams::default(), &binding).await.unwrap();
    world.api::<ReplicaSet>().delete(&name, &DeleteParams::foreground()).await.unwrap();
    until("the others are gone", async || {
        let left: Vec<_> = world.api::<Pod>().list(&Default::default()).await.unwrap().items;
        let left: Vec<_> = left.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        if left == [slow.clone()] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let waiting = world.api::<ReplicaSet>().get(&name).await.unwrap();
    assert_eq!(waiting.metadata.finalizers, Some(vec!["foregroundDeletion".to_owned()]));
    let release = Patch::Merge(json!({"metadata": {"annotations": {"test/held": null}}}));
    world.api::<Pod>().patch(&slow, &PatchParams::default(), &release).await.unwrap();
    gone("ReplicaSets", world.api::<ReplicaSet>()).await;
}

#[tokio::test]
async fn custom_objects_are_collected_and_namespaces_emptied() {
    let world = world(Options::default()).await;
    let definitions =
        ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
    let definitions: Api<DynamicObject> = Api::all_with(world.client.clone(), &definitions);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "rockets.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced",
            "names": {"plural": "rockets", "kind": "Rocket"}, "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    definitions.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "flt-x"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), "flt-x");
    until("the namespace's account", async || accounts.get("default").await.map_err(|error| error.to_string())).await;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("x.io", "v1", "Rocket"));
    let rockets: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "flt-x", &kind);
    let rocket = |name: &str, metadata: Value| {
        let mut object = json!({"apiVersion": "x.io/v1", "kind": "Rocket", "metadata": {"name": name}});
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value::<DynamicObject>(object).unwrap()
    };
    let create = async |object| rockets.create(&PostParams::default(), &object).await.unwrap();
    let base = create(rocket("base", json!({}))).await;
    let owner = json!([{"apiVersion": "x.io/v1", "kind": "Rocket", "name": "base", "uid": base.metadata.uid}]);
    create(rocket("stage", json!({"ownerReferences": owner}))).await;
    let nobody = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "none", "uid": "none"}]);
    create(rocket("lost", json!({"ownerReferences": nobody}))).await;
    until("what nobody owns is collected", async || match rockets.get_opt("lost").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.metadata)),
    })
    .await;
    assert!(rockets.get_opt("stage").await.unwrap().is_some());
    rockets.delete("base", &DeleteParams::background()).await.unwrap();
    gone("Rockets", rockets.clone()).await;
    create(rocket("held", json!({"finalizers": ["x.io/hold"]}))).await;
    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "flt-x");
    let map = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("flt-x", &DeleteParams::default()).await.unwrap();
    gone("ConfigMaps", maps).await;
    until("the namespace says what it waits for", async || {
        let found = namespaces.get("flt-x").await.unwrap();
        let status = serde_json::to_string(&found.status).unwrap();
        if status.contains("x.io/hold in 1 resource instances") { Ok(()) } else { Err(status) }
    })
    .await;
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    rockets.patch("held", &PatchParams::default(), &release).await.unwrap();
    until("the namespace is gone", async || match namespaces.get_opt("flt-x").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.status)),
    })
    .await;
}

#[tokio::test]
async fn a_silent_node_loses_its_pods_and_a_missing_one_too() {
    let options = Options {
        node_grace: Duration::from_millis(1500),
        missing_node_grace: Duration::from_millis(300),
        root_certificate: Some("PEM".to_owned()),
        ..Options::default()
    };
    let world = world(options).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = json!({"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    let pod = |name: &str, node: &str, seconds: u32| {
        json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": node,
            "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]}})
    };
    let mut impatient = pod("impatient", "n1", 0);
    // Held: so that it can be looked at when it is to go.
    impatient["metadata"]["finalizers"] = json!(["test.io/look"]);
    world.create::<Pod>(impatient).await;
    world.create::<Pod>(pod("patient", "n1", 3600)).await;
    until("the node is not believed", async || {
        let found = nodes.get("n1").await.unwrap();
        let taints: Vec<_> =
            found.spec.iter().flat_map(|s| s.taints.iter().flatten()).map(|t| t.effect.clone()).collect();
        let ready = found.status.unwrap().conditions.unwrap().remove(0);
        let right = ready.status == "Unknown" && taints.len() == 2;
        if right { Ok(()) } else { Err(format!("{ready:?} {taints:?}")) }
    })
    .await;
    until("its impatient pod is told why it goes", async || {
        let pod = world.api::<Pod>().get("impatient").await.unwrap();
        let status = serde_json::to_string(&pod.status).unwrap();
        let right = pod.metadata.deletion_timestamp.is_some() && status.contains("DeletionByTaintManager");
        if right { Ok(()) } else { Err(status) }
    })
    .await;
    let look = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.api::<Pod>().patch("impatient", &PatchParams::default(), &look).await.unwrap();
    until("its impatient pod has left, the other is doubted", async || {
        let pods = world.api::<Pod>().list(&Default::default()).await.unwrap().items;
        let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
        let ready = pods
            .iter()
            .any(|p| serde_json::to_string(&p.status).unwrap().contains(r#""status":"True","type":"Ready""#));
        if names == ["patient"] && !ready { Ok(()) } else { Err(format!("{names:?} {ready}")) }
    })
    .await;
    let heard = Patch::Strategic(
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-02-02T00:00:00Z"}]}}),
    );
    nodes.patch_status("n1", &PatchParams::default(), &heard).await.unwrap();
    until("the node is believed again", async || {
        let taints = nodes.get("n1").await.unwrap().spec.and_then(|spec| spec.taints).unwrap_or_default();
        if taints.is_empty() { Ok(()) } else { Err(format!("{taints:?}")) }
    })
    .await;
    nodes.delete("n1", &DeleteParams::default()).await.unwrap();
    gone("Pods", world.api::<Pod>()).await;
    let certificate = world.api::<ConfigMap>().get("kube-root-ca.crt").await.unwrap();
    assert_eq!(certificate.data.unwrap()["ca.crt"], "PEM");
}
