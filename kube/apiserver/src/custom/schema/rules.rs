//! Rules in CEL of a schema (`x-kubernetes-validations`), in the words of Kubernetes.
//!
//! A rule stands at a value, which it calls `self`. A *transition rule* speaks of `oldSelf`, too: it is asked about changes
//! only, of what can be found again in the object as it was (not items of lists that have no keys). What is as it was is not
//! judged again (*ratcheting*), but by transition rules.

use serde_json::{Value, json};

use super::validate::{join, type_name};
use super::{DEPTH_MAX, Schema};
use crate::cel::{self, Budget, Fail, Program};
use crate::kinds::Errors;
use crate::status::{FieldError, FieldReason};

/// A rule, read.
#[derive(Debug)]
pub struct Rule {
    program: Program,
    text: Box<str>,
    message: Option<Box<str>>,
    message_expression: Option<Program>,
    reason: FieldReason,
    /// As `.a.b`, from the value at which the rule stands.
    field: Box<str>,
    transition: bool,
    /// Whether a transition rule is asked about new values, too.
    optional_old: bool,
}

const NAMES: [&str; 2] = ["self", "oldSelf"];

/// The rules of a schema that was checked.
pub fn read(rules: &Value) -> Vec<Rule> {
    let text = |value: &Value| value.as_str().filter(|text| !text.trim().is_empty()).map(Into::into);
    let read = |rule: &Value| {
        let program = Program::compile(rule["rule"].as_str()?, &NAMES).ok()?;
        let message_expression = rule["messageExpression"].as_str();
        Some(Rule {
            transition: program.uses("oldSelf"),
            program,
            text: text(&rule["rule"])?,
            message: text(&rule["message"]),
            message_expression: message_expression.and_then(|text| Program::compile(text, &NAMES).ok()),
            reason: match rule["reason"].as_str() {
                Some("FieldValueRequired") => FieldReason::Required,
                Some("FieldValueForbidden") => FieldReason::Forbidden,
                Some("FieldValueDuplicate") => FieldReason::Duplicate,
                _ => FieldReason::Invalid,
            },
            field: text(&rule["fieldPath"]).unwrap_or_default(),
            optional_old: rule["optionalOldSelf"] == json!(true),
        })
    };
    rules.as_array().into_iter().flatten().filter_map(read).collect()
}

/// Judges the rules of a definition.
pub fn check(schema: &Value, path: &str, errors: &mut Errors) {
    check_at(schema, path, true, 0, errors);
}

/// `found_again` says whether a value here can be found in the object as it was.
fn check_at(schema: &Value, path: &str, found_again: bool, depth: usize, errors: &mut Errors) {
    if depth > DEPTH_MAX {
        return; // the schema is refused already
    }
    let rules = schema["x-kubernetes-validations"].as_array();
    let typed = rules.map(|_| Schema::read(schema));
    for (i, rule) in rules.into_iter().flatten().enumerate() {
        let at = |field: &str| format!("{path}.x-kubernetes-validations[{i}].{field}");
        let compiled = |field: &str| -> Option<Result<Program, FieldError>> {
            let text = rule[field].as_str()?;
            let program = Program::compile(text, &NAMES).and_then(|program| match &typed {
                Some(schema) => cel::fields::check(&program, schema).map(|()| program),
                None => Ok(program),
            });
            Some(program.map_err(|why| FieldError::invalid(at(field), &rule[field], &why)))
        };
        if rule["rule"].as_str().is_none_or(|text| text.trim().is_empty()) {
            errors.push(FieldError::required(at("rule"), "rule is not specified"));
            continue;
        }
        match compiled("rule") {
            Some(Err(error)) => errors.push(error),
            Some(Ok(program)) => {
                let transition = program.uses("oldSelf");
                if transition && !found_again {
                    let why =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {path}");
                    errors.push(FieldError::invalid(at("rule"), &rule["rule"], &why));
                }
                if !transition && rule["optionalOldSelf"] == json!(true) {
                    let why = "may not be set if oldSelf is not used in rule";
                    errors.push(FieldError::invalid(at("optionalOldSelf"), &rule["optionalOldSelf"], why));
                }
                if let Err(why) = program.expect_bool() {
                    errors.push(FieldError::invalid(at("rule"), &rule["rule"], &why));
                }
            }
            None => {}
        }
        if let Some(Err(error)) = compiled("messageExpression") {
            errors.push(error);
        }
        if rule["message"].as_str().is_some_and(|text| text.contains('\n')) {
            errors.push(FieldError::invalid(at("message"), &rule["message"], "message must not contain line breaks"));
        }
        let has_message = ["message", "messageExpression"].iter().any(|field| rule[*field].is_string());
        if !has_message && rule["rule"].as_str().is_some_and(|text| text.trim().contains('\n')) {
            errors.push(FieldError::required(at("message"), "message must be specified if rule contains line breaks"));
        }
        const REASONS: [&str; 4] =
            ["FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"];
        errors.one_of(&rule["reason"], at("reason"), &REASONS);
        if rule["fieldPath"].as_str().is_some_and(|text| !text.starts_with(['.', '['])) {
            let why = "must be a valid path, as .a.b";
            errors.push(FieldError::invalid(at("fieldPath"), &rule["fieldPath"], why));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_at(property, &format!("{path}.properties[{name}]"), found_again, depth + 1, errors);
    }
    for (word, again) in [("items", schema["x-kubernetes-list-type"] == "map"), ("additionalProperties", true)] {
        if schema[word].is_object() {
            check_at(&schema[word], &format!("{path}.{word}"), found_again && again, depth + 1, errors);
        }
    }
}

/// Judges an object that fits its schema by the schema's rules.
pub fn judge(object: &Value, old: Option<&Value>, schema: &Schema, errors: &mut Errors) {
    let mut budget = Budget::default();
    judge_at(object, old, schema, "", 0, errors, &mut budget);
    if budget.is_spent() {
        let why = "validation failed due to running out of cost budget, no further validation rules will be run";
        errors.push(FieldError::invalid("<nil>", &json!("object"), why));
    }
}

fn judge_at(
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: &str,
    depth: usize,
    errors: &mut Errors,
    budget: &mut Budget,
) {
    if !schema.ruled || depth > DEPTH_MAX || value.is_null() {
        return;
    }
    for rule in &schema.rules {
        if budget.is_spent() {
            return;
        }
        if let Some(error) = rule.judge(value, old, schema, path, budget) {
            errors.push(error);
        }
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(of) = schema.field(name) {
                    let before = old.and_then(|old| old.get(name));
                    judge_at(child, before, of, &join(path, name), depth + 1, errors, budget);
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                if let Some(of) = schema.item() {
                    let before = schema.item_before(old, item);
                    judge_at(item, before, of, &format!("{path}[{i}]"), depth + 1, errors, budget);
                }
            }
        }
        _ => {}
    }
}

impl Rule {
    fn judge(
        &self,
        value: &Value,
        old: Option<&Value>,
        schema: &Schema,
        path: &str,
        budget: &mut Budget,
    ) -> Option<FieldError> {
        let mut names = vec![("self", cel::Value::of(value, Some(schema)))];
        match (self.transition, old) {
            (true, None) if !self.optional_old => return None,
            (true, old) => {
                let before = old.map(|old| cel::Value::of(old, Some(schema)));
                let before = match (self.optional_old, before) {
                    (true, before) => cel::Value::Optional(before.map(std::sync::Arc::new)),
                    (false, before) => before.unwrap_or(cel::Value::Null),
                };
                names.push(("oldSelf", before));
            }
            (false, Some(old)) if old == value => return None,
            (false, _) => {}
        }
        let named = || self.message.as_deref().map_or_else(|| format!("failed rule: {}", self.text), str::to_owned);
        let why = match self.program.holds(&names, budget) {
            Ok(true) => return None,
            Ok(false) => {
                let computed = self.message_expression.as_ref().and_then(|program| program.run(&names, budget).ok());
                match computed {
                    Some(cel::Value::Text(text)) if !text.trim().is_empty() && !text.contains('\n') => text.to_string(),
                    _ => named(),
                }
            }
            Err(Fail::Over) => {
                format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    Fail::Over,
                    named()
                )
            }
            Err(Fail::Error(why)) if why.starts_with("no such overload") => {
                format!(
                    "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    named()
                )
            }
            Err(error) => format!("{error} evaluating rule: {}", named()),
        };
        let field = match (path, &*self.field) {
            ("", "") => "<nil>".to_owned(),
            (path, field) => format!("{path}{field}").trim_start_matches('.').to_owned(),
        };
        let kind = json!(type_name(value));
        Some(match self.reason {
            FieldReason::Required => FieldError::required(field, &why),
            FieldReason::Forbidden => FieldError::forbidden(field, &why),
            FieldReason::Duplicate => FieldError::duplicate(field, &kind),
            _ => FieldError::invalid(field, &kind, &why),
        })
    }
}
