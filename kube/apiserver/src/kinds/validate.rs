//! Rules that many kinds share: names, labels, quantities, in upstream's words.

use serde_json::Value;
use substrate_client::quantity::Quantity;

use crate::status::FieldError;

/// How names of objects must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 label: 63 characters, no dots.
    Label,
    /// RFC 1123 subdomain: 253 characters.
    Subdomain,
    /// RFC 1035 label: as the first, but beginning with a letter.
    Dns1035,
    /// Anything that can be one part of a path.
    PathSegment,
}

impl NameRule {
    /// What is wrong with `name`, in upstream's words.
    pub fn judge(self, name: &str) -> Vec<String> {
        let mut wrong = Vec::new();
        let (most, fits, rule) = match self {
            Self::Label => (63, name_is_label(name), LABEL),
            Self::Subdomain => (253, name_is_subdomain(name), SUBDOMAIN),
            Self::Dns1035 => (63, name_is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), DNS_1035),
            Self::PathSegment => {
                for part in ["/", "%"].into_iter().filter(|part| name.contains(part)) {
                    wrong.push(format!("may not contain '{part}'"));
                }
                if matches!(name, "." | "..") {
                    wrong.push(format!("may not be '{name}'"));
                }
                return wrong;
            }
        };
        if name.len() > most {
            wrong.push(format!("must be no more than {most} characters"));
        }
        if !fits
            && (name.len() <= most
                || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.')))
        {
            wrong.push(rule.to_owned());
        }
        wrong
    }
}

/// The violations found so far. Bounded: a hostile object cannot make a long answer.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

const ERRORS_MAX: usize = 32;

impl Errors {
    /// One more.
    pub fn push(&mut self, error: FieldError) {
        if self.0.len() < ERRORS_MAX {
            self.0.push(error);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// `field` must be there.
    pub fn require(&mut self, value: &Value, field: impl Into<String>) {
        if value.is_null() || value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty) {
            self.push(FieldError::required(field, ""));
        }
    }

    /// A field that must not change.
    pub fn immutable(&mut self, old: &Value, new: &Value, field: &str) {
        if old != new {
            self.push(FieldError::invalid(field, new, "field is immutable"));
        }
    }

    /// `value`, if set, must be a number of at least 0.
    pub fn nonnegative(&mut self, value: &Value, field: impl Into<String>) {
        self.range(value, field, 0, i64::MAX);
    }

    /// Each of these fields of `object`, if set, must be a number of at least 0.
    pub fn all_nonnegative(&mut self, object: &Value, path: &str, fields: &[&str]) {
        for field in fields {
            self.nonnegative(&object[*field], format!("{path}.{field}"));
        }
    }

    /// A name within an object.
    pub fn named(&mut self, value: &Value, field: &str, rule: NameRule) {
        match value.as_str() {
            None | Some("") => self.push(FieldError::required(field, "")),
            Some(name) => {
                for why in rule.judge(name) {
                    self.push(FieldError::invalid(field, value, &why));
                }
            }
        }
    }

    /// A label selector, if set.
    pub fn label_selector(&mut self, selector: &Value, field: &str) {
        self.labels(&selector["matchLabels"], &format!("{field}.matchLabels"));
        for (i, demand) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
            let at = |name: &str| format!("{field}.matchExpressions[{i}].{name}");
            let values = demand["values"].as_array().map_or(0, Vec::len);
            match demand["operator"].as_str().unwrap_or_default() {
                "In" | "NotIn" if values == 0 => {
                    let why = "must be specified when `operator` is 'In' or 'NotIn'";
                    self.push(FieldError::required(at("values"), why));
                }
                "Exists" | "DoesNotExist" if values > 0 => {
                    let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    self.push(FieldError::forbidden(at("values"), why));
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                _ => {
                    self.push(FieldError::invalid(at("operator"), &demand["operator"], "not a valid selector operator"))
                }
            }
            if !demand["key"].as_str().is_some_and(is_qualified_name) {
                self.push(FieldError::invalid(at("key"), &demand["key"], QUALIFIED_NAME));
            }
            for value in demand["values"].as_array().into_iter().flatten() {
                if !value.as_str().is_some_and(is_label_value) {
                    self.push(FieldError::invalid(at("values"), value, LABEL_VALUE));
                }
            }
        }
    }

    /// `value`, if set, must be a number of at least 0 or a percentage.
    pub fn number_or_percent(&mut self, value: &Value, field: &str) {
        match value {
            Value::String(text) if percent(text).is_none() => {
                self.push(FieldError::invalid(field, value, PERCENT));
            }
            _ => self.nonnegative(value, field),
        }
    }

    /// A percentage of at most 100.
    pub fn at_most_100_percent(&mut self, value: &Value, field: &str) {
        if value.as_str().and_then(percent).is_some_and(|percent| percent > 100) {
            self.push(FieldError::invalid(field, value, "must not be greater than 100%"));
        }
    }

    /// `value`, if set, must be one of `supported`.
    pub fn one_of(&mut self, value: &Value, field: impl Into<String>, supported: &[&str]) {
        if let Some(text) = value.as_str()
            && !supported.contains(&text)
        {
            self.push(FieldError::not_supported(field, value, supported));
        }
    }

    /// `value`, if set, must be a number within the bounds.
    pub fn range(&mut self, value: &Value, field: impl Into<String>, low: i64, high: i64) {
        if let Some(number) = value.as_i64()
            && !(low..=high).contains(&number)
        {
            let detail = if high == i64::MAX {
                format!("must be greater than or equal to {low}")
            } else {
                format!("must be between {low} and {high}, inclusive")
            };
            self.push(FieldError::invalid(field, value, &detail));
        }
    }

    /// `value`, if set, must be a port number, or a port name when `names` are allowed.
    pub fn port(&mut self, value: &Value, field: &str, names: bool) {
        match value {
            Value::Number(_) => self.range(value, field, 1, 65535),
            Value::String(name) if names => {
                let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                let found = [
                    (name.len() > 15, "must be no more than 15 characters"),
                    (
                        !name.bytes().all(known),
                        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                    ),
                    (!name.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
                    (name.contains("--"), "must not contain consecutive hyphens"),
                    (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
                ];
                for (_, why) in found.into_iter().filter(|(wrong, _)| *wrong) {
                    self.push(FieldError::invalid(field, value, why));
                }
            }
            _ => {}
        }
    }

    /// Keys and values of a label map.
    pub fn labels(&mut self, labels: &Value, field: &str) {
        for (key, value) in labels.as_object().into_iter().flatten() {
            if !is_qualified_name(key) {
                self.push(FieldError::invalid(field, &Value::from(key.as_str()), QUALIFIED_NAME));
            }
            if let Some(text) = value.as_str()
                && !is_label_value(text)
            {
                self.push(FieldError::invalid(field, value, LABEL_VALUE));
            }
        }
    }

    /// Amounts of a `resources` map.
    pub fn quantities(&mut self, map: &Value, field: &str) {
        for (key, value) in map.as_object().into_iter().flatten() {
            let path = format!("{field}[{key}]");
            let text = value.as_str().unwrap_or_default();
            match text.parse::<Quantity>() {
                Err(rule) => self.push(FieldError::invalid(path, value, &rule.to_string())),
                Ok(amount) if amount.is_negative() => {
                    self.push(FieldError::invalid(path, value, "must be greater than or equal to 0"));
                }
                Ok(_) => {}
            }
        }
    }
}

/// What the key of a label must look like, in upstream's words.
pub const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
/// What a label of RFC 1035 must look like, in upstream's words.
pub const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// What a label must look like, in upstream's words.
pub const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// What a subdomain must look like, in upstream's words.
pub const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// The number of `93%`.
pub fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) { None } else { digits.parse().ok() }
}

/// The number, or that of a percentage; 0 for neither (`getIntOrPercentValue` upstream).
pub fn number_or_percent(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(percent)).unwrap_or(0)
}

/// RFC 1123 label: at most 63 of `a-z0-9-`, beginning and ending with a letter or digit.
pub fn name_is_label(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    name.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// RFC 1123 subdomain: labels (of any length) joined by dots, at most 253 characters.
pub fn name_is_subdomain(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(|part| {
            let bytes = part.as_bytes();
            edge(bytes.first())
                && edge(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        })
}

fn is_name_part(name: &str) -> bool {
    let bytes = name.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    !name.is_empty()
        && name.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `[PREFIX/]NAME`, as label keys are.
pub fn is_qualified_name(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, name)) => name_is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(name),
    }
}

/// As label values are.
pub fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name_part(value)
}
