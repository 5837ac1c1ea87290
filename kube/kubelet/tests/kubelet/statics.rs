//! Static pods: run by files, shown by the API.

use super::*;

const NAME: &str = "web-flt-node";

/// Writes the file of the pod as an editor does: all at once.
fn write(world: &World, says: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}}, "spec": {
        "terminationGracePeriodSeconds": 10, "containers": [{"name": "main", "image": "busy:1",
        "args": [format!("echo {says}; trap 'echo bye; exit 0' TERM; sleep 1000 & wait")]}]}});
    let dir = world.dir.path().join("static");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(".new"), pod.to_string()).unwrap();
    std::fs::rename(dir.join(".new"), dir.join("web.json")).unwrap();
}

/// The pods on the machine that the API did not make.
fn here(world: &World) -> Vec<String> {
    let all = std::fs::read_dir(world.dir.path().join("node/pods")).unwrap();
    all.map(|e| e.unwrap().file_name().into_string().unwrap()).filter(|uid| !uid.contains('-')).collect()
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap().to_owned()
}

pub async fn static_pods_are_shown(world: &mut World) {
    write(world, "one");
    let pod = world.ready(NAME).await;
    let marks = &pod["metadata"]["annotations"];
    assert_eq!(vec![marks["kubernetes.io/config.mirror"].as_str().unwrap().to_owned()], here(world));
    assert_eq!(
        (&marks["kubernetes.io/config.source"], &marks["kubernetes.io/config.hash"]),
        (&json!("file"), &marks["kubernetes.io/config.mirror"])
    );
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "Node");
    assert_eq!(pod["spec"]["serviceAccountName"], Value::Null);
    world.says(&pod, "one\n").await;
    assert_eq!(world.exec(&pod, &["echo", "in"]).await.0, "in\n");

    world.pods().delete(NAME, &DeleteParams::default()).await.unwrap();
    let again = world.wait(NAME, |p| uid(p) != uid(&pod) && condition(p, "Ready") == "True").await;
    let container = |p: &Value| main_status(p)["containerID"].clone();
    assert_eq!(container(&again), container(&pod), "only its mirror was deleted");
    assert_eq!(again["status"]["startTime"], pod["status"]["startTime"]);
    assert_eq!(world.logs(&again, LogOptions::default()).await, "one\n");

    let follow = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
    let mut follower = world.handle.logs(&world.target(&again, "main"), &follow).await.unwrap();
    write(world, "two");
    let said = tokio::time::timeout(Duration::from_secs(30), follower.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(said, "bye\n", "it was asked before it was replaced");
    let changed = world.wait(NAME, |p| container(p) != container(&again) && condition(p, "Ready") == "True").await;
    world.says(&changed, "two\n").await;
    assert_eq!(here(world).len(), 1, "the old one is gone");

    // What is no pod changes nothing; without the file the pod ends.
    std::fs::write(world.dir.path().join("static/other.yaml"), "kind: [").unwrap();
    std::fs::remove_file(world.dir.path().join("static/web.json")).unwrap();
    world.gone(NAME).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !here(world).is_empty() || !world.network.attached().await.is_empty() {
        assert!(Instant::now() < deadline, "{:?} stays", here(world));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn static_pods_need_no_api(world: &mut World) {
    world.handle.stop(StopPods::Keep).await;
    let nowhere = kube::Client::try_from(kube::Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
    write(world, "alone");
    let alone = start(world.dir.path(), &nowhere, &world.network, (&world.eviction, &world.handler)).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let log = loop {
        let logs = here(world).first().map(|uid| world.dir.path().join("node/pods").join(uid).join("logs/main/0.log"));
        if let Some(log) = logs.filter(|log| std::fs::read_to_string(log).is_ok_and(|text| text.contains("alone"))) {
            break log;
        }
        assert!(Instant::now() < deadline, "it does not run without an API");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    alone.stop(StopPods::Keep).await;
    // With the API it is the same pod, and the API shows it.
    world.restart().await;
    let pod = world.ready(NAME).await;
    assert_eq!((main_status(&pod)["restartCount"].as_u64(), log.exists()), (Some(0), true));
    assert_eq!(world.logs(&pod, LogOptions::default()).await, "alone\n");
    // A file that went while nobody looked: its pod goes, and its mirror.
    world.handle.stop(StopPods::Keep).await;
    std::fs::remove_file(world.dir.path().join("static/web.json")).unwrap();
    world.restart().await;
    world.gone(NAME).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !here(world).is_empty() {
        assert!(Instant::now() < deadline, "{:?} stays", here(world));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
