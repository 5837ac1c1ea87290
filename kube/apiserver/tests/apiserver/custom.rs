//! Custom kinds: served when they are defined, gone when they are not.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::api;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROCKETS: &str = "/apis/x.io/v1/namespaces/default/rockets";

fn definition() -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "rockets.x.io"},
        "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "rockets", "kind": "Rocket", "shortNames": ["rk"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Stages", "type": "integer", "jsonPath": ".spec.stages"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["fuel"], "properties": {
                        "fuel": {"type": "string"}, "stages": {"type": "integer", "default": 2, "maximum": 5}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}})
}

fn rocket(spec: Value) -> Value {
    json!({"apiVersion": "x.io/v1", "kind": "Rocket", "metadata": {"name": "r"}, "spec": spec, "status": {"sent": 1}})
}

#[tokio::test]
async fn a_kind_comes_and_goes() {
    let api = api().await;
    assert_eq!(api.get(ROCKETS).await.0, 404);
    let (code, defined) = api.post(DEFINITIONS, definition()).await;
    assert_eq!(code, 201, "{defined}");
    assert_eq!(defined["status"]["conditions"][1]["type"], "Established");
    let (code, made) = api.post(ROCKETS, rocket(json!({"fuel": "H2", "odd": 1}))).await;
    assert_eq!(code, 201);
    assert_eq!(made["spec"], json!({"fuel": "H2", "stages": 2}));
    assert_eq!(made.get("status"), None, "a status is written apart");
    let (_, status) =
        api.patch(&format!("{ROCKETS}/r/status"), "merge-patch", json!({"status": {"any": {"thing": 1}}})).await;
    assert_eq!(status["status"]["any"]["thing"], 1);
    for (spec, message) in [
        (json!({}), "spec.fuel: Required value"),
        (json!({"fuel": "H2", "stages": 6}), "spec.stages in body should be less than or equal to 5"),
        (json!({"fuel": 1}), "spec.fuel in body must be of type string: \"integer\""),
    ] {
        let (code, refused) = api.put(&format!("{ROCKETS}/r"), rocket(spec)).await;
        assert_eq!(code, 422);
        assert!(refused["message"].as_str().unwrap().contains(message), "{}", refused["message"]);
    }
    let (code, _) = api.patch(&format!("{ROCKETS}/r"), "strategic-merge-patch", json!({})).await;
    assert_eq!(code, 415);
    let response =
        api.raw(Method::GET, ROCKETS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await;
    let table: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["r", 2]));
    assert_eq!(api.get("/apis/x.io/v1").await.1["resources"][0]["shortNames"], json!(["rk"]));
    api.delete(&format!("{DEFINITIONS}/rockets.x.io")).await;
    assert_eq!(api.get(ROCKETS).await.0, 404);
    api.post(DEFINITIONS, definition()).await;
    assert_eq!(api.get(ROCKETS).await.1["items"], json!([]), "its objects went with it");
}

#[tokio::test]
async fn a_definition_that_cannot_be_kept_is_refused() {
    let api = api().await;
    let mut cel = definition();
    cel["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] =
        json!([{"rule": "self.spec.none == 1"}]);
    let (code, status) = api.post(DEFINITIONS, cel).await;
    assert_eq!(code, 422);
    assert!(status["message"].as_str().unwrap().contains("undefined field 'none'"));
    let mut misnamed = definition();
    misnamed["metadata"]["name"] = "x".into();
    assert_eq!(api.post(DEFINITIONS, misnamed).await.0, 422);
    let mut taken = definition();
    taken["metadata"]["name"] = "deployments.apps".into();
    taken["spec"]["group"] = "apps".into();
    taken["spec"]["names"] = json!({"plural": "deployments", "kind": "Deployment"});
    api.post(DEFINITIONS, taken).await;
    let (code, _) =
        api.post("/apis/apps/v1/namespaces/default/deployments", json!({"metadata": {"name": "a"}, "spec": {}})).await;
    assert_eq!(code, 422, "the rules of the built-in kind still hold");
}

#[tokio::test]
async fn a_custom_kind_scales_and_is_selected_by_its_fields() {
    let api = api().await;
    let mut scaled = definition();
    let version = &mut scaled["spec"]["versions"][0];
    version["subresources"]["scale"] = json!({"specReplicasPath": ".spec.stages", "statusReplicasPath": ".status.n", "labelSelectorPath": ".status.sel"});
    version["selectableFields"] = json!([{"jsonPath": ".spec.fuel"}, {"jsonPath": ".spec.stages"}]);
    let (code, made) = api.post(DEFINITIONS, scaled.clone()).await;
    assert_eq!(code, 201, "{made}");
    api.post(ROCKETS, rocket(json!({"fuel": "H2"}))).await;
    api.patch(&format!("{ROCKETS}/r/status"), "merge-patch", json!({"status": {"n": 1, "sel": "a=b"}})).await;
    let (_, scale) = api.get(&format!("{ROCKETS}/r/scale")).await;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 2}), &json!({"replicas": 1, "selector": "a=b"}))
    );
    let (code, scale) = api.patch(&format!("{ROCKETS}/r/scale"), "merge-patch", json!({"spec": {"replicas": 4}})).await;
    assert_eq!((code, &scale["spec"]["replicas"]), (200, &json!(4)), "{scale}");
    assert_eq!(api.get(&format!("{ROCKETS}/r")).await.1["spec"], json!({"fuel": "H2", "stages": 4}));
    let (code, _) = api.patch(&format!("{ROCKETS}/r/scale"), "merge-patch", json!({"spec": {"replicas": 6}})).await;
    assert_eq!(code, 422, "the schema holds here, too");
    let listed = api.get("/apis/x.io/v1").await.1["resources"].clone();
    assert!(listed.as_array().unwrap().iter().any(|resource| resource["name"] == "rockets/scale"), "{listed}");
    for (selector, found) in [("spec.fuel=H2", 1), ("spec.fuel!=H2", 0), ("spec.stages=4", 1), ("spec.stages=5", 0)] {
        let (_, list) = api.get(&format!("{ROCKETS}?fieldSelector={selector}")).await;
        assert_eq!(list["items"].as_array().map(Vec::len), Some(found), "{selector}");
    }
    let (code, answer) = api.get(&format!("{ROCKETS}?fieldSelector=spec.odd=1")).await;
    assert_eq!((code, answer["message"].as_str()), (400, Some("field label not supported: spec.odd")));
    for (field, value, message) in [
        (
            "subresources",
            json!({"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status.n"}}),
            "specReplicasPath: Invalid value: \".x\": should be a json path under .spec",
        ),
        ("subresources", json!({"scale": {"specReplicasPath": ".spec.n"}}), "statusReplicasPath: Required value"),
        ("selectableFields", json!([{"jsonPath": ".spec.none"}]), "selectableFields[0].jsonPath: Invalid value"),
        ("selectableFields", json!([{"jsonPath": ".spec"}]), "of type string, integer or boolean"),
        (
            "selectableFields",
            json!([{"jsonPath": ".spec.fuel"}, {"jsonPath": ".spec.fuel"}]),
            "selectableFields[1].jsonPath: Duplicate value",
        ),
    ] {
        let mut bad = scaled.clone();
        bad["spec"]["versions"][0][field] = value.clone();
        let (code, answer) = api.put(&format!("{DEFINITIONS}/rockets.x.io"), bad).await;
        assert!(code == 422 && answer["message"].as_str().unwrap().contains(message), "{value}: {answer}");
    }
}
