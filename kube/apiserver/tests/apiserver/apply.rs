//! Server-side apply and who manages which fields, asked over HTTP.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{Api, api, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(api: &Api, path: &str, query: &str, body: Value) -> (u16, Value) {
    let headers = [("content-type", "application/apply-patch+yaml"), ("user-agent", "flt/1")];
    let response = api.raw(Method::PATCH, &format!("{path}?{query}"), &headers, body.to_string()).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flt"}, "data": data})
}

fn deployment(containers: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "flt"}, "spec": {
        "selector": {"matchLabels": {"app": "flt"}},
        "template": {"metadata": {"labels": {"app": "flt"}}, "spec": {"containers": containers}}}})
}

/// The text of a value, its names in order: how JSON keeps them is the choice of the whole program.
fn in_order(value: &Value) -> String {
    let Value::Object(map) = value else { return value.to_string() };
    let mut names: Vec<&String> = map.keys().collect();
    names.sort();
    let fields: Vec<String> =
        names.into_iter().map(|name| format!("{}:{}", json!(name), in_order(&map[name]))).collect();
    format!("{{{}}}", fields.join(","))
}

/// Who owns what, without times.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| {
            assert!(entry["time"].is_string() && entry["fieldsType"] == "FieldsV1", "{entry}");
            let word = |field: &str| entry[field].as_str().unwrap_or("-").to_owned();
            let (name, operation, version) = (word("manager"), word("operation"), word("apiVersion"));
            format!("{name} {operation} {version} {}: {}", word("subresource"), in_order(&entry["fieldsV1"]))
        })
        .collect()
}

#[tokio::test]
async fn what_is_applied_is_made_shared_and_taken_back() {
    let api = api().await;
    let path = format!("{MAPS}/flt");
    let (code, made) = apply(&api, &path, "fieldManager=a", map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(managers(&made), [r#"a Apply v1 -: {"f:data":{"f:x":{},"f:y":{}}}"#]);
    // The same value is shared, another one is a conflict.
    let (code, shared) = apply(&api, &path, "fieldManager=b", map(json!({"x": "1", "z": "1"}))).await;
    assert_eq!((code, &shared["data"]), (200, &json!({"x": "1", "y": "1", "z": "1"})));
    let (code, refused) = apply(&api, &path, "fieldManager=b", map(json!({"x": "2", "z": "1"}))).await;
    assert_eq!((code, refused["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"a\": .data.x");
    let cause = json!({"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x"});
    assert_eq!(refused["details"], json!({"causes": [cause]}));
    let (_, two) = apply(&api, &path, "fieldManager=b", map(json!({"x": "2", "y": "2"}))).await;
    assert_eq!(two["message"], "Apply failed with 2 conflicts: conflicts with \"a\":\n- .data.x\n- .data.y");
    let (_, dry) = apply(&api, &path, "fieldManager=b&force=true&dryRun=All", map(json!({"x": "2"}))).await;
    assert_eq!(dry["data"], json!({"x": "2", "y": "1"}));
    assert_eq!(api.get(&path).await.1, shared, "nothing of a dry run is kept");
    // Taken by force; what is no longer said goes unless others own it.
    let (code, forced) = apply(&api, &path, "fieldManager=b&force=true", map(json!({"x": "2"}))).await;
    assert_eq!((code, &forced["data"]), (200, &json!({"x": "2", "y": "1"})));
    assert_eq!(managers(&forced), [r#"a Apply v1 -: {"f:data":{"f:y":{}}}"#, r#"b Apply v1 -: {"f:data":{"f:x":{}}}"#]);
    let (_, same) = apply(&api, &path, "fieldManager=b", map(json!({"x": "2"}))).await;
    assert_eq!(same, forced, "what changes nothing is not written");
    let (_, emptied) = apply(&api, &path, "fieldManager=a", json!({"apiVersion": "v1", "kind": "ConfigMap"})).await;
    assert_eq!(emptied["data"], json!({"x": "2"}));
    let (_, emptied) = apply(&api, &path, "fieldManager=b", json!({"apiVersion": "v1", "kind": "ConfigMap"})).await;
    assert_eq!((emptied.get("data"), managers(&emptied).len()), (None, 0), "what is emptied goes, too");
}

#[tokio::test]
async fn updates_are_noted_and_taken_from_others() {
    let api = api().await;
    let path = format!("{MAPS}/flt");
    apply(&api, &path, "fieldManager=a", map(json!({"x": "1", "y": "1"}))).await;
    let (_, patched) =
        api.patch(&format!("{path}?fieldManager=p"), "merge-patch", json!({"data": {"x": "2", "z": "1"}})).await;
    let expected = [r#"a Apply v1 -: {"f:data":{"f:y":{}}}"#, r#"p Update v1 -: {"f:data":{"f:x":{},"f:z":{}}}"#];
    assert_eq!(managers(&patched), expected);
    let (_, refused) = apply(&api, &path, "fieldManager=a", map(json!({"x": "3"}))).await;
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"p\" using v1: .data.x");
    // Whoever gives no name is called by its program, and else by its user.
    let mut object = api.get(&path).await.1;
    object["data"]["y"] = "2".into();
    let headers = [("content-type", "application/json"), ("user-agent", "rocket/v1 (linux)")];
    api.raw(Method::PUT, &path, &headers, object.to_string()).await;
    let (_, put) =
        api.patch(&path, "merge-patch", json!({"data": {"x": null}, "metadata": {"labels": {"l": "1"}}})).await;
    assert_eq!(
        managers(&put),
        [
            r#"admin Update v1 -: {"f:metadata":{"f:labels":{".":{},"f:l":{}}}}"#,
            r#"p Update v1 -: {"f:data":{"f:z":{}}}"#,
            r#"rocket Update v1 -: {"f:data":{"f:y":{}}}"#,
        ]
    );
    // What clients do not know they do not take away; `[{}]` does, and then nothing is noted until somebody applies.
    let plain = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "flt", "managedFields": []}, "data": put["data"]});
    let (_, kept) = api.put(&path, plain.clone()).await;
    assert_eq!(managers(&kept).len(), 2, "{kept}");
    let mut reset = plain;
    reset["metadata"]["managedFields"] = json!([{}]);
    let (code, reset) = api.put(&path, reset).await;
    assert_eq!((code, managers(&reset).len()), (200, 0));
    let (_, still) = api.patch(&path, "merge-patch", json!({"data": {"y": "3"}})).await;
    assert_eq!(managers(&still).len(), 0);
    let (_, refused) = apply(&api, &path, "fieldManager=a", map(json!({"y": "4"}))).await;
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.y"
    );
    let (_, forced) = apply(&api, &path, "fieldManager=a&force=true", map(json!({"y": "4"}))).await;
    assert_eq!(
        managers(&forced),
        [r#"a Apply v1 -: {"f:data":{"f:y":{}}}"#, r#"before-first-apply Update v1 -: {"f:data":{".":{},"f:z":{}}}"#,]
    );
}

#[tokio::test]
async fn of_many_who_update_the_oldest_become_one() {
    let api = api().await;
    let path = format!("{MAPS}/a");
    api.post(&format!("{MAPS}?fieldManager=m0"), config_map("a", "1")).await;
    let mut last = Value::Null;
    for i in 1..13 {
        let patch = json!({"data": {format!("k{i}"): "1"}});
        (_, last) = api.patch(&format!("{path}?fieldManager=m{i}"), "merge-patch", patch).await;
    }
    let entries = managers(&last);
    assert_eq!(entries.len(), 10, "{entries:#?}");
    assert!(entries.iter().any(|entry| entry.starts_with("ancient-changes Update v1 -: ")), "{entries:#?}");
    assert!(entries.iter().any(|entry| entry.contains("f:k12")), "{entries:#?}");
}

#[tokio::test]
async fn keyed_lists_sets_and_wholes_are_shared_as_their_kind_says() {
    let api = api().await;
    let path = format!("{DEPLOYMENTS}/flt");
    let web = json!({"name": "web", "image": "w:1", "ports": [{"containerPort": 80}], "args": ["a"]});
    let (code, made) = apply(&api, &path, "fieldManager=a", deployment(json!([web]))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"]["replicas"], 1, "defaults are filled in, and nobody owns them");
    let expected = r#"{"f:spec":{"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:args":{},"f:image":{},"f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}"#;
    let set: Value = serde_json::from_str(expected).unwrap();
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], set);
    // Another one adds a container and a field of the first.
    let more = json!([{"name": "side", "image": "s:1"}, {"name": "web", "workingDir": "/w", "args": ["a"]}]);
    let mut body = deployment(more);
    body["spec"].as_object_mut().unwrap().remove("selector");
    let (code, both) = apply(&api, &path, "fieldManager=b", body.clone()).await;
    assert_eq!(code, 200, "{both}");
    let containers = &both["spec"]["template"]["spec"]["containers"];
    assert_eq!((&containers[0]["name"], &containers[1]["name"]), (&json!("side"), &json!("web")));
    assert_eq!((&containers[1]["image"], &containers[1]["workingDir"]), (&json!("w:1"), &json!("/w")));
    // The whole of a list that nobody shares.
    body["spec"]["template"]["spec"]["containers"][1]["args"] = json!(["a", "b"]);
    let (_, refused) = apply(&api, &path, "fieldManager=b", body.clone()).await;
    let message =
        "Apply failed with 1 conflict: conflict with \"a\": .spec.template.spec.containers[name=\"web\"].args";
    assert_eq!(refused["message"], message);
    // What the second no longer says goes; what the first said of the same item stays.
    body["spec"]["template"]["spec"]["containers"] = json!([{"name": "side", "image": "s:1"}]);
    let (_, less) = apply(&api, &path, "fieldManager=b", body.clone()).await;
    let web = &less["spec"]["template"]["spec"]["containers"][1];
    assert_eq!((&web["name"], web.get("workingDir"), &web["args"]), (&json!("web"), None, &json!(["a"])));
    // The item goes whole with its last owner, defaults and all.
    body["spec"]["template"]["spec"].as_object_mut().unwrap().remove("containers");
    let (_, gone) = apply(&api, &path, "fieldManager=b", body).await;
    assert_eq!(gone["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1, "{gone}");
    for (containers, words) in [
        (
            json!([{"image": "x"}]),
            ".spec.template.spec.containers: element 0: associative list with keys has an element that omits key field \"name\" (and doesn't have default value)",
        ),
        (
            json!([{"name": "a"}, {"name": "a"}]),
            ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
        ),
    ] {
        let (code, refused) = apply(&api, &path, "fieldManager=a", deployment(containers)).await;
        let message = format!("failed to create typed patch object (default/flt; apps/v1, Kind=Deployment): {words}");
        assert_eq!((code, refused["message"].as_str().unwrap()), (400, message.as_str()));
    }
    // A set of texts.
    let path = format!("{MAPS}/flt");
    let body =
        |finalizers: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"finalizers": finalizers}});
    apply(&api, &path, "fieldManager=a", body(json!(["flt.x/a"]))).await;
    let (_, both) = apply(&api, &path, "fieldManager=b", body(json!(["flt.x/b"]))).await;
    assert_eq!(both["metadata"]["finalizers"], json!(["flt.x/a", "flt.x/b"]));
    let (_, one) = apply(&api, &path, "fieldManager=a", body(json!([]))).await;
    assert_eq!(one["metadata"]["finalizers"], json!(["flt.x/b"]));
    assert_eq!(managers(&one), [r#"b Apply v1 -: {"f:metadata":{"f:finalizers":{"v:\"flt.x/b\"":{}}}}"#]);
}

#[tokio::test]
async fn status_scale_and_ephemeral_containers_are_applied_apart() {
    let api = api().await;
    let path = format!("{DEPLOYMENTS}/flt");
    let mut body = deployment(json!([{"name": "web", "image": "w:1"}]));
    body["spec"]["replicas"] = 2.into();
    body["status"] = json!({"replicas": 9});
    let (_, made) = apply(&api, &path, "fieldManager=a", body).await;
    assert!(!managers(&made)[0].contains("f:status"), "{made}");
    let status =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 7}, "status": {"replicas": 2}});
    let (code, observed) = apply(&api, &format!("{path}/status"), "fieldManager=s", status).await;
    assert_eq!((code, &observed["status"]["replicas"], &observed["spec"]["replicas"]), (200, &json!(2), &json!(2)));
    assert_eq!(managers(&observed)[1], r#"s Apply apps/v1 status: {"f:status":{"f:replicas":{}}}"#);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 5}});
    let (code, refused) = apply(&api, &format!("{path}/scale"), "fieldManager=h", scale.clone()).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (409, Some("Apply failed with 1 conflict: conflict with \"a\": .spec.replicas"))
    );
    let (code, scaled) = apply(&api, &format!("{path}/scale"), "fieldManager=h&force=true", scale).await;
    assert_eq!((code, &scaled["kind"], &scaled["spec"]["replicas"]), (200, &json!("Scale"), &json!(5)));
    let (_, all) = api.get(&path).await;
    assert!(managers(&all).contains(&r#"h Apply apps/v1 scale: {"f:spec":{"f:replicas":{}}}"#.to_owned()), "{all}");
    // Updates of parts say through which they came.
    api.patch(&format!("{path}/status"), "merge-patch", json!({"status": {"observedGeneration": 1}})).await;
    api.patch(&format!("{path}/scale"), "merge-patch", json!({"spec": {"replicas": 6}})).await;
    let (_, all) = api.get(&path).await;
    for expected in [
        r#"admin Update apps/v1 status: {"f:status":{"f:observedGeneration":{}}}"#,
        r#"admin Update apps/v1 scale: {"f:spec":{"f:replicas":{}}}"#,
    ] {
        assert!(managers(&all).contains(&expected.to_owned()), "{expected} is not among {:#?}", managers(&all));
    }
    api.post(PODS, pod("flt")).await;
    let debug =
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let (code, debugged) = apply(&api, &format!("{PODS}/flt/ephemeralcontainers"), "fieldManager=d", debug).await;
    assert_eq!((code, &debugged["spec"]["ephemeralContainers"][0]["name"]), (200, &json!("d")), "{debugged}");
    assert!(managers(&debugged)[0].starts_with("d Apply v1 ephemeralcontainers: "), "{debugged}");
}

#[tokio::test]
async fn custom_kinds_are_shared_as_their_schema_says() {
    let api = api().await;
    let list = |kind: &str| json!({"type": "array", "x-kubernetes-list-type": kind, "items": {"type": "string"}});
    let stage = json!({"type": "object", "properties": {"name": {"type": "string"}, "fuel": {"type": "string"}, "crew": {"type": "integer"}}});
    let spec = json!({"type": "object", "properties": {
        "tags": list("set"), "words": list("atomic"),
        "box": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "stages": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": stage},
    }});
    let definition = json!({"metadata": {"name": "rockets.flt.io"}, "spec": {
        "group": "flt.io", "scope": "Namespaced", "names": {"plural": "rockets", "kind": "Rocket"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}});
    let (code, made) = api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    assert_eq!(code, 201, "{made}");
    let path = "/apis/flt.io/v1/namespaces/default/rockets/r";
    let rocket = |spec: Value| json!({"apiVersion": "flt.io/v1", "kind": "Rocket", "metadata": {"labels": {"l": "1"}}, "spec": spec});
    let first = json!({"tags": ["a"], "words": ["w"], "box": {"k": "1"}, "stages": [{"name": "one", "fuel": "H2"}]});
    let (code, made) = apply(&api, path, "fieldManager=a", rocket(first)).await;
    assert_eq!(code, 201, "{made}");
    let expected = json!({"f:metadata": {"f:labels": {"f:l": {}}}, "f:spec": {
        "f:box": {}, "f:tags": {"v:\"a\"": {}}, "f:words": {},
        "f:stages": {"k:{\"name\":\"one\"}": {".": {}, "f:fuel": {}, "f:name": {}}}}});
    assert_eq!(made["metadata"]["managedFields"][0]["fieldsV1"], expected);
    let second = json!({"tags": ["b"], "stages": [{"name": "one", "crew": 3}, {"name": "two"}]});
    let (_, both) = apply(&api, path, "fieldManager=b", rocket(second)).await;
    assert_eq!(both["spec"]["tags"], json!(["a", "b"]));
    assert_eq!(both["spec"]["stages"], json!([{"name": "one", "fuel": "H2", "crew": 3}, {"name": "two"}]));
    let (_, refused) = apply(&api, path, "fieldManager=b", rocket(json!({"box": {"q": "1"}, "words": ["v"]}))).await;
    assert_eq!(refused["message"], "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.box\n- .spec.words");
    let (_, less) = apply(&api, path, "fieldManager=b", rocket(json!({}))).await;
    assert_eq!(
        (&less["spec"]["tags"], &less["spec"]["stages"]),
        (&json!(["a"]), &json!([{"name": "one", "fuel": "H2"}]))
    );
}

#[tokio::test]
async fn what_cannot_be_applied_is_refused_in_upstreams_words() {
    let api = api().await;
    let path = format!("{MAPS}/flt");
    let managed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": [{}]}});
    for (query, body, code, message) in [
        (
            "",
            map(json!({})),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        ("fieldManager=a", managed, 400, "metadata.managedFields must be nil"),
        (
            "fieldManager=a",
            json!({"apiVersion": "v1", "metadata": {"name": "b"}}),
            400,
            "the name of the object (b) does not match the name on the URL (flt)",
        ),
        (
            "fieldManager=a",
            json!({"apiVersion": "v1", "odd": 1}),
            400,
            "failed to create typed patch object (default/flt; v1, Kind=ConfigMap): .odd: field not declared in schema",
        ),
        (
            "fieldManager=a",
            json!({"metadata": {}}),
            400,
            "Incorrect version specified in apply patch. Specified patch version: , expected: v1",
        ),
        ("fieldManager=a", json!([]), 400, "it is no JSON object"),
    ] {
        let (observed, status) = apply(&api, &path, query, body).await;
        assert_eq!(observed, code, "{status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{status}");
    }
    let long = "m".repeat(129);
    let (code, status) = api.post(&format!("{MAPS}?fieldManager={long}"), config_map("a", "1")).await;
    let words = "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes";
    assert_eq!((code, status["message"].as_str()), (422, Some(words)));
    let (code, status) = api.patch(&format!("{path}?force=true"), "merge-patch", json!({})).await;
    let words = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch";
    assert_eq!((code, status["message"].as_str()), (422, Some(words)));
    let (code, _) =
        apply(&api, &format!("{DEPLOYMENTS}/none/status"), "fieldManager=a", json!({"apiVersion": "apps/v1"})).await;
    assert_eq!(code, 404, "a part of what is not there makes nothing");
}

#[tokio::test]
async fn what_kubectl_applied_of_old_is_its_own() {
    let api = api().await;
    let path = format!("{MAPS}/flt");
    let mut old = map(json!({"x": "1", "y": "1"}));
    old["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": old.to_string()});
    api.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), old).await;
    api.patch(&format!("{path}?fieldManager=other"), "merge-patch", json!({"data": {"y": "2"}})).await;
    let (_, refused) = apply(&api, &path, "fieldManager=kubectl", map(json!({"x": "3", "y": "3"}))).await;
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.y");
    let (code, applied) = apply(&api, &path, "fieldManager=kubectl", map(json!({"x": "3", "y": "2"}))).await;
    assert_eq!((code, &applied["data"]), (200, &json!({"x": "3", "y": "2"})), "{applied}");
    let note = &applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(note.as_str().unwrap().contains(r#""x":"3""#), "{note}");
}
