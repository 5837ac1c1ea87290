//! What of an object a write may not say: what only the server writes, what is kept of the one that stands, what is counted.

use serde_json::Value;

use super::Part;
use crate::addresses::has_health_check;
use crate::kinds::Kind;
use crate::object::{self, meta, metadata};

/// What only the server writes.
pub fn system_fields(object: &mut Value) {
    let generate = meta(object, "generateName").to_owned();
    let map = metadata(object);
    if map.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() && !generate.is_empty() {
        let suffix = object::suffix();
        let base: String = generate.chars().take(63 - suffix.len()).collect();
        map.insert("name".into(), format!("{base}{suffix}").into());
    }
    map.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    map.insert("creationTimestamp".into(), object::now().into());
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        map.remove(field);
    }
    map.insert("generation".into(), 1.into());
}

/// Keeps of the old object what this write may not change.
pub fn merge_parts(kind: &Kind, part: Part, old: &Value, object: &mut Value) {
    if part == Part::Status {
        let status = object["status"].take();
        let version = object["metadata"]["resourceVersion"].take();
        *object = old.clone();
        object["status"] = status;
        object["metadata"]["resourceVersion"] = version;
        return;
    }
    for field in
        ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"]
    {
        let kept = old["metadata"][field].clone();
        let map = metadata(object);
        if kept.is_null() {
            map.remove(field)
        } else {
            map.insert(field.into(), kept)
        };
    }
    if kind.has_status && part == Part::Main {
        if old["status"].is_null() {
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
            }
        } else {
            object["status"] = old["status"].clone();
        }
    }
    if object::is_deleting(old) {
        // While something is being deleted, finalizers can only be taken away.
        let before: Vec<Value> = object::finalizers(old).into_iter().map(Value::from).collect();
        let kept: Vec<Value> =
            object::finalizers(object).into_iter().map(Value::from).filter(|f| before.contains(f)).collect();
        metadata(object).insert("finalizers".into(), kept.into());
    }
    if object["metadata"]["finalizers"].as_array().is_some_and(Vec::is_empty) {
        metadata(object).remove("finalizers");
    }
}

/// Takes the ports of machines from a Service whose type has none any more, unless one of them is new: then the update speaks of it.
fn give_ports_back(old: &Value, spec: &mut Value) {
    let ports = |spec: &Value| -> Vec<i64> {
        let all = spec["ports"].as_array().into_iter().flatten().filter_map(|port| port["nodePort"].as_i64());
        all.filter(|port| *port != 0).collect()
    };
    let had = ports(old);
    if ports(spec).iter().all(|port| had.contains(port)) {
        for port in spec["ports"].as_array_mut().into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
}

/// A Service keeps its addresses and ports when an update does not name them, and gives back what its type has no use for any more, if the
/// update does not speak of it.
pub fn keep_addresses(old: &Value, object: &mut Value) {
    let spec = &mut object["spec"];
    let (before, now) = (&old["spec"]["healthCheckNodePort"], spec["healthCheckNodePort"].as_i64().unwrap_or(0));
    match (has_health_check(&old["spec"]), has_health_check(spec)) {
        (true, true) if now == 0 => spec["healthCheckNodePort"] = before.clone(),
        (true, false) if *before == now => spec["healthCheckNodePort"] = 0.into(),
        _ => {}
    }
    let is_outside = |spec: &Value| matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    let same_policy = old["spec"]["externalTrafficPolicy"] == spec["externalTrafficPolicy"];
    if is_outside(&old["spec"]) && !is_outside(spec) && same_policy {
        spec.as_object_mut().map(|spec| spec.remove("externalTrafficPolicy"));
    }
    for of_balancers in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if spec["type"] != "LoadBalancer" && old["spec"][of_balancers] == spec[of_balancers] {
            spec.as_object_mut().map(|spec| spec.remove(of_balancers));
        }
    }
    if is_outside(&old["spec"]) && !is_outside(spec) {
        give_ports_back(&old["spec"], spec);
    }
    if spec["type"] == "ExternalName" {
        return;
    }
    let (before, named) = (&old["spec"], |spec: &Value| !spec["clusterIP"].as_str().unwrap_or_default().is_empty());
    if named(before) && spec["clusterIPs"] == before["clusterIPs"] && spec["clusterIP"] != before["clusterIP"] {
        // A client that knows of one address says so of it alone.
        spec["clusterIPs"] = if named(spec) { serde_json::json!([spec["clusterIP"]]) } else { Value::Null };
    }
    if !named(spec) && named(before) {
        spec["clusterIP"] = before["clusterIP"].clone();
    }
    if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) && !before["clusterIPs"].is_null() {
        spec["clusterIPs"] = before["clusterIPs"].clone();
    }
    if !is_outside(spec) {
        return;
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let same = |o: &&Value| o["port"] == port["port"] && o["protocol"] == port["protocol"];
        let before = old["spec"]["ports"].as_array().into_iter().flatten().find(same);
        if port["nodePort"].is_null()
            && let Some(node) = before.map(|o| &o["nodePort"]).filter(|n| !n.is_null())
        {
            port["nodePort"] = node.clone();
        }
    }
}

/// The generation counts changes of what is wanted: everything but metadata and status.
pub fn count_generation(kind: &Kind, old: &Value, object: &mut Value) {
    if !kind.counts {
        metadata(object).remove("generation");
        return;
    }
    let before = old["metadata"]["generation"].as_i64().unwrap_or(1);
    let grown = before + i64::from(!wants_the_same(kind, old, object));
    metadata(object).insert("generation".into(), grown.into());
}

fn wants_the_same(kind: &Kind, old: &Value, new: &Value) -> bool {
    let wanted = |name: &&String| *name != "metadata" && !(kind.has_status && *name == "status");
    let names = |object: &Value| object.as_object().map_or(0, |map| map.keys().filter(wanted).count());
    names(old) == names(new)
        && new
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
            .filter(wanted)
            .all(|name| old.get(name) == new.get(name))
}
