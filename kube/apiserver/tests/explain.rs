//! The real kubectl explains every kind, from what the server tells of it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use serde_json::json;
use support::kubectl::start;

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
    for line in ["env\t<[]EnvVar>", "name\t<string> -required-", "resources\t<ResourceRequirements>"] {
        assert!(containers.contains(line), "{line}: {containers}");
    }
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
