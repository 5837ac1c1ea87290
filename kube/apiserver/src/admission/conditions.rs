//! Match conditions: expressions that must all hold before a webhook or a policy is asked.

use serde_json::Value;

use super::Request;
use crate::authorization::Attributes;
use crate::cel::{self, Budget, Fail, Program};
use crate::kinds::Errors;
use crate::server::ApiServer;
use crate::status::FieldError;

/// What conditions of webhooks may speak of, and at the end the one field that something of it has; those of policies may also speak of
/// parameters and the namespace.
pub(crate) const WEBHOOK: [&str; 5] = ["object", "oldObject", "request", "authorizer", "authorizer.requestResource"];
/// What expressions of policies may speak of.
pub(crate) const POLICY: [&str; 7] =
    ["object", "oldObject", "request", "params", "namespaceObject", "authorizer", "authorizer.requestResource"];
/// Conditions of one webhook or policy (as upstream).
const MOST: usize = 64;

/// `authorizer` of a request.
pub(super) fn authorizer<'a>(server: &'a ApiServer, request: &Request<'_>) -> cel::Value<'a> {
    let sub = if request.subresource.is_empty() { String::new() } else { format!("/{}", request.subresource) };
    let asked = Attributes {
        group: request.group.to_owned(),
        resource: format!("{}{sub}", request.plural),
        namespace: request.namespace.to_owned(),
        name: request.name.to_owned(),
        ..Attributes::default()
    };
    cel::Check::begin(server, request.user, asked)
}

/// Conditions, read.
pub(super) struct Conditions(Vec<(String, Program)>);

impl Conditions {
    /// Reads a list of them.
    ///
    /// # Errors
    /// One that is none, in words.
    pub fn read(conditions: &Value, names: &[&str]) -> Result<Self, String> {
        let read = |condition: &Value| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            Program::compile(text("expression"), names).map(|program| (text("name").to_owned(), program))
        };
        conditions.as_array().into_iter().flatten().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not outweighs one that fails.
    ///
    /// # Errors
    /// What the first one that fails says.
    pub fn hold<'a>(&'a self, names: &[(&'a str, cel::Value<'a>)], budget: &mut Budget) -> Result<bool, String> {
        let mut failed = None;
        for (name, program) in &self.0 {
            match program.holds(names, budget) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(Fail::Over) => return Err(Fail::Over.to_string()),
                Err(error) => failed = failed.or(Some(format!("match condition {name:?} failed: {error}"))),
            }
        }
        failed.map_or(Ok(true), Err)
    }
}

/// Judges a list of conditions.
pub(crate) fn check(conditions: &Value, field: &str, names: &[&str], errors: &mut Errors) {
    let list = conditions.as_array().map(Vec::as_slice).unwrap_or_default();
    if list.len() > MOST {
        let reason = crate::status::FieldReason::TooMany;
        let message = format!("Too many: {}: must have at most {MOST} items", list.len());
        return errors.push(FieldError { reason, field: field.to_owned(), message });
    }
    for (i, condition) in list.iter().enumerate() {
        check_truth(&condition["expression"], &format!("{field}[{i}].expression"), names, errors);
        let at = format!("{field}[{i}].name");
        match condition["name"].as_str() {
            None | Some("") => errors.push(FieldError::required(at, "")),
            Some(name) if !crate::kinds::is_qualified_name(name) => {
                errors.push(FieldError::invalid(at, &condition["name"], crate::kinds::QUALIFIED_NAME));
            }
            Some(_) if list[..i].iter().any(|other| other["name"] == condition["name"]) => {
                errors.push(FieldError::duplicate(at, &condition["name"]));
            }
            Some(_) => {}
        }
    }
}

/// Judges an expression that must come to a truth.
pub(crate) fn check_truth(expression: &Value, field: &str, names: &[&str], errors: &mut Errors) {
    judge(expression, field, names, errors, Program::expect_bool);
}

/// Judges an expression.
pub(crate) fn check_any(expression: &Value, field: &str, names: &[&str], errors: &mut Errors) {
    judge(expression, field, names, errors, Ok);
}

fn judge(
    expression: &Value,
    field: &str,
    names: &[&str],
    errors: &mut Errors,
    more: fn(Program) -> Result<Program, String>,
) {
    match expression.as_str().filter(|text| !text.trim().is_empty()) {
        None => errors.push(FieldError::required(field, "expression is not specified")),
        Some(text) => {
            if let Err(why) = Program::compile(text, names).and_then(more) {
                errors.push(FieldError::invalid(field, expression, &why));
            }
        }
    }
}
