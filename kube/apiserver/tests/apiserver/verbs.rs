//! What the verbs do to objects, in the words and codes of upstream.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{api, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "nginx:1"}]}}}})
}

#[tokio::test]
async fn an_object_lives_and_dies() {
    let api = api().await;
    let (code, made) = api.post(MAPS, config_map("a", "1")).await;
    assert_eq!(code, 201);
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let (code, again) = api.post(MAPS, config_map("a", "1")).await;
    assert_eq!((code, again["reason"].as_str()), (409, Some("AlreadyExists")));
    assert_eq!(again["message"], "configmaps \"a\" already exists");
    let (_, read) = api.get(&format!("{MAPS}/a")).await;
    assert_eq!(read, made);
    let mut stale = made.clone();
    let (code, changed) = api.put(&format!("{MAPS}/a"), config_map("a", "2")).await;
    assert_eq!((code, &changed["data"]["k"]), (200, &json!("2")));
    assert_eq!(changed["metadata"]["uid"], made["metadata"]["uid"]);
    stale["data"]["k"] = "3".into();
    let (code, refused) = api.put(&format!("{MAPS}/a"), stale).await;
    assert_eq!((code, refused["reason"].as_str()), (409, Some("Conflict")));
    assert!(refused["message"].as_str().unwrap().contains("the object has been modified"));
    let (code, deleted) = api.delete(&format!("{MAPS}/a")).await;
    assert_eq!((code, deleted["status"].as_str()), (200, Some("Success")));
    let (code, gone) = api.get(&format!("{MAPS}/a")).await;
    assert_eq!((code, gone["message"].as_str()), (404, Some("configmaps \"a\" not found")));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_upstreams_words() {
    let api = api().await;
    for (sent, path, code, message) in [
        (
            config_map("A", "1"),
            MAPS,
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
        ),
        (json!({"metadata": {}}), MAPS, 422, "metadata.name: Required value: name or generateName is required"),
        (config_map("a", "1"), "/api/v1/namespaces/none/configmaps", 404, "namespaces \"none\" not found"),
        (
            json!({"kind": "Secret", "metadata": {"name": "a"}}),
            MAPS,
            400,
            "the kind in the data (Secret) does not match the expected kind (ConfigMap)",
        ),
        (
            json!({"metadata": {"name": "a"}, "data": {"k": 1}}),
            MAPS,
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap",
        ),
        (
            json!({"metadata": {"name": "a", "namespace": "other"}}),
            MAPS,
            400,
            "the namespace of the provided object does not match",
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"containers": []}}),
            PODS,
            422,
            "Pod \"a\" is invalid: spec.containers: Required value",
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "x", "image": "i", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}]}}),
            PODS,
            422,
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "x", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}),
            PODS,
            422,
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"restartPolicy": "Sometimes", "containers": [{"name": "x", "image": "i"}]}}),
            PODS,
            422,
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"containers": [{"name": "x", "image": "i"}]}}}}),
            DEPLOYMENTS,
            422,
            "`selector` does not match template `labels`",
        ),
    ] {
        let (observed, status) = api.post(path, sent.clone()).await;
        assert_eq!(observed, code, "{sent}: {status}");
        assert!(status["message"].as_str().unwrap().contains(message), "{sent}: {}", status["message"]);
    }
    let (code, _) = api.get("/apis/resource.k8s.io/v1/namespaces/default/resourceclaims").await;
    assert_eq!(code, 404, "what is not built is not there");
}

#[tokio::test]
async fn unknown_fields_are_refused_named_or_dropped_as_asked() {
    let api = api().await;
    let odd = |name: &str| json!({"metadata": {"name": name}, "data": {}, "odd": 1});
    let (code, status) = api.post(&format!("{MAPS}?fieldValidation=Strict"), odd("a")).await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().ends_with("strict decoding error: unknown field \"odd\""));
    let response = api.raw(Method::POST, MAPS, &[], odd("a").to_string()).await;
    assert_eq!(response.headers()["warning"], r#"299 - "unknown field \"odd\"""#);
    let response = api.raw(Method::POST, &format!("{MAPS}?fieldValidation=Ignore"), &[], odd("b").to_string()).await;
    assert_eq!((response.status().as_u16(), response.headers().get("warning")), (201, None));
    assert!(api.get(&format!("{MAPS}/b")).await.1.get("odd").is_none());
}

#[tokio::test]
async fn three_kinds_of_patches() {
    let api = api().await;
    api.post(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    let (code, merged) =
        api.patch(&path, "merge-patch", json!({"spec": {"replicas": 3}, "metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!((code, &merged["spec"]["replicas"], &merged["metadata"]["generation"]), (200, &json!(3), &json!(2)));
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "s:1"}]}}}});
    let (_, merged) = api.patch(&path, "strategic-merge-patch", strategic).await;
    let names: Vec<_> =
        merged["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["side", "main"], "what is patched in stands first, as upstream has it");
    let (_, patched) = api.patch(&path, "json-patch", json!([{"op": "remove", "path": "/metadata/labels/x"}])).await;
    assert_eq!(patched["metadata"].get("labels"), None, "what is empty of metadata is not written");
    let (code, _) = api.patch(&path, "json-patch", json!([{"op": "test", "path": "/spec/replicas", "value": 9}])).await;
    assert_eq!(code, 422);
    // What an object has not is null; what is in none is nowhere. Later operations see what earlier ones did.
    let first = json!([{"op": "test", "path": "/metadata/finalizers", "value": null}, {"op": "add", "path": "/metadata/finalizers", "value": ["x.io/a"]}]);
    assert_eq!(api.patch(&path, "json-patch", first.clone()).await.0, 200);
    let (code, again) = api.patch(&path, "json-patch", first).await;
    assert_eq!((code, again["message"].as_str().unwrap().contains("operation '/0'")), (422, true), "{again}");
    let (code, nowhere) = api.patch(&path, "json-patch", json!([{"op": "remove", "path": "/metadata/finalizers"}, {"op": "test", "path": "/no/where", "value": null}])).await;
    assert_eq!((code, nowhere["message"].as_str().unwrap().contains("operation '/1'")), (422, true), "{nowhere}");
    let (code, _) = api.patch(&path, "merge-patch", json!({"metadata": {"resourceVersion": "1"}})).await;
    assert_eq!(code, 409);
    let (code, refused) = api.patch(&path, "merge-patch", json!({"spec": {"selector": {"matchLabels": {"app": "b"}}, "template": {"metadata": {"labels": {"app": "b"}}}}})).await;
    assert_eq!(code, 422);
    assert!(
        refused["message"].as_str().unwrap().contains("spec.selector: Invalid value")
            && refused["message"].as_str().unwrap().ends_with("field is immutable")
    );
}

#[tokio::test]
async fn status_and_scale_are_written_apart() {
    let api = api().await;
    api.post(DEPLOYMENTS, deployment("web")).await;
    let path = format!("{DEPLOYMENTS}/web");
    api.patch(&path, "merge-patch", json!({"status": {"replicas": 7}})).await;
    let (_, object) = api
        .patch(
            &format!("{path}/status"),
            "merge-patch",
            json!({"status": {"replicas": 1, "readyReplicas": 1}, "spec": {"replicas": 9}}),
        )
        .await;
    assert_eq!(
        (&object["status"], &object["spec"]["replicas"]),
        (&json!({"replicas": 1, "readyReplicas": 1}), &json!(1))
    );
    assert_eq!(object["metadata"]["generation"], 1);
    let (_, scale) = api.get(&format!("{path}/scale")).await;
    assert_eq!((&scale["kind"], &scale["status"]["selector"]), (&json!("Scale"), &json!("app=web")));
    let (code, _) = api.patch(&format!("{path}/scale"), "merge-patch", json!({"spec": {"replicas": 4}})).await;
    assert_eq!(code, 200);
    assert_eq!(api.get(&path).await.1["spec"]["replicas"], 4);
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_away() {
    let api = api().await;
    let mut held = config_map("a", "1");
    held["metadata"]["finalizers"] = json!(["x.io/hold"]);
    api.post(MAPS, held).await;
    let (_, object) = api.delete(&format!("{MAPS}/a")).await;
    assert!(object["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(api.get(&format!("{MAPS}/a")).await.0, 200);
    let (_, object) = api
        .patch(&format!("{MAPS}/a"), "merge-patch", json!({"metadata": {"finalizers": ["x.io/hold", "x.io/more"]}}))
        .await;
    assert_eq!(object["metadata"]["finalizers"], json!(["x.io/hold"]), "none can be added any more");
    api.patch(&format!("{MAPS}/a"), "merge-patch", json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(api.get(&format!("{MAPS}/a")).await.0, 404);
}

#[tokio::test]
async fn pods_are_bound_once_and_deleted_gracefully() {
    let api = api().await;
    let (_, made) = api.post(PODS, pod("a")).await;
    assert_eq!((&made["status"]["phase"], &made["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
    let binding = |node: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(api.post(&format!("{PODS}/a/binding"), binding("n1")).await.0, 201);
    let (code, status) = api.post(&format!("{PODS}/a/binding"), binding("n2")).await;
    assert_eq!(code, 409);
    assert!(status["message"].as_str().unwrap().ends_with("pod a is already assigned to node \"n1\""));
    let (_, deleting) = api.delete(&format!("{PODS}/a")).await;
    assert_eq!(deleting["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(api.get(&format!("{PODS}/a")).await.0, 200, "its machine must stop it first");
    api.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await;
    assert_eq!(api.get(&format!("{PODS}/a")).await.0, 404);
    // A pod that runs nowhere goes at once.
    api.post(PODS, pod("b")).await;
    api.delete(&format!("{PODS}/b")).await;
    assert_eq!(api.get(&format!("{PODS}/b")).await.0, 404);
}

#[tokio::test]
async fn a_binding_changes_three_places_and_nothing_else() {
    let api = api().await;
    api.post(PODS, pod("a")).await;
    let waits = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False"}, {"type": "x.io/flt", "status": "True"}]}});
    let (_, mut before) = api.patch(&format!("{PODS}/a/status"), "merge-patch", waits).await;
    let bind = async |query: &str, uid: &str, node: &str| {
        let binding = json!({"metadata": {"name": "a", "uid": uid}, "target": {"name": node}});
        let (code, status) = api.post(&format!("{PODS}/a/binding{query}"), binding).await;
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    };
    let (code, why) = bind("", "other", "n1").await;
    assert!(code == 409 && why.contains("UID in precondition: other, UID in object meta: "), "{why}");
    let (code, why) = bind("", "", "N 1").await;
    assert!(code == 422 && why.contains("spec.nodeName: Invalid value: \"N 1\""), "{why}");
    assert_eq!(bind("?dryRun=All", "", "n1").await.0, 201);
    assert_eq!(api.get(&format!("{PODS}/a")).await.1, before, "nothing of it was kept");
    assert_eq!(bind("", before["metadata"]["uid"].as_str().unwrap(), "n1").await.0, 201);
    let (_, mut after) = api.get(&format!("{PODS}/a")).await;
    assert_eq!((&after["spec"]["nodeName"], &after["metadata"]["generation"]), (&json!("n1"), &json!(2)));
    let told = after["status"]["conditions"].as_array().unwrap();
    assert_eq!(
        told.iter().map(|c| [&c["type"], &c["status"]]).collect::<Vec<_>>(),
        [["x.io/flt", "True"], ["PodScheduled", "True"]]
    );
    for pod in [&mut before, &mut after] {
        (pod["spec"]["nodeName"], pod["status"]["conditions"]) = (Value::Null, Value::Null);
        (pod["metadata"]["generation"], pod["metadata"]["resourceVersion"]) = (Value::Null, Value::Null);
    }
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_gated_pod_is_not_bound_and_its_gates_only_go() {
    let api = api().await;
    let mut gated = pod("a");
    gated["spec"]["schedulingGates"] = json!([{"name": "x.io/wait"}]);
    api.post(PODS, gated).await;
    let binding = json!({"metadata": {"name": "a"}, "target": {"name": "n1"}});
    assert_eq!(api.post(&format!("{PODS}/a/binding"), binding.clone()).await.0, 409);
    let more = json!([{"op": "add", "path": "/spec/schedulingGates/-", "value": {"name": "x.io/more"}}]);
    assert_eq!(api.patch(&format!("{PODS}/a"), "json-patch", more).await.0, 422);
    let open = json!([{"op": "add", "path": "/spec/nodeSelector", "value": {"a": "b"}}, {"op": "remove", "path": "/spec/schedulingGates"}]);
    assert_eq!(api.patch(&format!("{PODS}/a"), "json-patch", open).await.0, 200);
    assert_eq!(api.post(&format!("{PODS}/a/binding"), binding).await.0, 201);
    let (code, status) = api.patch(&format!("{PODS}/a"), "merge-patch", json!({"spec": {"hostname": "x"}})).await;
    assert_eq!(code, 422);
    assert!(status["message"].as_str().unwrap().contains("pod updates may not change fields other than"));
}

#[tokio::test]
async fn lists_select_and_page() {
    let api = api().await;
    for i in 0..5 {
        let mut object = config_map(&format!("m{i}"), "1");
        object["metadata"]["labels"] = json!({"even": (i % 2 == 0).to_string()});
        api.post(MAPS, object).await;
    }
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&api.get(&format!("{MAPS}?labelSelector=even%3Dtrue")).await.1), ["m0", "m2", "m4"]);
    assert_eq!(names(&api.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm3")).await.1), ["m3"]);
    let (_, first) = api.get(&format!("{MAPS}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["m0".into(), "m1".into()], &json!(3)));
    api.delete(&format!("{MAPS}/m2")).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = api.get(&format!("{MAPS}?limit=10&continue={token}")).await;
    assert_eq!(names(&second), ["m2", "m3", "m4"], "all pages are of one moment");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(api.get(&format!("{MAPS}?continue=nonsense")).await.0, 400);
    assert_eq!(api.get(&format!("{MAPS}?labelSelector=a+b")).await.0, 400);
}

#[tokio::test]
async fn only_a_balancer_says_whether_machines_have_ports_for_it() {
    let api = api().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, kind: &str, ports: Value| json!({"metadata": {"name": name}, "spec": {"type": kind, "allocateLoadBalancerNodePorts": ports, "ports": [{"port": 80}]}});
    for kind in ["ClusterIP", "NodePort"] {
        let (code, refused) = api.post(path, service("refused", kind, json!(false))).await;
        assert_eq!(code, 422, "{refused}");
        let why = "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'";
        assert!(refused["message"].as_str().unwrap().contains(why), "{refused}");
    }
    let (_, usual) = api.post(path, service("usual", "LoadBalancer", Value::Null)).await;
    assert_eq!(usual["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(usual["spec"]["ports"][0]["nodePort"], 30000);
    let (_, without) = api.post(path, service("without", "LoadBalancer", json!(false))).await;
    assert!(without["spec"]["ports"][0].get("nodePort").is_none(), "{without}");
    // What becomes another type gives the field back by itself, and its port with it.
    let other = json!({"spec": {"type": "ClusterIP"}});
    let (code, changed) = api.patch(&format!("{path}/usual"), "merge-patch", other).await;
    assert_eq!(code, 200, "{changed}");
    assert!(changed["spec"].get("allocateLoadBalancerNodePorts").is_none(), "{changed}");
    assert!(changed["spec"]["ports"][0].get("nodePort").is_none(), "{changed}");
    let asked = json!({"spec": {"ports": [{"port": 80, "nodePort": 30005}]}});
    let (code, refused) = api.patch(&format!("{path}/usual"), "merge-patch", asked).await;
    assert_eq!(code, 422, "{refused}");
    let (_, next) = api.post(path, service("next", "NodePort", Value::Null)).await;
    assert_eq!(next["spec"]["ports"][0]["nodePort"], 30000);
    let classed = json!({"metadata": {"name": "classed"}, "spec": {"type": "LoadBalancer", "loadBalancerClass": "a.example/b", "ports": [{"port": 80}]}});
    assert_eq!(api.post(path, classed).await.0, 201);
    let another = json!({"spec": {"loadBalancerClass": "a.example/c"}});
    let (code, refused) = api.patch(&format!("{path}/classed"), "merge-patch", another).await;
    assert_eq!(code, 422);
    assert!(refused["message"].as_str().unwrap().contains("spec.loadBalancerClass"), "{refused}");
    let other = json!({"spec": {"type": "NodePort"}});
    let (code, changed) = api.patch(&format!("{path}/classed"), "merge-patch", other).await;
    assert_eq!((code, changed["spec"].get("loadBalancerClass")), (200, None), "{changed}");
    // Its own port is not one of others'.
    let (code, kept) =
        api.patch(&format!("{path}/next"), "merge-patch", json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((code, &kept["spec"]["ports"][0]["nodePort"]), (200, &json!(30000)), "{kept}");
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let api = api().await;
    let path = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let (_, a) = api.post(path, service("a", json!({"ports": [{"port": 80}]}))).await;
    let (_, b) = api.post(path, service("b", json!({"ports": [{"port": 80}]}))).await;
    assert_ne!(a["spec"]["clusterIP"], b["spec"]["clusterIP"]);
    let (_, changed) = api.put(&format!("{path}/a"), service("a", json!({"ports": [{"port": 81}]}))).await;
    assert_eq!(changed["spec"]["clusterIP"], a["spec"]["clusterIP"]);
    let (code, again) =
        api.post(path, service("a", json!({"clusterIP": a["spec"]["clusterIP"], "ports": [{"port": 80}]}))).await;
    assert_eq!((code, again["reason"].as_str()), (409, Some("AlreadyExists")), "its own address is not another's");
    let (_, headless) = api.post(path, service("h", json!({"clusterIP": "None"}))).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let (code, _) = api
        .patch(&format!("{path}/a"), "merge-patch", json!({"spec": {"clusterIP": "10.96.0.99", "clusterIPs": null}}))
        .await;
    assert_eq!(code, 422);
}

#[tokio::test]
async fn namespaces_wait_for_their_finalizer_and_take_nothing_new() {
    let api = api().await;
    api.post("/api/v1/namespaces", json!({"metadata": {"name": "flt-x"}})).await;
    let (_, going) = api.delete("/api/v1/namespaces/flt-x").await;
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, status) = api.post("/api/v1/namespaces/flt-x/configmaps", config_map("a", "1")).await;
    assert_eq!(code, 403);
    assert_eq!(status["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut done = going.clone();
    done["spec"]["finalizers"] = json!([]);
    api.put("/api/v1/namespaces/flt-x/finalize", done).await;
    assert_eq!(api.get("/api/v1/namespaces/flt-x").await.0, 404);
    assert_eq!(api.delete("/api/v1/namespaces/default").await.0, 403);
}

#[tokio::test]
async fn dry_run_changes_nothing() {
    let api = api().await;
    let (_, before) = api.get(MAPS).await;
    assert_eq!(api.post(&format!("{MAPS}?dryRun=All"), config_map("a", "1")).await.0, 201);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.0, 404);
    assert_eq!(api.get(MAPS).await.1["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    assert_eq!(api.post(&format!("{MAPS}?dryRun=Some"), config_map("a", "1")).await.0, 422);
}

#[tokio::test]
async fn tables_are_for_people() {
    let api = api().await;
    api.post(PODS, pod("a")).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let response = api.raw(Method::GET, PODS, &[("accept", accept)], "").await;
    let table: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(table["kind"], "Table");
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..4],
        [json!("a"), json!("0/1"), json!("Pending"), json!("0")]
    );
    let rows = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
    assert_eq!(api.raw(Method::GET, PODS, &[("accept", rows)], "").await.status(), 406, "rows have no message");
}

#[tokio::test]
async fn nobody_unknown_gets_past_health_and_no_body_is_endless() {
    let api = api().await;
    let ask =
        |path: &str| http::Request::get(path.to_owned()).body(http_body_util::Full::new(bytes::Bytes::new())).unwrap();
    assert_eq!(api.server.answer(None, ask("/livez")).await.status(), 200);
    assert_eq!(api.server.answer(None, ask(MAPS)).await.status(), 401);
    let mut forged = ask(MAPS);
    forged.headers_mut().insert("authorization", "Bearer nonsense".parse().unwrap());
    assert_eq!(api.server.answer(None, forged).await.status(), 401);
    let response = api.raw(Method::POST, MAPS, &[], vec![b' '; 3 * 1024 * 1024 + 1]).await;
    assert_eq!(response.status(), 413);
}

#[tokio::test]
async fn a_runtime_class_admits_and_completes_pods() {
    const CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
    let api = api().await;
    let of_class = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["runtimeClassName"] = class.into();
        pod
    };
    let (code, refused) = api.post(PODS, of_class("a", "strong")).await;
    let told = "pods \"a\" is forbidden: pod rejected: RuntimeClass \"strong\" not found";
    assert_eq!((code, refused["message"].as_str()), (403, Some(told)));
    let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "strong"},
        "handler": "kata", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]}});
    let mut wrong = class.clone();
    wrong["handler"] = "K".into();
    let (code, refused) = api.post(CLASSES, wrong).await;
    assert!(code == 422 && refused["message"].as_str().unwrap().contains("handler: Invalid value: \"K\""), "{refused}");
    let (code, made) = api.post(CLASSES, class).await;
    assert_eq!(code, 201, "{made}");
    let mut other = made.clone();
    other["handler"] = "oci".into();
    let (code, refused) = api.put(&format!("{CLASSES}/strong"), other).await;
    assert!(code == 422 && refused["message"].as_str().unwrap().contains("field is immutable"), "{refused}");

    let (code, admitted) = api.post(PODS, of_class("a", "strong")).await;
    assert_eq!(code, 201, "{admitted}");
    let spec = &admitted["spec"];
    assert_eq!((&spec["overhead"]["memory"], &spec["nodeSelector"]["vm"]), (&json!("64Mi"), &json!("yes")));
    assert!(spec["tolerations"].as_array().unwrap().iter().any(|toleration| toleration["key"] == "vm"), "{spec}");
    let refusal = async |change: &dyn Fn(&mut Value), name: &str, class: Option<&str>| {
        let mut asked = pod(name);
        asked["spec"]["runtimeClassName"] = class.into();
        change(&mut asked["spec"]);
        let (code, refused) = api.post(PODS, asked).await;
        assert_eq!(code, 403, "{refused}");
        refused["message"].as_str().unwrap().to_owned()
    };
    let more = |spec: &mut Value| spec["overhead"] = json!({"memory": "1Mi"});
    assert!(refusal(&more, "b", Some("strong")).await.contains("doesn't match RuntimeClass's defined Overhead"));
    assert!(refusal(&more, "b", None).await.contains("Pod Overhead set without corresponding RuntimeClass"));
    let elsewhere = |spec: &mut Value| spec["nodeSelector"] = json!({"vm": "no"});
    assert!(
        refusal(&elsewhere, "b", Some("strong")).await.contains("conflict: runtimeClass.Scheduling.NodeSelector[vm]")
    );
    let (_, discovered) = api.get("/apis/node.k8s.io/v1").await;
    assert_eq!(discovered["resources"][0]["kind"], "RuntimeClass");
}
