//! Requests for certificates: approved where that is a rule, signed where it was approved, cleared away.
//!
//! ```text
//! Pending ── of a kubelet, who may ask by itself ──▶ Approved ──▶ a certificate, or Failed ──▶ gone after an hour
//!    └────── `kubectl certificate approve|deny` ────▶            (pending: after a day)
//! ```
//!
//! A *signer* is what a request names, and says what may be in it: three are here, those of others are left to them. The key of the
//! authority is nowhere here: [`Signer`] signs.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use substrate_client::Cache;
use substrate_client::certificates::{Request, Signer};

use crate::objects::{name, stamp};
use crate::work::{Next, Rounds};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
/// Seconds. A certificate is good for a year at most and ten minutes at least, and from a while ago on, for clocks that are behind; a life
/// of less than eight hours is not cut by that.
const LIFE: (i64, i64) = (600, 365 * 86_400);
const BACKDATED: i64 = 300;
const SHORT: i64 = 8 * 3_600;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// Who waits for a right that is not there yet is looked at again then.
const REFUSED: std::time::Duration = std::time::Duration::from_secs(30);

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// If its sender may create this subresource; the message says as what.
    Approve(Vec<(&'static str, &'static str)>),
    Sign(Box<Request>),
    Fail(String),
    Clear,
}

/// Approves, signs and clears away until dropped.
pub(crate) async fn run(client: Client, requests: Cache<CertificateSigningRequest>, signer: Option<Signer>) {
    let mut rounds = Rounds::begin(vec![requests.changes()]).await;
    loop {
        let mut next = Next::default();
        for request in requests.list() {
            let now = Timestamp::now();
            let (step, wake) = plan(&request, now);
            next.wake_in(wake.and_then(|wake| wake.try_into().ok()));
            let result = act(&client, &request, step, signer.as_ref(), now, &mut next).await;
            next.judge("CertificateSigningRequest", &request.metadata, result);
        }
        rounds.wait(next).await;
    }
}

/// What is due, and after which time something may be without a change.
fn plan(request: &CertificateSigningRequest, now: Timestamp) -> (Step, Option<SignedDuration>) {
    let status = request.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let issued = status.certificate.is_some_and(|pem| !pem.0.is_empty());
    let found = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind);
    let over = found("Denied").or(found("Failed")).or(found("Approved").filter(|_| issued));
    let end = match over {
        Some(condition) => condition.last_update_time.as_ref().map(|time| time.0 + HOUR),
        None if conditions.is_empty() => request.metadata.creation_timestamp.as_ref().map(|time| time.0 + HOUR * 24),
        None => None,
    };
    let left = end.map(|end| end.duration_since(now));
    if left.is_some_and(|left| !left.is_positive()) {
        return (Step::Clear, None);
    }
    let spec = &request.spec;
    let mine = [CLIENT, KUBELET, SERVING].contains(&spec.signer_name.as_str());
    if issued || over.is_some() || !mine {
        return (Step::Nothing, left);
    }
    let asked = Request::read(&spec.request.0);
    let asked = asked.and_then(|asked| fits(&asked, spec).map(|()| asked));
    let step = match (found("Approved"), asked) {
        (Some(_), Ok(asked)) => Step::Sign(Box::new(asked)),
        (Some(_), Err(why)) => Step::Fail(why),
        (None, Ok(asked)) if spec.signer_name == KUBELET => {
            let own = spec.username.as_deref() == Some(asked.common_name.as_str());
            let own = own.then_some(("selfnodeclient", "self kubelet client"));
            Step::Approve(own.into_iter().chain([("nodeclient", "kubelet client")]).collect())
        }
        (None, _) => Step::Nothing,
    };
    (step, left)
}

/// Whether a request is one that its signer signs; if not, why, as upstream says it.
fn fits(asked: &Request, spec: &CertificateSigningRequestSpec) -> Result<(), String> {
    let mut usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    usages.sort_unstable();
    if spec.signer_name == CLIENT {
        let known = ["client auth", "digital signature", "key encipherment"];
        if let Some(usage) = usages.iter().find(|usage| !known.contains(usage)) {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
        let auth = usages.contains(&"client auth");
        return if auth { Ok(()) } else { Err("missing required usage for client certificate: client auth".into()) };
    }
    let serves = spec.signer_name == SERVING;
    if asked.organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    let has = |name: &str| asked.names.contains(&name);
    if serves && !has("DNS") && !has("IP") {
        return Err("DNS or IP subjectAltName is required".into());
    }
    let forbidden = if serves { &["Email", "URI"][..] } else { &["DNS", "Email", "IP", "URI"] };
    if let Some(name) = forbidden.iter().find(|name| has(name)) {
        return Err(format!("{name} subjectAltNames are not allowed"));
    }
    let mut all = vec!["digital signature", "key encipherment", if serves { "server auth" } else { "client auth" }];
    all.sort_unstable();
    let without: Vec<&str> = all.iter().copied().filter(|usage| *usage != "key encipherment").collect();
    if usages != all && usages != without {
        return Err(format!("usages did not match [{}]", all.join(" ")));
    }
    if !asked.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:".into());
    }
    Ok(())
}

/// From when until when, in seconds of Unix.
fn life(wanted: Option<i32>, now: i64) -> (i64, i64) {
    let seconds = wanted.map_or(LIFE.1, |wanted| i64::from(wanted).clamp(LIFE.0, LIFE.1));
    let cut = if seconds < SHORT { 0 } else { BACKDATED };
    (now - BACKDATED, now + seconds - cut)
}

/// Does what is due. Each write names the version that was looked at.
async fn act(
    client: &Client,
    request: &CertificateSigningRequest,
    step: Step,
    signer: Option<&Signer>,
    now: Timestamp,
    next: &mut Next,
) -> Result<(), kube::Error> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let (name, version) = (name(&request.metadata), &request.metadata.resource_version);
    let patch = |status: Value| Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "status": status }));
    // A merge patch writes a list as a whole.
    let with = |kind: &str, reason: &str, message: &str| {
        let mut conditions = json!(request.status.as_ref().and_then(|status| status.conditions.as_ref()));
        let new = json!({ "type": kind, "status": "True", "reason": reason, "message": message, "lastUpdateTime": stamp(now) });
        match conditions.as_array_mut() {
            Some(conditions) => conditions.push(new),
            None => conditions = json!([new]),
        }
        patch(json!({ "conditions": conditions }))
    };
    let parameters = PatchParams::default();
    match step {
        Step::Nothing => {}
        Step::Clear => {
            let seen = Preconditions { uid: request.metadata.uid.clone(), resource_version: version.clone() };
            api.delete(name, &DeleteParams::default().preconditions(seen)).await?;
        }
        Step::Approve(ways) => {
            for (subresource, what) in ways {
                if may(client, &request.spec, subresource).await? {
                    let message = format!("Auto approving {what} certificate after SubjectAccessReview.");
                    api.patch_approval(name, &parameters, &with("Approved", "AutoApproved", &message)).await?;
                    return Ok(());
                }
            }
            next.wake_in(Some(REFUSED));
        }
        Step::Fail(why) => {
            api.patch_status(name, &parameters, &with("Failed", "SignerValidationFailure", &why)).await?;
        }
        Step::Sign(asked) => {
            let Some(signer) = signer else { return Ok(()) };
            let usages = request.spec.usages.clone().unwrap_or_default();
            let life = life(request.spec.expiration_seconds, now.as_second());
            let signed = match signer(&asked, &usages, life) {
                Ok(certificate) => patch(json!({ "certificate": BASE64_STANDARD.encode(certificate) })),
                Err(why) => with("Failed", "SigningError", &why),
            };
            api.patch_status(name, &parameters, &signed).await?;
        }
    }
    Ok(())
}

/// Whether the sender of a request may create it as this subresource.
async fn may(client: &Client, spec: &CertificateSigningRequestSpec, subresource: &str) -> Result<bool, kube::Error> {
    let what = json!({ "group": "certificates.k8s.io", "resource": "certificatesigningrequests", "verb": "create",
                       "subresource": subresource });
    let who = json!({ "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra });
    let mut review = json!({ "metadata": {}, "spec": who });
    review["spec"]["resourceAttributes"] = what;
    let review: SubjectAccessReview = serde_json::from_value(review).map_err(kube::Error::SerdeError)?;
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use std::fmt::Write;

    use expect_test::expect;

    use super::*;

    #[test]
    fn each_signer_signs_what_fits_it() {
        let node = |names: &[&'static str]| Request {
            common_name: "system:node:a".into(),
            organizations: vec!["system:nodes".into()],
            names: names.to_vec(),
            ..Request::default()
        };
        let person = Request { common_name: "jane".into(), organizations: vec!["devs".into()], ..Request::default() };
        let two = Request { organizations: vec!["system:nodes".into(), "x".into()], ..node(&[]) };
        let named = Request { common_name: "a".into(), ..node(&["IP"]) };
        let cases = [
            (CLIENT, &person, "client auth,key encipherment"),
            (CLIENT, &person, "client auth,any"),
            (CLIENT, &person, "digital signature"),
            (KUBELET, &node(&[]), "key encipherment,client auth,digital signature"),
            (KUBELET, &node(&[]), "digital signature,client auth"),
            (KUBELET, &node(&[]), "client auth"),
            (KUBELET, &node(&["URI", "DNS"]), "digital signature,client auth"),
            (KUBELET, &person, "digital signature,client auth"),
            (KUBELET, &two, "digital signature,client auth"),
            (SERVING, &node(&["DNS", "IP"]), "server auth,digital signature"),
            (SERVING, &node(&["DNS", "Email"]), "server auth,digital signature"),
            (SERVING, &node(&[]), "server auth,digital signature"),
            (SERVING, &named, "server auth,digital signature"),
            (SERVING, &node(&["IP"]), "client auth,digital signature"),
        ];
        let mut found = String::new();
        for (signer, asked, usages) in cases {
            let usages = Some(usages.split(',').map(str::to_owned).collect());
            let spec = CertificateSigningRequestSpec { signer_name: signer.into(), usages, ..Default::default() };
            writeln!(found, "{}", fits(asked, &spec).err().unwrap_or("signed".into())).unwrap();
        }
        expect![[r#"
            signed
            invalid usage for client certificate: any
            missing required usage for client certificate: client auth
            signed
            signed
            usages did not match [client auth digital signature key encipherment]
            DNS subjectAltNames are not allowed
            subject organization is not system:nodes
            subject organization is not system:nodes
            signed
            Email subjectAltNames are not allowed
            DNS or IP subjectAltName is required
            subject common name does not begin with system:node:
            usages did not match [digital signature key encipherment server auth]
        "#]]
        .assert_eq(&found);
    }

    #[test]
    fn a_life_is_bounded_and_short_ones_are_not_cut() {
        let lives = [None, Some(1), Some(3_600), Some(8 * 3_600), Some(i32::MAX)].map(|wanted| life(wanted, 0));
        let year = 365 * 86_400 - 300;
        assert_eq!(lives, [(-300, year), (-300, 600), (-300, 3_600), (-300, 28_500), (-300, year)]);
    }

    #[test]
    fn requests_are_cleared_away_in_time() {
        let request = |condition: &str, certificate: &str, hours_ago: i64| {
            let time = stamp(Timestamp::UNIX_EPOCH + HOUR * i32::try_from(30 - hours_ago).unwrap());
            let mut status = json!({});
            if !condition.is_empty() {
                status["conditions"] = json!([{ "type": condition, "status": "True", "lastUpdateTime": time }]);
            }
            if !certificate.is_empty() {
                status["certificate"] = certificate.into();
            }
            let spec = json!({ "request": "", "signerName": "x.io/mine" });
            let metadata = json!({ "name": "a", "creationTimestamp": time });
            serde_json::from_value(json!({ "metadata": metadata, "spec": spec, "status": status })).unwrap()
        };
        let now = Timestamp::UNIX_EPOCH + HOUR * 30;
        let mut found = String::new();
        for (condition, certificate, ago) in [
            ("", "", 23),
            ("", "", 24),
            ("Approved", "", 25),
            ("Approved", "eA==", 0),
            ("Approved", "eA==", 1),
            ("Denied", "", 1),
            ("Failed", "", 1),
        ] {
            let (step, left) = plan(&request(condition, certificate, ago), now);
            writeln!(found, "{condition} {certificate} {ago}: {step:?} {left:?}").unwrap();
        }
        expect![[r#"
              23: Nothing Some(1h)
              24: Clear None
            Approved  25: Nothing None
            Approved eA== 0: Nothing Some(1h)
            Approved eA== 1: Clear None
            Denied  1: Clear None
            Failed  1: Clear None
        "#]]
        .assert_eq(&found);
    }
}
