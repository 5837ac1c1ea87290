//! The life cycle: what comes before the containers, beside them, and at their ends.

use super::*;

fn init_status(pod: &Value, place: usize) -> &Value {
    &pod["status"]["initContainerStatuses"][place]
}

fn over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busy:1", "args": [script], "volumeMounts": [{"name": "v", "mountPath": "/v"}]})
}

fn spec(policy: &str, init: Value, main: Value) -> Value {
    json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 2, "volumes": [{"name": "v", "emptyDir": {}}],
        "initContainers": init, "containers": [main]})
}

async fn log_of(world: &World, pod: &Value, container: &str) -> String {
    let mut stream = world.handle.logs(&world.target(pod, container), &LogOptions::default()).await.unwrap();
    let mut text = String::new();
    while let Ok(Some(chunk)) = tokio::time::timeout(Duration::from_secs(30), stream.next()).await {
        text.push_str(&String::from_utf8_lossy(&chunk.unwrap()));
    }
    text
}

/// One after the other, each until it ends with 0; a pod of `Never` fails with the first that does not.
pub async fn init_containers_come_first(world: &mut World) {
    let second = "echo second; test -e /v/tried && cat /v/a >> /v/b; touch /v/tried; test -s /v/b";
    let init = json!([container("one", "echo first; sleep 1; echo a > /v/a"), container("two", second)]);
    world.create("init", spec("Always", init, container("main", "cat /v/b; sleep 1000"))).await;
    let pod = world.wait("init", |p| init_status(p, 0)["state"]["running"].is_object()).await;
    assert_eq!((condition(&pod, "Initialized"), &pod["status"]["phase"]), ("False", &json!("Pending")));
    assert_eq!(main_status(&pod)["state"]["waiting"]["reason"], "PodInitializing");
    let refused = world.handle.logs(&world.target(&pod, "main"), &LogOptions::default()).await.err().unwrap();
    assert_eq!(refused.to_string(), "container \"main\" in pod \"init\" is waiting to start: PodInitializing");
    let pod = world.ready("init").await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    let (one, two) = (init_status(&pod, 0), init_status(&pod, 1));
    assert_eq!((&one["state"]["terminated"]["reason"], &one["ready"]), (&json!("Completed"), &json!(true)));
    assert_eq!((&two["restartCount"], &two["lastState"]["terminated"]["exitCode"]), (&json!(1), &json!(1)));
    assert_eq!((log_of(world, &pod, "one").await, log_of(world, &pod, "main").await), ("first\n".into(), "a\n".into()));
    world.delete("init").await;

    let init = json!([container("one", "exit 3"), container("two", "touch /v/never")]);
    world.create("bad", spec("Never", init, container("main", "true"))).await;
    let pod = world.wait("bad", over).await;
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(init_status(&pod, 0)["state"]["terminated"]["exitCode"], 3);
    assert_eq!(init_status(&pod, 1)["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(main_status(&pod)["state"]["waiting"]["reason"], "PodInitializing");
}

/// A sandbox that is lost takes with it what init containers did.
pub async fn init_containers_run_again_in_a_new_sandbox(world: &mut World) {
    let init = json!([container("one", "echo once >> /v/times")]);
    world.create("lost", spec("Always", init, container("main", "cat /v/times; sleep 1000"))).await;
    let pod = world.ready("lost").await;
    world.handler.kill_sandbox(world, &pod);
    let pod = world.wait("lost", |p| main_status(p)["restartCount"] == 1 && condition(p, "Ready") == "True").await;
    assert_eq!(init_status(&pod, 0)["restartCount"], 1);
    assert_eq!(log_of(world, &pod, "main").await, "once\nonce\n");
}

/// They have started before the next begins, run again whatever happens, and end after the others, the last one first.
pub async fn sidecars_run_beside(world: &mut World) {
    let beside = |name: &str, script: &str| {
        let mut sidecar = container(name, script);
        sidecar["restartPolicy"] = json!("Always");
        sidecar
    };
    let ending = |name: &str| format!("trap 'echo {name} >> /v/ends; exit 0' TERM; touch /v/{name}; sleep 1000 & wait");
    let mut first = beside("first", &format!("sleep 1; {}", ending("first")));
    first["startupProbe"] = json!({"exec": {"command": ["test", "-e", "/v/first"]}, "periodSeconds": 1});
    let brief =
        beside("brief", "test -e /v/again || { touch /v/again; exit 1; }; trap 'exit 0' TERM; sleep 1000 & wait");
    // The last one is asked to end first, and tells what the others had done by then.
    let last = beside("last", "trap 'cat /v/ends; exit 0' TERM; sleep 1000 & wait");
    let init = json!([last, first, beside("second", &ending("second")), brief]);
    let main = container("main", "test -e /v/first || exit 9; until test -e /v/again; do sleep 0.1; done; sleep 2");
    let mut pod = spec("Never", init, main);
    // Once the grace is over all are asked at once.
    pod["terminationGracePeriodSeconds"] = json!(30);
    world.create("beside", pod).await;
    let pod = world.wait("beside", |p| main_status(p)["state"]["running"].is_object()).await;
    assert_eq!(init_status(&pod, 1)["started"], true);
    let pod = world.wait("beside", |p| init_status(p, 3)["restartCount"] == 1).await;
    assert_eq!(pod["status"]["phase"], "Running");
    world.wait("beside", |p| condition(p, "Ready") == "True").await;
    let pod = world.wait("beside", over).await;
    assert_eq!(pod["status"]["phase"], "Succeeded", "{pod:#}");
    assert_eq!(log_of(world, &pod, "last").await, "second\nfirst\n", "the last in reverse");
    world.wait_event("beside", "Killing: Stopping container second").await;
}

/// Right after the start, and right before the end.
pub async fn hooks_run_at_both_ends(world: &mut World) {
    let mut main = container("main", "trap 'echo asked; exit 0' TERM; sleep 1000 & wait");
    let say = |what: &str| json!({"exec": {"command": ["sh", "-c", what]}});
    main["lifecycle"] = json!({"postStart": say("until test -e /v/go; do sleep 0.1; done; echo begun > /proc/1/fd/1"), "preStop": say("echo ends > /proc/1/fd/1; sleep 1; exit 1")});
    // After the init container the sandbox is known, so that the start is seen at once.
    world.create("hooked", spec("Always", json!([container("init", "true")]), main)).await;
    world.wait_event("hooked", "Started: Started container main").await;
    world.sh("other", "trap 'exit 0' TERM; sleep 1000 & wait").await;
    world.ready("other").await;
    let early = world.wait("hooked", |_| true).await;
    assert_ne!(condition(&early, "Ready"), "True", "not before its hook is through");
    assert_eq!(main_status(&early)["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(world.exec(&early, &["touch", "/v/go"]).await.1, ExecOutput::Exit(0));
    let pod = world.ready("hooked").await;
    assert_eq!(log_of(world, &pod, "main").await, "begun\n");
    let follow = LogOptions { follow: true, tail_lines: Some(0), ..LogOptions::default() };
    let mut follower = world.handle.logs(&world.target(&pod, "main"), &follow).await.unwrap();
    world.delete("hooked").await;
    let mut said = String::new();
    while let Ok(Some(Ok(chunk))) = tokio::time::timeout(Duration::from_secs(20), follower.next()).await {
        said.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert_eq!(said, "ends\nasked\n");
    world.wait_event("hooked", "FailedPreStopHook: PreStopHook failed").await;

    let mut main = container("main", "trap 'exit 0' TERM; sleep 1000 & wait");
    main["lifecycle"] = json!({"postStart": say("exit 1"), "preStop": {"sleep": {"seconds": 1}}});
    world.create("spoilt", spec("Never", json!([]), main)).await;
    let pod = world.wait("spoilt", over).await;
    assert!(main_status(&pod)["state"]["terminated"].is_object(), "{pod:#}");
    world.wait_event("spoilt", "FailedPostStartHook: PostStartHook failed").await;
    world.wait_event("spoilt", "Killing: FailedPostStartHook").await;

    let mut main = container("main", "trap 'exit 0' TERM; sleep 1000 & wait");
    main["lifecycle"] = json!({"postStart": say("echo s3cret; exit 1")});
    world.create("again", spec("Always", json!([]), main)).await;
    let pod = world.wait("again", |p| main_status(p)["state"]["waiting"]["reason"] == "PostStartHookError").await;
    let said = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        said.starts_with(
            "Exec lifecycle hook ([sh -c echo s3cret; exit 1]) for Container \"main\" in Pod \"again_default("
        ),
        "{said}"
    );
    assert!(main_status(&pod)["lastState"]["terminated"].is_object(), "{pod:#}");
    world.wait("again", |p| main_status(p)["restartCount"].as_u64() >= Some(1)).await;
    world.delete("again").await;
}

/// A pod may say how long it may live, a container how it is asked to end.
pub async fn deadlines_and_stop_signals(world: &mut World) {
    let mut limited = spec("Always", json!([]), container("main", "sleep 1000"));
    // Counted from a whole second: more than two in any case, in which the container has started.
    limited["activeDeadlineSeconds"] = json!(3);
    limited["terminationGracePeriodSeconds"] = json!(1);
    world.create("limited", limited).await;
    let pod = world.wait("limited", over).await;
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["reason"], &pod["status"]["message"]),
        (
            &json!("Failed"),
            &json!("DeadlineExceeded"),
            &json!("Pod was active on the node longer than the specified deadline")
        )
    );
    assert!(main_status(&pod)["state"]["terminated"].is_object(), "{pod:#}");
    world.wait_event("limited", "DeadlineExceeded: Pod was active on the node longer").await;

    let mut main = container("main", "trap 'echo usr1; exit 0' USR1; echo listens; sleep 1000 & wait");
    main["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
    let mut signalled = spec("Always", json!([]), main);
    signalled["os"] = json!({"name": "linux"});
    world.create("signalled", signalled).await;
    let pod = world.ready("signalled").await;
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let mut follower = world.handle.logs(&world.target(&pod, "main"), &follow).await.unwrap();
    let mut next = async || tokio::time::timeout(Duration::from_secs(20), follower.next()).await.unwrap();
    // A container that is ready may not have come to its trap yet.
    assert_eq!(next().await.unwrap().unwrap(), "listens\n");
    world.delete("signalled").await;
    assert_eq!(next().await.unwrap().unwrap(), "usr1\n");
}

/// What is told of an end is in the log where a failed container wrote no file.
pub async fn last_words_come_from_the_log(world: &mut World) {
    let ending = |policy: &str, script: &str| {
        let mut main = container("main", script);
        main["terminationMessagePolicy"] = json!(policy);
        spec("Never", json!([]), main)
    };
    let message = |p: &Value| main_status(p)["state"]["terminated"]["message"].clone();
    world.create("fell", ending("FallbackToLogsOnError", "echo one; echo two >&2; exit 3")).await;
    world.create("wrote", ending("FallbackToLogsOnError", "echo one; echo file > /dev/termination-log; exit 3")).await;
    world.create("well", ending("FallbackToLogsOnError", "echo one")).await;
    world.create("silent", ending("File", "echo one; exit 3")).await;
    let fell = message(&world.wait("fell", over).await);
    // containerd reads each stream for itself: it does not say in which order two of them were written.
    let other = !world.handler.is_built_in() && fell == "two\none\n";
    let told = json!([
        if other { json!("one\ntwo\n") } else { fell },
        message(&world.wait("wrote", over).await),
        message(&world.wait("well", over).await),
        message(&world.wait("silent", over).await)
    ]);
    assert_eq!(told, json!(["one\ntwo\n", "file\n", null, null]));
}

/// How a pod calls itself, and what a container does by rules of its own.
pub async fn names_and_rules_of_ones_own(world: &mut World) {
    let named = |name: &str, own: Value| {
        let mut pod = spec(
            "Always",
            json!([]),
            container("main", "echo $HOSTNAME; cat /proc/sys/kernel/hostname /etc/hostname; sleep 1000"),
        );
        pod["subdomain"] = json!(name);
        pod.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        pod
    };
    world.create("full", named("db", json!({"hostname": "h", "setHostnameAsFQDN": true, "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["far"]}]}))).await;
    let pod = world.ready("full").await;
    world.says(&pod, &"h.db.default.svc.cluster.local\n".repeat(3)).await;
    let hosts = world.exec(&pod, &["cat", "/etc/hosts"]).await.0;
    assert!(hosts.contains("\th.db.default.svc.cluster.local\th\n") && hosts.contains("192.0.2.7\tfar\n"), "{hosts}");
    let long = "x".repeat(60);
    world.create("long", named(&long, json!({"setHostnameAsFQDN": true}))).await;
    world
        .wait_event(
            "long",
            "FailedCreatePodSandBox: Failed to create pod sandbox: Failed to construct FQDN from pod hostname",
        )
        .await;

    let mut main = container("main", "test -e /v/tried && exit 7; touch /v/tried; exit 42");
    main["restartPolicy"] = json!("Never");
    main["restartPolicyRules"] = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    world.create("ruled", spec("Always", json!([]), main)).await;
    let pod = world.wait("ruled", over).await;
    assert_eq!((&pod["status"]["phase"], &main_status(&pod)["restartCount"]), (&json!("Failed"), &json!(1)));
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["exitCode"], 42);
}
