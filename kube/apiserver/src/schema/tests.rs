#![allow(clippy::unwrap_used, clippy::panic)]
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch,
    certificates::v1 as certificates, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::table::{Shape, Type};
use super::{decode, lookup};

/// An object with every field of `of`, down to `depth`.
fn sample(of: &'static Type, depth: usize) -> Value {
    // A time that is required has no empty value: the typed form refuses what leaves it out, Go writes null.
    let fields = of.fields().iter().filter(|f| depth > 0 || f.required && f.shape == Shape::Time);
    let fields = fields.filter(|f| !matches!(f.name, "apiVersion" | "kind") || of.field("metadata").is_none());
    let depth = depth.max(1);
    Value::Object(fields.filter_map(|f| Some((f.name.to_owned(), value(&f.shape, depth - 1)?))).collect::<Map<_, _>>())
}

fn value(shape: &Shape, depth: usize) -> Option<Value> {
    Some(match shape {
        Shape::Text => "text".into(),
        Shape::Int32 | Shape::Int64 => 7.into(),
        Shape::Float => 1.5.into(),
        Shape::Bool => true.into(),
        Shape::Quantity => "10Mi".into(),
        Shape::IntOrString => "25%".into(),
        Shape::Time => "2024-05-06T07:08:09+01:00".into(),
        Shape::MicroTime => "2024-05-06T07:08:09.5Z".into(),
        Shape::Bytes => "aGVsbG8=".into(),
        Shape::Any => json!({ "any": 1 }),
        Shape::Object(of) => sample(of, depth),
        Shape::List(of) => json!([value(of, depth)?]),
        Shape::Map(of) => json!({ "key": value(of, depth)? }),
        Shape::Or(_) => return None,
    })
}

/// Paths at which two values differ.
fn differ(a: &Value, b: &Value, path: &str, found: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            names.into_iter().for_each(|name| {
                let nothing = Value::Null;
                differ(
                    a.get(name).unwrap_or(&nothing),
                    b.get(name).unwrap_or(&nothing),
                    &format!("{path}.{name}"),
                    found,
                );
            });
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| differ(a, b, path, found));
        }
        (a, b) if a == b => {}
        // The typed form gives objects within objects a head of their own.
        (_, Value::Null) if path.ends_with(".apiVersion") || path.ends_with(".kind") => {}
        (a, b) => found.push(format!("{path}: {a} {b}")),
    }
}

/// Takes out what the typed form invents: empty values of what is required and nobody has sent.
fn forget(sent: &Value, kept: &mut Value) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            kept.retain(|key, _| sent.contains_key(key));
            kept.iter_mut().for_each(|(key, kept)| forget(&sent[key], kept));
        }
        (Value::Array(sent), Value::Array(kept)) => sent.iter().zip(kept).for_each(|(sent, kept)| forget(sent, kept)),
        _ => {}
    }
}

/// Both ways of decoding, held against each other.
fn both<K: k8s_openapi::Resource + DeserializeOwned + Serialize>(found: &mut Vec<String>) {
    let of = lookup(K::GROUP, K::VERSION, K::KIND).unwrap_or_else(|| panic!("no {}", K::KIND));
    // Schemas hold schemas, so that a deep one has no end.
    let deep = if K::KIND == "CustomResourceDefinition" { 6 } else { 12 };
    for mut object in [sample(of, deep), sample(of, 3), sample(of, 2), json!({})] {
        (object["apiVersion"], object["kind"]) = (K::API_VERSION.into(), K::KIND.into());
        let typed = serde_json::from_value::<K>(object.clone());
        let typed = typed.unwrap_or_else(|e| panic!("{}: {e}", K::KIND));
        let mut typed = serde_json::to_value(typed).unwrap();
        forget(&object, &mut typed);
        let (mut ours, unknown) = decode(of, object).unwrap();
        assert_eq!(unknown, Vec::<String>::new());
        for head in ["apiVersion", "kind"] {
            typed[head] = Value::Null;
            ours[head] = Value::Null;
        }
        differ(&typed, &ours, K::KIND, found);
    }
}

#[test]
fn the_table_decodes_as_types_do() {
    let mut found = Vec::new();
    both::<core::ConfigMap>(&mut found);
    both::<core::Endpoints>(&mut found);
    both::<core::Event>(&mut found);
    both::<core::LimitRange>(&mut found);
    both::<core::Namespace>(&mut found);
    both::<core::Node>(&mut found);
    both::<core::PersistentVolume>(&mut found);
    both::<core::PersistentVolumeClaim>(&mut found);
    both::<core::Pod>(&mut found);
    both::<core::ResourceQuota>(&mut found);
    both::<core::Secret>(&mut found);
    both::<core::Service>(&mut found);
    both::<core::ServiceAccount>(&mut found);
    both::<apps::DaemonSet>(&mut found);
    both::<apps::Deployment>(&mut found);
    both::<apps::ReplicaSet>(&mut found);
    both::<apps::StatefulSet>(&mut found);
    both::<autoscaling::HorizontalPodAutoscaler>(&mut found);
    both::<batch::CronJob>(&mut found);
    both::<batch::Job>(&mut found);
    both::<certificates::CertificateSigningRequest>(&mut found);
    both::<coordination::Lease>(&mut found);
    both::<discovery::EndpointSlice>(&mut found);
    both::<networking::Ingress>(&mut found);
    both::<networking::NetworkPolicy>(&mut found);
    both::<node::RuntimeClass>(&mut found);
    both::<policy::PodDisruptionBudget>(&mut found);
    both::<rbac::ClusterRole>(&mut found);
    both::<rbac::RoleBinding>(&mut found);
    both::<scheduling::PriorityClass>(&mut found);
    both::<storage::StorageClass>(&mut found);
    both::<admission::ValidatingWebhookConfiguration>(&mut found);
    both::<apiextensions::CustomResourceDefinition>(&mut found);
    found.retain(|line| !EXPLAINED.iter().any(|end| line.contains(end)));
    assert_eq!(found, Vec::<String>::new());
}

/// Where the table (v1.36) and the typed form (v1.34) differ.
const EXPLAINED: &[&str] = &[
    // Not always written since v1.35, or by the typed form alone.
    "metadata: {} null",
    "name: \"\" null",
    "EndpointSlice.endpoints: [] null",
    "PriorityClass.value: 0 null",
    "roleRef.apiGroup: \"\" null",
    // Always written since v1.36.
    "CronJob.spec: null {",
    "HorizontalPodAutoscaler.spec: null {",
    // Newer than the typed form, or of a feature that it leaves out.
    "schedulingGroup: null",
    "userAnnotations: null",
    "observedGeneration: null",
    "declaredFeatures: null",
    "Pod.status.allocatedResources: null",
    "allocatedResourcesStatus.resources.message: null",
    "volumeMounts.volumeStatus: null",
    "nodeAllocatableResourceClaimStatuses: null",
    "Pod.status.resources: null",
];

#[test]
fn what_is_unknown_goes_and_what_is_wrong_is_said_in_upstreams_words() {
    let deployment = lookup("apps", "v1", "Deployment").unwrap();
    let pod = |containers: Value| json!({ "spec": { "template": { "spec": { "containers": containers } } } });
    let (kept, unknown) = decode(
        deployment,
        pod(json!([{ "name": "a", "odd": 1, "image": null, "env": [{ "name": "x", "what": {} }] }])),
    )
    .unwrap();
    assert_eq!(unknown, ["spec.template.spec.containers[0].env[0].what", "spec.template.spec.containers[0].odd"]);
    assert_eq!(kept["spec"]["template"]["spec"]["containers"], json!([{ "name": "a", "env": [{ "name": "x" }] }]));
    assert!(kept["spec"].get("selector").is_none(), "what nobody said stays unsaid");
    for (object, words) in [
        (
            json!({ "spec": { "replicas": "two" } }),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({ "spec": { "replicas": 3_000_000_000u32 } }),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            pod(json!({})),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            pod(json!([{ "name": 7 }])),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.name of type string",
        ),
        (
            json!({ "metadata": { "labels": { "a": true } } }),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            pod(json!([{ "resources": { "limits": { "cpu": "much" } } }])),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({ "spec": { "strategy": { "rollingUpdate": { "maxSurge": 1.5 } } } }),
            "json: cannot unmarshal number 1.5 into Go value of type int32",
        ),
    ] {
        assert_eq!(decode(deployment, object).unwrap_err(), words);
    }
    let (kept, _) = decode(deployment, pod(json!([{ "resources": { "limits": { "cpu": 2 } } }]))).unwrap();
    assert_eq!(kept["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
    let secret = lookup("", "v1", "Secret").unwrap();
    assert_eq!(decode(secret, json!({ "data": { "a": "?" } })).unwrap_err(), "illegal base64 data at input byte 0");
}

#[test]
fn every_type_can_be_read_and_every_built_in_kind_has_one() {
    let texts = [include_str!("types.txt"), include_str!("by_hand.txt")];
    let lines = texts.into_iter().flat_map(str::lines).filter(|line| line.starts_with(' ')).count();
    assert_eq!(super::table::types().iter().map(|of| of.fields().len()).sum::<usize>(), lines);
    for kind in crate::kinds::builtin() {
        assert!(lookup(&kind.names.group, &kind.names.version, &kind.names.kind).is_some(), "{}", kind.names.kind);
    }
}
