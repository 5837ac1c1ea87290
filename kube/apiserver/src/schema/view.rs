//! A value as patches see it: which of its lists are maps in disguise.

use super::table::{Field, List, Shape, Type};

/// What is known of a value at one place.
#[derive(Clone, Copy, Debug)]
pub enum View {
    /// An object of a type.
    Type(&'static Type),
    /// A value within one; the field says how it is merged here.
    Value(&'static Shape, Option<&'static Field>),
    /// Nothing is known: objects are merged, lists are not.
    Free,
}

impl View {
    /// The value under `name`.
    pub fn field(self, name: &str) -> Self {
        match self {
            Self::Type(of) | Self::Value(&Shape::Object(of), _) => {
                of.field(name).map_or(Self::Free, |field| Self::Value(&field.shape, Some(field)))
            }
            Self::Value(Shape::Map(of), _) => Self::Value(of, None),
            Self::Value(..) | Self::Free => Self::Free,
        }
    }

    /// The items of a list.
    pub fn item(self) -> Self {
        match self {
            Self::Value(Shape::List(of), _) => Self::Value(of, None),
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
}
