//! The audit log: what the policy asks for is in the file, and no token is.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use substrate_apiserver::status::Status;
use substrate_apiserver::{AuditLog, admission};

use crate::support;
use crate::support::{Api, api, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

struct World {
    api: Api,
    directory: tempfile::TempDir,
}

async fn world(policy: &str, bytes_max: u64) -> World {
    let (api, directory) = (api().await, tempfile::tempdir().unwrap());
    let path = directory.path().join("audit.log");
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}");
    api.server.audit(&policy, AuditLog { path, bytes_max, backups_max: 2 }).unwrap();
    World { api, directory }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

impl World {
    /// The events, once there are so many; a request at the end shows that there are no more.
    async fn events(&self, count: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let found = lines(&self.directory.path().join("audit.log"));
            if found.len() >= count {
                assert_eq!(found.len(), count, "{found:#?}");
                return found;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "30 s, and {} of {count} events: {found:#?}",
                found.len()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn without_times(mut event: Value) -> Value {
    for field in ["auditID", "requestReceivedTimestamp", "stageTimestamp"] {
        assert!(!event[field].as_str().unwrap_or_default().is_empty(), "{field}: {event}");
        event.as_object_mut().unwrap().remove(field);
    }
    event
}

#[tokio::test]
async fn who_asked_for_what_and_what_came_of_it() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n", 1 << 20).await;
    let ada = world.api.asked_by("ada", &["team"]);
    world.api.post(MAPS, config_map("m", "v")).await;
    ada.raw(Method::GET, &format!("{MAPS}?limit=5"), &[("user-agent", "flt/1")], "").await;
    world.api.raw(Method::GET, "/livez", &[("impersonate-user", "bob")], "").await;
    let events = world.events(3).await;
    let event = |n: usize| without_times(events[n].clone());
    let allowed = json!({ "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "" });
    let about = json!({ "resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1" });
    assert_eq!(
        event(0),
        json!({ "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
            "requestURI": MAPS, "verb": "create", "user": { "username": "admin", "groups": ["system:masters", "system:authenticated"] },
            "objectRef": about, "responseStatus": { "metadata": {}, "code": 201 }, "annotations": allowed })
    );
    let refused = event(1);
    assert_eq!(
        refused["annotations"],
        json!({ "authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": "" })
    );
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    assert_eq!((&refused["userAgent"], &refused["requestURI"]), (&json!("flt/1"), &json!(format!("{MAPS}?limit=5"))));
    assert_eq!(refused["verb"], "list");
    let public = event(2);
    assert_eq!(
        (&public["verb"], &public["requestURI"], &public["objectRef"]),
        (&json!("get"), &json!("/livez"), &Value::Null)
    );
    assert_eq!(public["impersonatedUser"]["username"], "bob");
    assert_eq!(public["user"]["username"], "admin");
    let (_, role) = world.api.get("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/cluster-admin").await;
    assert!(role["metadata"].is_object());
    let reason = &world.events(4).await[3]["annotations"]["authorization.k8s.io/reason"];
    assert_eq!(reason, "", "masters need none");
    // Who has no user is there, too.
    let request =
        Request::get(MAPS).header("authorization", "Bearer flt-no-token").body(Full::new(bytes::Bytes::new()));
    world.api.server.answer(None, request.unwrap()).await;
    let last = world.events(5).await.pop().unwrap();
    assert_eq!((&last["responseStatus"]["code"], &last["user"]["username"]), (&json!(401), &json!("")));
    assert!(!last.to_string().contains("flt-no-token"));
}

#[tokio::test]
async fn the_first_rule_that_fits_says_how_much() {
    let rules = r#"
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: [quiet]}
- {level: None, verbs: [list], resources: [{group: "", resources: [configmaps]}]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [named]}]}
- {level: RequestResponse, resources: [{group: "", resources: ["pods/status"]}], namespaces: [default]}
- {level: None, nonResourceURLs: ["/live*"]}
- {level: None, resources: [{group: apps}]}
- {level: Metadata, userGroups: [team]}
"#;
    let world = world(rules, 1 << 20).await;
    let api = &world.api;
    api.post("/api/v1/namespaces/default/pods", pod("p")).await; // fits none
    api.get(MAPS).await;
    api.raw(Method::GET, "/livez", &[], "").await;
    api.asked_by("quiet", &["team", "system:masters"]).get("/api/v1/nodes").await;
    api.asked_by("ada", &["team"]).get("/apis/apps/v1/deployments").await;
    api.asked_by("ada", &["team"]).get("/api/v1/nodes").await;
    api.post(MAPS, config_map("named", "v")).await; // has no name in its path, as upstream
    api.patch(&format!("{MAPS}/named"), "merge-patch", json!({ "data": { "k": "w" } })).await;
    let mut status = api.get("/api/v1/namespaces/default/pods/p").await.1;
    status["status"]["phase"] = "Running".into();
    api.put("/api/v1/namespaces/default/pods/p/status", status).await;
    let events = world.events(3).await;
    let seen: Vec<String> =
        events.iter().map(|e| format!("{} {} {}", e["level"], e["verb"], e["objectRef"]["resource"])).collect();
    assert_eq!(
        seen,
        [
            "\"Metadata\" \"list\" \"nodes\"",
            "\"Request\" \"patch\" \"configmaps\"",
            "\"RequestResponse\" \"update\" \"pods\""
        ]
    );
    assert_eq!(
        (&events[1]["requestObject"], &events[1]["responseObject"]),
        (&json!({ "data": { "k": "w" } }), &Value::Null)
    );
    for object in ["requestObject", "responseObject"] {
        assert_eq!(events[2][object]["status"]["phase"], "Running", "{object}");
        assert!(events[2][object]["metadata"]["managedFields"].is_null(), "{object}");
    }
    assert!(events[0].get("requestObject").is_none());
}

#[tokio::test]
async fn stages_and_streams() {
    let world = world(
        "rules: [{level: Metadata, verbs: [watch]}, {level: Metadata, verbs: [get], omitStages: [ResponseComplete]}]\n",
        1 << 20,
    )
    .await;
    let watch = world.api.raw(Method::GET, &format!("{MAPS}?watch=1"), &[], "").await;
    world.api.get(&format!("{MAPS}/none")).await;
    let stage = |event: &Value| event["stage"].as_str().unwrap().to_owned();
    let events = world.events(3).await;
    assert_eq!(events.iter().map(stage).collect::<Vec<_>>(), ["RequestReceived", "ResponseStarted", "RequestReceived"]);
    drop(watch);
    let events = world.events(4).await;
    assert_eq!((stage(&events[3]), &events[3]["auditID"]), ("ResponseComplete".into(), &events[0]["auditID"]));
    assert_ne!(events[2]["auditID"], events[0]["auditID"]);
}

#[tokio::test]
async fn every_answer_says_the_id_of_its_event() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n", 1 << 20).await;
    let id = async |given: &str| {
        let answer = world.api.raw(Method::GET, MAPS, &[("audit-id", given)], "").await;
        answer.headers()["audit-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id("flt-mine").await, "flt-mine");
    let (long, made) = ("x".repeat(65), id("").await);
    assert!(made.len() == 36 && id(&long).await.len() == 36, "{made}");
    let events = world.events(3).await;
    assert_eq!((&events[0]["auditID"], &events[1]["auditID"]), (&json!("flt-mine"), &json!(made)));
}

#[tokio::test]
async fn nothing_is_missing_when_the_process_ends() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n", 1 << 20).await;
    let watch = world.api.raw(Method::GET, &format!("{MAPS}?watch=1"), &[], "").await;
    let never = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>();
    let request = Request::post(MAPS).body(http_body_util::StreamBody::new(never)).unwrap();
    let user = substrate_apiserver::auth::User::new("ada", &["system:masters"]);
    let mut work = Box::pin(world.api.server.answer(Some(&user), request));
    assert!(futures::poll!(&mut work).is_pending());
    for name in 0..100 {
        world.api.get(&format!("{MAPS}/{name}")).await;
    }
    let found = async || {
        world.api.server.end_audit().await;
        let found = lines(&world.directory.path().join("audit.log")); // at once
        let last = found.iter().rev().take(2).map(|event| {
            (
                event["verb"].as_str().unwrap().to_owned(),
                event["stage"].as_str().unwrap().to_owned(),
                event["responseStatus"]["code"].as_u64().unwrap(),
            )
        });
        (found.len(), last.collect::<Vec<_>>())
    };
    let last = |verb: &str, code| (verb.to_owned(), "ResponseComplete".to_owned(), code);
    assert_eq!(found().await, (103, vec![last("create", 499), last("watch", 200)]));
    drop((watch, work));
    assert_eq!(found().await.0, 103, "each has one end");
}

/// Falls over everything that is called `fall`.
struct Falls;

#[async_trait::async_trait]
impl admission::Admission for Falls {
    async fn admit(&self, _: &admission::Request<'_>, object: &mut Value) -> Result<(), Status> {
        assert_ne!(object["metadata"]["name"], "fall");
        Ok(())
    }
}

#[tokio::test]
async fn a_request_has_its_last_event_whatever_becomes_of_it() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: Request}]\n", 1 << 20).await;
    world.api.server.add_admission(std::sync::Arc::new(Falls));
    assert_eq!(world.api.post(MAPS, config_map("fall", "v")).await.0, 500);
    let never = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>();
    let request = Request::post(MAPS).header("content-type", "application/json");
    let request = request.body(http_body_util::StreamBody::new(never)).unwrap();
    let user = substrate_apiserver::auth::User::new("ada", &["system:masters"]);
    let mut work = Box::pin(world.api.server.answer(Some(&user), request));
    assert!(futures::poll!(&mut work).is_pending());
    drop(work); // as a connection that ends
    world.api.get(&format!("{MAPS}?timeoutSeconds=x&timeout=never")).await;
    let events = world.events(3).await;
    let seen = |n: usize| (events[n]["stage"].as_str().unwrap(), events[n]["responseStatus"]["code"].as_u64().unwrap());
    assert_eq!(seen(0), ("Panic", 500));
    assert_eq!(events[0]["requestObject"]["metadata"]["name"], "fall");
    assert_eq!((seen(1), &events[1]["user"]["username"]), (("ResponseComplete", 499), &json!("ada")));
    assert_eq!((seen(2), &events[2]["user"]["username"]), (("ResponseComplete", 400), &json!("admin")));
}

fn patched(_: String, request: Value) -> BoxFuture<'static, http::Response<Full<bytes::Bytes>>> {
    let patch = base64::prelude::BASE64_STANDARD.encode(r#"[{"op":"add","path":"/data/b","value":"1"}]"#);
    let response = json!({ "uid": request["uid"], "allowed": true, "auditAnnotations": { "why": "flt" },
        "patchType": "JSONPatch", "patch": patch });
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response });
    async move { http::Response::new(Full::new(review.to_string().into())) }.boxed()
}

#[tokio::test]
async fn what_a_webhook_does_is_noted() {
    let world =
        world("omitStages: [RequestReceived]\nrules: [{level: Metadata, resources: [{group: \"\"}]}]\n", 1 << 20).await;
    let server = support::hooks::Server::start(patched).await;
    let hook = json!({
        "name": "patch.flt.io", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": { "url": format!("https://127.0.0.1:{}/", server.port), "caBundle": server.bundle },
        "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] }] });
    let configuration = json!({ "metadata": { "name": "c" }, "webhooks": [hook] });
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    assert_eq!(world.api.post(path, configuration).await.0, 201);
    assert_eq!(world.api.post(MAPS, config_map("m", "v")).await.1["data"]["b"], "1");
    let notes = world.events(1).await[0]["annotations"].clone();
    assert_eq!(notes["patch.flt.io/why"], "flt");
    let round = notes["mutation.webhook.admission.k8s.io/round_0_index_0"].as_str().unwrap();
    let expected = json!({ "configuration": "c", "webhook": "patch.flt.io", "mutated": true });
    assert_eq!(serde_json::from_str::<Value>(round).unwrap(), expected);
}

#[tokio::test]
async fn that_a_webhook_was_not_heard_is_noted() {
    let world =
        world("omitStages: [RequestReceived]\nrules: [{level: Metadata, resources: [{group: \"\"}]}]\n", 1 << 20).await;
    let rule =
        json!({ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"] });
    for kind in ["mutating", "validating"] {
        let hook = |name: &str| {
            json!({ "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": [rule],
            "failurePolicy": "Ignore", "clientConfig": { "url": "https://127.0.0.1:1/" } })
        };
        let other = json!({ "name": "other.flt.io", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": { "url": "https://127.0.0.1:1/" },
            "rules": [{ "operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["*"], "resources": ["*"] }] });
        let configuration =
            json!({ "metadata": { "name": "c" }, "webhooks": [other, hook("a.flt.io"), hook("b.flt.io")] });
        let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations");
        assert_eq!(world.api.post(&path, configuration).await.0, 201);
    }
    assert_eq!(world.api.post(MAPS, config_map("m", "v")).await.0, 201);
    let notes = world.events(1).await[0]["annotations"].clone();
    // Of those that change something all are counted, of those that judge those that were asked.
    for (key, name) in [
        ("mutation.webhook.admission.k8s.io/round_0_index_1", "a.flt.io"),
        ("mutation.webhook.admission.k8s.io/round_0_index_2", "b.flt.io"),
        ("validating.webhook.admission.k8s.io/round_0_index_0", "a.flt.io"),
        ("validating.webhook.admission.k8s.io/round_0_index_1", "b.flt.io"),
    ] {
        assert_eq!(notes[format!("failed-open.{key}")], name, "{notes}");
    }
}

#[tokio::test]
async fn no_token_is_written_whatever_the_policy_says() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: RequestResponse}]\n", 1 << 20).await;
    let api = &world.api;
    let keys = tempfile::tempdir().unwrap();
    let issuer = substrate_apiserver::auth::account_tokens::Issuer::open(keys.path(), "https://api.example").unwrap();
    api.server.issue_tokens(issuer);
    let asked = api.post("/api/v1/namespaces/default/serviceaccounts/default/token", json!({ "spec": {} })).await.1;
    let token = asked["status"]["token"].as_str().unwrap().to_owned();
    assert!(token.len() > 100);
    let review = api.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({ "spec": { "token": token } })).await.1;
    assert_eq!(review["status"]["authenticated"], true);
    let applied = json!({ "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"token\":\"{token}\"}}") });
    let secret = json!({ "metadata": { "name": "s", "annotations": applied }, "stringData": { "token": token, "password": "flt-open" } });
    assert_eq!(api.post(SECRETS, secret).await.0, 201);
    api.get(SECRETS).await;
    api.patch(&format!("{SECRETS}/s"), "merge-patch", json!({ "stringData": { "token": token } })).await;
    let operations = json!([{ "op": "add", "path": "/stringData", "value": { "token": token } }]);
    api.patch(&format!("{SECRETS}/s"), "json-patch", operations).await;
    let apply =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" }, "stringData": { "token": token } });
    let headers = [("content-type", "application/apply-patch+yaml")];
    api.raw(Method::PATCH, &format!("{SECRETS}/a?fieldManager=flt"), &headers, apply.to_string()).await;
    let events = world.events(7).await;
    let text = json!(events).to_string();
    let kept = base64::prelude::BASE64_STANDARD.encode(&token);
    assert!(!text.contains(&token) && !text.contains(&kept), "{text}");
    // What else is in a Secret is kept at this level, as upstream.
    assert_eq!(events[2]["requestObject"]["stringData"], json!({ "password": "flt-open" }));
    assert_eq!(events[3]["responseObject"]["items"][0]["data"], json!({ "password": "Zmx0LW9wZW4=" }));
    let applied = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" }, "stringData": {} });
    assert_eq!(events[6]["requestObject"], applied);
    assert_eq!(events[0]["responseObject"]["status"]["expirationTimestamp"], asked["status"]["expirationTimestamp"]);
}

#[tokio::test]
async fn what_admission_finds_is_noted() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: Metadata, resources: [{group: \"\", resources: [pods, configmaps]}]}]\n", 1 << 20).await;
    let api = &world.api;
    let levels =
        json!({ "pod-security.kubernetes.io/audit": "restricted", "pod-security.kubernetes.io/enforce": "baseline" });
    api.post("/api/v1/namespaces", json!({ "metadata": { "name": "watched", "labels": levels } })).await;
    assert_eq!(api.post("/api/v1/namespaces/watched/pods", pod("p")).await.0, 201);
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({ "metadata": { "name": "short.flt" }, "spec": {
        "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"] }] },
        "auditAnnotations": [{ "key": "size", "valueExpression": "string(size(object.data))" }, { "key": "none", "valueExpression": "null" }],
        "validations": [{ "expression": "size(object.data) > 1", "message": "too little" }] } });
    assert_eq!(api.post(&format!("{group}/validatingadmissionpolicies"), policy).await.0, 201);
    let binding =
        json!({ "metadata": { "name": "b" }, "spec": { "policyName": "short.flt", "validationActions": ["Audit"] } });
    assert_eq!(api.post(&format!("{group}/validatingadmissionpolicybindings"), binding).await.0, 201);
    assert_eq!(api.post(MAPS, config_map("m", "v")).await.0, 201, "it is audited, not denied");
    let events = world.events(2).await;
    let notes = &events[0]["annotations"];
    assert_eq!(notes["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    let violations = notes["pod-security.kubernetes.io/audit-violations"].as_str().unwrap();
    assert!(
        violations.starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{violations}"
    );
    let notes = &events[1]["annotations"];
    assert_eq!((&notes["short.flt/size"], notes.get("short.flt/none")), (&json!("1"), None));
    let failure: Value =
        serde_json::from_str(notes["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap()).unwrap();
    let expected = json!([{ "message": "too little", "policy": "short.flt", "binding": "b", "expressionIndex": 0, "validationActions": ["Audit"] }]);
    assert_eq!(failure, expected);
}

#[tokio::test]
async fn the_file_is_set_aside_when_it_is_full_and_the_newest_are_kept() {
    let world = world("omitStages: [RequestReceived]\nrules: [{level: Metadata}]\n", 4_000).await;
    for n in 0..60 {
        world.api.get(&format!("{MAPS}/flt-{n}")).await;
    }
    let directory = world.directory.path();
    let (begun, wanted) = (Instant::now(), format!("{MAPS}/flt-59"));
    while lines(&directory.join("audit.log")).last().is_none_or(|event| event["requestURI"] != wanted.as_str()) {
        assert!(begun.elapsed() < Duration::from_secs(30), "30 s without the last event");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "one that is written, two set aside: {files:?}");
    let mut names = Vec::new();
    for file in &files {
        let size = std::fs::metadata(file).unwrap().len();
        assert!(size <= 4_000, "{file:?}: {size} bytes");
        names.extend(lines(file).iter().map(|event| event["objectRef"]["name"].as_str().unwrap().to_owned()));
    }
    let first = 60 - names.len();
    assert!(first > 0);
    assert_eq!(names, (first..60).map(|n| format!("flt-{n}")).collect::<Vec<_>>(), "no gap up to the newest");
}

#[tokio::test]
async fn a_disk_that_takes_nothing_is_counted_and_the_api_goes_on() {
    let (api, directory) = (api().await, tempfile::tempdir().unwrap());
    let path = directory.path().join("full");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let policy =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    api.server.audit(policy, AuditLog { path, bytes_max: 1 << 20, backups_max: 2 }).unwrap();
    for _ in 0..3 {
        assert_eq!(api.get(MAPS).await.0, 200);
    }
    let begun = Instant::now();
    loop {
        let response = api.raw(Method::GET, "/metrics", &[], "").await;
        let text = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let lost = text
            .lines()
            .find_map(|line| line.strip_prefix("apiserver_audit_error_total{plugin=\"log\"} "))
            .unwrap_or("0");
        if lost.parse::<u64>().unwrap() >= 3 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "30 s, and {lost} of 3 lost events are counted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_understood_is_refused() {
    let (api, directory) = (api().await, tempfile::tempdir().unwrap());
    for (policy, why) in [
        ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: []", "rules: needed at least one"),
        ("kind: Policy\napiVersion: audit.k8s.io/v1beta1\nrules: [{level: None}]", "needed audit.k8s.io/v1 Policy"),
        ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: All}]", "All"),
        ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{users: [a]}]", "rules[0].level: needed None, "),
        ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, user: [a]}]", "user"),
        (
            "kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/a]}]",
            "rules cannot apply to both regular resources and non-resource URLs",
        ),
    ] {
        let target = AuditLog { path: directory.path().join("log"), bytes_max: 1 << 20, backups_max: 1 };
        let told = api.server.audit(policy, target).unwrap_err();
        assert!(told.contains(why), "{policy}: {told}");
    }
    assert!(!directory.path().join("log").exists(), "what is refused leaves nothing");
}
