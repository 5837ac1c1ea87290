//! Pods of the handler `process`: programs of this machine, and images behind its fences.

use super::*;

async fn class(world: &World) {
    let class = json!({"metadata": {"name": "confined"}, "handler": "process"});
    let class: RuntimeClass = serde_json::from_value(class).unwrap();
    Api::all(world.client.clone()).create(&PostParams::default(), &class).await.unwrap();
}

fn waiting(pod: &Value) -> (&str, &str) {
    let state = &main_status(pod)["state"]["waiting"];
    (state["reason"].as_str().unwrap_or_default(), state["message"].as_str().unwrap_or_default())
}

pub async fn programs_of_the_machine_run(world: &mut World) {
    class(world).await;
    // It fails once, so the second run finds what the first one left in the volume.
    let script = "id -u; echo page > /data/page; [ -e /data/failed ] || { touch /data/failed; exit 5; }
        exec /bin/busybox httpd -f -p 8080 -h /data";
    let container = json!({"name": "main", "image": "host:/bin/sh", "args": ["-c", script],
        "readinessProbe": {"httpGet": {"path": "/page", "port": 8080}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["test", "-e", "/data/page"]}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    world.create("web", json!({"runtimeClassName": "confined", "terminationGracePeriodSeconds": 1, "volumes": [{"name": "data", "emptyDir": {}}], "containers": [container]})).await;
    let pod = world.wait("web", |p| main_status(p)["restartCount"] == 1 && condition(p, "Ready") == "True").await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["exitCode"], 5);
    assert_eq!(main_status(&pod)["imageID"], "host:/bin/sh");
    assert_eq!(world.logs(&pod, LogOptions::default()).await, "65532\n");
    let (out, last) = world
        .exec(&pod, &["sh", "-c", "cat /data/page; hostname; id -un; cat /etc/hosts | grep -c web; touch /usr/x 2>&1"])
        .await;
    assert!(out.starts_with("page\nweb\nprocess\n1\ntouch: ") && last != ExecOutput::Exit(0), "{out} {last:?}");
    // The program goes on while the kubelet is away, and the same rules hold for what comes later.
    world.restart().await;
    let again = world.ready("web").await;
    assert_eq!(main_status(&again)["containerID"], main_status(&pod)["containerID"]);
    assert_eq!(world.exec(&again, &["sh", "-c", "rm /data/page"]).await.1, ExecOutput::Exit(0));
    world.wait("web", |p| main_status(p)["restartCount"] == 2 && condition(p, "Ready") == "True").await;
    world.delete("web").await;
}

pub async fn images_run_behind_fences(world: &mut World) {
    class(world).await;
    let script = "grep -E 'CapEff|NoNewPrivs' /proc/self/status; id -u; touch /x; sleep 1000";
    let main = json!({"name": "main", "image": "busy:1", "args": [script]});
    let spec = json!({"runtimeClassName": "confined", "containers": [main], "securityContext": {"runAsNonRoot": true}});
    world.create("image", spec).await;
    let pod = world.ready("image").await;
    let fences = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\n65532\n";
    world.says(&pod, &format!("{fences}touch: /x: Permission denied\n")).await;
    let node: Value = serde_json::to_value(Api::<Node>::all(world.client.clone()).get(NODE).await.unwrap()).unwrap();
    let handlers = node["status"]["runtimeHandlers"].as_array().unwrap().iter().map(|h| h["name"].as_str().unwrap());
    assert_eq!(handlers.collect::<Vec<_>>(), ["", "oci", "process"]);
}

pub async fn programs_that_are_refused(world: &mut World) {
    class(world).await;
    std::fs::write(world.dir.path().join("confirmed"), "").unwrap();
    let main = |image: &str| json!([{"name": "main", "image": image}]);
    let elsewhere = "host:/opt/x";
    let cases = [
        (
            "oci",
            json!({"containers": main("host:/bin/sh")}),
            "the handler \"oci\" runs images only; name a RuntimeClass with the handler process",
        ),
        (
            "path",
            json!({"runtimeClassName": "confined", "containers": main(elsewhere)}),
            "needed host: and a path without .. below one of",
        ),
        (
            "guest",
            json!({"runtimeClassName": "confined", "containers": main("host:/bin/sh")}),
            "is for its owner's pods; use an image",
        ),
    ];
    for (name, spec, why) in cases {
        world.create(name, spec).await;
        let pod = world.wait(name, |p| waiting(p).0 == "InvalidImageName").await;
        assert!(waiting(&pod).1.starts_with("Failed to use the machine's program \"host:"), "{:?}", waiting(&pod));
        assert!(waiting(&pod).1.contains(why), "{:?}", waiting(&pod));
        world.wait_event(name, "InspectFailed: Failed to use the machine's program").await;
    }
    let mut container = main("busy:1");
    container[0]["securityContext"] = json!({"privileged": true});
    world.create("all", json!({"runtimeClassName": "confined", "containers": container})).await;
    let pod = world.wait("all", |p| waiting(p).0 == "NotSupported").await;
    let told = "not supported on this node: privileged: true with the handler process, whose fences let nobody through; take it away, or use \
                the handler oci";
    assert_eq!(waiting(&pod).1, told);
}
