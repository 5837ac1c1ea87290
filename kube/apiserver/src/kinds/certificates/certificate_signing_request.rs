//! Certificate signing requests. Who asks is written by the server.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use substrate_client::certificates::Request;
use x509_parser::pem::Pem;

use crate::auth::User;
use crate::kinds::{Builtin, Description, Errors, NameRule};
use crate::object::child;
use crate::status::FieldError;
use crate::table::{age, list, text};

pub static KIND: Description = Description {
    short: &["csr"],
    namespaced: false,
    has_status: true,
    subresources: &[("approval", "CertificateSigningRequest", &["get", "patch", "update"])],
    rules: Builtin { prepare, validate, validate_update, columns: COLUMNS, cells, ..Builtin::USUAL },
    ..Description::of(["certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests"])
};

const COLUMNS: &str = "Name, Age, SignerName, Requestor, RequestedDuration, Condition";

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
    let now = crate::object::now();
    for condition in request["status"]["conditions"].as_array_mut().into_iter().flatten() {
        let same = |other: &&Value| other["type"] == condition["type"] && other["status"] == condition["status"];
        let since = list(&old["status"]["conditions"]).iter().find(same).map(|old| old["lastTransitionTime"].clone());
        for (field, time) in [("lastUpdateTime", None), ("lastTransitionTime", since)] {
            if condition[field].is_null() {
                condition[field] = time.unwrap_or_else(|| now.as_str().into());
            }
        }
    }
}

fn validate(request: &Value, errors: &mut Errors) {
    let spec = &request["spec"];
    if let Err(why) = Request::read(&bytes(&spec["request"])) {
        errors.push(FieldError::invalid("spec.request", &spec["request"], &why));
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
        name => signer_name(name, errors),
    }
    if spec["expirationSeconds"].as_i64().is_some_and(|seconds| seconds < SECONDS_MIN) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &spec["expirationSeconds"], why));
    }
    let certificate = &request["status"]["certificate"];
    if let Some(why) =
        certificate.as_str().filter(|text| !text.is_empty()).and_then(|_| certificates(&bytes(certificate)))
    {
        errors.push(FieldError::invalid("status.certificate", &"<certificate data>".into(), &why));
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

/// A domain, and a path of subdomains below it.
fn signer_name(name: &str, errors: &mut Errors) {
    let mut wrong = |of: &str, why: &str| errors.push(FieldError::invalid("spec.signerName", &of.into(), why));
    let parts: Vec<&str> = name.split('/').collect();
    let [domain, path] = parts[..] else {
        return wrong(name, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    };
    for (part, rule) in [(domain, NameRule::Label), (path, NameRule::Subdomain)] {
        let mut judged = part.split('.').map(|label| (label, rule.judge(label)));
        if let Some((label, why)) = judged.find(|(_, why)| !why.is_empty()) {
            why.iter().for_each(|why| wrong(part, &format!("validating label {label:?}: {why}")));
        }
    }
    if !domain.contains('.') {
        wrong(domain, "should be a domain with at least two segments separated by dots");
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default()
}

/// What is wrong with the certificates in PEM.
fn certificates(pem: &[u8]) -> Option<String> {
    let mut blocks = 0;
    for block in Pem::iter_from_buffer(pem) {
        match block {
            Ok(block) if block.label != "CERTIFICATE" => {
                return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
            }
            Ok(block) if block.parse_x509().is_ok() => blocks += 1,
            _ => return Some("x509: malformed certificate".into()),
        }
    }
    (blocks == 0).then(|| "must contain at least one CERTIFICATE PEM block".into())
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
