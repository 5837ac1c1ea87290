//! Kinds: one declarative description each ([`description`]), one file each, listed by group. `docs/guides/add-a-kind.md`
//! says how one is added.
//!
//! A description says how the kind is named, which type of the table its objects are ([`crate::schema`]), how they are
//! completed, judged, and shown in a table.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
pub mod core;
pub mod description;
mod discovery;
mod events;
mod metrics;
mod networking;
mod node;
pub(crate) mod pod_spec;
mod policy;
mod rbac;
pub(crate) mod rules;
pub mod scheduling;
mod storage;
mod validate;
mod workload;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

pub use self::description::{Builtin, Description, Face};
pub use self::validate::{Errors, LABEL, NameRule, QUALIFIED_NAME, is_label_value, is_qualified_name, name_is_label};
use crate::auth::User;
use crate::custom::CustomKind;
use crate::schema::{self, View};

/// Text that is static for built-in kinds and owned for custom ones.
pub type Text = Cow<'static, str>;

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading.
    pub name: Text,
    /// `string`, `integer`, `date` …
    pub kind: Text,
    /// `name` marks the name column.
    pub format: Text,
    /// Shown by `-o wide` only when above 0.
    pub priority: i32,
    /// What it means.
    pub description: Text,
}

/// The columns of a kind by their headings, `Name, Desired:integer, Images+`: their types if they are no strings, and `+` for those that
/// `-o wide` alone shows.
pub(crate) fn columns(headings: &'static str) -> impl Iterator<Item = Column> {
    headings.split(", ").map(|heading| {
        let (heading, priority) = heading.strip_suffix('+').map_or((heading, 0), |heading| (heading, 1));
        let (name, kind) = heading.split_once(':').unwrap_or((heading, "string"));
        let format = if name == "Name" { "name" } else { "" };
        Column { name: name.into(), kind: kind.into(), format: format.into(), priority, description: "".into() }
    })
}

/// The names of a kind.
#[derive(Clone, Debug)]
pub struct Names {
    /// Empty for the core group.
    pub group: Text,
    /// As `v1`.
    pub version: Text,
    /// As `Pod`.
    pub kind: Text,
    /// As `pods`.
    pub plural: Text,
    /// As `pod`.
    pub singular: Text,
    /// As `po`.
    pub short: Vec<Text>,
    /// As `all`.
    pub categories: Vec<Text>,
}

impl Names {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

/// Where a kind's rules come from.
pub enum Rules {
    /// This program.
    Builtin(Builtin),
    /// A CustomResourceDefinition.
    Custom(CustomKind),
}

/// A kind that is served.
pub struct Kind {
    /// What it is called.
    pub names: Names,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `status` is written apart.
    pub has_status: bool,
    /// Whether `metadata.generation` counts the changes of what is wanted.
    pub counts: bool,
    /// Other subresources that discovery lists: name, kind, verbs.
    pub subresources: &'static [description::Subresource],
    /// How its objects are named.
    pub name_rule: NameRule,
    /// What can be done with them.
    pub verbs: &'static [&'static str],
    /// If they are kept as those of another kind.
    pub face: Option<&'static Face>,
    /// Its rules.
    pub rules: Rules,
}

/// A decoded object and what was in it that its kind does not know.
pub struct Decoded {
    /// The object, without unknown fields.
    pub object: Value,
    /// Paths of fields that were dropped.
    pub unknown: Vec<String>,
}

impl Kind {
    /// Reads `sent` as an object of this kind.
    ///
    /// # Errors
    /// What does not fit, in words: a value of the wrong type.
    pub fn decode(&self, sent: Value) -> Result<Decoded, String> {
        match &self.rules {
            Rules::Builtin(rules) => {
                let of = rules.of.ok_or_else(|| format!("the table of types has no {}", self.names.kind))?;
                let (mut object, unknown) = schema::decode(of, sent)?;
                object["apiVersion"] = self.names.api_version().into();
                object["kind"] = self.names.kind.as_ref().into();
                Ok(Decoded { object, unknown })
            }
            Rules::Custom(custom) => Ok(custom.prune(sent)),
        }
    }

    /// Fields by which its objects are selected beside those of built-in kinds.
    pub fn selectable(&self) -> &[String] {
        match &self.rules {
            Rules::Builtin(_) => &[],
            Rules::Custom(custom) => &custom.selectable,
        }
    }

    /// What patches and appliers see of its objects.
    pub fn view(&self) -> View<'_> {
        match &self.rules {
            Rules::Builtin(rules) => rules.of.map_or(View::Free, View::Type),
            Rules::Custom(custom) => custom.view(),
        }
    }

    /// Fills in what was left out.
    pub fn default(&self, object: &mut Value) {
        match &self.rules {
            Rules::Builtin(rules) => (rules.default)(object),
            Rules::Custom(custom) => custom.default(object),
        }
    }

    /// What the server itself writes into an object on its way in.
    pub fn prepare(&self, object: &mut Value, old: Option<&Value>, user: &User) {
        if let Rules::Builtin(rules) = &self.rules {
            (rules.prepare)(object, old, user);
        }
    }

    /// Whether the new object says no more than that the old one still holds.
    pub fn is_renewal(&self, old: &Value, new: &Value) -> bool {
        let Rules::Builtin(Builtin { heartbeat: Some(take_out), .. }) = &self.rules else { return false };
        let without = |object: &Value| {
            let mut object = object.clone();
            take_out(&mut object);
            object
        };
        without(old) == without(new)
    }

    /// The object as it is kept.
    pub fn stored<'a>(&self, object: &'a Value) -> Cow<'a, Value> {
        let Some(face) = self.face else { return Cow::Borrowed(object) };
        let mut stored = object.clone();
        let [group, version, kind, _] = face.stored_as;
        (face.write)(&mut stored);
        stored["apiVersion"] = if group.is_empty() { version.into() } else { format!("{group}/{version}").into() };
        stored["kind"] = kind.into();
        Cow::Owned(stored)
    }

    /// An object that was kept, as one of this kind.
    pub fn shown(&self, object: &mut Value) {
        if let Some(face) = self.face {
            (face.read)(object);
            object["kind"] = self.names.kind.as_ref().into();
        }
        object["apiVersion"] = self.names.api_version().into();
    }

    /// Judges an object by itself; of a custom kind also against what it was.
    pub fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        match &self.rules {
            Rules::Builtin(rules) => (rules.validate)(object, errors),
            Rules::Custom(custom) => custom.validate(object, old, errors),
        }
    }

    /// Judges a change.
    pub fn validate_update(&self, old: &Value, new: &Value, errors: &mut Errors) {
        if let Rules::Builtin(rules) = &self.rules {
            (rules.validate_update)(old, new, errors);
        }
    }

    /// Whether this is the kind of `group` and `plural`, in any version.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.names.group == group && self.names.plural == plural
    }

    /// The key of an object in the store. The version is not part of it: all versions are one object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        format!("{}{name}", self.prefix(namespace))
    }

    /// The beginning of the keys of all objects (of one namespace, if not empty).
    pub fn prefix(&self, namespace: &str) -> String {
        let (group, plural) = match self.face {
            Some(Face { stored_as: [group, _, _, plural], .. }) => (*group, *plural),
            None => (self.names.group.as_ref(), self.names.plural.as_ref()),
        };
        let all = stored_under(group, plural);
        if namespace.is_empty() { all } else { format!("{all}{namespace}/") }
    }
}

/// Where the store keeps all objects of a resource.
pub fn stored_under(group: &str, plural: &str) -> String {
    format!("/{}/{plural}/", if group.is_empty() { "core" } else { group })
}

/// The descriptions of every built-in kind.
pub fn descriptions() -> impl Iterator<Item = &'static Description> {
    let groups = [
        admissionregistration::KINDS,
        apiextensions::KINDS,
        apiregistration::KINDS,
        apps::KINDS,
        authentication::KINDS,
        authorization::KINDS,
        autoscaling::KINDS,
        batch::KINDS,
        certificates::KINDS,
        coordination::KINDS,
        core::KINDS,
        discovery::KINDS,
        events::KINDS,
        metrics::KINDS,
        networking::KINDS,
        node::KINDS,
        policy::KINDS,
        rbac::KINDS,
        scheduling::KINDS,
        storage::KINDS,
    ];
    groups.into_iter().flatten().copied()
}

/// Every built-in kind.
pub fn builtin() -> Vec<Arc<Kind>> {
    descriptions().map(Description::kind).collect()
}
