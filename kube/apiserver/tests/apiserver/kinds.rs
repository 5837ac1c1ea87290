//! What each kind fills in, refuses and shows. What is expected here is what a real kube-apiserver answers
//! (`cargo xtask test --real-kubernetes` compares), but for what is newer than the one that is built from Debian.

use serde_json::{Value, json};

use crate::support::{Api, api};

const APPS: &str = "/apis/apps/v1/namespaces/default";
const BATCH: &str = "/apis/batch/v1/namespaces/default";
const CORE: &str = "/api/v1/namespaces/default";

fn template(restart: &str) -> Value {
    json!({
        "metadata": { "labels": { "a": "b" } },
        "spec": { "restartPolicy": restart, "containers": [{ "name": "main", "image": "nginx:1" }] },
    })
}

fn object(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": spec })
}

/// An object with the spec of a workload, and more.
fn workload(name: &str, more: Value) -> Value {
    let mut spec = json!({ "selector": { "matchLabels": { "a": "b" } }, "template": template("Always") });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    object(name, spec)
}

/// What a refusal says: `field: message` of each cause.
async fn refusal(api: &Api, path: &str, sent: Value) -> Vec<String> {
    let (code, status) = api.post(path, sent.clone()).await;
    assert_eq!(code, 422, "{sent}: {status}");
    let causes = status["details"]["causes"].as_array().unwrap().clone();
    causes.iter().map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap())).collect()
}

async fn refused(api: &Api, path: &str, sent: Value, expected: &[&str]) {
    assert_eq!(refusal(api, path, sent.clone()).await, expected, "{sent}");
}

async fn made(api: &Api, path: &str, sent: Value) -> Value {
    let (code, made) = api.post(path, sent.clone()).await;
    assert_eq!(code, 201, "{sent}: {made}");
    made
}

/// The first row of a table, without its age.
async fn row(api: &Api, path: &str) -> Vec<Value> {
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = api.raw(http::Method::GET, path, &accept, "").await;
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let table: Value = serde_json::from_slice(&body).unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns.len(), cells.len(), "{path}: as many cells as columns");
    columns.iter().zip(cells).filter(|(column, _)| column["name"] != "Age").map(|(_, cell)| cell.clone()).collect()
}

#[tokio::test]
async fn workloads_are_refused_in_upstreams_words() {
    let api = api().await;
    let [sets, daemons, deployments] = ["statefulsets", "daemonsets", "deployments"].map(|p| format!("{APPS}/{p}"));
    let (no_labels, no_containers) = (
        "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
        "spec.template.spec.containers: Required value",
    );
    refused(&api, &deployments, object("a", json!({})), &["spec.selector: Required value", no_labels, no_containers])
        .await;
    refused(&api, &daemons, object("a", json!({})), &[no_labels, no_containers]).await;
    refused(
        &api,
        &deployments,
        workload("a", json!({ "selector": {} })),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    )
    .await;
    refused(
        &api,
        &deployments,
        workload(
            "a",
            json!({ "minReadySeconds": 700, "strategy": { "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 0 } } }),
        ),
        &[
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ],
    )
    .await;
    refused(
        &api,
        &sets,
        workload("a", json!({ "podManagementPolicy": "x", "updateStrategy": { "type": "y" }, "replicas": -1 })),
        &[
            "spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'",
            "spec.updateStrategy: Invalid value: {\"type\":\"y\"}: must be 'RollingUpdate' or 'OnDelete'",
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ],
    )
    .await;
    let mut never = template("Never");
    never["spec"]["activeDeadlineSeconds"] = json!(1);
    refused(
        &api,
        &daemons,
        workload(
            "a",
            json!({ "template": never, "updateStrategy": { "rollingUpdate": { "maxUnavailable": "101%" } } }),
        ),
        &[
            "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ],
    )
    .await;
    let controllers = format!("{CORE}/replicationcontrollers");
    refused(
        &api,
        &controllers,
        object("a", json!({})),
        &["spec.selector: Required value", "spec.template: Required value"],
    )
    .await;
    let revisions = format!("{APPS}/controllerrevisions");
    refused(&api, &revisions, object("a", json!({})), &["data: Required value: data is mandatory"]).await;
}

#[tokio::test]
async fn workloads_are_completed_and_shown() {
    let api = api().await;
    let claim = json!({ "metadata": { "name": "d" }, "spec": { "accessModes": ["ReadWriteOnce"] } });
    let set =
        made(&api, &format!("{APPS}/statefulsets"), workload("web", json!({ "volumeClaimTemplates": [claim] }))).await;
    for (pointer, expected) in [
        ("/spec/replicas", json!(1)),
        ("/spec/podManagementPolicy", json!("OrderedReady")),
        ("/spec/updateStrategy", json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } })),
        ("/spec/volumeClaimTemplates/0/spec/volumeMode", json!("Filesystem")),
        ("/spec/volumeClaimTemplates/0/status", json!({ "phase": "Pending" })),
        ("/metadata/generation", json!(1)),
    ] {
        assert_eq!(set.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert!(set["spec"]["template"]["spec"]["enableServiceLinks"].is_null(), "that is for pods, not for templates");
    assert_eq!(row(&api, &format!("{APPS}/statefulsets")).await[..2], [json!("web"), json!("0/1")]);
    let daemon = made(&api, &format!("{APPS}/daemonsets"), workload("log", json!({}))).await;
    assert_eq!(daemon["spec"]["updateStrategy"]["rollingUpdate"], json!({ "maxUnavailable": 1, "maxSurge": 0 }));
    let shown = row(&api, &format!("{APPS}/daemonsets")).await;
    assert_eq!(shown[..7], [json!("log"), json!(0), json!(0), json!(0), json!(0), json!(0), json!("<none>")]);
    let old =
        made(&api, &format!("{CORE}/replicationcontrollers"), object("old", json!({ "template": template("Always") })))
            .await;
    assert_eq!((&old["spec"]["selector"], &old["metadata"]["labels"]), (&json!({ "a": "b" }), &json!({ "a": "b" })));
    let owner =
        json!([{ "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "1", "controller": true }]);
    let revision = json!({ "metadata": { "name": "r", "ownerReferences": owner }, "data": {}, "revision": 3 });
    made(&api, &format!("{APPS}/controllerrevisions"), revision).await;
    assert_eq!(
        row(&api, &format!("{APPS}/controllerrevisions")).await,
        [json!("r"), json!("statefulset.apps/web"), json!(3)]
    );
}

#[tokio::test]
async fn what_is_fixed_stays_and_status_is_written_apart() {
    let api = api().await;
    let path = format!("{APPS}/statefulsets/web");
    let mut sent = workload("web", json!({}));
    sent["status"] = json!({ "replicas": 7 });
    let set = made(&api, &format!("{APPS}/statefulsets"), sent).await;
    assert_eq!(set["status"]["replicas"], 0, "a new object has no status of its sender's");
    let (code, status) = api.patch(&path, "merge-patch", json!({ "spec": { "serviceName": "other" } })).await;
    assert_eq!(code, 422);
    assert!(status["message"].as_str().unwrap().starts_with(
        "StatefulSet.apps \"web\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas'"
    ));
    let (_, changed) =
        api.patch(&path, "merge-patch", json!({ "spec": { "replicas": 2 }, "status": { "replicas": 9 } })).await;
    assert_eq!((&changed["metadata"]["generation"], &changed["status"]["replicas"]), (&json!(2), &json!(0)));
    let (code, status) = api
        .patch(&format!("{path}/status"), "merge-patch", json!({ "status": { "replicas": 1, "readyReplicas": 2 } }))
        .await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["message"]),
        (422, &json!("Invalid value: 2: cannot be greater than status.replicas"))
    );
    let (code, changed) = api
        .patch(
            &format!("{path}/status"),
            "merge-patch",
            json!({ "status": { "replicas": 2 }, "spec": { "replicas": 5 } }),
        )
        .await;
    assert_eq!((code, &changed["spec"]["replicas"], &changed["metadata"]["generation"]), (200, &json!(2), &json!(2)));
    let (code, scale) =
        api.put(&format!("{path}/scale"), json!({ "metadata": { "name": "web" }, "spec": { "replicas": 4 } })).await;
    assert_eq!((code, &scale["spec"]["replicas"], &scale["status"]["selector"]), (200, &json!(4), &json!("a=b")));
    let (code, _) = api.get(&format!("{APPS}/daemonsets/web/scale")).await;
    assert_eq!(code, 404, "daemon sets have no scale");
}

#[tokio::test]
async fn jobs_select_their_own_pods() {
    let api = api().await;
    let jobs = format!("{BATCH}/jobs");
    let job = made(&api, &jobs, object("pi", json!({ "template": template("Never") }))).await;
    let uid = &job["metadata"]["uid"];
    assert_eq!(job["spec"]["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } }));
    let labels = json!({
        "a": "b", "controller-uid": uid, "job-name": "pi",
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": "pi",
    });
    assert_eq!((&job["spec"]["template"]["metadata"]["labels"], &job["metadata"]["labels"]), (&labels, &labels));
    for (field, expected) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(job["spec"][field], expected, "{field}");
    }
    let (code, again) = api.put(&format!("{jobs}/pi"), job.clone()).await;
    assert_eq!((code, &again["spec"], &again["metadata"]["generation"]), (200, &job["spec"], &json!(1)));
    let (code, status) = api.patch(&format!("{jobs}/pi"), "merge-patch", json!({ "spec": { "completions": 2 } })).await;
    assert_eq!(
        (code, &status["details"]["causes"][0]["message"]),
        (422, &json!("Invalid value: 2: field is immutable"))
    );
    assert_eq!(row(&api, &jobs).await[..4], [json!("pi"), json!("Running"), json!("0/1"), json!("")]);
    refused(
        &api,
        &jobs,
        object("a", json!({ "parallelism": -1, "template": template("Always") })),
        &[
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ],
    )
    .await;
    let foreign = json!({ "selector": { "matchLabels": { "controller-uid": "1" } }, "template": template("Never") });
    let why = refusal(&api, &jobs, object("a", foreign)).await;
    assert!(why[0].ends_with("`selector` not auto-generated"), "{why:?}");
    let policy = json!({ "rules": [{ "action": "FailJob", "onExitCodes": { "operator": "In", "values": [0, 3, 2] } }, { "action": "Stop", "onPodConditions": [{ "type": "DisruptionTarget" }] }] });
    refused(
        &api,
        &jobs,
        object("a", json!({ "template": template("Never"), "podFailurePolicy": policy })),
        &[
            "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,3,2]: must be ordered",
            "spec.podFailurePolicy.rules[1].action: Unsupported value: \"Stop\": supported values: \"Count\", \"FailJob\", \"Ignore\"",
        ],
    )
    .await;
    let indexed = |more: Value| {
        let mut spec = json!({ "completionMode": "Indexed", "completions": 3, "template": template("Never") });
        spec["successPolicy"] = more;
        object("i", spec)
    };
    refused(
        &api,
        &jobs,
        indexed(json!({ "rules": [{ "succeededIndexes": "0,2-3" }, { "succeededCount": 4 }] })),
        &[
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0,2-3\": error parsing succeededIndexes: too large index: \"3\"",
            "spec.successPolicy.rules[1].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of specified completions)",
        ],
    )
    .await;
    made(&api, &jobs, indexed(json!({ "rules": [{ "succeededIndexes": "0-1", "succeededCount": 1 }] }))).await;
}

#[tokio::test]
async fn cron_jobs_have_times() {
    let api = api().await;
    let crons = format!("{BATCH}/cronjobs");
    let spec = |schedule: &str| json!({ "schedule": schedule, "jobTemplate": { "spec": { "completions": 5, "template": template("OnFailure") } } });
    let cron = made(&api, &crons, object("nightly", spec("0 3 * * *"))).await;
    assert_eq!(cron["spec"]["successfulJobsHistoryLimit"], 3);
    let job = &cron["spec"]["jobTemplate"]["spec"];
    assert_eq!(
        (&job["completions"], job["backoffLimit"].is_null()),
        (&json!(5), true),
        "a job is completed when it is made"
    );
    assert_eq!(job["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(
        row(&api, &crons).await[..6],
        [json!("nightly"), json!("0 3 * * *"), json!("<none>"), json!("False"), json!(0), json!("<none>")]
    );
    let mut wrong = spec("x");
    wrong["concurrencyPolicy"] = json!("x");
    wrong["timeZone"] = json!("Mars/Olympus");
    wrong["jobTemplate"]["spec"]["manualSelector"] = json!(true);
    let mut wrong = object(&"c".repeat(53), wrong);
    wrong["spec"]["jobTemplate"]["spec"]["selector"] = json!({ "matchLabels": { "a": "b" } });
    let long = format!("metadata.name: Invalid value: {:?}: must be no more than 52 characters", "c".repeat(53));
    refused(
        &api,
        &crons,
        wrong,
        &[
            "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]",
            "spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus",
            "spec.concurrencyPolicy: Unsupported value: \"x\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
            "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` will be auto-generated",
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
            &long,
        ],
    )
    .await;
    let zone = "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
    refused(&api, &crons, object("a", spec("TZ=UTC 0 0 * * *")), &[zone]).await;
}
