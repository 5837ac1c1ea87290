//! Kubernetes' protobuf: what kubectl and typed Go clients send, as the JSON that it stands for, and what they are answered ([`encode`]).
//!
//! ```text
//! "k8s\0" Unknown{typeMeta{apiVersion, kind}, raw, contentEncoding, contentType}
//!                  └──────────▶ which message ──▶ raw, field by field after its table ──▶ Value
//! ```
//!
//! The envelope is that of `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`. Messages are data ([`table`]); a field
//! that no table names is skipped, as protobuf asks. Everything is bounded, and no input panics.
//!
//! Limitations: kinds of CustomResourceDefinitions have no protobuf but for their metadata, as upstream; discovery has none.

pub(crate) mod encode;
mod table;
mod wire;

#[cfg(test)]
mod tests;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use self::table::{Field, How, Message, Type};
use self::wire::{Reader, Wire};
use crate::schema::name_of;

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Messages in messages. A pod has 9; schemas of CustomResourceDefinitions are the deepest, and `serde_json` stops
/// at 128 for the same objects.
const DEPTH_MAX: usize = 100;

/// Values in one object: an EndpointSlice of 1,000 addresses has 10,000. A value costs two octets to send and some
/// eighty to keep, so this holds a body of 3 MiB to 32 MiB.
const VALUES_MAX: usize = 400_000;

/// Why bytes are no object, and where in it.
#[derive(Debug, thiserror::Error)]
#[error("{}{problem}", place(.path))]
pub struct Error {
    /// Innermost first.
    path: Vec<&'static str>,
    problem: Problem,
}

/// What is wrong with them.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not an object in this encoding at all.
    #[error("the body does not begin with the magic number of {MEDIA_TYPE}")]
    Magic,
    /// The envelope holds something else.
    #[error("content of encoding {0:?} and type {1:?}; needed is protobuf without further encoding")]
    Content(String, String),
    /// A message that no table describes.
    #[error("{0}, Kind={1} has no protobuf here")]
    UnknownKind(String, String),
    /// The bytes end too early.
    #[error("the bytes end within a field")]
    Truncated,
    /// A varint of more than 64 bits.
    #[error("a varint has more than 64 bits")]
    Varint,
    /// Field numbers are 1 to 2^29-1.
    #[error("{0} is no field number")]
    Number(u64),
    /// A wire type that does not exist, or groups.
    #[error("wire type {0} is not known")]
    WireType(u8),
    /// Another wire type than the field has.
    #[error("the value has another wire type than the field")]
    Mismatch,
    /// Text must be UTF-8.
    #[error("the text is not UTF-8")]
    Text,
    /// An object that is written does not have the shape of its kind.
    #[error("the value does not fit its field")]
    Shape,
    /// Raw JSON must be JSON.
    #[error("the value is not JSON: {0}")]
    Json(serde_json::Error),
    /// Not within years -9999 to 9999.
    #[error("{0} seconds is no time")]
    Time(i64),
    /// NaN and infinities have no JSON.
    #[error("the number is not finite")]
    Double,
    /// Too deep.
    #[error("more than {DEPTH_MAX} messages within each other")]
    Depth,
    /// Too many.
    #[error("more than {VALUES_MAX} values")]
    Values,
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { path: Vec::new(), problem }
    }
}

impl Error {
    /// Whether the kind is not known, rather than its bytes wrong.
    pub fn is_unknown_kind(&self) -> bool {
        matches!(self.problem, Problem::UnknownKind(..))
    }

    fn within(mut self, field: &'static str) -> Self {
        self.path.push(field);
        self
    }
}

fn place(path: &[&'static str]) -> String {
    if path.is_empty() {
        return String::new();
    }
    let path: Vec<&str> = path.iter().rev().copied().collect();
    format!("{}: ", path.join("."))
}

/// The object that `body` stands for, with its `apiVersion` and `kind`.
///
/// # Errors
/// What is wrong with it and where; see [`Error::is_unknown_kind`].
pub fn decode(body: &[u8]) -> Result<Value, Error> {
    let unknown = body.strip_prefix(MAGIC).ok_or(Problem::Magic)?;
    let (mut type_meta, mut raw, mut encoding, mut content) = (&[][..], &[][..], &[][..], &[][..]);
    let mut reader = Reader::new(unknown);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => type_meta = bytes,
            (2, Wire::Bytes(bytes)) => raw = bytes,
            (3, Wire::Bytes(bytes)) => encoding = bytes,
            (4, Wire::Bytes(bytes)) => content = bytes,
            (1..=4, _) => return Err(Problem::Mismatch.into()),
            _ => {}
        }
    }
    if !encoding.is_empty() || !(content.is_empty() || content == MEDIA_TYPE.as_bytes()) {
        return Err(Problem::Content(text(encoding)?.to_owned(), text(content)?.to_owned()).into());
    }
    let (mut api_version, mut kind) = ("", "");
    let mut reader = Reader::new(type_meta);
    while let Some((number, value)) = reader.next()? {
        match (number, value) {
            (1, Wire::Bytes(bytes)) => api_version = text(bytes)?,
            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
            (1 | 2, _) => return Err(Problem::Mismatch.into()),
            _ => {}
        }
    }
    let message =
        message(api_version, kind).ok_or_else(|| Problem::UnknownKind(api_version.to_owned(), kind.to_owned()))?;
    let mut object = Map::new();
    Decoder { values: 0 }.message(message, raw, &mut object, 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// What has a message beside the kinds that are served.
const BESIDE: [(&str, &str); 5] = [
    ("meta.k8s.io/v1", "PartialObjectMetadata"),
    ("v1", "Binding"),
    ("authentication.k8s.io/v1", "TokenRequest"),
    ("policy/v1", "Eviction"),
    ("autoscaling/v1", "Scale"),
];

/// The message of a kind.
fn message(api_version: &str, kind: &str) -> Option<&'static Message> {
    match (api_version, kind) {
        (_, "DeleteOptions") => return table::named("meta.v1.DeleteOptions"), // registered in every group
        ("v1", "Status") => return table::named("meta.v1.Status"),
        _ => {}
    }
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let is_served = || crate::kinds::descriptions().any(|served| served.names[..3] == [group, version, kind]);
    let is_known = BESIDE.contains(&(api_version, kind)) || is_served();
    is_known.then(|| table::named(&name_of(group, version, kind))).flatten()
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|_| Problem::Text)
}

/// Reads one object.
struct Decoder {
    /// Values so far.
    values: usize,
}

impl Decoder {
    /// Reads a message into `out`. A message that comes in parts is the union of them (protobuf, "Last One Wins").
    fn message(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Problem::Depth.into());
        }
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next()? {
            if let Some(field) = message.field(number) {
                self.field(field, wire, out, depth + 1).map_err(|e| e.within(field.name))?;
            }
        }
        Ok(())
    }

    fn field(
        &mut self,
        field: &'static Field,
        wire: Wire,
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Error> {
        match (field.how, &field.kind) {
            (How::Inline, Type::Message(message)) => self.message(message, octets(wire)?, out, depth)?,
            (How::One | How::Opt, Type::Message(message)) => {
                let inner = out.entry(field.name).or_insert_with(|| json!({}));
                if let Value::Object(inner) = inner {
                    self.message(message, octets(wire)?, inner, depth)?;
                }
            }
            (How::One, kind) => {
                let value = self.value(kind, wire, depth)?;
                if is_zero(kind, &value) {
                    out.remove(field.name);
                } else {
                    out.insert(field.name.to_owned(), value);
                }
            }
            (How::Opt | How::Inline, kind) => {
                let value = self.value(kind, wire, depth)?;
                out.insert(field.name.to_owned(), value);
            }
            (How::List, kind) => {
                let list = out.entry(field.name).or_insert_with(|| json!([]));
                let Value::Array(list) = list else { return Ok(()) };
                if let (Type::Bool | Type::Int32 | Type::Int64, Wire::Bytes(packed)) = (kind, wire) {
                    let mut reader = Reader::new(packed);
                    while let Some(number) = reader.next_packed()? {
                        list.push(self.value(kind, Wire::Varint(number), depth)?);
                    }
                } else {
                    list.push(self.value(kind, wire, depth)?);
                }
            }
            (How::Map, kind) => {
                let (mut key, mut value) = ("", None);
                let mut reader = Reader::new(octets(wire)?);
                while let Some((number, wire)) = reader.next()? {
                    match number {
                        1 => key = text(octets(wire)?)?,
                        2 => value = Some(self.value(kind, wire, depth)?),
                        _ => {}
                    }
                }
                let value = match value {
                    Some(value) => value,
                    None => self.value(kind, zero(kind), depth)?,
                };
                if let Value::Object(map) = out.entry(field.name).or_insert_with(|| json!({})) {
                    map.insert(key.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, kind: &Type, wire: Wire, depth: usize) -> Result<Value, Error> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Problem::Values.into());
        }
        Ok(match kind {
            Type::Text => text(octets(wire)?)?.into(),
            Type::Bytes => BASE64_STANDARD.encode(octets(wire)?).into(),
            Type::Bool => (varint(wire)? != 0).into(),
            Type::Int32 => (varint(wire)? as i32).into(), // negative ones are sent with 64 bits
            Type::Int64 => (varint(wire)? as i64).into(),
            Type::Double => {
                let Wire::Fixed64(bits) = wire else { return Err(Problem::Mismatch.into()) };
                serde_json::Number::from_f64(f64::from_bits(bits)).ok_or(Problem::Double)?.into()
            }
            Type::Json => match first(octets(wire)?)? {
                [] => Value::Null,
                raw => {
                    let value = serde_json::from_slice(raw).map_err(Problem::Json)?;
                    self.count(&value)?;
                    value
                }
            },
            Type::Quantity => match text(first(octets(wire)?)?)? {
                "" => "0".into(),
                text => text.into(),
            },
            Type::Time => time(octets(wire)?, "%Y-%m-%dT%H:%M:%SZ")?,
            Type::MicroTime => time(octets(wire)?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
            Type::IntOrString => int_or_string(octets(wire)?)?,
            Type::Message(message) => Value::Object(self.object(message, wire, depth)?),
            Type::Strings => {
                let (mut list, mut reader) = (Vec::new(), Reader::new(octets(wire)?));
                while let Some((number, wire)) = reader.next()? {
                    if number == 1 {
                        list.push(self.value(&Type::Text, wire, depth)?);
                    }
                }
                list.into()
            }
            Type::SchemaOrArray(of) | Type::SchemaOrStrings(of) => {
                let mut either = self.object(of, wire, depth)?;
                either.remove("array").or_else(|| either.remove("schema")).unwrap_or_default()
            }
            Type::SchemaOrBool(of) => {
                let mut either = self.object(of, wire, depth)?;
                either.remove("schema").unwrap_or_else(|| either.contains_key("allows").into())
            }
        })
    }

    fn object(&mut self, message: &'static Message, wire: Wire, depth: usize) -> Result<Map<String, Value>, Error> {
        let mut object = Map::new();
        self.message(message, octets(wire)?, &mut object, depth)?;
        Ok(object)
    }

    /// Counts what raw JSON brought along. Its depth is bounded by `serde_json`.
    fn count(&mut self, value: &Value) -> Result<(), Problem> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Problem::Values);
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| self.count(item)),
            Value::Object(map) => map.values().try_for_each(|item| self.count(item)),
            _ => Ok(()),
        }
    }
}

fn octets(wire: Wire<'_>) -> Result<&[u8], Problem> {
    if let Wire::Bytes(bytes) = wire { Ok(bytes) } else { Err(Problem::Mismatch) }
}

fn varint(wire: Wire) -> Result<u64, Problem> {
    if let Wire::Varint(number) = wire { Ok(number) } else { Err(Problem::Mismatch) }
}

/// What a field of this type has on the wire when it has its zero.
fn zero(kind: &Type) -> Wire<'static> {
    match kind {
        Type::Bool | Type::Int32 | Type::Int64 => Wire::Varint(0),
        Type::Double => Wire::Fixed64(0),
        _ => Wire::Bytes(&[]),
    }
}

fn is_zero(kind: &Type, value: &Value) -> bool {
    match kind {
        Type::Text | Type::Bytes => value == "",
        Type::Bool => value == false,
        Type::Int32 | Type::Int64 => value == 0,
        Type::Double => value == 0.0,
        _ => false,
    }
}

/// Field 1 of a message that wraps one value.
fn first(bytes: &[u8]) -> Result<&[u8], Problem> {
    let mut found = &[][..];
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            found = octets(wire)?;
        }
    }
    Ok(found)
}

/// `Time{seconds, nanos}`; nothing at all is no time.
fn time(bytes: &[u8], format: &str) -> Result<Value, Problem> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = varint(wire)? as i64,
            2 => nanos = varint(wire)? as i32,
            _ => {}
        }
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let at = jiff::Timestamp::new(seconds, nanos).map_err(|_| Problem::Time(seconds))?;
    Ok(at.strftime(format).to_string().into())
}

/// `IntOrString{type, intVal, strVal}`; type 1 is text.
fn int_or_string(bytes: &[u8]) -> Result<Value, Problem> {
    let (mut is_text, mut number, mut words) = (false, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((field, wire)) = reader.next()? {
        match field {
            1 => is_text = varint(wire)? == 1,
            2 => number = varint(wire)? as i32,
            3 => words = text(octets(wire)?)?,
            _ => {}
        }
    }
    Ok(if is_text { words.into() } else { number.into() })
}
