//! A pod whose claim waits for it, over a real API server in process; the story is the controller that binds.
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::world::{add_node, add_pod, cluster, pods, until};

#[tokio::test]
async fn the_volume_is_chosen_with_the_node_and_the_pod_waits_until_it_is_bound() {
    let (client, _tasks) = cluster().await;
    let (claims, volumes, classes) = (
        Api::<PersistentVolumeClaim>::namespaced(client.clone(), "default"),
        Api::<PersistentVolume>::all(client.clone()),
        Api::<StorageClass>::all(client.clone()),
    );
    let class = json!({"metadata": {"name": "flt-local"}, "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"});
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    for name in ["a", "b"] {
        add_node(&client, name).await;
        let labels = Patch::Merge(json!({"metadata": {"labels": {"kubernetes.io/hostname": name}}}));
        Api::<Node>::all(client.clone()).patch(name, &PatchParams::default(), &labels).await.unwrap();
    }
    let spec = json!({"storageClassName": "flt-local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "data"}, "spec": spec});
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    add_pod(&client, "flt-user", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}))
        .await;
    until("it says why", async || {
        let said = serde_json::to_string(&pods(&client).get("flt-user").await.unwrap().status).unwrap();
        let words = "2 node(s) didn't find available persistent volumes to bind. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
        if said.contains(words) { Ok(()) } else { Err(said) }
    })
    .await;
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]);
    let spec = json!({"storageClassName": "flt-local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
        "local": {"path": "/srv"}, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
    let volume = json!({"metadata": {"name": "flt-on-b"}, "spec": spec});
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    let uid = claims.get("data").await.unwrap().metadata.uid;
    until("the volume is promised", async || {
        let reference = volumes.get("flt-on-b").await.unwrap().spec.unwrap().claim_ref;
        if reference.as_ref().is_some_and(|known| known.uid == uid) { Ok(()) } else { Err(format!("{reference:?}")) }
    })
    .await;
    let node = async || pods(&client).get("flt-user").await.unwrap().spec.unwrap().node_name;
    assert_eq!(node().await, None, "not before it is bound");
    let annotations = json!({"pv.kubernetes.io/bind-completed": "yes"});
    let done = Patch::Merge(json!({"metadata": {"annotations": annotations}, "spec": {"volumeName": "flt-on-b"}}));
    claims.patch("data", &PatchParams::default(), &done).await.unwrap();
    until("the pod is where its volume is", async || match node().await {
        Some(at) if at == "b" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn room_is_kept_while_a_volume_is_made_and_given_up_with_the_pod() {
    let (client, _tasks) = cluster().await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), "default");
    let classes: Api<StorageClass> = Api::all(client.clone());
    let class = json!({"metadata": {"name": "flt-made"}, "provisioner": "flt.io/maker", "volumeBindingMode": "WaitForFirstConsumer"});
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
    add_node(&client, "a").await;
    let spec = json!({"storageClassName": "flt-made", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claim = json!({"metadata": {"name": "data"}, "spec": spec});
    claims.create(&PostParams::default(), &serde_json::from_value(claim).unwrap()).await.unwrap();
    let all = json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "4"}}}]);
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    add_pod(&client, "flt-user", json!({"containers": all, "volumes": volumes})).await;
    until("who makes volumes is told the node", async || {
        let told = claims.get("data").await.unwrap().metadata.annotations.unwrap_or_default();
        if told.get("volume.kubernetes.io/selected-node").is_some_and(|node| node == "a") {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    add_pod(&client, "flt-late", json!({})).await;
    until("the late one waits", async || {
        let said = serde_json::to_string(&pods(&client).get("flt-late").await.unwrap().status).unwrap();
        if said.contains("1 Insufficient cpu") { Ok(()) } else { Err(said) }
    })
    .await;
    pods(&client).delete("flt-user", &DeleteParams::default()).await.unwrap();
    until("the late one gets the room", async || {
        match pods(&client).get("flt-late").await.unwrap().spec.unwrap().node_name {
            Some(_) => Ok(()),
            None => Err("waits".to_owned()),
        }
    })
    .await;
}
