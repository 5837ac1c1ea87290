//! CustomResourceDefinitions: what is refused. What they define is served by [`crate::custom`].

use serde_json::{Value, json};

use crate::custom::conversion::REVIEWS;
use crate::kinds::admissionregistration::webhooks;
use crate::kinds::validate::{DNS_1035, NameRule};
use crate::kinds::{Builtin, Description, Errors, pod_spec};
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
    ..Description::of(["apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions"])
};

const COLUMNS: &str = "Name, Created At";

fn default(crd: &mut Value) {
    let names = &mut crd["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if !kind.is_empty() {
        pod_spec::set(names, "singular", kind.to_lowercase());
        pod_spec::set(names, "listKind", format!("{kind}List"));
    }
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
        (&spec["names"]["listKind"], "spec.names.listKind"),
        (&spec["names"]["singular"], "spec.names.singular"),
        (&spec["scope"], "spec.scope"),
    ] {
        errors.require(value, field);
    }
    for field in ["plural", "singular"] {
        let name = &spec["names"][field];
        let fits = name.as_str().is_none_or(|name| name.is_empty() || NameRule::Dns1035.judge(name).is_empty());
        if !fits {
            errors.named(name, &format!("spec.names.{field}"), NameRule::Dns1035);
        }
    }
    for field in ["kind", "listKind"] {
        let name = spec["names"][field].as_str().unwrap_or_default();
        if !name.is_empty() && !NameRule::Dns1035.judge(&name.to_lowercase()).is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {DNS_1035}");
            errors.push(FieldError::invalid(format!("spec.names.{field}"), &name.into(), &why));
        }
    }
    if crd["metadata"]["name"] != json!(format!("{plural}.{group}")) {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid("metadata.name", &crd["metadata"]["name"], why));
    }
    errors.one_of(&spec["scope"], "spec.scope", &["Cluster", "Namespaced"]);
    conversion(&spec["conversion"], errors);
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().filter(|v| v["storage"] == json!(true)).count();
    if storage != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid("spec.versions", &spec["versions"], why));
    }
    let names: Vec<&Value> = versions.iter().map(|version| &version["name"]).collect();
    if (1..names.len()).any(|i| names[..i].contains(&names[i])) {
        errors.push(FieldError::invalid("spec.versions", &spec["versions"], "must contain unique version names"));
    }
    for (i, kept) in crd["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        if !names.contains(&kept) {
            let why = "missing from spec.versions; must be listed here as objects are kept in it";
            errors.push(FieldError::invalid(format!("status.storedVersions[{i}]"), kept, why));
        }
    }
    let alike = versions.windows(2).all(|pair| pair[0]["schema"] == pair[1]["schema"]);
    for (i, version) in versions.iter().enumerate().take(if alike { 1 } else { usize::MAX }) {
        let schema = &version["schema"]["openAPIV3Schema"];
        // Upstream keeps one schema for all versions, if they have the same, and says so in its paths.
        let field = match alike && !schema.is_null() {
            true => "spec.validation.openAPIV3Schema".to_owned(),
            false => format!("spec.versions[{i}].schema.openAPIV3Schema"),
        };
        if schema.is_null() {
            errors.push(FieldError::required(field, "schemas are required"));
        } else {
            let before = errors.len();
            crate::custom::schema::check(schema, &field, errors);
            if errors.len() == before {
                crate::custom::schema::rules::check(schema, &field, errors);
            }
        }
    }
    for (i, version) in versions.iter().enumerate() {
        paths(version, &format!("spec.versions[{i}]"), errors);
    }
}

/// Judges how objects become those of another version.
fn conversion(conversion: &Value, errors: &mut Errors) {
    let at = |field: &str| format!("spec.conversion.{field}");
    errors.one_of(&conversion["strategy"], at("strategy"), &["None", "Webhook"]);
    let webhook = &conversion["webhook"];
    if conversion["strategy"] != "Webhook" {
        if !webhook.is_null() {
            let why = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden(at("webhookClientConfig"), why));
        }
        return;
    }
    if webhook["clientConfig"].is_null() {
        let why = "required when strategy is set to Webhook";
        errors.push(FieldError::required(at("webhookClientConfig"), why));
    } else {
        webhooks::client(&webhook["clientConfig"], &at("webhookClientConfig"), errors);
    }
    let versions = &webhook["conversionReviewVersions"];
    let spoken = |version: &Value| version.as_str().is_some_and(|version| REVIEWS.contains(&version));
    match versions.as_array() {
        None => errors.push(FieldError::required(at("conversionReviewVersions"), "")),
        Some(versions) if versions.iter().any(spoken) => {}
        Some(_) => {
            let why = format!("must include at least one of {}", REVIEWS.join(", "));
            errors.push(FieldError::invalid(at("conversionReviewVersions"), versions, &why));
        }
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
