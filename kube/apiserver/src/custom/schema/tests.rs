use proptest::prelude::*;
use serde_json::{Value, json};

use super::validate::{fits, validate_at};
use super::*;
use crate::kinds::Errors;

fn judged(schema: &Value, object: &Value) -> Vec<String> {
    let mut errors = Errors::default();
    validate(object, None, &Schema::read(schema), &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

fn schema() -> Value {
    json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object", "required": ["kind"], "properties": {
            "kind": {"type": "string", "enum": ["A", "B"]},
            "count": {"type": "integer", "minimum": 1, "default": 3},
            "size": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "name": {"type": "string", "pattern": "^[a-z]+$"}}}}})
}

#[test]
fn unknown_fields_go_and_free_ones_stay() {
    let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "a"},
        "spec": {"kind": "A", "odd": 1, "raw": {"any": {"thing": 1}}, "map": {"k": "v"}}, "more": {}});
    let schema = Schema::read(&schema());
    assert_eq!(prune(&mut object, &schema), ["more", "spec.odd"]);
    assert_eq!(object["spec"], json!({"kind": "A", "raw": {"any": {"thing": 1}}, "map": {"k": "v"}}));
    default(&mut object, &schema);
    assert_eq!(object["spec"]["count"], 3);
}

#[test]
fn wrong_values_are_named() {
    assert_eq!(judged(&schema(), &json!({"spec": {"kind": "A", "size": "1Gi"}})), Vec::<String>::new());
    assert_eq!(judged(&schema(), &json!({})), ["spec: Required value"]);
    assert_eq!(
        judged(&schema(), &json!({"spec": {"kind": "C", "count": 0, "size": 1.5, "name": "A1"}})),
        [
            "spec.count: Invalid value: 0: spec.count in body should be greater than or equal to 1",
            "spec.kind: Unsupported value: \"C\": supported values: \"A\", \"B\"",
            "spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'",
            "spec.size: Invalid value: \"number\": spec.size in body must be of type integer or string: \"number\"",
        ]
    );
}

/// Small values of every type.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..4).prop_map(Value::from),
        Just(json!(1.5)),
        "[ab]{0,3}".prop_map(Value::from),
        Just(json!("2026-01-01T00:00:00Z")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abcd]", inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Schemas with every word that is read.
fn any_schema() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::select(vec!["object", "array", "string", "boolean", "integer", "number"])
            .prop_map(|kind| json!({"type": kind})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"nullable": true, "type": "string"})),
        Just(json!({"enum": ["a", 1, null]})),
        Just(json!({"required": ["a"], "minProperties": 1, "maxProperties": 2})),
        Just(
            json!({"minItems": 1, "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]})
        ),
        Just(json!({"minLength": 1, "maxLength": 2, "pattern": "^a"})),
        Just(json!({"format": "date-time"})),
        Just(json!({"minimum": 0, "maximum": 2, "exclusiveMaximum": true})),
        Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        Just(json!({"additionalProperties": true})),
        Just(json!({"default": "d"})),
    ];
    word.prop_recursive(3, 24, 3, |inner| {
        let some = prop::collection::vec(inner.clone(), 0..3);
        prop_oneof![
            prop::collection::btree_map("[abcd]", inner.clone(), 0..4).prop_map(|map| json!({"properties": map})),
            inner.clone().prop_map(|of| json!({"additionalProperties": of})),
            inner.clone().prop_map(|of| json!({"items": of, "type": "array"})),
            some.clone().prop_map(|branches| json!({"allOf": branches})),
            some.clone().prop_map(|branches| json!({"anyOf": branches})),
            some.prop_map(|branches| json!({"oneOf": branches})),
            inner.prop_map(|of| json!({"not": of})),
        ]
    })
}

proptest! {
    #[test]
    fn what_fits_is_what_has_no_errors(schema in any_schema(), value in value()) {
        let schema = Schema::read(&schema);
        let mut errors = Errors::default();
        validate_at(&value, None, &schema, "", true, 0, &mut errors);
        prop_assert_eq!(fits(&value, &schema, true, 0), errors.into_vec().is_empty());
    }

    #[test]
    fn what_was_pruned_and_completed_once_stays_as_it_is(schema in any_schema(), value in value()) {
        let schema = Schema::read(&schema);
        let mut once = value;
        prune(&mut once, &schema);
        default(&mut once, &schema);
        let mut twice = once.clone();
        prop_assert_eq!(prune(&mut twice, &schema), Vec::<String>::new());
        default(&mut twice, &schema);
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    let mut schema = json!({});
    let mut value = json!(1);
    for _ in 0..DEPTH_MAX {
        schema = json!({"items": schema});
        value = json!([value]);
    }
    assert_eq!(judged(&schema, &value), Vec::<String>::new());
    assert_eq!(judged(&json!({"items": schema}), &json!([value])).len(), 1);
}
