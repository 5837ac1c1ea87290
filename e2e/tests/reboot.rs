//! A machine loses its power and is rebooted while pods run: they come back under their restart policies, with what they had written, also those
//! whose image was unpacked a moment before. Once it is a node of its own, once an agent beside two other machines. It is QEMU's, with Debian's kernel;
//! only on the architecture for which it is made.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fluidos_e2e::command::run;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::{Node, agent_binary, binary, kubectl};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::virtual_machine::{self, VirtualMachine};
use fluidos_e2e::wait::until;

/// An emulated machine on a busy one.
const LIMIT: Duration = Duration::from_secs(420);

/// A node on the machine's disk.
const UP: &str = r#"
export KUBECONFIG=/node/data/kubeconfig
mkdir -p /node
mount -t ext4 /dev/vda /node || exit
fluidos up --name vm --data-dir /node/data --no-mdns --eviction-hard 'memory.available<10Mi' > /ready 2> /log &
node=$!
i=0; while ! grep -q '^ready' /ready && [ $i -lt 900 ]; do sleep 0.1; i=$((i+1)); done
grep -q '^ready' /ready || { cat /log; exit; }
told() { # what kubectl says of an object
  echo "$1: $(kubectl get $2 -o jsonpath="$3")"
}
of='{.metadata.uid} {.status.containerStatuses[0].restartCount}'
"#;

/// What a pod must have written is on the disk before it is ready, for its power is cut then.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: always, labels: {app: always}}
spec:
  nodeSelector: {kubernetes.io/hostname: vm}
  containers:
  - name: a
    image: "busybox:1"
    command: [sh, -c, "echo started >> /data/starts; dd if=/dev/null conv=notrunc,fsync of=/data/starts; exec httpd -f -p 80 -h /data"]
    volumeMounts: [{name: data, mountPath: /data}]
    readinessProbe: {httpGet: {path: /starts, port: 80}, periodSeconds: 1}
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: always}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: never}
spec:
  nodeSelector: {kubernetes.io/hostname: vm}
  restartPolicy: Never
  containers: [{name: a, image: "busybox:1", command: [sleep, "10000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: failed}
spec:
  nodeSelector: {kubernetes.io/hostname: vm}
  restartPolicy: OnFailure
  containers:
  - name: a
    image: "busybox:1"
    command: [sh, -c, "test -e /data/again && exit 0; touch /data/again; dd if=/dev/null conv=notrunc,fsync of=/data/again; touch /up; exec sleep 10000"]
    readinessProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      nodeSelector: {kubernetes.io/hostname: vm}
      terminationGracePeriodSeconds: 0
      containers:
      - name: a
        image: "busybox:1"
        command: [sh, -c, "echo started >> /data/starts; dd if=/dev/null conv=notrunc,fsync of=/data/starts; touch /up; exec sleep 10000"]
        readinessProbe: {exec: {command: [test, -e, /up]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

const BEFORE: &str = r#"
kubectl rollout status statefulset/db --timeout=120s
kubectl wait --for=condition=Ready pod/always pod/never pod/failed --timeout=120s
for pod in always never failed db-0; do told "$boot $pod" pod/$pod "$of"; done
told "$boot boot" node/vm '{.status.nodeInfo.bootID}'
echo flt-all-runs
"#;

/// `$boot` says which boot it is.
const AFTER: &str = r#"
kubectl wait --for=condition=Ready pod/always pod/db-0 --timeout=120s
kubectl wait --for=jsonpath='{.status.phase}'=Succeeded pod/failed --timeout=120s
kubectl wait --for=jsonpath='{.status.phase}'=Failed pod/never --timeout=120s
for pod in always never failed db-0; do told "$boot $pod" pod/$pod "$of"; done
told "$boot boot" node/vm '{.status.nodeInfo.bootID}'
state='.status.containerStatuses[0].state.terminated'
told "$boot end" pod/never "{$state.reason} {$state.exitCode}"
# What was ready before may be said to be so until the node has looked.
page() { kubectl exec db-0 -- wget -q -O - http://web.default.svc.cluster.local/starts; }
i=0; until page=$(page) || [ $i -ge 60 ]; do sleep 1; i=$((i+1)); done
echo "$boot starts of always: $(echo "$page" | grep -c started)"
echo "$boot starts of db-0: $(kubectl exec db-0 -- cat /data/starts | wc -l)"
"#;

/// As machines go down: the node is asked to end, all others are killed, and the disk is let go.
const DOWN: &str = r#"
kill -TERM $node; wait $node
kill -9 -1
below() { cut -d' ' -f2 /proc/mounts | grep '^/node' | sort -r; }
i=0; while below | xargs umount 2> /dev/null; [ -n "$(below)" ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done
if [ -z "$(below)" ]; then echo flt-is-down; else below; fi
"#;

/// What follows this in the machine's words.
fn told<'a>(all: &'a str, what: &str) -> Vec<&'a str> {
    let line = all.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("nothing of {what:?} in:\n{all}")).split(' ').collect()
}

#[test]
fn pods_come_back_when_the_machine_has_lost_its_power_and_when_it_is_rebooted() {
    let (program, image): (PathBuf, PathBuf) = (binary(), Image::Busybox.layout().unwrap());
    let files = [(program.as_path(), "/bin/fluidos"), (&kubectl(), "/bin/kubectl"), (&image, "/image")];
    let place = tempfile::Builder::new().prefix("flt-reboot-").tempdir().unwrap();
    let disk = place.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(512 << 20).unwrap();
    run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).unwrap();
    let boot = |story: &str, last: &str| machine(&format!("{UP}{story}"), &files, &disk, last);
    // Its power is cut as soon as all runs; the second time it goes down in order.
    let load = "fluidos image load /image --data-dir /node/data";
    let apply = format!("kubectl apply -f - <<'YAML'{PODS}YAML");
    let first = boot(&format!("boot=first\n{load}\n{apply}\n{BEFORE}"), "flt-all-runs\n");
    let second = boot(&format!("boot=second\n{AFTER}{DOWN}"), "flt-is-down\n");
    let third = boot(&format!("boot=third\n{AFTER}echo flt-is-told\ntail -5 /log\n"), "flt-is-told\n");
    let all = first + &second + &third;

    let boots: BTreeSet<_> =
        ["first", "second", "third"].iter().map(|boot| told(&all, &format!("{boot} boot"))).collect();
    assert_eq!(boots.len(), 3, "{all}");
    for (pod, restarts) in
        [("always", ["0", "1", "2"]), ("never", ["0"; 3]), ("failed", ["0", "1", "1"]), ("db-0", ["0", "1", "2"])]
    {
        let of = ["first", "second", "third"].map(|boot| told(&all, &format!("{boot} {pod}")));
        assert!(of.iter().all(|one| one[0] == of[0][0]), "{pod} is the same pod:\n{all}");
        assert_eq!(of.map(|one| one[1]), restarts, "{pod}:\n{all}");
    }
    for (boot, starts) in [("second", "2"), ("third", "3")] {
        assert_eq!(told(&all, &format!("{boot} end")), ["ContainerStatusUnknown", "137"], "{all}");
        for pod in ["always", "db-0"] {
            assert_eq!(told(&all, &format!("{boot} starts of {pod}")), [starts], "what it wrote is there:\n{all}");
        }
    }
}

/// An agent on the machine's disk; at a line from the console it goes down.
const JOIN: &str = r#"
mkdir -p /node
mount -t ext4 /dev/vda /node || exit
ip addr add $address/24 dev eth0
ip link set eth0 up
ip route add default dev eth0
fluidos-agent join $invitation --name vm --data-dir /node/data --eviction-hard 'memory.available<10Mi' > /ready 2> /log &
node=$!
i=0; while ! grep -q '^ready' /ready && [ $i -lt 900 ]; do sleep 0.1; i=$((i+1)); done
grep -q '^ready' /ready || { cat /log; exit; }
fluidos-agent image load /image --data-dir /node/data
echo flt-has-joined
head -n 1 /dev/ttyS0
"#;

/// An agent's machine as its server sees it.
struct Seen<'a>(&'a Node);

impl Seen<'_> {
    fn told(&self, object: &str, path: &str) -> String {
        self.0.kubectl(&["get", object, "-o", &format!("jsonpath={path}")]).unwrap()
    }

    fn boot(&self) -> String {
        self.told("node/vm", "{.status.nodeInfo.bootID}")
    }

    fn uids(&self) -> [String; 4] {
        ALL.map(|pod| self.told(&format!("pod/{pod}"), "{.metadata.uid}"))
    }

    /// Waits until the machine has been booted since, and each pod has been restarted so often and is as it is to be.
    fn comes_back(&self, before: &str, restarts: [&str; 4]) {
        until("the machine is up again", LIMIT, || {
            let boot = self.boot();
            if boot == before { Err(boot) } else { Ok(()) }
        })
        .unwrap();
        let states = ["Running true", "Failed false", "Succeeded false", "Running true"];
        let expected: Vec<String> = restarts.iter().zip(states).map(|(n, state)| format!("{n} {state}")).collect();
        until("its pods are back", LIMIT, || {
            let path =
                "{.status.containerStatuses[0].restartCount} {.status.phase} {.status.containerStatuses[0].ready}";
            let seen: Vec<String> = ALL.iter().map(|pod| self.told(&format!("pod/{pod}"), path)).collect();
            if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .unwrap();
    }
}

const ALL: [&str; 4] = ["always", "never", "failed", "db-0"];

#[test]
fn pods_of_an_agent_come_back_when_its_machine_has_lost_its_power_and_when_it_is_rebooted() {
    let image = Image::Busybox.layout().unwrap();
    let mut stage = Stage::new("rebo").unwrap();
    let (farm, agents) = stage.machines(2, &image).unwrap();
    let place = stage.setup("vm", &[]).unwrap().machine.unwrap();
    let disk = stage.directory().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(512 << 20).unwrap();
    run("mkfs.ext4", &["-q", disk.to_str().unwrap()]).unwrap();
    let program = agent_binary();
    let files = [(program.as_path(), "/bin/fluidos-agent"), (&image, "/image")];
    let boot = |invitation: &str| {
        let words = format!("address={}\ninvitation={invitation}\n", place.address);
        let mut machine =
            VirtualMachine::boot(&format!("{words}{JOIN}{DOWN}"), &files, Some(&disk), Some(&place)).unwrap();
        machine.says(|text| text.contains("flt-has-joined\n"), LIMIT).unwrap();
        machine
    };
    let seen = Seen(&farm);

    let machine = boot(&farm.invite().unwrap());
    farm.apply(PODS).unwrap();
    farm.kubectl(&["rollout", "status", "statefulset/db", "--timeout=180s"]).unwrap();
    farm.kubectl(&["wait", "--for=condition=Ready", "pod/always", "pod/never", "pod/failed", "--timeout=180s"])
        .unwrap();
    let (uids, first) = (seen.uids(), seen.boot());
    drop(machine);

    let mut machine = boot("");
    seen.comes_back(&first, ["1", "0", "1", "1"]);
    let second = seen.boot();
    machine.type_line("down").unwrap();
    machine.says(|text| text.contains("flt-is-down\n"), LIMIT).unwrap();
    drop(machine);

    let _machine = boot("");
    seen.comes_back(&second, ["2", "0", "1", "2"]);
    assert_eq!(seen.uids(), uids, "they are the same pods");
    let end = "{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(seen.told("pod/never", end), "ContainerStatusUnknown 137");
    let starts = |what: &str, told: String| assert_eq!(told.matches("started").count(), 3, "{what}: {told}");
    starts("db-0", farm.kubectl(&["exec", "db-0", "--", "cat", "/data/starts"]).unwrap());
    // From another machine, by a Service and its name.
    let ask = [
        "exec",
        "client",
        "--",
        "timeout",
        "5",
        "wget",
        "-q",
        "-O",
        "-",
        "http://web.default.svc.cluster.local/starts",
    ];
    let client = ["run", "client", "--image=busybox:1", "--image-pull-policy=Never", "--restart=Never"];
    let beside = r#"--overrides={"spec":{"nodeName":"m1"}}"#;
    farm.kubectl(&[&client[..], &[beside, "--", "sleep", "10000"]].concat()).unwrap();
    farm.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]).unwrap();
    let page = until("it answers other machines", LIMIT, || farm.kubectl(&ask).map_err(|error| error.to_string()));
    starts("always", page.unwrap());
    for agent in agents {
        agent.terminate().unwrap();
    }
}

/// What a machine says from its begin until this.
fn machine(story: &str, files: &[(&Path, &str)], disk: &Path, last: &str) -> String {
    virtual_machine::power_loss(story, files, disk, |text| text.contains(last), LIMIT).unwrap()
}
