//! Rules as tables: where a value stands below an object, and what it must be.
//!
//! ```text
//! Rule("ports[].hostPort",  Port)       ports[0].hostPort, ports[1].hostPort …
//! Rule("secret|configMap.defaultMode", …)   below either of the two
//! Rule("hostAliases[-].ip", …)          each, but upstream's messages leave the number out
//! ```
//!
//! What is not there is judged by [`Check::Required`] alone, and only if that in which it would be is there.

use std::net::IpAddr;

use serde_json::Value;

use super::validate::{Errors, NameRule, is_qualified_name, name_is_subdomain};
use crate::status::{FieldError, FieldReason};

/// One value and what is asked of it.
#[derive(Clone, Copy)]
pub struct Rule(pub &'static str, pub Check);

/// What is asked of a value.
#[derive(Clone, Copy)]
pub enum Check {
    /// There and not empty; with what is said besides.
    Required(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// At least the first, at most the second.
    Range(i64, i64),
    /// A port number that must be given.
    NeedsPort,
    /// A port number: what is not there is 0, which is none.
    IsPort,
    /// A port number that need not be given: 0 stands for none.
    Port,
    /// A port number, or the name of a port.
    PortOrName,
    /// A name of that form.
    Name(NameRule),
    /// Labels.
    Labels,
    /// A label selector.
    Selector,
    /// Exactly one of these members; what is said if there is none, and of each after the first.
    OneMember(&'static [&'static str], Option<&'static str>, &'static str),
    /// Whatever this says of it, line by line.
    Says(fn(&Value) -> Vec<&'static str>),
}

/// Judges `object`, which stands at `path`, by all of `rules`.
pub fn check(rules: &[Rule], object: &Value, path: &str, errors: &mut Errors) {
    for Rule(below, check) in rules {
        walk(below, check, object, path, errors);
    }
}

fn walk(below: &str, check: &Check, object: &Value, path: &str, errors: &mut Errors) {
    if below.is_empty() {
        return judge(check, object, path, errors);
    }
    if !object.is_object() {
        return;
    }
    let (part, rest) = below.split_once('.').unwrap_or((below, ""));
    for part in part.split('|') {
        let name = part.trim_end_matches("[]").trim_end_matches("[-]");
        let value = &object[name];
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if name == part {
            walk(rest, check, value, &path, errors);
            continue;
        }
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            let path = if part.ends_with("[]") { format!("{path}[{i}]") } else { path.clone() };
            walk(rest, check, item, &path, errors);
        }
    }
}

fn judge(check: &Check, value: &Value, path: &str, errors: &mut Errors) {
    match check {
        Check::Required(why) => {
            let empty = value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
            if value.is_null() || empty {
                errors.push(FieldError::required(path, why));
            }
        }
        Check::NeedsPort if value.is_null() || value.as_i64() == Some(0) => {
            errors.push(FieldError::required(path, ""));
        }
        Check::IsPort if value.is_null() => errors.range(&0.into(), path, 1, 65535),
        Check::Port if value.as_i64() == Some(0) => {}
        _ if value.is_null() => {}
        Check::OneOf(_) if value.as_str() == Some("") => {}
        Check::OneOf(words) => errors.one_of(value, path, words),
        Check::Range(low, high) => errors.range(value, path, *low, *high),
        Check::NeedsPort | Check::IsPort | Check::Port => errors.range(value, path, 1, 65535),
        Check::PortOrName => errors.port(value, path, true),
        Check::Name(rule) => rule
            .judge(value.as_str().unwrap_or_default())
            .iter()
            .for_each(|why| errors.push(FieldError::invalid(path, value, why))),
        Check::Labels => errors.labels(value, path),
        Check::Selector => errors.label_selector(value, path),
        Check::OneMember(members, none, more) => {
            let mut given = members.iter().filter(|member| !value[**member].is_null());
            if given.next().is_none()
                && let Some(none) = none
            {
                errors.push(FieldError::required(path, none));
            }
            given.for_each(|member| errors.push(FieldError::forbidden(format!("{path}.{member}"), more)));
        }
        Check::Says(says) => {
            says(value).into_iter().for_each(|why| errors.push(FieldError::invalid(path, value, why)));
        }
    }
}

/// Each of these items whose key an earlier one has.
pub fn unique<'a, K: PartialEq>(
    items: &'a Value,
    key: impl Fn(&'a Value) -> Option<K>,
    mut found: impl FnMut(usize, &'a Value),
) {
    let mut seen = Vec::new();
    for (i, item) in items.as_array().into_iter().flatten().enumerate() {
        if let Some(key) = key(item) {
            if seen.contains(&key) {
                found(i, item);
            }
            seen.push(key);
        }
    }
}

/// What is pointed at and is not there.
pub fn not_found(path: String, name: &str) -> FieldError {
    FieldError { reason: FieldReason::NotFound, field: path, message: format!("Not found: {name:?}") }
}

fn says(wrong: bool, why: &'static str) -> Vec<&'static str> {
    if wrong { vec![why] } else { Vec::new() }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An address of IP.
pub fn ip(value: &Value) -> Vec<&'static str> {
    let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    says(text(value).parse::<IpAddr>().is_err(), why)
}

/// An address of IP at which others can be reached (`ValidateNonSpecialIP` upstream).
pub fn reachable_ip(value: &Value) -> Vec<&'static str> {
    let Ok(ip) = text(value).parse::<IpAddr>() else { return self::ip(value) };
    let (local, group) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.segments()[0] & 0xffc0 == 0xfe80, ip.segments()[0] & 0xff0f == 0xff02),
    };
    let found = [
        (ip.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (group, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    found.into_iter().filter(|(wrong, _)| *wrong).map(|(_, why)| why).collect()
}

/// A range of addresses.
pub fn cidr(value: &Value) -> Vec<&'static str> {
    let fits = text(value).split_once('/').is_some_and(|(ip, bits)| {
        let most = ip.parse::<IpAddr>().map_or(0, |ip| if ip.is_ipv4() { 32 } else { 128 });
        most > 0 && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
    });
    says(!fits, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")
}

/// The name of a variable of the environment (KEP-4369: all that can be printed, without `=`).
pub fn variable(value: &Value) -> Vec<&'static str> {
    let fits = text(value).bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    says(!fits, "a valid environment variable name must consist only of printable ASCII characters other than '='")
}

/// A path that does not climb.
pub fn no_backsteps(value: &Value) -> Vec<&'static str> {
    says(text(value).split('/').any(|part| part == ".."), "must not contain '..'")
}

/// A path that stays below where it begins.
pub fn descending(value: &Value) -> Vec<&'static str> {
    let mut wrong = says(text(value).starts_with('/'), "must be a relative path");
    wrong.extend(no_backsteps(value));
    wrong
}

/// The bits of a file's mode.
pub fn mode(value: &Value) -> Vec<&'static str> {
    let fits = value.as_i64().is_some_and(|mode| (0..=0o777).contains(&mode));
    says(!fits, "must be a number between 0 and 0777 (octal), both inclusive")
}

/// Text without spaces around it.
pub fn trimmed(value: &Value) -> Vec<&'static str> {
    says(text(value) != text(value).trim(), "must not have leading or trailing whitespace")
}

/// 1, which is all that fits there.
pub fn one(value: &Value) -> Vec<&'static str> {
    says(value.as_i64().is_some_and(|n| n != 1), "must be 1")
}

/// A number above zero.
pub fn positive(value: &Value) -> Vec<&'static str> {
    says(value.as_i64().is_some_and(|n| n <= 0), "must be greater than zero")
}

/// A weight of a preference.
pub fn weight(value: &Value) -> Vec<&'static str> {
    says(value.as_i64().is_none_or(|n| !(1..=100).contains(&n)), "must be in the range 1-100")
}

/// The key of a label.
pub fn qualified_name(value: &Value) -> Vec<&'static str> {
    let name = text(value);
    let mut wrong = says(name.is_empty(), "name part must be non-empty");
    wrong.extend(says(!is_qualified_name(name), super::validate::QUALIFIED_NAME));
    wrong
}

/// A domain to search, which may end with a dot, or be one, and have underscores (KEP-4427).
pub fn search_domain(value: &Value) -> Vec<&'static str> {
    let domain = text(value).strip_suffix('.').unwrap_or(text(value)).replace('_', "a");
    says(text(value) != "." && !name_is_subdomain(&domain), super::validate::SUBDOMAIN)
}

/// The name of a kernel parameter.
pub fn sysctl(value: &Value) -> Vec<&'static str> {
    let part = |part: &str, dashes: &[u8]| {
        let bytes = part.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || dashes.contains(b))
    };
    let name = text(value);
    let fits = name.len() <= 253 && name.split(['.', '/']).all(|p| part(p, b"-_"));
    says(
        !fits,
        "must have at most 253 characters and match regex ([a-z0-9]([-_a-z0-9]*[a-z0-9])?\\.)*[a-z0-9]([-_a-z0-9]*[a-z0-9])?",
    )
}
