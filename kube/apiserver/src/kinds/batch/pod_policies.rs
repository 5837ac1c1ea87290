//! What a job makes of pods that fail, and when enough have succeeded.

use serde_json::Value;

use crate::kinds::Errors;
use crate::status::{FieldError, FieldReason};
use crate::table::list;

/// As upstream.
const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;
const PATTERNS_MAX: usize = 20;

fn too_many(field: String, given: usize, most: usize) -> FieldError {
    FieldError {
        reason: FieldReason::TooMany,
        field,
        message: format!("Too many: {given}: must have at most {most} items"),
    }
}

/// Judges `podFailurePolicy`.
pub fn failure(spec: &Value, path: &str, errors: &mut Errors) {
    let policy = &spec["podFailurePolicy"];
    if !policy.is_object() {
        return;
    }
    let rules = list(&policy["rules"]);
    let at = format!("{path}.podFailurePolicy.rules");
    if rules.len() > RULES_MAX {
        errors.push(too_many(at.clone(), rules.len(), RULES_MAX));
    }
    let containers: Vec<&Value> = ["initContainers", "containers"]
        .into_iter()
        .flat_map(|kind| list(&spec["template"]["spec"][kind]))
        .map(|container| &container["name"])
        .collect();
    for (i, rule) in rules.iter().enumerate().take(RULES_MAX) {
        let at = format!("{at}[{i}]");
        let mut actions = vec!["Count", "FailIndex", "FailJob", "Ignore"];
        if spec["backoffLimitPerIndex"].is_null() {
            actions.remove(1);
            if rule["action"] == "FailIndex" {
                let why = "requires the backoffLimitPerIndex to be set";
                errors.push(FieldError::invalid(format!("{at}.action"), &rule["action"], why));
                actions.push("FailIndex");
            }
        }
        errors.require(&rule["action"], format!("{at}.action"));
        if rule["action"] != "" {
            errors.one_of(&rule["action"], format!("{at}.action"), &actions);
        }
        exit_codes(&rule["onExitCodes"], &format!("{at}.onExitCodes"), &containers, errors);
        let patterns = list(&rule["onPodConditions"]);
        if patterns.len() > PATTERNS_MAX {
            errors.push(too_many(format!("{at}.onPodConditions"), patterns.len(), PATTERNS_MAX));
        }
        for (k, pattern) in patterns.iter().enumerate().take(PATTERNS_MAX) {
            let at = format!("{at}.onPodConditions[{k}]");
            errors.require(&pattern["type"], format!("{at}.type"));
            errors.one_of(&pattern["status"], format!("{at}.status"), &["False", "True", "Unknown"]);
        }
        match (rule["onExitCodes"].is_object(), !patterns.is_empty()) {
            (true, true) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid(at, rule, why));
            }
            (false, false) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid(at, rule, why));
            }
            _ => {}
        }
    }
}

fn exit_codes(demand: &Value, path: &str, containers: &[&Value], errors: &mut Errors) {
    if !demand.is_object() {
        return;
    }
    errors.require(&demand["operator"], format!("{path}.operator"));
    errors.one_of(&demand["operator"], format!("{path}.operator"), &["In", "NotIn"]);
    let name = &demand["containerName"];
    if name.is_string() && !containers.contains(&name) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{path}.containerName"), name, why));
    }
    let codes = list(&demand["values"]);
    let at = format!("{path}.values");
    if codes.is_empty() {
        errors.push(FieldError::invalid(at.as_str(), &demand["values"], "at least one value is required"));
    } else if codes.len() > CODES_MAX {
        errors.push(too_many(at.clone(), codes.len(), CODES_MAX));
    }
    let mut ordered = true;
    for (i, code) in codes.iter().enumerate().take(CODES_MAX) {
        if *code == 0 && demand["operator"] == "In" {
            errors.push(FieldError::invalid(format!("{at}[{i}]"), code, "must not be 0 for the In operator"));
        }
        if i > 0 && codes[i - 1] == *code {
            errors.push(FieldError::duplicate(format!("{at}[{i}]"), code));
        } else if i > 0 && codes[i - 1].as_i64() > code.as_i64() {
            ordered = false;
        }
    }
    if !ordered {
        errors.push(FieldError::invalid(at, &demand["values"], "must be ordered"));
    }
}

/// Judges `successPolicy`.
pub fn success(spec: &Value, path: &str, errors: &mut Errors) {
    let policy = &spec["successPolicy"];
    if !policy.is_object() {
        return;
    }
    let at = format!("{path}.successPolicy");
    if spec["completionMode"] != "Indexed" {
        errors.push(FieldError::invalid(at.as_str(), policy, "requires indexed completion mode"));
        return;
    }
    let rules = list(&policy["rules"]);
    if rules.is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(format!("{at}.rules"), why));
    } else if rules.len() > RULES_MAX {
        errors.push(too_many(format!("{at}.rules"), rules.len(), RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate().take(RULES_MAX) {
        let at = format!("{at}.rules[{i}]");
        if rule["succeededCount"].is_null() && rule["succeededIndexes"].is_null() {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(at.as_str(), why));
        }
        errors.nonnegative(&rule["succeededCount"], format!("{at}.succeededCount"));
        if rule["succeededCount"].as_i64() > spec["completions"].as_i64() {
            let why =
                format!("must be less than or equal to {} (the number of specified completions)", spec["completions"]);
            errors.push(FieldError::invalid(format!("{at}.succeededCount"), &rule["succeededCount"], &why));
        }
        let Some(text) = rule["succeededIndexes"].as_str() else { continue };
        match indexes(text, spec["completions"].as_i64().unwrap_or(0)) {
            Ok(total) if rule["succeededCount"].as_i64().is_some_and(|count| count > total) => {
                let why = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                errors.push(FieldError::invalid(format!("{at}.succeededCount"), &rule["succeededCount"], &why));
            }
            Ok(_) => {}
            Err(why) => {
                let why = format!("error parsing succeededIndexes: {why}");
                errors.push(FieldError::invalid(format!("{at}.succeededIndexes"), &rule["succeededIndexes"], &why));
            }
        }
    }
}

/// How many indexes `0,2-4` names.
fn indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    if text.is_empty() {
        return Ok(0);
    }
    for part in text.split(',') {
        let ends: Vec<&str> = part.split('-').collect();
        if ends.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let number = |text: &str| {
            let number: i64 =
                text.parse().map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
            if number >= completions { Err(format!("too large index: {text:?}")) } else { Ok(number) }
        };
        let low = number(ends[0])?;
        if last.is_some_and(|last| low <= last) {
            return Err(format!("non-increasing order, previous: {}, current: {low}", last.unwrap_or(0)));
        }
        let high = ends.get(1).map_or(Ok(low), |text| number(text))?;
        if ends.len() == 2 && high <= low {
            return Err(format!("non-increasing order, previous: {low}, current: {high}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}
