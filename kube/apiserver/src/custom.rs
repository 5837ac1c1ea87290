//! Custom kinds: what a CustomResourceDefinition adds while the server runs.
//!
//! One [`Kind`] is made for each served version. All versions of a definition share their stored objects; the
//! conversion `None` changes `apiVersion` alone, the other asks a webhook ([`conversion`]).

pub mod conversion;
pub mod schema;

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use self::conversion::Conversion;
use self::schema::Schema;

use crate::kinds::description::SCALE;
use crate::kinds::{Column, Decoded, Errors, Kind, NameRule, Names, Rules};
use crate::schema::View;
use crate::status::Status;
use crate::table;

/// The rules of one version of a custom kind.
pub struct CustomKind {
    schema: Box<Schema>,
    columns: Vec<(Column, String)>,
    scale: Option<Scale>,
    conversion: Option<Arc<Conversion>>,
    /// Fields by which objects are selected, as `spec.color`.
    pub selectable: Vec<String>,
}

/// Where the subresource `scale` finds what it shows, as `.spec.replicas`.
struct Scale {
    wanted: String,
    observed: String,
    selector: String,
}

/// The kinds that a definition serves; none while its names are not accepted.
pub fn kinds(definition: &Value) -> Vec<Arc<Kind>> {
    let spec = &definition["spec"];
    let text = |v: &Value| Cow::Owned(v.as_str().unwrap_or_default().to_owned());
    let list = |v: &Value| v.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let conversion = Conversion::read(definition);
    let served = spec["versions"].as_array().into_iter().flatten().filter(|v| v["served"] == json!(true));
    served
        .map(|version| {
            Arc::new(Kind {
                names: Names {
                    group: text(&spec["group"]),
                    version: text(&version["name"]),
                    kind: text(&spec["names"]["kind"]),
                    plural: text(&spec["names"]["plural"]),
                    singular: text(&spec["names"]["singular"]),
                    short: list(&spec["names"]["shortNames"]),
                    categories: list(&spec["names"]["categories"]),
                },
                namespaced: spec["scope"] == "Namespaced",
                has_status: version["subresources"]["status"].is_object(),
                counts: true,
                subresources: if version["subresources"]["scale"].is_object() { SCALE } else { &[] },
                name_rule: NameRule::Subdomain,
                verbs: crate::kinds::description::VERBS,
                face: None,
                rules: Rules::Custom(CustomKind::new(version, conversion.clone())),
            })
        })
        .collect()
}

/// What the server says of a definition: names accepted, kinds served.
pub fn status(definition: &Value) -> Value {
    let (now, before) = (crate::object::now(), &definition["status"]);
    let condition = |kind: &str, reason: &str, message: &str| json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now });
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let mut stored: Vec<&Value> = before["storedVersions"].as_array().into_iter().flatten().collect();
    for version in versions.filter(|v| v["storage"] == json!(true)).map(|v| &v["name"]) {
        if !stored.contains(&version) {
            stored.push(version);
        }
    }
    let conditions = match &before["conditions"] {
        Value::Array(before) if !before.is_empty() => json!(before),
        _ => json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ]),
    };
    json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": conditions,
    })
}

impl CustomKind {
    fn new(version: &Value, conversion: Option<Arc<Conversion>>) -> Self {
        let given = version["additionalPrinterColumns"].as_array().into_iter().flatten();
        let usual =
            |heading, path: &'static str| crate::kinds::columns(heading).map(|column| (column, path.to_owned()));
        let mut columns: Vec<_> = usual("Name", ".metadata.name").collect();
        let owned = |v: &Value| Cow::Owned(v.as_str().unwrap_or_default().to_owned());
        columns.extend(given.map(|column| {
            let shown = Column {
                name: owned(&column["name"]),
                kind: owned(&column["type"]),
                format: owned(&column["format"]),
                priority: column["priority"].as_i64().unwrap_or(0) as i32,
                description: owned(&column["description"]),
            };
            (shown, column["jsonPath"].as_str().unwrap_or_default().to_owned())
        }));
        if columns.len() == 1 {
            columns.extend(usual("Age:date", ".metadata.creationTimestamp"));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let scale = Some(&version["subresources"]["scale"]).filter(|scale| scale.is_object()).map(|scale| Scale {
            wanted: text(&scale["specReplicasPath"]),
            observed: text(&scale["statusReplicasPath"]),
            selector: text(&scale["labelSelectorPath"]),
        });
        let selectable = version["selectableFields"].as_array().into_iter().flatten();
        let selectable = selectable.map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned()).collect();
        let schema = Box::new(Schema::read(&version["schema"]["openAPIV3Schema"]));
        Self { schema, columns, scale, conversion, selectable }
    }

    /// Replicas wanted and observed, and the selector, as `scale` shows them.
    ///
    /// # Errors
    /// When the object does not say how many are wanted.
    pub fn scale(&self, object: &Value) -> Result<(Value, Value, Value), Status> {
        let Some(scale) = &self.scale else { return Err(Status::no_resource()) };
        let wanted = json_path(object, &scale.wanted).filter(|wanted| wanted.is_i64());
        let wanted = wanted
            .ok_or_else(|| Status::internal(format!("the spec replicas field {:?} does not exist", scale.wanted)))?;
        let observed = json_path(object, &scale.observed).and_then(Value::as_i64).unwrap_or(0);
        let selector = Some(&scale.selector).filter(|path| !path.is_empty()).and_then(|path| json_path(object, path));
        Ok((wanted.clone(), observed.into(), selector.and_then(Value::as_str).unwrap_or_default().into()))
    }

    /// Writes how many replicas are wanted.
    pub fn set_replicas(&self, object: &mut Value, replicas: i64) {
        let Some(scale) = &self.scale else { return };
        let mut at = object;
        let mut names = scale.wanted.split('.').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                at[name] = replicas.into();
                return;
            }
            crate::object::child(at, name);
            at = &mut at[name];
        }
    }

    /// What appliers see of its objects.
    pub fn view(&self) -> View<'_> {
        View::Custom(&self.schema, true)
    }

    /// The schema in OpenAPI's words.
    pub fn openapi(&self) -> Value {
        self.schema.openapi()
    }

    /// Drops what the schema does not know.
    pub fn prune(&self, mut object: Value) -> Decoded {
        let unknown = schema::prune(&mut object, &self.schema);
        Decoded { object, unknown }
    }

    /// Fills in the schema's defaults.
    pub fn default(&self, object: &mut Value) {
        schema::default(object, &self.schema);
    }

    /// Judges an object against the schema, then by its rules.
    pub fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let before = errors.len();
        schema::validate(object, old, &self.schema, errors);
        if errors.len() == before {
            schema::rules::judge(object, old, &self.schema, errors);
        }
    }

    /// The columns that the definition names.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.iter().map(|(column, _)| column.clone()).collect()
    }

    /// One row.
    pub fn cells(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        self.columns
            .iter()
            .map(|(column, path)| {
                let value = json_path(object, path);
                match (column.kind.as_ref(), value) {
                    ("date", Some(Value::String(at))) => table::since(at, now).into(),
                    (_, Some(value @ (Value::Object(_) | Value::Array(_)))) => value.to_string().into(),
                    ("string", Some(Value::Null) | None) => "".into(),
                    (_, Some(value)) => value.clone(),
                    (_, None) => Value::Null,
                }
            })
            .collect()
    }
}

/// The value at a JSONPath as columns have them: `.a.b[0].c`, `.a['b.c']`, `.a.b\.c`, and the first of
/// `.conditions[?(@.type=="Ready")].status` and of `.items[*].name`.
fn json_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut value = object;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("[?(@") {
            let (wanted, after) = tail.split_once(")]")?;
            let (inner, text) = wanted.split_once("==")?;
            let text = text.trim().trim_matches(['\'', '"']);
            let is_it = |element: &&Value| match json_path(element, inner.trim()) {
                Some(Value::String(found)) => found == text,
                Some(Value::Bool(found)) => text.parse() == Ok(*found),
                Some(Value::Number(found)) => found.to_string().as_str() == text,
                _ => false,
            };
            value = value.as_array()?.iter().find(is_it)?;
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix("[*]") {
            value = value.as_array()?.first()?;
            rest = after;
            continue;
        }
        if let Some(tail) = rest.strip_prefix('[') {
            let (index, after) = tail.split_once(']')?;
            value = match index.trim_matches(['\'', '"']) {
                quoted if quoted.len() != index.len() => value.get(quoted)?,
                number => value.get(number.parse::<usize>().ok()?)?,
            };
            rest = after;
            continue;
        }
        let tail = rest.strip_prefix('.')?;
        let mut name = String::new();
        let mut characters = tail.char_indices().peekable();
        let mut end = tail.len();
        while let Some((at, c)) = characters.next() {
            match c {
                '\\' => name.extend(characters.next().map(|(_, c)| c)),
                '.' | '[' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        value = value.get(&name)?;
        rest = &tail[end..];
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::json_path;

    #[test]
    fn paths() {
        let object = json!({"a": {"b": [{"c": 1}], "d.e": 2},
            "conditions": [{"type": "Ready", "status": "True", "code": 3}, {"type": "Bound", "status": "False", "code": 4}]});
        for (path, expected) in [
            (".a.b[0].c", Some(json!(1))),
            (".a['d.e']", Some(json!(2))),
            (".a.d\\.e", Some(json!(2))),
            (".a.b[1].c", None),
            (".a.b[*].c", Some(json!(1))),
            (".conditions[?(@.type==\"Bound\")].status", Some(json!("False"))),
            (".conditions[?(@.type == 'Ready')].status", Some(json!("True"))),
            (".conditions[?(@.code==4)].type", Some(json!("Bound"))),
            (".conditions[?(@.type==\"Gone\")].status", None),
            (".conditions[?(@.type)].status", None),
            (".a[?(@.type==\"Gone\")]", None),
            (".x", None),
            ("a", None),
        ] {
            assert_eq!(json_path(&object, path), expected.as_ref(), "{path}");
        }
    }
}
