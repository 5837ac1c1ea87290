//! Objects: the wire is JSON text, the store holds that text, and what must be understood is a
//! [`serde_json::Value`].
//!
//! The revision of an object is known only after its write, so it is not part of the stored text. A stored
//! object is `offset (4 bytes, big endian) ‖ JSON`, where *offset* is the place just inside `"metadata":{`.
//! Reading puts `"resourceVersion":"…",` there: no object is parsed to be listed or watched.

use std::fmt::{self, Formatter};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use substrate_store::Revision;

/// The stored form of `object`, whose `metadata` has at least one field. Its resourceVersion is left out.
pub fn encode(object: &Value) -> Result<Bytes, serde_json::Error> {
    let field = |out: &mut Vec<u8>, before: &str, key: &str, value: &Value| {
        out.extend_from_slice(before.as_bytes());
        serde_json::to_writer(&mut *out, key)?;
        out.push(b':');
        serde_json::to_writer(out, value)
    };
    let mut out = Vec::with_capacity(2048);
    out.extend_from_slice(&[0; 4]);
    field(&mut out, "{", "apiVersion", &object["apiVersion"])?;
    field(&mut out, ",", "kind", &object["kind"])?;
    out.extend_from_slice(b",\"metadata\":{");
    let offset = (out.len() - 4) as u32; // an object is at most 1.5 MiB
    let metadata = object["metadata"].as_object().into_iter().flatten().filter(|(key, _)| *key != "resourceVersion");
    for (i, (key, value)) in metadata.enumerate() {
        field(&mut out, if i > 0 { "," } else { "" }, key, value)?;
    }
    out.push(b'}');
    let rest = object.as_object().into_iter().flatten();
    for (key, value) in rest.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata")) {
        field(&mut out, ",", key, value)?;
    }
    out.push(b'}');
    out[..4].copy_from_slice(&offset.to_be_bytes());
    // The store keeps it as it is, with the room that it grew by: a Node of 4.6 KB would take 8.
    out.shrink_to_fit();
    Ok(out.into())
}

/// Appends the JSON text of a stored object, with its resourceVersion.
pub fn write_json(stored: &[u8], revision: Revision, out: &mut BytesMut) {
    let (head, tail) = split(stored);
    out.reserve(stored.len() + 48);
    out.put_slice(head);
    out.put_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    if tail.first() != Some(&b'}') {
        out.put_u8(b',');
    }
    out.put_slice(tail);
}

/// The JSON text of a stored object, with its resourceVersion.
pub fn to_json(stored: &[u8], revision: Revision) -> Bytes {
    let mut out = BytesMut::new();
    write_json(stored, revision, &mut out);
    out.freeze()
}

/// Appends the metadata of a stored object, as whoever asks for nothing else gets it (`PartialObjectMetadata`). Nothing of it is understood.
pub fn write_partial(stored: &[u8], revision: Revision, out: &mut BytesMut) {
    let metadata = text_at(text_of(stored), "metadata").unwrap_or("{}");
    let fields = metadata.strip_prefix('{').unwrap_or("}");
    out.reserve(metadata.len() + 128);
    out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{");
    out.put_slice(format!("\"resourceVersion\":\"{revision}\"").as_bytes());
    if fields != "}" {
        out.put_u8(b',');
    }
    out.put_slice(fields.as_bytes());
    out.put_u8(b'}');
}

/// The same of the JSON text of an object.
pub fn partial_of(json: &[u8]) -> Bytes {
    let metadata = std::str::from_utf8(json).ok().and_then(|json| text_at(json, "metadata")).unwrap_or("{}");
    let parts = [r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#, metadata, "}"];
    parts.concat().into()
}

/// The stored object, understood.
pub fn decode(stored: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(stored.get(4..).unwrap_or_default())?;
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    Ok(object)
}

/// What stands in a stored object at `path`, as `spec.nodeName`, or nothing; the rest is passed over.
pub fn value_at(stored: &[u8], path: &str) -> Value {
    text_at(text_of(stored), path).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The stored object with `value` at `path`; everything else stays the text that it is. None if what `path` is in is not there.
pub fn put_at(stored: &[u8], path: &str, value: &Value) -> Option<Bytes> {
    let json = text_of(stored);
    let place = |text: &str| text.as_ptr() as usize - json.as_ptr() as usize + 4;
    let (from, to, text) = match text_at(json, path) {
        Some(old) => (place(old), place(old) + old.len(), value.to_string()),
        None => {
            let (parent, name) = path.rsplit_once('.')?;
            let parent = text_at(json, parent).filter(|parent| parent.starts_with('{'))?;
            let comma = if parent == "{}" { "" } else { "," };
            (place(parent) + 1, place(parent) + 1, format!("{}:{value}{comma}", Value::from(name)))
        }
    };
    Some([&stored[..from], text.as_bytes(), &stored[to..]].concat().into())
}

fn text_of(stored: &[u8]) -> &str {
    std::str::from_utf8(stored.get(4..).unwrap_or_default()).unwrap_or_default()
}

/// The text at a path; what holds it is read up to there.
pub fn text_at<'a>(json: &'a str, path: &str) -> Option<&'a str> {
    struct Field<'n, 'f, 'de>(&'n str, &'f mut Option<&'de RawValue>);

    impl<'de> Visitor<'de> for Field<'_, '_, 'de> {
        type Value = ();
        fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
            while let Some(name) = fields.next_key::<String>()? {
                if name == self.0 {
                    *self.1 = Some(fields.next_value()?);
                    break;
                }
                fields.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    path.split('.').try_fold(json, |json, name| {
        let mut found = None;
        // An error is that it is not read to its end, or that it is no object.
        let _ = serde_json::Deserializer::from_str(json).deserialize_map(Field(name, &mut found));
        found.map(RawValue::get)
    })
}

fn split(stored: &[u8]) -> (&[u8], &[u8]) {
    let Some((offset, json)) = stored.split_first_chunk::<4>() else { return (stored, &[]) };
    json.split_at((u32::from_be_bytes(*offset) as usize).min(json.len()))
}

/// `metadata.FIELD` as text; empty when absent.
pub fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata` for writing; made when absent.
pub fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// The map under `key` for writing; made when absent or no map.
pub fn child<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let entry = &mut object[key];
    if !entry.is_object() {
        *entry = Value::Object(Map::new());
    }
    match entry {
        Value::Object(map) => map,
        // Cannot happen: it was made a map just above.
        _ => unreachable!("made a map just above"),
    }
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether deletion has begun.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Now, as Kubernetes writes times: seconds, UTC.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Five letters that make no words, as upstream puts behind names that it makes.
pub fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let random = uuid::Uuid::new_v4();
    random.as_bytes()[..5].iter().map(|b| char::from(LETTERS[usize::from(*b) % LETTERS.len()])).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_put_into_the_text() {
        let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a}", "generation": 1}, "spec": {}, "status": {"x": [{"y": 1}]}});
        let stored = encode(&object).unwrap();
        for (path, value) in [
            ("metadata.generation", json!(2)),
            ("spec.node", json!("\"n")),
            ("status.x", json!([])),
            ("status.z", json!({})),
        ] {
            let mut expected = object.clone();
            let (part, field) = path.split_once('.').unwrap();
            expected[part][field] = value.clone();
            expected["metadata"]["resourceVersion"] = "7".into();
            assert_eq!(decode(&put_at(&stored, path, &value).unwrap(), 7).unwrap(), expected, "{path}");
        }
        assert_eq!(put_at(&stored, "none.x", &json!(1)), None);
        assert_eq!(put_at(&stored, "kind.x", &json!(1)), None);
    }

    #[test]
    fn what_is_stored_reads_back_with_its_revision() {
        for object in [
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "}\"{"}}, "spec": {"n": [1, {}]}}),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"resourceVersion": "3"}}),
            json!({"spec": null, "apiVersion": "v1", "kind": "K\"", "metadata": {"name": "ü"}, "data": {"": ""}}),
        ] {
            let stored = encode(&object).unwrap();
            let mut expected = object.clone();
            expected["metadata"]["resourceVersion"] = "42".into();
            assert_eq!(decode(&stored, 42).unwrap(), expected);
            for (path, place) in [
                ("metadata.labels", "/metadata/labels"),
                ("spec.n", "/spec/n"),
                ("kind", "/kind"),
                ("data.a.b", "/none"),
            ] {
                assert_eq!(value_at(&stored, path), object.pointer(place).cloned().unwrap_or_default(), "{path}");
            }
            assert_eq!(serde_json::from_slice::<Value>(&to_json(&stored, 42)).unwrap(), expected);
            let mut partial = BytesMut::new();
            write_partial(&stored, 42, &mut partial);
            for partial in [partial.freeze(), partial_of(&to_json(&stored, 42))] {
                let partial: Value = serde_json::from_slice(&partial).unwrap();
                assert_eq!(partial, crate::table::partial(&expected));
            }
        }
    }
}
