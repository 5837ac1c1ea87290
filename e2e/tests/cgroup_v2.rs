//! Limits by cgroup v2, on the kernel that most users have: this machine may well have v1. By the built-in runtime, and by containerd. Only on the
//! architecture for which the virtual machine is made.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::Duration;

use fluidos_e2e::images::Image;
use fluidos_e2e::node::{binary, kubectl};
use fluidos_e2e::virtual_machine;

/// An emulated machine on a busy one: more than a minute, less than this.
const LIMIT: Duration = Duration::from_secs(420);

const STORY: &str = r#"
export KUBECONFIG=/node/kubeconfig
fluidos check --pre --data-dir /node || exit
fluidos up --name vm --data-dir /node --no-mdns --eviction-hard 'memory.available<10Mi' $runtime > /ready 2> /log &
i=0; while ! grep -q '^ready' /ready && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done
grep -q '^ready' /ready || { cat /log; exit; }
cat /ready
fluidos image load /image --data-dir /node
kubectl apply -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: a
    image: "busybox:1"
    command: [sleep, "1000"]
    resources: {limits: {cpu: 200m, memory: 48Mi}, requests: {cpu: 100m}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers:
  - name: a
    image: "busybox:1"
    command: [dd, if=/dev/zero, of=/dev/null, bs=200M, count=1]
    resources: {limits: {memory: 48Mi}}
YAML
kubectl wait --for=condition=Ready pod/limited --timeout=90s || { kubectl get events; [ ! -e /c/log ] || tail /c/log; }
kubectl wait --for=jsonpath='{.status.phase}'=Failed pod/greedy --timeout=90s
echo "greedy: $(kubectl get pod greedy -o jsonpath='{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}')"
uid=$(kubectl get pod limited -o jsonpath='{.metadata.uid}')
for f in memory.max cpu.max cpu.weight; do echo "limited $f: $(cat /sys/fs/cgroup/kubelet-*/pod$uid/*/$f)"; done
kubectl delete pod limited greedy --timeout=60s
i=0; while ls -d /sys/fs/cgroup/kubelet-*/pod* 2> /dev/null && [ $i -lt 20 ]; do sleep 0.5; i=$((i+1)); done
ls -d /sys/fs/cgroup/kubelet-*/pod* || echo "no cgroup of a pod is left"
tail -5 /log
"#;

/// Before the story: a containerd that nobody else has.
const CONTAINERD: &str = r#"
mkdir -p /c/cni /etc
touch /etc/hosts /etc/resolv.conf
cat > /c/config.toml <<'TOML'
version = 2
root = "/c/root"
state = "/c/state"
[grpc]
address = "/c/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "/c/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:1"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/c/cni/bin"
conf_dir = "/c/cni/net.d"
TOML
containerd -c /c/config.toml > /c/log 2>&1 &
i=0; while ! ctr -a /c/containerd.sock version > /dev/null 2>&1 && [ $i -lt 100 ]; do sleep 1; i=$((i+1)); done
tar -C /pause -cf /pause.tar .
ctr -a /c/containerd.sock -n k8s.io images import /pause.tar || { cat /c/log; exit; }
runtime="--container-runtime-endpoint unix:///c/containerd.sock"
"#;

#[test]
fn limits_hold_where_there_is_only_cgroup_v2() {
    limits_hold("", &[], "runtime=oci");
}

#[test]
fn limits_hold_where_there_is_only_cgroup_v2_and_containerd() {
    let pause = Image::Pause.layout().unwrap();
    let path = engine_conformance::containerd::programs(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let programs = ["containerd", "containerd-shim-runc-v2", "runc", "ctr"].map(|name| {
        let found = std::env::split_paths(&path).map(|place| place.join(name)).find(|file| file.is_file()).unwrap();
        (found, format!("/bin/{name}"))
    });
    let mut files: Vec<(&Path, &str)> =
        programs.iter().map(|(found, inside)| (found.as_path(), inside.as_str())).collect();
    files.push((&pause, "/pause"));
    limits_hold(CONTAINERD, &files, "runtime=cri");
}

fn limits_hold(before: &str, more: &[(&Path, &str)], runtime: &str) {
    let (program, image, kubectl) = (binary(), Image::Busybox.layout().unwrap(), kubectl());
    let files = [(program.as_path(), "/bin/fluidos"), (&kubectl, "/bin/kubectl"), (&image, "/image")];
    let told = virtual_machine::story(&format!("{before}{STORY}"), &[&files, more].concat(), LIMIT).unwrap();
    for expected in [
        "✓ cgroups for memory and CPU",
        runtime,
        "greedy: OOMKilled 137",
        "limited memory.max: 50331648",
        "limited cpu.max: 20000 100000",
        // 100m of 1024 shares, in the weights of v2 (KEP-2254).
        "limited cpu.weight: 4",
        "no cgroup of a pod is left",
    ] {
        assert!(told.contains(expected), "{expected:?} is not in:\n{told}");
    }
}
