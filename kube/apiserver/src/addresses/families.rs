//! Which families of addresses a Service has (KEP-563): what it asks for, what it had, and what the cluster has, in upstream's words.
//!
//! ```text
//!  ipFamilyPolicy, ipFamilies, clusterIPs ─▶ do they fit? ─▶ what is missing follows: policy, then families ─▶ addresses
//! ```
//! The first family and its address never change. The second comes with `PreferDualStack` or `RequireDualStack`, and goes with `SingleStack`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::Addresses;
use crate::kinds::rules;
use crate::status::FieldError;

const BOTH: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const FIELDS: [&str; 4] = ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"];

/// Completes policy and families of a Service that is no `ExternalName`, and takes away what it gives back.
pub(super) fn complete(of: &Addresses, spec: &mut Value, old: Option<&Value>) -> Result<(), Vec<FieldError>> {
    let none = json!(null);
    let before = old.filter(|old| old["type"] != "ExternalName");
    if is_empty(&spec["clusterIPs"]) && !text(&spec["clusterIP"]).is_empty() {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    let same = |field: &str, spec: &Value| before.unwrap_or(&none)[field] == spec[field];
    let prefers = |spec: &Value| spec["ipFamilyPolicy"] == "PreferDualStack";
    // It does not change by itself when the cluster has become another.
    if before.is_some_and(|old| prefers(old) && prefers(spec))
        && same("type", spec)
        && same("clusterIPs", spec)
        && same("ipFamilies", spec)
    {
        return Ok(());
    }
    let unselected = spec["clusterIP"] == "None" && spec["selector"].as_object().is_none_or(|labels| labels.is_empty());
    if text(&spec["ipFamilyPolicy"]).is_empty() {
        let kept = before.map(|old| &old["ipFamilyPolicy"]).filter(|policy| policy.is_string()).cloned();
        let usual = || if unselected { "RequireDualStack" } else { "SingleStack" }.into();
        spec["ipFamilyPolicy"] = kept.unwrap_or_else(usual);
    }
    contradictions(spec)?;
    let single = spec["ipFamilyPolicy"] == "SingleStack";
    let mut errors = Vec::new();
    for (field, one, many) in [("clusterIPs", "cluster IP", "cluster IPs"), ("ipFamilies", "IP family", "IP families")]
    {
        let policy = |why: String| FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &why);
        let had = before.map_or(0, |old| count(&old[field]));
        if single && same(field, spec) {
            if let Some(list) = spec[field].as_array_mut() {
                list.truncate(1);
            }
        } else if single && count(&spec[field]) == 2 {
            errors.push(policy(format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {many} are specified"
            )));
        } else if !single && (1..had).contains(&count(&spec[field])) {
            errors.push(policy(format!("must be 'SingleStack' to release the secondary {one}")));
        }
    }
    let mut families = texts(&spec["ipFamilies"]);
    for (place, address) in texts(&spec["clusterIPs"]).iter().enumerate().skip(families.len()) {
        let Some(family) = family_of(address) else { break };
        match of.range(family) {
            Some(_) => families.push(family.to_owned()),
            None => {
                let why = format!("{family} is not configured on this cluster");
                errors.push(FieldError::invalid(format!("spec.clusterIPs[{place}]"), &spec["clusterIPs"], &why));
            }
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    if !unselected {
        if spec["ipFamilyPolicy"] == "RequireDualStack" && of.v6.is_none() {
            let why = "this cluster is not configured for dual-stack services";
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], why));
        }
        for (place, family) in families.iter().enumerate().filter(|(_, family)| of.range(family).is_none()) {
            let path = format!("spec.ipFamilies[{place}]");
            errors.push(FieldError::invalid(path, &json!(family), "not configured on this cluster"));
        }
    }
    if families.is_empty() {
        families.push(BOTH[0].to_owned());
    }
    // Whoever makes the endpoints of a Service without a selector may have families that the cluster has not.
    if !single && families.len() == 1 && (unselected || of.v6.is_some()) {
        let other = BOTH.into_iter().find(|family| *family != families[0]);
        families.extend(other.map(str::to_owned));
    }
    spec["ipFamilies"] = json!(families);
    errors.extend(before.into_iter().flat_map(|old| changed(old, spec)));
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Takes from an `ExternalName` what it had as another type; it may have nothing of that.
pub(super) fn without(spec: &mut Value, old: Option<&Value>) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    for field in FIELDS {
        let kept = old.is_some_and(|old| old[field] == spec[field]);
        let nothing = is_empty(&spec[field]) || (field == "clusterIP" && spec[field] == "");
        if kept || nothing {
            super::without(spec, field);
        } else {
            // The one address is spoken of as the first of all.
            let field = if field == "clusterIP" { "clusterIPs" } else { field };
            errors.push(FieldError::forbidden(format!("spec.{field}"), "may not be set for ExternalName services"));
        }
    }
    errors.dedup_by(|a, b| a.field == b.field);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What contradicts itself, whatever the cluster has.
fn contradictions(spec: &Value) -> Result<(), Vec<FieldError>> {
    let (address, addresses, families) = (&spec["clusterIP"], &spec["clusterIPs"], texts(&spec["ipFamilies"]));
    let mut errors = Vec::new();
    let first = addresses.as_array().and_then(|all| all.first());
    if text(address).is_empty() && first.is_some() {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            addresses,
            "must be empty when `clusterIP` is not specified",
        ));
    } else if first.is_some_and(|first| first != address) {
        errors.push(FieldError::invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"));
    }
    for (place, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{place}]");
        if !BOTH.contains(&family.as_str()) {
            errors.push(FieldError::not_supported(&path, &json!(family), &BOTH));
        }
        if families[..place].contains(family) {
            errors.push(FieldError::duplicate(path, &json!(family)));
        }
    }
    if !POLICIES.contains(&text(&spec["ipFamilyPolicy"])) {
        errors.push(FieldError::not_supported("spec.ipFamilyPolicy", &spec["ipFamilyPolicy"], &POLICIES));
    }
    let all = addresses.as_array().map(Vec::as_slice).unwrap_or_default();
    let wrong = errors.len();
    if first.is_some_and(|first| first == "None") && all.len() > 1 {
        errors.push(FieldError::invalid("spec.clusterIPs", addresses, "'None' must be the first and only value"));
    }
    for (place, address) in all.iter().enumerate().filter(|(place, address)| *place > 0 || **address != "None") {
        let path = format!("spec.clusterIPs[{place}]");
        errors.extend(rules::ip(address).iter().map(|why| FieldError::invalid(&path, address, why)));
    }
    if all.len() > 2 {
        errors.push(FieldError::invalid("spec.clusterIPs", addresses, "may only hold up to 2 values"));
    }
    if errors.len() > wrong {
        return Err(errors);
    }
    let given: Vec<&str> = all.iter().filter_map(|address| family_of(text(address))).collect();
    if given.len() == 2 && given[0] == given[1] {
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid("spec.clusterIPs", addresses, why));
    }
    let other = given.iter().zip(&families).enumerate().filter(|(_, (family, said))| **family != said.as_str());
    for (place, (_, said)) in other {
        let why = format!("expected an {said} value as indicated by `ipFamilies[{place}]`");
        errors.push(FieldError::invalid(format!("spec.clusterIPs[{place}]"), &all[place], &why));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// What of a Service may not change once it is there.
fn changed(old: &Value, spec: &Value) -> Vec<FieldError> {
    const WHY: &str = "may not change once set";
    let (had, has) = (texts(&old["clusterIPs"]), texts(&spec["clusterIPs"]));
    let headless = |all: &[String]| all.first().is_some_and(|first| first == "None");
    if headless(&had) && headless(&has) {
        return Vec::new();
    }
    let differ = had.iter().zip(&has).enumerate().filter(|(_, (before, now))| before != now);
    let mut errors: Vec<FieldError> = differ
        .map(|(place, _)| FieldError::invalid(format!("spec.clusterIPs[{place}]"), &spec["clusterIPs"], WHY))
        .collect();
    let first = |spec: &Value| texts(&spec["ipFamilies"]).into_iter().next();
    let (before, now) = (first(old), first(spec));
    if headless(&had) == headless(&has) && before.is_some() && before != now {
        errors.push(FieldError::invalid("spec.ipFamilies[0]", &spec["ipFamilies"], WHY));
    }
    errors
}

fn family_of(address: &str) -> Option<&'static str> {
    Some(if address.parse::<IpAddr>().ok()?.is_ipv4() { BOTH[0] } else { BOTH[1] })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|entry| text(entry).to_owned()).collect()
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
