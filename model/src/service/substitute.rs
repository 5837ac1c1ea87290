//! Placeholders and what takes their place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// How a placeholder begins and ends, as in the official blueprints.
const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Returns the name of a text that is one placeholder, `{{ .name }}`; `None` for any other text.
fn placeholder(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix(OPEN)?.strip_suffix(CLOSE)?.trim();
    let name = inner.strip_prefix('.')?;
    is_name(name).then_some(name)
}

/// Says whether a text is one placeholder.
pub(super) fn is_placeholder(text: &str) -> bool {
    placeholder(text).is_some()
}

/// Says whether a text may be the name of a placeholder, a property and a key of a Secret.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && text.len() <= 64
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Collects the names of all placeholders.
///
/// # Errors
/// The text in which a placeholder is only a part, or is no name.
pub(super) fn collect(value: &Value, names: &mut BTreeSet<String>) -> Result<(), String> {
    match value {
        Value::String(text) => match placeholder(text) {
            Some(name) => {
                names.insert(name.to_owned());
                Ok(())
            }
            None if text.contains(OPEN) => Err(text.chars().take(80).collect()),
            None => Ok(()),
        },
        Value::Array(items) => items.iter().try_for_each(|item| collect(item, names)),
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| {
            if key.contains(OPEN) {
                return Err(key.chars().take(80).collect());
            }
            collect(value, names)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

/// Puts values in the place of their placeholders. Values are not looked into: one that looks like a placeholder stays what it is.
pub(super) fn fill(value: &mut Value, values: &BTreeMap<String, Value>) {
    match value {
        Value::String(text) => {
            if let Some(filled) = placeholder(text).and_then(|name| values.get(name)) {
                *value = filled.clone();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, values)),
        Value::Object(fields) => fields.values_mut().for_each(|value| fill(value, values)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_placeholder_is_a_whole_value() {
        for (text, name) in [
            ("{{ .username }}", Some("username")),
            ("{{.username}}", Some("username")),
            ("{{ .db_name2 }}", Some("db_name2")),
            ("x{{ .username }}", None),
            ("{{ username }}", None),
            ("{{ .user name }}", None),
            ("{{ .a }}{{ .b }}", None),
            ("{{ .2 }}", None),
            ("username", None),
        ] {
            assert_eq!(placeholder(text), name, "{text}");
        }
        let mut names = BTreeSet::new();
        assert_eq!(collect(&json!({"a": ["--user={{ .user }}"]}), &mut names).unwrap_err(), "--user={{ .user }}");
        assert_eq!(collect(&json!({"{{ .key }}": 1}), &mut names).unwrap_err(), "{{ .key }}");
        collect(&json!({"a": ["{{ .one }}", {"b": "{{ .two }}"}]}), &mut names).unwrap();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["one", "two"]);
    }

    proptest! {
        /// Whatever a buyer says, it is one value in one place, and everything else stays as its owner wrote it.
        #[test]
        fn what_is_filled_in_changes_nothing_around_it(text in ".*") {
            let template = json!({"keep": "{{ .other }}", "args": ["--password", "{{ .password }}"], "n": 1});
            let mut filled = template.clone();
            fill(&mut filled, &BTreeMap::from([("password".to_owned(), Value::String(text.clone()))]));
            prop_assert_eq!(&filled["args"], &json!(["--password", text]));
            prop_assert_eq!((&filled["keep"], &filled["n"]), (&template["keep"], &template["n"]));
            prop_assert_eq!(filled.as_object().unwrap().len(), 3);
        }
    }
}
