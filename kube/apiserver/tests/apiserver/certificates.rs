//! Requests for certificates: who asks, who decides, who signs, and what comes out.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use serde_json::{Value, json};
use substrate_apiserver::auth::User;
use substrate_apiserver::tls::Authority;
use substrate_client::certificates::Request;
use x509_parser::pem::parse_x509_pem;

use crate::support::{Api, api};

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Made by OpenSSL: jane, of devs and ops.
const JANE: &str = "-----BEGIN CERTIFICATE REQUEST-----
MIHoMIGOAgEAMCwxDTALBgNVBAoMBGRldnMxDDAKBgNVBAoMA29wczENMAsGA1UE
AwwEamFuZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI1yNyczpu0qzexthIEY
TLMtmdmmw99CktLjLkLpbbqd1E3yan1Esgfa64KNoZ2ijiXAy+TFoyxsmtmCGEub
OlSgADAKBggqhkjOPQQDAgNJADBGAiEApaPJiR09OWarmOIf97zILamDkq6rw64t
75Og5+2nvHkCIQDZrTY66+JKgYLVKRCeNXV/cOC3SK0BIAFnRyKlvWydTg==
-----END CERTIFICATE REQUEST-----
";

fn pem(name: &str, group: &str, names: &[SanType]) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.subject_alt_names = names.to_vec();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn request(name: &str, signer: &str, pem: &str) -> Value {
    let spec = json!({ "request": BASE64_STANDARD.encode(pem), "signerName": signer, "usages": ["client auth"],
                       "username": "somebody", "groups": ["system:masters"] });
    json!({ "metadata": { "name": name }, "spec": spec })
}

/// `user` may do `verb` with requests and their subresources, and of `signer` what is named so.
async fn allow(api: &Api, user: &str, verb: &str, signer: &str) {
    let of = |resources: Value, verbs: Value| json!({ "apiGroups": ["certificates.k8s.io"], "resources": resources, "verbs": verbs });
    let all =
        ["certificatesigningrequests", "certificatesigningrequests/approval", "certificatesigningrequests/status"];
    let mut named = of(json!(["signers"]), json!([verb]));
    named["resourceNames"] = json!([signer]);
    let rules = json!([of(json!(all), json!(["create", "update", "patch"])), named]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    api.post(&format!("{rbac}/clusterroles"), json!({ "metadata": { "name": user }, "rules": rules })).await;
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user });
    let subject = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user });
    let binding = json!({ "metadata": { "name": user }, "roleRef": role, "subjects": [subject] });
    assert_eq!(api.post(&format!("{rbac}/clusterrolebindings"), binding).await.0, 201);
}

fn approved() -> Value {
    json!([{ "type": "Approved", "status": "True", "reason": "Fine", "message": "" }])
}

#[tokio::test]
async fn a_request_says_who_asked_and_is_decided_by_who_may() {
    let api = api().await;
    allow(&api, "jane", "approve", "y.io/*").await;
    allow(&api, "judge", "approve", "x.io/*").await;
    let (jane, judge) = (api.asked_by("jane", &["devs"]), api.asked_by("judge", &[]));
    let (code, made) = jane.post(PATH, request("a", "x.io/mine", JANE)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(
        (&made["spec"]["username"], &made["spec"]["groups"]),
        (&json!("jane"), &json!(["devs", "system:authenticated"]))
    );

    let decide =
        json!({ "status": { "conditions": approved(), "certificate": "eA==" }, "spec": { "username": "other" } });
    let approval = format!("{PATH}/a/approval");
    let (code, refused) = jane.patch(&approval, "merge-patch", decide.clone()).await;
    let words = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: user not permitted to approve requests with signerName \"x.io/mine\"";
    assert_eq!((code, &refused["message"]), (403, &json!(words)));
    let (code, decided) = judge.patch(&approval, "merge-patch", decide).await;
    let condition = &decided["status"]["conditions"][0];
    assert_eq!((code, &condition["type"]), (200, &json!("Approved")));
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(), "{condition}");
    assert!(decided["status"]["certificate"].is_null(), "who approves does not sign");
    assert_eq!(decided["spec"]["username"], "jane");
    let (code, _) = judge.patch(&approval, "merge-patch", json!({ "status": { "conditions": [] } })).await;
    assert_eq!(code, 422, "what was decided stays decided");
}

#[tokio::test]
async fn who_signs_does_not_decide() {
    let api = api().await;
    allow(&api, "signer", "sign", "x.io/mine").await;
    let signer = api.asked_by("signer", &[]);
    api.post(PATH, request("a", "x.io/mine", JANE)).await;
    api.post(PATH, request("b", "x.io/other", JANE)).await;
    let sign = |text: &str| json!({ "status": { "certificate": BASE64_STANDARD.encode(text) } });
    let certificate = rcgen::generate_simple_self_signed(vec!["a".into()]).unwrap().cert.pem();
    let to = |name: &str| format!("{PATH}/{name}/status");
    let cases = [
        ("b", sign(&certificate), 403, "user not permitted to sign requests with signerName \"x.io/other\""),
        (
            "a",
            json!({ "status": { "conditions": approved() } }),
            422,
            "updates may not add a condition of type \"Approved\"",
        ),
        ("a", sign("x"), 422, "must contain at least one CERTIFICATE PEM block"),
        ("a", sign(JANE), 422, "only CERTIFICATE PEM blocks are allowed, found \"CERTIFICATE REQUEST\""),
        ("a", sign(&certificate), 200, ""),
        (
            "a",
            sign(&rcgen::generate_simple_self_signed(vec![]).unwrap().cert.pem()),
            422,
            "updates may not modify existing certificate content",
        ),
    ];
    for (name, patch, wanted, words) in cases {
        let (code, answer) = signer.patch(&to(name), "merge-patch", patch).await;
        assert_eq!(code, wanted, "{answer}");
        assert!(answer["message"].as_str().unwrap_or_default().contains(words), "{answer}");
    }
    api.patch(&format!("{PATH}/a/approval"), "merge-patch", json!({ "status": { "conditions": approved() } })).await;
    let mut changed = approved();
    changed[0]["message"] = "really".into();
    let (code, answer) = signer.patch(&to("a"), "merge-patch", json!({ "status": { "conditions": changed } })).await;
    assert_eq!(code, 422, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("updates may not modify a condition of type \"Approved\""));
}

#[tokio::test]
async fn what_cannot_be_a_request_is_refused() {
    let api = api().await;
    let forged = {
        // Another name under the signature of jane.
        let (_, block) = parse_x509_pem(JANE.as_bytes()).unwrap();
        let mut der = block.contents;
        let at = der.windows(4).position(|bytes| bytes == b"jane").unwrap();
        der[at..at + 4].copy_from_slice(b"root");
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
    };
    let cases = [
        ("x.io/a", "no PEM", "spec.request: Invalid value", "PEM block type must be CERTIFICATE REQUEST"),
        ("x.io/a", &forged, "spec.request: Invalid value", "x509: "),
        (
            "odd",
            JANE,
            "spec.signerName: Invalid value: \"odd\"",
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        ("io/a", JANE, "Invalid value: \"io\"", "should be a domain with at least two segments separated by dots"),
        ("X.io/a", JANE, "Invalid value: \"X.io\"", "validating label \"X\""),
    ];
    for (signer, pem, at, words) in cases {
        let (code, answer) = api.post(PATH, request("a", signer, pem)).await;
        let message = answer["message"].as_str().unwrap();
        assert!(code == 422 && message.contains(at) && message.contains(words), "{answer}");
    }
    let (code, answer) = api.post(PATH, request("a", CLIENT, &pem("x", "system:masters", &[]))).await;
    let words = "certificatesigningrequests.certificates.k8s.io \"a\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert_eq!((code, &answer["message"]), (403, &json!(words)));
}

#[test]
fn a_certificate_says_what_was_asked_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    let issue = |pem: &str, usages: &[&str], until: i64| {
        let usages: Vec<String> = usages.iter().map(ToString::to_string).collect();
        authority.issue(&Request::read(pem.as_bytes()).unwrap(), &usages, (1_000, until))
    };
    let text = issue(JANE, &["client auth", "digital signature"], 2_000).unwrap();
    let (_, block) = parse_x509_pem(text.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    let user = User::from_certificate(&block.contents).unwrap();
    assert_eq!((user.name.as_str(), &user.groups[..2]), ("jane", &["devs".to_owned(), "ops".to_owned()][..]));
    let (_, own) = parse_x509_pem(authority.certificate_pem.as_bytes()).unwrap();
    certificate.verify_signature(Some(own.parse_x509().unwrap().public_key())).unwrap();
    let validity = certificate.validity();
    assert_eq!((validity.not_before.timestamp(), validity.not_after.timestamp()), (1_000, 2_000));
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_encipherment() && !usage.key_cert_sign(), "{usage}");
    let purpose = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purpose.client_auth && !purpose.server_auth && !certificate.is_ca());

    // Names are kept, and times after 2049 are written otherwise.
    let names = [SanType::DnsName("n.example".try_into().unwrap()), SanType::IpAddress([10, 0, 0, 1].into())];
    let text = issue(&pem("system:node:n", "system:nodes", &names), &["server auth"], 3_000_000_000).unwrap();
    let (_, block) = parse_x509_pem(text.as_bytes()).unwrap();
    let certificate = block.parse_x509().unwrap();
    assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    assert_eq!(certificate.validity().not_after.timestamp(), 3_000_000_000);
    assert!(issue(JANE, &["cert sign"], 2_000).unwrap_err().to_string().contains("not signed here"));
}
