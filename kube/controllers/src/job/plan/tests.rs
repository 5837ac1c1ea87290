#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
//! The cases of upstream's conformance and integration tests of Jobs, as plans.
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::objects::name;

const NOW: &str = "2026-01-01T01:00:00Z";

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

/// A Job as the API server completes it, with this spec and status.
fn job(spec: Value, status: Value) -> Job {
    let mut job = json!({
        "metadata": {"name": "sum", "namespace": "d", "uid": "job"},
        "spec": {"parallelism": 2, "completions": 3, "backoffLimit": 6, "selector": {"matchLabels": {"app": "sum"}},
            "template": {"metadata": {"labels": {"app": "sum"}}, "spec": {"containers": [{"name": "c"}]}}},
        "status": {"startTime": "2026-01-01T00:00:00Z"},
    });
    merge(&mut job, json!({"spec": spec, "status": status}));
    serde_json::from_value(job).unwrap()
}

/// `name word…`: a phase, `leaving`, `counted` (without the finalizer), `ready`, `#1` (an index), `exit=3`, `@59:55` (ended then),
/// `tried=1`, `condition=DisruptionTarget`, `restarts=2`, `orphan`.
fn pod(text: &str) -> Arc<Pod> {
    let (name, words) = text.split_once(' ').unwrap_or((text, ""));
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "sum"}, "finalizers": [super::super::FINALIZER],
            "creationTimestamp": "2026-01-01T00:30:00Z", "annotations": {},
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "sum", "uid": "job", "controller": true}]},
        "spec": {"containers": [], "nodeName": "n"},
        "status": {"phase": "Running", "conditions": [], "containerStatuses": []},
    });
    let (mut code, mut at) = (json!(null), "2026-01-01T00:50:00Z".to_owned());
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        match word.split_once('=').unwrap_or((word, "")) {
            ("Pending" | "Failed" | "Succeeded", _) => pod["status"]["phase"] = word.into(),
            ("leaving", _) => pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:50:00Z".into(),
            ("counted", _) => pod["metadata"]["finalizers"] = json!([]),
            ("orphan", _) => pod["metadata"]["ownerReferences"] = json!([]),
            ("ready", _) => pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
            ("condition", kind) => pod["status"]["conditions"] = json!([{"type": kind, "status": "True"}]),
            ("exit", number) => code = number.parse::<i32>().unwrap().into(),
            ("tried", count) => {
                pod["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] = count.into();
            }
            ("restarts", count) => {
                let count = count.parse::<i32>().unwrap();
                let status = json!({"name": "c", "restartCount": count, "image": "", "imageID": "", "ready": true});
                pod["status"]["containerStatuses"] = json!([status]);
            }
            (word, _) if word.starts_with('#') => {
                pod["metadata"]["annotations"][super::super::indexes::INDEX] = word[1..].into()
            }
            (word, _) if word.starts_with('@') => at = format!("2026-01-01T00:{}Z", &word[1..]),
            other => panic!("{other:?}"),
        }
    }
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
        && pod["status"]["containerStatuses"] == json!([])
    {
        let code = if code.is_null() { json!(0) } else { code };
        let state = json!({"terminated": {"exitCode": code, "finishedAt": at}});
        let status =
            json!({"name": "c", "restartCount": 0, "state": state, "image": "", "imageID": "", "ready": false});
        pod["status"]["containerStatuses"] = json!([status]);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn planned(job: &Job, pods: &[&str], backoff: Backoff) -> Plan {
    let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
    plan(job, &pods, backoff, NOW.parse().unwrap())
}

/// What is done, and what the status says then.
fn words(plan: &Plan) -> String {
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| name(&pod.metadata)).collect::<Vec<_>>().join(",");
    let indexes = |pods: &[Pod]| {
        let of = |pod: &Pod| {
            pod.metadata.annotations.clone().unwrap_or_default().into_values().collect::<Vec<_>>().join("/")
        };
        pods.iter().map(|pod| format!("#{}", of(pod))).collect::<Vec<_>>().join(" ")
    };
    let mut text = Vec::new();
    let mut say = |label: &str, value: String| {
        if !value.is_empty() {
            text.push(format!("{label} {value}"));
        }
    };
    say("adopt", names(&plan.claim.adopt));
    say("delete", names(&plan.changes.delete));
    say("create", indexes(&plan.changes.create));
    say("release", names(&plan.release));
    if let Some(wake) = plan.wake {
        say("wake", format!("{wake:?}"));
    }
    if let Some(status) = &plan.status {
        let n = |count: Option<i32>| count.unwrap_or(0);
        let numbers = [status.active, status.ready, status.terminating, status.succeeded, status.failed].map(n);
        say("active/ready/terminating/succeeded/failed", format!("{numbers:?}"));
        let named = status.uncounted_terminated_pods.clone().unwrap_or_default();
        say("named", [named.succeeded, named.failed].into_iter().flatten().flatten().collect::<Vec<_>>().join(","));
        say("completed", status.completed_indexes.clone().unwrap_or_default());
        say("failed", status.failed_indexes.clone().unwrap_or_default());
        for c in status.conditions.iter().flatten() {
            let (reason, message) = (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
            say(&c.type_, format!("{} {reason}: {message}", c.status));
        }
    }
    text.join("\n")
}

fn check(spec: Value, status: Value, pods: &[&str], expected: Expect) {
    expected.assert_eq(&words(&planned(&job(spec, status), pods, Backoff::default())));
}

#[test]
fn so_many_run_as_are_lacking() {
    check(
        json!({}),
        json!({}),
        &[],
        expect![[r#"
        create # #
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]"#]],
    );
    check(
        json!({}),
        json!({}),
        &["a ready", "b"],
        expect!["active/ready/terminating/succeeded/failed [2, 1, 0, 0, 0]"],
    );
    check(
        json!({}),
        json!({"succeeded": 2}),
        &["a ready", "b"],
        expect![[r#"
        delete b
        active/ready/terminating/succeeded/failed [1, 1, 1, 2, 0]"#]],
    );
    check(
        json!({"parallelism": 0}),
        json!({}),
        &["a"],
        expect![[r#"
        delete a
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 0]"#]],
    );
    // A queue: nobody says how many, and one success ends the making of others.
    check(
        json!({"completions": null}),
        json!({}),
        &["a"],
        expect![[r#"
        create #
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]"#]],
    );
    check(
        json!({"completions": null}),
        json!({"succeeded": 1}),
        &["a"],
        expect!["active/ready/terminating/succeeded/failed [1, 0, 0, 1, 0]"],
    );
    check(json!({}), json!({}), &["a orphan"], expect!["adopt a"]);
}

#[test]
fn an_end_is_named_released_and_counted_in_this_order() {
    check(
        json!({}),
        json!({}),
        &["a Succeeded", "b"],
        expect![[r#"
        create #
        release a
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        json!({}),
        json!({"uncountedTerminatedPods": {"succeeded": ["a"]}}),
        &["a Succeeded", "b"],
        expect![[r#"
        create #
        release a
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        json!({}),
        json!({"uncountedTerminatedPods": {"succeeded": ["a"]}}),
        &["a Succeeded counted", "b"],
        expect![[r#"
        create #
        active/ready/terminating/succeeded/failed [2, 0, 0, 1, 0]"#]],
    );
    check(
        json!({}),
        json!({"uncountedTerminatedPods": {"succeeded": ["a"]}}),
        &["b"],
        expect![[r#"
        create #
        active/ready/terminating/succeeded/failed [2, 0, 0, 1, 0]"#]],
    );
    // Whoever is counted and still there is not counted again.
    check(
        json!({}),
        json!({"succeeded": 1}),
        &["a Succeeded counted", "b"],
        expect![[r#"
        create #
        active/ready/terminating/succeeded/failed [2, 0, 0, 1, 0]"#]],
    );
}

#[test]
fn a_job_is_complete_when_all_is_counted() {
    let enough = json!({"succeeded": 2});
    check(
        json!({}),
        enough.clone(),
        &["a Succeeded"],
        expect![[r#"
        release a
        active/ready/terminating/succeeded/failed [0, 0, 0, 2, 0]
        named a
        SuccessCriteriaMet True CompletionsReached: Reached expected number of succeeded pods"#]],
    );
    let met =
        json!([{"type": "SuccessCriteriaMet", "status": "True", "reason": "CompletionsReached", "message": "Reached"}]);
    let said = json!({"succeeded": 2, "conditions": met, "uncountedTerminatedPods": {"succeeded": ["a"]}});
    check(
        json!({}),
        said,
        &["a Succeeded counted"],
        expect![[r#"
        active/ready/terminating/succeeded/failed [0, 0, 0, 3, 0]
        SuccessCriteriaMet True CompletionsReached: Reached
        Complete True CompletionsReached: Reached"#]],
    );
    check(
        json!({}),
        json!({"succeeded": 3, "conditions": met}),
        &["b leaving counted"],
        expect![[r#"
        active/ready/terminating/succeeded/failed [0, 0, 1, 3, 0]
        SuccessCriteriaMet True CompletionsReached: Reached"#]],
    );
    let over = json!({"succeeded": 3, "conditions": [{"type": "Complete", "status": "True"}]});
    check(json!({}), over, &["a Succeeded"], expect![[""]]);
    // None is wanted: complete at once.
    check(
        json!({"completions": 0}),
        json!({}),
        &[],
        expect![[r#"
        active/ready/terminating/succeeded/failed [0, 0, 0, 0, 0]
        SuccessCriteriaMet True CompletionsReached: Reached expected number of succeeded pods
        Complete True CompletionsReached: Reached expected number of succeeded pods"#]],
    );
}

#[test]
fn failures_are_counted_and_waited_for() {
    let after = |failures: u32, at: &str, pods: &[&str], expected: Expect| {
        let last = Some(format!("2026-01-01T00:{at}Z").parse().unwrap());
        expected.assert_eq(&words(&planned(&job(json!({}), json!({})), pods, Backoff { failures, last })));
    };
    after(
        1,
        "59:55",
        &[],
        expect![[r#"
        wake 5s
        active/ready/terminating/succeeded/failed [0, 0, 0, 0, 0]"#]],
    );
    after(
        3,
        "59:55",
        &[],
        expect![[r#"
        wake 35s
        active/ready/terminating/succeeded/failed [0, 0, 0, 0, 0]"#]],
    );
    after(
        99,
        "59:55",
        &[],
        expect![[r#"
        wake 595s
        active/ready/terminating/succeeded/failed [0, 0, 0, 0, 0]"#]],
    );
    after(
        1,
        "59:50",
        &[],
        expect![[r#"
        create # #
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]"#]],
    );
    // A success wipes out what was before it.
    after(
        3,
        "59:55",
        &["a Succeeded @59:56"],
        expect![[r#"
        create # #
        release a
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        json!({}),
        json!({}),
        &["a Failed exit=1 @59:58", "b"],
        expect![[r#"
        release a
        wake 8s
        active/ready/terminating/succeeded/failed [1, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        json!({"backoffLimit": 1}),
        json!({"failed": 1}),
        &["a Failed exit=1", "b ready"],
        expect![[r#"
        delete b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 1]
        named a,b
        FailureTarget True BackoffLimitExceeded: Job has reached the specified backoff limit"#]],
    );
    let target =
        json!([{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has"}]);
    let waits = json!({"failed": 1, "conditions": target, "uncountedTerminatedPods": {"failed": ["a", "b"]}});
    check(
        json!({}),
        waits.clone(),
        &["a Failed counted", "b leaving counted"],
        expect![[r#"
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 3]
        FailureTarget True BackoffLimitExceeded: Job has"#]],
    );
    check(
        json!({}),
        waits,
        &["a Failed counted"],
        expect![[r#"
        active/ready/terminating/succeeded/failed [0, 0, 0, 0, 3]
        FailureTarget True BackoffLimitExceeded: Job has
        Failed True BackoffLimitExceeded: Job has"#]],
    );
    // One that is deleted has failed, unless its end is waited for.
    check(
        json!({}),
        json!({}),
        &["a leaving", "b"],
        expect![[r#"
        create #
        release a
        active/ready/terminating/succeeded/failed [2, 0, 1, 0, 0]
        named a"#]],
    );
    check(
        json!({"podReplacementPolicy": "Failed"}),
        json!({}),
        &["a leaving", "b"],
        expect!["active/ready/terminating/succeeded/failed [1, 0, 1, 0, 0]"],
    );
}

#[test]
fn containers_that_are_restarted_count() {
    let often = json!({"backoffLimit": 3, "template": {"spec": {"restartPolicy": "OnFailure"}}});
    check(
        often.clone(),
        json!({}),
        &["a restarts=1", "b restarts=1"],
        expect!["active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]"],
    );
    check(
        often,
        json!({}),
        &["a restarts=1", "b restarts=2"],
        expect![[r#"
        delete a,b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 2, 0, 0]
        named a,b
        FailureTarget True BackoffLimitExceeded: Job has reached the specified backoff limit"#]],
    );
}

#[test]
fn a_deadline_ends_a_job_and_is_not_held_against_one_that_sleeps() {
    check(
        json!({"activeDeadlineSeconds": 3601}),
        json!({}),
        &["a", "b"],
        expect![[r#"
        wake 1s
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]"#]],
    );
    check(
        json!({"activeDeadlineSeconds": 3600}),
        json!({}),
        &["a", "b"],
        expect![[r#"
        delete a,b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 2, 0, 0]
        named a,b
        FailureTarget True DeadlineExceeded: Job was active longer than specified deadline"#]],
    );
    let slept = json!({"conditions": [{"type": "Suspended", "status": "True"}]});
    check(
        json!({"activeDeadlineSeconds": 60}),
        slept.clone(),
        &[],
        expect![[r#"
        create # #
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        Suspended False JobResumed: Job resumed"#]],
    );
    check(
        json!({"suspend": true, "activeDeadlineSeconds": 60}),
        json!({}),
        &["a ready", "b"],
        expect![[r#"
        delete b,a
        active/ready/terminating/succeeded/failed [0, 0, 2, 0, 0]
        Suspended True JobSuspended: Job suspended"#]],
    );
    check(
        json!({"suspend": true}),
        json!({"startTime": null}),
        &[],
        expect![[r#"
        active/ready/terminating/succeeded/failed [0, 0, 0, 0, 0]
        Suspended True JobSuspended: Job suspended"#]],
    );
}

#[test]
fn each_index_has_one_pod() {
    let indexed = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3});
        merge(&mut spec, more);
        spec
    };
    check(
        indexed(json!({})),
        json!({"completedIndexes": "1"}),
        &["a #0"],
        expect![[r#"
        create #2 #3
        active/ready/terminating/succeeded/failed [3, 0, 0, 1, 0]
        completed 1"#]],
    );
    check(
        indexed(json!({})),
        json!({}),
        &["a #0", "b #0", "c", "d #9"],
        expect![[r#"
        delete b,c,d
        active/ready/terminating/succeeded/failed [1, 0, 3, 0, 0]"#]],
    );
    check(
        indexed(json!({})),
        json!({"completedIndexes": "0"}),
        &["a #1 Succeeded", "b #2", "c #7 Succeeded"],
        expect![[r#"
        create #3 #4
        release a,c
        active/ready/terminating/succeeded/failed [3, 0, 0, 2, 0]
        completed 0,1"#]],
    );
    check(
        indexed(json!({})),
        json!({"completedIndexes": "0-3"}),
        &["a #4 Succeeded"],
        expect![[r#"
        release a
        active/ready/terminating/succeeded/failed [0, 0, 0, 5, 0]
        completed 0-4
        SuccessCriteriaMet True CompletionsReached: Reached expected number of succeeded pods"#]],
    );
    // Enough, though not all.
    let enough = json!({"successPolicy": {"rules": [{"succeededIndexes": "0,4"}, {"succeededIndexes": "1-3", "succeededCount": 2}]}});
    check(
        indexed(enough.clone()),
        json!({"completedIndexes": "0"}),
        &["a #1 Succeeded", "b #2"],
        expect![[r#"
        create #3 #4
        release a
        active/ready/terminating/succeeded/failed [3, 0, 0, 2, 0]
        completed 0,1"#]],
    );
    check(
        indexed(enough),
        json!({"completedIndexes": "3"}),
        &["a #1 Succeeded", "b #2 ready"],
        expect![[r#"
        delete b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 1, 2, 0]
        completed 1,3
        SuccessCriteriaMet True SuccessPolicy: Matched rules at index 1"#]],
    );
}

#[test]
fn an_index_has_a_limit_of_its_own() {
    let limited = |more: Value| {
        let mut spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": null, "backoffLimitPerIndex": 1});
        merge(&mut spec, more);
        spec
    };
    // Its successor says how often the index had failed; until then the pod is kept.
    check(
        limited(json!({})),
        json!({}),
        &["a #0 Failed exit=1", "b #1", "c #2"],
        expect![[r#"
        create #0/1
        active/ready/terminating/succeeded/failed [3, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        limited(json!({})),
        json!({}),
        &["a #0 Failed exit=1 @59:55", "b #1", "c #2"],
        expect![[r#"
        wake 5s
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        limited(json!({})),
        json!({}),
        &["a #0 Failed exit=1", "A #0 tried=1", "b #1", "c #2"],
        expect![[r#"
        release a
        active/ready/terminating/succeeded/failed [3, 0, 0, 0, 0]
        named a"#]],
    );
    check(
        limited(json!({})),
        json!({}),
        &["a #0 Failed tried=1 exit=1", "b #1", "c #2"],
        expect![[r#"
        release a
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        named a
        failed 0"#]],
    );
    check(
        limited(json!({})),
        json!({"failedIndexes": "0", "completedIndexes": "1"}),
        &["c #2 Succeeded"],
        expect![[r#"
        release c
        active/ready/terminating/succeeded/failed [0, 0, 0, 2, 0]
        completed 1,2
        failed 0
        FailureTarget True FailedIndexes: Job has failed indexes"#]],
    );
    check(
        limited(json!({"maxFailedIndexes": 0})),
        json!({}),
        &["a #0 Failed tried=1 exit=1", "b #1"],
        expect![[r#"
        delete b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 0]
        named a,b
        failed 0
        FailureTarget True MaxFailedIndexesExceeded: Job has exceeded the specified maximal number of failed indexes"#]],
    );
    let policy = json!({"podFailurePolicy": {"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [3]}}]}});
    check(
        limited(policy),
        json!({}),
        &["a #0 Failed exit=3", "b #1", "c #2"],
        expect![[r#"
        release a
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]
        named a
        failed 0"#]],
    );
}

#[test]
fn a_policy_says_what_a_failure_means() {
    let policy = json!({"backoffLimit": 0, "podFailurePolicy": {"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "NotIn", "values": [1, 2]}},
        {"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}}]}});
    check(
        policy.clone(),
        json!({}),
        &["a Failed condition=DisruptionTarget exit=3", "b"],
        expect![[r#"
        create #
        release a
        active/ready/terminating/succeeded/failed [2, 0, 0, 0, 0]"#]],
    );
    check(
        policy.clone(),
        json!({}),
        &["a Failed exit=3", "b"],
        expect![[r#"
        delete b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 0]
        named a,b
        FailureTarget True PodFailurePolicy: Container c for pod d/a failed with exit code 3 matching FailJob rule at index 1"#]],
    );
    // Success is no failure that a rule could mean: it was taken away.
    check(
        policy.clone(),
        json!({}),
        &["a Failed exit=0", "b"],
        expect![[r#"
        delete b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 0]
        named a,b
        FailureTarget True BackoffLimitExceeded: Job has reached the specified backoff limit"#]],
    );
    check(
        policy,
        json!({}),
        &["a Failed exit=1", "b"],
        expect![[r#"
        delete b
        release a,b
        active/ready/terminating/succeeded/failed [0, 0, 1, 0, 0]
        named a,b
        FailureTarget True BackoffLimitExceeded: Job has reached the specified backoff limit"#]],
    );
}

#[test]
fn a_pod_knows_its_index() {
    let spec = json!({"completionMode": "Indexed", "template": {"spec": {"initContainers": [{"name": "i"}],
        "containers": [{"name": "c"}, {"name": "own", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "mine"}]}]}}});
    let plan = planned(&job(spec, json!({})), &[], Backoff::default());
    let pod = serde_json::to_string_pretty(&json!(plan.changes.create[1])).unwrap();
    let has = |text: &str| assert!(pod.contains(text), "{text}\n{pod}");
    has(r#""hostname": "sum-1""#);
    has(r#""generateName": "sum-1-""#);
    has(r#""batch.kubernetes.io/job-tracking""#);
    has(r#""value": "mine""#);
    assert_eq!(pod.matches("metadata.labels['batch.kubernetes.io/job-completion-index']").count(), 2, "{pod}");
    assert_eq!(pod.matches(r#""batch.kubernetes.io/job-completion-index": "1""#).count(), 2, "{pod}");
    let long = Job {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("n".repeat(63)),
            ..job(json!({}), json!({})).metadata
        },
        ..job(json!({"completionMode": "Indexed"}), json!({}))
    };
    let name = planned(&long, &[], Backoff::default()).changes.create[0].metadata.generate_name.clone().unwrap();
    assert_eq!((name.len(), name.ends_with("-0-")), (58, true), "{name}");
}

#[test]
fn a_job_that_somebody_else_manages_or_that_goes_is_let_alone() {
    check(json!({"managedBy": "example.com/queue"}), json!({}), &[], expect![[""]]);
    let mut leaving = job(json!({}), json!({}));
    leaving.metadata.deletion_timestamp = Some(Time(NOW.parse().unwrap()));
    expect![[r#"
        release a,b
        active/ready/terminating/succeeded/failed [1, 0, 0, 0, 0]
        named b"#]]
    .assert_eq(&words(&planned(&leaving, &["a", "b Succeeded"], Backoff::default())));
}
