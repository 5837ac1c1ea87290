//! Values of expressions. JSON is looked into where it lies, with the schema that says what it means.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};
use substrate_client::quantity::Quantity;

use super::functions::rights::{Check, Decision};
use super::functions::time;
use crate::custom::schema::Schema;

/// Names of types that expressions can speak of.
pub const TYPES: [&str; 10] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint", "type"];

/// A text that is lent or shared: copying a value copies none.
#[derive(Clone, Debug)]
pub enum Str<'a> {
    /// Lent.
    Lent(&'a str),
    /// Shared.
    Own(Arc<str>),
}

impl std::ops::Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Own(text) => text,
        }
    }
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// One that is not below 0.
    UInt(u64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    Text(Str<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A moment.
    Time(Timestamp),
    /// A length of time.
    Duration(SignedDuration),
    /// A list that the expression made.
    List(Arc<Vec<Value<'a>>>),
    /// A map that the expression made.
    Map(Arc<Vec<(Value<'a>, Value<'a>)>>),
    /// An array or object, and what its schema says.
    Json(&'a Json, Option<&'a Schema>),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(&'static str),
    /// An amount of a resource.
    Quantity(Quantity),
    /// An absolute URL or path.
    Url(Arc<url::Url>),
    /// An address.
    Ip(IpAddr),
    /// A range of addresses.
    Cidr(IpAddr, u8),
    /// A named format.
    Format(&'static str),
    /// A question about rights.
    Check(Arc<Check<'a>>),
    /// Its answer.
    Decision(Arc<Decision>),
    /// What could not be computed; whoever asks for it fails so.
    Failed(Arc<str>),
}

/// The items of a list.
pub enum Items<'a> {
    /// Of JSON.
    Json(&'a [Json], Option<&'a Schema>),
    /// Made.
    Own(Arc<Vec<Value<'a>>>),
}

impl<'a> Items<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Own(items) => items.len(),
        }
    }

    /// One of them.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items, schema) => items.get(index).map(|item| Value::of(item, schema.and_then(Schema::item))),
            Self::Own(items) => items.get(index).cloned(),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// The entries of a map.
pub enum Fields<'a> {
    /// Of JSON.
    Json(&'a Map<String, Json>, Option<&'a Schema>),
    /// Made.
    Own(Arc<Vec<(Value<'a>, Value<'a>)>>),
}

impl<'a> Fields<'a> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Own(entries) => entries.len(),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Json(map, schema), Value::Text(name)) => {
                let found = map.get_key_value(&**name);
                // A field whose name is no name of CEL goes by another.
                let (name, value) = found.or_else(|| map.get_key_value(&unescaped(name)?))?;
                Some(Value::of(value, schema.and_then(|schema| schema.of_field(name))))
            }
            (Self::Json(..), _) => None,
            (Self::Own(entries), _) => {
                entries.iter().find(|(known, _)| known.equals(key)).map(|(_, value)| value.clone())
            }
        }
    }

    /// The keys.
    pub fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|key| Value::Text(Str::Lent(key.as_str()))).collect(),
            Self::Own(entries) => entries.iter().map(|(key, _)| key.clone()).collect(),
        }
    }
}

/// The name of a field as it stands in JSON, if it is written in the way that expressions must write it.
pub fn unescaped(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    let marks = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    let mut rest = name;
    let mut out = String::new();
    while !rest.is_empty() {
        if let Some((mark, sign)) = marks.iter().find(|(mark, _)| rest.starts_with(mark)) {
            out.push_str(sign);
            rest = &rest[mark.len()..];
            continue;
        }
        let mut characters = rest.chars();
        out.extend(characters.next());
        rest = characters.as_str();
    }
    // Words that CEL keeps for itself: `__namespace__`.
    let word = out.strip_prefix("__").and_then(|word| word.strip_suffix("__"));
    Some(word.map_or(out.clone(), str::to_owned))
}

impl<'a> Value<'a> {
    /// What JSON says.
    pub fn of(json: &'a Json, schema: Option<&'a Schema>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(_), _, Some(fraction)) if schema.is_some_and(Schema::is_number) => Self::Double(fraction),
                (Some(whole), _, _) => Self::Int(whole),
                (_, Some(whole), _) => Self::UInt(whole),
                (_, _, Some(fraction)) if fraction.fract() == 0.0 && schema.is_some_and(Schema::is_integer) => {
                    Self::Int(fraction as i64)
                }
                (_, _, fraction) => Self::Double(fraction.unwrap_or(f64::NAN)),
            },
            Json::String(text) => match schema.and_then(Schema::format) {
                Some("date-time") => text.parse().map_or(Self::Text(Str::Lent(text)), Self::Time),
                Some("duration") => time::duration(text).map_or(Self::Text(Str::Lent(text)), Self::Duration),
                Some("byte") => base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text)
                    .map_or(Self::Text(Str::Lent(text)), |bytes| Self::Bytes(bytes.into())),
                _ => Self::Text(Str::Lent(text)),
            },
            Json::Array(_) | Json::Object(_) => Self::Json(json, schema),
        }
    }

    /// A text of one's own.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Str::Own(text.into().into()))
    }

    /// A list of one's own.
    pub fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(Arc::new(items))
    }

    /// The items, if it is a list.
    pub fn items(&self) -> Option<Items<'a>> {
        match self {
            Self::List(items) => Some(Items::Own(items.clone())),
            Self::Json(Json::Array(items), schema) => Some(Items::Json(items, *schema)),
            _ => None,
        }
    }

    /// The entries, if it is a map.
    pub fn fields(&self) -> Option<Fields<'a>> {
        match self {
            Self::Map(entries) => Some(Fields::Own(entries.clone())),
            Self::Json(Json::Object(map), schema) => Some(Fields::Json(map, *schema)),
            _ => None,
        }
    }

    /// What touching it costs: characters by ten, items and entries one by one, with what is in them.
    pub fn weight(&self) -> u64 {
        match self {
            Self::Text(text) => 1 + text.len() as u64 / 10,
            Self::Bytes(bytes) => 1 + bytes.len() as u64 / 10,
            Self::List(items) => 1 + items.iter().map(Self::weight).sum::<u64>(),
            Self::Map(entries) => 1 + entries.iter().map(|(key, value)| key.weight() + value.weight()).sum::<u64>(),
            Self::Json(json, _) => json_weight(json),
            _ => 1,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) | Self::Json(Json::Array(_), _) => "list",
            Self::Map(_) | Self::Json(..) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Check(check) => check.type_name(),
            Self::Decision(_) => "kubernetes.authorization.Decision",
            Self::Failed(_) => "error",
        }
    }

    /// Whether both are the same; numbers are compared by what they mean.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        if let (Some(a), Some(b)) = (self.items(), other.items()) {
            return a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(&b));
        }
        if let (Some(a), Some(b)) = (self.fields(), other.fields()) {
            let same = |key: &Value<'_>| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => a.equals(&b),
                _ => false,
            };
            return a.len() == b.len() && a.keys().iter().all(same);
        }
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Type(a), Value::Type(b)) | (Self::Format(a), Value::Format(b)) => a == b,
            (Self::Url(a), Value::Url(b)) => a == b,
            (Self::Ip(a), Value::Ip(b)) => a == b,
            (Self::Cidr(a, n), Value::Cidr(b, m)) => (a, n) == (b, m),
            (Self::Optional(None), Value::Optional(None)) => true,
            (Self::Optional(Some(a)), Value::Optional(Some(b))) => a.equals(b),
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of both, if there is one.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => a.partial_cmp(b),
            (Self::Text(a), Value::Text(b)) => Some((**a).cmp(&**b)),
            (Self::Bytes(a), Value::Bytes(b)) => a.partial_cmp(b),
            (Self::Time(a), Value::Time(b)) => a.partial_cmp(b),
            (Self::Duration(a), Value::Duration(b)) => a.partial_cmp(b),
            (Self::Quantity(a), Value::Quantity(b)) => a.nano_value().partial_cmp(&b.nano_value()),
            (Self::Double(a), _) => a.partial_cmp(&other.number()?),
            (_, Value::Double(b)) => self.number()?.partial_cmp(b),
            _ => self.whole()?.partial_cmp(&other.whole()?),
        }
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(whole) => Some(i128::from(*whole)),
            Self::UInt(whole) => Some(i128::from(*whole)),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Double(fraction) => Some(*fraction),
            _ => self.whole().map(|whole| whole as f64),
        }
    }
}

fn json_weight(json: &Json) -> u64 {
    match json {
        Json::String(text) => 1 + text.len() as u64 / 10,
        Json::Array(items) => 1 + items.iter().map(json_weight).sum::<u64>(),
        Json::Object(map) => 1 + map.values().map(json_weight).sum::<u64>(),
        _ => 1,
    }
}
