//! Rules in CEL of custom kinds: what they let pass, what they say, and when they are asked.

use serde_json::{Value, json};

use crate::support::{Api, api};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const ROCKETS: &str = "/apis/x.io/v1/namespaces/default/rockets";

/// A definition whose `spec` has these properties and rules.
fn definition(properties: Value, rules: Value) -> Value {
    json!({"metadata": {"name": "rockets.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "rockets", "kind": "Rocket"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}}}}]}})
}

async fn define(api: &Api, properties: Value, rules: Value) {
    api.delete(&format!("{DEFINITIONS}/rockets.x.io")).await;
    let (code, made) = api.post(DEFINITIONS, definition(properties, rules)).await;
    assert_eq!(code, 201, "{made}");
}

fn rocket(spec: Value) -> Value {
    json!({"apiVersion": "x.io/v1", "kind": "Rocket", "metadata": {"name": "r"}, "spec": spec})
}

/// The message of a refusal; empty if there is none.
async fn told(api: &Api, spec: Value) -> String {
    let (code, answer) = match api.get(&format!("{ROCKETS}/r")).await.0 {
        404 => api.post(ROCKETS, rocket(spec)).await,
        _ => api.put(&format!("{ROCKETS}/r"), rocket(spec)).await,
    };
    let message = answer["message"].as_str().unwrap_or_default().replace("Rocket.x.io \"r\" is invalid: ", "");
    assert_eq!(code >= 400, !message.is_empty(), "{answer}");
    message
}

#[tokio::test]
async fn a_rule_refuses_in_upstreams_words() {
    let api = api().await;
    let properties = json!({"min": {"type": "integer"}, "max": {"type": "integer"}, "half": {"type": "number"},
        "at": {"type": "string", "format": "date-time"}, "any": {"x-kubernetes-int-or-string": true}});
    for (rule, spec, message) in [
        (json!({"rule": "self.min <= self.max"}), json!({"min": 1, "max": 2}), ""),
        (
            json!({"rule": "self.min <= self.max"}),
            json!({"min": 3, "max": 2}),
            "spec: Invalid value: \"object\": failed rule: self.min <= self.max",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "too small"}),
            json!({"min": 3, "max": 2}),
            "spec: Invalid value: \"object\": too small",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "'%d is more than %d'.format([self.min, self.max])"}),
            json!({"min": 3, "max": 2}),
            "spec: Invalid value: \"object\": 3 is more than 2",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "string(self.half)", "message": "m"}),
            json!({"min": 3, "max": 2}),
            "spec: Invalid value: \"object\": m",
        ),
        (
            json!({"rule": "self.min <= self.max", "reason": "FieldValueForbidden", "fieldPath": ".max", "message": "m"}),
            json!({"min": 3, "max": 2}),
            "spec.max: Forbidden: m",
        ),
        (
            json!({"rule": "self.min <= self.max"}),
            json!({"min": 3}),
            "spec: Invalid value: \"object\": no such key: max evaluating rule: failed rule: self.min <= self.max",
        ),
        (
            json!({"rule": "self.any > 1"}),
            json!({"any": "x"}),
            "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, function or macro signature for rule: failed rule: self.any > 1",
        ),
        (
            json!({"rule": "self.half / 2.0 > 0.4 && self.at.getFullYear() == 2024"}),
            json!({"half": 1, "at": "2024-01-01T00:00:00Z"}),
            "",
        ),
        (json!({"rule": "!has(self.min) || self.min > 0"}), json!({}), ""),
    ] {
        define(&api, properties.clone(), json!([rule])).await;
        assert_eq!(told(&api, spec).await, message, "{rule}");
    }
}

#[tokio::test]
async fn rules_stand_at_values_within() {
    let api = api().await;
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.v > 0", "message": "needs some"}]});
    let properties = json!({"items": {"type": "array", "items": item},
        "map": {"type": "object", "additionalProperties": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 9", "message": "too much"}]}}});
    define(&api, properties, json!([])).await;
    assert_eq!(
        told(&api, json!({"items": [{"k": "a", "v": 1}, {"k": "b", "v": 0}], "map": {"x": 9}})).await,
        "[spec.items[1]: Invalid value: \"object\": needs some, spec.map.x: Invalid value: \"integer\": too much]"
    );
}

#[tokio::test]
async fn transition_rules_are_asked_about_changes() {
    let api = api().await;
    let properties = json!({"size": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "only grows"}]},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "object", "required": ["k"],
            "properties": {"k": {"type": "string"}, "v": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is fixed"}]}}}}});
    let first =
        json!([{"rule": "oldSelf.hasValue() || self.size < 5", "optionalOldSelf": true, "message": "begins small"}]);
    define(&api, properties, first).await;
    assert_eq!(told(&api, json!({"size": 5})).await, "spec: Invalid value: \"object\": begins small");
    assert_eq!(told(&api, json!({"size": 3, "list": [{"k": "a", "v": 1}, {"k": "b", "v": 1}]})).await, "");
    assert_eq!(told(&api, json!({"size": 2})).await, "spec.size: Invalid value: \"integer\": only grows");
    assert_eq!(
        told(&api, json!({"size": 7, "list": [{"k": "b", "v": 1}, {"k": "c", "v": 3}]})).await,
        "",
        "found by their keys"
    );
    assert_eq!(
        told(&api, json!({"size": 7, "list": [{"k": "c", "v": 4}]})).await,
        "spec.list[0].v: Invalid value: \"integer\": is fixed"
    );
}

#[tokio::test]
async fn what_was_wrong_before_does_not_hinder_other_changes() {
    let api = api().await;
    let parts = |rule: &str, most: i64| {
        json!({"a": {"type": "object", "properties": {"n": {"type": "integer", "maximum": most}}, "x-kubernetes-validations": [{"rule": rule, "message": "a is wrong"}]},
            "b": {"type": "integer"}})
    };
    define(&api, parts("true", 9), json!([])).await;
    assert_eq!(told(&api, json!({"a": {"n": 5}, "b": 1})).await, "");
    let mut tighter = definition(parts("self.n < 3", 4), json!([]));
    tighter["metadata"]["resourceVersion"] =
        api.get(&format!("{DEFINITIONS}/rockets.x.io")).await.1["metadata"]["resourceVersion"].clone();
    let (code, answer) = api.put(&format!("{DEFINITIONS}/rockets.x.io"), tighter).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(told(&api, json!({"a": {"n": 5}, "b": 2})).await, "", "a is as it was");
    assert!(told(&api, json!({"a": {"n": 6}, "b": 2})).await.contains("should be less than or equal to 4"));
    assert_eq!(told(&api, json!({"a": {"n": 4}, "b": 2})).await, "spec.a: Invalid value: \"object\": a is wrong");
}

#[tokio::test]
async fn a_bad_rule_refuses_the_definition_with_its_path() {
    let api = api().await;
    let at = "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]";
    for (rule, message) in [
        (json!({}), format!("{at}.rule: Required value: rule is not specified")),
        (
            json!({"rule": "self.list["}),
            format!("{at}.rule: Invalid value: \"self.list[\": compilation failed: ERROR: <input>:1:"),
        ),
        (json!({"rule": "self.none > 1"}), "undefined field 'none'".into()),
        (json!({"rule": "self.list.all(x, x.other)"}), "undefined field 'other'".into()),
        (json!({"rule": "self.list[0].other"}), "undefined field 'other'".into()),
        (json!({"rule": "object.list"}), "undeclared reference to 'object'".into()),
        (json!({"rule": "1 + 1"}), format!("{at}.rule: Invalid value: \"1 + 1\": must evaluate to a bool")),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            format!("{at}.optionalOldSelf: Invalid value: true: may not be set"),
        ),
        (json!({"rule": "true", "reason": "Bad"}), format!("{at}.reason: Unsupported value: \"Bad\"")),
        (json!({"rule": "true", "messageExpression": "nothing"}), format!("{at}.messageExpression: Invalid value")),
        (
            json!({"rule": "true\n|| false"}),
            format!("{at}.message: Required value: message must be specified if rule contains line breaks"),
        ),
        (json!({"rule": "true", "fieldPath": "x"}), format!("{at}.fieldPath: Invalid value")),
    ] {
        let properties =
            json!({"list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}}});
        let (code, answer) = api.post(DEFINITIONS, definition(properties, json!([rule]))).await;
        assert!(code == 422 && answer["message"].as_str().unwrap().contains(&message), "{rule}: {answer}");
    }
    let item = json!({"type": "integer", "x-kubernetes-validations": [{"rule": "self > oldSelf"}]});
    let (_, answer) =
        api.post(DEFINITIONS, definition(json!({"list": {"type": "array", "items": item}}), json!([]))).await;
    assert!(
        answer["message"].as_str().unwrap().contains("oldSelf cannot be used on the uncorrelatable portion"),
        "{answer}"
    );
    let hidden = json!({"x": {"type": "integer", "anyOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]}});
    let (_, answer) = api.post(DEFINITIONS, definition(hidden, json!([]))).await;
    assert!(answer["message"].as_str().unwrap().contains("must be empty to be structural"), "{answer}");
}

#[tokio::test]
async fn a_rule_that_takes_too_much_work_refuses() {
    let api = api().await;
    let list = json!({"list": {"type": "array", "items": {"type": "integer"}}});
    let slow = "self.list.all(a, self.list.all(b, self.list.all(c, a + b + c >= 0)))";
    let rules: Vec<Value> = (0..12).map(|_| json!({"rule": slow, "message": "slow"})).collect();
    define(&api, list, json!(rules)).await;
    let said = told(&api, json!({"list": vec![1; 300]})).await;
    assert!(said.contains("'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: slow"), "{said}");
    assert!(said.contains("running out of cost budget"), "{said}");
    assert_eq!(told(&api, json!({"list": [1]})).await, "");
}
