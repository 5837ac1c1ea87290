//! How a built-in kind is described: one `KIND` for each, in a file of its own, listed by its group.
//!
//! ```text
//! pub static KIND: Description = Description {
//!     short, categories, namespaced, has_status, counts, subresources, name_rule, …     what differs from the usual
//!     rules: Builtin { default, prepare, validate, validate_update, columns, cells, ..Builtin::USUAL },
//!     ..Description::of([group, version, kind, plural])
//! };
//! ```
//!
//! `docs/guides/add-a-kind.md` goes through it step by step.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::{Errors, Kind, NameRule, Names, Rules};
use crate::auth::User;
use crate::schema::{self, Type};

/// Name of the subresource, kind of what it takes or gives, its verbs.
pub type Subresource = (&'static str, &'static str, &'static [&'static str]);

/// The subresource that replicas are counted by.
pub const SCALE: &[Subresource] = &[("scale", "Scale", &["get", "patch", "update"])];

/// What can be done with objects that are stored.
pub const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The rules of a built-in kind.
#[derive(Clone, Copy)]
pub struct Builtin {
    /// What objects are made of, found by the name of the kind; `None` is a kind that the table does not have, and then nothing is decoded.
    pub of: Option<&'static Type>,
    /// Fills in what was left out. Must change nothing when it is done twice.
    pub default: fn(&mut Value),
    /// What the server itself writes into a new object, or into a changed one (with the old one): generated
    /// selectors, who asked. After defaults, before admission.
    pub prepare: fn(&mut Value, Option<&Value>, &User),
    /// Takes out of an object what only says that it is as it was, as the time of a heartbeat. Of a change of nothing else the loss is no
    /// loss, and the disk need not be waited for.
    pub heartbeat: Option<fn(&mut Value)>,
    /// Judges an object by itself.
    pub validate: fn(&Value, &mut Errors),
    /// Judges a change: old, new.
    pub validate_update: fn(&Value, &Value, &mut Errors),
    /// Headings of its table, as [`super::columns`] reads them.
    pub columns: &'static str,
    /// One row, and the time to count ages to.
    pub cells: fn(&Value, jiff::Timestamp) -> Vec<Value>,
}

impl Builtin {
    /// The usual: nothing is filled in, no rule but the types, name and age are shown.
    pub const USUAL: Self = Self {
        of: None,
        default: |_| {},
        prepare: |_, _, _| {},
        heartbeat: None,
        validate: |_, _| {},
        validate_update: |_, _, _| {},
        columns: NAME_AGE,
        cells: |object, now| vec![object["metadata"]["name"].clone(), crate::table::age(object, now)],
    };
}

const NAME_AGE: &str = "Name, Age";

/// Objects of a kind that are kept as those of another: one store, two faces.
pub struct Face {
    /// Group, version, kind and plural of what is kept.
    pub stored_as: [&'static str; 4],
    /// From what is kept to this kind.
    pub read: fn(&mut Value),
    /// From this kind to what is kept.
    pub write: fn(&mut Value),
}

/// A built-in kind.
pub struct Description {
    /// Group, version, kind, plural, singular.
    pub names: [&'static str; 4],
    /// Short names, as `po`.
    pub short: &'static [&'static str],
    /// As `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `status` is written apart: dropped from what is created, kept by what is updated.
    pub has_status: bool,
    /// Whether `metadata.generation` counts the changes of what is wanted.
    pub counts: bool,
    /// Subresources beside `status`.
    pub subresources: &'static [Subresource],
    /// How objects are named.
    pub name_rule: NameRule,
    /// What can be done with objects.
    pub verbs: &'static [&'static str],
    /// If its objects are kept as those of another kind.
    pub face: Option<&'static Face>,
    /// Why nothing comes of its objects yet; empty for kinds that are acted upon. For the reference.
    pub idle: &'static str,
    /// Its rules.
    pub rules: Builtin,
}

impl Description {
    /// The usual: namespaced, without status, all verbs, named by a subdomain.
    pub const fn of(names: [&'static str; 4]) -> Self {
        Self {
            names,
            short: &[],
            categories: &[],
            namespaced: true,
            has_status: false,
            counts: false,
            subresources: &[],
            name_rule: NameRule::Subdomain,
            verbs: VERBS,
            face: None,
            idle: "",
            rules: Builtin::USUAL,
        }
    }

    /// The kind as it is served.
    pub fn kind(&self) -> Arc<Kind> {
        let [group, version, kind, plural] = self.names.map(Cow::Borrowed);
        let singular = Cow::Owned(kind.to_lowercase());
        let borrowed = |names: &'static [&'static str]| names.iter().map(|s| Cow::Borrowed(*s)).collect();
        Arc::new(Kind {
            names: Names {
                group,
                version,
                kind,
                plural,
                singular,
                short: borrowed(self.short),
                categories: borrowed(self.categories),
            },
            namespaced: self.namespaced,
            has_status: self.has_status,
            counts: self.counts,
            subresources: self.subresources,
            name_rule: self.name_rule,
            verbs: self.verbs,
            face: self.face,
            rules: Rules::Builtin(Builtin {
                of: schema::lookup(self.names[0], self.names[1], self.names[2]),
                ..self.rules
            }),
        })
    }
}
