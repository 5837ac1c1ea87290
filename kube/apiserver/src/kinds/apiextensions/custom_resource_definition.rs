//! CustomResourceDefinitions: what is refused. What they define is served by [`crate::custom`].

use serde_json::{Value, json};

use crate::kinds::{Builtin, Column, Description, Errors, column, pod_spec};
use crate::protobuf;
use crate::status::FieldError;
use crate::table::text;

pub static KIND: Description = Description {
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    has_status: true,
    counts: true,
    rules: Builtin {
        default,
        validate,
        validate_update: |old, new, errors| {
            errors.immutable(&old["spec"]["group"], &new["spec"]["group"], "spec.group");
            errors.immutable(&old["spec"]["scope"], &new["spec"]["scope"], "spec.scope");
            errors.immutable(&old["spec"]["names"]["plural"], &new["spec"]["names"]["plural"], "spec.names.plural");
            errors.immutable(&old["spec"]["names"]["kind"], &new["spec"]["names"]["kind"], "spec.names.kind");
        },
        columns: COLUMNS,
        cells: |crd, _| vec![crd["metadata"]["name"].clone(), text(&crd["metadata"]["creationTimestamp"], "")],
        ..Builtin::USUAL
    },
    ..Description::of(
        [
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "customresourcedefinition",
        ],
        &protobuf::apiextensions::CustomResourceDefinition,
    )
};

const COLUMNS: &[Column] = &[column("Name", 0), column("Created At", 0)];

fn default(crd: &mut Value) {
    let names = &mut crd["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    pod_spec::set(names, "singular", kind.to_lowercase());
    pod_spec::set(names, "listKind", format!("{kind}List"));
    pod_spec::set(&mut crd["spec"], "conversion", json!({ "strategy": "None" }));
}

fn validate(crd: &Value, errors: &mut Errors) {
    let spec = &crd["spec"];
    let group = spec["group"].as_str().unwrap_or_default();
    let plural = spec["names"]["plural"].as_str().unwrap_or_default();
    for (value, field) in [
        (&spec["group"], "spec.group"),
        (&spec["names"]["plural"], "spec.names.plural"),
        (&spec["names"]["kind"], "spec.names.kind"),
        (&spec["versions"], "spec.versions"),
    ] {
        errors.require(value, field);
    }
    let name = format!("{plural}.{group}");
    if crd["metadata"]["name"] != json!(name) {
        let detail = format!("must be spec.names.plural+\".\"+spec.group, {name:?}");
        errors.push(FieldError::invalid("metadata.name", &crd["metadata"]["name"], &detail));
    }
    errors.one_of(&spec["scope"], "spec.scope", &["Cluster", "Namespaced"]);
    errors.one_of(&spec["conversion"]["strategy"], "spec.conversion.strategy", &["None"]);
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().filter(|v| v["storage"] == json!(true)).count();
    if !versions.is_empty() && storage != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &json!(versions.len()), detail));
    }
    for (i, version) in versions.iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let field = format!("spec.versions[{i}].schema.openAPIV3Schema");
        if schema.is_null() {
            errors.push(FieldError::required(field, "schemas are required"));
        } else if let Err(why) = crate::custom::schema::check(schema, 0) {
            errors.push(FieldError::invalid(field, &json!("schema"), &why));
        } else {
            crate::custom::schema::rules::check(schema, &field, errors);
        }
        paths(version, &format!("spec.versions[{i}]"), errors);
    }
}

/// Judges the paths of `scale` and of fields to select by.
fn paths(version: &Value, at: &str, errors: &mut Errors) {
    let scale = &version["subresources"]["scale"];
    let needed: &[(&str, &[&str], bool)] = &[
        ("specReplicasPath", &[".spec."], true),
        ("statusReplicasPath", &[".status."], true),
        ("labelSelectorPath", &[".status.", ".spec."], false),
    ];
    for (field, roots, required) in needed.iter().filter(|_| scale.is_object()) {
        let path = format!("{at}.subresources.scale.{field}");
        match scale[*field].as_str().filter(|text| !text.is_empty()) {
            None if *required => errors.push(FieldError::required(path, "")),
            Some(text) if !roots.iter().any(|root| text.starts_with(root)) || text.contains('[') => {
                let roots: Vec<&str> = roots.iter().map(|root| root.trim_end_matches('.')).collect();
                let why = format!("should be a json path under {}", roots.join(" or "));
                errors.push(FieldError::invalid(path, &scale[*field], &why));
            }
            _ => {}
        }
    }
    const SELECTABLE_MAX: usize = 8;
    let selectable = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    if selectable.len() > SELECTABLE_MAX {
        let message = format!("Too many: {}: must have at most {SELECTABLE_MAX} items", selectable.len());
        let reason = crate::status::FieldReason::TooMany;
        return errors.push(FieldError { reason, field: format!("{at}.selectableFields"), message });
    }
    for (i, field) in selectable.iter().enumerate() {
        let path = format!("{at}.selectableFields[{i}].jsonPath");
        let mut schema = &version["schema"]["openAPIV3Schema"];
        for name in field["jsonPath"].as_str().unwrap_or_default().trim_start_matches('.').split('.') {
            schema = &schema["properties"][name];
        }
        if selectable[..i].contains(field) {
            errors.push(FieldError::duplicate(path, &field["jsonPath"]));
        } else if schema.is_null() {
            let why = "is an invalid path: does not refer to a valid field";
            errors.push(FieldError::invalid(path, &field["jsonPath"], why));
        } else if !["string", "integer", "boolean"].iter().any(|kind| schema["type"] == *kind) {
            let why = "is an invalid path: does not refer to a valid field of type string, integer or boolean";
            errors.push(FieldError::invalid(path, &field["jsonPath"], why));
        }
    }
}
