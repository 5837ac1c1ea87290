//! Who is who: programs in containers as the account of their pod, with what the pod was given and nothing else; people by certificates that
//! they have asked for.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::fs::File;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::kubectl;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

const CLIENT: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  serviceAccountName: robot
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "busybox:1", command: [sleep, "1000"]}]
"#;

const KEPT: &str = r#"
apiVersion: v1
kind: Secret
metadata: {name: kept, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
"#;

#[test]
fn a_program_in_a_pod_asks_the_api_as_its_account() {
    let mut stage = Stage::new("acct").unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    node.apply(CLIENT).unwrap();
    node.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).unwrap();

    // The program is kubectl itself: it finds address, certificate and token where clients in a pod look.
    let put = ["exec", "-i", "client", "--", "sh", "-c", "cat > /kubectl && chmod 755 /kubectl"];
    let status = node.setup.kubectl_command(&put).stdin(File::open(kubectl()).unwrap()).status().unwrap();
    assert!(status.success());
    let inside = |arguments: &[&str]| node.kubectl(&[&["exec", "client", "--", "/kubectl"], arguments].concat());

    let refused = inside(&["get", "pods"]).unwrap_err().to_string();
    let words = "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert!(refused.contains(words), "{refused}");
    node.kubectl(&["create", "role", "reader", "--verb=get,list", "--resource=pods"]).unwrap();
    node.kubectl(&["create", "rolebinding", "reads", "--role=reader", "--serviceaccount=default:robot"]).unwrap();
    let seen = inside(&["get", "pods", "-o", "name"]).unwrap();
    assert_eq!(seen, "pod/client\n");
    let me = inside(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).unwrap();
    assert_eq!(me, "system:serviceaccount:default:robot");

    // A token that its owner asks for is of the same account, and ends with it.
    let token = node.kubectl(&["create", "token", "robot", "--duration=10m"]).unwrap();
    let with = |token: &str, arguments: &[&str]| {
        let server =
            node.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).unwrap();
        let alone = ["--kubeconfig=/dev/null", "--insecure-skip-tls-verify", "--server", &server, "--token", token];
        node.kubectl(&[&alone, arguments].concat())
    };
    let as_robot = |arguments: &[&str]| with(token.trim(), arguments);
    assert_eq!(as_robot(&["get", "pods", "-o", "name"]).unwrap(), "pod/client\n");

    // So is one that is kept in a Secret; it ends with the Secret.
    node.apply(KEPT).unwrap();
    let kept = until("the Secret has a token", LIMIT, || {
        let found = node.kubectl(&["get", "secret", "kept", "-o", "go-template={{base64decode .data.token}}"]);
        found.map_err(|error| error.to_string())
    })
    .unwrap();
    assert_eq!(with(&kept, &["get", "pods", "-o", "name"]).unwrap(), "pod/client\n");
    node.kubectl(&["delete", "secret", "kept"]).unwrap();
    let refused = with(&kept, &["get", "pods"]).unwrap_err().to_string();
    assert!(refused.contains("You must be logged in to the server"), "{refused}");

    node.kubectl(&["delete", "serviceaccount", "robot"]).unwrap();
    until("the token ends with its account", LIMIT, || {
        let told = as_robot(&["get", "pods"]).err().map(|error| error.to_string()).unwrap_or_default();
        if told.contains("You must be logged in to the server") { Ok(()) } else { Err(told) }
    })
    .unwrap();
}

#[test]
fn who_asks_for_a_certificate_is_who_it_says() {
    let mut stage = Stage::new("cert").unwrap();
    let node = stage.start("farm", &["--no-mdns", "--no-agent"]).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut asked = CertificateParams::new(Vec::new()).unwrap();
    asked.distinguished_name.push(DnType::CommonName, "jane");
    asked.distinguished_name.push(DnType::OrganizationName, "gardeners");
    let pem = asked.serialize_request(&key).unwrap().pem().unwrap();
    let file = tempfile::tempdir().unwrap();
    let at = |name: &str| file.path().join(name).to_str().unwrap().to_owned();
    let request = BASE64_STANDARD.encode(pem);
    let spec =
        json!({ "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "request": request });
    let request = json!({ "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": { "name": "jane" }, "spec": spec });
    node.apply(&request.to_string()).unwrap();
    let pending = node.kubectl(&["get", "csr", "jane", "--no-headers"]).unwrap();
    assert!(pending.contains("Pending"), "{pending}");
    node.kubectl(&["certificate", "approve", "jane"]).unwrap();
    let certificate = until("the certificate", LIMIT, || {
        let found = node.kubectl(&["get", "csr", "jane", "-o", "go-template={{base64decode .status.certificate}}"]);
        found.map_err(|error| error.to_string()).and_then(|pem| if pem.contains("BEGIN") { Ok(pem) } else { Err(pem) })
    })
    .unwrap();
    std::fs::write(at("crt"), certificate).unwrap();
    std::fs::write(at("key"), key.serialize_pem()).unwrap();

    let server = node.kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"]).unwrap();
    let (crt, key) = (at("crt"), at("key"));
    let alone = [
        "--kubeconfig=/dev/null",
        "--insecure-skip-tls-verify",
        "--server",
        &server,
        "--client-certificate",
        &crt,
        "--client-key",
        &key,
    ];
    let as_jane = |arguments: &[&str]| node.kubectl(&[&alone, arguments].concat());
    assert_eq!(
        as_jane(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups[0]}"])
            .unwrap(),
        "jane gardeners"
    );
    let refused = as_jane(&["get", "configmaps"]).unwrap_err().to_string();
    assert!(refused.contains("User \"jane\" cannot list resource \"configmaps\""), "{refused}");
    node.kubectl(&["create", "rolebinding", "garden", "--clusterrole=view", "--group=gardeners"]).unwrap();
    assert!(as_jane(&["get", "configmaps", "-o", "name"]).unwrap().contains("kube-root-ca.crt"));
    assert!(as_jane(&["delete", "configmap", "kube-root-ca.crt"]).is_err());
}
