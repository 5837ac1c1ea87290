//! Who may do what: roles and bindings, reviews, impersonation, and that nobody gives away more than it has.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{Api, api, pod};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

async fn role(api: &Api, plural: &str, name: &str, rules: Value) {
    let (code, made) =
        api.post(&format!("{RBAC}/{plural}"), json!({ "metadata": { "name": name }, "rules": rules })).await;
    assert_eq!(code, 201, "{made}");
}

fn bound(name: &str, role: (&str, &str), subject: (&str, &str)) -> Value {
    let mut to = json!({ "kind": subject.0, "name": subject.1 });
    if subject.0 == "ServiceAccount" {
        to["namespace"] = "default".into();
    }
    json!({ "metadata": { "name": name }, "roleRef": { "kind": role.0, "name": role.1 }, "subjects": [to] })
}

async fn bind(api: &Api, plural: &str, binding: Value) {
    let (code, made) = api.post(&format!("{RBAC}/{plural}"), binding).await;
    assert_eq!(code, 201, "{made}");
}

async fn refusal(api: &Api, path: &str) -> String {
    let (code, status) = api.get(path).await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")), "{path}: {status}");
    status["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nobody_may_anything_that_no_role_gives() {
    let api = api().await;
    let user = api.asked_by("ada", &[]);
    assert_eq!(
        refusal(&user, PODS).await,
        "pods is forbidden: User \"ada\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(
        refusal(&user, "/apis/apps/v1/deployments").await,
        "deployments.apps is forbidden: User \"ada\" cannot list resource \"deployments\" in API group \"apps\" at the cluster scope"
    );
    assert_eq!(
        refusal(&user, &format!("{PODS}/p/log")).await,
        "pods \"p\" is forbidden: User \"ada\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""
    );
    assert!(refusal(&user, &format!("{PODS}/p/exec?watch=1")).await.contains("cannot get resource \"pods/exec\""));
    assert_eq!(refusal(&user, "/metrics").await, "forbidden: User \"ada\" cannot get path \"/metrics\"");
    assert_eq!(refusal(&user, "/snapshot").await, "forbidden: User \"ada\" cannot get path \"/snapshot\"");
    // What does not exist is not told to who may not ask.
    assert!(refusal(&user, "/apis/none.example.com/v1/things").await.contains("cannot list resource"));
    for path in ["/api", "/apis", "/apis/apps/v1", "/openapi/v3", "/version", "/readyz"] {
        let code = user.raw(Method::GET, path, &[], "").await.status();
        assert_eq!(code, 200, "{path}: whoever is known may look around");
    }
}

#[tokio::test]
async fn roles_give_what_they_say_where_they_are_bound() {
    let api = api().await;
    api.post(PODS, pod("p")).await;
    let (code, _) = api.post("/api/v1/namespaces", json!({ "metadata": { "name": "other" } })).await;
    assert_eq!(code, 201);
    let user = api.asked_by("ada", &["team"]);
    let rules = json!([
        { "verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"] },
        { "verbs": ["list"], "apiGroups": [""], "resources": ["pods", "namespaces"] },
        { "verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"] }]);
    role(&api, "clusterroles", "some", rules).await;
    bind(&api, "namespaces/default/rolebindings", bound("b", ("ClusterRole", "some"), ("Group", "team"))).await;
    assert_eq!(user.get(PODS).await.0, 200);
    assert_eq!(user.get(&format!("{PODS}/p")).await.0, 200);
    assert_eq!(user.get(&format!("{PODS}/q")).await.0, 403, "of another name");
    assert_eq!(user.get("/api/v1/namespaces/other/pods").await.0, 403, "elsewhere");
    assert_eq!(user.get("/api/v1/namespaces").await.0, 403, "everywhere");
    assert_eq!(
        user.get("/apis/apps/v1/namespaces/default/deployments/d/scale").await.0,
        404,
        "may ask, and there is none"
    );
    assert_eq!(user.post(PODS, pod("q")).await.0, 403);
    assert_eq!(user.get(&format!("{PODS}?fieldSelector=metadata.name%3Dp&watch=0")).await.0, 200);
    assert_eq!(api.asked_by("bob", &[]).get(PODS).await.0, 403);
    // What is applied and not there is made, which is another right.
    role(&api, "clusterroles", "patcher", json!([{ "verbs": ["patch"], "apiGroups": [""], "resources": ["pods"] }]))
        .await;
    bind(&api, "namespaces/default/rolebindings", bound("p", ("ClusterRole", "patcher"), ("User", "ada"))).await;
    let apply = [("content-type", "application/apply-patch+yaml")];
    let response =
        user.raw(Method::PATCH, &format!("{PODS}/new?fieldManager=flt"), &apply, pod("new").to_string()).await;
    assert_eq!(response.status(), 403);
    let response = user.raw(Method::PATCH, &format!("{PODS}/p?fieldManager=flt"), &apply, pod("p").to_string()).await;
    assert_eq!(response.status(), 200);
    // Taken back, it holds no longer than that.
    assert_eq!(api.delete(&format!("{RBAC}/namespaces/default/rolebindings/b")).await.0, 200);
    assert_eq!(user.get(PODS).await.0, 403);
    bind(&api, "clusterrolebindings", bound("c", ("ClusterRole", "some"), ("ServiceAccount", "robot"))).await;
    let robot = api.asked_by("system:serviceaccount:default:robot", &["system:serviceaccounts"]);
    assert_eq!(robot.get("/api/v1/namespaces/other/pods").await.0, 200);
    let changed = json!({ "rules": [] });
    assert_eq!(api.patch(&format!("{RBAC}/clusterroles/some"), "merge-patch", changed).await.0, 200);
    assert_eq!(robot.get("/api/v1/namespaces/other/pods").await.0, 403);
}

#[tokio::test]
async fn the_usual_roles_are_there() {
    let api = api().await;
    for (role, who) in [("view", "viewer"), ("edit", "editor"), ("admin", "owner")] {
        bind(&api, "namespaces/default/rolebindings", bound(role, ("ClusterRole", role), ("User", who))).await;
    }
    bind(&api, "clusterrolebindings", bound("root", ("ClusterRole", "cluster-admin"), ("User", "root"))).await;
    let codes = |path: String| {
        let api = &api;
        async move {
            let mut codes = Vec::new();
            for who in ["viewer", "editor", "owner", "root"] {
                codes.push(api.asked_by(who, &[]).get(&path).await.0);
            }
            codes
        }
    };
    assert_eq!(codes(PODS.into()).await, [200, 200, 200, 200]);
    assert_eq!(codes("/api/v1/namespaces/default/secrets".into()).await, [403, 200, 200, 200]);
    assert_eq!(codes(format!("{RBAC}/namespaces/default/roles")).await, [403, 403, 200, 200]);
    assert_eq!(codes("/api/v1/nodes".into()).await, [403, 403, 403, 200]);
    assert_eq!(codes("/api/v1/namespaces/default".into()).await, [200, 200, 200, 200]);
    assert_eq!(api.asked_by("viewer", &[]).post(PODS, pod("a")).await.0, 403);
    assert_eq!(api.asked_by("editor", &[]).post(PODS, pod("a")).await.0, 201);
}

/// What is written in `bootstrap.yaml` is whole: nothing names what is not there, and each role gives something.
#[tokio::test]
async fn the_roles_of_the_parts_belong_together() {
    let api = api().await;
    let list = async |plural: &str| api.get(&format!("{RBAC}/{plural}")).await.1["items"].as_array().unwrap().clone();
    let (roles, bindings) = (list("clusterroles").await, list("clusterrolebindings").await);
    let named = |name: &str| roles.iter().find(|role| role["metadata"]["name"] == name);
    let filled = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    for role in &roles {
        let (name, rules) = (&role["metadata"]["name"], role["rules"].as_array().unwrap());
        assert!(!rules.is_empty(), "{name}");
        for rule in rules {
            let about = filled(&rule["resources"]) && filled(&rule["apiGroups"]);
            assert!(filled(&rule["verbs"]) && about != filled(&rule["nonResourceURLs"]), "{name}: {rule}");
        }
        let labels = role["metadata"]["labels"].as_object().unwrap().keys();
        for sum in labels.filter_map(|label| label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")) {
            let sum = named(sum).unwrap_or_else(|| panic!("{name} is added to {sum}"));
            assert!(rules.iter().all(|rule| sum["rules"].as_array().unwrap().contains(rule)), "{name}");
        }
    }
    for binding in &bindings {
        let (name, to) = (binding["metadata"]["name"].as_str().unwrap(), binding["roleRef"]["name"].as_str().unwrap());
        assert!(named(to).is_some() && filled(&binding["subjects"]), "{name} gives {to}");
        if let Some(account) = name.strip_prefix("system:controller:") {
            let wanted = json!([{ "kind": "ServiceAccount", "namespace": "kube-system", "name": account }]);
            assert_eq!(binding["subjects"], wanted);
        }
    }
    let bound = |role: &Value| bindings.iter().any(|binding| binding["roleRef"]["name"] == role["metadata"]["name"]);
    let free = roles.iter().filter(|role| !bound(role)).map(|role| role["metadata"]["name"].as_str().unwrap());
    let free: Vec<&str> = free.filter(|name| !name.contains("aggregate-to") && !name.contains("-approver")).collect();
    let joining = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";
    let reading = "system:aggregated-metrics-reader";
    let expected = ["admin", "edit", reading, "system:auth-delegator", joining, "system:node-bootstrapper", "view"];
    assert_eq!(free, expected, "every other role is somebody's");
}

#[tokio::test]
async fn nobody_gives_away_more_than_it_has() {
    let api = api().await;
    let user = api.asked_by("ada", &[]);
    let rules = json!([
        { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] },
        { "verbs": ["create", "update", "patch", "get"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"] }]);
    role(&api, "clusterroles", "author", rules).await;
    bind(&api, "namespaces/default/rolebindings", bound("author", ("ClusterRole", "author"), ("User", "ada"))).await;
    let roles = format!("{RBAC}/namespaces/default/roles");
    let rule = |verb: &str| json!([{ "verbs": [verb], "apiGroups": [""], "resources": ["pods"] }]);
    let wanted = |name: &str, rules: Value| json!({ "metadata": { "name": name }, "rules": rules });
    assert_eq!(user.post(&roles, wanted("small", rule("get"))).await.0, 201);
    let (code, status) = user.post(&roles, wanted("big", rule("delete"))).await;
    assert_eq!(code, 403);
    assert_eq!(
        status["message"],
        "roles.rbac.authorization.k8s.io \"big\" is forbidden: user \"ada\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    // Neither by changing what it may make, nor by binding what others have made.
    let more = json!({ "rules": rule("*") });
    assert_eq!(user.patch(&format!("{roles}/small"), "merge-patch", more).await.0, 403);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    assert_eq!(user.post(&bindings, bound("x", ("ClusterRole", "cluster-admin"), ("User", "ada"))).await.0, 403);
    assert_eq!(user.post(&bindings, bound("x", ("ClusterRole", "none"), ("User", "ada"))).await.0, 404);
    assert_eq!(user.post(&bindings, bound("y", ("Role", "small"), ("User", "bob"))).await.0, 201);
    assert_eq!(api.asked_by("bob", &[]).get(&format!("{PODS}/none")).await.0, 404);
    // Who has the verbs for it may.
    let verbs = json!([{ "verbs": ["bind"], "apiGroups": ["*"], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"] },
        { "verbs": ["escalate"], "apiGroups": ["*"], "resources": ["roles"] }]);
    role(&api, "clusterroles", "giver", verbs).await;
    bind(&api, "clusterrolebindings", bound("giver", ("ClusterRole", "giver"), ("User", "ada"))).await;
    assert_eq!(user.post(&roles, wanted("big", rule("delete"))).await.0, 201);
    assert_eq!(user.post(&bindings, bound("x", ("ClusterRole", "cluster-admin"), ("User", "ada"))).await.0, 201);
}

#[tokio::test]
async fn reviews_say_what_would_be_decided() {
    let api = api().await;
    let user = api.asked_by("ada", &["team"]);
    bind(&api, "namespaces/default/rolebindings", bound("see", ("ClusterRole", "view"), ("User", "ada"))).await;
    let about = |verb: &str, namespace: &str| json!({ "resourceAttributes": { "verb": verb, "resource": "pods", "namespace": namespace } });
    let (code, answer) =
        user.post(&format!("{REVIEWS}/selfsubjectaccessreviews"), json!({ "spec": about("list", "default") })).await;
    assert_eq!(code, 201, "{answer}");
    let reason = "RBAC: allowed by RoleBinding \"see/default\" of ClusterRole \"view\" to User \"ada\"";
    assert_eq!(answer["status"], json!({ "allowed": true, "reason": reason }));
    let (_, answer) =
        user.post(&format!("{REVIEWS}/selfsubjectaccessreviews"), json!({ "spec": about("delete", "default") })).await;
    assert_eq!(answer["status"], json!({ "allowed": false }));
    // About others asks who may.
    let mut spec = about("list", "default");
    spec["user"] = "ada".into();
    assert_eq!(user.post(&format!("{REVIEWS}/subjectaccessreviews"), json!({ "spec": spec })).await.0, 403);
    let (_, answer) = api.post(&format!("{REVIEWS}/subjectaccessreviews"), json!({ "spec": spec })).await;
    assert_eq!(answer["status"]["allowed"], true);
    let local = format!("{REVIEWS}/namespaces/kube-system/localsubjectaccessreviews");
    assert_eq!(api.post(&local, json!({ "spec": spec })).await.0, 422);
    let path = json!({ "user": "ada", "groups": ["system:authenticated"], "nonResourceAttributes": { "verb": "get", "path": "/apis/apps" } });
    let (_, answer) = api.post(&format!("{REVIEWS}/subjectaccessreviews"), json!({ "spec": path })).await;
    assert_eq!(answer["status"]["allowed"], true);
    let (_, answer) =
        user.post(&format!("{REVIEWS}/selfsubjectrulesreviews"), json!({ "spec": { "namespace": "default" } })).await;
    let rules = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["resources"].as_array().unwrap().contains(&json!("pods"))), "{answer}");
    let (_, answer) = user.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await;
    assert_eq!(answer["status"]["userInfo"], json!({ "username": "ada", "groups": ["team", "system:authenticated"] }));
    let (_, answer) =
        api.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({ "spec": { "token": "no" } })).await;
    assert_eq!(answer["status"]["user"], json!({}), "who is not known is nobody: {answer}");
    assert_eq!(api.get(&format!("{REVIEWS}/subjectaccessreviews")).await.0, 405, "nothing is kept");
}

#[tokio::test]
async fn who_may_asks_as_another() {
    let api = api().await;
    let who = |api: &Api, headers: &'static [(&'static str, &'static str)]| {
        let api = api.asked_by("admin", &["system:masters"]);
        async move {
            let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
            let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
            let response = api.raw(Method::POST, path, &headers, "{}").await;
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["kind"] == "Status" { answer["message"].clone() } else { answer["status"]["userInfo"].clone() }
        }
    };
    assert_eq!(
        who(&api, &[("impersonate-user", "ada"), ("impersonate-group", "team")]).await,
        json!({ "username": "ada", "groups": ["team", "system:authenticated"] })
    );
    assert_eq!(
        who(&api, &[("impersonate-user", "system:serviceaccount:default:robot")]).await,
        json!({ "username": "system:serviceaccount:default:robot",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"] })
    );
    assert_eq!(
        who(&api, &[("impersonate-group", "team")]).await,
        "requested to impersonate groups, uid or extra without a user"
    );
    // Who asks as another has its rights, and no longer its own; and not everybody may.
    let response = api.raw(Method::GET, PODS, &[("impersonate-user", "ada")], "").await;
    assert_eq!(response.status(), 403);
    let user = api.asked_by("ada", &[]);
    let response =
        user.raw(Method::GET, PODS, &[("impersonate-user", "root"), ("impersonate-group", "system:masters")], "").await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&bytes).unwrap();
    let message = "users \"root\" is forbidden: User \"ada\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope";
    assert_eq!(status["message"], message);
}
