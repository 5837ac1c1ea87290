//! Webhooks, asked over TLS: a real server in the test answers as its path says.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::support;
use crate::support::hooks::Server;
use crate::support::{Api, api, config_map};

const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A webhook that is asked about new and changed ConfigMaps at `path`; `change` says what else of it.
fn hook(server: &Server, path: &str, change: Value) -> Value {
    let name = format!("{}.flt.io", path.trim_matches('/').replace('/', "-"));
    let mut hook = json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://127.0.0.1:{}{path}", server.port), "caBundle": server.bundle},
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    for (field, value) in change.as_object().unwrap() {
        hook[field] = value.clone();
    }
    hook
}

fn answered(path: String, request: Value) -> BoxFuture<'static, Response<Full<Bytes>>> {
    async move { answer(&path, &request).await }.boxed()
}

async fn answer(path: &str, request: &Value) -> Response<Full<Bytes>> {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let mut patch = |operations: Value| {
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(operations.to_string()).into();
    };
    match path.trim_start_matches('/') {
        "yes" => {}
        "no" => {
            response["allowed"] = false.into();
            response["status"] = json!({"code": 403, "reason": "Forbidden", "message": "not today"});
        }
        "silent" => response["allowed"] = false.into(),
        "warn" => response["warnings"] = json!(["beware"]),
        "uid" => response["uid"] = "other".into(),
        "own" => patch(json!([
            {"op": "add", "path": "/metadata/uid", "value": "stolen"},
            {"op": "add", "path": "/metadata/labels", "value": {"kept": "yes"}},
            {"op": "add", "path": "/data/odd", "value": "1"}, {"op": "add", "path": "/unknown", "value": "1"}])),
        "rename" => patch(json!([{"op": "replace", "path": "/metadata/name", "value": "b"}])),
        "astray" => patch(json!([{"op": "replace", "path": "/none/here", "value": 1}])),
        "shape" => patch(json!([{"op": "replace", "path": "/data", "value": 1}])),
        "invalid" => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "no label!"}}])),
        "bare" => return Response::new(Full::new(Bytes::from_static(b"{}"))),
        "endless" => return Response::new(Full::new(Bytes::from(vec![b' '; 4 << 20]))),
        "broken" => return Response::builder().status(500).body(Full::new(Bytes::from_static(b"oh"))).unwrap(),
        "redirect" => {
            return Response::builder().status(302).header("location", "/yes").body(Full::default()).unwrap();
        }
        "never" => std::future::pending().await,
        other => match other.strip_prefix("set/") {
            Some(key) => patch(json!([{"op": "add", "path": format!("/data/{key}"), "value": "set"}])),
            None => return Response::builder().status(404).body(Full::default()).unwrap(),
        },
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Response::new(Full::new(Bytes::from(review.to_string())))
}

/// Puts `hooks` in the place of those before.
async fn configure(api: &Api, kind: &str, hooks: Vec<Value>) {
    let plural = format!("{}s", kind.to_lowercase());
    api.delete(&format!("{HOOKS}/{plural}/a")).await;
    let (code, made) = api
        .post(&format!("{HOOKS}/{plural}"), json!({"kind": kind, "metadata": {"name": "a"}, "webhooks": hooks}))
        .await;
    assert_eq!(code, 201, "{made}");
}

const MUTATING: &str = "MutatingWebhookConfiguration";
const VALIDATING: &str = "ValidatingWebhookConfiguration";

#[tokio::test]
async fn a_webhook_judges_in_upstreams_words() {
    let (api, server) = (api().await, Server::start(answered).await);
    let at =
        |path: &str| format!("failed to call webhook: Post \"https://127.0.0.1:{}/{path}?timeout=10s\": ", server.port);
    for (path, code, message) in [
        ("yes", 201, String::new()),
        ("no", 403, "admission webhook \"no.flt.io\" denied the request: not today".into()),
        ("silent", 400, "admission webhook \"silent.flt.io\" denied the request without explanation".into()),
        (
            "uid",
            500,
            "failed calling webhook \"uid.flt.io\": received invalid webhook response: expected response.uid=".into(),
        ),
        ("bare", 500, "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=".into()),
        ("set/a", 500, "validating webhook may not return response.patch".into()),
        ("endless", 500, format!("{}length limit exceeded", at("endless"))),
        ("broken", 500, "an error on the server (\"oh\") has prevented the request from succeeding".into()),
        ("redirect", 500, "an error on the server (\"\") has prevented the request from succeeding".into()),
        ("gone", 500, format!("{}the server could not find the requested resource", at("gone"))),
    ] {
        configure(&api, VALIDATING, vec![hook(&server, &format!("/{path}"), json!({}))]).await;
        let (got, answer) = api.post(MAPS, config_map("a", "1")).await;
        let said = answer["message"].as_str().unwrap_or_default();
        assert!(got == code && said.contains(&message), "{path}: {got} {said}");
        api.delete(&format!("{MAPS}/a")).await;
        if code == 500 {
            assert!(said.starts_with("Internal error occurred: failed calling webhook"), "{said}");
            configure(&api, VALIDATING, vec![hook(&server, &format!("/{path}"), json!({"failurePolicy": "Ignore"}))])
                .await;
            assert_eq!(api.post(MAPS, config_map("a", "1")).await.0, 201, "{path} does not matter");
            api.delete(&format!("{MAPS}/a")).await;
        }
    }
    configure(&api, VALIDATING, vec![hook(&server, "/never", json!({"timeoutSeconds": 1}))]).await;
    let (code, answer) = api.post(MAPS, config_map("a", "1")).await;
    assert_eq!(code, 500);
    assert!(
        answer["message"].as_str().unwrap().ends_with("/never?timeout=1s\": context deadline exceeded"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_server_without_the_right_certificate_is_not_believed() {
    let (api, server, other) = (api().await, Server::start(answered).await, Server::start(answered).await);
    let mut hook = hook(&server, "/yes", json!({}));
    hook["clientConfig"]["caBundle"] = other.bundle.clone().into();
    configure(&api, VALIDATING, vec![hook]).await;
    let (code, answer) = api.post(MAPS, config_map("a", "1")).await;
    assert_eq!(code, 500);
    assert!(answer["message"].as_str().unwrap().contains("tls: failed to verify certificate"), "{answer}");
    assert_eq!(server.paths(), Vec::<String>::new(), "nothing was told to it");
}

#[tokio::test]
async fn what_is_asked_and_who_is_warned() {
    let (api, server) = (api().await, Server::start(answered).await);
    configure(&api, VALIDATING, vec![hook(&server, "/warn", json!({}))]).await;
    let response = api.raw(Method::POST, &format!("{MAPS}?dryRun=All"), &[], config_map("a", "1").to_string()).await;
    assert_eq!(response.headers()["warning"], "299 - \"beware\"");
    let (_, asked) = server.asked.lock().unwrap().remove(0);
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    assert_eq!((&asked["kind"], &asked["requestKind"], &asked["dryRun"]), (&kind, &kind, &json!(true)));
    assert_eq!(
        (&asked["operation"], &asked["namespace"], &asked["name"]),
        (&json!("CREATE"), &json!("default"), &json!("a"))
    );
    assert_eq!(asked["userInfo"], json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]}));
    assert_eq!((&asked["object"]["data"]["k"], &asked["oldObject"]), (&json!("1"), &Value::Null));
    assert_eq!(asked["options"], json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]}));
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_not_the_servers() {
    let (api, server) = (api().await, Server::start(answered).await);
    configure(&api, MUTATING, vec![hook(&server, "/own", json!({}))]).await;
    let (code, made) = api.post(MAPS, config_map("a", "1")).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!((&made["metadata"]["labels"], &made["data"]), (&json!({"kept": "yes"}), &json!({"k": "1", "odd": "1"})));
    assert_eq!(made.get("unknown"), None);
    assert_eq!(made["metadata"]["uid"].as_str().map(str::len), Some(36), "{made}");
    assert!(made["metadata"]["creationTimestamp"].is_string());
    for (path, code, message) in [
        ("/rename", 500, "metadata.name: field is immutable"),
        ("/astray", 500, "the server rejected our request due to an error in our request"),
        ("/shape", 500, "cannot unmarshal number into Go struct field ConfigMap.data"),
        ("/invalid", 422, "metadata.labels: Invalid value: \"no label!\""),
    ] {
        configure(&api, MUTATING, vec![hook(&server, path, json!({}))]).await;
        let (got, answer) = api.put(&format!("{MAPS}/a"), config_map("a", "2")).await;
        assert!(got == code && answer["message"].as_str().unwrap().contains(message), "{path}: {answer}");
    }
}

#[tokio::test]
async fn who_saw_the_object_before_it_was_changed_is_asked_again() {
    let (api, server) = (api().await, Server::start(answered).await);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let [a, b, c] = ["/set/a", "/set/b", "/set/c"].map(|path| hook(&server, path, again.clone()));
    configure(&api, MUTATING, vec![a.clone(), hook(&server, "/set/b", json!({})), c]).await;
    let (_, made) = api.post(MAPS, config_map("a", "1")).await;
    assert_eq!(made["data"], json!({"k": "1", "a": "set", "b": "set", "c": "set"}));
    assert_eq!(server.paths(), ["/set/a", "/set/b", "/set/c", "/set/a"], "what only c saw did not change any more");
    configure(&api, MUTATING, vec![a, b]).await;
    api.put(&format!("{MAPS}/a"), json!({"metadata": {"name": "a"}, "data": {"a": "set", "b": "set"}})).await;
    assert_eq!(server.paths(), ["/set/a", "/set/b"], "nothing was changed");
}

#[tokio::test]
async fn only_what_is_meant_is_asked() {
    let (api, server) = (api().await, Server::start(answered).await);
    let rule = |operations: &[&str], group: &str, version: &str, resources: &[&str], scope: &str| json!({"rules": [{"operations": operations, "apiGroups": [group], "apiVersions": [version], "resources": resources, "scope": scope}]});
    let map = || (MAPS.to_owned(), config_map("x", "1"));
    let labelled = || {
        let mut map = config_map("x", "1");
        map["metadata"]["labels"] = json!({"l": "1"});
        (MAPS.to_owned(), map)
    };
    let namespace = || ("/api/v1/namespaces".to_owned(), json!({"metadata": {"name": "x"}}));
    let scaler = || {
        let spec =
            json!({"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}});
        let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
        (path.to_owned(), json!({"metadata": {"name": "x"}, "spec": spec}))
    };
    let of_v1 = |policy: &str| {
        let mut rule = rule(&["CREATE"], "autoscaling", "v1", &["horizontalpodautoscalers"], "*");
        rule["matchPolicy"] = policy.into();
        rule
    };
    let cases = [
        (rule(&["*"], "*", "*", &["*"], "*"), map(), true),
        (rule(&["*"], "*", "*", &["*/*"], "*"), map(), true),
        (rule(&["CREATE"], "", "v1", &["pods", "configmaps"], "Namespaced"), map(), true),
        (rule(&["UPDATE", "DELETE"], "", "v1", &["configmaps"], "*"), map(), false),
        (rule(&["CREATE"], "apps", "v1", &["configmaps"], "*"), map(), false),
        (rule(&["CREATE"], "", "v2", &["configmaps"], "*"), map(), false),
        (rule(&["CREATE"], "", "v1", &["configmaps/status"], "*"), map(), false),
        (rule(&["CREATE"], "", "v1", &["configmaps"], "Cluster"), map(), false),
        (rule(&["CREATE"], "", "v1", &["namespaces"], "Cluster"), namespace(), true),
        (rule(&["CREATE"], "", "v1", &["namespaces"], "Namespaced"), namespace(), false),
        (json!({"objectSelector": {"matchLabels": {"l": "1"}}}), labelled(), true),
        (json!({"objectSelector": {"matchLabels": {"l": "1"}}}), map(), false),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}), map(), true),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}), map(), false),
        (of_v1("Equivalent"), scaler(), true),
        (of_v1("Exact"), scaler(), false),
    ];
    for (i, (change, (path, mut body), asked)) in cases.into_iter().enumerate() {
        body["metadata"]["name"] = format!("x{i}").into();
        configure(&api, VALIDATING, vec![hook(&server, "/yes", change.clone())]).await;
        let (code, made) = api.post(&path, body).await;
        assert_eq!(code, 201, "{made}");
        let seen: Vec<Value> = server.asked.lock().unwrap().drain(..).map(|(_, request)| request).collect();
        assert_eq!(seen.len(), usize::from(asked), "{change}");
        if path.contains("autoscalers") && asked {
            assert_eq!((&seen[0]["kind"]["version"], &seen[0]["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
            assert_eq!(seen[0]["object"]["apiVersion"], "autoscaling/v1");
        }
    }
}

#[tokio::test]
async fn conditions_say_who_is_asked() {
    let (api, server) = (api().await, Server::start(answered).await);
    let when = |expressions: &[&str], policy: &str| {
        let named = |(i, expression): (usize, &&str)| json!({"name": format!("c{i}"), "expression": expression});
        let conditions: Vec<Value> = expressions.iter().enumerate().map(named).collect();
        json!({"matchConditions": conditions, "failurePolicy": policy})
    };
    for (change, code, asked) in [
        (when(&["object.data.k == '1'", "request.operation == 'CREATE' && oldObject == null"], "Fail"), 201, 1),
        (when(&["object.data.k == '1'", "request.userInfo.username != 'admin'"], "Fail"), 201, 0),
        (when(&["object.data.x == '1'", "false"], "Fail"), 201, 0),
        (when(&["object.data.x == '1'"], "Fail"), 403, 0),
        (when(&["object.data.x == '1'"], "Ignore"), 201, 0),
        (when(&["authorizer.requestResource.check('any').allowed()"], "Fail"), 201, 1),
        (when(&["authorizer.serviceAccount('a', 'b').path('/x').check('get').allowed()"], "Fail"), 201, 0),
    ] {
        configure(&api, MUTATING, vec![hook(&server, "/yes", change.clone())]).await;
        let (got, answer) = api.post(&format!("{MAPS}?dryRun=All"), config_map("a", "1")).await;
        assert_eq!((got, server.paths().len()), (code, asked), "{change}: {answer}");
    }
}

#[tokio::test]
async fn status_and_deletion_are_asked_about_and_webhooks_themselves_are_not() {
    let (api, server) = (api().await, Server::start(answered).await);
    let pods = "/api/v1/namespaces/default/pods";
    api.post(pods, support::pod("p")).await;
    let all = json!({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    configure(&api, VALIDATING, vec![hook(&server, "/no", all)]).await;
    let (code, _) =
        api.patch(&format!("{pods}/p/status"), "merge-patch", json!({"status": {"phase": "Running"}})).await;
    assert_eq!(code, 403);
    assert_eq!(api.delete(&format!("{pods}/p")).await.0, 403);
    let seen: Vec<Value> = server.asked.lock().unwrap().drain(..).map(|(_, request)| request).collect();
    assert_eq!((&seen[0]["subResource"], &seen[0]["operation"]), (&json!("status"), &json!("UPDATE")));
    assert_eq!((&seen[1]["object"], &seen[1]["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("p")));
    assert_eq!(api.delete(&format!("{HOOKS}/validatingwebhookconfigurations/a")).await.0, 200);
    assert_eq!(api.delete(&format!("{pods}/p")).await.0, 200, "what is no longer there is no longer asked");
}

#[tokio::test]
async fn a_service_is_reached_at_its_address_by_its_name() {
    let (api, server) = (api().await, Server::start(answered).await);
    let mut hook = hook(&server, "/no", json!({}));
    hook["clientConfig"] = json!({"service": {"namespace": "default", "name": "hook", "path": "/no", "port": server.port}, "caBundle": server.bundle});
    configure(&api, VALIDATING, vec![hook]).await;
    let services = "/api/v1/namespaces/default/services";
    let port = json!([{"port": server.port}]);
    for (spec, message) in [
        (
            Value::Null,
            format!("Post \"https://hook.default.svc:{}/no?timeout=10s\": service \"hook\" not found", server.port),
        ),
        (json!({"clusterIP": "None", "ports": port}), "cannot route to service with ClusterIP \"None\"".into()),
        (json!({"ports": [{"port": 1}]}), format!("no service port {} found for service \"hook\"", server.port)),
        (json!({"type": "ExternalName", "externalName": "localhost"}), "denied the request: not today".into()),
    ] {
        if !spec.is_null() {
            let (code, made) = api.post(services, json!({"metadata": {"name": "hook"}, "spec": spec})).await;
            assert_eq!(code, 201, "{made}");
        }
        let (_, answer) = api.post(MAPS, config_map("a", "1")).await;
        assert!(answer["message"].as_str().unwrap().contains(&message), "{answer}");
        api.delete(&format!("{services}/hook")).await;
    }
}

#[tokio::test]
async fn a_webhook_that_could_not_be_asked_is_refused() {
    let (api, server) = (api().await, Server::start(answered).await);
    for (config, message) in [
        (json!({"url": "http://h.io/x"}), "'https' is the only allowed URL scheme"),
        (json!({"url": "https:///x"}), "host must be specified"),
        (json!({"url": "https://u:p@h.io/x"}), "user information is not permitted in the URL"),
        (json!({"url": "https://h.io/x?a=b"}), "query parameters are not permitted in the URL"),
        (json!({"url": "https://h.io/x#a"}), "fragments are not permitted in the URL"),
        (json!({"url": "https://h.io/x", "caBundle": "bm8="}), "unable to load root certificates"),
        (json!({}), "exactly one of url or service is required"),
    ] {
        let hook = hook(
            &server,
            "/yes",
            json!({ "clientConfig": config, "matchConditions": [{"name": "c", "expression": "x"}] }),
        );
        let sent = json!({"kind": VALIDATING, "metadata": {"name": "a"}, "webhooks": [hook]});
        let (code, answer) = api.post(&format!("{HOOKS}/validatingwebhookconfigurations"), sent).await;
        assert_eq!(code, 422, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(message), "{answer}");
        assert!(
            answer["message"].as_str().unwrap().contains("matchConditions[0].expression: Invalid value: \"x\""),
            "{answer}"
        );
    }
}
