//! Who may decide about requests for certificates (admission plug-ins CertificateApproval, CertificateSigning and
//! CertificateSubjectRestriction).
//!
//! | write | needs |
//! |---|---|
//! | the request itself | no `system:masters`, if it is to be signed for clients of the API |
//! | `approval` | the verb `approve` on `signers`, by its name or as `domain/*` |
//! | `status` | the verb `sign` in the same way; decisions stay as they are |

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use substrate_client::certificates;

use super::{Operation, Request};
use crate::authorization::{Attributes, MASTERS, decide};
use crate::server::ApiServer;
use crate::status::{FieldError, Status};
use crate::table::list;

const GROUP: &str = "certificates.k8s.io";
const PLURAL: &str = "certificatesigningrequests";
/// Whose certificates the API takes for users of any name.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Judges a write of a request for a certificate.
///
/// # Errors
/// 403 for who may not; 422 for who signs and decides at once.
pub(super) fn judge(server: &ApiServer, request: &Request<'_>, object: &Value) -> Result<(), Status> {
    if (request.group, request.plural) != (GROUP, PLURAL) || request.operation == Operation::Delete {
        return Ok(());
    }
    let refuse = |why: &str| Err(Status::forbidden(GROUP, PLURAL, request.name, why));
    let Some(old) = request.old.filter(|_| !request.subresource.is_empty()) else {
        if object["spec"]["signerName"] != CLIENT {
            return Ok(());
        }
        let pem = object["spec"]["request"].as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        return match certificates::Request::read(&pem.unwrap_or_default()) {
            Err(why) => refuse(&format!("failed to parse CSR: {why}")),
            Ok(asked) if asked.organizations.iter().any(|group| group == MASTERS) => {
                refuse(&format!("use of {CLIENT} signer with {MASTERS} group is not allowed"))
            }
            Ok(_) => Ok(()),
        };
    };
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let (before, after) = (&old["status"], &object["status"]);
    let verb = match request.subresource {
        "approval" => "approve",
        _ if before["certificate"] == after["certificate"] && before["conditions"] == after["conditions"] => {
            return Ok(());
        }
        _ => "sign",
    };
    if !may(server, request, verb, signer)? {
        return refuse(&format!("user not permitted to {verb} requests with signerName {signer:?}"));
    }
    if verb == "sign" { undecided(request, before, after) } else { Ok(()) }
}

/// Whether the user may do this for a signer, or for all of its domain.
fn may(server: &ApiServer, request: &Request<'_>, verb: &str, signer: &str) -> Result<bool, Status> {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let (verb, group, resource, name) = (verb.into(), GROUP.into(), "signers".into(), name.into());
        let asked = Attributes { verb, group, resource, name, ..Attributes::default() };
        if decide(server, request.user, &asked)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Who signs does not decide, nor sign twice.
fn undecided(request: &Request<'_>, before: &Value, after: &Value) -> Result<(), Status> {
    let mut errors = Vec::new();
    for kind in ["Approved", "Denied"] {
        let [old, new] = [before, after].map(|status| list(&status["conditions"]).iter().find(|c| c["type"] == kind));
        if new.is_some() && old != new {
            let what = if old.is_none() { "add" } else { "modify" };
            let why = format!("updates may not {what} a condition of type {kind:?}");
            errors.push(FieldError::forbidden("status.conditions", &why));
        }
    }
    if !before["certificate"].is_null() && before["certificate"] != after["certificate"] {
        let why = "updates may not modify existing certificate content";
        errors.push(FieldError::forbidden("status.certificate", why));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(GROUP, "CertificateSigningRequest", request.name, &errors))
}
