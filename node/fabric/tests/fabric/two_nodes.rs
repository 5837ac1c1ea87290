//! A pod of one owner runs at another: from the contract to nothing left.

use std::sync::atomic::Ordering;

use fluidos_model::kinds::{Allocation, AllocationPhase, Contract, Ledger};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service};
use kube::api::{DeleteParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use substrate_apiserver::node_proxy::{ExecOptions, ExecOutput, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contract_becomes_a_node_of_exactly_its_size_and_goes_with_it() {
    let pair = Pair::ready().await;
    let node = pair.node_is("grid", "True").await;
    let status = node.status.clone().unwrap();
    let amounts =
        |of: Option<std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
            of.unwrap().into_iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect::<Vec<_>>()
        };
    assert_eq!(amounts(status.allocatable), ["cpu=1500m", "memory=1Gi", "pods=5"]);
    assert_eq!(amounts(status.capacity), ["cpu=1500m", "memory=1Gi", "pods=5"]);
    assert_eq!(node.labels()["fluidos.eu/virtual-node"], "true");
    assert_eq!(node.labels()["reservation.fluidos.eu/contract"], CONTRACT);
    assert_eq!(node.labels()["kubernetes.io/hostname"], "grid");
    assert_eq!(node.annotations()["fluidos.eu/peer-did"], pair.grid.links.id().to_string());
    assert!(node.annotations()["fluidos.eu/location"].contains("Milan"), "{:?}", node.annotations());
    let nodes = pair.farm.nodes();
    // A node that was there before its link is measured a moment after it is ready.
    let latency = || async { nodes.get("grid").await.unwrap().annotations().get("fluidos.eu/latency-micros").cloned() };
    until("the latency", latency, |latency| latency.as_ref().is_some_and(|l| l.parse::<u64>().unwrap() > 0)).await;
    until(
        "no taint but its own",
        || async { taints(&nodes.get("grid").await.unwrap()) },
        |t| *t == ["fluidos.eu/virtual-node:NoSchedule"],
    )
    .await;
    let leases = Api::<Lease>::namespaced(pair.farm.client.clone(), "kube-node-lease");
    until("a lease", || async { leases.get_opt("grid").await.unwrap() }, Option::is_some).await;
    let allocations = Api::<Allocation>::namespaced(pair.farm.client.clone(), "fluidos");
    let phase =
        || async { allocations.list(&Default::default()).await.unwrap().items[0].status.clone().unwrap_or_default() };
    let active = until("allocation active", phase, |s| s.status == AllocationPhase::Active).await;
    assert_eq!(active.resource_ref.unwrap().name, "grid");
    let sold = Api::<Allocation>::namespaced(pair.grid.client.clone(), "fluidos");
    let phase =
        || async { sold.list(&Default::default()).await.unwrap().items[0].status.clone().unwrap_or_default().status };
    until("the seller's allocation active", phase, |phase| *phase == AllocationPhase::Active).await;

    // The contract ends: the node and its pods go, and all that was at the provider.
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    pair.pod_is("web", "running", |pod| phase_is(pod, "Running")).await;
    pair.grid.delete::<Contract>("fluidos", CONTRACT).await;
    pair.farm.delete::<Contract>("fluidos", CONTRACT).await;
    until("node gone", || async { nodes.get_opt("grid").await.unwrap() }, Option::is_none).await;
    pair.no_pod("web").await;
    pair.no_twin("web").await;
    until("lease gone", || async { leases.get_opt("grid").await.unwrap() }, Option::is_none).await;
    let namespaces = Api::<Namespace>::all(pair.grid.client.clone());
    let ending = || async { namespaces.get_opt(&pair.twin_namespace()).await.unwrap() };
    until("twin namespace ends", ending, |ns| ns.as_ref().is_none_or(|ns| ns.metadata.deletion_timestamp.is_some()))
        .await;
    assert!(pair.farm.proxies.get("grid").is_none());
}

fn phase_is(pod: &Pod, wanted: &str) -> bool {
    phase(pod) == wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_at_its_provider_with_what_it_names_and_nothing_else() {
    let pair = Pair::ready().await;
    let farm = &pair.farm;
    farm.create::<ConfigMap>(json!({"metadata": {"name": "settings", "namespace": "shop"}, "data": {"COLOUR": "red", "API_SERVICE_PORT": "1"}})).await;
    farm.create::<Secret>(json!({"metadata": {"name": "password", "namespace": "shop"}, "data": {"key": "c2VjcmV0"}}))
        .await;
    farm.create::<Secret>(json!({"metadata": {"name": "private", "namespace": "shop"}, "data": {"key": "c2VjcmV0"}}))
        .await;
    let service: Service = farm
        .create(json!({"metadata": {"name": "api", "namespace": "shop"}, "spec": {"ports": [{"port": 8080}]}}))
        .await;
    let made = pod("web", "grid", |pod| {
        pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
        pod["spec"]["containers"][0]["env"] = json!([
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "ON", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "password", "mountPath": "/etc/password"}]);
        pod["spec"]["volumes"] = json!([{"name": "password", "secret": {"secretName": "password"}}]);
    });
    let created: Pod = farm.create(made).await;
    let pod = pair.pod_is("web", "running", |pod| phase_is(pod, "Running")).await;
    let status = pod.status.clone().unwrap();
    assert!(status.pod_ip.as_deref().unwrap().starts_with("100."), "{status:?}");
    assert_eq!((status.host_ip, status.host_ips), (None, None));
    let container = &status.container_statuses.unwrap()[0];
    assert_eq!((container.image.as_str(), container.ready), ("flt/app:1", true));
    assert!(
        status.conditions.unwrap().iter().all(|c| c.type_ != "fluidos.eu/Placed"),
        "a peer writes no condition of ours"
    );

    let twin = pair.twin("web").await;
    let spec = twin.spec.clone().unwrap();
    assert_eq!(twin.annotations()["fluidos.eu/origin"], format!("shop/web/{}", created.uid().unwrap()));
    assert_eq!(twin.annotations().len(), 1, "{:?}", twin.annotations());
    assert_eq!(twin.labels()["app"], "web");
    assert!(!twin.labels().contains_key("node-role.kubernetes.io/x"));
    assert_eq!(spec.automount_service_account_token, Some(false));
    assert_eq!(spec.security_context.unwrap().seccomp_profile.unwrap().type_, "RuntimeDefault");
    let main = &spec.containers[0];
    assert_eq!(main.security_context.clone().unwrap().allow_privilege_escalation, Some(false));
    let limits = main.resources.clone().unwrap().limits.unwrap();
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("1500m", "1Gi"));
    assert_eq!(spec.dns_policy.as_deref(), Some("None"));
    let dns = spec.dns_config.unwrap();
    assert_eq!(dns.nameservers.unwrap(), [dns_of(farm.links.id()).to_string()]);
    assert_eq!(dns.searches.unwrap(), ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    let env: Vec<(String, String)> =
        main.env.iter().flatten().map(|e| (e.name.clone(), e.value.clone().unwrap_or_default())).collect();
    let value = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(value("API_SERVICE_HOST"), service.spec.unwrap().cluster_ip.as_deref());
    assert_eq!(value("API_SERVICE_PORT"), None, "what the ConfigMap says wins");
    assert_eq!(value("API_PORT_8080_TCP_PROTO"), Some("tcp"));
    assert_eq!((value("WHERE"), value("ON")), (Some("shop"), Some("")));

    let there = pair.twin_namespace();
    let secrets = Api::<Secret>::namespaced(pair.grid.client.clone(), &there);
    let names: Vec<String> = secrets.list(&Default::default()).await.unwrap().iter().map(|s| s.name_any()).collect();
    assert_eq!(names, ["password"], "what the pod does not name stays at home");
    let maps = Api::<ConfigMap>::namespaced(pair.grid.client.clone(), &there);
    let colour = || async { maps.get("settings").await.unwrap().data.unwrap()["COLOUR"].clone() };
    assert_eq!(colour().await, "red");
    let change = Patch::Merge(json!({"data": {"COLOUR": "blue"}}));
    Api::<ConfigMap>::namespaced(farm.client.clone(), "shop")
        .patch("settings", &PatchParams::default(), &change)
        .await
        .unwrap();
    until("the change arrives", colour, |colour| colour == "blue").await;

    // Logs, terminals, ports.
    let logs = farm.pods("shop").logs("web", &LogParams { tail_lines: Some(3), ..LogParams::default() }).await.unwrap();
    assert_eq!(logs, format!("{there}/web main tail=Some(3)\n"));
    let proxy = farm.proxies.get("grid").unwrap();
    let target = pair.target(&pod);
    let exec = |command: &str| ExecOptions {
        command: vec![command.into()],
        stdin: true,
        stdout: true,
        ..ExecOptions::default()
    };
    let mut session = proxy.exec(&target, &exec("cat")).await.unwrap();
    let long = "x".repeat(200_000);
    session.resize.send(TerminalSize { width: 80, height: 25 }).await.unwrap();
    assert_eq!(session.output.recv().await.unwrap(), ExecOutput::Stderr("cat\n".into()));
    assert_eq!(
        session.output.recv().await.unwrap(),
        ExecOutput::Stderr("TerminalSize { width: 80, height: 25 }".into())
    );
    session.stdin.send(long.clone().into()).await.unwrap();
    drop(session.stdin);
    drop(session.resize);
    let (mut heard, mut end) = (String::new(), None);
    while let Some(output) = session.output.recv().await {
        match output {
            ExecOutput::Stdout(bytes) => heard.push_str(std::str::from_utf8(&bytes).unwrap()),
            other => end = Some(other),
        }
    }
    assert_eq!((heard.len(), end), (long.len(), Some(ExecOutput::Exit(7))));
    assert_eq!(proxy.exec(&target, &exec("refused")).await.err().unwrap().to_string(), "it is not running");
    let mut port = proxy.port_forward(&target, 80).await.unwrap();
    port.write_all(b"ping").await.unwrap();
    let mut pong = [0; 4];
    port.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"ping");
    assert!(proxy.port_forward(&target, 81).await.err().unwrap().to_string().contains("nobody listens on 81"));

    // It is deleted: it stays until nothing of it runs.
    pair.machine.holds_on.store(true, Ordering::Relaxed);
    farm.delete::<Pod>("shop", "web").await;
    let twins = pair.twins();
    until(
        "twin is told to stop",
        || async { twins.get("web").await.unwrap().metadata.deletion_timestamp },
        Option::is_some,
    )
    .await;
    assert!(farm.pods("shop").get_opt("web").await.unwrap().is_some(), "its twin still runs");
    pair.machine.holds_on.store(false, Ordering::Relaxed);
    pair.no_pod("web").await;
    pair.no_twin("web").await;
    let left = || async { (secrets.get_opt("password").await.unwrap(), maps.get_opt("settings").await.unwrap()) };
    let ending = || async { Api::<Namespace>::all(pair.grid.client.clone()).get_opt(&there).await.unwrap() };
    until(
        "what went with it goes",
        || async { (left().await, ending().await) },
        |((secret, map), namespace)| {
            (secret.is_none() && map.is_none())
                || namespace.as_ref().is_none_or(|ns| ns.metadata.deletion_timestamp.is_some())
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_link_is_said_at_once_and_stale_twins_stop_before_the_node_is_ready_again() {
    let pair = Pair::ready().await;
    for name in ["kept", "stale"] {
        pair.farm.create::<Pod>(pod(name, "grid", |_| {})).await;
        pair.pod_is(name, "running", |pod| phase_is(pod, "Running")).await;
    }
    let kept = pair.twin("kept").await.uid();
    pair.wire.set_cut(true);
    let node = pair.node_is("grid", "Unknown").await;
    assert_eq!(condition(&node, "MemoryPressure"), "Unknown");
    let nodes = pair.farm.nodes();
    let wanted = [
        "fluidos.eu/virtual-node:NoSchedule",
        "node.kubernetes.io/unreachable:NoSchedule",
        "node.kubernetes.io/unreachable:NoExecute",
    ];
    until("tainted", || async { taints(&nodes.get("grid").await.unwrap()) }, |taints| *taints == wanted).await;
    let is_ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    pair.pod_is("kept", "not ready", |pod| !is_ready(pod)).await;
    // Its place is taken by another while nobody can tell its twin.
    pair.farm.delete::<Pod>("shop", "stale").await;
    pair.no_pod("stale").await;
    assert!(pair.twins().get_opt("stale").await.unwrap().is_some());
    pair.machine.holds_on.store(true, Ordering::Relaxed);
    pair.wire.set_cut(false);
    let twins = pair.twins();
    until(
        "stale twin is told to stop",
        || async { twins.get("stale").await.unwrap().metadata.deletion_timestamp },
        Option::is_some,
    )
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_ne!(condition(&nodes.get("grid").await.unwrap(), "Ready"), "True", "a stale twin still runs");
    pair.machine.holds_on.store(false, Ordering::Relaxed);
    pair.node_is("grid", "True").await;
    assert!(pair.twins().get_opt("stale").await.unwrap().is_none());
    pair.pod_is("kept", "ready again", is_ready).await;
    assert_eq!(pair.twin("kept").await.uid(), kept, "it was not started again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_the_provider_nothing_starts_that_is_not_confirmed() {
    let pair = Pair::ready().await;
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    pair.pod_is("web", "running", |pod| phase_is(pod, "Running")).await;
    let twin = pair.twin("web").await;
    assert!(pair.grid.fabric.as_ref().unwrap().is_confirmed(&twin));
    // A fabric that has just started on the same API has heard of nothing.
    let mut again = Side::bare("again", 2).await;
    again.client = pair.grid.client.clone();
    again.start_fabric();
    let fabric = again.fabric.as_ref().unwrap();
    assert!(!fabric.is_confirmed(&twin));
    let own: Pod = from(json!({"metadata": {"name": "own"}}));
    assert!(fabric.is_confirmed(&own));
    let pretender: Pod =
        from(json!({"metadata": {"name": "x", "labels": {"reservation.fluidos.eu/contract": CONTRACT}}}));
    assert!(!fabric.is_confirmed(&pretender));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_settled_is_not_written_again() {
    let pair = Pair::ready().await;
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    let uid = pair.pod_is("web", "running", |pod| phase_is(pod, "Running")).await.uid();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let seen = async || {
        // The first round trips of a link are slower than later ones: its latency may be measured better meanwhile.
        let mut node = pair.farm.nodes().get("grid").await.unwrap();
        node.annotations_mut().remove("fluidos.eu/latency-micros");
        (node.metadata.resource_version, node.metadata.managed_fields) = (None, None);
        let pod = pair.farm.pods("shop").get("web").await.unwrap();
        assert_eq!(pod.uid(), uid);
        let twin = pair.twin("web").await.resource_version();
        let allocations = Api::<Allocation>::namespaced(pair.farm.client.clone(), "fluidos");
        let allocation = allocations.list(&Default::default()).await.unwrap().items[0].resource_version();
        (node, [pod.resource_version(), twin, allocation])
    };
    let before = seen().await;
    // Two rounds of looking again, and what else happens in the API wakes everybody.
    pair.farm.create::<Pod>(pod("other", "elsewhere", |_| {})).await;
    tokio::time::sleep(std::time::Duration::from_millis(4500)).await;
    assert_eq!(seen().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_says_is_cut_down_to_what_is_its_own() {
    let pair = Pair::ready().await;
    pair.machine.lies.store(true, Ordering::Relaxed);
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    let pod = pair.pod_is("web", "running", |pod| phase_is(pod, "Running")).await;
    let status = pod.status.unwrap();
    assert_eq!((status.pod_ip, status.pod_ips), (None, None), "an address outside its prefix");
    let message = status.message.unwrap();
    assert_eq!((message.len(), message.contains('\u{1b}')), (1024, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_may_not_run_there_says_why_and_its_node_goes_on() {
    let pair = Pair::ready().await;
    let privileged = pod("bad", "grid", |pod| {
        pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
        pod["spec"]["hostPID"] = json!(true);
    });
    pair.farm.create::<Pod>(privileged).await;
    let message = |pod: &Pod| pod.status.as_ref().and_then(|s| s.message.clone()).unwrap_or_default();
    let bad = pair.pod_is("bad", "refused", |pod| !message(pod).is_empty()).await;
    assert_eq!(bad.status.as_ref().unwrap().reason.as_deref(), Some("Refused"));
    assert_eq!(
        message(&bad),
        "the provider refused it: pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true), \
         privileged (container \"main\" must not set securityContext.privileged=true)"
    );
    let ask = |name: &str, cpu: &str| {
        pod(name, "grid", |pod| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = Value::from(cpu))
    };
    pair.farm.create::<Pod>(ask("first", "1")).await;
    pair.pod_is("first", "running", |pod| phase_is(pod, "Running")).await;
    pair.farm.create::<Pod>(ask("second", "600m")).await;
    let second = pair.pod_is("second", "refused", |pod| !message(pod).is_empty()).await;
    assert!(
        message(&second).ends_with("does not fit into the contract: cpu: 1500m bought, needed 1600m"),
        "{}",
        message(&second)
    );
    pair.farm.delete::<Pod>("shop", "bad").await;
    pair.no_pod("bad").await;
    // Policies are asked about what is new, not about what runs; and again when they may have changed.
    pair.grid.barred.store(true, Ordering::Relaxed);
    pair.farm.create::<Pod>(ask("third", "100m")).await;
    let third = pair.pod_is("third", "refused", |pod| !message(pod).is_empty()).await;
    let why = "the provider refused it: pods \"third\" is forbidden: policy door forbids Offload from shop";
    assert_eq!(message(&third), why);
    pair.pod_is("first", "still running", |pod| phase_is(pod, "Running")).await;
    pair.grid.barred.store(false, Ordering::Relaxed);
    pair.pod_is("third", "running", |pod| phase_is(pod, "Running") && message(pod).is_empty()).await;
    pair.farm.delete::<Pod>("shop", "third").await;
    // What did not fit fits when others have ended; it is asked for again.
    pair.farm.delete::<Pod>("shop", "first").await;
    pair.pod_is("second", "running", |pod| phase_is(pod, "Running") && message(pod).is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_removed_by_force_takes_its_twin_with_it_and_one_taken_down_there_fails_here() {
    let pair = Pair::ready().await;
    for name in ["forced", "evicted"] {
        pair.farm.create::<Pod>(pod(name, "grid", |_| {})).await;
        pair.pod_is(name, "running", |pod| phase_is(pod, "Running")).await;
    }
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    pair.farm.pods("shop").delete("forced", &now).await.unwrap();
    pair.no_twin("forced").await;
    pair.twins().delete("evicted", &now).await.unwrap();
    let evicted = pair.pod_is("evicted", "failed", |pod| phase_is(pod, "Failed")).await;
    assert_eq!(evicted.status.unwrap().reason.as_deref(), Some("Evicted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_paid_per_use_yields_in_the_order_of_its_contracts() {
    let pair = Pair::ready().await;
    let second = "contract-grid-2";
    let terms = contract(second, pair.farm.links.id(), pair.grid.links.id(), "1500m", "1Gi", "5");
    for side in [&pair.grid, &pair.farm] {
        side.contract(&terms).await;
        side.create::<Allocation>(allocation(second)).await;
    }
    let nodes = pair.farm.nodes();
    let of_second = || async {
        let nodes = nodes.list(&Default::default()).await.unwrap().items;
        let is = |node: &&Node| node.labels().get("reservation.fluidos.eu/contract").is_some_and(|of| of == second);
        nodes.iter().find(is).filter(|node| condition(node, "Ready") == "True").map(|node| node.name_any())
    };
    let other = until("the second virtual node", of_second, Option::is_some).await.unwrap();
    // One and a half CPU are promised twice: who has yields 1 goes before who has 2.
    let promise = |contract: &str, yields: u32| {
        json!({"transactionID": contract, "buyer": pair.farm.links.id().to_string(), "flavorID": "flavor",
            "amounts": {"cpu": "1500m", "memory": "1Gi", "pods": "5"}, "contract": contract,
            "agreed": {"policy": "p", "issued": "2026-01-01T00:00:00Z", "holdUntil": "2026-01-01T00:01:00Z",
                "price": {"amount": "0", "currency": "", "period": ""},
                "conditions": {"businessModel": "pay-per-use", "yields": yields, "overcommitPerCent": 200}}})
    };
    let commitments = json!([promise(CONTRACT, 1), promise(second, 2)]);
    pair.grid
        .create::<Ledger>(json!({"apiVersion": "reservation.fluidos.eu/v1alpha1", "kind": "Ledger",
            "metadata": {"name": "pool", "namespace": "fluidos"},
            "spec": {"capacity": {"cpu": "1500m", "memory": "1Gi", "pods": "10"}, "commitments": commitments}}))
        .await;
    let one = |pod: &mut Value| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    pair.farm.create::<Pod>(pod("early", "grid", one)).await;
    pair.pod_is("early", "running", |pod| phase_is(pod, "Running")).await;
    pair.farm.create::<Pod>(pod("first", &other, one)).await;
    pair.pod_is("first", "running", |pod| phase_is(pod, "Running")).await;
    let evicted = pair.pod_is("early", "evicted", |pod| phase_is(pod, "Failed")).await.status.unwrap();
    assert_eq!(evicted.reason.as_deref(), Some("Evicted"));
    let rule = "it yields, as the contract says (yields: 1): cpu: 500m left of what is paid per use, needed 1";
    assert_eq!(evicted.message.unwrap(), format!("the provider has taken it down: {rule}"));
    // What comes in its place waits, and both sides see that it does.
    pair.farm.create::<Pod>(pod("late", "grid", one)).await;
    let reason = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.clone());
    let waits = pair.pod_is("late", "yields", |pod| reason(pod).as_deref() == Some("Yielded")).await.status.unwrap();
    assert_eq!(waits.message.unwrap(), format!("the provider refused it: {rule}"));
    let yielding = async |wanted: u64| {
        for side in [&pair.farm, &pair.grid] {
            let api = Api::<Allocation>::namespaced(side.client.clone(), "fluidos");
            let name = fluidos_model::kinds::names::allocation(CONTRACT);
            let seen = || async { api.get(&name).await.unwrap().status.unwrap_or_default().yielding };
            until(&format!("{wanted} yield"), seen, |yielding| *yielding == wanted).await;
        }
    };
    yielding(1).await;
    // A small one takes what is left; the other begins when there is room again.
    let small = |pod: &mut Value| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("500m");
    pair.farm.create::<Pod>(pod("small", "grid", small)).await;
    pair.pod_is("small", "running", |pod| phase_is(pod, "Running")).await;
    pair.farm.delete::<Pod>("shop", "first").await;
    pair.pod_is("late", "running", |pod| phase_is(pod, "Running")).await;
    yielding(0).await;
    assert!(phase_is(&pair.farm.pods("shop").get("small").await.unwrap(), "Running"), "it stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twins_run_under_the_runtime_class_that_was_signed_or_not_at_all() {
    let pair = Pair::ready().await;
    let strong = "contract-grid-strong";
    let mut terms = contract(strong, pair.farm.links.id(), pair.grid.links.id(), "1", "1Gi", "5");
    let signed = json!({"conditions": {"runtimeClass": "strong"}}).to_string();
    let payload = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signed);
    terms["spec"]["signedTerms"] = json!({"purpose": "fluidos-contract+jws", "payload": payload, "signatures": []});
    for side in [&pair.grid, &pair.farm] {
        side.contract(&terms).await;
        side.create::<Allocation>(allocation(strong)).await;
    }
    let nodes = pair.farm.nodes();
    let of_contract = || async {
        let nodes = nodes.list(&Default::default()).await.unwrap().items;
        let is = |node: &&Node| node.labels().get("reservation.fluidos.eu/contract").is_some_and(|of| of == strong);
        nodes.iter().find(is).filter(|node| condition(node, "Ready") == "True").map(|node| node.name_any())
    };
    let node = until("the second virtual node", of_contract, Option::is_some).await.unwrap();
    pair.farm.create::<Pod>(pod("web", &node, |_| {})).await;
    let reason = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.clone());
    let refused =
        pair.pod_is("web", "is refused", |pod| reason(pod).as_deref() == Some("Refused")).await.status.unwrap();
    assert!(refused.message.unwrap().contains("pod rejected: RuntimeClass \"strong\" not found"));
    let class = json!({"metadata": {"name": "strong"}, "handler": "kata"});
    let class: k8s_openapi::api::node::v1::RuntimeClass = from(class);
    Api::all(pair.grid.client.clone()).create(&Default::default(), &class).await.unwrap();
    assert_eq!(pair.twin("web").await.spec.unwrap().runtime_class_name.as_deref(), Some("strong"));
}
