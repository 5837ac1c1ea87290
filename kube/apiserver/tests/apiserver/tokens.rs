//! Tokens of service accounts: what they say, for whom and how long they are good, and when no longer.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use substrate_apiserver::auth::account_tokens::{Issuer, for_secret};

use crate::support;
use crate::support::{Api, pod};

const NS: &str = "/api/v1/namespaces/default";
const TOKEN: &str = "/api/v1/namespaces/default/serviceaccounts/robot/token";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// A server that signs, the directory of its key, and the account `robot`.
async fn start() -> (Api, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let api = support::api().await;
    api.server.issue_tokens(Issuer::open(directory.path(), "https://api.example").unwrap());
    let (code, _) = api.post(&format!("{NS}/serviceaccounts"), json!({ "metadata": { "name": "robot" } })).await;
    assert_eq!(code, 201);
    (api, directory)
}

async fn token(api: &Api, spec: Value) -> String {
    let (code, answer) = api.post(TOKEN, json!({ "spec": spec })).await;
    assert_eq!(code, 201, "{answer}");
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// Who a token is, asked with nothing but the token.
async fn whoami(api: &Api, token: &str) -> (u16, Value) {
    let me = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let request = Request::post(me)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes::Bytes::from("{}")))
        .unwrap();
    let response = api.server.answer(None, request).await;
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice::<Value>(&body).unwrap()["status"].clone())
}

fn part(token: &str, n: usize) -> Value {
    serde_json::from_slice(&BASE64URL.decode(token.split('.').nth(n).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_whose_it_is_and_others_can_check_it() {
    let (api, directory) = start().await;
    let token = token(&api, json!({ "expirationSeconds": 700 })).await;
    let claims = part(&token, 1);
    assert_eq!(claims["sub"], "system:serviceaccount:default:robot");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 700);
    assert_eq!(claims["aud"], json!([claims["iss"]]));
    let (code, status) = whoami(&api, &token).await;
    assert_eq!(code, 201, "{status}");
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(status["userInfo"], json!({ "username": "system:serviceaccount:default:robot", "groups": groups }));

    // With the published key, and nothing of this server.
    let robot = api.asked_by("system:serviceaccount:default:robot", &["system:serviceaccounts"]);
    let (_, keys) = robot.get("/openid/v1/jwks").await;
    let key = &keys["keys"][0];
    assert_eq!((&key["kid"], &key["alg"]), (&part(&token, 0)["kid"], &json!("ES256")));
    let coordinate = |name: &str| BASE64URL.decode(key[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &BASE64URL.decode(signature).unwrap()).unwrap();
    let (_, said) = robot.get("/.well-known/openid-configuration").await;
    assert_eq!((&said["issuer"], &said["jwks_uri"]), (&claims["iss"], &json!("https://api.example/openid/v1/jwks")));
    assert_eq!(api.asked_by("ada", &[]).get("/openid/v1/jwks").await.0, 403, "for accounts");

    // The key outlives the process, and is for its owner alone.
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(directory.path().join("sa.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = Issuer::open(directory.path(), "https://api.example").unwrap();
    assert_eq!(again.keys(), keys);
}

#[tokio::test]
async fn a_token_is_good_for_its_audience_alone() {
    let (api, _directory) = start().await;
    let token = token(&api, json!({ "audiences": ["vault"] })).await;
    assert_eq!(whoami(&api, &token).await.0, 401, "not for this server");
    let review = async |spec: Value| api.post(REVIEWS, json!({ "spec": spec })).await.1["status"].clone();
    let status = review(json!({ "token": token, "audiences": ["vault", "other"] })).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])), "{status}");
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    let status = review(json!({ "token": token })).await;
    assert_eq!(status["error"], "token audiences is invalid for the target audiences", "{status}");
}

#[tokio::test]
async fn a_token_is_good_while_its_account_and_its_pod_are_there() {
    let (api, _directory) = start().await;
    let mut robots = pod("p");
    robots["spec"]["serviceAccountName"] = "robot".into();
    let (_, made) = api.post(&format!("{NS}/pods"), robots.clone()).await;
    let to = |name: &str, uid: &Value| json!({ "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid } });
    let bound = token(&api, to("p", &made["metadata"]["uid"])).await;
    assert_eq!(part(&bound, 1)["kubernetes.io"]["pod"], json!({ "name": "p", "uid": made["metadata"]["uid"] }));
    let free = token(&api, json!({})).await;
    assert_eq!((whoami(&api, &bound).await.0, whoami(&api, &free).await.0), (201, 201));

    let refused = async |spec: Value| {
        let (code, status) = api.post(TOKEN, json!({ "spec": spec })).await;
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(refused(to("none", &json!(""))).await, (404, "pods \"none\" not found".into()));
    let (code, why) = refused(to("p", &json!("other"))).await;
    assert!(code == 409 && why.contains("(other) does not match the UID in record"), "{code} {why}");
    api.post(&format!("{NS}/pods"), pod("strange")).await;
    let (code, why) = refused(to("strange", &json!(""))).await;
    let words = "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.";
    assert_eq!((code, why.as_str()), (400, words));
    let (code, why) =
        refused(json!({ "boundObjectRef": { "kind": "Service", "apiVersion": "v1", "name": "s" } })).await;
    assert_eq!((code, why.as_str()), (400, "cannot bind token to object of type v1, Kind=Service"));
    for (seconds, words) in [(599, "less than 10 minutes"), ((1_i64 << 32) + 1, "larger than 2^32 seconds")] {
        let (code, why) = refused(json!({ "expirationSeconds": seconds })).await;
        assert!(code == 422 && why.contains(&format!("may not specify a duration {words}")), "{code} {why}");
    }

    // Another pod of that name is another pod.
    assert_eq!(api.delete(&format!("{NS}/pods/p?gracePeriodSeconds=0")).await.0, 200);
    assert_eq!(whoami(&api, &bound).await.0, 401);
    api.post(&format!("{NS}/pods"), robots).await;
    assert_eq!(whoami(&api, &bound).await.0, 401);
    assert_eq!(whoami(&api, &free).await.0, 201);
    api.delete(&format!("{NS}/serviceaccounts/robot")).await;
    assert_eq!(whoami(&api, &free).await.0, 401);
    api.post(&format!("{NS}/serviceaccounts"), json!({ "metadata": { "name": "robot" } })).await;
    assert_eq!(whoami(&api, &free).await.0, 401, "another account of that name is another account");
}

#[tokio::test]
async fn no_other_token_is_taken() {
    let (api, _directory) = start().await;
    let good = token(&api, json!({})).await;
    let parts: Vec<&str> = good.split('.').collect();
    let mut claims = part(&good, 1);
    claims["sub"] = "system:serviceaccount:kube-system:root".into();
    let forged = BASE64URL.encode(claims.to_string());
    let none = BASE64URL.encode(json!({ "alg": "none", "kid": part(&good, 0)["kid"] }).to_string());
    let other = tempfile::tempdir().unwrap();
    let (elsewhere, _kept) = (support::api().await, &other);
    elsewhere.server.issue_tokens(Issuer::open(other.path(), "https://api.example").unwrap());
    elsewhere.post(&format!("{NS}/serviceaccounts"), json!({ "metadata": { "name": "robot" } })).await;
    let strangers = token(&elsewhere, json!({})).await;
    let mut bent = good.clone().into_bytes();
    let last = bent.len() - 10;
    bent[last] = if bent[last] == b'A' { b'B' } else { b'A' };
    for (what, wrong) in [
        ("claims that were changed", format!("{}.{forged}.{}", parts[0], parts[2])),
        ("no signature", format!("{none}.{forged}.")),
        ("another signature", String::from_utf8(bent).unwrap()),
        ("another server's", strangers),
        ("nothing", "..".into()),
        ("much", format!("{good}{}", "A".repeat(20_000))),
    ] {
        assert_eq!(whoami(&api, &wrong).await.0, 401, "{what}");
    }
    assert_eq!(whoami(&api, &good).await.0, 201);
    // Who may not ask for one gets none.
    let (code, _) = api.asked_by("ada", &[]).post(TOKEN, json!({})).await;
    assert_eq!(code, 403);
    let response = api.raw(Method::GET, TOKEN, &[], "").await;
    assert_eq!(response.status(), 405);
}

#[tokio::test]
async fn a_request_of_another_type_is_refused_and_not_taken_for_less() {
    let (api, _directory) = start().await;
    for (spec, what) in [
        (json!("x"), "string into Go struct field TokenRequest.spec of type v1.TokenRequestSpec"),
        (json!([]), "array into Go struct field TokenRequest.spec of type v1.TokenRequestSpec"),
        (json!({ "audiences": [5] }), "number into Go struct field TokenRequestSpec.spec.audiences of type string"),
        (
            json!({ "audiences": "vault" }),
            "string into Go struct field TokenRequestSpec.spec.audiences of type []string",
        ),
        (
            json!({ "expirationSeconds": "600" }),
            "string into Go struct field TokenRequestSpec.spec.expirationSeconds of type int64",
        ),
        (
            json!({ "boundObjectRef": "p" }),
            "string into Go struct field TokenRequestSpec.spec.boundObjectRef of type v1.BoundObjectReference",
        ),
    ] {
        let (code, status) = api.post(TOKEN, json!({ "spec": spec })).await;
        let words = format!(
            "TokenRequest in version \"v1\" cannot be handled as a TokenRequest: json: cannot unmarshal {what}"
        );
        assert_eq!((code, status["message"].as_str().unwrap_or_default()), (400, words.as_str()), "{spec}");
    }
    assert_eq!(api.post(TOKEN, json!({})).await.0, 201, "no spec at all is the usual one");
}

#[tokio::test]
async fn a_pod_runs_as_an_account_and_gets_its_token() {
    let (api, _directory) = start().await;
    let made = async |name: &str, spec: Value| {
        let mut sent = pod(name);
        for (field, value) in spec.as_object().unwrap() {
            sent["spec"][field] = value.clone();
        }
        api.post(&format!("{NS}/pods"), sent).await
    };
    let mount = |pod: &Value| pod["spec"]["containers"][0]["volumeMounts"].clone();
    let (_, usual) = made("usual", json!({})).await;
    let spec = &usual["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    assert!(spec.get("initContainers").is_none(), "nothing else comes of it: {spec}");
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(mount(&usual), json!([{ "name": name, "readOnly": true, "mountPath": path }]));
    let sources = volume["projected"]["sources"].as_array().unwrap();
    assert_eq!(sources[0], json!({ "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } }));
    assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");

    let (_, without) = made("without", json!({ "automountServiceAccountToken": false })).await;
    assert_eq!((mount(&without), &without["spec"]["volumes"]), (Value::Null, &Value::Null));
    let quiet = json!({ "metadata": { "name": "quiet" }, "automountServiceAccountToken": false, "imagePullSecrets": [{ "name": "s" }] });
    api.post(&format!("{NS}/serviceaccounts"), quiet).await;
    let (_, quiet) = made("quiet", json!({ "serviceAccountName": "quiet" })).await;
    assert_eq!((mount(&quiet), &quiet["spec"]["imagePullSecrets"]), (Value::Null, &json!([{ "name": "s" }])));
    let (_, asked) =
        made("asked", json!({ "serviceAccountName": "quiet", "automountServiceAccountToken": true })).await;
    assert_eq!(mount(&asked)[0]["mountPath"], path, "the pod's word counts before its account's");
    let own = json!({ "containers": [{ "name": "c", "image": "i", "volumeMounts": [{ "name": "mine", "mountPath": path }] }],
                      "volumes": [{ "name": "mine", "emptyDir": {} }] });
    let (code, own) = made("own", own).await;
    assert_eq!((code, own["spec"]["volumes"].as_array().unwrap().len()), (201, 1), "what has its own there keeps it");

    let (code, status) = made("nobody", json!({ "serviceAccountName": "nobody" })).await;
    let words = "pods \"nobody\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found";
    assert_eq!((code, status["message"].as_str().unwrap()), (403, words));
    // A namespace brings its account: its first pod need not wait for a controller.
    api.post("/api/v1/namespaces", json!({ "metadata": { "name": "new" } })).await;
    assert_eq!(api.post("/api/v1/namespaces/new/pods", pod("first")).await.0, 201);
}

#[tokio::test]
async fn a_token_in_a_secret_is_good_while_it_is_kept_there() {
    let (api, _directory) = start().await;
    let uid = api.get(&format!("{NS}/serviceaccounts/robot")).await.1["metadata"]["uid"].as_str().unwrap().to_owned();
    let mint = || for_secret(&api.server, "default", ("robot", &uid), "kept").unwrap();
    let token = mint();
    assert!(part(&token, 1)["exp"].is_null(), "it has no end");
    assert_eq!(whoami(&api, &token).await.0, 401, "no Secret holds it");
    let secret = |name: &str, token: &str| {
        let annotations = json!({ "kubernetes.io/service-account.name": "robot" });
        json!({ "metadata": { "name": name, "annotations": annotations }, "type": "kubernetes.io/service-account-token",
                "stringData": { "token": token } })
    };
    let secrets = format!("{NS}/secrets");
    assert_eq!(api.post(&secrets, secret("other", &token)).await.0, 201);
    assert_eq!(whoami(&api, &token).await.0, 401, "the one that holds it is another");
    assert_eq!(api.post(&secrets, secret("kept", &token)).await.0, 201);
    let (code, status) = whoami(&api, &token).await;
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    let robot = json!({ "username": "system:serviceaccount:default:robot", "groups": groups });
    assert_eq!((code, &status["userInfo"]), (201, &robot));
    // Who looks for Secrets that nobody needs sees that this one was used, and when.
    let today = json!(jiff::Timestamp::now().to_string()[..10]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while api.get(&format!("{secrets}/kept")).await.1["metadata"]["labels"][LAST_USED] != today {
        assert!(Instant::now() < deadline, "the use of the token is not noted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let labels = &api.get(&format!("{secrets}/other")).await.1["metadata"]["labels"];
    assert!(labels.is_null(), "the token of the other one is nobody's: {labels}");
    let review = async |audience: &str| {
        let spec = json!({ "token": token, "audiences": [audience] });
        api.post(REVIEWS, json!({ "spec": spec })).await.1["status"]["authenticated"] == json!(true)
    };
    assert!(!review("x.example").await, "for this server alone");
    assert!(review("https://kubernetes.default.svc.cluster.local").await);

    // Another token takes its place, the Secret goes, the account is another one.
    let path = format!("{secrets}/kept");
    api.patch(&path, "merge-patch", json!({ "stringData": { "token": "x" } })).await;
    assert_eq!(whoami(&api, &token).await.0, 401, "replaced");
    api.patch(&path, "merge-patch", json!({ "stringData": { "token": token } })).await;
    assert_eq!(whoami(&api, &token).await.0, 201);
    api.delete(&format!("{NS}/serviceaccounts/robot")).await;
    api.post(&format!("{NS}/serviceaccounts"), json!({ "metadata": { "name": "robot" } })).await;
    assert_eq!(whoami(&api, &token).await.0, 401, "of an account of that name, and not of this one");
    let (code, refused) =
        api.post(&secrets, json!({ "metadata": { "name": "n" }, "type": "kubernetes.io/service-account-token" })).await;
    let words = "Secret \"n\" is invalid: metadata.annotations[kubernetes.io/service-account.name]: Required value";
    assert_eq!((code, &refused["message"]), (422, &json!(words)));
}

#[tokio::test]
async fn a_token_ends_with_its_secret() {
    let (api, _directory) = start().await;
    let uid = api.get(&format!("{NS}/serviceaccounts/robot")).await.1["metadata"]["uid"].as_str().unwrap().to_owned();
    let token = for_secret(&api.server, "default", ("robot", &uid), "kept").unwrap();
    let made = json!({ "metadata": { "name": "kept" }, "stringData": { "token": token } });
    assert_eq!(api.post(&format!("{NS}/secrets"), made).await.0, 201);
    assert_eq!(whoami(&api, &token).await.0, 201);
    api.delete(&format!("{NS}/secrets/kept")).await;
    assert_eq!(whoami(&api, &token).await.0, 401);
}
