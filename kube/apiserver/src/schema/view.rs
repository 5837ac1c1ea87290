//! A value as patches and appliers see it: what belongs together in it, and which of its lists are maps in disguise.

use std::sync::LazyLock;

use serde_json::Value;

use super::table::{Field, List, Shape, Type, type_named};
use crate::apply::fields;
use crate::custom::schema::Schema;

static METADATA: LazyLock<Option<&'static Type>> = LazyLock::new(|| type_named("meta.v1.ObjectMeta"));

/// What is known of a value at one place.
#[derive(Clone, Copy, Debug)]
pub enum View<'a> {
    /// An object of a type.
    Type(&'static Type),
    /// A value within one; the field says how it is merged here.
    Value(&'static Shape, Option<&'static Field>),
    /// A value of a custom kind; whether it is a whole object, with metadata.
    Custom(&'a Schema, bool),
    /// Nothing is known: objects are merged, lists are not.
    Free,
}

/// How appliers share a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Not at all: it belongs to one of them.
    Whole,
    /// Field by field, entry by entry.
    Fields,
    /// Item by item, which are told apart by themselves.
    Set,
    /// Item by item, which are told apart by their keys, and within them.
    Keyed,
}

impl<'a> View<'a> {
    /// The value under `name`.
    pub fn field(self, name: &str) -> Self {
        match self {
            Self::Type(of) | Self::Value(&Shape::Object(of), _) => {
                of.field(name).map_or(Self::Free, |field| Self::Value(&field.shape, Some(field)))
            }
            Self::Value(Shape::Map(of), _) => Self::Value(of, None),
            Self::Custom(_, true) if name == "metadata" => METADATA.map_or(Self::Free, Self::Type),
            Self::Custom(schema, _) => schema.view_of(name),
            Self::Value(..) | Self::Free => Self::Free,
        }
    }

    /// The items of a list.
    pub fn item(self) -> Self {
        match self {
            Self::Value(Shape::List(of), _) => Self::Value(of, None),
            Self::Custom(schema, _) => schema.view_of_items(),
            _ => Self::Free,
        }
    }

    /// Which items of a list are the same to a strategic merge patch.
    pub fn list(self) -> &'static List {
        match self {
            Self::Value(_, Some(field)) => &field.patch,
            _ => &List::Whole,
        }
    }

    /// How appliers share `value` here.
    pub fn relation(self, value: &Value) -> Relation {
        match (self, value) {
            (Self::Value(_, Some(field)), _) if field.whole => Relation::Whole,
            (Self::Type(of) | Self::Value(&Shape::Object(of), _), Value::Object(_)) if !of.whole => Relation::Fields,
            (Self::Value(Shape::Map(_), _) | Self::Free, Value::Object(_)) => Relation::Fields,
            (Self::Value(Shape::List(_), Some(field)), Value::Array(_)) if !field.keys.is_empty() => Relation::Keyed,
            (Self::Value(Shape::List(_), Some(field)), Value::Array(_)) if field.set => Relation::Set,
            (Self::Custom(schema, _), _) => schema.relation(value),
            _ => Relation::Whole,
        }
    }

    /// Whether `name` is a field that is known here, not an entry that somebody has made.
    pub fn declares(self, name: &str) -> bool {
        match self {
            Self::Type(of) | Self::Value(&Shape::Object(of), _) => of.field(name).is_some(),
            Self::Custom(_, true) if matches!(name, "apiVersion" | "kind" | "metadata") => true,
            Self::Custom(schema, _) => schema.declares(name),
            Self::Value(..) | Self::Free => false,
        }
    }

    /// Whether a value that holds others here can be absent. Upstream's objects of Go always have their parts, even empty ones.
    pub fn comes_and_goes(self) -> bool {
        match self {
            Self::Type(_) | Self::Value(Shape::Object(_), _) => false,
            Self::Value(_, field) => field.is_none_or(|field| !field.required),
            Self::Custom(..) | Self::Free => true,
        }
    }

    /// The name of an item in sets of fields; none if it lacks a key.
    pub fn name_of(self, item: &Value) -> Option<String> {
        if self.is_set() {
            return Some(format!("v:{item}"));
        }
        let mut named = Vec::new();
        for key in self.keys() {
            named.push((key, self.key(key, item)?));
        }
        Some(fields::keyed(named.into_iter()))
    }

    /// The first key that `item` lacks.
    pub fn missing_key(self, item: &Value) -> &'a str {
        self.keys().find(|key| self.key(key, item).is_none()).unwrap_or_default()
    }

    fn is_set(self) -> bool {
        match self {
            Self::Value(_, Some(field)) => field.set,
            Self::Custom(schema, _) => schema.is_set(),
            _ => false,
        }
    }

    fn keys(self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self {
            Self::Value(_, Some(field)) => Box::new(field.keys.split(',').filter(|key| !key.is_empty())),
            Self::Custom(schema, _) => Box::new(schema.keys()),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// The value of a key, or what stands for it.
    fn key(self, key: &str, item: &Value) -> Option<Value> {
        let given = item.get(key).filter(|value| !value.is_null()).cloned();
        given.or_else(|| match self.item().field(key) {
            Self::Value(_, Some(field)) => field.default.and_then(|text| serde_json::from_str(text).ok()),
            Self::Custom(schema, _) => schema.default_value().cloned(),
            _ => None,
        })
    }
}
