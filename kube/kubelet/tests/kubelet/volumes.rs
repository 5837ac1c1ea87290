//! What is inside a pod: volumes and shared namespaces.

use super::*;

fn with(volumes: Value, mounts: Value, script: &str) -> Value {
    let container = json!({"name": "main", "image": "busy:1", "args": [script], "volumeMounts": mounts});
    json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "volumes": volumes, "containers": [container]})
}

fn waits(pod: &Value, reason: &str) -> bool {
    main_status(pod)["state"]["waiting"]["reason"] == reason
}

async fn ends(world: &World, name: &str) -> String {
    let pod = world.wait(name, |p| matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).await;
    let log = world.logs(&pod, LogOptions::default()).await;
    assert_eq!(pod["status"]["phase"], "Succeeded", "{log}");
    log
}

pub(super) async fn host_paths(world: &mut World) {
    let dir = world.dir.path().join("machine");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("file"), "of the machine\n").unwrap();
    let volumes = json!([
        {"name": "dir", "hostPath": {"path": dir, "type": "Directory"}},
        {"name": "file", "hostPath": {"path": dir.join("file"), "type": "File"}},
        {"name": "made", "hostPath": {"path": dir.join("made"), "type": "DirectoryOrCreate"}},
    ]);
    let mounts = json!([{"name": "dir", "mountPath": "/dir", "readOnly": true}, {"name": "file", "mountPath": "/file"},
        {"name": "made", "mountPath": "/made", "mountPropagation": "HostToContainer"}]);
    let script = "cat /dir/file /file; touch /dir/x 2>/dev/null || echo refused; echo said > /made/x";
    world.create("reads", with(volumes, mounts, script)).await;
    assert_eq!(ends(world, "reads").await, "of the machine\nof the machine\nrefused\n");
    assert_eq!(std::fs::read_to_string(dir.join("made/x")).unwrap(), "said\n");
    world.delete("reads").await;
    assert!(dir.join("made/x").exists(), "a pod's end takes nothing of the machine away");

    let volumes = json!([{"name": "v", "hostPath": {"path": dir.join("late"), "type": "Directory"}}]);
    world.create("waits", with(volumes, json!([{"name": "v", "mountPath": "/v"}]), "true")).await;
    world.wait("waits", |p| waits(p, "ContainerCreating")).await;
    let path = dir.join("late").display().to_string();
    let said = format!(
        "FailedMount: MountVolume.SetUp failed for volume \"v\" : hostPath type check failed: {path} is not a directory"
    );
    world.wait_event("waits", &said).await;
    std::fs::create_dir(dir.join("late")).unwrap();
    ends(world, "waits").await;
    world.delete("waits").await;
}

pub(super) async fn a_guest_gets_no_files_of_the_machine(world: &mut World) {
    std::fs::write(world.dir.path().join("confirmed"), "").unwrap();
    let made = world.dir.path().join("made-by-guest");
    let volumes = json!([{"name": "v", "hostPath": {"path": made, "type": "DirectoryOrCreate"}}]);
    world.create("guest", with(volumes, json!([{"name": "v", "mountPath": "/v"}]), "true")).await;
    world.wait("guest", |p| waits(p, "NotSupported")).await;
    world.wait_event("guest", "FailedMount: volume \"v\": a guest gets no files of this machine").await;
    assert!(!made.exists());
    world.delete("guest").await;
}

pub(super) async fn sub_paths_are_expanded(world: &mut World) {
    let volumes = json!([{"name": "v", "hostPath": {"path": world.dir.path().join("v"), "type": "DirectoryOrCreate"}}]);
    let mut spec =
        with(volumes, json!([{"name": "v", "mountPath": "/v", "subPathExpr": "of-$(POD)/$$x"}]), "echo 1 > /v/one");
    spec["containers"][0]["env"] = json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    world.create("expands", spec.clone()).await;
    ends(world, "expands").await;
    assert_eq!(std::fs::read_to_string(world.dir.path().join("v/of-expands/$x/one")).unwrap(), "1\n");
    world.delete("expands").await;

    spec["containers"][0]["volumeMounts"][0]["subPathExpr"] = json!("$(NOBODY)/$(ELSE)");
    world.create("missing", spec.clone()).await;
    let pod = world.wait("missing", |p| waits(p, "CreateContainerConfigError")).await;
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], "missing value for ELSE, NOBODY");
    world.delete("missing").await;

    spec["containers"][0]["env"] = json!([{"name": "UP", "value": "../.."}]);
    spec["containers"][0]["volumeMounts"][0]["subPathExpr"] = json!("$(UP)");
    world.create("leaves", spec).await;
    let pod = world.wait("leaves", |p| waits(p, "CreateContainerConfigError")).await;
    let said = "unable to provision SubPath `../..`: must not contain '..'";
    assert_eq!(main_status(&pod)["state"]["waiting"]["message"], said);
    world.delete("leaves").await;
}

pub(super) async fn containers_see_each_other(world: &mut World) {
    let container = |name: &str, script: &str| json!({"name": name, "image": "busy:1", "args": [script]});
    let main = container("main", "until ps | grep '[s]leep 1234'; do sleep 0.05; done");
    let other = container("other", "exec sleep 1234");
    let spec = json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "shareProcessNamespace": true,
        "containers": [main, other]});
    world.create("shares", spec).await;
    let ended = |p: &Value| {
        let all = p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["name"] == "main" && c["state"]["terminated"]["exitCode"] == 0)
    };
    let pod = world.wait("shares", ended).await;
    assert!(world.logs(&pod, LogOptions::default()).await.contains("sleep 1234"));
    world.delete("shares").await;
}
