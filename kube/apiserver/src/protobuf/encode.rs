//! Objects as protobuf: what decoding reads, written by the same tables.
//!
//! ```text
//! JSON text ─▶ kind ─▶ message ─▶ fields in the order of their numbers ─▶ "k8s\0" Unknown{typeMeta, raw}
//! a list    ─▶ ListMeta, then each item on its own: only one of them is understood at a time
//! a watch   ─▶ length (4 bytes, big endian) ‖ WatchEvent{type, object{raw: the envelope above}}
//! ```
//!
//! What Go could not tell apart is not written: nulls, empty lists and maps, zeros of what is no pointer.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::table::{Field, How, Message, Type, named};
use super::{Error, MAGIC, Problem, is_zero, message};

/// The parts of an object that say how to read the rest.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Option<&'a RawValue>,
}

/// Whether objects of a kind, and lists of them, can be written.
pub fn is_known(api_version: &str, kind: &str) -> bool {
    message(api_version, kind).or_else(|| message(api_version, kind.strip_suffix("List")?)).is_some()
}

/// The object or list whose JSON text is `json`, in its envelope; none for a kind that has no protobuf.
///
/// # Errors
/// A value that does not fit its field.
pub fn encode(json: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let head: Head = serde_json::from_slice(json).map_err(Problem::Json)?;
    let mut raw = Vec::with_capacity(json.len());
    if let Some(of) = message(&head.api_version, &head.kind) {
        let object: Value = serde_json::from_slice(json).map_err(Problem::Json)?;
        write(of, fields(&object)?, &mut raw)?;
    } else if let Some(of) = head.kind.strip_suffix("List").and_then(|kind| message(&head.api_version, kind)) {
        let metadata: Value = match head.metadata {
            Some(metadata) => serde_json::from_str(metadata.get()).map_err(Problem::Json)?,
            None => Value::Null,
        };
        if !metadata.is_null() {
            let of = named("meta.v1.ListMeta").ok_or(Problem::Shape)?;
            nested(1, &mut raw, |out| write(of, fields(&metadata)?, out))?;
        }
        let items: Vec<&RawValue> = match head.items {
            Some(items) => serde_json::from_str(items.get()).map_err(Problem::Json)?,
            None => Vec::new(),
        };
        for item in items {
            let item: Value = serde_json::from_str(item.get()).map_err(Problem::Json)?;
            nested(2, &mut raw, |out| write(of, fields(&item)?, out))?;
        }
    } else {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(raw.len() + 64);
    out.extend_from_slice(MAGIC);
    nested(1, &mut out, |out| {
        octets(1, head.api_version.as_bytes(), out);
        octets(2, head.kind.as_bytes(), out);
        Ok(())
    })?;
    octets(2, &raw, &mut out);
    Ok(Some(out))
}

/// An event of a watch, of which `object` is an envelope.
pub fn event(word: &str, object: &[u8]) -> Vec<u8> {
    let mut raw_extension = Vec::with_capacity(object.len() + 8);
    octets(1, object, &mut raw_extension);
    let mut out = vec![0; 4];
    octets(1, word.as_bytes(), &mut out);
    octets(2, &raw_extension, &mut out);
    let length = (out.len() - 4) as u32; // an object is at most 1.5 MiB
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn fields(value: &Value) -> Result<&Map<String, Value>, Problem> {
    value.as_object().ok_or(Problem::Shape)
}

fn write(message: &'static Message, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), Error> {
    for field in message.fields() {
        write_field(field, object, out).map_err(|e| e.within(field.name))?;
    }
    Ok(())
}

fn write_field(field: &'static Field, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), Error> {
    if let (How::Inline, Type::Message(inner)) = (field.how, &field.kind) {
        return nested(field.number, out, |out| write(inner, object, out));
    }
    let Some(given) = object.get(field.name).filter(|given| !given.is_null()) else { return Ok(()) };
    match field.how {
        How::One if is_zero(&field.kind, given) => Ok(()),
        How::One | How::Opt | How::Inline => value(field.number, &field.kind, given, out),
        How::List => {
            let items = given.as_array().ok_or(Problem::Shape)?;
            items.iter().try_for_each(|item| value(field.number, &field.kind, item, out))
        }
        How::Map => {
            let mut entries: Vec<_> = fields(given)?.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries.into_iter().try_for_each(|(key, item)| {
                nested(field.number, out, |out| {
                    octets(1, key.as_bytes(), out);
                    value(2, &field.kind, item, out)
                })
            })
        }
    }
}

fn value(number: u32, kind: &Type, given: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match kind {
        Type::Text => octets(number, text(given)?.as_bytes(), out),
        Type::Bytes => {
            let bytes = BASE64_STANDARD.decode(text(given)?).map_err(|_| Problem::Shape)?;
            octets(number, &bytes, out);
        }
        Type::Bool => varint(number, u64::from(given.as_bool().ok_or(Problem::Shape)?), out),
        Type::Int32 | Type::Int64 => varint(number, given.as_i64().ok_or(Problem::Shape)? as u64, out),
        Type::Double => {
            tag(number, 1, out);
            out.extend_from_slice(&given.as_f64().ok_or(Problem::Shape)?.to_le_bytes());
        }
        Type::Json => nested(number, out, |out| {
            octets(1, given.to_string().as_bytes(), out);
            Ok(())
        })?,
        // A number is kept as it came; its text means the same.
        Type::Quantity => nested(number, out, |out| {
            let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            octets(1, text.as_bytes(), out);
            Ok(())
        })?,
        Type::Time | Type::MicroTime => {
            let at: jiff::Timestamp = text(given)?.parse().map_err(|_| Problem::Shape)?;
            nested(number, out, |out| {
                varint(1, at.as_second() as u64, out);
                if matches!(kind, Type::MicroTime) {
                    varint(2, i64::from(at.subsec_nanosecond()) as u64, out);
                }
                Ok(())
            })?;
        }
        Type::IntOrString => nested(number, out, |out| {
            varint(1, u64::from(given.is_string()), out);
            match given {
                Value::String(words) => octets(3, words.as_bytes(), out),
                number => varint(2, number.as_i64().ok_or(Problem::Shape)? as u64, out),
            }
            Ok(())
        })?,
        Type::Message(inner) => nested(number, out, |out| write(inner, fields(given)?, out))?,
        Type::Strings => nested(number, out, |out| {
            given.as_array().ok_or(Problem::Shape)?.iter().try_for_each(|item| value(1, &Type::Text, item, out))
        })?,
        Type::SchemaOrArray(of) | Type::SchemaOrStrings(of) => {
            let name = if given.is_array() { "array" } else { "schema" };
            wrapped(number, of, [(name, given.clone())].into(), out)?;
        }
        Type::SchemaOrBool(of) => {
            let allowed = given.as_bool().unwrap_or(true);
            let mut parts = Vec::from([("allows", allowed.into())]);
            parts.extend((!given.is_boolean()).then(|| ("schema", given.clone())));
            wrapped(number, of, parts, out)?;
        }
    }
    Ok(())
}

/// What stands in JSON for one field of the message around it.
fn wrapped(number: u32, of: &'static Message, parts: Vec<(&str, Value)>, out: &mut Vec<u8>) -> Result<(), Error> {
    let object = parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    nested(number, out, |out| write(of, &object, out))
}

fn text(given: &Value) -> Result<&str, Problem> {
    given.as_str().ok_or(Problem::Shape)
}

/// What `fill` writes, as field `number`: its length is known when it is written, so it is put behind it and turned to its front then.
fn nested(number: u32, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>) -> Result<(), Error> {
    tag(number, 2, out);
    let start = out.len();
    fill(out)?;
    let end = out.len();
    put((end - start) as u64, out);
    let length = out.len() - end;
    out[start..].rotate_right(length);
    Ok(())
}

fn octets(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    tag(number, 2, out);
    put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    tag(number, 0, out);
    put(value, out);
}

fn tag(number: u32, wire_type: u8, out: &mut Vec<u8>) {
    put(u64::from(number) << 3 | u64::from(wire_type), out);
}

fn put(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
