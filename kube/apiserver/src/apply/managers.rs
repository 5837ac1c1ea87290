//! Who manages which fields: `metadata.managedFields`, a list of entries with a set of fields each.
//!
//! An entry is told by its manager, operation, version (of updates alone) and subresource. It stays the JSON that it is: only sets
//! that a write touches are looked into.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::compare::Change;
use super::fields::{self, Node};
use crate::object;

/// Entries of updates (`DefaultMaxUpdateManagers` upstream); of more, the oldest become one.
const UPDATERS_MAX: usize = 10;
/// Who owns what the oldest updates wrote.
const ANCIENT: &str = "ancient-changes";

/// How somebody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// By saying all that it wants, and nothing else.
    Apply,
    /// In any other way.
    Update,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes, and through what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer<'a> {
    /// The manager's name.
    pub name: &'a str,
    /// `apiVersion` of the request.
    pub version: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
}

/// The entries of one object, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managers(Vec<Value>);

impl Managers {
    /// The entries that a write starts from: those that it brings, if they are any, else those of the object as it stands.
    /// `[{}]` resets; an empty list does not, or clients that do not know the field would lose it for everybody.
    /// Beside them, whether they are others than before.
    pub fn of(brought: Value, stand: Value) -> (Self, bool) {
        if brought == stand {
            return (Self::from(stand), false);
        }
        match brought {
            Value::Array(brought) if brought.as_slice() == [json!({})] => (Self::default(), true),
            Value::Array(brought) if !brought.is_empty() => {
                let read: Option<Vec<Value>> = brought.into_iter().map(read).collect();
                read.map_or_else(|| (Self::from(stand), false), |read| (Self(read), true))
            }
            _ => (Self::from(stand), false),
        }
    }

    /// As they are kept; nothing if there are none.
    pub fn into_value(self) -> Option<Value> {
        (!self.0.is_empty()).then_some(Value::Array(self.0))
    }

    /// Whether nobody is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What everybody owns together.
    pub fn everything(&self) -> Node {
        let mut all = Node::new();
        for set in self.0.iter().filter_map(|entry| entry["fieldsV1"].as_object()) {
            fields::add(&mut all, set);
        }
        all
    }

    /// What a writer owns.
    pub fn set_of(&self, operation: Operation, writer: &Writer<'_>) -> Option<&Node> {
        self.0.iter().find(|entry| is_of(entry, operation, writer))?["fieldsV1"].as_object()
    }

    /// Notes that an applier says this and nothing else.
    pub fn set(&mut self, writer: &Writer<'_>, set: Node) {
        let before = self.0.iter().position(|entry| is_of(entry, Operation::Apply, writer)).map(|at| self.0.remove(at));
        if set.is_empty() {
            return;
        }
        let mut entry = entry(Operation::Apply, writer, set);
        if let Some(before) = before.filter(|before| before["fieldsV1"] == entry["fieldsV1"]) {
            entry["time"] = before["time"].clone();
        }
        self.0.push(entry);
        self.sort();
    }

    /// What others than the applier own of `changed`: each with its name, as people read it, and the fields.
    pub fn conflicts(&self, writer: &Writer<'_>, changed: &Node) -> Vec<(String, Node)> {
        let others = self.0.iter().filter(|entry| !is_of(entry, Operation::Apply, writer));
        let sets =
            others.filter_map(|entry| Some((shown(entry), fields::both(entry["fieldsV1"].as_object()?, changed))));
        sets.filter(|(_, set)| !set.is_empty()).collect()
    }

    /// Takes from everybody but `writer` what changed, and from everybody what went. An applier keeps what it said.
    /// Whether anybody owns anything else than before.
    pub fn take(&mut self, operation: Operation, writer: &Writer<'_>, change: &Change) -> bool {
        let mut any = false;
        self.0.retain_mut(|entry| {
            let own = is_of(entry, operation, writer);
            if own && operation == Operation::Apply {
                return true;
            }
            let Some(Value::Object(set)) = entry.get_mut("fieldsV1") else { return false };
            let mut moved = fields::subtract(set, &change.removed);
            if own {
                moved |= fields::add(set, &change.changed);
            } else {
                moved |= fields::subtract(set, &change.changed);
            }
            any |= moved;
            let left = !set.is_empty();
            if own && moved {
                entry["time"] = object::now().into();
            }
            left
        });
        any
    }

    /// Notes an update; whether anybody owns anything else than before.
    pub fn note(&mut self, writer: &Writer<'_>, change: &Change) -> bool {
        if change.changed.is_empty() && change.removed.is_empty() {
            return false;
        }
        let mut moved = self.take(Operation::Update, writer, change);
        if !change.changed.is_empty() && !self.0.iter().any(|entry| is_of(entry, Operation::Update, writer)) {
            self.0.push(entry(Operation::Update, writer, change.changed.clone()));
            self.forget();
            moved = true;
        }
        if moved {
            self.sort();
        }
        moved
    }

    /// Makes the oldest of too many updates one, for each version.
    fn forget(&mut self) {
        let (mut updates, mut out): (Vec<Value>, Vec<Value>) =
            std::mem::take(&mut self.0).into_iter().partition(|entry| entry["operation"] == "Update");
        updates.sort_by(order);
        let mut over = updates.len().saturating_sub(UPDATERS_MAX);
        let mut ancient: Vec<Value> = Vec::new();
        let mut rest = updates.into_iter();
        while over > 0 {
            let Some(mut oldest) = rest.next() else { break };
            let same = ancient.iter_mut().find(|entry| entry["apiVersion"] == oldest["apiVersion"]);
            match same {
                Some(bucket) => {
                    if let (Some(Value::Object(set)), Value::Object(more)) =
                        (bucket.get_mut("fieldsV1"), oldest["fieldsV1"].take())
                    {
                        fields::add(set, &more);
                    }
                    bucket["manager"] = ANCIENT.into();
                    bucket["time"] = oldest["time"].take(); // the younger of both
                    if let Some(map) = bucket.as_object_mut() {
                        map.remove("subresource");
                    }
                    over -= 1;
                }
                None => ancient.push(oldest), // alone it is what it was
            }
        }
        out.extend(ancient);
        out.extend(rest);
        self.0 = out;
    }

    fn sort(&mut self) {
        self.0.sort_by(order);
    }
}

impl From<Value> for Managers {
    fn from(entries: Value) -> Self {
        match entries {
            Value::Array(entries) => Self(entries),
            _ => Self::default(),
        }
    }
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry[field].as_str().unwrap_or_default()
}

fn order(a: &Value, b: &Value) -> Ordering {
    let fields = ["operation", "time", "manager", "apiVersion", "subresource"];
    fields.iter().map(|field| text(a, field).cmp(text(b, field))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn is_of(entry: &Value, operation: Operation, writer: &Writer<'_>) -> bool {
    text(entry, "manager") == writer.name
        && text(entry, "operation") == operation.word()
        && text(entry, "subresource") == writer.subresource
        && (operation == Operation::Apply || text(entry, "apiVersion") == writer.version)
}

fn entry(operation: Operation, writer: &Writer<'_>, set: Node) -> Value {
    let mut entry = json!({
        "manager": writer.name, "operation": operation.word(), "apiVersion": writer.version, "time": object::now(),
        "fieldsType": "FieldsV1", "fieldsV1": set,
    });
    if !writer.subresource.is_empty() {
        entry["subresource"] = writer.subresource.into();
    }
    entry
}

/// An entry that somebody brings; none if it is not one.
fn read(mut entry: Value) -> Option<Value> {
    if !matches!(text(&entry, "operation"), "Apply" | "Update") || text(&entry, "fieldsType") != "FieldsV1" {
        return None;
    }
    entry["fieldsV1"] = Value::Object(fields::read(&entry["fieldsV1"])?);
    Some(entry)
}

/// A manager as upstream names it to people.
fn shown(entry: &Value) -> String {
    let mut shown = format!("{:?}", text(entry, "manager"));
    if !text(entry, "subresource").is_empty() {
        shown.push_str(&format!(" with subresource {:?}", text(entry, "subresource")));
    }
    if text(entry, "operation") == "Update" {
        shown.push_str(&format!(" using {}", text(entry, "apiVersion")));
        // Upstream does not say when: its entries are told without their time.
    }
    shown
}
