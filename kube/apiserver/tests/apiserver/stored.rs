//! Kinds beside the workloads: what they fill in and refuse, their two faces, priorities, evictions and decisions.

use serde_json::{Value, json};

use crate::support::{Api, api, pod};

const CORE: &str = "/api/v1/namespaces/default";

async fn causes(api: &Api, path: &str, sent: Value) -> Vec<String> {
    let (code, status) = api.post(path, sent.clone()).await;
    assert_eq!(code, 422, "{sent}: {status}");
    let causes = status["details"]["causes"].as_array().unwrap().clone();
    causes.iter().map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap())).collect()
}

async fn made(api: &Api, path: &str, sent: Value) -> Value {
    let (code, made) = api.post(path, sent.clone()).await;
    assert_eq!(code, 201, "{sent}: {made}");
    made
}

#[tokio::test]
async fn each_is_refused_in_upstreams_words() {
    let api = api().await;
    let (networking, rbac, storage) =
        ("/apis/networking.k8s.io/v1", "/apis/rbac.authorization.k8s.io/v1", "/apis/storage.k8s.io/v1");
    let named = |more: Value| {
        let mut object = json!({ "metadata": { "name": "a" } });
        for (key, value) in more.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    for (path, sent, expected) in [
        (
            "/api/v1/persistentvolumes".to_owned(),
            json!({}),
            vec![
                "spec.accessModes: Required value",
                "spec.capacity: Required value",
                "spec.capacity: Unsupported value: null: supported values: \"storage\"",
                "spec: Required value: must specify a volume type",
            ],
        ),
        (
            format!("{CORE}/persistentvolumeclaims"),
            json!({ "spec": { "accessModes": ["Never"] } }),
            vec![
                "spec.accessModes: Unsupported value: \"Never\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                "spec.resources[storage]: Required value",
            ],
        ),
        (
            format!("{CORE}/resourcequotas"),
            json!({ "spec": { "hard": { "bananas": "1" } } }),
            vec![
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource type or fully qualified",
                "spec.hard[bananas]: Invalid value: \"bananas\": must be a standard resource for quota",
            ],
        ),
        (
            format!("{CORE}/limitranges"),
            json!({ "spec": { "limits": [{ "type": "Container", "min": { "cpu": "2" }, "max": { "cpu": "1" } }] } }),
            vec![
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than default request value 1",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ],
        ),
        (
            format!("{networking}/namespaces/default/networkpolicies"),
            json!({ "spec": { "ingress": [{ "from": [{}, { "ipBlock": { "cidr": "x" } }] }] } }),
            vec![
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        ),
        (
            format!("{networking}/namespaces/default/ingresses"),
            json!({ "spec": { "rules": [{ "host": "1.2.3.4", "http": { "paths": [{ "path": "x", "pathType": "Exact", "backend": {} }] } }] } }),
            vec![
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
                "spec.rules[0].http.paths[0].backend: Invalid value: \"\": resource or service backend is required",
            ],
        ),
        (
            format!("{rbac}/clusterrolebindings"),
            json!({ "roleRef": { "kind": "Role", "name": "x" }, "subjects": [{ "kind": "ServiceAccount", "name": "y" }] }),
            vec![
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
            ],
        ),
        (
            format!("{rbac}/namespaces/default/roles"),
            json!({ "rules": [{}] }),
            vec![
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        ),
        (format!("{storage}/storageclasses"), json!({}), vec!["provisioner: Required value"]),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets".to_owned(),
            json!({ "spec": { "minAvailable": 1, "maxUnavailable": 1 } }),
            vec![
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            ],
        ),
        (
            "/apis/scheduling.k8s.io/v1/priorityclasses".to_owned(),
            json!({ "value": 1_000_000_001 }),
            vec!["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
        (
            "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers".to_owned(),
            json!({ "spec": { "minReplicas": 5, "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "x" } } }),
            vec!["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
        ),
    ] {
        let observed = causes(&api, &path, named(sent.clone())).await;
        let (mut observed, mut expected): (Vec<String>, Vec<String>) =
            (observed, expected.into_iter().map(str::to_owned).collect());
        if sent["spec"]["minAvailable"].is_i64() {
            // Names of fields in a shown value come in any order.
            observed.iter_mut().chain(&mut expected).for_each(|text| {
                *text = text
                    .replace("{\"minAvailable\":1,\"maxUnavailable\":1}", "{\"maxUnavailable\":1,\"minAvailable\":1}")
            });
        }
        assert_eq!(observed, expected, "{path} {sent}");
    }
}

#[tokio::test]
async fn one_event_has_two_faces() {
    let api = api().await;
    let (older, newer) = (format!("{CORE}/events"), "/apis/events.k8s.io/v1/namespaces/default/events");
    let sent = json!({
        "metadata": { "name": "a" }, "reason": "Started", "message": "it runs", "type": "Normal", "count": 3,
        "involvedObject": { "kind": "Pod", "name": "p", "namespace": "default" }, "source": { "component": "kubelet" },
    });
    made(&api, &older, sent).await;
    let (_, read) = api.get(&format!("{newer}/a")).await;
    assert_eq!((&read["apiVersion"], &read["kind"]), (&json!("events.k8s.io/v1"), &json!("Event")));
    assert_eq!(
        (&read["note"], &read["regarding"]["name"], &read["deprecatedCount"]),
        (&json!("it runs"), &json!("p"), &json!(3))
    );
    assert!(read["message"].is_null() && read["involvedObject"].is_null());
    let written = json!({
        "metadata": { "name": "b" }, "reason": "Moved", "note": "elsewhere", "type": "Warning", "action": "Binding",
        "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "x.io/y", "reportingInstance": "z",
        "regarding": { "kind": "Pod", "name": "q", "namespace": "default" },
    });
    made(&api, newer, written).await;
    let (_, list) = api.get(&format!("{older}?fieldSelector=involvedObject.name%3Dq")).await;
    assert_eq!((&list["items"][0]["message"], list["items"].as_array().unwrap().len()), (&json!("elsewhere"), 1));
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("v1")));
    let (_, list) = api.get(newer).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
    let why = causes(&api, newer, json!({ "metadata": { "name": "c" } })).await;
    assert_eq!(
        why[..2],
        ["involvedObject.namespace: Invalid value: \"\": does not match event.namespace", "eventTime: Required value"]
    );
}

#[tokio::test]
async fn one_autoscaler_has_two_versions() {
    let api = api().await;
    let path = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({ "kind": "Deployment", "name": "web", "apiVersion": "apps/v1" });
    let spec = json!({ "scaleTargetRef": target, "maxReplicas": 5, "targetCPUUtilizationPercentage": 60 });
    made(&api, &path("v1"), json!({ "metadata": { "name": "web" }, "spec": spec })).await;
    let (_, newer) = api.get(&format!("{}/web", path("v2"))).await;
    let cpu = json!({ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 60 } } });
    assert_eq!((&newer["spec"]["metrics"], &newer["apiVersion"]), (&json!([cpu]), &json!("autoscaling/v2")));
    let pods = json!({ "type": "Pods", "pods": { "metric": { "name": "qps" }, "target": { "type": "AverageValue", "averageValue": "10" } } });
    api.patch(&format!("{}/web", path("v2")), "merge-patch", json!({ "spec": { "metrics": [pods, cpu] } })).await;
    let (_, older) = api.get(&format!("{}/web", path("v1"))).await;
    assert_eq!(older["spec"]["targetCPUUtilizationPercentage"], 60);
    assert!(older["spec"].get("metrics").is_none());
    // What the older version cannot say survives a write through it.
    let (code, _) =
        api.patch(&format!("{}/web", path("v1")), "merge-patch", json!({ "spec": { "maxReplicas": 9 } })).await;
    let (_, newer) = api.get(&format!("{}/web", path("v2"))).await;
    assert_eq!((code, &newer["spec"]["maxReplicas"], &newer["spec"]["metrics"]), (200, &json!(9), &json!([cpu, pods])));
    assert!(newer["metadata"]["annotations"].is_null());
}

#[tokio::test]
async fn pods_get_the_priority_of_their_class() {
    let api = api().await;
    let (classes, pods) = ("/apis/scheduling.k8s.io/v1/priorityclasses", format!("{CORE}/pods"));
    let (code, system) = api.get(&format!("{classes}/system-node-critical")).await;
    assert_eq!((code, &system["value"]), (200, &json!(2_000_001_000)));
    assert_eq!(made(&api, &pods, pod("plain")).await["spec"]["priority"], 0);
    let of = |name: &str, class: &str| {
        let mut pod = pod(name);
        pod["spec"]["priorityClassName"] = class.into();
        pod
    };
    made(&api, classes, json!({ "metadata": { "name": "high" }, "value": 1000, "preemptionPolicy": "Never" })).await;
    let high = made(&api, &pods, of("high", "high")).await;
    assert_eq!((&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]), (&json!(1000), &json!("Never")));
    let (code, status) = api.post(&pods, of("x", "none")).await;
    assert_eq!(
        (code, status["message"].as_str()),
        (403, Some("pods \"x\" is forbidden: no PriorityClass with name none was found"))
    );
    let mut own = pod("own");
    own["spec"]["priority"] = json!(7);
    let (code, status) = api.post(&pods, own).await;
    assert_eq!(code, 403);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("the integer value of priority (7) must not be provided in pod spec")
    );
    made(&api, classes, json!({ "metadata": { "name": "usual" }, "value": 5, "globalDefault": true })).await;
    let usual = made(&api, &pods, pod("usual")).await;
    assert_eq!((&usual["spec"]["priority"], &usual["spec"]["priorityClassName"]), (&json!(5), &json!("usual")));
    let (code, status) =
        api.post(classes, json!({ "metadata": { "name": "more" }, "value": 6, "globalDefault": true })).await;
    assert_eq!(code, 403);
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .ends_with("PriorityClass usual is already marked as default. Only one default can exist")
    );
    let why = causes(&api, classes, json!({ "metadata": { "name": "system-mine" }, "value": 1 })).await;
    assert!(why[0].contains("system-mine is not a known system priority class"), "{why:?}");
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let api = api().await;
    let (pods, budgets) = (format!("{CORE}/pods"), "/apis/policy/v1/namespaces/default/poddisruptionbudgets");
    let eviction = |name: &str| json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name } });
    let running = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
    for name in ["a", "b", "free"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = if name == "free" { json!({}) } else { json!({ "app": "web" }) };
        made(&api, &pods, pod).await;
        api.patch(&format!("{pods}/{name}/status"), "merge-patch", running.clone()).await;
    }
    let spec = json!({ "minAvailable": 1, "selector": { "matchLabels": { "app": "web" } } });
    made(&api, budgets, json!({ "metadata": { "name": "web" }, "spec": spec })).await;
    let (code, status) = api.post(&format!("{pods}/a/eviction"), eviction("a")).await;
    assert_eq!(
        (code, &status["reason"], &status["details"]["retryAfterSeconds"]),
        (429, &json!("TooManyRequests"), &json!(10))
    );
    assert_eq!(
        status["message"],
        "Cannot evict pod as its disruption budget is written by others; try again.".replace(
            "its disruption budget is written by others; try again.",
            "it would violate the pod's disruption budget."
        )
    );
    assert_eq!(
        status["details"]["causes"][0]["message"],
        "The disruption budget web is still being processed by the server."
    );
    let counted = json!({ "status": { "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2 } });
    api.patch(&format!("{budgets}/web/status"), "merge-patch", counted).await;
    let (code, _) = api.post(&format!("{pods}/a/eviction?dryRun=All"), eviction("a")).await;
    assert_eq!((code, api.get(&format!("{pods}/a")).await.0), (201, 200), "a dry run evicts nobody");
    let (code, _) = api.post(&format!("{pods}/a/eviction"), eviction("a")).await;
    assert_eq!((code, api.get(&format!("{pods}/a")).await.0), (201, 404));
    let (_, budget) = api.get(&format!("{budgets}/web")).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["a"].is_string());
    let (code, status) = api.post(&format!("{pods}/b/eviction"), eviction("b")).await;
    assert_eq!(code, 429);
    assert_eq!(
        status["details"]["causes"][0]["message"],
        "The disruption budget web needs 1 healthy pods and has 2 currently"
    );
    assert_eq!(api.get(&format!("{pods}/b")).await.0, 200);
    let (code, _) = api.post(&format!("{pods}/free/eviction"), eviction("free")).await;
    assert_eq!((code, api.get(&format!("{pods}/free")).await.0), (201, 404), "no budget, no question");
}

#[tokio::test]
async fn containers_are_added_to_a_pod_that_runs() {
    let api = api().await;
    let path = format!("{CORE}/pods/a/ephemeralcontainers");
    made(&api, &format!("{CORE}/pods"), pod("a")).await;
    let add = |image: &str| json!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": image }] } });
    let (code, changed) = api.patch(&path, "strategic-merge-patch", add("busybox:1")).await;
    assert_eq!((code, &changed["spec"]["ephemeralContainers"][0]["imagePullPolicy"]), (200, &json!("IfNotPresent")));
    let (code, _) = api.patch(&path, "strategic-merge-patch", add("busybox:2")).await;
    assert_eq!(code, 422, "what was added stays as it is");
    let (code, _) = api.patch(&format!("{CORE}/pods/a"), "strategic-merge-patch", add("busybox:3")).await;
    assert_eq!(code, 422, "and comes by its subresource only");
}

#[tokio::test]
async fn a_foreign_api_is_not_served_and_says_so() {
    let api = api().await;
    let spec = json!({
        "group": "custom.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
        "service": { "name": "metrics", "namespace": "kube-system" },
    });
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    let service =
        made(&api, path, json!({ "metadata": { "name": "v1beta1.custom.metrics.k8s.io" }, "spec": spec })).await;
    let condition = &service["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("NotBuilt")));
    assert_eq!(api.get("/apis/custom.metrics.k8s.io/v1beta1/pods").await.0, 404);
}
