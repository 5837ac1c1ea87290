//! Structural schemas (`JSONSchemaProps` of apiextensions/v1): pruning, defaults, validation.
//!
//! A *schema* is read once, when its definition is written, into what can be asked quickly: each object that is written is held against
//! it five times.
//!
//! ```text
//! openAPIV3Schema ─check─▶ enforceable? ─Schema::read─▶ Schema ─┬─ prune      what it does not know goes
//!                                                               ├─ default    what is absent is filled in
//!                                                               ├─ openapi    what clients are told of it
//!                                                               ├─ share      what appliers share
//!                                                               ├─ fits       yes or no, without a word
//!                                                               ├─ validate   every reason why not
//!                                                               └─ rules      what is said in CEL
//! ```

mod default;
mod openapi;
mod prune;
pub mod rules;
mod share;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::kinds::Errors;
use crate::status::FieldError;

pub use self::default::default;
pub use self::prune::prune;
pub use self::validate::validate;

/// Nesting of schemas and objects that is followed; deeper ones are refused.
const DEPTH_MAX: usize = 64;

/// A schema, read.
#[derive(Debug, Default)]
pub struct Schema {
    /// `type`.
    kind: Option<Type>,
    nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    preserve: bool,
    /// `x-kubernetes-embedded-resource`.
    embedded: bool,
    default: Option<Value>,
    /// Whether something in it has a default.
    completes: bool,
    /// `enum`.
    allowed: Option<Vec<Value>>,
    required: Vec<Box<str>>,
    /// In the order of their names.
    properties: Vec<(Box<str>, Schema)>,
    additional: Additional,
    items: Option<Box<Schema>>,
    /// `x-kubernetes-list-map-keys` of a list that is a map.
    map_keys: Option<Vec<Box<str>>>,
    /// `x-kubernetes-list-type: set`.
    set: bool,
    /// `x-kubernetes-map-type: atomic`.
    whole: bool,
    all_of: Vec<Schema>,
    any_of: Option<Vec<Schema>>,
    one_of: Option<Vec<Schema>>,
    not: Option<Box<Schema>>,
    /// What few have.
    bounds: Option<Box<Bounds>>,
    /// `x-kubernetes-validations`.
    rules: Vec<rules::Rule>,
    /// Whether it or something in it has rules.
    ruled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Object,
    Array,
    String,
    Boolean,
    Integer,
    Number,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
}

/// Fields that are not among the properties.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    No,
    Any,
    Of(Box<Schema>),
}

#[derive(Debug, Default)]
struct Bounds {
    properties: Range,
    items: Range,
    length: Range,
    maximum: Option<(f64, bool)>,
    minimum: Option<(f64, bool)>,
    pattern: Option<Pattern>,
    format: Option<Box<str>>,
}

/// The least and the most of what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    least: Option<u64>,
    most: Option<u64>,
}

/// A pattern, compiled when it is first asked: definitions of others have many that nothing is ever held against.
#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        // The engine is linear in the text, so a hostile pattern cannot stall the server; its size is bounded.
        let compile = || regex::RegexBuilder::new(&self.text).size_limit(1 << 20).build().ok();
        self.compiled.get_or_init(compile).as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

impl Schema {
    /// Reads what [`check`] has found enforceable. What is no schema allows everything, as an empty one does.
    pub fn read(schema: &Value) -> Self {
        let is = |word: &str| schema[word] == json!(true);
        let list =
            |word: &str| schema[word].as_array().map(|branches| branches.iter().map(Self::read).collect::<Vec<_>>());
        let one = |value: &Value| value.is_object().then(|| Box::new(Self::read(value)));
        let texts = |value: &Value| -> Vec<Box<str>> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
        };
        let mut properties: Vec<(Box<str>, Self)> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, property)| property.is_object())
            .map(|(name, property)| (name.as_str().into(), Self::read(property)))
            .collect();
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        let default = Some(&schema["default"]).filter(|given| !given.is_null()).cloned();
        let items = one(&schema["items"]);
        let additional = match &schema["additionalProperties"] {
            Value::Object(_) => one(&schema["additionalProperties"]).map_or(Additional::No, Additional::Of),
            Value::Bool(true) => Additional::Any,
            _ => Additional::No,
        };
        let inner = [items.as_deref(), additional.schema()].into_iter().flatten();
        let rules = rules::read(&schema["x-kubernetes-validations"]);
        let within = properties.iter().map(|(_, property)| property).chain(inner.clone()).any(|of| of.ruled);
        let completes = properties.iter().map(|(_, property)| property).chain(inner).any(Self::completes_something);
        Self {
            kind: Type::read(schema),
            nullable: is("nullable"),
            preserve: is("x-kubernetes-preserve-unknown-fields"),
            embedded: is("x-kubernetes-embedded-resource"),
            default,
            completes,
            allowed: schema["enum"].as_array().cloned(),
            required: texts(&schema["required"]),
            properties,
            additional,
            items,
            map_keys: (schema["x-kubernetes-list-type"] == "map").then(|| texts(&schema["x-kubernetes-list-map-keys"])),
            set: schema["x-kubernetes-list-type"] == "set",
            whole: schema["x-kubernetes-map-type"] == "atomic",
            all_of: list("allOf").unwrap_or_default(),
            any_of: list("anyOf"),
            one_of: list("oneOf"),
            not: one(&schema["not"]),
            bounds: Bounds::read(schema).map(Box::new),
            ruled: within || !rules.is_empty(),
            rules,
        }
    }

    /// What its items are.
    pub fn item(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// What a field is.
    pub fn of_field(&self, name: &str) -> Option<&Self> {
        self.field(name)
    }

    /// Whether it is an object with no other fields than those that it names.
    pub fn is_closed(&self) -> bool {
        self.kind == Some(Type::Object) && !self.preserve && !self.embedded && matches!(self.additional, Additional::No)
    }

    /// Whether its numbers may have fractions.
    pub fn is_number(&self) -> bool {
        self.kind == Some(Type::Number)
    }

    /// Whether its numbers are whole.
    pub fn is_integer(&self) -> bool {
        self.kind == Some(Type::Integer)
    }

    /// `format`.
    pub fn format(&self) -> Option<&str> {
        self.bounds.as_ref()?.format.as_deref()
    }

    fn completes_something(&self) -> bool {
        self.completes || self.default.is_some()
    }

    fn property(&self, name: &str) -> Option<&Self> {
        let place = self.properties.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.properties.get(place).map(|(_, property)| property)
    }

    /// The schema of a field, if one says anything of it.
    fn field(&self, name: &str) -> Option<&Self> {
        self.property(name).or(self.additional.schema())
    }
}

impl Additional {
    fn schema(&self) -> Option<&Schema> {
        match self {
            Self::Of(schema) => Some(schema),
            Self::No | Self::Any => None,
        }
    }
}

impl Type {
    fn read(schema: &Value) -> Option<Self> {
        if schema["x-kubernetes-int-or-string"] == json!(true) {
            return Some(Self::IntOrString);
        }
        match schema["type"].as_str()? {
            "object" => Some(Self::Object),
            "array" => Some(Self::Array),
            "string" => Some(Self::String),
            "boolean" => Some(Self::Boolean),
            "integer" => Some(Self::Integer),
            "number" => Some(Self::Number),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::IntOrString => "integer or string",
        }
    }
}

impl Bounds {
    fn read(schema: &Value) -> Option<Self> {
        let range = |what: &str| Range {
            least: schema[format!("min{what}")].as_u64(),
            most: schema[format!("max{what}")].as_u64(),
        };
        let limit =
            |word: &str, exclusive: &str| schema[word].as_f64().map(|limit| (limit, schema[exclusive] == json!(true)));
        let pattern = schema["pattern"].as_str();
        let bounds = Self {
            properties: range("Properties"),
            items: range("Items"),
            length: range("Length"),
            maximum: limit("maximum", "exclusiveMaximum"),
            minimum: limit("minimum", "exclusiveMinimum"),
            pattern: pattern.map(|text| Pattern { text: text.into(), compiled: OnceLock::new() }),
            format: schema["format"].as_str().map(Into::into),
        };
        let counted = [bounds.properties, bounds.items, bounds.length].iter().any(|range| *range != Range::default());
        let limited = bounds.maximum.is_some() || bounds.minimum.is_some();
        (counted || limited || bounds.pattern.is_some() || bounds.format.is_some()).then_some(bounds)
    }
}

/// That a schema can be enforced as it stands.
///
/// # Errors
/// What is not built, or is no schema, in words.
pub fn check(schema: &Value, path: &str, errors: &mut Errors) {
    if schema["type"] != "object" {
        match schema["type"].as_str().unwrap_or_default() {
            "" => errors.push(FieldError::required(format!("{path}.type"), "must not be empty at the root")),
            _ => {
                let why = "must be object at the root";
                errors.push(FieldError::invalid(format!("{path}.type"), &schema["type"], why));
            }
        }
    }
    check_part(schema, path, 0, errors);
}

fn check_part(schema: &Value, path: &str, depth: usize, errors: &mut Errors) {
    let Some(map) = schema.as_object() else {
        return errors.push(FieldError::invalid(path, schema, "must be an object"));
    };
    if depth > DEPTH_MAX {
        let why = format!("is nested deeper than {DEPTH_MAX}");
        return errors.push(FieldError::invalid(path, &Value::Null, &why));
    }
    for (word, branch) in ["allOf", "anyOf", "oneOf", "not"].iter().filter_map(|word| map.get_key_value(*word)) {
        if branch.to_string().contains("\"x-kubernetes-validations\"") {
            let why = "x-kubernetes-validations must be empty to be structural, in allOf, anyOf, oneOf and not";
            errors.push(FieldError::forbidden(format!("{path}.{word}"), why));
        }
    }
    for key in ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "uniqueItems"] {
        if map.contains_key(key) && map[key] != json!(false) {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), "is forbidden in a structural schema"));
        }
    }
    if schema["type"] == "array" && schema["items"].is_null() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    let mut below = |schema: &Value, path: String, what: &str| {
        let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
        let typed = schema["type"].as_str().is_some_and(|kind| !kind.is_empty());
        if schema.is_object() && !typed && !free.iter().any(|word| schema[*word] == json!(true)) {
            let why = format!("must not be empty for specified {what}");
            errors.push(FieldError::required(format!("{path}.type"), &why));
        }
        check_part(schema, &path, depth + 1, errors);
    };
    for (name, property) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        below(property, format!("{path}.properties[{name}]"), "object fields");
    }
    if let Some(items) = map.get("items") {
        below(items, format!("{path}.items"), "array items");
    }
    if let Some(additional) = map.get("additionalProperties").filter(|a| a.is_object()) {
        below(additional, format!("{path}.additionalProperties"), "object fields");
    }
}
