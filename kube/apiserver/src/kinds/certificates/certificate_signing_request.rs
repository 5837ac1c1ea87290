//! Certificate signing requests. Who asks is written by the server.

use serde_json::{Value, json};

use crate::auth::User;
use crate::kinds::{Builtin, Column, Description, Errors, column};
use crate::object::child;
use crate::protobuf;
use crate::status::FieldError;
use crate::table::{age, list, text};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

pub static KIND: Description = Description {
    short: &["csr"],
    namespaced: false,
    has_status: true,
    subresources: &[("approval", "CertificateSigningRequest", &["get", "patch", "update"])],
    idle: "nobody signs",
    rules: Builtin { prepare, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(
        [
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "certificatesigningrequest",
        ],
        &protobuf::certificates::CertificateSigningRequest,
    )
};

const COLUMNS: &[Column] = &[
    column("Name", 0),
    column("Age", 0),
    column("SignerName", 0),
    column("Requestor", 0),
    column("RequestedDuration", 0),
    column("Condition", 0),
];

/// As upstream.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Ten minutes.
const SECONDS_MIN: i64 = 600;

/// Writes who asks, whatever was sent; later nothing of the request changes.
fn prepare(request: &mut Value, old: Option<&Value>, user: &User) {
    let Some(old) = old else {
        let spec = child(request, "spec");
        spec.insert("username".into(), user.name.as_str().into());
        spec.insert("groups".into(), json!(user.groups));
        spec.remove("uid");
        spec.remove("extra");
        return;
    };
    request["spec"] = old["spec"].clone();
}

fn validate(request: &Value, errors: &mut Errors) {
    let spec = &request["spec"];
    let pem = spec["request"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    if !pem.trim_start().starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        || !pem.contains("-----END CERTIFICATE REQUEST-----")
    {
        let why = "PEM block type must be CERTIFICATE REQUEST";
        errors.push(FieldError::invalid("spec.request", &spec["request"], why));
    }
    let usages = list(&spec["usages"]);
    if usages.is_empty() {
        errors.push(FieldError::required("spec.usages", "usages must be provided"));
    }
    for (i, usage) in usages.iter().enumerate() {
        errors.one_of(usage, format!("spec.usages[{i}]"), USAGES);
        if usages[..i].contains(usage) {
            errors.push(FieldError::duplicate(format!("spec.usages[{i}]"), usage));
        }
    }
    match spec["signerName"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required("spec.signerName", "signerName must be provided")),
        "kubernetes.io/legacy-unknown" => {
            let why = "the legacy signerName is not allowed via this API version";
            errors.push(FieldError::invalid("spec.signerName", &spec["signerName"], why));
        }
        name if !name.split_once('/').is_some_and(|(domain, path)| domain.contains('.') && !path.is_empty()) => {
            let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid("spec.signerName", &spec["signerName"], why));
        }
        _ => {}
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
    }
    for (i, condition) in list(&request["status"]["conditions"]).iter().enumerate() {
        errors.require(&condition["type"], format!("status.conditions[{i}].type"));
        let decided = matches!(condition["type"].as_str(), Some("Approved" | "Denied" | "Failed"));
        if decided && condition["status"] != "True" {
            errors.push(FieldError::not_supported(
                format!("status.conditions[{i}].status"),
                &condition["status"],
                &["True"],
            ));
        }
    }
}

/// What was decided stays decided.
fn validate_update(old: &Value, new: &Value, errors: &mut Errors) {
    for kind in ["Approved", "Denied", "Failed"] {
        let has = |request: &Value| list(&request["status"]["conditions"]).iter().any(|c| c["type"] == kind);
        if has(old) && !has(new) {
            let why = format!("updates may not remove a condition of type {kind:?}");
            errors.push(FieldError::forbidden("status.conditions", &why));
        }
    }
    let has = |kind: &str| list(&new["status"]["conditions"]).iter().any(|c| c["type"] == kind);
    if has("Approved") && has("Denied") {
        let why = "Approved and Denied conditions are mutually exclusive";
        errors.push(FieldError::invalid("status.conditions", &json!("Denied"), why));
    }
}

fn cells(object: &Value, now: jiff::Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let is = |kind: &str| list(&object["status"]["conditions"]).iter().any(|c| c["type"] == kind);
    let mut state = if is("Denied") {
        "Denied".to_owned()
    } else if is("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if is("Failed") {
        state.push_str(",Failed");
    }
    if object["status"]["certificate"].as_str().is_some_and(|pem| !pem.is_empty()) {
        state.push_str(",Issued");
    }
    let duration = spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), crate::table::human);
    vec![
        object["metadata"]["name"].clone(),
        age(object, now),
        text(&spec["signerName"], "<none>"),
        text(&spec["username"], ""),
        duration.into(),
        state.into(),
    ]
}
