//! The older document as protobuf, which is how `kubectl` reads it: for what the newer one does not know, such as `kind: List`.
//!
//! ```text
//! {"swagger": …, "paths": {…}, "definitions": {NAME: {"x-…": …}}} ─▶ Document{1: swagger, 8: Paths, 9: Definitions{1: NamedSchema{1: NAME, 2: Schema{31: NamedAny}}}}
//! ```
//!
//! Numbers are those of the public message `openapi.v2.Document`. What a message has no field for and does not begin with `x-` is left out.

use serde_json::{Map, Value};

use crate::protobuf::encode::{octets, varint};

/// As it is asked for. What is answered is called otherwise, as by upstream: no media type has an `@` in it (RFC 6838 §4.2).
pub const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// Its media type.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What is in a field.
#[derive(Clone, Copy)]
enum What {
    Text,
    Bool,
    /// A message with these fields.
    One(&'static Message),
    /// A message whose only field, with number 1, is the value.
    Within(&'static What),
    /// The value, or each value of a list, with this number again and again.
    Each(&'static What),
    /// Pairs of a name and a value below `number`, in a message of their own.
    Named(u32, &'static What),
    /// A parameter, by where it is.
    Parameter,
    /// Any value, as YAML.
    Any,
}

/// The fields of a message by their names in JSON, and the number for what begins with `x-`.
struct Message(&'static [(&'static str, u32, What)], u32);

static DOCUMENT: Message = Message(
    &[
        ("swagger", 1, What::Text),
        ("info", 2, What::One(&INFO)),
        ("paths", 8, What::Named(2, &What::One(&PATH))),
        ("definitions", 9, What::Named(1, &What::One(&SCHEMA))),
    ],
    16,
);
static INFO: Message = Message(&[("title", 1, What::Text), ("version", 2, What::Text)], 7);
static PATH: Message = Message(
    &[
        ("get", 2, What::One(&OPERATION)),
        ("put", 3, What::One(&OPERATION)),
        ("post", 4, What::One(&OPERATION)),
        ("delete", 5, What::One(&OPERATION)),
        ("patch", 8, What::One(&OPERATION)),
        ("parameters", 9, What::Each(&What::Parameter)),
    ],
    10,
);
static OPERATION: Message = Message(
    &[
        ("description", 3, What::Text),
        ("operationId", 5, What::Text),
        ("produces", 6, What::Each(&What::Text)),
        ("consumes", 7, What::Each(&What::Text)),
        ("parameters", 8, What::Each(&What::Parameter)),
        ("responses", 9, What::Named(1, &What::Within(&What::One(&RESPONSE)))),
    ],
    13,
);
static RESPONSE: Message =
    Message(&[("description", 1, What::Text), ("schema", 2, What::Within(&What::One(&SCHEMA)))], 5);
static BODY: Message = Message(
    &[("name", 2, What::Text), ("in", 3, What::Text), ("required", 4, What::Bool), ("schema", 5, What::One(&SCHEMA))],
    6,
);
static QUERY: Message = Message(
    &[
        ("required", 1, What::Bool),
        ("in", 2, What::Text),
        ("description", 3, What::Text),
        ("name", 4, What::Text),
        ("type", 6, What::Text),
        ("uniqueItems", 20, What::Bool),
    ],
    23,
);
static IN_PATH: Message = Message(
    &[("required", 1, What::Bool), ("in", 2, What::Text), ("name", 4, What::Text), ("type", 5, What::Text)],
    22,
);
static SCHEMA: Message = Message(
    &[
        ("$ref", 1, What::Text),
        ("format", 2, What::Text),
        ("title", 3, What::Text),
        ("description", 4, What::Text),
        ("default", 5, What::Any),
        ("required", 19, What::Each(&What::Text)),
        ("enum", 20, What::Each(&What::Any)),
        ("additionalProperties", 21, What::Within(&What::One(&SCHEMA))),
        ("type", 22, What::Within(&What::Each(&What::Text))),
        ("items", 23, What::Within(&What::One(&SCHEMA))),
        ("allOf", 24, What::Each(&What::One(&SCHEMA))),
        ("properties", 25, What::Named(1, &What::One(&SCHEMA))),
    ],
    31,
);

/// The bytes of a document.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    message(&DOCUMENT, document, &mut out);
    out
}

fn message(of: &Message, value: &Value, out: &mut Vec<u8>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        if let Some((_, number, what)) = of.0.iter().find(|(known, _, _)| known == name) {
            field(*number, what, value, out);
        } else if name.starts_with("x-") {
            named(of.1, name, &What::Any, value, out);
        }
    }
}

fn field(number: u32, what: &What, value: &Value, out: &mut Vec<u8>) {
    let mut inner = Vec::new();
    match (what, value) {
        (What::Text, Value::String(text)) => inner.extend_from_slice(text.as_bytes()),
        (What::Bool, Value::Bool(true)) => return varint(number, 1, out),
        (What::One(of), Value::Object(_)) => message(of, value, &mut inner),
        // Properties of any kind: a choice of schema and yes.
        (What::Within(_), Value::Bool(true)) => varint(2, 1, &mut inner),
        (What::Within(what), _) => field(1, what, value, &mut inner),
        (What::Each(what), Value::Array(items)) => return items.iter().for_each(|item| field(number, what, item, out)),
        (What::Each(what), _) => return field(number, what, value, out),
        (What::Named(at, what), Value::Object(pairs)) => {
            pairs.iter().for_each(|(name, value)| named(*at, name, what, value, &mut inner));
        }
        (What::Parameter, Value::Object(parameter)) => inner = one_parameter(parameter, value),
        (What::Any, _) => octets(2, value.to_string().as_bytes(), &mut inner), // JSON is YAML
        _ => return,
    }
    octets(number, &inner, out);
}

/// A pair of a map.
fn named(number: u32, name: &str, what: &What, value: &Value, out: &mut Vec<u8>) {
    let mut pair = Vec::new();
    octets(1, name.as_bytes(), &mut pair);
    field(2, what, value, &mut pair);
    octets(number, &pair, out);
}

/// `ParametersItem{Parameter{body or NonBodyParameter{query or path}}}`.
fn one_parameter(parameter: &Map<String, Value>, value: &Value) -> Vec<u8> {
    let (of, around): (_, &[u32]) = match parameter.get("in").and_then(Value::as_str) {
        Some("body") => (&BODY, &[1, 1]),
        Some("path") => (&IN_PATH, &[4, 2, 1]),
        _ => (&QUERY, &[3, 2, 1]),
    };
    let mut inner = Vec::new();
    message(of, value, &mut inner);
    around.iter().fold(inner, |inner, number| {
        let mut outer = Vec::new();
        octets(*number, &inner, &mut outer);
        outer
    })
}
