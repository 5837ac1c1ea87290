#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use super::*;
use engine_runtime::Finished;
use serde_json::json;

fn run(attempt: u32, exit: Option<i32>) -> Run {
    let finished = exit.map(|exit_code| Finished {
        at_ns: 5,
        exit_code,
        signal: 0,
        oom_killed: exit_code == 137,
        lost: false,
        error: None,
    });
    Run { id: format!("r{attempt}"), name: "c".into(), attempt, pid: None, started_at_ns: 1, finished }
}

fn check(policy: &str, runs: &[Run], ready: bool, hold: Option<Hold>) -> String {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}}))
    .unwrap();
    let mut crashes = BTreeMap::<String, Crashes>::new();
    runs.iter().for_each(|r| crashes.entry("c".into()).or_default().observe(r));
    let ids: BTreeSet<String> = if ready { runs.iter().map(|r| r.id.clone()).collect() } else { BTreeSet::new() };
    let status = status(&View {
        pod: &pod,
        runs,
        crashes: &crashes,
        holds: &hold.into_iter().map(|h| ("c".to_owned(), h)).collect(),
        ready: &ids,
        started: &ids,
        messages: &BTreeMap::new(),
        images: &BTreeMap::new(),
        host_ips: &["h".to_owned()],
        pod_ips: &["p".to_owned(), "q".to_owned()],
        sandbox: true,
        given: &Given::new(),
        resizing: None,
        stopping: false,
        ended: None,
        now: Timestamp::UNIX_EPOCH,
    });
    let (first, all) = (status.pod_ip.clone(), status.pod_ips.clone().unwrap_or_default());
    let all: Vec<String> = all.into_iter().map(|pod| pod.ip).collect();
    assert_eq!((first.as_deref(), all.join(",").as_str()), (Some("p"), "p,q"));
    let c = &status.container_statuses.as_ref().unwrap()[0];
    let word = |s: &ContainerState| match s {
        ContainerState { running: Some(_), .. } => "running".to_owned(),
        ContainerState { waiting: Some(w), .. } => w.reason.clone().unwrap(),
        ContainerState { terminated: Some(t), .. } => format!("{}({})", t.reason.clone().unwrap(), t.exit_code),
        _ => "-".to_owned(),
    };
    let is_ready = status.conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    let phase = status.phase.unwrap();
    format!(
        "{phase} {} last {} restarts {} ready {} {}",
        word(c.state.as_ref().unwrap()),
        word(c.last_state.as_ref().unwrap()),
        c.restart_count,
        is_ready.status,
        is_ready.reason.unwrap_or_default()
    )
}

#[test]
fn a_life() {
    let check = |policy: &str, runs: &[Run], ready: bool| check(policy, runs, ready, None);
    assert_eq!(
        check("Always", &[], false),
        "Pending ContainerCreating last - restarts 0 ready False ContainersNotReady"
    );
    assert_eq!(
        check("Always", &[run(0, None)], false),
        "Running running last - restarts 0 ready False ContainersNotReady"
    );
    assert_eq!(check("Always", &[run(0, None)], true), "Running running last - restarts 0 ready True ");
    assert_eq!(
        check("Always", &[run(0, Some(1)), run(1, None)], true),
        "Running running last Error(1) restarts 1 ready True "
    );
    assert_eq!(
        check("Always", &[run(0, Some(1)), run(1, Some(137))], true),
        "Running CrashLoopBackOff last OOMKilled(137) restarts 1 ready False ContainersNotReady"
    );
    assert_eq!(
        check("Never", &[run(0, Some(0))], true),
        "Succeeded Completed(0) last - restarts 0 ready False PodCompleted"
    );
    assert_eq!(check("Never", &[run(0, Some(2))], true), "Failed Error(2) last - restarts 0 ready False PodFailed");
    assert_eq!(
        check("OnFailure", &[run(0, Some(2))], true),
        "Running Error(2) last - restarts 0 ready False ContainersNotReady"
    );
}

#[test]
fn a_hold_says_why() {
    let hold = Hold { reason: "ImagePullBackOff".into(), message: "m".into(), retry_at_ns: None, failures: 2 };
    assert_eq!(
        check("Always", &[], false, Some(hold)),
        "Pending ImagePullBackOff last - restarts 0 ready False ContainersNotReady"
    );
}

#[test]
fn the_words_of_the_back_off() {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
    let text = back_off_message(&pod, "c", std::time::Duration::from_secs(160));
    assert_eq!(text, "back-off 2m40s restarting failed container=c pod=p_n(u)");
}

fn initializing(policy: &str, runs: &[Run], started: &[&str]) -> String {
    let init = json!([{"name": "i", "image": "i"}, {"name": "s", "image": "i", "restartPolicy": "Always"}]);
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"restartPolicy": policy, "initContainers": init, "containers": [{"name": "c", "image": "i"}]}}))
    .unwrap();
    let started: BTreeSet<String> = started.iter().map(|id| (*id).to_owned()).collect();
    let status = status(&View {
        pod: &pod,
        runs,
        crashes: &BTreeMap::new(),
        holds: &BTreeMap::new(),
        ready: &started,
        started: &started,
        messages: &BTreeMap::new(),
        images: &BTreeMap::new(),
        host_ips: &[],
        pod_ips: &[],
        sandbox: true,
        given: &Given::new(),
        resizing: None,
        stopping: false,
        ended: None,
        now: Timestamp::UNIX_EPOCH,
    });
    let word = |c: &ContainerStatus| match c.state.clone().unwrap() {
        ContainerState { running: Some(_), .. } => format!("{}:running", c.name),
        ContainerState { waiting: Some(w), .. } => format!("{}:{}", c.name, w.reason.unwrap()),
        ContainerState { terminated: Some(t), .. } => format!("{}:{}", c.name, t.reason.unwrap()),
        _ => String::new(),
    };
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let words: Vec<String> = all.map(|c| word(c) + if c.ready { "+" } else { "" }).collect();
    let conditions = status.conditions.unwrap();
    let of = |kind: &str| conditions.iter().find(|c| c.type_ == kind).unwrap();
    let why = |kind: &str| of(kind).message.clone().or(of(kind).reason.clone()).unwrap_or("yes".to_owned());
    format!("{} {} | {} | {}", status.phase.unwrap(), words.join(" "), why("Initialized"), why("ContainersReady"))
}

#[test]
fn init_containers_and_sidecars() {
    let of = |name: &str, exit| Run { id: format!("{name}0"), name: name.into(), ..run(0, exit) };
    let unready = "containers with unready status: [s c]";
    assert_eq!(
        initializing("Always", &[of("i", None)], &[]),
        format!(
            "Pending i:running s:PodInitializing c:PodInitializing | containers with incomplete status: [i s] | {unready}"
        )
    );
    assert_eq!(
        initializing("Always", &[of("i", Some(0)), of("s", None)], &[]),
        format!(
            "Pending i:Completed+ s:running c:PodInitializing | containers with incomplete status: [s] | {unready}"
        )
    );
    assert_eq!(
        initializing("Never", &[of("i", Some(1))], &[]),
        "Failed i:Error s:PodInitializing c:PodInitializing | containers with incomplete status: [i s] | PodFailed"
    );
    let (i, s) = (of("i", Some(0)), of("s", None));
    assert_eq!(
        initializing("Always", &[i.clone(), s.clone(), of("c", None)], &["s0", "c0"]),
        "Running i:Completed+ s:running+ c:running+ | yes | yes"
    );
    assert_eq!(
        initializing("Always", &[i.clone(), s.clone(), of("c", None)], &["c0"]),
        "Running i:Completed+ s:running c:running+ | yes | containers with unready status: [s]"
    );
    assert_eq!(
        initializing("Never", &[i.clone(), s, of("c", Some(0))], &["s0"]),
        "Running i:Completed+ s:running+ c:Completed | yes | containers with unready status: [c]",
        "until its sidecars have ended"
    );
    assert_eq!(
        initializing("Never", &[i, of("s", Some(137)), of("c", Some(0))], &[]),
        "Succeeded i:Completed+ s:OOMKilled c:Completed | PodCompleted | PodCompleted",
        "whatever those ended with"
    );
}
