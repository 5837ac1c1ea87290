//! Every choice of placement: a pure function from the view to a plan.

use std::collections::BTreeMap;

use fluidos_model::intent::{IntentName, Requirement, judge};
use fluidos_model::kinds::{Phase, names};
use fluidos_model::market::{Amounts, Extended};
use jiff::Timestamp;

use super::view::{Beside, NodeView, PodView, View};

/// A pod that asks for nothing still takes something: the least that is bought for it.
const LEAST: Amounts =
    Amounts { cpu_milli: 100, memory_bytes: 64 << 20, pods: 1, storage_bytes: 0, extended: Extended::NONE };
/// A Solver that failed is tried again after this many seconds: offers change.
const RETRY_SECONDS: i64 = 30;
/// And after so many when somebody is heard to offer what it asks for since then, however often that is said.
const RETRY_OFFERED_SECONDS: i64 = 5;
/// Solvers of one workload. A workload that grows further must be split: each is a contract.
const SOLVERS_MAX: usize = 8;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the gate of a pod onto these nodes.
    Open {
        /// Namespace, name and uid of the pod.
        pod: (String, String, String),
        /// The one node, or all own nodes that fit equally.
        nodes: Vec<String>,
        /// Whether a virtual node is among them.
        is_virtual: bool,
        /// Why, in words.
        why: String,
    },
    /// Ask for what is missing.
    Solve {
        /// The Solver's name.
        name: String,
        /// Uid of the workload.
        workload: String,
        /// What its waiting pods need together.
        needs: Amounts,
        /// The largest of them in each resource, if they are several: what is bought may then stand in parts at several peers, each with
        /// room for some of them. A single pod has one node.
        largest: Option<Amounts>,
        /// The architecture that is asked for, if one is.
        architecture: Option<String>,
        /// Intents, and the namespace whose ceilings count, as annotations.
        annotations: BTreeMap<String, String>,
    },
    /// Nobody needs what this Solver bought, or it failed and is tried again.
    Drop {
        /// The Solver's name.
        solver: String,
    },
    /// Say why a pod waits.
    Say {
        /// Namespace, name and uid of the pod.
        pod: (String, String, String),
        /// In words.
        message: String,
        /// Whether its owner must mend something.
        warning: bool,
    },
}

/// Decides about every waiting pod and every Solver.
pub fn plan(view: &View, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    let (mut nodes, mut beside) = (view.nodes.clone(), view.beside.clone());
    let mut short: BTreeMap<&str, Vec<(&PodView, String)>> = BTreeMap::new();
    for pod in &view.waiting {
        match choose(pod, &nodes, beside.as_ref()) {
            Ok(choice) => {
                if !pod.intents.is_clear() {
                    let stays =
                        format!("{}; it stays on own nodes until that is mended", pod.intents.warnings().join("; "));
                    say(pod, stays, true, &mut actions);
                }
                if let [node] = choice.nodes.as_slice() {
                    take(&mut nodes, node, &pod.needs);
                }
                if let Some(beside) = beside.as_mut().filter(|_| !choice.is_virtual) {
                    beside.free = beside.free.saturating_sub(&pod.needs);
                }
                actions.push(Action::Open {
                    pod: id(pod),
                    nodes: choice.nodes,
                    is_virtual: choice.is_virtual,
                    why: choice.why,
                });
            }
            Err(why) if pod.intents.is_clear() => short.entry(&pod.workload).or_default().push((pod, why)),
            Err(why) => {
                let message = format!(
                    "{}; it stays on own nodes until that is mended, and none fits: {why}",
                    pod.intents.warnings().join("; ")
                );
                say(pod, message, true, &mut actions);
            }
        }
    }
    for (workload, pods) in short {
        acquire(view, workload, &pods, now, &mut actions);
    }
    for solver in view.solvers.iter().filter(|s| !s.deleting && view.workloads.binary_search(&s.workload).is_err()) {
        actions.push(Action::Drop { solver: solver.name.clone() });
    }
    actions
}

struct Choice {
    nodes: Vec<String>,
    is_virtual: bool,
    why: String,
}

/// The best node for a pod, or why there is none. Own nodes are preferred when all is equal; a pod whose intents are not
/// understood has only own nodes.
fn choose(pod: &PodView, nodes: &[NodeView], beside: Option<&Beside>) -> Result<Choice, String> {
    let (mut fitting, mut reasons) = (Vec::new(), Vec::new());
    for node in nodes {
        match refusal(pod, node).or_else(|| kept(pod, node, beside?)) {
            Some(why) => reasons.push(format!("{}: {why}", node.name)),
            None => fitting.push((judge(&pod.intents, &node.place).soft.len(), node.is_virtual, node)),
        }
    }
    fitting.sort_by(|a, b| (a.0, a.1, b.2.free.cpu_milli, &a.2.name).cmp(&(b.0, b.1, a.2.free.cpu_milli, &b.2.name)));
    let Some((soft, is_virtual, best)) = fitting.first() else {
        return Err(if reasons.is_empty() { "there is no node".into() } else { reasons.join("; ") });
    };
    // Among own nodes the scheduler chooses: it knows more of machines than intents do.
    let nodes = if *is_virtual {
        vec![best.name.clone()]
    } else {
        fitting.iter().filter(|(s, v, _)| s == soft && !v).map(|(_, _, node)| node.name.clone()).collect()
    };
    let kind = if *is_virtual { "a peer's node under contract" } else { "an own node" };
    let mut why = format!("{kind}; {}", judge(&pod.intents, &best.place).explain());
    if !reasons.is_empty() {
        why.push_str(&format!("; not {}", reasons.join("; not ")));
    }
    Ok(Choice { nodes, is_virtual: *is_virtual, why })
}

/// Why a pod cannot go to a node, if it cannot.
fn refusal(pod: &PodView, node: &NodeView) -> Option<String> {
    if node.is_virtual && !pod.intents.is_clear() {
        return Some("an intent is not understood, so the pod does not leave".into());
    }
    if let Some(closed) = &node.closed {
        return Some(closed.clone());
    }
    if node.bought_for.as_ref().is_some_and(|workload| *workload != pod.workload) {
        return Some("it was bought for another workload".into());
    }
    if let Some((key, value)) = pod.node_selector.iter().find(|(key, value)| node.labels.get(*key) != Some(value)) {
        return Some(format!("it has not the label {key}={value}"));
    }
    let judgement = judge(&pod.intents, &node.place);
    if !judgement.holds() {
        return Some(judgement.explain());
    }
    node.free.lack(&pod.needs, "free")
}

/// Why a pod may not take of an own node what is promised to buyers, if it would.
fn kept(pod: &PodView, node: &NodeView, beside: &Beside) -> Option<String> {
    let lack = if node.is_virtual { None } else { beside.free.lack(&pod.needs, "free") }?;
    let Beside { kept, promises, .. } = beside;
    Some(format!("{lack} beside {kept} that is kept for {promises} contract(s) or hold(s) of buyers"))
}

/// One Solver at a time asks for what the waiting pods of a workload need together.
fn acquire(view: &View, workload: &str, pods: &[(&PodView, String)], now: Timestamp, actions: &mut Vec<Action>) {
    let solvers: Vec<_> = view.solvers.iter().filter(|s| s.workload == workload).collect();
    let open = solvers.iter().find(|s| s.deleting || !s.phase.is_final());
    let failed = solvers.iter().find(|s| !s.deleting && matches!(s.phase, Phase::Failed | Phase::TimedOut));
    let outlook = match (open, failed) {
        (Some(solver), _) => format!("Solver {} looks for peers", solver.name),
        (None, Some(solver)) => {
            let pause = |ended| {
                if solver.offered.is_some_and(|at| at >= ended) { RETRY_OFFERED_SECONDS } else { RETRY_SECONDS }
            };
            if solver.ended.is_none_or(|ended| now.as_second() - ended >= pause(ended)) {
                actions.push(Action::Drop { solver: solver.name.clone() });
            }
            format!("Solver {}: {}", solver.name, solver.message)
        }
        // Solved, and yet pods wait: either its node is on its way, or they need more.
        (None, None) if solvers.iter().any(|s| s.ended.is_some_and(|ended| now.as_second() - ended < 5)) => {
            "the node of a new contract is awaited".into()
        }
        (None, None) if solvers.len() >= SOLVERS_MAX => {
            format!("{SOLVERS_MAX} contracts were bought for this workload, which is the most")
        }
        (None, None) => {
            let (first, _) = pods[0];
            let (mut needs, mut largest) = (Amounts::default(), Amounts::default());
            for (pod, _) in pods {
                let least = |asked: u64, least: u64| if asked > 0 { asked } else { least };
                let one = Amounts {
                    cpu_milli: least(pod.needs.cpu_milli, LEAST.cpu_milli),
                    memory_bytes: least(pod.needs.memory_bytes, LEAST.memory_bytes),
                    ..pod.needs.clone()
                };
                // What cannot be counted is sold by nobody, who then says so.
                needs = needs.checked_add(&one).unwrap_or(Amounts::UNLIMITED);
                largest = largest.most(&one);
            }
            let architecture = first.intents.constraints.iter().find_map(|c| match &c.requirement {
                Requirement::Architecture(name) if c.name == IntentName::Architecture && c.hard => Some(name.clone()),
                _ => None,
            });
            let name = (1..)
                .map(|n| solver_name(workload, n))
                .find(|name| solvers.iter().all(|s| s.name != *name))
                .unwrap_or_default();
            // What it costs counts against the ceilings of the namespace that needs it.
            let mut annotations = first.annotations.clone();
            annotations.insert(names::ANNOTATION_NAMESPACE.to_owned(), first.namespace.clone());
            actions.push(Action::Solve {
                name: name.clone(),
                workload: workload.to_owned(),
                needs,
                largest: (pods.len() > 1).then_some(largest),
                architecture,
                annotations,
            });
            format!("Solver {name} looks for peers")
        }
    };
    for (pod, why) in pods {
        say(pod, format!("no node fits ({why}). {outlook}"), false, actions);
    }
}

fn solver_name(workload: &str, n: usize) -> String {
    use sha2::{Digest, Sha256};
    let hash: String = Sha256::digest(workload).iter().take(4).map(|b| format!("{b:02x}")).collect();
    if n == 1 { format!("placement-{hash}") } else { format!("placement-{hash}-{n}") }
}

fn take(nodes: &mut [NodeView], name: &str, needs: &Amounts) {
    for node in nodes.iter_mut().filter(|node| node.name == name) {
        node.free = node.free.saturating_sub(needs);
    }
}

fn say(pod: &PodView, message: String, warning: bool, actions: &mut Vec<Action>) {
    if pod.said != message {
        actions.push(Action::Say { pod: id(pod), message, warning });
    }
}

fn id(pod: &PodView) -> (String, String, String) {
    (pod.namespace.clone(), pod.name.clone(), pod.uid.clone())
}
