//! The real kubectl against a server over TLS: what it sends in protobuf is what it means.

use serde_json::{Value, json};

use crate::support;
use crate::support::kubectl::{Kubectl, start};

/// Runs `kubectl ARGS --dry-run=client` and then `kubectl ARGS`; the stored object has everything that the first
/// printed.
async fn create(kubectl: &Kubectl, what: &str, args: &str) -> Value {
    let (flags, command) = args.split_once(" -- ").unwrap_or((args, ""));
    let command = if command.is_empty() { String::new() } else { format!("-- {command}") };
    let meant = kubectl.json(&format!("{flags} --dry-run=client -o json {command}")).await;
    kubectl.ok(args).await;
    let stored = kubectl.json(&format!("get {what} -o json")).await;
    let mut missing = Vec::new();
    within(&meant, &stored, "", &mut missing);
    assert!(missing.is_empty(), "{args}: {missing:?}\nstored: {stored:#}");
    stored
}

/// Paths of what `meant` says and `stored` does not. Null, empty and the status say nothing.
fn within(meant: &Value, stored: &Value, path: &str, missing: &mut Vec<String>) {
    match (meant, stored) {
        (Value::Object(map), _) => map
            .iter()
            .filter(|(key, _)| !path.is_empty() || *key != "status")
            .for_each(|(key, value)| within(value, &stored[key], &format!("{path}.{key}"), missing)),
        (Value::Array(list), _) => {
            list.iter().enumerate().for_each(|(i, value)| within(value, &stored[i], &format!("{path}[{i}]"), missing));
        }
        (Value::Null, _) => {}
        (meant, stored) if meant == stored => {}
        _ => missing.push(format!("{path}: {meant}, but {stored}")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_kubectl_makes_are_what_it_means() {
    let kubectl = start().await;
    create(&kubectl, "namespace flt-shop", "create namespace flt-shop").await;
    create(&kubectl, "configmap conf", "create configmap conf --from-literal=a=1 --from-literal=b=").await;
    let secret = create(&kubectl, "secret key", "create secret generic key --from-literal=token=s3cret").await;
    assert_eq!(secret["type"], "Opaque");
    let args = "create deployment web --image=nginx:1 --replicas=3 --port=80";
    let deployment = create(&kubectl, "deployment web", args).await;
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["spec"]["strategy"]["type"]),
        (&json!(3), &json!("RollingUpdate"))
    );
    let none = create(&kubectl, "deployment none", "create deployment none --image=nginx:1 --replicas=0").await;
    assert_eq!(none["spec"]["replicas"], 0);
    let service = create(&kubectl, "service web", "create service clusterip web --tcp=80:http").await;
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "http");
    create(&kubectl, "serviceaccount robot", "create serviceaccount robot").await;
    let pod = "run once --image=busybox:1 --restart=Never --env=A=b --labels=x=y --port=8080 --command -- sleep 5";
    create(&kubectl, "pod once", pod).await;
    let run = kubectl.json("run dry --image=nginx:1 --dry-run=server -o json").await;
    assert_eq!((&run["kind"], &run["spec"]["containers"][0]["image"]), (&json!("Pod"), &json!("nginx:1")));
    assert!(run["metadata"]["uid"].is_string(), "the server must have answered: {run}");
    let refused = kubectl.run("get pod dry").await;
    assert!(refused.1.contains("NotFound"), "{refused:?}");
    kubectl.ok("expose deployment web --name=front --port=8080 --target-port=80").await;
    let front = kubectl.json("get service front -o json").await;
    assert_eq!(front["spec"]["selector"], json!({ "app": "web" }));
    assert_eq!(
        (&front["spec"]["ports"][0]["port"], &front["spec"]["ports"][0]["targetPort"]),
        (&json!(8080), &json!(80))
    );
    kubectl.ok("scale deployment web --replicas=1").await;
    assert_eq!(kubectl.json("get deployment web -o json").await["spec"]["replicas"], 1);
    kubectl.ok("delete deployment/web service/web service/front configmap/conf --wait=false").await;
    assert!(kubectl.run("get deployment web").await.1.contains("NotFound"));
    // What is wrong is said as for JSON.
    let refused = kubectl.run("create configmap Conf --from-literal=a=1").await;
    assert!(refused.1.contains("lowercase RFC 1123 subdomain"), "{refused:?}");
    assert!(kubectl.run("create namespace flt-shop").await.1.contains("AlreadyExists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_on_the_server_shows_conflicts_and_differences() {
    let kubectl = start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, replicas: u32, image: &str| {
        let path = directory.path().join(name).display().to_string();
        let text = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: flt-web}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: flt}}}}\n  template:\n    metadata: {{labels: {{app: flt}}}}\n    spec:\n      \
             containers: [{{name: web, image: {image:?}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    };
    let one = file("one.yaml", 1, "nginx:1");
    let applied = kubectl.ok(&format!("apply --server-side -f {one}")).await;
    assert_eq!(applied, "deployment.apps/flt-web serverside-applied\n");
    let hidden = kubectl.ok("get deployment flt-web -o yaml").await;
    assert!(!hidden.contains("managedFields"), "kubectl leaves them out: {hidden}");
    let shown = kubectl.json("get deployment flt-web -o json --show-managed-fields").await;
    let manager = &shown["metadata"]["managedFields"][0];
    assert_eq!((&manager["manager"], &manager["operation"]), (&json!("kubectl"), &json!("Apply")), "{shown}");
    // Somebody else scales; what kubectl then wants is a conflict that says what to do.
    kubectl.ok("scale deployment flt-web --replicas=3").await;
    let two = file("two.yaml", 2, "nginx:2");
    let (_, refused) = kubectl.run(&format!("apply --server-side -f {two}")).await;
    let words = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas";
    assert!(refused.contains(words) && refused.contains("--force-conflicts"), "{refused}");
    // The difference that it would make; nothing is kept of it.
    let (difference, error) = kubectl.run(&format!("diff --server-side --force-conflicts -f {two}")).await;
    for line in ["-  replicas: 3", "+  replicas: 2", "-      - image: nginx:1", "+      - image: nginx:2"] {
        assert!(difference.contains(line), "{line} is not in\n{difference}\n{error}");
    }
    assert!(!difference.contains("status"), "{difference}");
    assert_eq!(kubectl.json("get deployment flt-web -o json").await["spec"]["replicas"], 3);
    kubectl.ok(&format!("apply --server-side --force-conflicts -f {two}")).await;
    assert_eq!(kubectl.json("get deployment flt-web -o json").await["spec"]["replicas"], 2);
    assert_eq!(kubectl.ok(&format!("diff --server-side -f {two}")).await, "");
    assert_eq!(kubectl.ok(&format!("diff -f {two}")).await, "", "and from the client's side");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_takes_over_what_it_applied_of_old() {
    let kubectl = start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map.yaml").display().to_string();
    let map = |data: &str| {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: flt-map}}\ndata: {{{data}}}\n");
        std::fs::write(&path, text).unwrap();
    };
    map("x: '1', y: '1'");
    kubectl.ok(&format!("apply -f {path}")).await;
    let old = kubectl.json("get configmap flt-map -o json --show-managed-fields").await;
    assert_eq!(old["metadata"]["managedFields"][0]["manager"], "kubectl-client-side-apply");
    map("x: '2'");
    kubectl.ok(&format!("apply --server-side -f {path}")).await;
    let moved = kubectl.json("get configmap flt-map -o json --show-managed-fields").await;
    let managers = moved["metadata"]["managedFields"].as_array().unwrap();
    let names: Vec<&str> = managers.iter().map(|entry| entry["manager"].as_str().unwrap()).collect();
    // kubectl unites both of its managers, applies again what is no longer said away, and keeps its annotation under a third.
    assert_eq!(names, ["kubectl", "kubectl-last-applied"], "{moved}");
    assert_eq!(moved["data"], json!({"x": "2"}));
    // And back again.
    map("x: '3'");
    kubectl.ok(&format!("apply -f {path}")).await;
    assert_eq!(kubectl.json("get configmap flt-map -o json").await["data"], json!({"x": "3"}));
}

#[tokio::test]
async fn protobuf_is_read_and_written_and_kinds_without_it_are_refused() {
    let api = support::api().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    // "k8s\0", typeMeta{v1, ConfigMap}, raw{metadata{name: "a"}, data{"k": "v"}}
    let map = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0d\x0a\x03\x0a\x01a\x12\x06\x0a\x01k\x12\x01v".as_slice();
    let protobuf = "application/vnd.kubernetes.protobuf";
    let wide = format!("{protobuf},application/json");
    let post = async |path: &str, accept: &str, body: &'static [u8]| {
        let headers = [("content-type", protobuf), ("accept", accept)];
        let response = api.raw(http::Method::POST, path, &headers, body).await;
        let kind = response.headers()[http::header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind)
    };
    assert_eq!(post(maps, &wide, map).await, (201, protobuf.into()));
    assert_eq!(post(maps, protobuf, map).await.0, 409);
    assert_eq!(api.get(&format!("{maps}/a")).await.1["data"]["k"], "v");
    assert_eq!(post(maps, &wide, &map[..20]).await.0, 400);
    assert_eq!(post(maps, &wide, b"k8s\0\x0a\x05\x0a\x01v\x12\x00").await.0, 415, "a kind without protobuf");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_asks_what_it_may() {
    let kubectl = start().await;
    kubectl.ok("create role reader --verb=get,list --resource=pods,deployments.apps").await;
    kubectl.ok("create rolebinding reads --role=reader --user=ada").await;
    assert_eq!(kubectl.ok("auth can-i list pods --as ada").await.trim(), "yes");
    assert_eq!(kubectl.run("auth can-i delete pods --as ada").await.0.trim(), "no");
    assert_eq!(kubectl.run("auth can-i list pods --as ada -n kube-system").await.0.trim(), "no");
    assert_eq!(kubectl.ok("auth can-i * *").await.trim(), "yes");
    let list = kubectl.ok("auth can-i --list --as ada").await;
    let verbs = |resource: &str| list.lines().find(|line| line.starts_with(resource)).unwrap_or_default().to_owned();
    assert!(verbs("deployments.apps").contains("[get list]"), "{list}");
    assert!(verbs("selfsubjectaccessreviews").contains("[create]"), "{list}");
    let me = kubectl.json("auth whoami --as ada --as-group team -o json").await;
    assert_eq!(me["status"]["userInfo"], json!({ "username": "ada", "groups": ["team", "system:authenticated"] }));
    assert_eq!(
        kubectl.run("get secrets --as ada").await.1.trim(),
        "Error from server (Forbidden): secrets is forbidden: User \"ada\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(kubectl.run("get pods --as ada").await.1.trim(), "No resources found in default namespace.");
}
