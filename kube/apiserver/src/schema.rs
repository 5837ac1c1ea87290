//! What the built-in kinds are made of: one table of types, and how objects are held against it.
//!
//! A *type* is a set of named fields; a *shape* is what one value may be. The table (`types.txt`) is made from upstream's declarations by
//! `cargo xtask schemas` and holds facts alone: names, shapes, what is required, and how lists and maps are merged.
//!
//! ```text
//! types.txt ─table─▶ Type ─┬─ decode   unknown fields go, what is of the wrong shape is refused in upstream's words
//!                          ├─ View     which lists strategic merge patches merge, and by what; what appliers share
//!                          └─ openapi  what clients are told
//! ```
//!
//! Limits: a field given twice in one object is not noticed; words about wrong values name a Go type without its alias.

mod decode;
mod table;
mod view;

#[cfg(test)]
mod tests;

pub use self::decode::decode;
pub use self::table::{List, Shape, Type, lookup, name_of, sections, type_named};
pub use self::view::{Relation, View};
