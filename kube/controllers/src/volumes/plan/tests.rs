#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use serde_json::{Value, json};

use super::*;

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value));
        }
        (into, from) => *into = from,
    }
}

fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
    let mut volume = json!({"metadata": {"name": name, "uid": name, "finalizers": [VOLUME_PROTECTION]},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Available"}});
    merge(&mut volume, more);
    Arc::new(serde_json::from_value(volume).unwrap())
}

fn claim(more: Value) -> Arc<PersistentVolumeClaim> {
    let mut claim = json!({"metadata": {"name": "data", "namespace": "d", "uid": "claim", "finalizers": [CLAIM_PROTECTION]},
        "spec": {"resources": {"requests": {"storage": "2Gi"}}, "accessModes": ["ReadWriteOnce"]}, "status": {"phase": "Pending"}});
    merge(&mut claim, more);
    Arc::new(serde_json::from_value(claim).unwrap())
}

/// What is done for a claim, in a word or two.
fn check(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> String {
    let plan = plan_claim(claim, volumes, &[], &|class| class != "late");
    let bind = plan.bind.map(|volume| format!("bind {}", name(&volume.metadata)));
    let waits = plan.waits.map(|(reason, _)| reason.to_owned());
    let phase = plan.phase.map(|phase| format!("phase {phase}"));
    [bind, waits, phase].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[test]
fn the_smallest_volume_that_fits_is_taken() {
    let volumes =
        [volume("big", "10Gi", json!({})), volume("small", "1Gi", json!({})), volume("right", "2048Mi", json!({}))];
    assert_eq!(check(&claim(json!({})), &volumes), "bind right");
    assert_eq!(check(&claim(json!({"spec": {"accessModes": ["ReadWriteMany"]}})), &volumes), "FailedBinding");
    assert_eq!(check(&claim(json!({"spec": {"volumeMode": "Block"}})), &volumes), "FailedBinding");
    assert_eq!(check(&claim(json!({"spec": {"selector": {"matchLabels": {"k": "v"}}}})), &volumes), "FailedBinding");
    assert_eq!(
        check(&claim(json!({"spec": {"storageClassName": "fast"}, "status": null})), &volumes),
        "ExternalProvisioning, phase Pending"
    );
    let fast =
        [volume("fast", "9Gi", json!({"spec": {"storageClassName": "fast"}, "metadata": {"labels": {"k": "v"}}}))];
    let wants = json!({"spec": {"storageClassName": "fast", "selector": {"matchLabels": {"k": "v"}}}});
    assert_eq!(check(&claim(wants), &fast), "bind fast");
    assert_eq!(check(&claim(json!({"spec": {"storageClassName": "late"}})), &volumes), "WaitForFirstConsumer");
}

#[test]
fn who_is_promised_or_has_been_another_s_is_not_given_away() {
    let of = |name: &str, uid: Value| json!({"spec": {"claimRef": {"name": name, "namespace": "d", "uid": uid}}});
    let kept = [volume("big", "10Gi", of("data", Value::Null)), volume("right", "2Gi", json!({}))];
    assert_eq!(check(&claim(json!({})), &kept), "bind big", "it was kept for it");
    assert_eq!(check(&claim(json!({})), &[volume("v", "2Gi", of("other", Value::Null))]), "FailedBinding");
    // A claim of the same name is another one.
    assert_eq!(check(&claim(json!({})), &[volume("v", "2Gi", of("data", "before".into()))]), "FailedBinding");
    let bound = |phase: &str| claim(json!({"spec": {"volumeName": "v"}, "status": {"phase": phase}}));
    let mine = [volume("v", "2Gi", of("data", "claim".into()))];
    assert_eq!(check(&bound("Bound"), &mine), "");
    assert_eq!(check(&bound("Pending"), &mine), "bind v", "the second half was not written");
    assert_eq!(check(&bound("Bound"), &[]), "phase Lost");
    assert_eq!(check(&bound("Pending"), &[]), "");
    assert_eq!(check(&bound("Bound"), &[volume("v", "2Gi", of("other", "o".into()))]), "phase Lost");
}

#[test]
fn a_volume_says_whose_it_is() {
    let of = |uid: Value| json!({"spec": {"claimRef": {"name": "data", "namespace": "d", "uid": uid}}, "status": {"phase": ""}});
    let phase = |volume: &PersistentVolume, claims: &[Arc<PersistentVolumeClaim>]| {
        plan_volume(volume, claims).phase.map(|(phase, _)| phase)
    };
    let claims = [claim(json!({}))];
    assert_eq!(phase(&volume("v", "1Gi", of("claim".into())), &claims), Some("Bound"));
    assert_eq!(phase(&volume("v", "1Gi", of("claim".into())), &[]), Some("Released"));
    assert_eq!(phase(&volume("v", "1Gi", of(Value::Null)), &claims), Some("Available"));
    assert_eq!(phase(&volume("v", "1Gi", json!({})), &claims), None);
    let mut recycled = of("gone".into());
    recycled["spec"]["persistentVolumeReclaimPolicy"] = "Recycle".into();
    assert_eq!(phase(&volume("v", "1Gi", recycled), &claims), Some("Failed"));
}

#[test]
fn what_is_used_does_not_go() {
    let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let pod = |phase: &str, volume: Value| -> Arc<Pod> {
        let spec = json!({"containers": [], "volumes": [volume]});
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase}}))
                .unwrap(),
        )
    };
    let uses = || json!({"name": "x", "persistentVolumeClaim": {"claimName": "data"}});
    let protect = |claim: &PersistentVolumeClaim, pods: &[Arc<Pod>]| plan_claim(claim, &[], pods, &|_| true).protect;
    assert_eq!(protect(&claim(leaving.clone()), &[pod("Running", uses())]), None);
    assert_eq!(protect(&claim(leaving.clone()), &[pod("Succeeded", uses())]), Some(false));
    assert_eq!(protect(&claim(leaving.clone()), &[pod("Running", json!({"name": "x", "emptyDir": {}}))]), Some(false));
    assert_eq!(protect(&claim(json!({"metadata": {"finalizers": null}})), &[]), Some(true));
    let mut own = leaving.clone();
    own["metadata"]["name"] = "p-x".into();
    assert_eq!(protect(&claim(own), &[pod("Pending", json!({"name": "x", "ephemeral": {}}))]), None);
    let mut bound = leaving;
    bound["spec"] = json!({"claimRef": {"name": "data", "namespace": "d", "uid": "claim"}});
    assert_eq!(plan_volume(&volume("v", "1Gi", bound.clone()), &[claim(json!({}))]).protect, None);
    assert_eq!(plan_volume(&volume("v", "1Gi", bound), &[]).protect, Some(false));
}
