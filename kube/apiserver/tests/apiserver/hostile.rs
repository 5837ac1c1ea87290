//! What strangers send: bytes that are almost right, in every place that reads some. Whatever it is, it is answered, it is the sender's
//! fault, and the server serves on.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{Api, api, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// For each kind of request.
const ROUNDS: usize = 400;

/// Numbers that look random and are the same each time.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }

    /// Text with some bytes changed, taken out, or doubled; still text.
    fn bend(&mut self, text: &str) -> String {
        const PIECES: &[&str] = &[
            "\"", "{", "}", "[", "]", ",", ":", "null", "-1", "1e999", "\\u0000", "é", "'", "(", ")", "~1", "/", "%",
            "*", "&a", "*a",
        ];
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..1 + self.next(4) {
            let at = self.next(chars.len());
            match self.next(4) {
                0 if !chars.is_empty() => drop(chars.remove(at)),
                1 if !chars.is_empty() => chars[at] = char::from(32 + self.next(95) as u8),
                2 => chars.splice(at..at, PIECES[self.next(PIECES.len())].chars()).for_each(drop),
                _ => {
                    let end = (at + self.next(40)).min(chars.len());
                    let part = chars[at..end].to_vec();
                    chars.splice(at..at, part).for_each(drop);
                }
            }
        }
        chars.into_iter().collect()
    }
}

/// Sends it; the code and the Status, which is the sender's fault or no fault at all.
async fn sent(
    api: &Api,
    method: Method,
    path: &str,
    content_type: &str,
    body: impl Into<bytes::Bytes>,
) -> (u16, Value) {
    let body = body.into();
    let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let response = api.raw(method.clone(), path, &[("content-type", content_type)], body).await;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    assert!(code < 500, "{method} {path} {shown}: {code} {answer}");
    if code >= 400 {
        assert_eq!(answer["kind"], "Status", "{method} {path} {shown}: {code} {answer}");
        assert!(!answer["message"].as_str().unwrap_or_default().is_empty(), "{answer}");
    }
    (code, answer)
}

/// In a query, everything that is no letter is written as its number.
fn quoted(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[tokio::test]
async fn objects_and_patches_that_are_almost_right() {
    let api = api().await;
    api.post(PODS, pod("p")).await;
    let mut draw = Draw(1);
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: b}}\nspec:\n  containers:\n  - {name: main, image: busybox}\n";
    let patches = [
        (
            "application/json-patch+json",
            r#"[{"op":"replace","path":"/metadata/labels/app","value":"x"},{"op":"test","path":"/spec/containers/0/name","value":"main"},{"op":"move","from":"/metadata/labels","path":"/metadata/annotations"}]"#,
        ),
        (
            "application/merge-patch+json",
            r#"{"metadata":{"labels":{"a":null,"b":"c"}},"spec":{"containers":[{"name":"main","image":"i"}]}}"#,
        ),
        (
            "application/strategic-merge-patch+json",
            r#"{"spec":{"containers":[{"name":"main","image":"i"},{"$patch":"delete","name":"other"}],"$setElementOrder/containers":[{"name":"main"}],"$retainKeys":["containers"]}}"#,
        ),
        ("application/apply-patch+yaml", yaml),
    ];
    for _ in 0..ROUNDS {
        sent(&api, Method::POST, PODS, "application/json", draw.bend(&pod("q").to_string())).await;
        sent(&api, Method::POST, PODS, "application/yaml", draw.bend(yaml)).await;
        let (kind, patch) = patches[draw.next(patches.len())];
        let path = format!("{PODS}/p?fieldManager=flt");
        sent(&api, Method::PATCH, &path, kind, draw.bend(patch)).await;
        let bytes: Vec<u8> = (0..draw.next(200)).map(|_| draw.next(256) as u8).collect();
        let types = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/html"];
        sent(&api, Method::POST, PODS, types[draw.next(types.len())], bytes).await;
    }
    assert_eq!(api.get(&format!("{PODS}/p")).await.0, 200, "it serves on");
}

#[tokio::test]
async fn queries_that_are_almost_right() {
    let api = api().await;
    for n in 0..4 {
        api.post(PODS, pod(&format!("p{n}"))).await;
    }
    let (_, list) = api.get(&format!("{PODS}?limit=1")).await;
    let token = list["metadata"]["continue"].as_str().unwrap().to_owned();
    let mut draw = Draw(2);
    for n in 0..ROUNDS {
        for (name, value) in [
            ("labelSelector", "app in (a,b),!c,d notin (e),f=g,h!=i"),
            ("fieldSelector", "metadata.name=p0,status.phase!=Running"),
            ("continue", token.as_str()),
            ("resourceVersion", "12"),
            ("resourceVersionMatch", "NotOlderThan"),
            ("limit", "2"),
            ("fieldValidation", "Strict"),
        ] {
            if name == "resourceVersion" && n >= 6 {
                continue; // each that is not reached yet is waited for, some seconds
            }
            let path = format!("{PODS}?limit=1&{name}={}", quoted(&draw.bend(value)));
            let response = api.raw(Method::GET, &path, &[], "").await;
            let code = response.status().as_u16();
            // A version that is never reached is nobody's fault.
            assert!(code < 500 || (code == 504 && name == "resourceVersion"), "{path}: {code}");
        }
        let path = draw.bend("/api/v1/namespaces/default/pods/p0/status");
        let path: String =
            path.chars().map(|c| if c.is_ascii_graphic() && !"\"<>\\^`{|}#?".contains(c) { c } else { 'x' }).collect();
        if path.starts_with('/') {
            let response = api.raw(Method::GET, &path, &[], "").await;
            assert!(response.status().as_u16() < 500, "{path}: {}", response.status());
        }
    }
}

#[tokio::test]
async fn rules_and_schemas_that_are_almost_right() {
    let api = api().await;
    let rule = "self.replicas <= 3 && self.names.all(n, n.matches('^[a-z]+$')) && (has(self.note) ? size(self.note) < 9 : true)";
    let definition = |rule: &str| {
        let spec = json!({ "type": "object", "x-kubernetes-validations": [{ "rule": rule }], "properties": {
            "replicas": { "type": "integer" }, "note": { "type": "string" },
            "names": { "type": "array", "maxItems": 9, "items": { "type": "string", "maxLength": 9 } } } });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "things.flt.example" },
            "spec": { "group": "flt.example", "scope": "Namespaced", "names": { "plural": "things", "kind": "Thing" },
                      "versions": [{ "name": "v1", "served": true, "storage": true,
                        "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": spec } } } }] } })
    };
    let mut draw = Draw(3);
    for n in 0..ROUNDS {
        let bent = match n % 2 {
            0 => definition(&draw.bend(rule)).to_string(),
            _ => draw.bend(&definition(rule).to_string()),
        };
        let (code, _) = sent(&api, Method::POST, CRDS, "application/json", bent).await;
        if code == 201 {
            let thing = json!({ "apiVersion": "flt.example/v1", "kind": "Thing", "metadata": { "name": "t" },
                                "spec": { "replicas": 2, "names": ["a", "b"], "note": "n" } });
            let path = "/apis/flt.example/v1/namespaces/default/things";
            sent(&api, Method::POST, path, "application/json", draw.bend(&thing.to_string())).await;
            sent(&api, Method::DELETE, &format!("{CRDS}/things.flt.example"), "application/json", "").await;
            sent(&api, Method::DELETE, &format!("{path}/t"), "application/json", "").await;
        }
    }
}

/// In a release nothing unwinds: what panics here ends the node there.
#[tokio::test]
async fn no_part_of_any_kind_is_taken_for_what_it_is_not() {
    let api = api().await;
    let keys = tempfile::tempdir().unwrap();
    let issuer = substrate_apiserver::auth::account_tokens::Issuer::open(keys.path(), "https://api.example").unwrap();
    api.server.issue_tokens(issuer);
    let wrong =
        [json!("x"), json!([]), json!(5), Value::Null, json!(true), json!([null, "x", 5, [], {}]), json!({ "a": 5 })];
    let (_, core) = api.get("/api/v1").await;
    let mut groups = vec![("/api/v1".to_owned(), core)];
    let (_, list) = api.get("/apis").await;
    for group in list["groups"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            let path = format!("/apis/{}", version["groupVersion"].as_str().unwrap());
            let (_, resources) = api.get(&path).await;
            groups.push((path, resources));
        }
    }
    let mut asked = 0;
    for (path, resources) in &groups {
        for resource in resources["resources"].as_array().unwrap() {
            let name = resource["name"].as_str().unwrap();
            let namespace = if resource["namespaced"] == true { "/namespaces/default" } else { "" };
            let verbs: Vec<&str> =
                resource["verbs"].as_array().unwrap().iter().map(|verb| verb.as_str().unwrap()).collect();
            let (plural, sub) = name.split_once('/').map_or((name, None), |(plural, sub)| (plural, Some(sub)));
            let object = json!({ "metadata": { "name": "default" }, "spec": {}, "status": {}, "data": {} });
            for field in
                ["metadata", "spec", "status", "data", "target", "deleteOptions", "rules", "webhooks", "subjects"]
            {
                for value in &wrong {
                    let mut bent = object.clone();
                    bent[field] = value.clone();
                    for inner in
                        ["labels", "template", "containers", "ports", "selector", "conditions", "replicas", "names"]
                    {
                        if value.is_null() && ["metadata", "spec", "status"].contains(&field) {
                            bent[field][inner] = wrong[asked % wrong.len()].clone();
                        }
                        let whole = bent.to_string();
                        let one = match sub {
                            Some(sub) => format!("{path}{namespace}/{plural}/default/{sub}"),
                            None => format!("{path}{namespace}/{plural}/default"),
                        };
                        let all = if sub.is_some() { one.clone() } else { format!("{path}{namespace}/{plural}") };
                        if verbs.contains(&"create")
                            && !["exec", "attach", "portforward"].contains(&sub.unwrap_or_default())
                        {
                            sent(&api, Method::POST, &all, "application/json", whole.clone()).await;
                        }
                        if verbs.contains(&"update") {
                            sent(&api, Method::PUT, &one, "application/json", whole.clone()).await;
                        }
                        if verbs.contains(&"patch") {
                            sent(&api, Method::PATCH, &one, "application/merge-patch+json", whole.clone()).await;
                            let path = format!("{one}?fieldManager=flt&force=true");
                            sent(&api, Method::PATCH, &path, "application/apply-patch+yaml", whole).await;
                        }
                        asked += 1;
                        if !value.is_null() {
                            break;
                        }
                    }
                }
            }
        }
    }
    assert!(asked > 3_000, "{asked}");
}

#[tokio::test]
async fn what_is_too_large_too_deep_or_no_text_is_refused_with_a_reason() {
    let api = api().await;
    let large = json!({ "metadata": { "name": "m" }, "data": { "k": "x".repeat(4 << 20) } }).to_string();
    let (code, status) =
        sent(&api, Method::POST, "/api/v1/namespaces/default/configmaps", "application/json", large).await;
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    for (kind, body) in [
        ("application/json", deep("[", "]")),
        ("application/json", deep("{\"a\":", "}")),
        ("application/yaml", deep("[", "]")),
        // Each line doubles what the one before stands for.
        (
            "application/yaml",
            (0..60).map(|n| format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1)).skip(1).collect::<String>(),
        ),
        ("application/merge-patch+json", deep("{\"metadata\":", "}")),
        ("application/apply-patch+yaml", deep("{a: ", "}")),
    ] {
        let method = if kind.contains("patch") { Method::PATCH } else { Method::POST };
        let path = if kind.contains("patch") { format!("{PODS}/p?fieldManager=flt") } else { PODS.to_owned() };
        let (code, _) = sent(&api, method, &path, kind, body).await;
        assert!(code == 400 || code == 404 || code == 413 || code == 422, "{kind}: {code}");
    }
    let selector = format!("{PODS}?labelSelector={}", "a,".repeat(30_000));
    assert!(api.raw(Method::GET, &selector, &[], "").await.status().as_u16() < 500);
    assert_eq!(api.get(PODS).await.0, 200, "it serves on");
}
