//! Strategic merge patch: a merge patch that knows which lists are maps in disguise, from the table of types.
//!
//! Directives: `$patch: replace | delete | merge`, `$retainKeys`, `$setElementOrder/LIST`,
//! `$deleteFromPrimitiveList/LIST` (upstream: `strategic-merge-patch.md`).

use serde_json::{Map, Value};

use crate::schema::{List, View};

/// Applies `patch` to `object`.
///
/// # Errors
/// What is wrong with the patch.
pub fn apply(object: &mut Value, patch: &Value, view: View<'_>) -> Result<(), String> {
    let Value::Object(patch) = patch else { return Err("a strategic merge patch must be an object".into()) };
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut whole = patch.clone();
            whole.remove("$patch");
            *object = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *object = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unknown $patch directive {other:?}")),
    }
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(map) = object else { return Err("not an object".into()) };
    let lists = patch.keys().filter(|key| matches!(patch[*key], Value::Array(_)));
    let before: Map<String, Value> =
        lists.filter_map(|key| map.get(key).map(|list| (key.clone(), list.clone()))).collect();
    if let Some(kept) = patch.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|key, _| kept.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().ok_or_else(|| format!("{key} must be a list"))?;
            if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(_) => {
                let child = map.entry(key.clone()).or_insert(Value::Null);
                apply(child, value, view.field(key))?;
            }
            Value::Array(items) => {
                let current = map.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(view.field(key), current, items)?;
            }
            scalar => {
                map.insert(key.clone(), scalar.clone());
            }
        }
    }
    for (key, given) in patch {
        let order = patch.get(&format!("$setElementOrder/{key}")).unwrap_or(given);
        if let (Some(order), Some(items)) = (order.as_array(), map.get_mut(key).and_then(Value::as_array_mut)) {
            let before = before.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            reorder(view.field(key), items, order, before);
        }
    }
    for (key, order) in patch {
        if let (Some(list), Some(order)) = (key.strip_prefix("$setElementOrder/"), order.as_array())
            && !patch.contains_key(list)
            && let Some(items) = map.get_mut(list).and_then(Value::as_array_mut)
        {
            let before = items.clone();
            reorder(view.field(list), items, order, &before);
        }
    }
    Ok(())
}

fn merge_list(view: View<'_>, current: &mut Value, patch: &[Value]) -> Result<(), String> {
    if !current.is_array() {
        *current = Value::Array(Vec::new());
    }
    let Value::Array(items) = current else { return Err("not a list".into()) };
    let replace = |entry: &Value| entry.get("$patch").and_then(Value::as_str) == Some("replace");
    if patch.iter().any(replace) {
        *items = patch.iter().filter(|entry| !replace(entry)).cloned().collect();
        return Ok(());
    }
    match view.list() {
        List::Whole => *items = patch.to_vec(),
        List::Set => {
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
        }
        List::Keyed(key) => {
            for entry in patch {
                let id = entry
                    .get(*key)
                    .ok_or_else(|| format!("map: {entry} does not contain declared merge key: {key}"))?;
                if entry.get("$patch").and_then(Value::as_str) == Some("delete") {
                    items.retain(|item| item.get(*key) != Some(id));
                } else if let Some(item) = items.iter_mut().find(|item| item.get(*key) == Some(id)) {
                    apply(item, entry, view.item())?;
                } else {
                    let mut fresh = Value::Object(Map::new());
                    apply(&mut fresh, entry, view.item())?;
                    items.push(fresh);
                }
            }
        }
    }
    Ok(())
}

/// Puts the items that `order` names into its order, and the others among them: each stands before the first named one before which it
/// stood `before` (`normalizeElementOrder` upstream).
fn reorder(view: View<'_>, items: &mut Vec<Value>, order: &[Value], before: &[Value]) {
    let list = view.list();
    if matches!(list, List::Whole) {
        return;
    }
    let same = |a: &Value, b: &Value| match list {
        List::Keyed(key) => a.get(*key).is_some() && a.get(*key) == b.get(*key),
        _ => a == b,
    };
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, others): (Vec<Value>, Vec<Value>) =
        std::mem::take(items).into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let mut named = named.into_iter().peekable();
    for other in others {
        let stood = place(before, &other);
        while let Some(next) = named.next_if(|next| !(stood.is_some() && place(before, next) > stood)) {
            items.push(next);
        }
        items.push(other);
    }
    items.extend(named);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn view(name: &str) -> View<'static> {
        View::Type(crate::schema::lookup("", "v1", name).unwrap())
    }

    fn check(of: &str, object: Value, patch: Value, expected: Value) {
        let mut patched = object;
        apply(&mut patched, &patch, view(of)).unwrap();
        assert_eq!(patched, expected, "{patch}");
    }

    #[test]
    fn keyed_lists_merge_by_key() {
        check(
            "PodSpec",
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]}),
            json!({"containers": [
                {"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]},
                {"name": "c"}, {"name": "b"}]}),
        );
    }

    #[test]
    fn directives() {
        check(
            "PodSpec",
            json!({"containers": [{"name": "a"}, {"name": "b", "command": ["x"]}], "nodeSelector": {"k": "1", "l": "2"}}),
            json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "command": ["y", "z"]}],
                   "nodeSelector": {"$patch": "replace", "n": "3"}}),
            json!({"containers": [{"name": "b", "command": ["y", "z"]}], "nodeSelector": {"n": "3"}}),
        );
        check(
            "Pod",
            json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
                   "spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "m"}}]}}),
            json!({"metadata": {"finalizers": ["c", "b"]},
                   "spec": {"volumes": [{"name": "v", "configMap": {"name": "m"}}]}}),
        );
        check(
            "PodSpec",
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "1"}, {"name": "s"}]}),
        );
    }

    #[test]
    fn lists_of_one_name_are_told_apart_by_their_type() {
        check(
            "ServiceSpec",
            json!({"ports": [{"port": 80, "targetPort": 80, "name": "web"}]}),
            json!({"ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}),
            json!({"ports": [{"port": 80, "targetPort": 8080, "name": "web"}, {"port": 443}]}),
        );
        check(
            "Container",
            json!({"ports": [{"containerPort": 80, "name": "web"}]}),
            json!({"ports": [{"containerPort": 80, "protocol": "TCP"}]}),
            json!({"ports": [{"containerPort": 80, "name": "web", "protocol": "TCP"}]}),
        );
        // A list of one name that is a whole: addresses of endpoints have no `type`.
        check(
            "EndpointSubset",
            json!({"addresses": [{"ip": "10.0.0.1"}]}),
            json!({"addresses": [{"ip": "10.0.0.2"}]}),
            json!({"addresses": [{"ip": "10.0.0.2"}]}),
        );
        assert!(apply(&mut json!({"env": []}), &json!({"env": [{"value": "1"}]}), view("Container")).is_err());
    }
}
