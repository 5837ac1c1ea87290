//! A machine loses its power and is rebooted while pods run: they come back under their restart policies, with what they had written, also those
//! whose image was unpacked a moment before. The machine is QEMU's, with Debian's kernel; only on the architecture for which it is made.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fluidos_e2e::command::run;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::{binary, kubectl};
use fluidos_e2e::virtual_machine;

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
const BEFORE: &str = r#"
fluidos image load /image --data-dir /node/data
kubectl apply -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: always, labels: {app: always}}
spec:
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
  restartPolicy: Never
  containers: [{name: a, image: "busybox:1", command: [sleep, "10000"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: failed}
spec:
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
YAML
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
    let first = boot(&format!("boot=first\n{BEFORE}"), "flt-all-runs\n");
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

/// What a machine says from its begin until this.
fn machine(story: &str, files: &[(&Path, &str)], disk: &Path, last: &str) -> String {
    virtual_machine::power_loss(story, files, disk, |text| text.contains(last), LIMIT).unwrap()
}
