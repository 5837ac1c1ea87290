//! Plug-ins of admission that look at a namespace: limits, quotas, security, classes.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Api, api};

const CORE: &str = "/api/v1/namespaces/default";

async fn made(api: &Api, path: &str, sent: Value) -> Value {
    let (code, made) = api.post(path, sent.clone()).await;
    assert_eq!(code, 201, "{sent}: {made}");
    made
}

async fn refused(api: &Api, path: &str, sent: Value) -> String {
    let (code, status) = api.post(path, sent.clone()).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{sent}: {status}");
    status["message"].as_str().unwrap().to_owned()
}

fn pod(name: &str, resources: Value) -> Value {
    let containers = json!([{ "name": "c", "image": "i", "resources": resources }]);
    json!({ "metadata": { "name": name }, "spec": { "containers": containers } })
}

#[tokio::test]
async fn limit_ranges_fill_in_and_refuse() {
    let api = api().await;
    let limits = json!([
        { "type": "Container", "default": { "cpu": "1", "memory": "1Gi" }, "defaultRequest": { "cpu": "500m" },
          "min": { "cpu": "100m" }, "max": { "cpu": "2" }, "maxLimitRequestRatio": { "cpu": "4" } },
        { "type": "Pod", "max": { "memory": "2Gi" } },
        { "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "2Gi" } }]);
    made(&api, &format!("{CORE}/limitranges"), json!({ "metadata": { "name": "r" }, "spec": { "limits": limits } }))
        .await;
    let pods = format!("{CORE}/pods");
    let pod_a = made(&api, &pods, pod("a", json!({}))).await;
    let resources =
        json!({ "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "cpu": "1", "memory": "1Gi" } });
    assert_eq!(pod_a["spec"]["containers"][0]["resources"], resources);
    assert_eq!(
        pod_a["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu, memory limit for container c"
    );
    for (resources, expected) in [
        (
            json!({ "requests": { "cpu": "50m" } }),
            "[minimum cpu usage per Container is 100m, but request is 50m, cpu max limit to request ratio per Container is 4, but provided ratio is 20.000000]",
        ),
        (json!({ "limits": { "cpu": "3" } }), "maximum cpu usage per Container is 2, but limit is 3"),
        (json!({ "limits": { "memory": "3Gi" } }), "maximum memory usage per Pod is 2Gi, but limit is 3Gi"),
    ] {
        assert_eq!(refused(&api, &pods, pod("b", resources)).await, format!("pods \"b\" is forbidden: {expected}"));
    }
    let claim = |storage: &str| json!({ "metadata": { "name": "v" }, "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": storage } } } });
    let claims = format!("{CORE}/persistentvolumeclaims");
    assert_eq!(
        refused(&api, &claims, claim("3Gi")).await,
        "persistentvolumeclaims \"v\" is forbidden: maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"
    );
    made(&api, &claims, claim("1Gi")).await;
}

#[tokio::test]
async fn a_claim_gets_the_newest_default_class() {
    let api = api().await;
    let claim = |name: &str, more: Value| {
        let mut spec = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "metadata": { "name": name }, "spec": spec })
    };
    let claims = format!("{CORE}/persistentvolumeclaims");
    assert_eq!(made(&api, &claims, claim("before", json!({}))).await["spec"]["storageClassName"], Value::Null);
    for (name, default) in [("b", "true"), ("a", "true"), ("z", "false")] {
        let annotations = json!({ "storageclass.kubernetes.io/is-default-class": default });
        let class = json!({ "metadata": { "name": name, "annotations": annotations }, "provisioner": "example.com/p" });
        made(&api, "/apis/storage.k8s.io/v1/storageclasses", class).await;
    }
    // Made in one second or not, `a` is not older than `b`, and the first by name.
    assert_eq!(made(&api, &claims, claim("c", json!({}))).await["spec"]["storageClassName"], "a");
    assert_eq!(
        made(&api, &claims, claim("none", json!({ "storageClassName": "" }))).await["spec"]["storageClassName"],
        ""
    );
}

/// As the controller that counts does it.
async fn counted(api: &Api, quota: &Value, used: Value) {
    let name = quota["metadata"]["name"].as_str().unwrap();
    let mut quota = quota.clone();
    quota["status"] = json!({ "hard": quota["spec"]["hard"], "used": used });
    quota["metadata"]["resourceVersion"] = Value::Null;
    let (code, answer) = api.put(&format!("{CORE}/resourcequotas/{name}/status"), quota).await;
    assert_eq!(code, 200, "{answer}");
}

async fn used(api: &Api, name: &str) -> Value {
    api.get(&format!("{CORE}/resourcequotas/{name}")).await.1["status"]["used"].clone()
}

#[tokio::test]
async fn nobody_gets_more_than_a_quota_has_left() {
    let api = api().await;
    let (pods, quotas) = (format!("{CORE}/pods"), format!("{CORE}/resourcequotas"));
    let hard = json!({ "pods": "2", "requests.cpu": "1", "count/configmaps": "1", "services.nodeports": "1" });
    let quota = made(&api, &quotas, json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } })).await;
    let cpu = |amount: &str| json!({ "requests": { "cpu": amount } });
    assert_eq!(
        refused(&api, &pods, pod("a", cpu("1"))).await,
        "pods \"a\" is forbidden: status unknown for quota: q, resources: pods,requests.cpu"
    );
    counted(
        &api,
        &quota,
        json!({ "pods": "0", "requests.cpu": "0", "count/configmaps": "0", "services.nodeports": "0" }),
    )
    .await;
    assert_eq!(
        refused(&api, &pods, pod("a", json!({}))).await,
        "pods \"a\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    let (code, _) = api.post(&format!("{pods}?dryRun=All"), pod("a", cpu("600m"))).await;
    assert_eq!((code, used(&api, "q").await["pods"].clone()), (201, json!("0")), "a dry run charges nothing");
    made(&api, &pods, pod("a", cpu("600m"))).await;
    assert_eq!(used(&api, "q").await["requests.cpu"], "600m");
    assert_eq!(
        refused(&api, &pods, pod("b", cpu("500m"))).await,
        "pods \"b\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    );
    let (code, _) = api.post(&pods, json!({ "metadata": { "name": "c" }, "spec": { "containers": [] } })).await;
    assert_eq!(code, 422);
    assert_eq!(used(&api, "q").await["pods"], "1", "what is not valid is not charged");
    made(&api, &format!("{CORE}/configmaps"), json!({ "metadata": { "name": "m" } })).await;
    assert_eq!(
        refused(&api, &format!("{CORE}/configmaps"), json!({ "metadata": { "name": "n" } })).await,
        "configmaps \"n\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1"
    );
    // An update adds what it makes more.
    let service = json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 1, "name": "a" }, { "port": 2, "name": "b" }] } });
    made(&api, &format!("{CORE}/services"), service).await;
    let patch = json!({ "spec": { "type": "NodePort" } });
    let (code, status) = api.patch(&format!("{CORE}/services/s"), "merge-patch", patch).await;
    assert_eq!(code, 403, "{status}");
    assert_eq!(
        status["message"],
        "services \"s\" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1"
    );
}

#[tokio::test]
async fn many_at_once_get_exactly_what_is_left() {
    let api = api().await;
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": { "count/configmaps": "5" } } });
    let quota = made(&api, &format!("{CORE}/resourcequotas"), quota).await;
    counted(&api, &quota, json!({ "count/configmaps": "0" })).await;
    let maps = format!("{CORE}/configmaps");
    let all = (0..20).map(|i| api.post(&maps, json!({ "metadata": { "name": format!("m{i}") } })));
    let codes: Vec<u16> = futures::future::join_all(all).await.into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
    assert_eq!(used(&api, "q").await["count/configmaps"], "5");
}

#[tokio::test]
async fn a_quota_of_a_scope_limits_what_is_in_it() {
    let api = api().await;
    let spec = json!({ "hard": { "pods": "0" }, "scopes": ["BestEffort"] });
    let quota =
        made(&api, &format!("{CORE}/resourcequotas"), json!({ "metadata": { "name": "q" }, "spec": spec })).await;
    counted(&api, &quota, json!({ "pods": "0" })).await;
    made(&api, &format!("{CORE}/pods"), pod("a", json!({ "requests": { "cpu": "1m" } }))).await;
    let why = refused(&api, &format!("{CORE}/pods"), pod("b", json!({}))).await;
    assert_eq!(why, "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0");
}

#[tokio::test]
async fn a_namespace_says_how_much_its_pods_may_have() {
    let api = api().await;
    let namespace = |labels: Value| json!({ "metadata": { "name": "safe", "labels": labels } });
    let level = "pod-security.kubernetes.io/enforce";
    let (code, status) =
        api.post("/api/v1/namespaces", namespace(json!({ level: "strict", format!("{level}-version"): "1.2" }))).await;
    assert_eq!(code, 422);
    assert_eq!(
        status["message"],
        "Namespace \"safe\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"1.2\": must be \"latest\" or \"v1.x\"]"
    );
    made(
        &api,
        "/api/v1/namespaces",
        namespace(json!({ level: "baseline", "pod-security.kubernetes.io/warn": "restricted" })),
    )
    .await;
    let pods = "/api/v1/namespaces/safe/pods";
    let mut privileged = pod("p", json!({}));
    privileged["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    let privileges = "privileged (container \"c\" must not set securityContext.privileged=true)";
    assert_eq!(
        refused(&api, pods, privileged.clone()).await,
        format!("pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": {privileges}")
    );
    made(&api, pods, pod("p", json!({}))).await;
    // Not by a container that comes later either.
    let later = json!({ "spec": { "ephemeralContainers": [{ "name": "e", "image": "i", "securityContext": { "privileged": true } }] } });
    let (code, status) = api.patch(&format!("{pods}/p/ephemeralcontainers"), "strategic-merge-patch", later).await;
    assert_eq!(code, 403, "{status}");
    // What makes pods comes with a warning only.
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": privileged["spec"] });
    let deployment = json!({ "metadata": { "name": "d" }, "spec": { "selector": { "matchLabels": { "a": "b" } }, "template": template } });
    let path = "/apis/apps/v1/namespaces/safe/deployments";
    let response = api.raw(Method::POST, path, &[("content-type", "application/json")], deployment.to_string()).await;
    assert_eq!(response.status(), 201);
    let warning = response.headers()["warning"].to_str().unwrap();
    assert!(
        warning.contains(r#"would violate PodSecurity \"restricted:latest\": privileged (container \"c\" must not"#),
        "{warning}"
    );
}

#[tokio::test]
async fn who_raises_the_level_of_a_namespace_is_told_of_its_pods() {
    let api = api().await;
    let level = "pod-security.kubernetes.io/enforce";
    made(&api, "/api/v1/namespaces", json!({ "metadata": { "name": "safe" } })).await;
    let mut privileged = pod("c", json!({}));
    privileged["spec"]["containers"][0]["securityContext"] = json!({ "privileged": true });
    for pod in [pod("a", json!({})), pod("b", json!({})), privileged] {
        made(&api, "/api/v1/namespaces/safe/pods", pod).await;
    }
    let title = |level: &str| {
        format!("existing pods in namespace \"safe\" violate the new PodSecurity enforce level \"{level}\"")
    };
    let restricted =
        "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile";
    // One after the other; a version is raised with its level, or it is another one.
    for (labels, told) in [
        (json!({ level: "privileged" }), vec![]),
        (json!({ level: "baseline" }), vec![title("baseline:latest"), "c: privileged".into()]),
        (json!({ level: "baseline", "x": "y" }), vec![]),
        (
            json!({ level: "restricted" }),
            vec![
                title("restricted:latest"),
                format!("a (and 1 other pod): {restricted}"),
                format!("c: privileged, {restricted}"),
            ],
        ),
        (json!({ level: "baseline" }), vec![]),
        (json!({ format!("{level}-version"): "v1.24" }), vec![title("baseline:v1.24"), "c: privileged".into()]),
    ] {
        let change = json!({ "metadata": { "labels": labels } }).to_string();
        let kind = [("content-type", "application/merge-patch+json")];
        let response = api.raw(Method::PATCH, "/api/v1/namespaces/safe", &kind, change).await;
        let read =
            |value: &http::HeaderValue| value.to_str().unwrap()[7..].strip_suffix('"').unwrap().replace("\\\"", "\"");
        let found: Vec<String> = response.headers().get_all("warning").iter().map(read).collect();
        assert_eq!((response.status().as_u16(), found), (200, told), "{labels}");
    }
}
