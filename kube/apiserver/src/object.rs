//! Objects: the wire is JSON text, the store holds that text, and what must be understood is a
//! [`serde_json::Value`].
//!
//! The revision of an object is known only after its write, so it is not part of the stored text. A stored
//! object is `offset (4 bytes, big endian) ‖ JSON`, where *offset* is the place just inside `"metadata":{`.
//! Reading puts `"resourceVersion":"…",` there: no object is parsed to be listed or watched.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};
use substrate_store::Revision;

/// The stored form of `object`, whose `metadata` has at least one field. Its resourceVersion is left out.
pub fn encode(object: &Value) -> Result<Bytes, serde_json::Error> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(&[0; 4]);
    out.push(b'{');
    for key in ["apiVersion", "kind"] {
        out.extend_from_slice(format!("\"{key}\":").as_bytes());
        serde_json::to_writer(&mut out, &object[key])?;
        out.push(b',');
    }
    out.extend_from_slice(b"\"metadata\":{");
    let offset = (out.len() - 4) as u32; // an object is at most 1.5 MiB
    let metadata = object["metadata"].as_object().into_iter().flatten().filter(|(key, _)| *key != "resourceVersion");
    for (i, (key, value)) in metadata.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, key)?;
        out.push(b':');
        serde_json::to_writer(&mut out, value)?;
    }
    out.push(b'}');
    for (key, value) in object.as_object().into_iter().flatten() {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            out.push(b',');
            serde_json::to_writer(&mut out, key)?;
            out.push(b':');
            serde_json::to_writer(&mut out, value)?;
        }
    }
    out.push(b'}');
    out[..4].copy_from_slice(&offset.to_be_bytes());
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

/// The stored object, understood.
pub fn decode(stored: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    let mut object: Value = serde_json::from_slice(stored.get(4..).unwrap_or_default())?;
    object["metadata"]["resourceVersion"] = revision.to_string().into();
    Ok(object)
}

/// The stored object with nothing but its metadata understood; the rest is passed over.
pub fn decode_metadata(stored: &[u8], revision: Revision) -> Result<Value, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Head {
        metadata: Value,
    }
    let Head { mut metadata } = serde_json::from_slice(stored.get(4..).unwrap_or_default())?;
    metadata["resourceVersion"] = revision.to_string().into();
    Ok(serde_json::json!({ "metadata": metadata }))
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
            let metadata = &expected["metadata"];
            assert_eq!(decode_metadata(&stored, 42).unwrap(), json!({ "metadata": metadata }));
            assert_eq!(serde_json::from_slice::<Value>(&to_json(&stored, 42)).unwrap(), expected);
        }
    }
}
