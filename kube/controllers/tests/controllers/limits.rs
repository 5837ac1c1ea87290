//! Budgets, quotas, autoscalers and volumes over a real API server in process.
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use substrate_controllers::Options;

use crate::world::{World, gone, until, world};

async fn deployment(world: &World, replicas: i32) {
    let resources = json!({"requests": {"cpu": "100m"}});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "r/i:1", "resources": resources}]}}}});
    world.create::<Deployment>(deployment).await;
}

#[tokio::test]
async fn a_budget_allows_what_is_beyond_it() {
    let world = world(Options::default()).await;
    deployment(&world, 3).await;
    let budget = json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    world.create::<PodDisruptionBudget>(budget).await;
    let says = async |wanted: [i32; 4]| {
        until(&format!("{wanted:?}"), async || {
            let status = world.api::<PodDisruptionBudget>().get("web").await.unwrap().status.unwrap_or_default();
            let found =
                [status.disruptions_allowed, status.current_healthy, status.desired_healthy, status.expected_pods];
            if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    };
    says([1, 3, 2, 3]).await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    world.api::<Deployment>().patch("web", &PatchParams::default(), &scale).await.unwrap();
    says([1, 1, 0, 1]).await;
}

#[tokio::test]
async fn a_quota_says_what_is_used_and_gives_back() {
    let world = world(Options::default()).await;
    let hard = json!({"pods": "9", "requests.cpu": "2", "count/deployments.apps": "3", "configmaps": "9"});
    world.create::<ResourceQuota>(json!({"metadata": {"name": "all"}, "spec": {"hard": hard}})).await;
    until("the quota is counted", async || {
        let quota = world.api::<ResourceQuota>().get("all").await.unwrap();
        quota.status.and_then(|status| status.used).filter(|used| used.len() == 4).ok_or("not yet".to_owned())
    })
    .await;
    deployment(&world, 3).await;
    let uses = async |wanted: &[(&str, &str)]| {
        until(&format!("{wanted:?}"), async || {
            let status = world.api::<ResourceQuota>().get("all").await.unwrap().status.unwrap_or_default();
            let used = status.used.unwrap_or_default();
            let right = wanted.iter().all(|(name, amount)| used.get(*name).is_some_and(|found| found.0 == *amount));
            if right { Ok(()) } else { Err(format!("{used:?}")) }
        })
        .await;
    };
    uses(&[("pods", "3"), ("requests.cpu", "300m"), ("count/deployments.apps", "1")]).await;
    world.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    uses(&[("pods", "0"), ("requests.cpu", "0"), ("count/deployments.apps", "0")]).await;
}

#[tokio::test]
async fn an_autoscaler_keeps_its_limits_and_says_that_nothing_is_measured() {
    let world = world(Options::default()).await;
    deployment(&world, 1).await;
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
    let hpa = json!({"metadata": {"name": "web"}, "spec": {"minReplicas": 2, "maxReplicas": 4, "metrics": [metric],
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    world.create::<HorizontalPodAutoscaler>(hpa).await;
    let reason = async |wanted: &str| {
        until(wanted, async || {
            let status = world.api::<HorizontalPodAutoscaler>().get("web").await.unwrap().status.unwrap_or_default();
            let conditions = serde_json::to_string(&status.conditions).unwrap();
            if conditions.contains(wanted) { Ok(status) } else { Err(conditions) }
        })
        .await
    };
    let status = reason("the HPA controller was able to update the target scale to 2").await;
    assert_eq!(status.desired_replicas, 2);
    assert_eq!(world.api::<Deployment>().get("web").await.unwrap().spec.unwrap().replicas, Some(2));
    let more = Patch::Merge(json!({"spec": {"maxReplicas": 5}}));
    world.api::<HorizontalPodAutoscaler>().patch("web", &PatchParams::default(), &more).await.unwrap();
    reason("no metrics returned from resource metrics API").await;
    let nobody = Patch::Merge(json!({"spec": {"scaleTargetRef": {"name": "nobody"}}}));
    world.api::<HorizontalPodAutoscaler>().patch("web", &PatchParams::default(), &nobody).await.unwrap();
    reason("FailedGetScale").await;
}

#[tokio::test]
async fn a_stateful_set_gets_its_volumes_and_they_stay_while_they_are_used() {
    let world = world(Options::default()).await;
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    for name in ["one", "two"] {
        let volume = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/srv"}}});
        volumes.create(&PostParams::default(), &serde_json::from_value(volume).unwrap()).await.unwrap();
    }
    let template = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "x"}},
        "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
        "volumeClaimTemplates": [template],
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "r/i:1"}]}}}});
    world.create::<StatefulSet>(set).await;
    let phases = async |wanted: Value| {
        until(&wanted.to_string(), async || {
            let claims = world.api::<PersistentVolumeClaim>().list(&Default::default()).await.unwrap().items;
            let claims = claims.into_iter().map(|claim| (claim.metadata.name, claim.status.unwrap_or_default().phase));
            let volumes = volumes.list(&Default::default()).await.unwrap().items;
            let mut volumes: Vec<_> = volumes.into_iter().map(|v| v.status.unwrap_or_default().phase).collect();
            volumes.sort();
            let found = json!([claims.collect::<Vec<_>>(), volumes]);
            if found == wanted { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    };
    phases(json!([[["data-db-0", "Bound"], ["data-db-1", "Bound"]], ["Bound", "Bound"]])).await;
    // It waits for its pod.
    world.api::<PersistentVolumeClaim>().delete("data-db-0", &DeleteParams::background()).await.unwrap();
    phases(json!([[["data-db-0", "Bound"], ["data-db-1", "Bound"]], ["Bound", "Bound"]])).await;
    let fewer = Patch::Merge(json!({"spec": {"replicas": 0}}));
    world.api::<StatefulSet>().patch("db", &PatchParams::default(), &fewer).await.unwrap();
    gone("Pods", world.api::<Pod>()).await;
    phases(json!([[], ["Released", "Released"]])).await;
}
