//! Validating admission policies and match conditions.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Api, api, config_map};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WHO: &str = "ValidatingAdmissionPolicy 'p' with binding 'b'";

/// Puts a policy about ConfigMaps and its binding in the place of those before.
async fn bind(api: &Api, spec: Value, binding: Value) {
    let (mut policy, mut bound) = (
        json!({"metadata": {"name": "p"}, "spec": {}}),
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p"}}),
    );
    policy["spec"]["matchConstraints"] = json!({"resourceRules": [
        {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    bound["spec"]["validationActions"] = json!(["Deny"]);
    for (target, from) in [(&mut policy, spec), (&mut bound, binding)] {
        for (field, value) in from.as_object().unwrap() {
            target["spec"][field] = value.clone();
        }
    }
    for (plural, name, object) in
        [("validatingadmissionpolicies", "p", policy), ("validatingadmissionpolicybindings", "b", bound)]
    {
        api.delete(&format!("{GROUP}/{plural}/{name}")).await;
        let (code, made) = api.post(&format!("{GROUP}/{plural}"), object).await;
        assert_eq!(code, 201, "{made}");
    }
}

/// Code and message of what comes of a ConfigMap with this value.
async fn told(api: &Api, value: &str) -> (u64, String) {
    let (code, answer) = api.post(&format!("{MAPS}?dryRun=All"), config_map("a", value)).await;
    (code.into(), answer["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_policy_denies_in_upstreams_words() {
    let api = api().await;
    let rule = |rule: Value| json!({ "validations": [rule] });
    let denied = |why: &str| format!("configmaps \"a\" is forbidden: {WHO} denied request: {why}");
    let mut slow = rule(json!({"expression": "[1].all(x, true)"}));
    let list = format!("[{}]", "1,".repeat(99) + "1");
    slow["validations"][0]["expression"] = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c > 0)))").into();
    for (spec, value, code, message) in [
        (rule(json!({"expression": "object.data.k == 'v'"})), "v", 201, String::new()),
        (
            rule(json!({"expression": "object.data.k == 'v'"})),
            "w",
            422,
            denied("failed expression: object.data.k == 'v'"),
        ),
        (rule(json!({"expression": "object.data.k == 'v'", "message": "only v"})), "w", 422, denied("only v")),
        (
            rule(
                json!({"expression": "object.data.k == 'v'", "messageExpression": "'not ' + object.data.k", "reason": "Forbidden"}),
            ),
            "w",
            403,
            denied("not w"),
        ),
        (
            rule(json!({"expression": "object.data.x == 'v'"})),
            "v",
            422,
            denied("expression 'object.data.x == 'v'' resulted in error: no such key: x"),
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.x == 'v'"}]}),
            "v",
            201,
            String::new(),
        ),
        (
            slow,
            "v",
            422,
            denied("validation failed due to running out of cost budget, no further validation rules will be run"),
        ),
        (
            json!({"variables": [{"name": "k", "expression": "object.data.k"}, {"name": "long", "expression": "variables.k + 'x'"}, {"name": "bad", "expression": "1 / 0"}],
                "validations": [{"expression": "variables.long == 'vx' || variables.bad == 1"}]}),
            "w",
            422,
            denied("expression 'variables.long == 'vx' || variables.bad == 1' resulted in error: division by zero"),
        ),
        (
            json!({"variables": [{"name": "long", "expression": "object.data.k + 'x'"}, {"name": "bad", "expression": "1 / 0"}],
                "validations": [{"expression": "variables.long == 'vx'"}]}),
            "v",
            201,
            String::new(),
        ),
        (
            rule(
                json!({"expression": "request.operation == 'CREATE' && request.dryRun && request.userInfo.username == 'admin' && oldObject == null && namespaceObject.metadata.name == 'default' && params == null && request.resource.resource == 'configmaps' && 'system:masters' in request.userInfo.groups"}),
            ),
            "v",
            201,
            String::new(),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "object.data.k == 'v'"}], "validations": [{"expression": "false"}]}),
            "w",
            201,
            String::new(),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "object.data.k == 'v'"}], "validations": [{"expression": "false"}]}),
            "v",
            422,
            denied("failed expression: false"),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "object.x == 1"}], "validations": [{"expression": "true"}]}),
            "v",
            422,
            denied("match condition \"c\" failed: no such key: x"),
        ),
    ] {
        bind(&api, spec.clone(), json!({})).await;
        assert_eq!(told(&api, value).await, (code, message), "{spec}");
    }
}

#[tokio::test]
async fn bindings_say_where_and_what_then() {
    let api = api().await;
    let never = json!({"validations": [{"expression": "false", "message": "no"}]});
    bind(&api, never.clone(), json!({"validationActions": ["Warn", "Audit"]})).await;
    let response = api.raw(Method::POST, MAPS, &[], config_map("kept", "1").to_string()).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], format!("299 - \"Validation failed for {WHO}: no\""));
    for (matched, code) in [
        (json!({"objectSelector": {"matchLabels": {"a": "b"}}}), 201),
        (json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}), 422),
        (
            json!({"excludeResourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}),
            201,
        ),
        (
            json!({"resourceRules": [{"resourceNames": ["z"], "operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]}),
            201,
        ),
    ] {
        bind(&api, never.clone(), json!({ "matchResources": matched })).await;
        assert_eq!(told(&api, "1").await.0, code, "{matched}");
    }
    api.delete(&format!("{GROUP}/validatingadmissionpolicybindings/b")).await;
    assert_eq!(told(&api, "1").await.0, 201, "a policy that nothing binds holds nowhere");
    bind(&api, never, json!({})).await;
    let (code, answer) = api.delete(&format!("{MAPS}/kept")).await;
    assert_eq!(
        (code, answer["message"].as_str().unwrap().contains("denied request: no")),
        (422, true),
        "deletion, too"
    );
}

#[tokio::test]
async fn parameters_are_objects_of_their_own() {
    let api = api().await;
    let limit = json!({"paramKind": {"apiVersion": "v1", "kind": "Secret"},
        "validations": [{"expression": "object.data.k.size() <= int(params.metadata.annotations.most)", "message": "too long"}]});
    let secret = |name: &str, most: &str| json!({"metadata": {"name": name, "labels": {"for": "p"}, "annotations": {"most": most}}});
    for (name, most) in [("one", "9"), ("two", "3")] {
        assert_eq!(api.post("/api/v1/namespaces/default/secrets", secret(name, most)).await.0, 201);
    }
    for (reference, value, message) in [
        (json!({"name": "one"}), "12345", ""),
        (json!({"name": "two"}), "12345", "too long"),
        (json!({"selector": {"matchLabels": {"for": "p"}}}), "12345", "too long"),
        (json!({"selector": {"matchLabels": {"for": "p"}}}), "12", ""),
        (
            json!({"name": "none"}),
            "1",
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction",
        ),
        (json!({"name": "none", "parameterNotFoundAction": "Allow"}), "1", ""),
        (json!({"name": "one", "namespace": "kube-system"}), "1", "no params found"),
    ] {
        let mut full = json!({"parameterNotFoundAction": "Deny"});
        for (field, value) in reference.as_object().unwrap() {
            full[field] = value.clone();
        }
        bind(&api, limit.clone(), json!({ "paramRef": full })).await;
        let (code, said) = told(&api, value).await;
        assert_eq!(code, if message.is_empty() { 201 } else { 422 }, "{reference}: {said}");
        assert!(said.contains(message), "{reference}: {said}");
    }
    let mut unknown = limit;
    unknown["paramKind"] = json!({"apiVersion": "x.io/v1", "kind": "None"});
    bind(&api, unknown, json!({"paramRef": {"name": "one", "parameterNotFoundAction": "Deny"}})).await;
    assert!(told(&api, "1").await.1.contains("failed to find resource referenced by paramKind"));
}

#[tokio::test]
async fn a_policy_asks_who_may_what() {
    let api = api().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let mut scale = rule("apps", "deployments/scale", &["update"]);
    scale["resourceNames"] = json!(["d"]);
    let paths = json!({"nonResourceURLs": ["/odd/*"], "verbs": ["get"]});
    for (name, kind, subject, rules) in [
        (
            "ada",
            "",
            json!({"kind": "User", "name": "ada"}),
            json!([rule("", "configmaps", &["create", "shout"]), rule("", "secrets", &["get"])]),
        ),
        ("robot", "", json!({"kind": "ServiceAccount", "name": "robot", "namespace": "default"}), json!([scale])),
        ("paths", "cluster", json!({"kind": "User", "name": "ada"}), json!([paths])),
    ] {
        let (at, of) = if kind.is_empty() {
            (format!("{rbac}/namespaces/default/"), "Role")
        } else {
            (format!("{rbac}/cluster"), "ClusterRole")
        };
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": of, "name": name});
        assert_eq!(api.post(&format!("{at}roles"), json!({"metadata": {"name": name}, "rules": rules})).await.0, 201);
        let binding = json!({"metadata": {"name": name}, "roleRef": role, "subjects": [subject]});
        assert_eq!(api.post(&format!("{at}rolebindings"), binding).await.0, 201);
    }
    let ada = api.asked_by("ada", &[]);
    let secrets = "authorizer.group('').resource('secrets')";
    let scale =
        "authorizer.serviceAccount('default', 'robot').group('apps').resource('deployments').namespace('default')";
    for (expression, holds, why) in [
        (format!("{secrets}.namespace('default').check('get').allowed()"), true, ""),
        (
            format!("{secrets}.namespace('default').fieldSelector('a=b').labelSelector('c').check('get').allowed()"),
            true,
            "",
        ),
        (format!("{secrets}.check('get').allowed()"), false, "failed expression"),
        (format!("{secrets}.namespace('default').subresource('x').check('get').allowed()"), false, "failed expression"),
        ("authorizer.requestResource.check('shout').allowed()".into(), true, ""),
        ("authorizer.requestResource.check('create').reason().contains('ada')".into(), true, ""),
        (
            "authorizer.requestResource.name('b').namespace('other').check('shout').allowed()".into(),
            false,
            "failed expression",
        ),
        (
            "authorizer.path('/odd/one').check('get').allowed() && !authorizer.path('/odd/one').check('put').errored()"
                .into(),
            true,
            "",
        ),
        (format!("{scale}.subresource('scale').name('d').check('update').allowed()"), true, ""),
        (format!("{scale}.subresource('scale').name('e').check('update').allowed()"), false, "failed expression"),
        (
            "authorizer.serviceAccount('default', 'no name').path('/').check('get').allowed()".into(),
            false,
            "Invalid service account name",
        ),
        ("authorizer.group('').check('get').allowed()".into(), false, "no such overload"),
        ("authorizer.path('/').path('/').check('get').allowed()".into(), false, "no such overload"),
        ("authorizer.requestResource.requestResource == null".into(), false, "no such key: requestResource"),
        (
            format!("['a', 'b', 'c'].all(n, {secrets}.namespace('default').name(n).check('get').allowed())"),
            false,
            "running out of cost budget",
        ),
    ] {
        bind(&api, json!({"validations": [{"expression": expression}], "variables": []}), json!({})).await;
        let (code, message) = told(&ada, "1").await;
        assert!(code == if holds { 201 } else { 422 } && message.contains(why), "{expression}: {code} {message}");
    }
    // Who may, is not asked about.
    let condition = json!([{"name": "c", "expression": "!authorizer.requestResource.check('shout').allowed()"}]);
    bind(&api, json!({"validations": [{"expression": "false"}], "matchConditions": condition}), json!({})).await;
    assert_eq!(told(&ada, "1").await.0, 201);
}

#[tokio::test]
async fn what_cannot_be_evaluated_is_refused_with_its_path() {
    let api = api().await;
    let constraints = json!({"resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    for (spec, message) in [
        (
            json!({"validations": [{"expression": "object."}]}),
            "spec.validations[0].expression: Invalid value: \"object.\": compilation failed",
        ),
        (json!({"validations": [{"expression": "other"}]}), "undeclared reference to 'other'"),
        (json!({"validations": [{"expression": "1 + 1"}]}), "must evaluate to a bool"),
        (
            json!({"validations": [{"expression": ""}]}),
            "spec.validations[0].expression: Required value: expression is not specified",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "x"}]}),
            "spec.validations[0].messageExpression: Invalid value",
        ),
        (
            json!({"validations": [{"expression": "true", "reason": "Bad"}]}),
            "spec.validations[0].reason: Unsupported value",
        ),
        (
            json!({"validations": [{"expression": "true"}], "variables": [{"name": "1x", "expression": "true"}]}),
            "name is not a valid CEL identifier",
        ),
        (
            json!({"validations": [{"expression": "true"}], "variables": [{"name": "x", "expression": "y"}]}),
            "spec.variables[0].expression",
        ),
        (
            json!({"validations": [{"expression": "true"}], "matchConditions": [{"name": "", "expression": "true"}]}),
            "spec.matchConditions[0].name: Required value",
        ),
        (
            json!({"validations": [{"expression": "true"}], "matchConditions": [{"name": "a", "expression": "variables.x"}]}),
            "undeclared reference to 'variables'",
        ),
        (json!({"validations": [{"expression": "variables.x == 1"}]}), "undefined field 'x'"),
        (
            json!({"validations": [{"expression": "true"}], "variables": [{"name": "x", "expression": "variables.y"}, {"name": "y", "expression": "1"}]}),
            "spec.variables[0].expression: Invalid value: \"variables.y\": compilation failed: ERROR: <input>: undefined field 'y'",
        ),
        (
            json!({"validations": [{"expression": "authorizer.check('get').allowed() && authorizer.other"}]}),
            "undefined field 'other'",
        ),
        (
            json!({"validations": [{"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}]}),
            "undeclared reference to 'authorizer'",
        ),
    ] {
        let mut sent = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": constraints}});
        for (field, value) in spec.as_object().unwrap() {
            sent["spec"][field] = value.clone();
        }
        let (code, answer) = api.post(&format!("{GROUP}/validatingadmissionpolicies"), sent).await;
        assert!(code == 422 && answer["message"].as_str().unwrap().contains(message), "{spec}: {answer}");
    }
}
