//! What an applied object makes of the one that stands: merged, and without what its applier no longer says.

use std::collections::BTreeMap;

use serde_json::Value;

use super::compare;
use super::fields::{self, Node};
use crate::schema::{Relation, View};

/// Puts what `said` says into `object`.
pub fn merge(object: &mut Value, said: &Value, view: View<'_>) {
    match (view.relation(said), &mut *object, said) {
        (Relation::Fields, Value::Object(map), Value::Object(said)) => {
            for (name, value) in said {
                match map.get_mut(name) {
                    Some(mine) => merge(mine, value, view.field(name)),
                    None => drop(map.insert(name.clone(), value.clone())),
                }
            }
        }
        (Relation::Set | Relation::Keyed, Value::Array(items), Value::Array(said)) => {
            *items = merge_items(std::mem::take(items), said, view);
        }
        _ => *object = said.clone(),
    }
}

/// What is said comes in the order in which it is said, and what is not keeps its place among the others.
fn merge_items(items: Vec<Value>, said: &[Value], view: View<'_>) -> Vec<Value> {
    let wanted: Vec<(String, &Value)> = said.iter().filter_map(|item| Some((view.name_of(item)?, item))).collect();
    let mut shared: BTreeMap<String, Value> = BTreeMap::new();
    // Which of the others stand before the nth of those that are said.
    let mut others: Vec<(usize, Value)> = Vec::new();
    let mut passed = 0;
    for item in items {
        match view.name_of(&item).filter(|name| wanted.iter().any(|(other, _)| other == name)) {
            Some(name) => {
                passed = wanted.iter().position(|(other, _)| *other == name).map_or(passed, |at| passed.max(at + 1));
                shared.entry(name).or_insert(item);
            }
            None => others.push((passed, item)),
        }
    }
    let mut others = others.into_iter().peekable();
    let mut out = Vec::new();
    for (at, (name, item)) in wanted.iter().enumerate() {
        while let Some((_, other)) = others.next_if(|(place, _)| *place <= at) {
            out.push(other);
        }
        let mut merged = shared.remove(name).unwrap_or_else(|| (*item).clone());
        merge(&mut merged, item, view.item());
        out.push(merged);
    }
    out.extend(others.map(|(_, other)| other));
    out
}

/// Takes away of `merged` what was applied `before` and belongs to nobody `now`.
///
/// An item that goes takes along what is in it and belongs to nobody; what was never applied stays, and with it what holds it.
pub fn prune(merged: &mut Value, before: &Node, now: &Node, view: View<'_>) {
    let before = closed(before, view);
    let all = closed(&compare::whole(merged, view), view);
    let without = |gone: &Node| {
        let mut object = merged.clone();
        remove(&mut object, gone, view);
        object
    };
    // What is left without what was applied before, and what belongs to somebody.
    let mut kept = closed(&compare::whole(&without(&before), view), view);
    fields::add(&mut kept, &closed(now, view));
    let mut gone = all.clone();
    fields::subtract(&mut gone, &kept);
    // Of the rest goes what was applied before; what held it and others still need stays.
    let left = closed(&compare::whole(&without(&gone), view), view);
    let mut gone = all;
    fields::subtract(&mut gone, &left);
    remove(merged, &fields::both(&gone, &before), view);
}

/// The set with every field of a type in it that has something under it.
fn closed(set: &Node, view: View<'_>) -> Node {
    let mut out = Node::new();
    for (name, child) in fields::children(set) {
        let (inner, declared) = match name.strip_prefix("f:") {
            Some(field) => (view.field(field), view.declares(field)),
            None => (view.item(), false),
        };
        fields::put(&mut out, name.to_owned(), closed(child, inner), declared || fields::is_member(child));
    }
    out
}

/// Takes what is in the set out of `value`; what is emptied so goes, too.
fn remove(value: &mut Value, gone: &Node, view: View<'_>) {
    match value {
        Value::Object(map) => {
            for (name, child) in fields::children(gone) {
                let Some(field) = name.strip_prefix("f:") else { continue };
                let emptied = map.get_mut(field).is_some_and(|inner| {
                    fields::is_member(child) || {
                        remove(inner, child, view.field(field));
                        inner.as_object().is_some_and(|map| map.is_empty())
                            || inner.as_array().is_some_and(Vec::is_empty)
                    }
                });
                if emptied {
                    map.remove(field);
                }
            }
        }
        Value::Array(items) => items.retain_mut(|item| {
            match view.name_of(item).and_then(|name| gone.get(&name)).and_then(Value::as_object) {
                Some(child) if fields::is_member(child) => false,
                Some(child) => {
                    remove(item, child, view.item());
                    true
                }
                None => true,
            }
        }),
        _ => {}
    }
}

/// What is wrong with the lists of an applied object: items without their keys, or two of one name.
pub fn flaws(said: &Value, view: View<'_>, path: &str, out: &mut Vec<String>) {
    match (view.relation(said), said) {
        (Relation::Fields, Value::Object(map)) => {
            map.iter().for_each(|(name, value)| flaws(value, view.field(name), &format!("{path}.{name}"), out));
        }
        (Relation::Set | Relation::Keyed, Value::Array(items)) => {
            let mut seen: BTreeMap<String, ()> = BTreeMap::new();
            for (i, item) in items.iter().enumerate() {
                let Some(name) = view.name_of(item) else {
                    out.push(format!(
                        "{path}: element {i}: associative list with keys has an element that omits key field {:?} (and doesn't have default value)",
                        view.missing_key(item)
                    ));
                    continue;
                };
                let shown = fields::shown(&name);
                flaws(item, view.item(), &format!("{path}{shown}"), out);
                if seen.insert(name, ()).is_some() {
                    out.push(format!("{path}: duplicate entries for key {shown}"));
                }
            }
        }
        _ => {}
    }
}
