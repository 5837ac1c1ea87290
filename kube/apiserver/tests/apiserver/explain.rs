//! The real kubectl explains every kind, from what the server tells of it; documents are known by their hash.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::kubectl::start;
use crate::support::{Api, api};

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_every_kind() {
    let kubectl = start().await;
    let listed = kubectl.ok("api-resources --no-headers").await;
    // NAME, SHORTNAMES if there are some, APIVERSION, NAMESPACED, KIND. Two groups have events.
    let columns = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let kinds: Vec<(&str, &str)> = columns.map(|columns| (columns[0], columns[columns.len() - 3])).collect();
    assert!(kinds.len() >= 50, "{kinds:?}");
    for (kind, version) in kinds {
        let explained = kubectl.ok(&format!("explain {kind} --api-version {version} --recursive")).await;
        // Every kind has these, and each of them a type.
        assert!(
            explained.contains("FIELDS:") && explained.contains("creationTimestamp\t<string>"),
            "{kind}: {explained}"
        );
    }
    let containers = kubectl.ok("explain deployment.spec.template.spec.containers").await;
    let rolling = kubectl.ok("explain deployment.spec.strategy.rollingUpdate").await;
    assert!(rolling.contains("maxSurge\t<IntOrString>"), "{rolling}");
    let resources = kubectl.ok("explain pod.spec.containers.resources").await;
    assert!(resources.contains("limits\t<map[string]Quantity>"), "{resources}");
    for line in ["env\t<[]EnvVar>", "name\t<string> -required-", "resources\t<ResourceRequirements>"] {
        assert!(containers.contains(line), "{line}: {containers}");
    }
}

/// A list is no kind that a document of its own tells of, so kubectl reads the older one, as protobuf, and judges by it.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_takes_a_list() {
    let kubectl = start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("list.json");
    let write = |more: Value| {
        let config =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "one" }, "data": { "a": "b" } });
        let ports = json!([{ "port": 80, "targetPort": "web" }, { "port": 81, "targetPort": 8081, "name": "b" }]);
        let mut service =
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "two" }, "spec": { "ports": ports } });
        service["spec"]["ports"][0]["name"] = "a".into();
        service["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [config, service] });
        std::fs::write(&file, list.to_string()).unwrap();
    };
    write(json!({ "clusterIPs": 7, "portz": [] }));
    let (_, told) = kubectl.run(&format!("apply -f {}", file.display())).await;
    assert!(told.contains(r#"unknown field "portz" in io.k8s.api.core.v1.ServiceSpec"#), "{told}");
    assert!(told.contains("clusterIPs") && told.contains(r#"got "integer""#), "{told}");
    write(json!({}));
    let made = kubectl.ok(&format!("apply -f {}", file.display())).await;
    assert_eq!(made, "configmap/one created\nservice/two created\n");
    // What is read can be given back.
    let read = kubectl.ok("get configmap/one service/two -o json").await;
    std::fs::write(&file, &read).unwrap();
    let replaced = kubectl.ok(&format!("replace -f {}", file.display())).await;
    assert_eq!(replaced, "configmap/one replaced\nservice/two replaced\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explains_a_custom_kind() {
    let kubectl = start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("definition.json");
    let spec = json!({ "type": "object", "required": ["fuel"], "properties": {
        "fuel": { "type": "string" }, "stages": { "type": "array", "items": { "type": "object", "properties": { "burn": { "type": "integer" } } } } } });
    let definition = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "rockets.x.io" },
        "spec": { "group": "x.io", "scope": "Namespaced", "names": { "plural": "rockets", "singular": "rocket", "kind": "Rocket" },
            "versions": [{ "name": "v1", "served": true, "storage": true,
                "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } } }] } });
    std::fs::write(&file, definition.to_string()).unwrap();
    kubectl.ok(&format!("create -f {}", file.display())).await;
    let explained = kubectl.ok("explain rockets --recursive").await;
    for line in
        ["fuel\t<string> -required-", "stages\t<[]Object>", "burn\t<integer>", "ownerReferences\t<[]OwnerReference>"]
    {
        assert!(explained.contains(line), "{line}: {explained}");
    }
}

/// Code, Cache-Control, ETag or Location, and the document.
async fn read(api: &Api, path: &str, seen: &str) -> (u16, String, String, Value) {
    let response = api.raw(Method::GET, path, &[("if-none-match", seen)], "").await;
    let text = |name: &str| response.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    let (code, cache, tag) = (response.status().as_u16(), text("cache-control"), text("etag") + &text("location"));
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, cache, tag, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn a_document_is_known_by_its_hash() {
    let api = api().await;
    let place = async |group: &str| {
        let (_, index) = api.get("/openapi/v3").await;
        index["paths"][group]["serverRelativeURL"].as_str().unwrap_or_default().to_owned()
    };
    let apps = place("apis/apps/v1").await;
    let (code, cache, tag, document) = read(&api, &apps, "").await;
    assert_eq!((code, cache.as_str()), (200, "public, immutable, max-age=31536000"));
    assert!(apps.ends_with(&format!("?hash={}", tag.trim_matches('"'))), "{apps} {tag}");
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let (code, cache, again, nothing) = read(&api, "/openapi/v3/apis/apps/v1", &format!("W/\"x\", {tag}")).await;
    assert_eq!((code, cache.as_str(), &again, nothing), (304, "", &tag, Value::Null));
    let (code, _, elsewhere, _) = read(&api, "/openapi/v3/apis/apps/v1?hash=OLD", "").await;
    assert_eq!((code, elsewhere), (301, apps));
    // A custom kind changes its document, and the list of documents.
    let definition = |fields: Value| {
        let schema = json!({ "openAPIV3Schema": { "type": "object", "properties": fields } });
        json!({ "metadata": { "name": "rockets.x.io" }, "spec": { "group": "x.io", "scope": "Cluster",
            "names": { "plural": "rockets", "kind": "Rocket" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": schema }] } })
    };
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let (_, _, index, _) = read(&api, "/openapi/v3", "").await;
    api.post(DEFINITIONS, definition(json!({}))).await;
    let before = place("apis/x.io/v1").await;
    let fuel =
        json!({ "spec": { "versions": definition(json!({ "fuel": { "type": "string" } }))["spec"]["versions"] } });
    api.patch(&format!("{DEFINITIONS}/rockets.x.io"), "merge-patch", fuel).await;
    let after = place("apis/x.io/v1").await;
    assert!(!before.is_empty() && before != after, "{before} {after}");
    assert_eq!(read(&api, "/openapi/v3", &index).await.0, 200);
}

#[tokio::test]
async fn the_older_form_is_one_document_without_dangling_references() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let api = api().await;
    let (code, _, tag, document) = read(&api, "/openapi/v2", "").await;
    assert_eq!((code, &document["swagger"]), (200, &json!("2.0")));
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 500, "{}", found.len());
    for reference in found {
        let name = reference.strip_prefix("#/definitions/").unwrap_or_default();
        assert!(document["definitions"][name].is_object(), "{reference}");
    }
    // What is text or a number is so in the newer form only.
    let (_, newer) = api.get("/openapi/v3/api/v1").await;
    let either = |document: &Value, name: &str| document[format!("io.k8s.apimachinery.pkg.{name}")].clone();
    let of = |name: &str| [either(&newer["components"]["schemas"], name), either(&document["definitions"], name)];
    let (text, number, integer) =
        (json!({ "type": "string" }), json!({ "type": "number" }), json!({ "type": "integer" }));
    assert_eq!(of("api.resource.Quantity"), [json!({ "oneOf": [text, number] }), text.clone()]);
    let format = "int-or-string";
    let expected =
        [json!({ "format": format, "oneOf": [integer, text] }), json!({ "format": format, "type": "string" })];
    assert_eq!(of("util.intstr.IntOrString"), expected);
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/apply-patch+yaml")), "{patch}");
    let last = patch["parameters"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["in"], &patch["parameters"][0]["type"]), (&json!("body"), &json!("string")));
    assert_eq!(read(&api, "/openapi/v2", &tag).await.0, 304);
    let gnostic = [("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")];
    let response = api.raw(Method::GET, "/openapi/v2", &gnostic, "").await;
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
        (200, gnostic[0].1.replace('@', ".").as_str())
    );
    let newer = [("accept", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf")];
    assert_eq!(api.raw(Method::GET, "/openapi/v2", &newer, "").await.status(), 406);
}
