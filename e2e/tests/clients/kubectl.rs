//! kubectl, the oldest and the newest that is promised: the verbs that need a node, its pods and its controllers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use fluidos_e2e::clients::Client;
use fluidos_e2e::images::Image;
use fluidos_e2e::stage::Stage;

const OLDEST: &str = "kubernetes-1.32/kubectl";
const NEWEST: &str = "kubernetes-1.36/kubectl";

#[test]
fn the_oldest_kubectl() {
    verbs(OLDEST, "ktlo");
}

#[test]
fn the_newest_kubectl() {
    verbs(NEWEST, "ktln");
}

fn verbs(version: &str, name: &str) {
    let mut stage = Stage::new(name).unwrap();
    let node = stage.start("farm", &["--no-mdns"]).unwrap();
    node.setup.load(&Image::Busybox.layout().unwrap()).unwrap();
    let kubectl = Client::new(&node.setup, version).unwrap();
    generators(&kubectl);
    changes(&kubectl);
    roll_outs(&kubectl);
    waits(&kubectl);
    copies(&kubectl);
    crate::inside::play(&kubectl);
    drains(&kubectl);
    tells(&kubectl);
}

pub fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// What is made without a manifest, each looked at with the same kubectl.
fn generators(kubectl: &Client<'_>) {
    for (create, object, field, expected) in [
        ("configmap c --from-literal=a=b", "cm/c", "{.data.a}", "b"),
        ("secret generic s --from-literal=a=b", "secret/s", "{.data.a}", "Yg=="),
        (
            "secret docker-registry r --docker-username=a --docker-password=b",
            "secret/r",
            "{.type}",
            "kubernetes.io/dockerconfigjson",
        ),
        ("service clusterip w --tcp=80:http", "svc/w", "{.spec.ports[0].targetPort}", "http"),
        ("service nodeport n --tcp=80:8080", "svc/n", "{.spec.type}", "NodePort"),
        ("service externalname e --external-name=example.org", "svc/e", "{.spec.externalName}", "example.org"),
        ("ingress i --class=none --rule=a.example/x*=w:80", "ingress/i", "{.spec.rules[0].http.paths[0].path}", "/x"),
        ("quota q --hard=pods=40", "quota/q", "{.spec.hard.pods}", "40"),
        ("poddisruptionbudget b --selector=app=none --min-available=1", "pdb/b", "{.spec.minAvailable}", "1"),
        ("priorityclass p --value=7", "priorityclass/p", "{.value}", "7"),
        ("clusterrole l --verb=list --resource=nodes", "clusterrole/l", "{.rules[0].verbs[0]}", "list"),
        ("clusterrolebinding l --clusterrole=l --user=ada", "clusterrolebinding/l", "{.subjects[0].name}", "ada"),
        ("job once --image=busybox:1 -- echo done", "job/once", "{.spec.template.spec.restartPolicy}", "Never"),
        ("cronjob j --image=busybox:1 --schedule=0_0_1_1_* -- date", "cronjob/j", "{.spec.schedule}", "0 0 1 1 *"),
        ("job again --from=cronjob/j", "job/again", "{.metadata.ownerReferences[0].name}", "j"),
        ("deployment web --image=busybox:1 --replicas=2 -- sleep 1000", "deploy/web", "{.spec.replicas}", "2"),
    ] {
        let arguments: Vec<String> = create.split(' ').map(|word| word.replace("0_0_1_1_*", "0 0 1 1 *")).collect();
        let arguments: Vec<&str> = std::iter::once("create").chain(arguments.iter().map(String::as_str)).collect();
        let told = kubectl.run_in(&kubectl.setup.directory, &[], &arguments).unwrap();
        assert!(told.is_ok, "{create}: {}", told.error);
        assert_eq!(kubectl.ok(&format!("get {object} -o jsonpath={field}")).unwrap(), expected, "{create}");
    }
    kubectl.ok("expose deployment web --port=80 --target-port=8080").unwrap();
    kubectl.ok("autoscale deployment web --min=2 --max=4 --cpu-percent=80").unwrap();
    assert_eq!(kubectl.ok("get hpa web -o jsonpath={.spec.scaleTargetRef.name}{.spec.maxReplicas}").unwrap(), "web4");
    kubectl.ok("wait --for=condition=Complete job/once --timeout=60s").unwrap();
    assert_eq!(kubectl.ok("logs job/once").unwrap(), "done\n");
    // `run` follows the pod to its end and gives back its code.
    let told = kubectl.run("run end --image=busybox:1 --restart=Never --rm --attach --command -- sh -c exit").unwrap();
    has(&told.out, &["pod \"end\" deleted"]);
}

/// What changes an object that is there.
fn changes(kubectl: &Client<'_>) {
    let get = |object: &str, path: &str| kubectl.ok(&format!("get {object} -o jsonpath={path}")).unwrap();
    kubectl.ok("label cm/c tier=one").unwrap();
    has(&kubectl.refused("label cm/c tier=two").unwrap(), &["--overwrite is false"]);
    kubectl.ok("label cm/c tier=two --overwrite").unwrap();
    kubectl.ok("annotate cm/c why=because").unwrap();
    assert_eq!(get("cm/c", "{.metadata.labels.tier}{.metadata.annotations.why}"), "twobecause");
    kubectl.ok("label cm/c tier- --resource-version=").unwrap();
    kubectl.ok("taint nodes farm flt=yes:PreferNoSchedule").unwrap();
    assert_eq!(get("node/farm", "{.spec.taints[?(@.key==\"flt\")].effect}"), "PreferNoSchedule");
    kubectl.ok("taint nodes farm flt-").unwrap();
    for (kind, patch, expected) in [
        ("merge", r#"{"data":{"a":"m","x":null}}"#, "m"),
        ("strategic", r#"{"data":{"a":"s"}}"#, "s"),
        ("json", r#"[{"op":"test","path":"/data/a","value":"s"},{"op":"replace","path":"/data/a","value":"j"}]"#, "j"),
    ] {
        kubectl.ok(&format!("patch cm/c --type={kind} -p {patch}")).unwrap();
        assert_eq!(get("cm/c", "{.data.a}"), expected);
    }
    // An editor is a program that is given a file.
    let directory = &kubectl.setup.directory;
    let edit = |script: &str| kubectl.run_in(directory, &[("KUBE_EDITOR", script)], &["edit", "cm/c"]).unwrap();
    assert!(edit("sed -i 's/a: j/a: edited/'").is_ok);
    assert_eq!(get("cm/c", "{.data.a}"), "edited");
    has(&edit("true").error, &["Edit cancelled, no changes made"]);
    // What comes back from the editor is refused by the server; kubectl writes why into the file and shows it again.
    let told = edit("sed -i 's/a: edited/A B: x/'").error;
    let copy = told.split('"').find(|word| word.ends_with(".yaml")).unwrap();
    has(&std::fs::read_to_string(copy).unwrap(), &["# * data[A B]: Invalid value: \"A B\": a valid config key"]);
    // Replace: the whole object, also by making it anew.
    let file = directory.join("map.json");
    std::fs::write(&file, kubectl.ok("get cm/c -o json").unwrap().replace("edited", "replaced")).unwrap();
    kubectl.ok(&format!("replace -f {}", file.display())).unwrap();
    has(&kubectl.refused(&format!("replace -f {}", file.display())).unwrap(), &["the object has been modified"]);
    let uid = get("cm/c", "{.metadata.uid}");
    kubectl.ok(&format!("replace --force -f {}", file.display())).unwrap();
    assert_ne!(get("cm/c", "{.metadata.uid}"), uid);
    assert_eq!(get("cm/c", "{.data.a}"), "replaced");
    kubectl.ok("set serviceaccount deployment/web default").unwrap();
    kubectl.ok("set resources deployment/web --requests=cpu=1m").unwrap();
    kubectl.ok("set env deployment/web --from=configmap/c --prefix=C_").unwrap();
    kubectl.ok("set selector svc/w app=web").unwrap();
    assert_eq!(get("svc/w", "{.spec.selector.app}"), "web");
    assert_eq!(get("deploy/web", "{.spec.template.spec.containers[0].env[0].valueFrom.configMapKeyRef.key}"), "a");
}

/// A roll-out is watched, paused, gone on with, taken back and begun again.
fn roll_outs(kubectl: &Client<'_>) {
    let done =
        || has(&kubectl.ok("rollout status deployment/web --timeout=90s").unwrap(), &["successfully rolled out"]);
    let has_version = |version: &str| kubectl.ok("exec deploy/web -- env").unwrap().lines().any(|line| line == version);
    // The pods sleep on without a word when they are told to end.
    kubectl
        .ok(r#"patch deployment web -p {"spec":{"template":{"spec":{"terminationGracePeriodSeconds":0}}}}"#)
        .unwrap();
    kubectl.ok("set env deployment/web V=1").unwrap();
    done();
    kubectl.ok("annotate deployment/web kubernetes.io/change-cause=one").unwrap();
    kubectl.ok("rollout pause deployment/web").unwrap();
    kubectl.ok("set env deployment/web V=2").unwrap();
    has(&kubectl.refused("rollout restart deployment/web").unwrap(), &["can't restart paused deployment"]);
    assert!(has_version("V=1"), "what is paused goes on as it was");
    kubectl.ok("rollout resume deployment/web").unwrap();
    done();
    assert!(has_version("V=2"));
    let history = kubectl.ok("rollout history deployment/web").unwrap();
    has(&history, &["REVISION", "one"]);
    let last = history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
    assert!(last >= 2, "{history}");
    has(&kubectl.ok("rollout history deployment/web --revision=1").unwrap(), &["Pod Template:", "busybox:1"]);
    kubectl.ok("rollout undo deployment/web").unwrap();
    done();
    assert_eq!(kubectl.ok("get deploy web -o jsonpath={..env[?(@.name==\"V\")].value}").unwrap(), "1");
    kubectl.ok("rollout restart deployment/web").unwrap();
    done();
    has(&kubectl.ok("get deploy web -o jsonpath={.spec.template.metadata.annotations}").unwrap(), &["restartedAt"]);
}

/// `wait` for what is, for what is not yet, and for what goes.
fn waits(kubectl: &Client<'_>) {
    kubectl.ok("wait --for=condition=Available deployment/web --timeout=60s").unwrap();
    kubectl.ok("wait --for=jsonpath={.status.readyReplicas}=2 deployment/web --timeout=60s").unwrap();
    kubectl.ok("wait --for=jsonpath={.status.phase}=Running pod -l app=web --timeout=60s").unwrap();
    let refused = kubectl.refused("wait --for=condition=Never deployment/web --timeout=1s").unwrap();
    has(&refused, &["timed out waiting for the condition on deployments/web"]);
    // In the background, while something comes and goes.
    let begin = |arguments: &str| {
        let mut command = kubectl.setup.client(&kubectl.program);
        command.args(arguments.split(' ')).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let comes = begin("wait --for=create cm/late --timeout=60s").unwrap();
    kubectl.ok("create cm late").unwrap();
    let told = comes.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "configmap/late condition met\n");
    let goes = begin("wait --for=delete cm/late --timeout=60s").unwrap();
    kubectl.ok("delete cm late").unwrap();
    assert!(goes.wait_with_output().unwrap().status.success());
}

/// Files into a container and out of it.
fn copies(kubectl: &Client<'_>) {
    let pod = kubectl.ok("get pods -l app=web -o jsonpath={.items[0].metadata.name}").unwrap();
    let here = kubectl.setup.directory.join("copied");
    std::fs::create_dir_all(here.join("deep")).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(here.join("deep/bytes"), &bytes).unwrap();
    kubectl.ok(&format!("cp {} {pod}:/tmp/copied", here.display())).unwrap();
    let back = kubectl.setup.directory.join("back");
    kubectl.ok(&format!("cp {pod}:/tmp/copied/deep/bytes {}", back.display())).unwrap();
    assert!(std::fs::read(back).unwrap() == bytes, "what comes back is what went there");
}

/// A node is closed, emptied as far as budgets let it, and opened again.
fn drains(kubectl: &Client<'_>) {
    kubectl.ok("create poddisruptionbudget web --selector=app=web --min-available=2").unwrap();
    kubectl.ok("wait --for=jsonpath={.status.currentHealthy}=2 pdb/web --timeout=30s").unwrap();
    let set = kubectl.setup.directory.join("daemon.yaml");
    let daemon = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: d}\nspec:\n  selector: {matchLabels: {app: d}}\n  \
        template:\n    metadata: {labels: {app: d}}\n    spec:\n      terminationGracePeriodSeconds: 0\n      \
        containers: [{name: c, image: \"busybox:1\", command: [sleep, \"1000\"]}]\n";
    std::fs::write(&set, daemon).unwrap();
    kubectl.ok(&format!("apply -f {}", set.display())).unwrap();
    kubectl.ok("rollout status daemonset/d --timeout=60s").unwrap();
    kubectl.ok("cordon farm").unwrap();
    has(&kubectl.ok("get nodes").unwrap(), &["Ready,SchedulingDisabled"]);
    has(&kubectl.refused("drain farm").unwrap(), &["cannot delete DaemonSet-managed Pods"]);
    // The budget holds against eviction …
    let told = kubectl.refused("drain farm --ignore-daemonsets --timeout=6s").unwrap();
    has(&told, &["Cannot evict pod as it would violate the pod's disruption budget."]);
    // Without those of earlier roll-outs, which may still take their time to go.
    let count = || {
        let all = kubectl.ok("get pods -l app=web --field-selector spec.nodeName=farm -o json").unwrap();
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        let pods = all["items"].as_array().unwrap();
        pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count()
    };
    assert_eq!(count(), 2);
    // … and not against deletion.
    kubectl.ok("drain farm --ignore-daemonsets --disable-eviction --timeout=60s").unwrap();
    assert_eq!(count(), 0);
    has(&kubectl.ok("get pods -l app=d").unwrap(), &["Running"]);
    kubectl.ok("uncordon farm").unwrap();
    kubectl.ok("rollout status deployment/web --timeout=60s").unwrap();
    // With a budget that lets one go, eviction empties the node.
    kubectl.ok(r#"patch pdb web --type=merge -p {"spec":{"minAvailable":0}}"#).unwrap();
    kubectl.ok("wait --for=jsonpath={.status.disruptionsAllowed}=2 pdb/web --timeout=30s").unwrap();
    kubectl.ok("drain farm --ignore-daemonsets --timeout=60s").unwrap();
    assert_eq!(count(), 0);
    kubectl.ok("uncordon farm").unwrap();
    kubectl.ok("rollout status deployment/web --timeout=60s").unwrap();
}

/// What the server tells about itself and what happened.
fn tells(kubectl: &Client<'_>) {
    let events = kubectl.ok("events --for deployment/web").unwrap();
    has(&events, &["ScalingReplicaSet", "Scaled up replica set web-"]);
    has(&kubectl.ok("events --types=Normal").unwrap(), &["Started", "container"]);
    let mut command = kubectl.setup.client(&kubectl.program);
    command.args(["events", "--watch", "--for", "pod/seen"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut watch = command.spawn().unwrap();
    let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    kubectl.ok("run seen --image=busybox:1 --restart=Never --command -- true").unwrap();
    let scheduled = lines.map_while(Result::ok).find(|line| line.contains("Started"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    has(&scheduled.unwrap_or_default(), &["Pod/seen"]);
    let resources = kubectl.ok("api-resources --verbs=list,watch -o wide").unwrap();
    has(&resources, &["deployments ", "deploy", "apps/v1", "true", "Deployment", "deletecollection", "all"]);
    has(&kubectl.ok("api-resources --api-group=batch -o name").unwrap(), &["cronjobs.batch", "jobs.batch"]);
    has(&kubectl.ok("api-versions").unwrap(), &["autoscaling/v2", "v1"]);
    has(&kubectl.ok("explain deployment.spec.strategy.rollingUpdate").unwrap(), &["GROUP:", "maxSurge"]);
    has(&kubectl.ok("auth can-i --list").unwrap(), &["*.*", "[*]"]);
    has(&kubectl.ok("auth whoami").unwrap(), &["system:masters"]);
    has(&kubectl.ok("describe deployment web").unwrap(), &["NewReplicaSet:", "RollingUpdateStrategy:"]);
    has(&kubectl.ok("describe node farm").unwrap(), &["Allocated resources:", "Non-terminated Pods:"]);
    has(&kubectl.ok("api-resources --api-group=metrics.k8s.io -o name").unwrap(), &["nodes.metrics", "pods.metrics"]);
    has(&kubectl.ok("cluster-info").unwrap(), &["Kubernetes control plane"]);
    has(&kubectl.ok("get --raw /readyz").unwrap(), &["ok"]);
    has(&kubectl.ok("version").unwrap(), &["Server Version: v1."]);
}
