//! The tables against the typed kinds, kubectl's own bytes, and bytes of nobody.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::table::{How, Message, Type, messages};
use super::{DEPTH_MAX, MAGIC, decode, encode, message};
use crate::schema::{Shape, View};

/// What kubectl 1.32 sent for `create deployment shop --image=nginx:1 --replicas=0 --port=80`.
const DEPLOYMENT: &[u8] = include_bytes!("tests/deployment.bin");
/// … for `create secret generic s --from-literal=a=b`.
const SECRET: &[u8] = include_bytes!("tests/secret.bin");
/// … for `create service nodeport web --tcp=80:http`.
const SERVICE: &[u8] = include_bytes!("tests/service.bin");

#[test]
fn what_kubectl_sends_is_what_it_means() {
    assert_eq!(
        decode(DEPLOYMENT).unwrap(),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "shop", "creationTimestamp": null, "labels": { "app": "shop" } },
            "spec": {
                "replicas": 0, "strategy": {}, "selector": { "matchLabels": { "app": "shop" } },
                "template": {
                    "metadata": { "creationTimestamp": null, "labels": { "app": "shop" } },
                    "spec": { "containers": [
                        { "name": "nginx", "image": "nginx:1", "ports": [{ "containerPort": 80 }], "resources": {} },
                    ] },
                },
            },
            "status": {},
        })
    );
    let secret = decode(SECRET).unwrap();
    assert_eq!((&secret["kind"], &secret["data"]), (&json!("Secret"), &json!({ "a": "Yg==" })));
    let service = decode(SERVICE).unwrap();
    assert_eq!(
        service["spec"]["ports"],
        json!([{ "name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http" }])
    );
}

/// A value of every field that a message has, so deep.
fn sample(message: &'static Message, depth: usize) -> Map<String, Value> {
    let mut object = Map::new();
    for field in message.fields() {
        let value = match &field.kind {
            Type::Text => "x".into(),
            Type::Bool => true.into(),
            Type::Int32 | Type::Int64 | Type::IntOrString => 1.into(),
            Type::Double => 1.5.into(),
            Type::Bytes => "eA==".into(),
            Type::Json => json!({}),
            Type::Time => "2025-01-02T03:04:05Z".into(),
            Type::MicroTime => "2025-01-02T03:04:05.000006Z".into(),
            Type::Quantity => "1".into(),
            Type::SchemaOrBool(_) => true.into(),
            Type::SchemaOrArray(_) => json!([{}]),
            Type::SchemaOrStrings(_) | Type::Strings => json!(["x"]),
            Type::Message(_) if depth == 0 => continue,
            Type::Message(message) => Value::Object(sample(message, depth - 1)),
        };
        match (field.how, value) {
            (How::Inline, Value::Object(inner)) => object.extend(inner),
            (How::List, value) => drop(object.insert(field.name.into(), json!([value]))),
            (How::Map, value) => drop(object.insert(field.name.into(), json!({ "k": value }))),
            (_, value) => drop(object.insert(field.name.into(), value)),
        }
    }
    object
}

/// What is measured has no protobuf here.
fn with_messages() -> impl Iterator<Item = std::sync::Arc<crate::kinds::Kind>> {
    crate::kinds::builtin().into_iter().filter(|kind| kind.names.group != crate::usage::GROUP)
}

#[test]
fn every_name_and_type_is_that_of_the_typed_kind() {
    let mut lines = Vec::new();
    for kind in with_messages() {
        let message = message(&kind.names.api_version(), &kind.names.kind).unwrap();
        for depth in 1..9 {
            let decoded = kind.decode(Value::Object(sample(message, depth)));
            let unknown = decoded.map(|d| d.unknown).unwrap_or_else(|e| vec![e]);
            for path in unknown {
                lines.push(format!("{} {path}", kind.names.kind));
            }
        }
    }
    lines.sort();
    lines.dedup();
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn what_is_written_reads_as_what_it_was() {
    for kind in with_messages() {
        let (version, name) = (kind.names.api_version(), kind.names.kind.to_string());
        for depth in 0..9 {
            let mut object = sample(message(&version, &name).unwrap(), depth);
            object.insert("apiVersion".into(), version.clone().into());
            object.insert("kind".into(), name.clone().into());
            let object = Value::Object(object);
            let bytes = encode::encode(object.to_string().as_bytes()).unwrap().unwrap();
            assert_eq!(decode(&bytes).unwrap(), object, "{name}, {depth} deep");
        }
    }
}

/// The text of a value with the fields of its objects in reverse.
fn turned(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let field = |(name, value): (&String, &Value)| format!("{}:{}", Value::from(name.as_str()), turned(value));
            format!("{{{}}}", map.iter().rev().map(field).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(turned).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// Whether the fields of a message stand in the order of their numbers, and so do those of all in it.
fn is_in_order(of: &'static Message, bytes: &[u8]) -> bool {
    let (mut reader, mut last) = (super::wire::Reader::new(bytes), 0);
    while let Some((number, wire)) = reader.next().unwrap() {
        let field = of.field(number).unwrap();
        let inner = match (&field.kind, wire) {
            (Type::Message(inner), super::wire::Wire::Bytes(bytes)) if field.how != How::Map => {
                is_in_order(inner, bytes)
            }
            _ => true,
        };
        if number < last || !inner {
            return false;
        }
        last = number;
    }
    true
}

#[test]
fn what_is_written_stands_in_order_whatever_the_text() {
    for kind in with_messages() {
        let (version, name) = (kind.names.api_version(), kind.names.kind.to_string());
        let of = message(&version, &name).unwrap();
        let mut object = Value::Object(sample(of, 6));
        object["apiVersion"] = version.clone().into();
        object["kind"] = name.clone().into();
        object["metadata"]["labels"] = json!({ "b": "1", "a": "", "c\"": "x" });
        let bytes = encode::encode(object.to_string().as_bytes()).unwrap().unwrap();
        let odd = turned(&object).replacen('{', "{\"odd\":[{}],", 1);
        assert_eq!(encode::encode(odd.as_bytes()).unwrap().unwrap(), bytes, "{name}");
        let mut reader = super::wire::Reader::new(&bytes[4..]);
        let raw = std::iter::from_fn(|| reader.next().unwrap()).find(|(number, _)| *number == 2);
        let Some((_, super::wire::Wire::Bytes(raw))) = raw else { panic!("{name} has no content") };
        assert!(is_in_order(of, raw), "{name}");
        let list = json!({ "kind": format!("{name}List"), "apiVersion": version, "items": [object, object], "metadata": { "resourceVersion": "7" } });
        let list = encode::encode(list.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(list.windows(raw.len()).filter(|window| *window == raw).count(), 2, "{name}");
    }
}

#[test]
fn every_name_has_its_place() {
    for message in messages() {
        let mut names: Vec<&str> = names(message).into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(message.places().iter().map(|place| place.name).collect::<Vec<_>>(), names, "{}", message.name);
        assert!(names.is_sorted_by(|a, b| a < b), "{}: a name that is there twice", message.name);
    }
}

#[test]
fn what_has_two_shapes_and_what_says_nothing() {
    let schema = |of: Value| {
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "spec": { "versions": [{ "name": "v1", "schema": { "openAPIV3Schema": { "properties": { "a": of } } } }] } })
    };
    let pod = |spec: Value| json!({ "apiVersion": "v1", "kind": "Pod", "spec": spec });
    let same = |object: Value| (object.clone(), object);
    for (written, read) in [
        same(schema(
            json!({ "items": { "type": "string" }, "additionalProperties": { "type": "string" }, "dependencies": { "b": {} } }),
        )),
        same(schema(
            json!({ "additionalProperties": false, "enum": [null, 1, "x", { "y": [] }], "minimum": -1.5, "minLength": 0 }),
        )),
        same(pod(
            json!({ "terminationGracePeriodSeconds": 0, "tolerations": [{ "tolerationSeconds": -1 }], "securityContext": {} }),
        )),
        same(pod(
            json!({ "containers": [{ "livenessProbe": { "httpGet": { "port": "http" } }, "resources": { "limits": { "": "1" } } }] }),
        )),
        (
            pod(
                json!({ "hostNetwork": false, "priority": null, "nodeName": "", "containers": [], "nodeSelector": {} }),
            ),
            pod(json!({})),
        ),
        (
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "creationTimestamp": "2025-01-02T05:04:05+02:00" } }),
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "creationTimestamp": "2025-01-02T03:04:05Z" } }),
        ),
    ] {
        let bytes = encode::encode(written.to_string().as_bytes()).unwrap().unwrap();
        assert_eq!(decode(&bytes).unwrap(), read, "{written}");
    }
    let wrong = pod(json!({ "containers": [{ "image": 1 }] })).to_string();
    let said = encode::encode(wrong.as_bytes()).unwrap_err().to_string();
    assert_eq!(said, "spec.containers.image: the value does not fit its field");
    let custom = json!({ "apiVersion": "x.io/v1", "kind": "Rocket" }).to_string();
    assert!(encode::encode(custom.as_bytes()).unwrap().is_none());
}

/// Names that a message shows in JSON.
fn names(message: &'static Message) -> Vec<(&'static str, &'static Type)> {
    let of = |field: &'static super::table::Field| match (field.how, &field.kind) {
        (How::Inline, Type::Message(inner)) => names(inner),
        (_, kind) => vec![(field.name, kind)],
    };
    message.fields().iter().flat_map(of).collect()
}

/// Fields of a type that its message does not have, so that they would be lost on the wire.
fn missing(
    of: &'static crate::schema::Type,
    message: &'static Message,
    seen: &mut Vec<String>,
    lines: &mut Vec<String>,
) {
    if seen.iter().any(|name| *name == of.name) {
        return;
    }
    seen.push(of.name.into());
    let names = names(message);
    for field in of.fields() {
        let mut shape = &field.shape;
        while let Shape::List(inner) | Shape::Map(inner) = shape {
            shape = inner;
        }
        match (names.iter().find(|(name, _)| *name == field.name), shape) {
            (None, _) if matches!(field.name, "apiVersion" | "kind") => {}
            (None, _) => lines.push(format!("{} {}", of.name, field.name)),
            (Some((_, Type::Message(inner))), Shape::Object(of)) => missing(of, inner, seen, lines),
            _ => {}
        }
    }
}

#[test]
fn no_field_of_a_kind_is_lost() {
    let (mut seen, mut lines) = (Vec::new(), Vec::new());
    for kind in with_messages() {
        if let View::Type(of) = kind.view() {
            let message = message(&kind.names.api_version(), &kind.names.kind).unwrap();
            missing(of, message, &mut seen, &mut lines);
        }
    }
    assert!(seen.len() > 300, "{}", seen.len());
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn every_line_of_the_table_is_read_and_in_order() {
    assert!(messages().len() > 400 && messages().is_sorted_by(|a, b| a.name < b.name));
    let lines = include_str!("messages.txt").lines().filter(|line| line.starts_with(' ')).count();
    let fields: usize = messages().iter().map(|message| message.fields().len()).sum();
    assert_eq!(fields, lines, "a line that is no field, or whose type is not there");
    for message in messages() {
        assert!(message.fields().is_sorted_by(|a, b| a.number < b.number), "{}", message.name);
    }
}

fn put(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [put(1, api_version.as_bytes()), put(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), put(1, &type_meta), put(2, raw)].concat()
}

#[test]
fn zero_is_absence_only_where_go_has_no_pointer() {
    // DeleteOptions.gracePeriodSeconds is a pointer, ScaleSpec.replicas is not.
    let options = decode(&envelope("v1", "DeleteOptions", &[1 << 3, 0])).unwrap();
    assert_eq!(options["gracePeriodSeconds"], 0);
    let scale = decode(&envelope("autoscaling/v1", "Scale", &put(2, &[1 << 3, 0]))).unwrap();
    assert_eq!(scale["spec"], json!({}));
}

#[test]
fn what_is_newer_is_skipped() {
    let raw =
        [put(15, b"newer"), vec![14 << 3, 1], vec![13 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0], vec![12 << 3 | 5, 0, 0, 0, 0]];
    let map = decode(&envelope("v1", "ConfigMap", &raw.concat())).unwrap();
    assert_eq!(map, json!({ "apiVersion": "v1", "kind": "ConfigMap" }));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let say = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert_eq!(say(b"{}"), "the body does not begin with the magic number of application/vnd.kubernetes.protobuf");
    assert_eq!(
        say(&envelope("v1", "Pod", &put(1, &[1 << 3, 1]))),
        "metadata.name: the value has another wire type than the field"
    );
    assert_eq!(say(&envelope("v1", "Pod", &put(1, &put(1, &[0xff])))), "metadata.name: the text is not UTF-8");
    assert_eq!(say(&envelope("v1", "Pod", &[1 << 3 | 2, 9])), "the bytes end within a field");
    assert_eq!(say(&envelope("v1", "Pod", &[1 << 3 | 3])), "wire type 3 is not known");
    assert_eq!(say(&envelope("a.example/v1", "A", &[])), "a.example/v1, Kind=A has no protobuf here");
    assert!(decode(&envelope("a.example/v1", "A", &[])).unwrap_err().is_unknown_kind());
    // not: not: not: … a schema
    let mut schema = Vec::new();
    for _ in 0..=DEPTH_MAX {
        schema = [vec![0xe2, 0x01], put(0, &schema)[1..].to_vec()].concat();
    }
    let raw = put(2, &put(7, &put(4, &put(1, &schema))));
    let said = say(&envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &raw));
    assert!(said.ends_with("more than 100 messages within each other"), "{said}");
}

proptest! {
    #[test]
    fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512), kind in 0usize..4) {
        let (version, kind) = [("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Event"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition")][kind];
        let _ = decode(&envelope(version, kind, &bytes));
        let _ = decode(&bytes);
    }

    #[test]
    fn nothing_panics_when_almost_right(which in 0usize..3, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8), cut in any::<u16>()) {
        let mut bytes = [DEPLOYMENT, SECRET, SERVICE][which].to_vec();
        for (at, value) in changes {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        if cut % 2 == 0 {
            bytes.truncate(usize::from(cut) % bytes.len());
        }
        let _ = decode(&bytes);
    }
}
