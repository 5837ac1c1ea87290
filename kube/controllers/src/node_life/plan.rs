//! Judgement of nodes and of the pods on them. No effects.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use substrate_client::lookup::tolerates;

use crate::objects::{is_active, is_ready, name};

/// When each node was heard last.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats(BTreeMap<String, (Sign, Timestamp)>);

/// What changes when a node is alive: its identity, its Lease, and what it says of itself.
type Sign = (Option<String>, Option<String>, Option<Timestamp>);

impl Heartbeats {
    /// Takes note of what is seen now. A node that is new here is heard now.
    pub fn listen(&mut self, nodes: &[Arc<Node>], leases: &[Arc<Lease>], now: Timestamp) {
        let leases: BTreeMap<&str, &Arc<Lease>> = leases.iter().map(|lease| (name(&lease.metadata), lease)).collect();
        self.0.retain(|known, _| nodes.iter().any(|node| name(&node.metadata) == known));
        for node in nodes {
            let renewed = leases.get(name(&node.metadata)).and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
            let said = condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
            let sign = (node.metadata.uid.clone(), renewed.map(|time| time.0.to_string()), said);
            let heard = self.0.entry(name(&node.metadata).to_owned()).or_insert_with(|| (sign.clone(), now));
            if heard.0 != sign {
                *heard = (sign, now);
            }
        }
    }

    fn heard(&self, node: &str) -> Option<Timestamp> {
        self.0.get(node).map(|(_, at)| *at)
    }
}

/// What is to be done about one node.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Conditions to write.
    pub conditions: Vec<NodeCondition>,
    /// All taints it is to have, if they differ.
    pub taints: Option<Vec<Taint>>,
    /// Pods that say they are ready and are not believed.
    pub doubt: Vec<Arc<Pod>>,
    /// Pods to delete.
    pub evict: Vec<Arc<Pod>>,
    pub wake: Option<Duration>,
}

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Conditions that forbid new pods, with the status that does and the taint.
const PRESSURES: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The plan for a node; `pods` are those on it.
pub(crate) fn plan(node: &Node, pods: &[Arc<Pod>], heartbeats: &Heartbeats, grace: Duration, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let heard = heartbeats.heard(name(&node.metadata)).unwrap_or(now);
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let left = grace - now.duration_since(heard);
    let mut ready = condition(node, "Ready").map_or("", |ready| ready.status.as_str());
    if left <= SignedDuration::ZERO {
        plan.conditions = unknown(node, now);
        ready = "Unknown";
        plan.doubt = pods.iter().filter(|pod| is_active(pod) && is_ready(pod)).cloned().collect();
    } else {
        wake(&mut plan, left);
    }
    let taints = taints(node, ready, now);
    let has = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    if taints != has {
        plan.taints = Some(taints);
    }
    // Judged by the taints that are written, whose times everybody can see.
    let hard: Vec<&Taint> = has.iter().filter(|taint| taint.effect == "NoExecute").collect();
    for pod in pods.iter().filter(|pod| is_active(pod)) {
        match leaves_at(pod, &hard, now) {
            Some(at) if at <= now => plan.evict.push(pod.clone()),
            Some(at) => wake(&mut plan, at.duration_since(now)),
            None => {}
        }
    }
    plan
}

fn wake(plan: &mut Plan, after: SignedDuration) {
    let after = Duration::try_from(after).unwrap_or_default();
    plan.wake = Some(plan.wake.map_or(after, |wake| wake.min(after)));
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// What is written of a silent node: nobody knows. Only what says otherwise yet.
fn unknown(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
    let mut conditions = Vec::new();
    for kind in kinds {
        let found = condition(node, kind);
        // Nothing is said of a pressure that the node never spoke of.
        if found.is_some_and(|found| found.status == "Unknown") || (found.is_none() && kind != "Ready") {
            continue;
        }
        let (reason, message) = match found {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        conditions.push(NodeCondition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: found.and_then(|found| found.last_heartbeat_time.clone()),
            last_transition_time: Some(Time(now)),
        });
    }
    conditions
}

/// The taints of a node: those of others, and ours as they should be. What stays keeps its time.
fn taints(node: &Node, ready: &str, now: Timestamp) -> Vec<Taint> {
    let has = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = match ready {
        "True" => Vec::new(),
        "Unknown" => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
        // Also a node that has said nothing yet.
        _ => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
    };
    for (kind, bad, key) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == bad) {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
            || PRESSURES.iter().any(|(_, _, key)| *key == taint.key)
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = has.iter().filter(|taint| !ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if taints.iter().all(|taint| (taint.key.as_str(), taint.effect.as_str()) != (*key, *effect)) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                // Kubernetes writes whole seconds; what is compared later has come back so.
                time_added: (*effect == "NoExecute").then_some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

/// When a pod has to leave because of these taints; `None`: never.
fn leaves_at(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut leaves: Option<Timestamp> = None;
    for taint in taints {
        let tolerating: Vec<&Toleration> =
            tolerations.iter().filter(|t| tolerates(std::slice::from_ref(*t), taint)).collect();
        let at = if tolerating.is_empty() {
            Some(now)
        } else {
            let shortest = tolerating.iter().filter_map(|toleration| toleration.toleration_seconds).min();
            let since = taint.time_added.as_ref().map_or(now, |time| time.0);
            // Less than nothing means at once.
            shortest.map(|s| since.saturating_add(SignedDuration::from_secs(s.max(0))).unwrap_or(Timestamp::MAX))
        };
        leaves = match (leaves, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    leaves
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn at(time: &str) -> Timestamp {
        format!("2026-01-01T{time}Z").parse().unwrap()
    }

    fn node(ready: &str, spec: Value) -> Arc<Node> {
        let conditions = json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]);
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": "n", "uid": "n"}, "spec": spec, "status": {"conditions": conditions}}),
            )
            .unwrap(),
        )
    }

    fn lease(time: &str) -> Arc<Lease> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": "n"}, "spec": {"renewTime": format!("2026-01-01T{time}.000000Z")}}),
            )
            .unwrap(),
        )
    }

    fn pod(name: &str, tolerations: Value) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(
                json!({"metadata": {"name": name}, "spec": {"containers": [], "tolerations": tolerations},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
            )
            .unwrap(),
        )
    }

    /// Heard at 00:59:00, judged at 01:00:00 with this grace.
    fn check(node: &Arc<Node>, pods: &[Arc<Pod>], grace_s: u64, expected: Expect) {
        let mut heartbeats = Heartbeats::default();
        heartbeats.listen(std::slice::from_ref(node), &[lease("00:59:00")], at("00:59:00"));
        let plan = plan(node, pods, &heartbeats, Duration::from_secs(grace_s), NOW.parse().unwrap());
        let names = |pods: &[Arc<Pod>]| pods.iter().map(|p| name(&p.metadata).to_owned()).collect::<Vec<_>>().join(",");
        let conditions: Vec<String> = plan.conditions.iter().map(|c| format!("{}={}", c.type_, c.status)).collect();
        let taints =
            plan.taints.map(|taints| taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect::<Vec<_>>());
        expected.assert_eq(&format!(
            "{conditions:?} taints {taints:?} doubt [{}] evict [{}] wake {:?}",
            names(&plan.doubt),
            names(&plan.evict),
            plan.wake
        ));
    }

    #[test]
    fn a_node_that_speaks_is_believed() {
        check(
            &node("True", json!({})),
            &[pod("p", json!([]))],
            61,
            expect!["[] taints None doubt [] evict [] wake Some(1s)"],
        );
        let words = expect![[
            r#"[] taints Some(["node.kubernetes.io/not-ready:NoSchedule", "node.kubernetes.io/not-ready:NoExecute"]) doubt [] evict [] wake Some(1s)"#
        ]];
        check(&node("False", json!({})), &[], 61, words);
        let tainted =
            json!({"taints": [{"key": "mine", "effect": "NoSchedule"}, {"key": UNREACHABLE, "effect": "NoExecute"}]});
        let words = expect![[r#"[] taints Some(["mine:NoSchedule"]) doubt [] evict [] wake Some(1s)"#]];
        check(&node("True", tainted), &[], 61, words);
        let words = expect![[
            r#"[] taints Some(["node.kubernetes.io/unschedulable:NoSchedule"]) doubt [] evict [] wake Some(1s)"#
        ]];
        check(&node("True", json!({"unschedulable": true})), &[], 61, words);
    }

    #[test]
    fn a_silent_node_is_unknown_and_its_pods_are_not_ready() {
        check(
            &node("True", json!({})),
            &[pod("p", json!([]))],
            60,
            expect![[
                r#"["Ready=Unknown", "DiskPressure=Unknown"] taints Some(["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"]) doubt [p] evict [] wake None"#
            ]],
        );
    }

    #[test]
    fn pods_leave_when_their_patience_is_over() {
        let taints = json!({"taints": [{"key": UNREACHABLE, "effect": "NoSchedule"},
            {"key": UNREACHABLE, "effect": "NoExecute", "timeAdded": "2026-01-01T00:59:50Z"}]});
        let patient = |seconds: Value| json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
        check(
            &node("Unknown", taints),
            &[
                pod("none", json!([])),
                pod("ten", patient(10.into())),
                pod("fifteen", patient(15.into())),
                pod("ever", patient(Value::Null)),
                pod("all", json!([{"operator": "Exists"}])),
            ],
            60,
            expect![[
                r#"["DiskPressure=Unknown"] taints None doubt [none,ten,fifteen,ever,all] evict [none,ten] wake Some(5s)"#
            ]],
        );
    }

    #[test]
    fn it_is_the_change_that_counts_not_the_time_written() {
        let mut heartbeats = Heartbeats::default();
        let silent = |h: &Heartbeats, now| {
            !plan(&node("True", json!({})), &[], h, Duration::from_secs(40), now).conditions.is_empty()
        };
        let nodes = [node("True", json!({}))];
        heartbeats.listen(&nodes, &[lease("00:00:00")], at("01:00:00"));
        assert!(!silent(&heartbeats, at("01:00:39")), "an old Lease seen for the first time");
        heartbeats.listen(&nodes, &[lease("00:00:00")], at("01:00:39"));
        assert!(silent(&heartbeats, at("01:00:40")));
        heartbeats.listen(&nodes, &[lease("00:00:10")], at("01:00:41"));
        assert!(!silent(&heartbeats, at("01:01:20")));
    }
}
