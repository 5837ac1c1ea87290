//! From objects to sets of fields: what one says, and what two do not have in common.

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{self, Node};
use crate::schema::{Relation, View};

/// What a write did to an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What is new or has another value.
    pub changed: Node,
    /// What was there and is not.
    pub removed: Node,
}

/// Which of the nodes that hold others are in a set themselves. Items of lists and entries of maps always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nodes {
    /// None: what somebody says of a field under them says nothing of them.
    Said,
    /// Those that came with what they hold.
    Come,
    /// All: they went with what they held.
    Gone,
}

/// What `object` says: what its applier owns.
pub fn set(object: &Value, view: View<'_>) -> Node {
    let mut set = below(object, view, Nodes::Said);
    strip(&mut set);
    set
}

/// What `object` has, without anything left out or added: what pruning works on.
pub fn whole(object: &Value, view: View<'_>) -> Node {
    below(object, view, Nodes::Said)
}

/// What makes `new` of `old`.
pub fn compare(old: &Value, new: &Value, view: View<'_>) -> Change {
    let mut change = Change::default();
    walk(old, new, view, &mut change);
    strip(&mut change.changed);
    strip(&mut change.removed);
    change
}

/// Takes away what nobody owns: what names an object, and what only the server writes.
fn strip(set: &mut Node) {
    const NOBODYS: [&str; 9] = [
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:clusterName",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    set.remove("f:apiVersion");
    set.remove("f:kind");
    if let Some(Value::Object(metadata)) = set.get_mut("f:metadata") {
        NOBODYS.iter().chain(&["."]).for_each(|name| drop(metadata.remove(*name)));
        if metadata.is_empty() {
            set.remove("f:metadata");
        }
    }
}

/// The names under a value.
fn below(value: &Value, view: View<'_>, nodes: Nodes) -> Node {
    let mut node = Node::new();
    match (view.relation(value), value) {
        (Relation::Fields, Value::Object(map)) => {
            for (name, value) in map {
                enter(&mut node, view, name, value, nodes);
            }
        }
        (Relation::Set | Relation::Keyed, Value::Array(items)) => {
            for item in items {
                if let Some(name) = view.name_of(item) {
                    fields::put(&mut node, name, below(item, view.item(), nodes), true);
                }
            }
        }
        _ => {} // a leaf
    }
    node
}

/// Puts a field and what is under it into the set of what holds it.
fn enter(node: &mut Node, view: View<'_>, name: &str, value: &Value, nodes: Nodes) {
    let inner = view.field(name);
    let leaf = inner.relation(value) == Relation::Whole || value.as_object().is_some_and(|map| map.is_empty());
    let itself = match nodes {
        Nodes::Said => false,
        Nodes::Come => inner.comes_and_goes(),
        Nodes::Gone => true,
    };
    let member = leaf || itself || !view.declares(name);
    fields::put(node, format!("f:{name}"), below(value, inner, nodes), member);
}

fn walk(old: &Value, new: &Value, view: View<'_>, change: &mut Change) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, old) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
                enter(&mut change.removed, view, name, old, Nodes::Gone);
            }
            for (name, new) in after {
                match before.get(name) {
                    None => enter(&mut change.changed, view, name, new, Nodes::Come),
                    Some(old) if old == new => {}
                    Some(old) => pair(&format!("f:{name}"), old, new, view.field(name), change),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            let (before, after) = (by_name(before, view), by_name(after, view));
            for (name, olds) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
                let under = olds.first().map(|old| below(old, view.item(), Nodes::Gone)).unwrap_or_default();
                fields::put(&mut change.removed, name.clone(), under, true);
            }
            for (name, news) in after {
                match (before.get(&name).map(Vec::as_slice), news.as_slice()) {
                    (None, news) => {
                        let under = news.first().map(|new| below(new, view.item(), Nodes::Come)).unwrap_or_default();
                        fields::put(&mut change.changed, name, under, true);
                    }
                    (Some([old]), [new]) if old == new => {}
                    (Some([old]), [new]) => pair(&name, old, new, view.item(), change),
                    (Some(olds), news) if olds == news => {}
                    _ => fields::put(&mut change.changed, name, Node::new(), true), // several of one name are one whole
                }
            }
        }
        _ => {}
    }
}

/// Two values of one name that are not the same.
fn pair(name: &str, old: &Value, new: &Value, view: View<'_>, change: &mut Change) {
    let (before, after) = (view.relation(old), view.relation(new));
    if before != Relation::Whole && before == after {
        let mut inner = Change::default();
        walk(old, new, view, &mut inner);
        fields::put(&mut change.changed, name.to_owned(), inner.changed, false);
        fields::put(&mut change.removed, name.to_owned(), inner.removed, false);
    } else {
        fields::put(&mut change.removed, name.to_owned(), below(old, view, Nodes::Gone), false);
        fields::put(&mut change.changed, name.to_owned(), below(new, view, Nodes::Come), true);
    }
}

fn by_name<'a>(items: &'a [Value], view: View<'_>) -> BTreeMap<String, Vec<&'a Value>> {
    let mut out: BTreeMap<String, Vec<&'a Value>> = BTreeMap::new();
    for item in items {
        if let Some(name) = view.name_of(item) {
            out.entry(name).or_default().push(item);
        }
    }
    out
}
