//! Custom kinds whose versions a webhook converts: a real server, over TLS, that keeps a temperature in degrees of two scales.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::support::hooks::Server;
use crate::support::{Api, api, events};

const OVENS: &str = "/apis/x.io/v1/namespaces/default/ovens";
const OLD_OVENS: &str = "/apis/x.io/v1alpha1/namespaces/default/ovens";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// `v1` says degrees Celsius, `v1alpha1` Fahrenheit.
fn convert(path: String, request: Value) -> BoxFuture<'static, Response<Full<Bytes>>> {
    async move {
        let wanted = request["desiredAPIVersion"].as_str().unwrap().to_owned();
        let objects = request["objects"].as_array().unwrap().iter().map(|object| {
            let mut out = object.clone();
            let (celsius, fahrenheit) = (&object["spec"]["celsius"], &object["spec"]["fahrenheit"]);
            out["spec"] = match wanted.as_str() {
                "x.io/v1" => json!({ "celsius": (fahrenheit.as_i64().unwrap() - 32) * 5 / 9 }),
                _ => json!({ "fahrenheit": celsius.as_i64().unwrap() * 9 / 5 + 32 }),
            };
            out["apiVersion"] = wanted.clone().into();
            out["metadata"]["labels"] = json!({ "converted": "yes" });
            out["metadata"]["generation"] = 99.into();
            if path == "/thief" {
                out["metadata"]["uid"] = "stolen".into();
            }
            out
        });
        let mut response =
            json!({ "uid": request["uid"], "result": { "status": "Success" }, "convertedObjects": objects.collect::<Vec<_>>() });
        match path.as_str() {
            "/refuses" => response["result"] = json!({ "status": "Failed", "message": "too hot" }),
            "/forgets" => response["convertedObjects"] = json!([]),
            "/sleeps" => std::future::pending().await,
            _ => {}
        }
        let review = json!({ "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response });
        Response::new(Full::new(Bytes::from(review.to_string())))
    }
    .boxed()
}

fn definition(server: &Server, path: &str) -> Value {
    let version = |name: &str, field: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "subresources": { "status": {} },
            "additionalPrinterColumns": [{ "name": "Heat", "type": "integer", "jsonPath": format!(".spec.{field}") }],
            "selectableFields": [{ "jsonPath": format!(".spec.{field}") }],
            "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                "spec": { "type": "object", "required": [field], "properties": { field: { "type": "integer" } } },
                "status": { "type": "object", "properties": { "hot": { "type": "boolean" } } },
            } } },
        })
    };
    json!({
        "metadata": { "name": "ovens.x.io" },
        "spec": {
            "group": "x.io", "scope": "Namespaced", "names": { "plural": "ovens", "kind": "Oven" },
            "conversion": { "strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"],
                "clientConfig": { "url": format!("https://127.0.0.1:{}{path}", server.port), "caBundle": server.bundle },
            } },
            "versions": [version("v1", "celsius", true), version("v1alpha1", "fahrenheit", false)],
        },
    })
}

async fn served() -> (Api, Server) {
    let (api, server) = (api().await, Server::start(convert).await);
    let (code, made) = api.post(DEFINITIONS, definition(&server, "/good")).await;
    assert_eq!(code, 201, "{made}");
    (api, server)
}

fn oven(name: &str, field: &str, heat: i64) -> Value {
    json!({ "metadata": { "name": name }, "spec": { field: heat } })
}

#[tokio::test]
async fn each_version_shows_what_is_kept_in_one() {
    let (api, server) = served().await;
    let (code, made) = api.post(OLD_OVENS, oven("a", "fahrenheit", 212)).await;
    assert_eq!((code, &made["apiVersion"], &made["spec"]["fahrenheit"]), (201, &json!("x.io/v1alpha1"), &json!(212)));
    api.post(OVENS, oven("b", "celsius", 10)).await;
    server.paths();
    let (_, newer) = api.get(&format!("{OVENS}/a")).await;
    assert_eq!((&newer["apiVersion"], &newer["spec"]), (&json!("x.io/v1"), &json!({ "celsius": 100 })));
    assert!(server.paths().is_empty(), "what is kept in a version is shown in it without a question");
    let (_, older) = api.get(&format!("{OLD_OVENS}/b")).await;
    assert_eq!((&older["kind"], &older["spec"]), (&json!("Oven"), &json!({ "fahrenheit": 50 })));
    assert_eq!(
        (&older["metadata"]["labels"]["converted"], &older["metadata"]["generation"]),
        (&json!("yes"), &json!(1)),
        "of its metadata a webhook changes labels and annotations alone"
    );
    server.paths();
    let (_, list) = api.get(OLD_OVENS).await;
    let heats: Vec<&Value> = list["items"].as_array().unwrap().iter().map(|oven| &oven["spec"]["fahrenheit"]).collect();
    assert_eq!(heats, [212, 50]);
    assert_eq!(server.paths().len(), 1, "a list is one question");
    let (_, selected) = api.get(&format!("{OLD_OVENS}?fieldSelector=spec.fahrenheit%3D50")).await;
    assert_eq!(selected["items"].as_array().unwrap().len(), 1, "fields are those of the version that is asked for");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = api.raw(Method::GET, &format!("{OLD_OVENS}/b"), &table, String::new()).await;
    let table: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(table["rows"][0]["cells"], json!(["b", 50]));
}

#[tokio::test]
async fn changes_and_watches_go_through_it() {
    let (api, _server) = served().await;
    api.post(OVENS, oven("a", "celsius", 100)).await;
    let watch = format!("{OLD_OVENS}?watch=1&resourceVersion=0");
    let watch = api.raw(Method::GET, &watch, &[], String::new()).await;
    let (code, patched) =
        api.patch(&format!("{OLD_OVENS}/a"), "merge-patch", json!({ "spec": { "fahrenheit": 32 } })).await;
    assert_eq!((code, &patched["spec"]), (200, &json!({ "fahrenheit": 32 })), "{patched}");
    assert_eq!(patched["metadata"]["generation"], 2);
    let (_, newer) = api.get(&format!("{OVENS}/a")).await;
    assert_eq!(newer["spec"], json!({ "celsius": 0 }));
    let (code, wrong) =
        api.patch(&format!("{OLD_OVENS}/a"), "merge-patch", json!({ "spec": { "fahrenheit": "x" } })).await;
    assert_eq!(code, 422, "{wrong}");
    api.patch(&format!("{OLD_OVENS}/a/status"), "merge-patch", json!({ "status": { "hot": true } })).await;
    assert_eq!(api.delete(&format!("{OLD_OVENS}/a")).await.0, 200);
    let seen = events(watch, 4).await;
    let told: Vec<_> = seen.iter().map(|e| (e["type"].as_str().unwrap(), &e["object"]["spec"]["fahrenheit"])).collect();
    assert_eq!(
        told,
        [("ADDED", &json!(212)), ("MODIFIED", &json!(32)), ("MODIFIED", &json!(32)), ("DELETED", &json!(32))]
    );
    assert!(seen.iter().all(|event| event["object"]["apiVersion"] == "x.io/v1alpha1"), "{seen:?}");
}

#[tokio::test]
async fn what_it_answers_badly_is_refused_and_changes_nothing() {
    let (api, server) = served().await;
    api.post(OVENS, oven("a", "celsius", 100)).await;
    let turn = |path: &'static str| {
        let definition = definition(&server, path);
        let api = &api;
        async move {
            let patch = json!({ "spec": { "conversion": definition["spec"]["conversion"] } });
            assert_eq!(api.patch(&format!("{DEFINITIONS}/ovens.x.io"), "merge-patch", patch).await.0, 200);
        }
    };
    for (path, expected) in [
        ("/refuses", "conversion webhook for x.io/v1, Kind=Oven failed: too hot"),
        ("/forgets", "webhook returned 0 objects, expected 1"),
        ("/thief", "webhook changed metadata.uid"),
    ] {
        turn(path).await;
        let (code, status) = api.get(&format!("{OLD_OVENS}/a")).await;
        let message = status["message"].as_str().unwrap();
        assert!(code == 500 && message.contains(expected), "{path}: {status}");
        let (code, status) = api.patch(&format!("{OLD_OVENS}/a"), "merge-patch", json!({})).await;
        assert_eq!(code, 500, "{status}");
        assert_eq!(api.get(&format!("{OVENS}/a")).await.0, 200, "who asks for what is kept needs no webhook");
    }
    let (_, kept) = api.get(&format!("{DEFINITIONS}/ovens.x.io")).await;
    assert_eq!(kept["status"]["storedVersions"], json!(["v1"]));
    // The version of the store changes; the one in which objects are kept cannot be taken away.
    turn("/good").await;
    let mut moved = definition(&server, "/good");
    moved["metadata"] = kept["metadata"].clone();
    moved["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    moved["spec"]["versions"][0]["storage"] = false.into();
    moved["spec"]["versions"][1]["storage"] = true.into();
    let (code, answer) = api.put(&format!("{DEFINITIONS}/ovens.x.io"), moved.clone()).await;
    assert_eq!((code, &answer["status"]["storedVersions"]), (200, &json!(["v1", "v1alpha1"])), "{answer}");
    assert_eq!(api.get(&format!("{OVENS}/a")).await.1["spec"], json!({ "celsius": 100 }));
    moved["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let (code, refused) = api.put(&format!("{DEFINITIONS}/ovens.x.io"), moved).await;
    assert!(code == 422 && refused["message"].as_str().unwrap().contains("status.storedVersions[0]"), "{refused}");
}
