//! From NetworkPolicies of an API server to packets of the kernel, in a namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::io::ErrorKind;

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::*;
use crate::Attachment;
use crate::node::tests::{on_machine, serve, tcp_from};
use crate::proxy::tests::{api_client, until};

/// What is refused is refused at once, with a word of the machine.
async fn check(from: &Attachment, to: &Attachment, port: u16, open: bool) {
    let what = format!("{} to {} port {port}: open {open}", from.address, to.address);
    until(&what, async || match tcp_from(from, to.address, port) {
        Ok(_) if open => Ok(()),
        Err(ErrorKind::HostUnreachable | ErrorKind::PermissionDenied) if !open => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[test]
fn packets_go_where_policies_let_them() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let client = api_client().await;
        let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
        let mut attached = Vec::new();
        for name in ["web", "db", "log"] {
            let place = network.attach(&format!("flt-{name}")).await.unwrap();
            [8080, 9090].into_iter().for_each(|port| serve(&place.netns, name, port));
            let pod = json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [
                {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}]}]}});
            pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
            let status = json!({"status": {"phase": "Running", "podIP": place.address.to_string()}});
            pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            attached.push(place);
        }
        let [web, db, log] = &attached[..] else { panic!() };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(PolicyAgent::run(Caches::new(client.clone()), network.clone()));
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), "default");
        let make = async |name: &str, spec: Value| {
            let policy = json!({"metadata": {"name": name}, "spec": spec});
            policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
        };
        check(web, db, 9090, true).await;

        make("db", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [
            {"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "batch"]}]}}], "ports": [{"port": "http"}]}]})).await;
        check(web, db, 9090, false).await;
        check(web, db, 8080, true).await;
        check(log, db, 8080, false).await;
        check(db, log, 9090, true).await;
        assert!(tcp_from(db, db.address, 9090).is_ok(), "a pod always reaches itself");

        make("range", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": [
            {"ipBlock": {"cidr": "10.77.0.0/24", "except": [format!("{}/32", web.address)]}}], "ports": [{"port": 9000, "endPort": 9100}]}]})).await;
        check(log, db, 9090, true).await;
        check(log, db, 8080, false).await;
        check(web, db, 9090, false).await;

        make("out", json!({"podSelector": {"matchLabels": {"app": "log"}}, "policyTypes": ["Egress"], "egress": [
            {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}, {"podSelector": {"matchLabels": {"app": "log"}}}]}]})).await;
        check(log, db, 9090, false).await;
        check(log, web, 9090, true).await;
        check(web, log, 9090, true).await;
        let gateway = network.gateway();
        let refused = tcp_from(log, gateway, 53);
        assert!(
            matches!(refused, Err(ErrorKind::HostUnreachable | ErrorKind::PermissionDenied)),
            "its machine, too: {refused:?}"
        );
        assert_eq!(tcp_from(web, gateway, 53), Err(ErrorKind::ConnectionRefused), "nobody listens, but it may ask");

        let batch = json!({"metadata": {"labels": {"app": "batch"}}});
        pods.patch("log", &PatchParams::default(), &Patch::Merge(batch)).await.unwrap();
        check(log, db, 8080, true).await;
        for name in ["db", "range", "out"] {
            policies.delete(name, &DeleteParams::default()).await.unwrap();
        }
        check(web, db, 9090, true).await;
    });
}
