//! Rules that many kinds share: names, labels, quantities, in upstream's words.

use serde_json::Value;
use substrate_client::quantity::Quantity;

use crate::status::FieldError;

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
                let fits = name.len() <= 15
                    && name_is_label(name)
                    && name.bytes().any(|b| b.is_ascii_lowercase())
                    && !name.contains("--");
                if !fits {
                    self.push(FieldError::invalid(
                        field,
                        value,
                        "must be a valid port name: at most 15 lower case alphanumeric characters or '-', with at least one letter",
                    ));
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

const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
/// What a label must look like, in upstream's words.
pub const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
/// What a subdomain must look like, in upstream's words.
pub const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

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
