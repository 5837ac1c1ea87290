//! Jobs, cron jobs, stateful and daemon sets over a real API server in process.
use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobStatus};
use k8s_openapi::api::core::v1::{Event, Node, Pod, ReplicationController};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use substrate_controllers::Options;

use crate::world::{World, gone, until, world};

fn template(exit: &str, more: Value) -> Value {
    let mut spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "r/i:1"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let annotations = if exit.is_empty() { json!({}) } else { json!({"test/exit": exit}) };
    json!({"metadata": {"labels": {"app": "x"}, "annotations": annotations}, "spec": spec})
}

fn job(name: &str, exit: &str, more: Value) -> Value {
    let mut spec = json!({"template": template(exit, json!({}))});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

fn has(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|found| found.type_ == kind && found.status == "True")
}

/// Waits until a Job says this of itself, and answers its status.
async fn says(world: &World, name: &str, kind: &str) -> JobStatus {
    until(&format!("{name} is {kind}"), async || {
        let status = world.api::<Job>().get(name).await.unwrap().status.unwrap_or_default();
        if has(&status, kind) { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

fn reason(status: &JobStatus, kind: &str) -> String {
    let found = status.conditions.iter().flatten().find(|found| found.type_ == kind).unwrap();
    found.reason.clone().unwrap()
}

async fn pods(world: &World) -> Vec<Pod> {
    world.api::<Pod>().list(&Default::default()).await.unwrap().items
}

async fn made(world: &World) -> usize {
    let events = world.api::<Event>().list(&Default::default()).await.unwrap().items;
    let messages = events.into_iter().filter(|event| event.reason.as_deref() == Some("SuccessfulCreate"));
    messages.filter_map(|event| event.message).collect::<BTreeSet<_>>().len()
}

#[tokio::test]
async fn a_job_runs_as_many_pods_as_it_needs_and_counts_each_once() {
    let world = world(Options::default()).await;
    world.create::<Job>(job("sum", "0", json!({"completions": 7, "parallelism": 3}))).await;
    let status = says(&world, "sum", "Complete").await;
    assert_eq!((status.succeeded, status.failed, status.active), (Some(7), None, None));
    assert!(has(&status, "SuccessCriteriaMet") && status.completion_time.is_some(), "{status:?}");
    let pods = pods(&world).await;
    assert_eq!((pods.len(), made(&world).await), (7, 7), "no pod too many, none twice");
    assert!(pods.iter().all(|pod| pod.metadata.finalizers.is_none()), "all are counted");
    world.api::<Job>().delete("sum", &DeleteParams::background()).await.unwrap();
    gone("Pods", world.api::<Pod>()).await;
}

#[tokio::test]
async fn a_job_that_fails_too_often_has_failed() {
    let world = world(Options::default()).await;
    world.create::<Job>(job("sum", "3", json!({"backoffLimit": 2}))).await;
    let status = says(&world, "sum", "Failed").await;
    assert_eq!(
        (status.failed, status.succeeded, reason(&status, "Failed").as_str()),
        (Some(3), None, "BackoffLimitExceeded")
    );
    let rules = json!([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]);
    world.create::<Job>(job("bug", "42", json!({"podFailurePolicy": {"rules": rules}}))).await;
    let status = says(&world, "bug", "Failed").await;
    assert_eq!((status.failed, reason(&status, "Failed").as_str()), (Some(1), "PodFailurePolicy"));
    world.create::<Job>(job("slow", "", json!({"activeDeadlineSeconds": 1}))).await;
    let status = says(&world, "slow", "Failed").await;
    assert_eq!((status.active, reason(&status, "Failed").as_str()), (None, "DeadlineExceeded"));
}

#[tokio::test]
async fn each_index_is_completed_by_its_own_pod() {
    let world = world(Options::default()).await;
    let indexed = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4, "backoffLimitPerIndex": 1});
    world.create::<Job>(job("parts", "0,0,1,0", indexed)).await;
    let status = says(&world, "parts", "Failed").await;
    assert_eq!((status.completed_indexes.as_deref(), status.failed_indexes.as_deref()), (Some("0,1,3"), Some("2")));
    assert_eq!(
        (status.succeeded, status.failed, reason(&status, "Failed").as_str()),
        (Some(3), Some(2), "FailedIndexes")
    );
    let pods = pods(&world).await;
    let hosts: BTreeSet<_> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().hostname.clone().unwrap()).collect();
    assert_eq!(hosts.into_iter().collect::<Vec<_>>(), ["parts-0", "parts-1", "parts-2", "parts-3"]);
    let enough = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    // Index 1 and 2 would run for ever.
    world.create::<Job>(job("leader", "0", enough)).await;
    let status = says(&world, "leader", "Complete").await;
    assert_eq!(
        (status.completed_indexes.as_deref(), reason(&status, "Complete").as_str()),
        (Some("0"), "SuccessPolicy")
    );
}

#[tokio::test]
async fn a_job_is_suspended_resumed_scaled_and_cleared_away() {
    let world = world(Options::default()).await;
    let jobs: Api<Job> = world.api();
    world.create::<Job>(job("sleep", "", json!({"suspend": true, "parallelism": 2, "completions": 2}))).await;
    let status = says(&world, "sleep", "Suspended").await;
    assert_eq!((status.start_time, pods(&world).await.len()), (None, 0));
    let set = async |spec: Value| {
        jobs.patch("sleep", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    };
    let active = async |count: usize| {
        until(&format!("{count} pods run"), async || {
            let found = jobs.get("sleep").await.unwrap().status.unwrap();
            let running = pods(&world).await.len();
            let says = usize::try_from(found.active.unwrap_or(0)).unwrap();
            if (running, says) == (count, count) { Ok(found) } else { Err(format!("{running} {found:?}")) }
        })
        .await
    };
    set(json!({"suspend": false})).await;
    let status = active(2).await;
    assert!(status.start_time.is_some() && !has(&status, "Suspended"), "{status:?}");
    set(json!({"parallelism": 1})).await;
    active(1).await;
    set(json!({"suspend": true})).await;
    active(0).await;
    world.create::<Job>(job("brief", "0", json!({"ttlSecondsAfterFinished": 0}))).await;
    until("the Job is cleared away", async || match jobs.get_opt("brief").await.unwrap() {
        None => Ok(()),
        Some(left) => Err(format!("{:?}", left.status)),
    })
    .await;
}

#[tokio::test]
async fn a_cron_job_makes_a_job_at_its_time() {
    let world = world(Options::default()).await;
    let cron = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "@every 1s", "successfulJobsHistoryLimit": 1,
        "timeZone": "Europe/Berlin", "jobTemplate": {"spec": {"template": template("0", json!({}))}}}});
    world.create::<CronJob>(cron).await;
    let names = async || -> BTreeSet<String> {
        let jobs = world.api::<Job>().list(&Default::default()).await.unwrap().items;
        jobs.into_iter().filter_map(|job| job.metadata.name).collect()
    };
    let first = until("a Job", async || names().await.pop_first().ok_or_else(|| "none".to_owned())).await;
    let status = until("its success is noted", async || {
        let status = world.api::<CronJob>().get("tick").await.unwrap().status.unwrap_or_default();
        let noted = status.last_successful_time.is_some() && status.last_schedule_time.is_some();
        if noted { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert!(first.starts_with("tick-") && status.active.is_none_or(|active| active.len() <= 1), "{first}");
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    world.api::<CronJob>().patch("tick", &PatchParams::default(), &patch).await.unwrap();
    world.api::<CronJob>().delete("tick", &DeleteParams::foreground()).await.unwrap();
    gone("Jobs", world.api::<Job>()).await;
    gone("CronJobs", world.api::<CronJob>()).await;
}

fn set(image: &str) -> Value {
    json!({"metadata": {"name": "db"}, "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "x"}},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
}

#[tokio::test]
async fn a_stateful_set_is_made_rolled_and_shrunk_in_order() {
    let world = world(Options::default()).await;
    world.create::<StatefulSet>(set("r/i:1")).await;
    let sets: Api<StatefulSet> = world.api();
    let complete = async |count: i32, image: &str| {
        until(&format!("{count} pods of {image}"), async || {
            let status = sets.get("db").await.unwrap().status.unwrap_or_default();
            let mut found: Vec<(String, String)> = pods(&world)
                .await
                .into_iter()
                .map(|pod| (pod.metadata.name.unwrap(), pod.spec.unwrap().containers.remove(0).image.unwrap()))
                .collect();
            found.sort();
            let wanted: Vec<(String, String)> = (0..count).map(|n| (format!("db-{n}"), image.to_owned())).collect();
            let right = status.ready_replicas.unwrap_or(0) == count
                && status.current_revision == status.update_revision
                && status.replicas == count
                && status.current_replicas.unwrap_or(0) == count;
            if found == wanted && right { Ok(status) } else { Err(format!("{found:?} {status:?}")) }
        })
        .await
    };
    let first = complete(3, "r/i:1").await;
    let made = async || -> Vec<String> {
        let mut found = pods(&world).await;
        found.sort_by_key(|pod| pod.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap());
        found.into_iter().map(|pod| pod.metadata.name.unwrap()).collect()
    };
    assert_eq!(made().await, ["db-0", "db-1", "db-2"]);
    let patch =
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "r/i:2"}]}}}}));
    sets.patch("db", &PatchParams::default(), &patch).await.unwrap();
    let second = complete(3, "r/i:2").await;
    assert_eq!(made().await, ["db-2", "db-1", "db-0"], "the last is replaced first");
    assert_ne!(first.current_revision, second.current_revision);
    let back =
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "r/i:1"}]}}}}));
    sets.patch("db", &PatchParams::default(), &back).await.unwrap();
    let third = complete(3, "r/i:1").await;
    assert_eq!(third.current_revision, first.current_revision, "the first revision again");
    let revisions = world.api::<ControllerRevision>().list(&Default::default()).await.unwrap().items;
    assert_eq!(revisions.iter().map(|one| one.revision).collect::<BTreeSet<_>>(), BTreeSet::from([2, 3]));
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    sets.patch("db", &PatchParams::default(), &scale).await.unwrap();
    complete(1, "r/i:1").await;
    sets.delete("db", &DeleteParams::foreground()).await.unwrap();
    gone("Pods", world.api::<Pod>()).await;
    gone("StatefulSets", sets.clone()).await;
    gone("ControllerRevisions", world.api::<ControllerRevision>()).await;
}

#[tokio::test]
async fn a_daemon_set_follows_the_nodes() {
    let world = world(Options { missing_node_grace: Duration::from_millis(100), ..Options::default() }).await;
    let nodes: Api<Node> = Api::all(world.client.clone());
    let node = async |name: &str, labels: Value| {
        let node = json!({"metadata": {"name": name, "labels": labels}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    };
    node("a", json!({"disk": "ssd"})).await;
    node("b", json!({"disk": "ssd"})).await;
    node("c", json!({})).await;
    let daemon = |image: &str| {
        json!({"metadata": {"name": "log"}, "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c", "image": image}]}}}})
    };
    world.create::<DaemonSet>(daemon("r/i:1")).await;
    let sets: Api<DaemonSet> = world.api();
    let on = async |wanted: &[&str], image: &str| {
        until(&format!("{image} on {wanted:?}"), async || {
            let mut found = Vec::new();
            for pod in pods(&world).await {
                let text = serde_json::to_string(&pod.spec.as_ref().unwrap().affinity).unwrap();
                let node = wanted.iter().find(|name| text.contains(&format!("\"values\":[\"{name}\"]")));
                found.push((
                    node.copied().unwrap_or("?").to_owned(),
                    pod.spec.unwrap().containers.remove(0).image.unwrap(),
                ));
            }
            found.sort();
            let wanted: Vec<(String, String)> =
                wanted.iter().map(|name| ((*name).to_owned(), image.to_owned())).collect();
            let status = sets.get("log").await.unwrap().status.unwrap();
            let count = i32::try_from(wanted.len()).unwrap();
            let numbers =
                [Some(status.desired_number_scheduled), status.number_available, status.updated_number_scheduled];
            let right = numbers.iter().all(|number| *number == Some(count));
            if found == wanted && right { Ok(()) } else { Err(format!("{found:?} {status:?}")) }
        })
        .await;
    };
    on(&["a", "b"], "r/i:1").await;
    let patch =
        Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "r/i:2"}]}}}}));
    sets.patch("log", &PatchParams::default(), &patch).await.unwrap();
    on(&["a", "b"], "r/i:2").await;
    nodes
        .patch("c", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"disk": "ssd"}}})))
        .await
        .unwrap();
    on(&["a", "b", "c"], "r/i:2").await;
    nodes.delete("a", &DeleteParams::default()).await.unwrap();
    nodes
        .patch("b", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"disk": null}}})))
        .await
        .unwrap();
    on(&["c"], "r/i:2").await;
    sets.delete("log", &DeleteParams::foreground()).await.unwrap();
    gone("DaemonSets", sets.clone()).await;
    gone("Pods", world.api::<Pod>()).await;
}

#[tokio::test]
async fn a_replication_controller_is_a_replica_set_by_another_name() {
    let world = world(Options::default()).await;
    let set = json!({"metadata": {"name": "old"}, "spec": {"replicas": 2, "selector": {"app": "x"},
        "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "r/i:1"}]}}}});
    world.create::<ReplicationController>(set).await;
    let sets: Api<ReplicationController> = world.api();
    let ready = async |count: i32| {
        until("ready", async || {
            let status = sets.get("old").await.unwrap().status.unwrap_or_default();
            let right = status.replicas == count
                && status.ready_replicas.unwrap_or(0) == count
                && status.observed_generation.is_some();
            if right { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    };
    ready(2).await;
    sets.patch("old", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}}))).await.unwrap();
    ready(1).await;
    assert_eq!(pods(&world).await.len(), 1);
    sets.delete("old", &DeleteParams::background()).await.unwrap();
    gone("Pods", world.api::<Pod>()).await;
}
