//! Sets of fields: which parts of an object are meant.
//!
//! A *set* is a tree of names, kept as it goes over the wire (`FieldsV1`), so that nothing is read or written to ask it:
//!
//! ```text
//! {"f:spec": {"f:replicas": {},                            a leaf is in the set
//!             "f:ports": {".": {}, "k:{\"port\":80}": {…}}}}   what has something under it is in it with `.` alone
//! ```
//!
//! Names: `f:` a field, `k:` an item by its keys, `v:` an item by its value, `i:` an item by its place. The JSON after `k:` and `v:` is
//! compact and its keys are sorted; [`read`] brings what others wrote into that form.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// What is under one name. As a root: a set; an empty one has nothing in it.
pub type Node = Map<String, Value>;

/// The name that stands for the node itself.
const SELF: &str = ".";

/// Whether what is named by a node is in the set itself, not only something under it.
pub fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The names under a node, and what is under them.
pub fn children(node: &Node) -> impl Iterator<Item = (&str, &Node)> {
    node.iter().filter(|(name, _)| *name != SELF).filter_map(|(name, child)| Some((name.as_str(), child.as_object()?)))
}

/// Puts `under` below `name`; with `member` the name itself is in the set, too. What is neither leaves no trace.
pub fn put(node: &mut Node, name: String, mut under: Node, member: bool) {
    if under.is_empty() && !member {
        return;
    }
    if let Some(Value::Object(already)) = node.get_mut(&name) {
        join(already, &under, member);
        return;
    }
    if member && !under.is_empty() {
        under.insert(SELF.into(), Value::Object(Node::new()));
    }
    node.insert(name, Value::Object(under));
}

/// Adds what is in `more`; whether that was anything new.
pub fn add(node: &mut Node, more: &Node) -> bool {
    let mut new = false;
    for (name, child) in children(more) {
        if let Some(Value::Object(mine)) = node.get_mut(name) {
            new |= join(mine, child, is_member(child));
        } else {
            node.insert(name.to_owned(), Value::Object(child.clone()));
            new = true;
        }
    }
    new
}

fn join(mine: &mut Node, more: &Node, member: bool) -> bool {
    let was = is_member(mine);
    let new = add(mine, more);
    if (was || member) && !mine.is_empty() && !mine.contains_key(SELF) {
        mine.insert(SELF.into(), Value::Object(Node::new()));
    }
    new || (member && !was)
}

/// Takes away what is in `gone`; whether anything of it was there.
pub fn subtract(node: &mut Node, gone: &Node) -> bool {
    let mut went = false;
    for (name, child) in children(gone) {
        let Some(Value::Object(mine)) = node.get_mut(name) else { continue };
        let was = is_member(mine);
        mine.remove(SELF);
        went |= subtract(mine, child) | (was && is_member(child));
        let stays = was && !is_member(child);
        if mine.is_empty() && !stays {
            node.remove(name);
        } else if stays && !mine.is_empty() {
            mine.insert(SELF.into(), Value::Object(Node::new()));
        }
    }
    went
}

/// What is in both.
pub fn both(a: &Node, b: &Node) -> Node {
    let mut out = Node::new();
    for (name, mine) in children(a) {
        if let Some(Value::Object(other)) = b.get(name) {
            put(&mut out, name.to_owned(), both(mine, other), is_member(mine) && is_member(other));
        }
    }
    out
}

/// Paths of what is in the set, as people read them: `.spec.containers[name="a"].image`.
pub fn paths(node: &Node) -> Vec<String> {
    let mut out = Vec::new();
    collect(node, "", &mut out);
    out.sort();
    out
}

fn collect(node: &Node, path: &str, out: &mut Vec<String>) {
    for (name, child) in children(node) {
        let path = format!("{path}{}", shown(name));
        if is_member(child) {
            out.push(path.clone());
        }
        collect(child, &path, out);
    }
}

/// One name, as people read it.
pub fn shown(name: &str) -> String {
    match name.split_once(':') {
        Some(("f", field)) => format!(".{field}"),
        Some(("k", keys)) => {
            let keys: Node = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, place)) => format!("[{place}]"),
        None => name.to_owned(),
    }
}

/// The name of an item with these keys.
pub fn keyed<'a>(keys: impl Iterator<Item = (&'a str, Value)>) -> String {
    let sorted: BTreeMap<&str, Value> = keys.collect();
    let inner: Vec<String> = sorted.iter().map(|(key, value)| format!("{}:{value}", Value::from(*key))).collect();
    format!("k:{{{}}}", inner.join(","))
}

/// A set that others wrote. None for what is no set.
pub fn read(given: &Value) -> Option<Node> {
    let mut node = Node::new();
    for (name, child) in given.as_object()? {
        if name == SELF {
            node.insert(SELF.into(), Value::Object(Node::new()));
            continue;
        }
        let name = match name.split_once(':')? {
            ("f", _) => name.clone(),
            ("k", keys) => {
                let keys: Node = serde_json::from_str(keys).ok()?;
                keyed(keys.iter().map(|(key, value)| (key.as_str(), value.clone())))
            }
            ("v", value) => format!("v:{}", serde_json::from_str::<Value>(value).ok()?),
            ("i", place) => format!("i:{}", place.parse::<u32>().ok()?),
            _ => return None,
        };
        node.insert(name, Value::Object(read(child)?));
    }
    if node.len() == 1 {
        node.remove(SELF); // `{".": {}}` is a leaf
    }
    Some(node)
}
