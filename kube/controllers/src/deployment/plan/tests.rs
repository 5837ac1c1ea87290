//! A Deployment and its ReplicaSets as numbers, and a small world in which plans are carried out until nothing changes.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T01:00:00Z";

fn deployment(image: &str, more: Value) -> Deployment {
    let mut spec = json!({
        "replicas": 4, "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "web", "generation": 1, "annotations": {"a": "b"}}, "spec": spec,
    }))
    .unwrap()
}

/// The ReplicaSet of a Deployment with so many wanted, there, available.
fn set(of: &Deployment, revision: i64, wanted: i32, there: i32, available: i32) -> Arc<ReplicaSet> {
    let mut set = template::new_set(of, wanted, revision);
    set.metadata.uid = Some(format!("set-{revision}"));
    set.metadata.name = Some(format!("web-{revision}"));
    set.metadata.creation_timestamp =
        Some(serde_json::from_value(json!(format!("2026-01-01T00:00:0{revision}Z"))).unwrap());
    set.status = Some(
        serde_json::from_value(json!({"replicas": there, "readyReplicas": available, "availableReplicas": available}))
            .unwrap(),
    );
    Arc::new(set)
}

fn check(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], expected: Expect) {
    let plan = plan(deployment, sets, pods, NOW.parse().unwrap());
    let mut words: Vec<String> =
        plan.adopt.iter().map(|set| format!("adopt {}", set.metadata.name.clone().unwrap())).collect();
    if let Some(set) = &plan.create {
        words.push(format!("create {} revision {}", replicas(set), number(&set.metadata, REVISION).unwrap()));
    }
    let title = |set: &ReplicaSet| set.metadata.name.clone().unwrap();
    words.extend(plan.scale.iter().map(|s| format!("{} {}->{}", title(&s.set), replicas(&s.set), s.size)));
    words.extend(plan.annotate.iter().map(|(set, missing)| format!("annotate {} {missing:?}", title(set))));
    words.extend(plan.delete.iter().map(|set| format!("delete {}", title(set))));
    words.extend(plan.revision.map(|revision| format!("revision {revision}")));
    for condition in plan.status.iter().flat_map(|status| status.conditions.iter().flatten()) {
        words.push(format!("{}={} {}", condition.type_, condition.status, condition.reason.clone().unwrap()));
    }
    expected.assert_eq(&words.join("\n"));
}

#[test]
fn the_first_template() {
    let first = deployment("1", json!({}));
    check(
        &first,
        &[],
        &[],
        expect![[r#"
            create 4 revision 1
            Available=False MinimumReplicasUnavailable
            Progressing=True NewReplicaSetCreated"#]],
    );
    let made = template::new_set(&first, 4, 1);
    let labels = made.metadata.labels.clone().unwrap();
    assert_eq!(made.metadata.name.clone().unwrap(), format!("web-{}", labels[template::HASH]));
    assert_eq!(made.spec.as_ref().unwrap().selector.match_labels.as_ref(), Some(&labels));
    assert!(is_of_template(&made, &first) && !is_of_template(&made, &deployment("2", json!({}))));
}

#[test]
fn a_new_template_rolls() {
    let (first, second) = (deployment("1", json!({})), deployment("2", json!({})));
    check(
        &second,
        &[set(&first, 1, 4, 4, 4)],
        &[],
        expect![[r#"
            create 1 revision 2
            Available=True MinimumReplicasAvailable
            Progressing=True NewReplicaSetCreated"#]],
    );
    let step = |old: (i32, i32), new: (i32, i32), words: Expect| {
        check(&second, &[set(&first, 1, old.0, old.0, old.1), set(&second, 2, new.0, new.0, new.1)], &[], words)
    };
    step(
        (4, 4),
        (1, 0),
        expect![[r#"
        web-1 4->3
        revision 2
        Available=True MinimumReplicasAvailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    step(
        (3, 3),
        (1, 0),
        expect![[r#"
        web-2 1->2
        revision 2
        Available=True MinimumReplicasAvailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    step(
        (3, 3),
        (2, 0),
        expect![[r#"
        revision 2
        Available=True MinimumReplicasAvailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    step(
        (3, 1),
        (2, 0),
        expect![[r#"
        revision 2
        Available=False MinimumReplicasUnavailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    step(
        (3, 3),
        (2, 2),
        expect![[r#"
        web-1 3->1
        revision 2
        Available=True MinimumReplicasAvailable
        Progressing=True FoundNewReplicaSet"#]],
    );
}

#[test]
fn broken_old_pods_go_first() {
    let (first, second) = (deployment("1", json!({})), deployment("2", json!({})));
    let sets = [set(&first, 1, 3, 3, 0), set(&second, 2, 2, 2, 2)];
    check(
        &second,
        &sets,
        &[],
        expect![[r#"
        web-1 3->1
        revision 2
        Available=False MinimumReplicasUnavailable
        Progressing=True FoundNewReplicaSet"#]],
    );
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let strategy = || json!({"strategy": {"type": "Recreate"}});
    let (first, second) = (deployment("1", strategy()), deployment("2", strategy()));
    let words = expect![[r#"
        web-1 4->0
        Available=True MinimumReplicasAvailable"#]];
    check(&second, &[set(&first, 1, 4, 4, 4)], &[], words);
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p", "deletionTimestamp": NOW, "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "set-1", "controller": true}]}}))
        .unwrap();
    check(&second, &[set(&first, 1, 0, 0, 0)], &[Arc::new(pod)], expect!["Available=False MinimumReplicasUnavailable"]);
    let words = expect![[r#"
        create 4 revision 2
        Available=False MinimumReplicasUnavailable
        Progressing=True NewReplicaSetCreated"#]];
    check(&second, &[set(&first, 1, 0, 0, 0)], &[], words);
}

#[test]
fn scaling_rolling_back_and_history() {
    let first = deployment("1", json!({"replicas": 2}));
    let larger = deployment("1", json!({"replicas": 5}));
    check(
        &larger,
        &[set(&first, 1, 2, 2, 2)],
        &[],
        expect![[r#"
        web-1 2->5
        Available=False MinimumReplicasUnavailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    let second = deployment("2", json!({"replicas": 10}));
    let (old, new) = (
        set(&deployment("1", json!({"replicas": 5})), 1, 4, 4, 4),
        set(&deployment("2", json!({"replicas": 5})), 2, 2, 2, 2),
    );
    check(
        &second,
        &[old, new],
        &[],
        expect![[r#"
        web-1 4->7
        web-2 2->4
        Available=False MinimumReplicasUnavailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    // Back to the first template: its ReplicaSet becomes the new one with a revision of its own.
    let (back, second) = (deployment("1", json!({})), deployment("2", json!({})));
    check(
        &back,
        &[set(&back, 1, 0, 0, 0), set(&second, 2, 4, 4, 4)],
        &[],
        expect![[r#"
        web-1 0->1
        annotate web-1 {"deployment.kubernetes.io/revision": "3"}
        revision 3
        Available=True MinimumReplicasAvailable
        Progressing=True FoundNewReplicaSet"#]],
    );
    let now = deployment("9", json!({"revisionHistoryLimit": 1}));
    let sets: Vec<Arc<ReplicaSet>> = (1..4)
        .map(|n| set(&deployment(&n.to_string(), json!({})), n, 0, 0, 0))
        .chain([set(&now, 4, 4, 4, 4)])
        .collect();
    check(
        &now,
        &sets,
        &[],
        expect![[r#"
        delete web-1
        delete web-2
        revision 4
        Available=True MinimumReplicasAvailable
        Progressing=True NewReplicaSetAvailable"#]],
    );
}

#[test]
fn what_nobody_manages_is_adopted_first() {
    let first = deployment("1", json!({}));
    let mut orphan = ReplicaSet::clone(&set(&first, 1, 4, 4, 4));
    orphan.metadata.owner_references = None;
    check(&first, &[Arc::new(orphan.clone())], &[], expect!["adopt web-1"]);
    orphan.metadata.labels = Some([("app".to_owned(), "other".to_owned())].into());
    let words = expect![[r#"
        create 4 revision 1
        Available=False MinimumReplicasUnavailable
        Progressing=True NewReplicaSetCreated"#]];
    check(&first, &[Arc::new(orphan)], &[], words);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let (first, second) =
        (deployment("1", json!({"replicas": 2})), deployment("2", json!({"replicas": 3, "paused": true})));
    check(
        &second,
        &[set(&first, 1, 2, 2, 2)],
        &[],
        expect![[r#"
        web-1 2->3
        Available=True MinimumReplicasAvailable
        Progressing=Unknown DeploymentPaused"#]],
    );
}

#[test]
fn no_progress_is_said_after_the_deadline() {
    let mut stuck = deployment("1", json!({"progressDeadlineSeconds": 60}));
    let condition = |since: &str| {
        json!({"replicas": 4, "updatedReplicas": 4, "conditions": [{"type": "Progressing", "status": "True",
        "reason": "ReplicaSetUpdated", "message": "ReplicaSet \"web-1\" is progressing.", "lastUpdateTime": since}]})
    };
    stuck.status = Some(serde_json::from_value(condition("2026-01-01T00:59:30Z")).unwrap());
    let sets = [set(&stuck, 1, 4, 4, 0)];
    assert_eq!(plan(&stuck, &sets, &[], NOW.parse().unwrap()).wake, Some(Duration::from_secs(30)));
    stuck.status = Some(serde_json::from_value(condition("2026-01-01T00:59:00Z")).unwrap());
    check(
        &stuck,
        &sets,
        &[],
        expect![[r#"
        revision 1
        Progressing=False ProgressDeadlineExceeded
        Available=False MinimumReplicasUnavailable"#]],
    );
}

/// Every roll-out ends, never with too many or too few.
#[test]
fn every_roll_out_ends_within_its_limits() {
    for replicas in 1..8 {
        for (surge, unavailable) in [(1, 0), (0, 1), (1, 1), (3, 2), (0, 0)] {
            let more = json!({"replicas": replicas, "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}});
            let (first, second) = (deployment("1", more.clone()), deployment("2", more));
            let limits = Limits::of(&second);
            let (mut old, mut new) = ((replicas, replicas), None::<(i32, i32)>);
            for step in 0.. {
                assert!(step < 100, "{replicas} {surge} {unavailable}: does not end: {old:?} {new:?}");
                let mut sets = vec![set(&first, 1, old.0, old.0, old.1)];
                sets.extend(new.map(|new| set(&second, 2, new.0, new.0, new.1)));
                let plan = plan(&second, &sets, &[], NOW.parse().unwrap());
                if let Some(made) = &plan.create {
                    new = Some((super::replicas(made), 0));
                }
                for sized in &plan.scale {
                    if sized.set.metadata.name.as_deref() == Some("web-1") {
                        old = (sized.size, old.1.min(sized.size));
                    } else {
                        new = new.map(|new| (sized.size, new.1));
                    }
                }
                let (total, available) = (old.0 + new.map_or(0, |n| n.0), old.1 + new.map_or(0, |n| n.1));
                assert!(
                    total <= limits.replicas + limits.surge && available >= limits.min_available(),
                    "{old:?} {new:?}"
                );
                if new == Some((replicas, replicas)) && old.0 == 0 {
                    break;
                }
                if plan.scale.is_empty() && plan.create.is_none() {
                    // One pod of the new template becomes available.
                    new = new.map(|new| (new.0, (new.1 + 1).min(new.0)));
                }
            }
        }
    }
}
