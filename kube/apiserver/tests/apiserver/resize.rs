//! `pods/resize`: what may be changed of a pod that runs, and what is refused in which words.

use serde_json::{Value, json};

use crate::support::{Api, api};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A pod with the containers a and b, of which each has twice the CPU for a limit; it runs, and its node says what it has.
async fn running(api: &Api) {
    let amounts =
        json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "cpu": "200m", "memory": "64Mi" } });
    let container = |name: &str| json!({ "name": name, "image": "i:1", "resources": amounts });
    let mut first = json!({ "name": "i", "image": "i:1", "resources": amounts });
    first["resources"]["limits"]["cpu"] = "100m".into();
    let spec = json!({ "initContainers": [first], "containers": [container("a"), container("b")], "nodeName": "n" });
    assert_eq!(api.post(PODS, json!({ "metadata": { "name": "p" }, "spec": spec })).await.0, 201);
    tell(api, json!({ "resources": amounts })).await;
}

/// The node says that `a` runs, and this of it.
async fn tell(api: &Api, more: Value) {
    let mut told = json!({ "name": "a", "image": "i:1", "imageID": "", "ready": true, "restartCount": 0, "state": { "running": {} } });
    told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let status = json!({ "status": { "phase": "Running", "containerStatuses": [told] } });
    let (code, answer) = api.patch(&format!("{PODS}/p/status"), "merge-patch", status).await;
    assert_eq!(code, 200, "{answer}");
}

/// `a` shall have this.
fn a(resources: Value) -> Value {
    json!({ "spec": { "containers": [{ "name": "a", "resources": resources }] } })
}

async fn resize(api: &Api, patch: Value) -> (u16, Value) {
    api.patch(&format!("{PODS}/p/resize"), "strategic-merge-patch", patch).await
}

#[tokio::test]
async fn cpu_and_memory_of_a_running_pod_are_changed_and_nothing_else() {
    let api = api().await;
    running(&api).await;
    let before = api.get(&format!("{PODS}/p")).await.1;
    let mut patch = a(json!({ "requests": { "cpu": "150m" }, "limits": { "memory": "128Mi" } }));
    patch["spec"]["containers"][0]["image"] = "other:1".into();
    patch["metadata"] = json!({ "labels": { "x": "y" } });
    let (code, pod) = resize(&api, patch).await;
    assert_eq!(code, 200, "{pod}");
    let container = &pod["spec"]["containers"][0];
    let wanted =
        json!({ "requests": { "cpu": "150m", "memory": "64Mi" }, "limits": { "cpu": "200m", "memory": "128Mi" } });
    assert_eq!((&container["resources"], &container["image"]), (&wanted, &json!("i:1")));
    assert_eq!(pod["spec"]["containers"][1], before["spec"]["containers"][1]);
    assert!(pod["metadata"]["labels"].is_null(), "{pod}");
    let generation = |pod: &Value| pod["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&pod), generation(&before) + 1);
    // The object itself stays closed, and a PUT does as a patch.
    assert_eq!(
        api.patch(&format!("{PODS}/p"), "strategic-merge-patch", a(json!({ "limits": { "cpu": "1" } }))).await.0,
        422
    );
    let mut again = before;
    again["metadata"]["resourceVersion"] = Value::Null;
    let (code, pod) = api.put(&format!("{PODS}/p/resize"), again).await;
    assert_eq!((code, &pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]), (200, &json!("100m")));
    assert_eq!(api.get(&format!("{PODS}/p/resize")).await.1["kind"], "Pod");
}

#[tokio::test]
async fn what_may_not_be_resized_is_refused_in_words() {
    let api = api().await;
    running(&api).await;
    let full = json!({ "cpu": "200m", "memory": "64Mi" });
    let all = |resources: Value| {
        let container = |name: &str| json!({ "name": name, "resources": resources });
        json!({ "spec": { "containers": [container("a"), container("b")] } })
    };
    let cases = [
        (a(json!({ "requests": { "cpu": "500m" } })), "must be less than or equal to cpu limit of 200m"),
        (a(json!({ "requests": { "memory": "x" } })), "quantities must match the regular expression"),
        (
            a(json!({ "limits": { "cpu": null } })),
            "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (
            a(json!({ "limits": { "ephemeral-storage": "1Gi" } })),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "a", "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }] }] } }),
            "spec: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            json!({ "spec": { "initContainers": [{ "name": "i", "resources": { "limits": { "cpu": "1" } } }] } }),
            "spec.initContainers[0].resources: Forbidden: resources for non-sidecar init containers are immutable",
        ),
        (
            json!({ "spec": { "containers": [{ "name": "c", "image": "i:1" }] } }),
            "spec.containers: Forbidden: containers may not be added or removed on resize",
        ),
        (
            all(json!({ "requests": full, "limits": full })),
            "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing",
        ),
    ];
    for (patch, words) in cases {
        let (code, answer) = resize(&api, patch).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(code == 422 && message.contains(words), "{words}: {answer}");
    }
    let mut turned = api.get(&format!("{PODS}/p")).await.1;
    turned["spec"]["containers"].as_array_mut().unwrap().reverse();
    let (_, answer) = api.put(&format!("{PODS}/p/resize"), turned).await;
    let words = "[spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize, spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize]";
    assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");

    tell(&api, json!({ "resources": null })).await;
    let (_, answer) = resize(&api, a(json!({ "limits": { "cpu": "1" } }))).await;
    assert!(answer["message"].as_str().unwrap().contains("Pod running on node without support for resize"), "{answer}");
}

#[tokio::test]
async fn limits_and_quotas_of_the_namespace_hold_for_a_resize() {
    let api = api().await;
    running(&api).await;
    let most = json!([{ "type": "Container", "max": { "cpu": "1" } }]);
    api.post(
        "/api/v1/namespaces/default/limitranges",
        json!({ "metadata": { "name": "l" }, "spec": { "limits": most } }),
    )
    .await;
    let (code, answer) = resize(&api, a(json!({ "limits": { "cpu": "2" } }))).await;
    assert!(
        code == 403
            && answer["message"].as_str().unwrap().contains("maximum cpu usage per Container is 1, but limit is 2"),
        "{answer}"
    );
    let hard = json!({ "requests.cpu": "250m" });
    let quota = "/api/v1/namespaces/default/resourcequotas";
    api.post(quota, json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } })).await;
    let status = json!({ "status": { "hard": hard, "used": { "requests.cpu": "200m" } } });
    assert_eq!(api.patch(&format!("{quota}/q/status"), "merge-patch", status).await.0, 200);
    let (code, answer) = resize(&api, a(json!({ "requests": { "cpu": "200m" } }))).await;
    assert!(
        code == 403 && answer["message"].as_str().unwrap().contains("exceeded quota: q, requested: requests.cpu=100m"),
        "{answer}"
    );
    assert_eq!(resize(&api, a(json!({ "requests": { "cpu": "150m" } }))).await.0, 200);
    let used = &api.get(&format!("{quota}/q")).await.1["status"]["used"]["requests.cpu"];
    assert_eq!(used, "250m");
}

#[tokio::test]
async fn a_resize_policy_names_what_it_is_about() {
    let api = api().await;
    let policy = |resource: &str, restart: &str| json!({ "resourceName": resource, "restartPolicy": restart });
    let cases = [
        ("Always", json!([policy("cpu", "RestartContainer"), policy("memory", "NotRequired")]), ""),
        (
            "Never",
            json!([policy("cpu", "RestartContainer")]),
            "Invalid value: \"RestartContainer\": must be 'NotRequired' when `restartPolicy` is 'Never'",
        ),
        (
            "Always",
            json!([policy("disk", "NotRequired")]),
            "Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
        ),
        (
            "Always",
            json!([policy("cpu", "Odd")]),
            "Unsupported value: \"Odd\": supported values: \"NotRequired\", \"RestartContainer\"",
        ),
        (
            "Always",
            json!([policy("cpu", "NotRequired"), policy("cpu", "NotRequired")]),
            "spec.containers[0].resizePolicy[1]: Duplicate value: \"cpu\"",
        ),
    ];
    for (restart, policies, words) in cases {
        let spec = json!({ "restartPolicy": restart, "containers": [{ "name": "a", "image": "i:1", "resizePolicy": policies }] });
        let (code, answer) =
            api.post(&format!("{PODS}?dryRun=All"), json!({ "metadata": { "name": "p" }, "spec": spec })).await;
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(if words.is_empty() { code == 201 } else { code == 422 && message.contains(words) }, "{answer}");
    }
}
