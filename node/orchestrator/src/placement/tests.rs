#![allow(clippy::unwrap_used, clippy::panic)]

use expect_test::{Expect, expect};
use fluidos_model::intent;
use fluidos_model::kinds::{Contract, KnownCluster, Phase, Solver, names};
use fluidos_model::market::{Amounts, Kept, Location};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::plan::{Action, plan};
use super::view::View;

fn node(name: &str, cpu: &str, city: Option<&str>) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": "amd64"}, "annotations": {}},
        "status": {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": "10"}, "conditions": [{"type": "Ready", "status": "True"}]}});
    if let Some(city) = city {
        node["metadata"]["labels"]["fluidos.eu/virtual-node"] = "true".into();
        node["metadata"]["labels"]["reservation.fluidos.eu/contract"] = format!("contract-{name}").into();
        node["metadata"]["annotations"]["fluidos.eu/location"] = json!({"city": city}).to_string().into();
        node["metadata"]["annotations"]["fluidos.eu/latency-micros"] = "1500".into();
        node["spec"] = json!({"taints": [{"key": "fluidos.eu/virtual-node", "effect": "NoSchedule"}]});
    }
    serde_json::from_value(node).unwrap()
}

fn down(mut node: Node) -> Node {
    let condition = &mut node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0];
    (condition.status, condition.message) = ("Unknown".into(), Some("the link is down".into()));
    node
}

fn pod(name: &str, workload: &str, cpu: &str, intents: &[(&str, &str)]) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "annotations": {"fluidos.eu/workload": format!("Deployment/{workload}/{workload}")}},
        "spec": {"schedulingGates": [{"name": "fluidos.eu/placement"}], "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
    for (name, value) in intents {
        pod["metadata"]["annotations"][format!("fluidos-intent-{name}")] = (*value).into();
    }
    serde_json::from_value(pod).unwrap()
}

fn on(mut pod: Pod, node: &str) -> Pod {
    let spec = pod.spec.as_mut().unwrap();
    spec.scheduling_gates = None;
    spec.node_name = Some(node.into());
    pod
}

fn solver(name: &str, workload: &str, phase: Phase, ended: i64) -> Solver {
    let mut solver = Solver::new(name, Default::default());
    solver.metadata.uid = Some(format!("uid-{name}"));
    solver.metadata.labels = Some([("fluidos.eu/solver-for".to_owned(), workload.to_owned())].into());
    let status = solver.status.get_or_insert_default();
    status.solver_phase.phase = phase;
    status.solver_phase.message = "grid refused: cpu: 1 free, needed 2".into();
    status.solver_phase.end_time = Some(Timestamp::from_second(ended).unwrap().to_string());
    solver
}

/// The contract of the virtual node `node`, bought by this Solver.
fn contract(node: &str, solver: &Solver) -> Contract {
    let mut contract = Contract::new(&format!("contract-{node}"), Default::default());
    contract.metadata.owner_references = Some(vec![OwnerReference {
        kind: "Solver".into(),
        uid: solver.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    contract
}

/// A Solver that a person wrote: what it bought is for whoever fits.
fn by_hand() -> Solver {
    let mut solver = Solver::new("by-hand", Default::default());
    solver.metadata.uid = Some("uid-by-hand".into());
    solver
}

/// Every virtual node was bought by hand.
fn check(nodes: &[Node], pods: &[Pod], solvers: &[Solver], expected: Expect) {
    let contracts = ["grid", "cloud"].map(|node| contract(node, &by_hand()));
    let solvers: Vec<Solver> = solvers.iter().cloned().chain([by_hand()]).collect();
    check_bought(nodes, pods, &solvers, &contracts, expected);
}

fn check_bought(nodes: &[Node], pods: &[Pod], solvers: &[Solver], contracts: &[Contract], expected: Expect) {
    let own = Location { city: "Turin".into(), ..Location::default() };
    let view = View::new(nodes.iter(), pods.iter(), solvers.iter(), contracts.iter(), &own);
    let lines: Vec<String> = plan(&view, Timestamp::from_second(1000).unwrap())
        .iter()
        .map(|action| match action {
            Action::Open { pod, nodes, is_virtual, why } => {
                format!("open {} -> {nodes:?} virtual={is_virtual}: {why}", pod.1)
            }
            Action::Solve { name, needs, largest, annotations, .. } => format!(
                "solve {name}: {}m {} B {} pods{} {annotations:?}",
                needs.cpu_milli,
                needs.memory_bytes,
                needs.pods,
                largest
                    .as_ref()
                    .map_or(String::new(), |one| format!(" in parts of {}m {} B", one.cpu_milli, one.memory_bytes))
            ),
            Action::Drop { solver } => format!("drop {solver}"),
            Action::Say { pod, message, warning } => format!("say {} warning={warning}: {message}", pod.1),
        })
        .collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn what_fits_at_home_stays_at_home() {
    check(
        &[node("farm", "2", None), node("grid", "8", Some("Milan"))],
        &[pod("db", "w1", "1", &[])],
        &[],
        expect![[r#"open db -> ["farm"] virtual=false: an own node; satisfies every intent"#]],
    );
}

#[test]
fn an_intent_leads_to_the_node_that_satisfies_it() {
    check(
        &[node("farm", "2", None), node("grid", "8", Some("Milan"))],
        &[pod("api", "w1", "100m", &[("location", "milan"), ("latency", "10ms")])],
        &[],
        expect![[
            r#"open api -> ["grid"] virtual=true: a peer's node under contract; satisfies every intent; not farm: location: Turin, needed milan"#
        ]],
    );
}

#[test]
fn what_fits_nowhere_is_asked_for_together_and_once() {
    let pods =
        [pod("db-1", "w1", "3", &[]), pod("db-2", "w1", "3", &[]), pod("api", "w2", "0", &[("location", "Milan")])];
    check(
        &[node("farm", "2", None)],
        &pods,
        &[],
        expect![[r#"
            solve placement-60c5590f: 6000m 134217728 B 2 pods in parts of 3000m 67108864 B {"fluidos.eu/namespace": "shop"}
            say db-1 warning=false: no node fits (farm: cpu: 2 free, needed 3). Solver placement-60c5590f looks for peers
            say db-2 warning=false: no node fits (farm: cpu: 2 free, needed 3). Solver placement-60c5590f looks for peers
            solve placement-06f8faea: 100m 67108864 B 1 pods {"fluidos-intent-location": "Milan", "fluidos.eu/namespace": "shop"}
            say api warning=false: no node fits (farm: location: Turin, needed Milan). Solver placement-06f8faea looks for peers"#]],
    );
    check(
        &[node("farm", "2", None)],
        &pods[..2],
        &[solver("placement-1", "w1", Phase::Running, 0)],
        expect![[r#"
            say db-1 warning=false: no node fits (farm: cpu: 2 free, needed 3). Solver placement-1 looks for peers
            say db-2 warning=false: no node fits (farm: cpu: 2 free, needed 3). Solver placement-1 looks for peers"#]],
    );
}

#[test]
fn a_refusal_is_told_and_tried_again_later() {
    let pods = [pod("db", "w1", "3", &[])];
    check(
        &[node("farm", "2", None)],
        &pods,
        &[solver("s", "w1", Phase::Failed, 990)],
        expect![
            "say db warning=false: no node fits (farm: cpu: 2 free, needed 3). Solver s: grid refused: cpu: 1 free, needed 2"
        ],
    );
    check(
        &[node("farm", "2", None)],
        &pods,
        &[solver("s", "w1", Phase::Failed, 900)],
        expect![[r#"
        drop s
        say db warning=false: no node fits (farm: cpu: 2 free, needed 3). Solver s: grid refused: cpu: 1 free, needed 2"#]],
    );
}

#[test]
fn when_its_node_is_lost_a_workload_gets_another_contract() {
    check(
        &[node("farm", "2", None), down(node("grid", "8", Some("Milan")))],
        &[pod("api-2", "w1", "1", &[("location", "Milan")])],
        &[solver("placement-1", "w1", Phase::Solved, 500)],
        expect![[r#"
            solve placement-60c5590f: 1000m 67108864 B 1 pods {"fluidos-intent-location": "Milan", "fluidos.eu/namespace": "shop"}
            say api-2 warning=false: no node fits (farm: location: Turin, needed Milan; grid: it is not ready: the link is down). Solver placement-60c5590f looks for peers"#]],
    );
}

#[test]
fn an_intent_that_nobody_understands_keeps_the_pod_at_home() {
    let pods = [pod("a", "w1", "1", &[("locatoin", "Milan")]), pod("b", "w2", "5", &[("locatoin", "Milan")])];
    check(
        &[node("farm", "2", None), node("grid", "8", Some("Milan"))],
        &pods,
        &[],
        expect![[r#"
            say a warning=true: fluidos-intent-locatoin: no such intent; did you mean fluidos-intent-location?; it stays on own nodes until that is mended
            open a -> ["farm"] virtual=false: an own node; satisfies every intent; not grid: an intent is not understood, so the pod does not leave
            say b warning=true: fluidos-intent-locatoin: no such intent; did you mean fluidos-intent-location?; it stays on own nodes until that is mended, and none fits: farm: cpu: 1 free, needed 5; grid: an intent is not understood, so the pod does not leave"#]],
    );
}

#[test]
fn one_node_is_not_filled_twice_and_unneeded_capacity_goes() {
    check(
        &[node("farm", "2", None), node("grid", "4", Some("Milan"))],
        &[
            on(pod("old", "w1", "1", &[]), "grid"),
            pod("a", "w2", "2", &[("location", "Milan")]),
            pod("b", "w2", "2", &[("location", "Milan")]),
        ],
        &[solver("gone", "w9", Phase::Solved, 0), solver("used", "w1", Phase::Solved, 0)],
        expect![[r#"
            open a -> ["grid"] virtual=true: a peer's node under contract; satisfies every intent; not farm: location: Turin, needed Milan
            solve placement-06f8faea: 2000m 67108864 B 1 pods {"fluidos-intent-location": "Milan", "fluidos.eu/namespace": "shop"}
            say b warning=false: no node fits (farm: location: Turin, needed Milan; grid: cpu: 1 free, needed 2). Solver placement-06f8faea looks for peers
            drop gone"#]],
    );
}

#[test]
fn what_was_bought_for_one_workload_is_not_taken_by_another() {
    let solvers = [solver("for-db", "w-db", Phase::Solved, 999), solver("for-api", "w-api", Phase::Running, 0)];
    let pods =
        [pod("api", "w-api", "300m", &[("location", "Milan")]), pod("db", "w-db", "1500m", &[("location", "Milan")])];
    let nodes = [node("farm", "1", None), node("grid", "1500m", Some("Milan")), node("cloud", "2", Some("Milan"))];
    // Grid is the database's, however well the api would fit; whose cloud is, is not known yet.
    check_bought(
        &nodes,
        &pods,
        &solvers,
        &[contract("grid", &solvers[0])],
        expect![[r#"
        open db -> ["grid"] virtual=true: a peer's node under contract; satisfies every intent; not farm: location: Turin, needed Milan; not cloud: its contract is not known yet
        say api warning=false: no node fits (farm: location: Turin, needed Milan; grid: it was bought for another workload; cloud: its contract is not known yet). Solver for-api looks for peers"#]],
    );
}

#[test]
fn what_was_bought_to_serve_another_contract_is_for_nobody_here() {
    let bought = contract("grid", &by_hand());
    let mut sold = Contract::new("contract-sold", Default::default());
    let nodes = [node("grid", "8", Some("Milan"))];
    let waiting = [pod("api", "w1", "1", &[("location", "Milan")])];
    check_bought(
        &nodes,
        &waiting,
        &[by_hand()],
        &[bought.clone(), sold.clone()],
        expect![[r#"open api -> ["grid"] virtual=true: a peer's node under contract; satisfies every intent"#]],
    );
    // Before anything is served with it, too.
    let mut early = bought.clone();
    early.metadata.labels = Some([("fluidos.eu/resale".to_owned(), "1a".to_owned())].into());
    check_bought(
        &nodes,
        &waiting,
        &[by_hand()],
        &[early],
        expect![[r#"
        solve placement-60c5590f: 1000m 67108864 B 1 pods {"fluidos-intent-location": "Milan", "fluidos.eu/namespace": "shop"}
        say api warning=false: no node fits (grid: it was bought to be sold on). Solver placement-60c5590f looks for peers"#]],
    );
    sold.spec.served_by = Some("contract-grid".into());
    check_bought(
        &nodes,
        &waiting,
        &[by_hand()],
        &[bought, sold],
        expect![[r#"
        solve placement-60c5590f: 1000m 67108864 B 1 pods {"fluidos-intent-location": "Milan", "fluidos.eu/namespace": "shop"}
        say api warning=false: no node fits (grid: it is kept to serve contract-sold, which was sold). Solver placement-60c5590f looks for peers"#]],
    );
}

#[test]
fn what_is_promised_to_buyers_is_not_taken_and_what_does_not_fit_beside_it_is_bought() {
    let (nodes, own) = ([node("a", "2", None), node("b", "2", None)], Location::default());
    let kept = |cpu_milli| Kept {
        contract: Some("sold".into()),
        transaction: "t".into(),
        amounts: Amounts { cpu_milli, ..Amounts::default() },
    };
    let told = |pods: &[Pod], kept: &[Kept]| -> String {
        let view = View::new(nodes.iter(), pods.iter(), [].iter(), [].iter(), &own).keep(kept, pods.iter());
        let told = |action: &Action| match action {
            Action::Open { pod, nodes, .. } => Some(format!("{} on {nodes:?}", pod.1)),
            Action::Say { pod, message, .. } => Some(format!("{}: {message}", pod.1)),
            _ => None,
        };
        plan(&view, Timestamp::from_second(1000).unwrap()).iter().filter_map(told).collect::<Vec<_>>().join("\n")
    };
    let mut twin = on(pod("twin", "w0", "1", &[]), "a");
    twin.metadata.labels = Some([("reservation.fluidos.eu/contract".to_owned(), "sold".to_owned())].into());
    let two = [pod("p", "w1", "1", &[]), pod("q", "w2", "2", &[])];
    // Three of four are free for own pods; the first takes one of them, wherever it will be.
    let fits = expect![[r#"
        p on ["a", "b"]
        q on ["a", "b"]"#]];
    fits.assert_eq(&told(&two, &[kept(1000)]));
    let waits = expect![[r#"
        p on ["a", "b"]
        q: no node fits (a: cpu: 1 free, needed 2 beside cpu 2 that is kept for 1 contract(s) or hold(s) of buyers; b: cpu: 1 free, needed 2 beside cpu 2 that is kept for 1 contract(s) or hold(s) of buyers). Solver placement-06f8faea looks for peers"#]];
    waits.assert_eq(&told(&two, &[kept(2000)]));
    // On its way to one of the two it counts as well; what the buyer's own pod uses does not count twice.
    let mut decided = on(pod("p", "w1", "1", &[]), "");
    decided.metadata.annotations.get_or_insert_default().insert(names::ANNOTATION_DECISION.into(), "a,b: own".into());
    let later = [decided, two[1].clone(), twin];
    let waits = expect![[
        r#"q: no node fits (a: cpu: 1 free, needed 2; b: cpu: 1 free, needed 2 beside cpu 1 that is kept for 1 contract(s) or hold(s) of buyers). Solver placement-06f8faea looks for peers"#
    ]];
    waits.assert_eq(&told(&later, &[kept(2000)]));
    assert_eq!(told(&later, &[kept(1000)]), r#"q on ["b"]"#, "all of it is used");
}

#[test]
fn a_solver_that_has_failed_is_made_anew_at_once_when_somebody_offers_what_it_asks_for() {
    let told = |ended: i64, offered: Option<i64>| -> String {
        let mut solver = solver("placement-1", "w1", Phase::Failed, ended);
        let text = |second| names::offered("grid", Timestamp::from_second(second).unwrap());
        solver.metadata.annotations = offered.map(|at| [(names::ANNOTATION_OFFERED.to_owned(), text(at))].into());
        let (nodes, pods) = ([node("farm", "1", None)], [pod("db", "w1", "2", &[])]);
        let view = View::new(nodes.iter(), pods.iter(), [&solver].into_iter(), [].iter(), &Location::default());
        let plan = plan(&view, Timestamp::from_second(1000).unwrap());
        if plan.iter().any(|action| matches!(action, Action::Drop { .. })) { "anew" } else { "waits" }.to_owned()
    };
    assert_eq!(told(990, None), "waits");
    assert_eq!(told(970, None), "anew");
    assert_eq!(told(990, Some(995)), "anew");
    assert_eq!(told(990, Some(980)), "waits", "it has asked since then");
    assert_eq!(told(996, Some(1000)), "waits", "however often that is said");
}

#[test]
fn a_pod_goes_where_it_is_known_well_enough_what_the_place_is() {
    let now = Timestamp::from_second(1000).unwrap();
    let mut grid = node("grid", "8", Some("Milan"));
    grid.metadata.annotations.get_or_insert_default().insert(names::ANNOTATION_PEER_DID.into(), "did:key:zOld".into());
    let known = |did: &str, origin: &str, level: &str| -> KnownCluster {
        let evidence = json!([{"name": "city", "value": "Milan", "level": level, "until": "2100-01-01T00:00:00Z"}]);
        serde_json::from_value(json!({
            "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster", "metadata": {"name": "k"},
            "spec": {"address": "192.0.2.1:7300", "did": did},
            "status": {"expirationTime": "", "lastUpdateTime": "", "identity": {"origin": origin, "evidence": evidence}},
        }))
        .unwrap()
    };
    let told = |node: &Node, known: &KnownCluster, resold: bool| -> String {
        let mut pod = pod("db", "w1", "1", &[("location", "Milan")]);
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(intent::INTENT_EVIDENCE.into(), "location=audited".into());
        let mut contract = contract("grid", &by_hand());
        contract.spec.flavor.spec.flavor_type.type_data = json!({"policies": {"conditions": {"resold": resold}}});
        let (pods, solvers) = ([pod], [by_hand()]);
        let view =
            View::new([node].into_iter(), pods.iter(), solvers.iter(), [&contract].into_iter(), &Location::default());
        let view = view.know([known].into_iter(), [&contract].into_iter(), now);
        match plan(&view, now).as_slice() {
            [Action::Open { nodes, .. }] => nodes.join(","),
            all => all
                .iter()
                .find_map(|action| match action {
                    Action::Say { message, .. } => message.split(". ").next().map(str::to_owned),
                    _ => None,
                })
                .unwrap_or_default(),
        }
    };
    let claimed = "no node fits (grid: location: Milan (claimed), needed Milan (audited))";
    assert_eq!(told(&grid, &known("did:key:zOld", "did:key:zOld", "Audited"), false), "grid");
    assert_eq!(
        told(&grid, &known("did:key:zNew", "did:key:zOld", "Audited"), false),
        "grid",
        "its key was handed over"
    );
    assert_eq!(told(&grid, &known("did:key:zNew", "did:key:zOther", "Audited"), false), claimed);
    assert_eq!(told(&grid, &known("did:key:zOld", "did:key:zOld", "Claimed"), false), claimed);
    assert_eq!(told(&grid, &known("did:key:zOld", "did:key:zOld", "Audited"), true), claimed, "somebody else runs it");
    let mut own = node("farm", "8", None);
    let place = json!({"city": "Milan"}).to_string();
    own.metadata.annotations.get_or_insert_default().insert(names::ANNOTATION_LOCATION.into(), place);
    assert_eq!(
        told(&own, &known("did:key:zOld", "did:key:zOld", "Claimed"), false),
        "farm",
        "one's own word is enough"
    );
}
