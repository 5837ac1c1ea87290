//! What runs out, and who goes.

use super::*;

const TRAP: &str = "trap 'exit 0' TERM; ";

fn over(pod: &Value) -> bool {
    pod["status"]["phase"] == "Failed"
}

fn told(pod: &Value) -> (&str, &str) {
    let text = |field: &str| pod["status"][field].as_str().unwrap_or_default();
    (text("reason"), text("message"))
}

/// What the Node says about a kind of pressure.
async fn pressure(world: &World, kind: &str, status: &str) -> Value {
    let nodes: Api<Node> = Api::all(world.client.clone());
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let node = serde_json::to_value(nodes.get(NODE).await.unwrap()).unwrap();
        if condition(&node, kind) == status {
            return node;
        }
        assert!(Instant::now() < deadline, "{kind} is not {status}: {:#}", node["status"]["conditions"]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A kubelet with other thresholds, in place of the one that runs.
async fn restart_with(world: &mut World, hard: &str) {
    world.handle.stop(StopPods::Keep).await;
    world.eviction = evictions(hard);
    world.restart().await;
}

pub async fn what_a_pod_may_have_of_the_disk(world: &mut World) {
    let fill = |at: &str| format!("dd if=/dev/zero of={at}/x bs=1M count=4; {TRAP} sleep 1000 & wait");
    let small = json!({"limits": {"ephemeral-storage": "2Mi"}});
    let container = |name: &str, script: String, resources: Value| json!({"name": name, "image": "busy:1", "args": [script], "resources": resources, "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let pod = |limit: Value, containers: Value| json!({"volumes": [{"name": "v", "emptyDir": {"sizeLimit": limit}}], "containers": containers});
    let idle = || container("idle", format!("{TRAP} sleep 1000 & wait"), json!({}));
    world.create("volume", pod(json!("1Mi"), json!([container("main", fill("/v"), json!({}))]))).await;
    world.create("layer", pod(Value::Null, json!([container("main", fill("/tmp"), small.clone()), idle()]))).await;
    world.create("whole", pod(Value::Null, json!([container("main", fill("/v"), small.clone())]))).await;
    world
        .create(
            "log",
            pod(Value::Null, json!([container("main", "seq 1000000; sleep 1000".into(), small.clone()), idle()])),
        )
        .await;
    world
        .create(
            "modest",
            pod(json!("8Mi"), json!([container("main", fill("/v"), json!({"limits": {"ephemeral-storage": "9Mi"}}))])),
        )
        .await;
    let layer = "Container main exceeded its local ephemeral storage limit \"2Mi\". ";
    for (name, why) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("layer", layer),
        ("whole", "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
        ("log", layer),
    ] {
        let ended = world.wait(name, over).await;
        assert_eq!(told(&ended), ("Evicted", why));
        let target = ended["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget");
        assert_eq!(target.unwrap()["reason"], "TerminationByKubelet");
        world.wait_event(name, &format!("Evicted: {}", why.trim())).await;
    }
    let modest = world.wait("modest", |_| true).await;
    assert_eq!((condition(&modest, "Ready"), condition(&modest, "DisruptionTarget")), ("True", "?"));
}

pub async fn memory_that_runs_out(world: &mut World) {
    let pod = |request: Value, class: Value| {
        let main = json!({"name": "main", "image": "busy:1", "args": [format!("{TRAP} sleep 1000 & wait")], "resources": {"requests": request}});
        json!({"containers": [main], "priorityClassName": class})
    };
    world.create("within", pod(json!({"memory": "512Mi"}), Value::Null)).await;
    world.create("beyond", pod(json!({}), Value::Null)).await;
    world.create("critical", pod(json!({}), json!("system-node-critical"))).await;
    for name in ["within", "beyond", "critical"] {
        world.ready(name).await;
    }
    // More than any machine has.
    restart_with(world, "memory.available<1Pi").await;
    let beyond = world.wait("beyond", over).await;
    let within = world.wait("within", |_| true).await;
    assert_eq!(within["status"]["phase"], "Running", "who uses more than it asked for goes first");
    let (reason, why) = told(&beyond);
    let words = "The node was low on resource: memory. Threshold quantity: 1048576Gi, available: ";
    assert!(reason == "Evicted" && why.starts_with(words), "{why}");
    assert!(
        why.contains("Container main was using ") && why.contains(", request is 0, has larger consumption of memory. "),
        "{why}"
    );
    let node = pressure(world, "MemoryPressure", "True").await;
    assert_eq!(node["status"]["allocatable"]["memory"], "0Ki");
    world.wait_event(NODE, "EvictionThresholdMet: Attempting to reclaim memory").await;
    world.create("late", pod(json!({}), Value::Null)).await;
    let refused = world.wait("late", over).await;
    assert_eq!(told(&refused), ("Evicted", "Pod was rejected: The node had condition: [MemoryPressure]. "));
    assert_eq!(main_status(&refused)["restartCount"], 0);
    let within = world.wait("within", over).await;
    assert!(!told(&within).1.contains("larger consumption"), "{:?}", told(&within));
    assert_eq!(condition(&world.wait("critical", |_| true).await, "Ready"), "True");
    restart_with(world, "").await;
    pressure(world, "MemoryPressure", "False").await;
    assert_eq!(condition(&world.wait("critical", |_| true).await, "Ready"), "True");
}

/// A file system that is gone with it.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: std::path::PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        nix::mount::mount(Some("flt"), &at, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=32m")).unwrap();
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

/// A full disk ends nobody but who has filled it.
pub async fn a_full_disk(world: &mut World) {
    world.handle.stop(StopPods::Keep).await;
    let dir = world.dir.path().join("small");
    let disk = Small::mount(dir.join("node"));
    let eviction = Eviction { interval: Duration::from_secs(2), ..evictions("nodefs.available<10%") };
    world.handle = start(&dir, &world.client, &world.network, (&eviction, &world.handler)).await;
    let config = json!({"Entrypoint": ["sh", "-c"]});
    for name in ["busy:1", "spare:1"] {
        let from = dir.join(name);
        world
            .handle
            .images()
            .load(support::layout(&from, name, config.clone(), &[support::busybox().bytes()]), None)
            .await
            .unwrap();
    }
    let steady = format!("{TRAP} n=0; while sleep 0.1; do n=$((n+1)); echo $n; done");
    world.sh("steady", &steady).await;
    world.ready("steady").await;
    let main = json!({"name": "main", "image": "busy:1", "args": [format!("dd if=/dev/zero of=/v/x bs=64k; {TRAP} sleep 1000 & wait")],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    world.create("filler", json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [main]})).await;
    let full = Instant::now() + Duration::from_secs(20);
    while engine_host::space::file_system(&disk.0).unwrap().0.free > 64 << 10 {
        assert!(Instant::now() < full, "the disk is not full");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let filler = world.wait("filler", over).await;
    world.sh("late", "sleep 1000").await;
    let (reason, why) = told(&filler);
    let words = "The node was low on resource: ephemeral-storage. Threshold quantity: ";
    assert!(reason == "Evicted" && why.starts_with(words), "{why}");
    assert_eq!(told(&world.wait("late", over).await).1, "Pod was rejected: The node had condition: [DiskPressure]. ");
    let given_back = Instant::now() + Duration::from_secs(20);
    let room = || engine_host::space::file_system(&disk.0).unwrap().0;
    while room().free < room().total / 2 {
        assert!(Instant::now() < given_back, "{:?}", room());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let names: Vec<String> = world.handle.images().list().await.unwrap().into_iter().map(|i| i.reference).collect();
    assert_eq!(names, ["docker.io/library/busy:1"], "images that nobody uses went first");
    // Who did not fill it runs on, and is heard again.
    pressure(world, "DiskPressure", "False").await;
    let pod = world.ready("steady").await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    let follow = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
    let mut log = world.handle.logs(&world.target(&pod, "main"), &follow).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), log.next()).await.unwrap().unwrap().unwrap();
    drop(log);
    world.handle.stop(StopPods::Stop).await;
    drop(disk);
    for name in ["steady", "late", "filler"] {
        world
            .pods()
            .delete(name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
            .await
            .unwrap();
    }
    world.restart().await;
}

/// A container that takes more than its limit ends alone, and the pod's others do not notice.
pub async fn one_container_out_of_memory(world: &mut World) {
    let container = |name: &str, script: &str| json!({"name": name, "image": "busy:1", "args": [script], "resources": {"limits": {"memory": "16Mi"}}});
    let greedy = container("main", "tail -c 90000000 /dev/zero; exit $?");
    world
        .create("oom", json!({"containers": [greedy, container("beside", &format!("{TRAP} sleep 1000 & wait"))]}))
        .await;
    let pod = world.wait("oom", |p| main_status(p)["lastState"]["terminated"].is_object()).await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["reason"], "OOMKilled");
    let beside = &pod["status"]["containerStatuses"][1];
    assert_eq!((&beside["restartCount"], beside["state"]["running"].is_object()), (&json!(0), true));
    assert_eq!((condition(&pod, "DisruptionTarget"), &pod["status"]["phase"]), ("?", &json!("Running")));
}

/// Who has most processes goes first when their ids run out.
pub async fn process_ids_that_run_out(world: &mut World) {
    let pod = |script: &str| json!({"containers": [{"name": "main", "image": "busy:1", "args": [format!("{TRAP} {script} sleep 1000 & wait")]}]});
    world.create("few", pod("")).await;
    world.create("many", pod("for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done;")).await;
    for name in ["few", "many"] {
        world.ready(name).await;
    }
    // More than any kernel has.
    restart_with(world, "pid.available<100000000").await;
    let many = world.wait("many", over).await;
    assert_eq!(world.wait("few", |_| true).await["status"]["phase"], "Running");
    let (reason, why) = told(&many);
    let words = "The node was low on resource: pids. Threshold quantity: 100000000, available: ";
    assert!(reason == "Evicted" && why.starts_with(words), "{why}");
    pressure(world, "PIDPressure", "True").await;
    world.wait_event(NODE, "EvictionThresholdMet: Attempting to reclaim pids").await;
}
