//! Requests for certificates are approved, signed and cleared away, and tokens are put into Secrets, over a real API server in process.
use std::sync::Arc;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use substrate_apiserver::auth::User;
use substrate_apiserver::tls::Authority;
use substrate_controllers::Options;
use x509_parser::pem::parse_x509_pem;

use crate::world::{World, until, world};

async fn signing() -> (World, Api<CertificateSigningRequest>) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    let signer: substrate_client::certificates::Signer =
        Arc::new(move |asked, usages, life| authority.issue(asked, usages, life).map_err(|error| error.to_string()));
    let world = world(Options { signer: Some(signer), ..Options::default() }).await;
    let api = Api::all(world.client.clone());
    (world, api)
}

async fn ask(api: &Api<CertificateSigningRequest>, name: &str, signer: &str, subject: (&str, &str), usages: Value) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, subject.0);
    params.distinguished_name.push(DnType::OrganizationName, subject.1);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let mut request: CertificateSigningRequest = serde_json::from_value(json!({ "metadata": { "name": name },
        "spec": { "request": "", "signerName": signer, "usages": usages, "expirationSeconds": 3600 } }))
    .unwrap();
    request.spec.request.0 = pem.into_bytes();
    api.create(&PostParams::default(), &request).await.unwrap();
}

async fn approve(api: &Api<CertificateSigningRequest>, name: &str) {
    let conditions = json!([{ "type": "Approved", "status": "True", "reason": "Fine" }]);
    let patch = Patch::Merge(json!({ "status": { "conditions": conditions } }));
    api.patch_approval(name, &PatchParams::default(), &patch).await.unwrap();
}

/// Type, reason and message of the last condition, once there is a certificate or a failure.
async fn outcome(api: &Api<CertificateSigningRequest>, name: &str) -> (Option<Vec<u8>>, String) {
    until(name, async || {
        let status = api.get(name).await.unwrap().status.unwrap_or_default();
        let last = status.conditions.unwrap_or_default().pop();
        let last = last.map(|c| format!("{}: {}", c.type_, c.message.unwrap_or_default())).unwrap_or_default();
        let certificate = status.certificate.map(|pem| pem.0);
        if certificate.is_some() || last.starts_with("Failed") { Ok((certificate, last)) } else { Err(last) }
    })
    .await
}

#[tokio::test]
async fn what_is_approved_is_signed_for_who_it_says() {
    let (_world, api) = signing().await;
    ask(&api, "jane", "kubernetes.io/kube-apiserver-client", ("jane", "devs"), json!(["client auth"])).await;
    ask(&api, "bad", "kubernetes.io/kube-apiserver-client", ("jane", "devs"), json!(["server auth"])).await;
    ask(&api, "another", "x.io/mine", ("jane", "devs"), json!(["client auth"])).await;
    for name in ["bad", "another", "jane"] {
        approve(&api, name).await;
    }
    let (certificate, _) = outcome(&api, "jane").await;
    let certificate = certificate.unwrap();
    let (_, block) = parse_x509_pem(&certificate).unwrap();
    assert_eq!(User::from_certificate(&block.contents).unwrap().name, "jane");
    let validity = block.parse_x509().unwrap().validity().clone();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3600 + 300);
    let (certificate, why) = outcome(&api, "bad").await;
    assert_eq!((certificate, why.as_str()), (None, "Failed: invalid usage for client certificate: server auth"));
    // Looked at before jane's, by its name.
    let left = api.get("another").await.unwrap().status.unwrap();
    let conditions = left.conditions.unwrap_or_default();
    assert!(left.certificate.is_none() && conditions.len() == 1, "its signer is somebody else: {conditions:?}");
}

#[tokio::test]
async fn a_kubelet_is_approved_by_its_rights() {
    // Everybody in this world may do everything, so `nodeclient`, too.
    let (_world, api) = signing().await;
    let usages = json!(["client auth", "digital signature"]);
    ask(&api, "n", "kubernetes.io/kube-apiserver-client-kubelet", ("system:node:n", "system:nodes"), usages).await;
    let (certificate, why) = outcome(&api, "n").await;
    let message = "Approved: Auto approving kubelet client certificate after SubjectAccessReview.";
    assert_eq!((certificate.is_some(), why.as_str()), (true, message));
}

#[tokio::test]
async fn a_secret_gets_the_token_of_its_account_and_goes_with_it() {
    let minter: substrate_controllers::Minter =
        Arc::new(|namespace, account, secret| Ok(format!("token of {namespace}/{} in {secret}", account.0)));
    let world =
        world(Options { minter: Some(minter), root_certificate: Some("pem".into()), ..Options::default() }).await;
    let (accounts, secrets) = (world.api::<ServiceAccount>(), world.api::<Secret>());
    let secret = |name: &str, account: &str| {
        let annotations = json!({ "kubernetes.io/service-account.name": account });
        json!({ "metadata": { "name": name, "annotations": annotations }, "type": "kubernetes.io/service-account-token" })
    };
    let account: ServiceAccount = world.create(json!({ "metadata": { "name": "robot" } })).await;
    world.create::<Secret>(secret("kept", "robot")).await;
    world.create::<Secret>(secret("stray", "nobody")).await;
    let filled = async |what: &str| {
        until(what, async || {
            let found = secrets.get("kept").await.unwrap();
            let data = found.data.clone().unwrap_or_default();
            let text = |key: &str| data.get(key).map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
            let all = [text("token"), text("ca.crt"), text("namespace")];
            if all.iter().all(Option::is_some) { Ok((found, all.map(Option::unwrap))) } else { Err(format!("{all:?}")) }
        })
        .await
    };
    let (found, data) = filled("filled").await;
    assert_eq!(data, ["token of default/robot in kept", "pem", "default"]);
    let annotations = found.metadata.annotations.unwrap();
    assert_eq!(Some(&annotations["kubernetes.io/service-account.uid"]), account.metadata.uid.as_ref());
    let empty = Patch::Merge(json!({ "data": { "token": null } }));
    secrets.patch("kept", &PatchParams::default(), &empty).await.unwrap();
    filled("filled again").await;

    let left = async |wanted: &[&str]| {
        until(&format!("left are {wanted:?}"), async || {
            let all = secrets.list(&Default::default()).await.unwrap().items;
            let names: Vec<String> = all.into_iter().filter_map(|secret| secret.metadata.name).collect();
            if names == wanted { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
    };
    left(&["kept"]).await;
    accounts.delete("robot", &DeleteParams::default()).await.unwrap();
    left(&[]).await;
}
