//! Label and field selectors.

use serde_json::Value;

use crate::status::Status;

/// One demand on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
    /// Of whole numbers.
    Above(String, i64),
    Below(String, i64),
}

/// A label selector; an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Vec<Demand>);

impl Labels {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// 400, with the part that is no selector.
    pub fn parse(text: &str) -> Result<Self, Status> {
        split(text).into_iter().map(demand).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a `LabelSelector` object: `matchLabels` and `matchExpressions`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_object(selector: &Value) -> Result<Self, String> {
        let mut demands = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            demands.push(Demand::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()]));
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            let values: Vec<String> = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|v| v.as_str().map(str::to_owned))
                .collect();
            demands.push(match expression["operator"].as_str() {
                Some("In") if !values.is_empty() => Demand::In(key, values),
                Some("NotIn") if !values.is_empty() => Demand::NotIn(key, values),
                Some("In" | "NotIn") => {
                    return Err("values: must be specified when `operator` is 'In' or 'NotIn'".into());
                }
                Some("Exists") => Demand::Exists(key),
                Some("DoesNotExist") => Demand::Absent(key),
                other => return Err(format!("{:?} is not a valid label selector operator", other.unwrap_or_default())),
            });
        }
        Ok(Self(demands))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a label map fits.
    pub fn matches(&self, labels: &Value) -> bool {
        let value = |key: &str| labels[key].as_str();
        self.0.iter().all(|demand| match demand {
            Demand::In(key, values) => value(key).is_some_and(|v| values.iter().any(|x| x == v)),
            Demand::NotIn(key, values) => value(key).is_none_or(|v| values.iter().all(|x| x != v)),
            Demand::Exists(key) => value(key).is_some(),
            Demand::Absent(key) => value(key).is_none(),
            Demand::Above(key, than) => number(value(key)).is_some_and(|n| n > *than),
            Demand::Below(key, than) => number(value(key)).is_some_and(|n| n < *than),
        })
    }
}

fn number(text: Option<&str>) -> Option<i64> {
    text.and_then(|text| text.parse().ok())
}

/// Splits at commas that are not inside parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|p| !p.is_empty()).collect()
}

fn demand(part: &str) -> Result<Demand, Status> {
    let wrong = || {
        Status::bad_request(format!(
            "unable to parse requirement: found {part:?}, expected: KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (A,B) or KEY notin (A,B)"
        ))
    };
    let checked = |key: &str, demand: Demand| {
        if crate::kinds::is_qualified_name(key) { Ok(demand) } else { Err(wrong()) }
    };
    let owned = |s: &str| s.trim().to_owned();
    for (word, negated) in [(" notin ", true), (" in ", false)] {
        if let Some((key, list)) = part.split_once(word) {
            let inner = list.trim().strip_prefix('(').and_then(|l| l.strip_suffix(')')).ok_or_else(wrong)?;
            let values = inner.split(',').map(owned).collect();
            let key = owned(key);
            return checked(&key.clone(), if negated { Demand::NotIn(key, values) } else { Demand::In(key, values) });
        }
    }
    if let Some((key, value)) = part.split_once("!=") {
        return checked(key.trim(), Demand::NotIn(owned(key), vec![owned(value)]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return checked(key.trim(), Demand::In(owned(key), vec![owned(value)]));
    }
    for (sign, demand) in [('>', Demand::Above as fn(String, i64) -> Demand), ('<', Demand::Below)] {
        if let Some((key, than)) = part.split_once(sign) {
            let than = number(Some(than.trim())).ok_or_else(wrong)?;
            return checked(key.trim(), demand(owned(key), than));
        }
    }
    match part.strip_prefix('!') {
        Some(key) => checked(key.trim(), Demand::Absent(owned(key))),
        None => checked(part, Demand::Exists(owned(part))),
    }
}

/// A field selector: `metadata.name=a,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, bool, String)>);

/// Fields that can be selected besides `metadata.name` and `metadata.namespace`, by plural.
const SELECTABLE: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("secrets", &["type"]),
    ("namespaces", &["status.phase"]),
    ("nodes", &["spec.unschedulable"]),
    ("replicasets", &["status.replicas"]),
    ("services", &["spec.clusterIP", "spec.type"]),
];

impl Fields {
    /// Reads a selector for objects of `plural`, which can also be selected by the fields `own`.
    ///
    /// # Errors
    /// 400 for what is no selector or a field that cannot be selected.
    pub fn parse(text: &str, plural: &str, own: &[String]) -> Result<Self, Status> {
        let mut demands = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, equal, value) = if let Some((key, value)) = part.split_once("!=") {
                (key, false, value)
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                (key, true, value)
            } else {
                return Err(Status::bad_request(format!("invalid selector: '{text}'; can't understand '{part}'")));
            };
            let mut known = SELECTABLE.iter().filter(|(p, _)| *p == plural).flat_map(|(_, fields)| fields.iter());
            let usual = own.is_empty() && known.clone().next().is_none();
            let known = known.any(|field| *field == key) || own.iter().any(|field| field == key);
            if !matches!(key, "metadata.name" | "metadata.namespace") && !known {
                return Err(Status::bad_request(if usual {
                    format!("{key:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                } else {
                    format!("field label not supported: {key}")
                }));
            }
            demands.push((key.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(demands))
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one name that can match, if the selector names one.
    pub fn name(&self) -> Option<&str> {
        self.0.iter().find(|(key, equal, _)| key == "metadata.name" && *equal).map(|(_, _, value)| value.as_str())
    }

    /// Whether an object fits, of which `at` tells what stands at a path.
    pub fn matches(&self, at: impl Fn(&str) -> Value) -> bool {
        self.0.iter().all(|(key, equal, wanted)| {
            let shown = match at(if key == "source" { "source.component" } else { key }) {
                Value::String(text) => text,
                Value::Null if key == "spec.hostNetwork" || key == "spec.unschedulable" => "false".into(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (shown == *wanted) == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        let labels = json!({"app": "web", "tier": "front"});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("tier,!gone", true),
            ("!tier", false),
            ("gone!=x", true),
        ] {
            assert_eq!(Labels::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        assert!(Labels::parse("a in b").is_err());
        assert!(Labels::parse("a b=c").is_err());
    }

    #[test]
    fn fields() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (text, expected) in
            [("metadata.name=a", true), ("spec.nodeName!=n", false), ("status.phase=Running,spec.nodeName=n", true)]
        {
            let at = |path: &str| path.split('.').fold(&pod, |value, name| &value[name]).clone();
            assert_eq!(Fields::parse(text, "pods", &[]).unwrap().matches(at), expected, "{text}");
        }
        assert_eq!(Fields::parse("spec.x=1", "pods", &[]).unwrap_err().message, "field label not supported: spec.x");
    }
}
