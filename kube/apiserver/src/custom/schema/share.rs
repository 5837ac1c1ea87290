//! What appliers share of a value of a custom kind: the schema's side of [`View`].

use serde_json::Value;

use super::Schema;
use crate::schema::{Relation, View};

impl Schema {
    /// What is known of the field `name`.
    pub fn view_of(&self, name: &str) -> View<'_> {
        self.field(name).map_or(View::Free, Self::view)
    }

    /// What is known of the items of a list.
    pub fn view_of_items(&self) -> View<'_> {
        self.items.as_deref().map_or(View::Free, Self::view)
    }

    fn view(&self) -> View<'_> {
        View::Custom(self, self.embedded)
    }

    /// How appliers share `value`: objects by field and lists not at all, unless the schema says otherwise.
    pub fn relation(&self, value: &Value) -> Relation {
        match value {
            Value::Object(_) if !self.whole => Relation::Fields,
            Value::Array(_) if self.map_keys.is_some() => Relation::Keyed,
            Value::Array(_) if self.set => Relation::Set,
            _ => Relation::Whole,
        }
    }

    /// Whether `name` is one of the properties.
    pub fn declares(&self, name: &str) -> bool {
        self.property(name).is_some()
    }

    /// Whether it is a list of which each item is there once.
    pub fn is_set(&self) -> bool {
        self.set
    }

    /// The keys of a list that is a map.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.map_keys.iter().flatten().map(|key| &**key)
    }

    /// What stands for it when nobody gives it.
    pub fn default_value(&self) -> Option<&Value> {
        self.default.as_ref()
    }
}
