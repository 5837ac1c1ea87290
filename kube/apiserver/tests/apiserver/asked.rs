//! What webhooks and policies are asked about beside objects: subresources, connections, questions; and what callers are told.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use substrate_apiserver::auth::account_tokens::Issuer;

use crate::support;
use crate::support::hooks::Server;
use crate::support::{Api, pod};

const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";
const NS: &str = "/api/v1/namespaces/default";
const APPS: &str = "/apis/apps/v1/namespaces/default/deployments";
const ROCKETS: &str = "/apis/flt.io/v1/namespaces/default/rockets";

fn answered(path: String, request: Value) -> BoxFuture<'static, Response<Full<Bytes>>> {
    let mut response = json!({"uid": request["uid"], "allowed": path != "/no"});
    let patch = match (path.as_str(), request["subResource"].as_str()) {
        ("/patch", Some("attach")) => json!([{"op": "add", "path": "/container", "value": "nobody"}]),
        ("/patch", Some("proxy")) => json!([{"op": "replace", "path": "/path", "value": "/spec"}]),
        ("/patch", Some("scale")) => json!([{"op": "replace", "path": "/spec/replicas", "value": 7}]),
        ("/patch", Some("binding")) => json!([{"op": "replace", "path": "/target/name", "value": "n2"}]),
        ("/shape", _) => json!([{"op": "replace", "path": "/spec", "value": 1}]),
        _ => Value::Null,
    };
    if !patch.is_null() {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(patch.to_string()).into();
    }
    response["warnings"] = json!(["a \"word\""]);
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    async move { Response::new(Full::new(Bytes::from(review.to_string()))) }.boxed()
}

/// Puts a webhook at `path` for `resources` in the place of those before.
async fn hook(api: &Api, server: &Server, kind: &str, path: &str, resources: &[&str], change: Value) {
    let mut hook = json!({
        "name": "h.flt.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}{path}", server.port), "caBundle": server.bundle},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}],
    });
    hook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    for kind in ["validating", "mutating"] {
        api.delete(&format!("{HOOKS}/{kind}webhookconfigurations/a")).await;
    }
    let path = format!("{HOOKS}/{kind}webhookconfigurations");
    let (code, made) = api.post(&path, json!({"metadata": {"name": "a"}, "webhooks": [hook]})).await;
    assert_eq!(code, 201, "{made}");
}

/// Objects of many kinds.
async fn world() -> (Api, Server, tempfile::TempDir) {
    let (api, server, keys) = (support::api().await, Server::start(answered).await, tempfile::tempdir().unwrap());
    api.server.issue_tokens(Issuer::open(keys.path(), "https://api.example").unwrap());
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    let scale = json!({"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}, "subresources": {"scale": scale}});
    let names = json!({"plural": "rockets", "kind": "Rocket"});
    let definition = json!({"metadata": {"name": "rockets.flt.io"}, "spec": {"group": "flt.io", "scope": "Namespaced", "names": names, "versions": [version]}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("p")["spec"]});
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let mut placed = pod("placed");
    placed["spec"]["nodeName"] = "n".into();
    for (path, object) in [
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition),
        (ROCKETS, json!({"metadata": {"name": "r"}, "spec": {"n": 2}})),
        (APPS, deployment),
        ("/api/v1/nodes", json!({"metadata": {"name": "n"}})),
        ("/api/v1/namespaces", json!({"metadata": {"name": "flt"}})),
        (&format!("{NS}/serviceaccounts"), json!({"metadata": {"name": "robot"}})),
        (&format!("{NS}/services"), json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})),
        (&format!("{NS}/pods"), pod("p")),
        (&format!("{NS}/pods"), placed),
    ] {
        let (code, made) = api.post(path, object).await;
        assert_eq!(code, 201, "{path}: {made}");
    }
    (api, server, keys)
}

/// What is answered, or its text.
async fn sent(api: &Api, method: &Method, path: &str, body: &Value) -> (u16, Value) {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let response = api.raw(method.clone(), path, &[("content-type", kind)], body).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
}

#[tokio::test]
async fn everything_that_is_sent_to_an_object_is_asked_about() {
    let (api, server, _keys) = world().await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let scale = json!({"spec": {"replicas": 3}});
    let nothing = Value::Null;
    let namespace = api.get("/api/v1/namespaces/flt").await.1;
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    // Method, path, body; operation, kind, and of the object what is looked at.
    for (method, path, body, asked, kind, at, value) in [
        (
            Method::POST,
            format!("{NS}/pods/p/exec?command=ls&command=-l&container=&container=main&stdin=1&tty=false"),
            &nothing,
            "CONNECT pods exec",
            "v1 PodExecOptions",
            "",
            json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["ls", "-l"], "container": "main", "stdin": true}),
        ),
        (
            Method::GET,
            format!("{NS}/pods/p/exec"),
            &nothing,
            "CONNECT pods exec",
            "v1 PodExecOptions",
            "/command",
            Value::Null,
        ),
        (
            Method::GET,
            format!("{NS}/pods/p/attach?stdout=true"),
            &nothing,
            "CONNECT pods attach",
            "v1 PodAttachOptions",
            "",
            json!({"apiVersion": "v1", "kind": "PodAttachOptions", "stdout": true}),
        ),
        (
            Method::GET,
            format!("{NS}/pods/p/portforward?ports=80,81"),
            &nothing,
            "CONNECT pods portforward",
            "v1 PodPortForwardOptions",
            "/ports",
            json!([80, 81]),
        ),
        (
            Method::GET,
            format!("{NS}/pods/p:80/proxy/a/%62?c=d"),
            &nothing,
            "CONNECT pods proxy",
            "v1 PodProxyOptions",
            "/path",
            json!("/a/b"),
        ),
        (
            Method::PUT,
            format!("{NS}/services/s/proxy"),
            &nothing,
            "CONNECT services proxy",
            "v1 ServiceProxyOptions",
            "/path",
            Value::Null,
        ),
        (
            Method::GET,
            "/api/v1/nodes/n/proxy/pods/".into(),
            &nothing,
            "CONNECT nodes proxy",
            "v1 NodeProxyOptions",
            "/path",
            json!("/pods/"),
        ),
        (
            Method::PATCH,
            format!("{APPS}/d/scale"),
            &scale,
            "UPDATE deployments scale",
            "autoscaling/v1 Scale",
            "/spec/replicas",
            json!(3),
        ),
        (
            Method::PATCH,
            format!("{ROCKETS}/r/scale"),
            &scale,
            "UPDATE rockets scale",
            "autoscaling/v1 Scale",
            "/spec/replicas",
            json!(3),
        ),
        (
            Method::POST,
            format!("{NS}/pods/p/binding"),
            &binding,
            "CREATE pods binding",
            "v1 Binding",
            "/metadata/namespace",
            json!("default"),
        ),
        (
            Method::POST,
            format!("{NS}/pods/p/eviction"),
            &json!({"metadata": {"name": "p"}}),
            "CREATE pods eviction",
            "policy/v1 Eviction",
            "/metadata/name",
            json!("p"),
        ),
        (
            Method::PATCH,
            format!("{NS}/pods/p/ephemeralcontainers"),
            &json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i"}]}}),
            "UPDATE pods ephemeralcontainers",
            "v1 Pod",
            "/spec/ephemeralContainers/0/name",
            json!("e"),
        ),
        (
            Method::POST,
            format!("{NS}/serviceaccounts/robot/token"),
            &json!({"spec": {"expirationSeconds": 700}}),
            "CREATE serviceaccounts token",
            "authentication.k8s.io/v1 TokenRequest",
            "/spec/expirationSeconds",
            json!(700),
        ),
        (
            Method::PUT,
            "/api/v1/namespaces/flt/finalize".into(),
            &namespace,
            "UPDATE namespaces finalize",
            "v1 Namespace",
            "/metadata/name",
            json!("flt"),
        ),
        (
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".into(),
            &review,
            "CREATE selfsubjectaccessreviews ",
            "authorization.k8s.io/v1 SelfSubjectAccessReview",
            "/spec/resourceAttributes/verb",
            json!("get"),
        ),
    ] {
        hook(&api, &server, "validating", "/no", &["*/*"], json!({})).await;
        let (code, status) = sent(&api, &method, &path, body).await;
        let why = "admission webhook \"h.flt.io\" denied the request without explanation";
        assert_eq!((code, &status["message"]), (400, &json!(why)), "{path}: {status}");
        let mut seen: Vec<Value> = server.asked.lock().unwrap().drain(..).map(|(_, request)| request).collect();
        assert_eq!(seen.len(), 1, "{path}");
        let seen = seen.remove(0);
        let text = |pointer: &str| seen.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let version = if text("/kind/group").is_empty() { "v1".into() } else { format!("{}/v1", text("/kind/group")) };
        assert_eq!(
            (
                format!("{} {} {}", text("/operation"), text("/resource/resource"), text("/subResource")),
                format!("{version} {}", text("/kind/kind"))
            ),
            (asked.into(), kind.into()),
            "{path}"
        );
        assert_eq!(seen["kind"], seen["requestKind"]);
        assert_eq!(seen["object"].pointer(at).unwrap_or(&Value::Null), &value, "{path}: {}", seen["object"]);
        let is_update = text("/operation") == "UPDATE";
        assert_eq!(seen["oldObject"]["kind"] == seen["object"]["kind"], is_update, "{path}: {}", seen["oldObject"]);
        assert_eq!(seen["options"].is_null(), text("/operation") == "CONNECT", "{path}");
        let none: [&str; 2] = ["*", &format!("{}/status", text("/resource/resource"))];
        if !text("/subResource").is_empty() {
            hook(&api, &server, "validating", "/no", &none, json!({})).await;
            let _ = sent(&api, &method, &path, body).await;
            // Of an eviction nobody is asked a second time, as of a deletion.
            assert_eq!(server.paths(), Vec::<String>::new(), "{path} is not {none:?}");
        }
    }
    let (_, evicted) = api.get(&format!("{NS}/pods/p")).await;
    assert!(evicted["metadata"]["deletionTimestamp"].is_string(), "what was not refused was done");
    let (_, deployment) = api.get(&format!("{APPS}/d")).await;
    assert_eq!(deployment["spec"]["replicas"], 3);
}

#[tokio::test]
async fn what_is_sent_can_be_changed() {
    let (api, server, _keys) = world().await;
    hook(&api, &server, "mutating", "/patch", &["*/*"], json!({})).await;
    let (code, status) = api.get(&format!("{NS}/pods/placed/attach?container=main&stdout=1")).await;
    assert_eq!((code, &status["message"]), (400, &json!("container nobody is not valid for pod placed")));
    let scale = json!({"spec": {"replicas": 3}});
    let (code, answer) = api.patch(&format!("{APPS}/d/scale"), "merge-patch", scale.clone()).await;
    assert_eq!((code, &answer["spec"]["replicas"]), (200, &json!(7)), "{answer}");
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n"}});
    assert_eq!(api.post(&format!("{NS}/pods/p/binding"), binding).await.0, 201);
    assert_eq!(api.get(&format!("{NS}/pods/p")).await.1["spec"]["nodeName"], "n2");
    hook(&api, &server, "mutating", "/shape", &["*/scale"], json!({})).await;
    let (code, status) = api.patch(&format!("{APPS}/d/scale"), "merge-patch", scale).await;
    let why = "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal number into Go struct field Scale.spec";
    assert!(code == 500 && status["message"].as_str().unwrap().contains(why), "{status}");
}

#[tokio::test]
async fn what_has_no_labels_is_selected_by_none() {
    let (api, server, _keys) = world().await;
    let absent = json!({"objectSelector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}});
    for (path, resource, asked) in [("attach", "pods/attach", 0), ("eviction", "pods/eviction", 1)] {
        hook(&api, &server, "validating", "/no", &[resource], absent.clone()).await;
        let _ = api.post(&format!("{NS}/pods/p/{path}"), json!({"metadata": {"name": "p"}})).await;
        assert_eq!(server.paths().len(), asked, "{path}");
    }
}

#[tokio::test]
async fn a_policy_judges_a_command_and_not_a_question() {
    let (api, _server, _keys) = world().await;
    let rules = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]);
    let expression = "request.operation != 'CONNECT' || !('rm' in object.command)";
    let validations = json!([{"expression": expression, "message": "no rm"}, {"expression": "request.resource.resource != 'selfsubjectaccessreviews'"}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules}, "validations": validations});
    for (plural, spec) in [
        ("validatingadmissionpolicies", spec),
        ("validatingadmissionpolicybindings", json!({"policyName": "p", "validationActions": ["Deny"]})),
    ] {
        assert_eq!(
            api.post(&format!("{HOOKS}/{plural}"), json!({"metadata": {"name": "p"}, "spec": spec})).await.0,
            201
        );
    }
    let exec = async |command: &str| {
        api.post(&format!("{NS}/pods/placed/exec?container=main&command={command}"), json!({})).await
    };
    let (code, status) = exec("rm").await;
    assert!(code == 422 && status["message"].as_str().unwrap().ends_with("denied request: no rm"), "{status}");
    let (_, status) = exec("ls").await;
    assert_eq!(status["message"], "nobody answers for node \"n\", where pod placed is");
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    assert_eq!(api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.0, 201);
}

#[tokio::test]
async fn a_refusal_and_a_deletion_come_with_warnings() {
    let (api, server, _keys) = world().await;
    for (path, method, at, code) in [
        ("/no", Method::DELETE, "pods/p", 400),
        ("/yes", Method::DELETE, "pods/p?dryRun=All", 200),
        ("/yes", Method::DELETE, "pods?dryRun=All", 200),
        ("/no", Method::GET, "pods/p/attach", 400),
    ] {
        hook(&api, &server, "validating", path, &["*/*"], json!({})).await;
        let response = api.raw(method, &format!("{NS}/{at}"), &[], "").await;
        let told: Vec<_> = response.headers().get_all("warning").iter().map(|told| told.to_str().unwrap()).collect();
        assert_eq!((response.status().as_u16(), told), (code, vec!["299 - \"a \\\"word\\\"\""]), "{path} {at}");
    }
}
