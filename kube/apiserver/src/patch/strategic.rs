//! Strategic merge patch: a merge patch that knows which lists are maps in disguise.
//!
//! Directives: `$patch: replace | delete | merge`, `$retainKeys`, `$setElementOrder/LIST`,
//! `$deleteFromPrimitiveList/LIST` (upstream: `strategic-merge-patch.md`).

use serde_json::{Map, Value};

/// How a list is patched.
enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// A set of primitives.
    Set,
    /// Items with the same value of this field are merged.
    Keyed(&'static str),
}

/// How the list under `field` is patched. The tags `patchStrategy` and `patchMergeKey` of the built-in kinds agree
/// by name of the field, but for `ports`, whose items tell what they are.
fn list_kind(field: &str, items: &[Value]) -> ListKind {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "schedulingGates"
        | "resourceClaims" => ListKind::Keyed("name"),
        "ports" if items.iter().any(|item| item.get("containerPort").is_some()) => ListKind::Keyed("containerPort"),
        "ports" if items.iter().any(|item| item.get("$patch").is_some() || item.get("port").is_some()) => {
            ListKind::Keyed("port")
        }
        "volumeMounts" => ListKind::Keyed("mountPath"),
        "volumeDevices" => ListKind::Keyed("devicePath"),
        "hostAliases" | "podIPs" | "hostIPs" => ListKind::Keyed("ip"),
        "conditions" | "addresses" => ListKind::Keyed("type"),
        "ownerReferences" => ListKind::Keyed("uid"),
        "topologySpreadConstraints" => ListKind::Keyed("topologyKey"),
        "finalizers" => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

/// Applies `patch` to `object`.
///
/// # Errors
/// What is wrong with the patch.
pub fn apply(object: &mut Value, patch: &Value) -> Result<(), String> {
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
                apply(child, value)?;
            }
            Value::Array(items) => {
                let current = map.entry(key.clone()).or_insert_with(|| Value::Array(Vec::new()));
                merge_list(key, current, items)?;
            }
            scalar => {
                map.insert(key.clone(), scalar.clone());
            }
        }
    }
    for (key, order) in patch {
        if let (Some(list), Some(order)) = (key.strip_prefix("$setElementOrder/"), order.as_array())
            && let Some(items) = map.get_mut(list).and_then(Value::as_array_mut)
        {
            reorder(list, items, order);
        }
    }
    Ok(())
}

fn merge_list(field: &str, current: &mut Value, patch: &[Value]) -> Result<(), String> {
    if !current.is_array() {
        *current = Value::Array(Vec::new());
    }
    let Value::Array(items) = current else { return Err("not a list".into()) };
    let all: Vec<Value> = items.iter().chain(patch).cloned().collect();
    let replace = |entry: &Value| entry.get("$patch").and_then(Value::as_str) == Some("replace");
    if patch.iter().any(replace) {
        *items = patch.iter().filter(|entry| !replace(entry)).cloned().collect();
        return Ok(());
    }
    match list_kind(field, &all) {
        ListKind::Atomic => *items = patch.to_vec(),
        ListKind::Set => {
            for item in patch {
                if !items.contains(item) {
                    items.push(item.clone());
                }
            }
        }
        ListKind::Keyed(key) => {
            for entry in patch {
                let id =
                    entry.get(key).ok_or_else(|| format!("map: {entry} does not contain declared merge key: {key}"))?;
                let found = items.iter().position(|item| item.get(key) == Some(id));
                let delete = entry.get("$patch").and_then(Value::as_str) == Some("delete");
                match (found, delete) {
                    (Some(at), true) => {
                        items.remove(at);
                    }
                    (None, true) => {}
                    (Some(at), false) => apply(&mut items[at], entry)?,
                    (None, false) => {
                        let mut fresh = Value::Object(Map::new());
                        apply(&mut fresh, entry)?;
                        items.push(fresh);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Puts the items that `order` names into its order; the others keep their place relative to their predecessor.
fn reorder(field: &str, items: &mut [Value], order: &[Value]) {
    let place = |item: &Value| match list_kind(field, std::slice::from_ref(item)) {
        ListKind::Keyed(key) => order.iter().position(|o| o.get(key).is_some() && o.get(key) == item.get(key)),
        _ => order.iter().position(|o| o == item),
    };
    let mut last = 0;
    let mut keyed: Vec<(usize, Value)> = items
        .iter()
        .map(|item| {
            last = place(item).unwrap_or(last);
            (last, item.clone())
        })
        .collect();
    keyed.sort_by_key(|(place, _)| *place);
    for (slot, (_, item)) in items.iter_mut().zip(keyed) {
        *slot = item;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn check(object: Value, patch: Value, expected: Value) {
        let mut patched = object;
        apply(&mut patched, &patch).unwrap();
        assert_eq!(patched, expected, "{patch}");
    }

    #[test]
    fn keyed_lists_merge_by_key() {
        check(
            json!({"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "2", "env": [{"name": "Y", "value": "2"}]}, {"name": "c"}]}),
            json!({"containers": [
                {"name": "a", "image": "2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
                {"name": "b"}, {"name": "c"}]}),
        );
    }

    #[test]
    fn directives() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}], "command": ["x"], "m": {"k": 1, "l": 2}}),
            json!({"containers": [{"name": "a", "$patch": "delete"}], "command": ["y", "z"],
                   "m": {"$patch": "replace", "n": 3}}),
            json!({"containers": [{"name": "b"}], "command": ["y", "z"], "m": {"n": 3}}),
        );
        check(
            json!({"finalizers": ["a", "b"], "strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}),
            json!({"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
                   "strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"finalizers": ["b", "c"], "strategy": {"type": "Recreate"}}),
        );
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "b"}, {"name": "s"}, {"name": "a", "image": "1"}]}),
        );
    }

    #[test]
    fn ports_are_told_apart_by_what_they_hold() {
        check(
            json!({"ports": [{"port": 80, "targetPort": 80}]}),
            json!({"ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}),
            json!({"ports": [{"port": 80, "targetPort": 8080}, {"port": 443}]}),
        );
        assert!(apply(&mut json!({"env": []}), &json!({"env": [{"value": "1"}]})).is_err());
    }
}
