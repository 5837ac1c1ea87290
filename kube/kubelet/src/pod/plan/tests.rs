#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use super::*;
use engine_runtime::Finished;
use serde_json::json;

const S: i64 = 1_000_000_000;

fn run(attempt: u32, started: i64, ended: Option<(i64, i32)>) -> Run {
    let finished = ended.map(|(at, exit_code)| Finished {
        at_ns: at * S,
        exit_code,
        signal: 0,
        oom_killed: false,
        lost: false,
        error: None,
    });
    Run { id: format!("r{attempt}"), name: "c".into(), attempt, pid: None, started_at_ns: started * S, finished }
}

fn asked(deadline: i64, hook: bool, termed: Option<i64>) -> Asked {
    Asked { deadline_ns: deadline * S, hook, termed_ns: termed.map(|at| at * S) }
}

/// A run of another container than `c`, named by it.
fn of(name: &str, attempt: u32, started: i64, ended: Option<(i64, i32)>) -> Run {
    Run { id: format!("{name}{attempt}"), name: name.into(), ..run(attempt, started, ended) }
}

#[derive(Default)]
struct Case {
    policy: &'static str,
    runs: Vec<Run>,
    hold: Option<Hold>,
    unhealthy: bool,
    asked: BTreeMap<String, Asked>,
    stopping: Option<i64>,
    now: i64,
    hook: bool,
    init: Vec<serde_json::Value>,
    started: Vec<&'static str>,
}

fn check(case: &Case) -> String {
    let policy = if case.policy.is_empty() { "Always" } else { case.policy };
    let container = if case.hook { json!({"name": "c", "lifecycle": {"preStop": {}}}) } else { json!({"name": "c"}) };
    let spec = json!({"restartPolicy": policy, "initContainers": case.init, "containers": [container]});
    let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    let mut crashes = BTreeMap::<String, Crashes>::new();
    for run in &case.runs {
        crashes.entry(run.name.clone()).or_default().observe(run);
    }
    let plan = plan(&View {
        pod: &pod,
        runs: &case.runs,
        crashes: &crashes,
        holds: &case.hold.iter().map(|h| ("c".to_owned(), h.clone())).collect(),
        started: &case.started.iter().map(|id| (*id).to_owned()).collect(),
        unhealthy: &case.runs.iter().filter(|_| case.unhealthy).map(|r| (r.id.clone(), grace(&pod))).collect(),
        asked: &case.asked,
        stopping: case.stopping.map(|s| Stopping { deadline_ns: s * S }),
        now_ns: case.now * S,
    });
    let actions: Vec<String> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::Start { container, attempt } if container == "c" => format!("start {attempt}"),
            Action::Start { container, attempt } => format!("start {container} {attempt}"),
            Action::Term { id } => format!("term {id}"),
            Action::Ask { id, deadline_ns } => format!("ask {id} until {}", deadline_ns / S),
            Action::Kill { id } => format!("kill {id}"),
            Action::Forget { id } => format!("forget {id}"),
        })
        .collect();
    let wake = plan.wake_at_ns.map(|at| format!(" wake {}", at / S)).unwrap_or_default();
    format!("{}{wake}{}", actions.join(", "), if plan.over { " over" } else { "" })
}

#[test]
fn first_start_and_running() {
    assert_eq!(check(&Case::default()), "start 0");
    assert_eq!(check(&Case { runs: vec![run(0, 0, None)], ..Case::default() }), "");
}

#[test]
fn restart_policies() {
    for (policy, code, expected) in
        [("Always", 0, "start 1"), ("OnFailure", 0, " over"), ("OnFailure", 1, "start 1"), ("Never", 1, " over")]
    {
        let runs = vec![run(0, 0, Some((5, code)))];
        assert_eq!(check(&Case { policy, runs, now: 5, ..Case::default() }), expected, "{policy} {code}");
    }
}

#[test]
fn crashes_back_off_and_long_runs_do_not() {
    let two = vec![run(0, 0, Some((1, 1))), run(1, 1, Some((2, 1)))];
    assert_eq!(check(&Case { runs: two.clone(), now: 2, ..Case::default() }), " wake 12");
    assert_eq!(check(&Case { runs: two, now: 12, ..Case::default() }), "start 2");
    let long = vec![run(0, 0, Some((1, 1))), run(1, 1, Some((601, 1)))];
    assert_eq!(check(&Case { runs: long, now: 601, ..Case::default() }), "start 2");
    let delays: Vec<u64> = (1..8).map(|n| backoff(n).as_secs()).collect();
    assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
}

#[test]
fn old_runs_are_forgotten() {
    let runs = vec![run(0, 0, Some((1, 0))), run(1, 0, Some((700, 0))), run(2, 700, None)];
    assert_eq!(check(&Case { runs, ..Case::default() }), "forget r0");
}

#[test]
fn a_hold_delays() {
    let hold =
        |retry| Some(Hold { reason: "ErrImagePull".into(), message: String::new(), retry_at_ns: retry, failures: 1 });
    assert_eq!(check(&Case { hold: hold(Some(9 * S)), now: 5, ..Case::default() }), " wake 9");
    assert_eq!(check(&Case { hold: hold(Some(9 * S)), now: 9, ..Case::default() }), "start 0");
    assert_eq!(check(&Case { hold: hold(None), now: 99, ..Case::default() }), "");
}

#[test]
fn stopping_asks_then_kills() {
    let runs = vec![run(0, 0, None)];
    let stopping = Case { runs, stopping: Some(30), now: 1, ..Case::default() };
    assert_eq!(check(&stopping), "ask r0 until 30, term r0 wake 30");
    let asked: BTreeMap<_, _> = [("r0".to_owned(), asked(30, false, Some(1)))].into();
    let asked_case = |now, stopping| Case {
        runs: vec![run(0, 0, None)],
        asked: asked.clone(),
        stopping: Some(stopping),
        now,
        ..Case::default()
    };
    assert_eq!(check(&asked_case(5, 30)), " wake 30");
    assert_eq!(check(&asked_case(30, 30)), "kill r0 wake 31");
    assert_eq!(check(&asked_case(5, 5)), "kill r0 wake 6", "less grace than before");
    assert_eq!(
        check(&Case { runs: vec![run(0, 0, Some((3, 0)))], stopping: Some(30), now: 4, ..Case::default() }),
        " over"
    );
}

#[test]
fn an_unhealthy_run_is_stopped_with_the_pods_grace() {
    assert_eq!(
        check(&Case { runs: vec![run(0, 0, None)], unhealthy: true, now: 100, ..Case::default() }),
        "ask r0 until 130, term r0 wake 130"
    );
}

#[test]
fn init_containers_come_one_after_the_other() {
    let two = || vec![json!({"name": "a"}), json!({"name": "b"})];
    let check =
        |policy, runs: &[Run], now| check(&Case { policy, init: two(), runs: runs.to_vec(), now, ..Case::default() });
    let (a, b) = (of("a", 0, 0, Some((1, 0))), of("b", 0, 2, Some((3, 0))));
    assert_eq!(check("", &[], 0), "start a 0");
    assert_eq!(check("", &[of("a", 0, 0, None)], 1), "");
    assert_eq!(check("", std::slice::from_ref(&a), 1), "start b 0");
    assert_eq!(check("", &[a.clone(), b.clone()], 3), "start 0");
    assert_eq!(check("", &[a.clone(), b, run(0, 3, Some((4, 1)))], 4), "start 1", "what is past is not done again");
    let failed = of("b", 0, 2, Some((3, 1)));
    assert_eq!(check("OnFailure", &[a.clone(), failed.clone()], 3), "start b 1");
    let again = [a.clone(), failed.clone(), of("b", 1, 3, Some((4, 1)))];
    assert_eq!(check("", &again, 4), " wake 14", "with back-off");
    assert_eq!(check("Never", &[a, failed], 3), " over", "and for good");
}

#[test]
fn a_lost_sandbox_begins_anew() {
    let lost = |mut run: Run| {
        run.finished.as_mut().unwrap().lost = true;
        run
    };
    let mut runs = vec![of("a", 0, 0, Some((1, 0))), lost(run(0, 2, Some((9, 137))))];
    let check = |policy, runs: &[Run]| {
        check(&Case { policy, init: vec![json!({"name": "a"})], runs: runs.to_vec(), now: 20, ..Case::default() })
    };
    assert_eq!(check("Never", &runs), " over");
    assert_eq!(check("", &runs), "start a 1");
    runs.push(of("a", 1, 10, Some((11, 0))));
    assert_eq!(check("", &runs), "start 1");
}

#[test]
fn sidecars_run_beside_the_containers() {
    let init = || vec![json!({"name": "a", "restartPolicy": "Always"}), json!({"name": "b"})];
    let check = |policy, started: &[&'static str], runs: &[Run]| {
        let (runs, started) = (runs.to_vec(), started.to_vec());
        check(&Case { policy, init: init(), runs, started, now: 50, ..Case::default() })
    };
    let a = of("a", 0, 0, None);
    assert_eq!(check("", &[], std::slice::from_ref(&a)), "", "it has not started");
    assert_eq!(check("", &["a0"], std::slice::from_ref(&a)), "start b 0");
    let b = of("b", 0, 1, Some((2, 0)));
    assert_eq!(check("", &["a0"], &[a.clone(), b.clone()]), "start 0");
    let ended = of("a", 0, 0, Some((3, 0)));
    assert_eq!(
        check("Never", &[], &[ended.clone(), b.clone(), run(0, 3, None)]),
        "start a 1",
        "whatever the pod's policy"
    );
    assert_eq!(check("Never", &[], &[ended, b.clone(), run(0, 3, Some((4, 0)))]), " over", "but not when all is over");
    let over = [a, b, run(0, 3, Some((4, 0)))];
    assert_eq!(check("Never", &["a0"], &over), "ask a0 until 80, term a0 wake 80");
}

#[test]
fn sidecars_end_last_and_in_reverse() {
    let init =
        || vec![json!({"name": "a", "restartPolicy": "Always"}), json!({"name": "b", "restartPolicy": "Always"})];
    let check = |asked: &[(&str, Asked)], runs: &[Run], now| {
        let asked = asked.iter().map(|(id, asked)| ((*id).to_owned(), *asked)).collect();
        check(&Case { init: init(), runs: runs.to_vec(), asked, stopping: Some(30), now, ..Case::default() })
    };
    let (a, b, c) = (of("a", 0, 0, None), of("b", 0, 0, None), run(0, 0, None));
    let all = "ask r0 until 30, term r0, ask a0 until 30, ask b0 until 30 wake 30";
    assert_eq!(check(&[], &[a.clone(), b.clone(), c.clone()], 1), all);
    let waits = [("a0", asked(30, false, None)), ("b0", asked(30, false, None))];
    assert_eq!(check(&waits, &[a.clone(), b.clone(), run(0, 0, Some((4, 0)))], 4), "term b0 wake 30");
    assert_eq!(check(&waits, std::slice::from_ref(&a), 6), "term a0 wake 30");
    assert_eq!(check(&waits, &[a, b, c], 30), "kill r0, term a0, term b0 wake 31");
}

#[test]
fn hooks_use_the_grace_and_leave_two_seconds() {
    let check = |mark: Option<Asked>, now| {
        let asked = mark.into_iter().map(|mark| ("r0".to_owned(), mark)).collect();
        check(&Case { hook: true, runs: vec![run(0, 0, None)], asked, stopping: Some(30), now, ..Case::default() })
    };
    assert_eq!(check(None, 1), "ask r0 until 30 wake 30", "the hook comes first");
    assert_eq!(check(Some(asked(30, true, None)), 5), " wake 30");
    assert_eq!(check(Some(asked(30, false, None)), 5), "term r0 wake 30");
    assert_eq!(check(Some(asked(30, true, None)), 30), "term r0 wake 32", "it takes too long");
    assert_eq!(check(Some(asked(30, true, Some(30))), 31), " wake 32");
    assert_eq!(check(Some(asked(30, true, Some(30))), 32), "kill r0 wake 33");
    assert_eq!(check(None, 30), "kill r0 wake 31", "no grace, no hook");
}

#[test]
fn a_container_has_a_policy_and_rules_of_its_own() {
    let check = |own: serde_json::Value, code: i32| {
        let mut container = json!({"name": "c"});
        container.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        let spec = json!({"restartPolicy": "Always", "containers": [container]});
        restarts(&serde_json::from_value(json!({"spec": spec})).unwrap(), &run(0, 0, Some((1, code))))
    };
    assert!(check(json!({}), 0));
    assert!(!check(json!({"restartPolicy": "Never"}), 1));
    assert!(check(json!({"restartPolicy": "OnFailure"}), 1) && !check(json!({"restartPolicy": "OnFailure"}), 0));
    let ruled = |operator: &str| json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": operator, "values": [42, 43]}}]});
    assert!(check(ruled("In"), 43) && !check(ruled("In"), 1));
    assert!(check(ruled("NotIn"), 1) && !check(ruled("NotIn"), 42));
}
