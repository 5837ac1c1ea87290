#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
//! The cases of upstream's tests of CronJobs, as plans.
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

/// `name end`, where the end is `runs`, `Complete` or `Failed`, with the minute when it began.
fn job(text: &str) -> Arc<Job> {
    let words: Vec<&str> = text.split(' ').collect();
    let [title, end, minute] = words[..] else { panic!("{text}") };
    let start = format!("2026-01-01T00:{minute}:00Z");
    let end = match end {
        "runs" => json!({"startTime": start}),
        end => json!({"startTime": start, "completionTime": start,
            "conditions": [{"type": end, "status": "True", "lastTransitionTime": start}]}),
    };
    let owner = json!({"apiVersion": "batch/v1", "kind": "CronJob", "name": "tick", "uid": "cron", "controller": true});
    let job = json!({"metadata": {"name": title, "uid": title, "ownerReferences": [owner]}, "status": end});
    Arc::new(serde_json::from_value(job).unwrap())
}

fn planned(spec: Value, status: Value, jobs: &[&str], gone: &[&str], now: &str) -> Plan {
    let mut wanted = json!({"schedule": "*/10 * * * *", "concurrencyPolicy": "Allow",
        "jobTemplate": {"metadata": {"labels": {"l": "1"}, "annotations": {"a": "1"}}, "spec": {"template": {}}}});
    wanted.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata =
        json!({"name": "tick", "namespace": "d", "uid": "cron", "creationTimestamp": "2026-01-01T00:05:00Z"});
    let cron = serde_json::from_value(json!({"metadata": metadata, "spec": wanted, "status": status})).unwrap();
    let jobs: Vec<Arc<Job>> = jobs.iter().map(|text| job(text)).collect();
    let now = format!("2026-01-01T{now}Z").parse().unwrap();
    plan(&cron, &own(&cron, &jobs), &gone.iter().map(|uid| (*uid).to_owned()).collect(), now)
}

fn check(spec: Value, status: Value, jobs: &[&str], gone: &[&str], now: &str, expected: Expect) {
    let plan = planned(spec, status, jobs, gone, now);
    let names = |list: &[ObjectReference]| list.iter().filter_map(|one| one.name.clone()).collect::<Vec<_>>().join(",");
    let mut text = Vec::new();
    if let Some((job, at)) = &plan.create {
        text.push(format!("create {} for {at}", name(&job.metadata)));
    }
    if !plan.replace.is_empty() {
        text.push(format!("replace {}", names(&plan.replace)));
    }
    if !plan.delete.is_empty() {
        let names: Vec<&str> = plan.delete.iter().map(|job| name(&job.metadata)).collect();
        text.push(format!("delete {}", names.join(",")));
    }
    if let Some(status) = &plan.status {
        let last = status.last_successful_time.as_ref().map(|time| time.0);
        text.push(format!("active [{}] last success {last:?}", names(status.active.as_deref().unwrap_or_default())));
    }
    text.extend(plan.events.iter().map(|(_, reason, message)| format!("{reason}: {message}")));
    text.push(format!("wake {:?}", plan.wake));
    expected.assert_eq(&text.join("\n"));
}

fn active(names: &[&str]) -> Value {
    json!(names.iter().map(|name| json!({"name": name, "uid": name})).collect::<Vec<_>>())
}

#[test]
fn a_job_is_made_at_its_time_and_once() {
    check(json!({}), json!({}), &[], &[], "00:09:59", expect!["wake Some(1s)"]);
    check(
        json!({}),
        json!({}),
        &[],
        &[],
        "00:10:00",
        expect![[r#"
        create tick-29453770 for 2026-01-01T00:10:00Z
        wake Some(600s)"#]],
    );
    let made = json!({"lastScheduleTime": "2026-01-01T00:10:00Z"});
    check(json!({}), made.clone(), &[], &[], "00:10:01", expect!["wake Some(599s)"]);
    // It was away: of the times that it has missed the last.
    check(
        json!({}),
        made.clone(),
        &[],
        &[],
        "00:47:00",
        expect![[r#"
        create tick-29453800 for 2026-01-01T00:40:00Z
        wake Some(180s)"#]],
    );
    check(
        json!({"startingDeadlineSeconds": 600}),
        made.clone(),
        &[],
        &[],
        "00:47:00",
        expect![[r#"
        create tick-29453800 for 2026-01-01T00:40:00Z
        wake Some(180s)"#]],
    );
    check(json!({"startingDeadlineSeconds": 60}), made.clone(), &[], &[], "00:47:00", expect!["wake Some(180s)"]);
    check(
        json!({"schedule": "* * * * *"}),
        made,
        &[],
        &[],
        "23:59:30",
        expect![[r#"
        create tick-29455199 for 2026-01-01T23:59:00Z
        TooManyMissedTimes: too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        wake Some(30s)"#]],
    );
}

#[test]
fn who_is_active_still_has_to_do_with_what_is_due() {
    let status = json!({"lastScheduleTime": "2026-01-01T00:10:00Z", "active": active(&["old"])});
    let due = |policy: &str, expected: Expect| {
        check(json!({"concurrencyPolicy": policy}), status.clone(), &["old runs 10"], &[], "00:20:00", expected);
    };
    due(
        "Allow",
        expect![[r#"
        create tick-29453780 for 2026-01-01T00:20:00Z
        wake Some(600s)"#]],
    );
    due(
        "Forbid",
        expect![[r#"
        JobAlreadyActive: Not starting job because prior execution is running and concurrency policy is Forbid
        wake Some(600s)"#]],
    );
    due(
        "Replace",
        expect![[r#"
        create tick-29453780 for 2026-01-01T00:20:00Z
        replace old
        wake Some(600s)"#]],
    );
    check(json!({"suspend": true}), status, &["old runs 10"], &[], "00:20:00", expect!["wake None"]);
}

#[test]
fn what_has_ended_is_noted() {
    let status = json!({"lastScheduleTime": "2026-01-01T00:10:00Z", "active": active(&["done", "lost", "late"])});
    let jobs = ["done Complete 10", "by-hand runs 11"];
    check(
        json!({}),
        status,
        &jobs,
        &["lost"],
        "00:12:00",
        expect![[r#"
        active [late] last success Some(2026-01-01T00:10:00Z)
        SawCompletedJob: Saw completed job: done, condition: Complete
        UnexpectedJob: Saw a job that the controller did not create or forgot: by-hand
        MissingJob: Active job went missing: lost
        wake Some(480s)"#]],
    );
}

#[test]
fn so_much_history_is_kept() {
    let jobs = ["c Complete 12", "a Complete 10", "b Complete 11", "e Failed 11", "d Failed 10", "f runs 09"];
    let status = json!({"lastScheduleTime": "2026-01-01T00:10:00Z", "active": active(&["f"]), "lastSuccessfulTime": "2026-01-01T00:12:00Z"});
    let limits = json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0});
    check(
        limits,
        status,
        &jobs,
        &[],
        "00:12:00",
        expect![[r#"
        delete a,b,d,e
        wake Some(480s)"#]],
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    check(
        json!({"schedule": "* * *"}),
        json!({}),
        &[],
        &[],
        "00:12:00",
        expect![[r#"
            UnparseableSchedule: unparseable schedule: "* * *" : expected exactly 5 fields, found 3: [* * *]
            wake None"#]],
    );
    check(
        json!({"timeZone": "Mars/Olympus"}),
        json!({}),
        &[],
        &[],
        "00:12:00",
        expect![[r#"
        UnknownTimeZone: invalid timeZone: "Mars/Olympus": failed to find time zone `Mars/Olympus` in time zone database
        wake None"#]],
    );
}

#[test]
fn a_job_says_for_which_time_it_is() {
    let spec = json!({"schedule": "0 2 * * *", "timeZone": "Asia/Tokyo"});
    let (job, at) = planned(spec, json!({}), &[], &[], "17:00:00").create.unwrap();
    assert_eq!(at.to_string(), "2026-01-01T17:00:00Z");
    let annotations = job.metadata.annotations.unwrap();
    assert_eq!(annotations[TIME], "2026-01-02T02:00:00+09:00");
    assert_eq!((annotations["a"].as_str(), job.metadata.labels.unwrap()["l"].as_str()), ("1", "1"));
    assert_eq!(job.metadata.name, Some(format!("tick-{}", at.as_second() / 60)));
    let (job, _) = planned(json!({}), json!({}), &[], &[], "00:10:00").create.unwrap();
    assert_eq!(job.metadata.annotations.unwrap()[TIME], "2026-01-01T00:10:00Z");
}
