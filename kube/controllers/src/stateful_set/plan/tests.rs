#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
//! The cases of upstream's conformance tests of StatefulSets, as plans.
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

/// A set of three with this image.
fn set(image: &str, more: Value) -> StatefulSet {
    let mut set = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "set", "generation": 2},
        "spec": {"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
    });
    merge(&mut set, more);
    serde_json::from_value(set).unwrap()
}

fn revise_of(set: &StatefulSet, revisions: &[Arc<ControllerRevision>]) -> Option<Revise> {
    plan(set, &[], revisions, &Claims::new(), NOW.parse().unwrap()).revise
}

/// The revisions that these images have made, one after the other.
fn revisions(images: &[&str]) -> Vec<Arc<ControllerRevision>> {
    let mut made: Vec<Arc<ControllerRevision>> = Vec::new();
    for image in images {
        match revise_of(&set(image, json!({})), &made) {
            Some(Revise::Create(mut one)) => {
                one.metadata.uid = one.metadata.name.clone();
                made.push(Arc::new(*one));
            }
            other => panic!("{image}: {other:?}"),
        }
    }
    made
}

/// `web-0 v1 word…`: the image of its revision, then `ready`, `new` (ready now), `leaving`, `Failed`, `Pending`.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split(' ').collect();
    let has = |word: &str| words[2..].contains(&word);
    let revision = revisions(&[words[1]])[0].metadata.name.clone().unwrap();
    let index = words[0].rsplit('-').next().unwrap();
    let phase = ["Failed", "Pending"].into_iter().find(|phase| has(phase)).unwrap_or("Running");
    let since = if has("new") { NOW } else { "2026-01-01T00:00:00Z" };
    let ready = if has("ready") || has("new") { "True" } else { "False" };
    let mut pod = json!({
        "metadata": {"name": words[0], "uid": words[0], "labels": {"app": "web", "controller-revision-hash": revision,
            "statefulset.kubernetes.io/pod-name": words[0], "apps.kubernetes.io/pod-index": index},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "uid": "set", "controller": true}]},
        "spec": {"containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    });
    if has("leaving") {
        pod["metadata"]["deletionTimestamp"] = NOW.into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

/// `name owner…`, with `-` for one that is leaving.
fn claims(texts: &[&str]) -> Claims {
    let claim = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        let owners: Vec<Value> = words[1..]
            .iter()
            .filter(|word| **word != "-")
            .map(|uid| json!({"apiVersion": "v1", "kind": if *uid == "set" { "StatefulSet" } else { "Pod" }, "name": uid, "uid": uid}))
            .collect();
        let mut claim = json!({"metadata": {"name": words[0], "ownerReferences": owners}});
        if words.contains(&"-") {
            claim["metadata"]["deletionTimestamp"] = NOW.into();
        }
        (words[0].to_owned(), Arc::new(serde_json::from_value(claim).unwrap()))
    };
    texts.iter().map(claim).collect()
}

fn words(plan: &Plan, known: &[Arc<ControllerRevision>]) -> String {
    let image = |revision: &str| {
        let found = known.iter().find(|one| name(&one.metadata) == revision).unwrap();
        history::template(found).unwrap().spec.unwrap().containers[0].image.clone().unwrap()
    };
    let mut text = Vec::new();
    let mut say = |label: &str, list: Vec<String>| {
        if !list.is_empty() {
            text.push(format!("{label} {}", list.join(",")));
        }
    };
    say("provide", plan.provide.iter().map(|claim| name(&claim.metadata).to_owned()).collect());
    let owners = |list: &[OwnerReference]| list.iter().map(|owner| owner.uid.clone()).collect::<Vec<_>>().join("+");
    say(
        "disown",
        plan.disown.iter().map(|(claim, list)| format!("{}:{}", name(&claim.metadata), owners(list))).collect(),
    );
    say(
        "create",
        plan.create.iter().map(|pod| format!("{} of {}", name(&pod.metadata), image(revision(pod)))).collect(),
    );
    say("label", plan.label.iter().map(|(pod, labels)| format!("{} {labels:?}", name(&pod.metadata))).collect());
    say("delete", plan.delete.iter().map(|pod| name(&pod.metadata).to_owned()).collect());
    say("forget", plan.forget.iter().map(|one| image(name(&one.metadata))).collect());
    if let Some(wake) = plan.wake {
        text.push(format!("wake {wake:?}"));
    }
    if let Some(s) = &plan.status {
        let n = |count: Option<i32>| count.unwrap_or(0);
        let (current, update) =
            (image(s.current_revision.as_deref().unwrap()), image(s.update_revision.as_deref().unwrap()));
        text.push(format!(
            "{} pods, {} ready, {} available, {} of {current}, {} of {update}",
            s.replicas,
            n(s.ready_replicas),
            n(s.available_replicas),
            n(s.current_replicas),
            n(s.updated_replicas)
        ));
    }
    text.join("\n")
}

/// A set whose image is v2 and was v1, if `rolls`; else v1 only.
fn check_with(rolls: bool, more: Value, pods: &[&str], has: &[&str], expected: Expect) {
    let known = revisions(if rolls { &["v1", "v2"] } else { &["v1"] });
    let mut set = set(if rolls { "v2" } else { "v1" }, more);
    set.status.get_or_insert_default().current_revision = known[0].metadata.name.clone();
    let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
    let plan = plan(&set, &pods, &known, &claims(has), NOW.parse().unwrap());
    assert_eq!(plan.revise, None);
    expected.assert_eq(&words(&plan, &known));
}

fn check(more: Value, pods: &[&str], expected: Expect) {
    check_with(false, more, pods, &[], expected);
}

fn check_roll(more: Value, pods: &[&str], expected: Expect) {
    check_with(true, more, pods, &[], expected);
}

#[test]
fn pods_are_made_in_order_each_when_those_before_are_available() {
    check(
        json!({}),
        &[],
        expect![[r#"
        create web-0 of v1
        0 pods, 0 ready, 0 available, 0 of v1, 0 of v1"#]],
    );
    check(json!({}), &["web-0 v1 Pending"], expect!["1 pods, 0 ready, 0 available, 1 of v1, 1 of v1"]);
    check(json!({}), &["web-0 v1 ready", "web-1 v1"], expect!["2 pods, 1 ready, 1 available, 2 of v1, 2 of v1"]);
    check(
        json!({}),
        &["web-0 v1 ready", "web-1 v1 ready"],
        expect![[r#"
        create web-2 of v1
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    check(
        json!({"spec": {"minReadySeconds": 30}}),
        &["web-0 v1 ready", "web-1 v1 new"],
        expect![[r#"
        wake 30s
        2 pods, 2 ready, 1 available, 2 of v1, 2 of v1"#]],
    );
    check(
        json!({}),
        &["web-0 v1 ready leaving", "web-1 v1 ready"],
        expect!["2 pods, 2 ready, 2 available, 1 of v1, 1 of v1"],
    );
    check(
        json!({"spec": {"podManagementPolicy": "Parallel"}}),
        &["web-1 v1"],
        expect![[r#"
        create web-0 of v1,web-2 of v1
        1 pods, 0 ready, 0 available, 1 of v1, 1 of v1"#]],
    );
    check(
        json!({"spec": {"ordinals": {"start": 5}, "replicas": 2}}),
        &["web-5 v1 ready", "web-0 v1 ready"],
        expect![[r#"
        create web-6 of v1
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    // One that has ended is made anew, whatever it said.
    check(
        json!({}),
        &["web-0 v1 Failed", "web-1 v1 ready"],
        expect![[r#"
        delete web-0
        2 pods, 1 ready, 1 available, 2 of v1, 2 of v1"#]],
    );
    check(json!({}), &["web-0 v1 Failed leaving"], expect!["1 pods, 0 ready, 0 available, 0 of v1, 0 of v1"]);
}

#[test]
fn pods_are_removed_in_the_other_order() {
    let one = || json!({"spec": {"replicas": 1}});
    check(
        one(),
        &["web-0 v1 ready", "web-1 v1 ready", "web-2 v1 ready"],
        expect![[r#"
        delete web-2
        3 pods, 3 ready, 3 available, 3 of v1, 3 of v1"#]],
    );
    check(
        one(),
        &["web-0 v1 ready", "web-1 v1 ready", "web-2 v1 leaving"],
        expect!["3 pods, 2 ready, 2 available, 2 of v1, 2 of v1"],
    );
    // Not while one before it is unwell.
    check(one(), &["web-0 v1", "web-2 v1 ready"], expect!["2 pods, 1 ready, 1 available, 2 of v1, 2 of v1"]);
    check(
        one(),
        &["web-0 v1 ready", "web-1 v1", "web-2 v1"],
        expect!["3 pods, 1 ready, 1 available, 3 of v1, 3 of v1"],
    );
    check(
        one(),
        &["web-0 v1 ready", "web-1 v1 ready", "web-2 v1"],
        expect![[r#"
        delete web-2
        3 pods, 2 ready, 2 available, 3 of v1, 3 of v1"#]],
    );
    check(
        json!({"spec": {"replicas": 0, "podManagementPolicy": "Parallel"}}),
        &["web-0 v1", "web-1 v1 leaving", "web-2 v1"],
        expect![[r#"
        delete web-2,web-0
        3 pods, 0 ready, 0 available, 2 of v1, 2 of v1"#]],
    );
}

#[test]
fn a_roll_out_goes_from_the_last_to_the_first() {
    let old = ["web-0 v1 ready", "web-1 v1 ready", "web-2 v1 ready"];
    check_roll(
        json!({}),
        &old,
        expect![[r#"
        delete web-2
        3 pods, 3 ready, 3 available, 2 of v1, 0 of v2"#]],
    );
    check_roll(
        json!({}),
        &["web-0 v1 ready", "web-1 v1 ready"],
        expect![[r#"
        create web-2 of v2
        2 pods, 2 ready, 2 available, 2 of v1, 0 of v2"#]],
    );
    check_roll(
        json!({}),
        &["web-0 v1 ready", "web-1 v1 ready", "web-2 v2"],
        expect!["3 pods, 2 ready, 2 available, 2 of v1, 1 of v2"],
    );
    check_roll(
        json!({}),
        &["web-0 v1 ready", "web-1 v1 ready", "web-2 v2 ready"],
        expect![[r#"
        delete web-1
        3 pods, 3 ready, 3 available, 1 of v1, 1 of v2"#]],
    );
    check_roll(
        json!({}),
        &["web-0 v2 ready", "web-1 v2 ready", "web-2 v2 ready"],
        expect!["3 pods, 3 ready, 3 available, 3 of v2, 3 of v2"],
    );
    // A canary: what is before the partition stays, and is made of the old one.
    let canary = || json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}});
    check_roll(
        canary(),
        &["web-0 v1 ready", "web-1 v1 ready", "web-2 v2 ready"],
        expect!["3 pods, 3 ready, 3 available, 2 of v1, 1 of v2"],
    );
    check_roll(
        canary(),
        &["web-0 v1 ready", "web-2 v2 ready"],
        expect![[r#"
        create web-1 of v1
        2 pods, 2 ready, 2 available, 1 of v1, 1 of v2"#]],
    );
    let by_hand = || json!({"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}});
    check_roll(by_hand(), &old, expect!["3 pods, 3 ready, 3 available, 3 of v1, 0 of v2"]);
    check_roll(
        by_hand(),
        &["web-0 v1 ready", "web-2 v1 ready"],
        expect![[r#"
        create web-1 of v2
        2 pods, 2 ready, 2 available, 2 of v1, 0 of v2"#]],
    );
    // Parallel is about numbers, not about replacing.
    check_roll(
        json!({"spec": {"podManagementPolicy": "Parallel"}}),
        &old,
        expect![[r#"
        delete web-2
        3 pods, 3 ready, 3 available, 2 of v1, 0 of v2"#]],
    );
}

#[test]
fn a_pod_has_a_claim_and_it_stays_or_goes_as_asked() {
    let with = |deleted: &str, scaled: &str| {
        json!({"spec": {"replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled}}})
    };
    let scaled = ["web-0 v1 ready", "web-1 v1 ready"];
    let kept = ["data-web-0", "data-web-1"];
    check_with(
        false,
        with("Retain", "Retain"),
        &[],
        &[],
        expect![[r#"
        provide data-web-0
        create web-0 of v1
        0 pods, 0 ready, 0 available, 0 of v1, 0 of v1"#]],
    );
    check_with(
        false,
        with("Retain", "Retain"),
        &scaled,
        &kept,
        expect![[r#"
        delete web-1
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    check_with(
        false,
        with("Retain", "Delete"),
        &scaled,
        &kept,
        expect![[r#"
        disown data-web-1:web-1
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    check_with(
        false,
        with("Retain", "Delete"),
        &scaled,
        &["data-web-0", "data-web-1 web-1"],
        expect![[r#"
        delete web-1
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    check_with(
        false,
        with("Delete", "Retain"),
        &scaled,
        &kept,
        expect![[r#"
        disown data-web-0:set,data-web-1:set
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    check_with(
        false,
        with("Retain", "Retain"),
        &scaled,
        &["data-web-0 set", "data-web-1 set"],
        expect![[r#"
        disown data-web-0:,data-web-1:
        2 pods, 2 ready, 2 available, 2 of v1, 2 of v1"#]],
    );
    // The next pod of an ordinal waits until the claim of the last is gone.
    check_with(
        false,
        with("Retain", "Delete"),
        &[],
        &["data-web-0 -"],
        expect!["0 pods, 0 ready, 0 available, 0 of v1, 0 of v1"],
    );
}

#[test]
fn a_pod_is_told_who_it_is() {
    let known = revisions(&["v1"]);
    let set = set("v1", json!({"spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}}));
    let plan = plan(&set, &[], &known, &Claims::new(), NOW.parse().unwrap());
    let pod = &plan.create[0];
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("web-0"), Some("svc")));
    let claim = spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap();
    assert_eq!(claim.claim_name, "data-web-0");
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "web-0");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "0");
    assert_eq!(labels["controller-revision-hash"], *known[0].metadata.name.as_ref().unwrap());
}

#[test]
fn history_is_kept_numbered_and_forgotten() {
    let known = revisions(&["v1", "v2", "v3"]);
    assert_eq!(known.iter().map(|one| one.revision).collect::<Vec<_>>(), [1, 2, 3]);
    // A template that was before is the newest again.
    match revise_of(&set("v1", json!({})), &known) {
        Some(Revise::Renumber(one, 4)) => assert_eq!(one.metadata.name, known[0].metadata.name),
        other => panic!("{other:?}"),
    }
    let mut stray = (*known[0]).clone();
    stray.metadata.owner_references = None;
    assert!(matches!(revise_of(&set("v1", json!({})), &[Arc::new(stray)]), Some(Revise::Adopt(_))));
    let mut collided = set("v1", json!({"status": {"replicas": 0, "collisionCount": 1}}));
    match revise_of(&collided, &[]) {
        Some(Revise::Create(one)) => assert_ne!(one.metadata.name, known[0].metadata.name),
        other => panic!("{other:?}"),
    }
    collided.spec.as_mut().unwrap().revision_history_limit = Some(0);
    let forgets = |pods: &[&str], current: usize| {
        let mut set = set("v3", json!({"spec": {"revisionHistoryLimit": 0}}));
        set.status.get_or_insert_default().current_revision = known[current].metadata.name.clone();
        let pods: Vec<Arc<Pod>> = pods.iter().map(|text| pod(text)).collect();
        let plan = plan(&set, &pods, &known, &Claims::new(), NOW.parse().unwrap());
        plan.forget.iter().map(|one| one.revision).collect::<Vec<_>>()
    };
    assert_eq!(forgets(&["web-0 v2 ready"], 0), Vec::<i64>::new(), "all are in use");
    assert_eq!(forgets(&["web-0 v2 ready"], 2), [1]);
    assert_eq!(forgets(&[], 2), [1, 2]);
}
