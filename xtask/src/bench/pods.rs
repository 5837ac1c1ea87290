//! What a pod costs on one machine: until it is Ready, in memory, in processor time when nothing happens; beside upstream's kubelet on
//! containerd and runc, at the same API, and beside containers that `ctr` runs alone.
//!
//! ```text
//!                                  ┌─▶ this node's kubelet ─▶ built-in runtime
//!  kubectl ─▶ API of the node ─────┤
//!                                  └─▶ kubelet v1.20.2 ─────▶ containerd ─▶ runc      in the same network namespace
//! ```

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fluidos_e2e::command::run;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::wait::until;
use serde_json::{Value, json};

use super::main_job::{Watch, one_pod, pss_kib, round, spread, stage, ticks};
use crate::machine::Package;

/// What stands beside us.
pub const PEERS: [Package; 3] = [
    ("containerd", "/usr/bin/containerd", "the peer's runtime"),
    ("runc", "/usr/sbin/runc", "what containerd runs"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge", "the peer's network of pods"),
];

const LIMIT: Duration = Duration::from_secs(120);
/// Taken in turns: one of ours, one of the kubelet's, one of ctr's.
const RUNS: usize = 15;
/// How many pods are looked at when nothing happens, and how long.
const QUIET: usize = 50;
const WATCHED: Duration = Duration::from_secs(30);
/// How many are made at once.
const CROWD: usize = 100;
const PEER: &str = "peer";

/// Measures everything with this program, beside the kubelet in this folder.
pub fn measure(binary: &Path, upstream: &Path) -> Result<Value> {
    let mut stage = stage(binary)?;
    let node = stage.setup("farm", &["--no-mdns"])?.start()?;
    node.setup.load(&Image::Busybox.layout()?)?;
    let peer = Peer::start(&node, stage.directory(), upstream)?;
    let (mut ours, mut theirs, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let times = (
            one_pod(&node, &format!("a{run}"), "farm")?,
            one_pod(&node, &format!("b{run}"), PEER)?,
            peer.container(&format!("c{run}"))?,
        );
        if run > 0 {
            // The first of each loads what all others find loaded.
            ours.push(times.0);
            theirs.push(times.1);
            alone.push(times.2);
        }
    }
    println!("created to ready, kubelet on containerd, ctr run");
    let one = json!({ "ours_ms": spread(ours), "kubelet_ms": spread(theirs), "ctr_run_ms": spread(alone) });
    println!("{CROWD} at once");
    let (ours, theirs) = (crowd(&node, "farm")?, crowd(&node, PEER)?);
    println!("{QUIET} pods, nothing happens");
    let quiet = json!({ "ours": quiet(&node, "farm", || ours_of(&node))?, "kubelet": quiet(&node, PEER, || peer.processes())? });
    drop(peer);
    node.terminate()?;
    Ok(json!({ "pod_created_to_ready": one, "at_once": { "ours": ours, "kubelet": theirs }, "quiet": quiet }))
}

/// A Deployment of pods on one of the nodes.
pub fn deploy(node: &Node, name: &str, on: &str, count: usize) -> Result<()> {
    node.apply(&format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {count}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      nodeSelector: {{kubernetes.io/hostname: {on}}}
      containers: [{{name: a, image: "busybox:1", command: [sleep, "100000"]}}]
"#
    ))
    .map(|_| ())
}

fn gone(node: &Node, name: &str) -> Result<()> {
    node.kubectl(&["delete", "deployment", name])?;
    node.kubectl(&["wait", "--for=delete", "pods", "-l", &format!("app={name}"), "--timeout=300s"]).map(|_| ())
}

/// From the first that is created to the last that is Ready.
fn crowd(node: &Node, on: &str) -> Result<Value> {
    let watch = Watch::open(node)?;
    deploy(node, "crowd", on, CROWD)?;
    let times = watch.ready("crowd-", CROWD)?;
    let begun = times.iter().map(|(created, _)| *created).min().context("no pod")?;
    let all = times.iter().map(|(_, ready)| *ready).max().context("no pod")?;
    drop(watch);
    gone(node, "crowd")?;
    let figure = json!({ "pods": CROWD, "all_ready_ms": round((all - begun).as_secs_f64() * 1000.0),
        "each_ms": spread(times.iter().map(|(created, ready)| (*ready - *created).as_secs_f64() * 1000.0).collect()) });
    println!("  {on}: {}", figure["all_ready_ms"]);
    Ok(figure)
}

/// Memory and processor time of all processes that keep so many pods, but for the containers' own.
fn quiet(node: &Node, on: &str, processes: impl Fn() -> Result<Processes>) -> Result<Value> {
    let before = processes()?;
    let base = before.all().map(pss_kib).sum::<Result<u64>>()?;
    let watch = Watch::open(node)?;
    deploy(node, "quiet", on, QUIET)?;
    watch.ready("quiet-", QUIET)?;
    drop(watch);
    std::thread::sleep(Duration::from_secs(20)); // what has happened is over
    let now = processes()?;
    let spent = |now: &Processes| now.all().map(ticks).sum::<Result<u64>>();
    let from = spent(&now)?;
    std::thread::sleep(WATCHED);
    let percent = (spent(&now)? - from) as f64 / WATCHED.as_secs_f64(); // USER_HZ is 100
    let memory = now.all().map(pss_kib).sum::<Result<u64>>()?;
    let private: Vec<f64> = now.of_pods.iter().map(|pid| Ok(private_kib(*pid)? as f64)).collect::<Result<_>>()?;
    gone(node, "quiet")?;
    let figure = json!({ "pods": QUIET, "cpu_percent_of_a_core": (percent * 100.0).round() / 100.0,
        "pss_mib_without_pods": round(base as f64 / 1024.0), "pss_mib": round(memory as f64 / 1024.0),
        "private_kib_of_each_pods_process": spread(private) });
    println!("  {on}: {figure}");
    Ok(figure)
}

/// What keeps pods.
struct Processes {
    of_the_node: Vec<u32>,
    of_pods: Vec<u32>,
}

impl Processes {
    fn all(&self) -> impl Iterator<Item = u32> {
        self.of_the_node.iter().chain(&self.of_pods).copied()
    }
}

fn ours_of(node: &Node) -> Result<Processes> {
    let directory = node.setup.directory.display();
    Ok(Processes { of_the_node: vec![node.pid()], of_pods: named(&format!("pod-supervisor {directory}"))? })
}

/// Processes whose command line has this in it.
pub fn named(pattern: &str) -> Result<Vec<u32>> {
    let found = run("pgrep", &["-f", pattern]).unwrap_or_default(); // it fails if there is none
    found.lines().map(|pid| pid.parse().context("a process")).collect()
}

fn private_kib(pid: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let of = |name: &str| -> Result<u64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    };
    Ok(of("Private_Clean:")? + of("Private_Dirty:")?)
}

/// A node of upstream's on the machine of ours.
struct Peer {
    containerd: Child,
    kubelet: Child,
    socket: PathBuf,
    image: String,
}

impl Peer {
    fn start(node: &Node, parent: &Path, upstream: &Path) -> Result<Self> {
        let directory = parent.join(PEER);
        std::fs::create_dir_all(directory.join("cni"))?;
        let shown = directory.display();
        std::fs::write(
            directory.join("cni/10.conflist"),
            format!(
                r#"{{"cniVersion":"0.4.0","name":"peer","plugins":[{{"type":"bridge","bridge":"peer0","isGateway":true,"ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.244.0.0/24"}}]],"dataDir":"{shown}/cni-state"}}}}]}}"#
            ),
        )?;
        std::fs::write(
            directory.join("containerd.toml"),
            format!(
                r#"
version = 2
root = "{shown}/root"
state = "{shown}/state"
[grpc]
address = "{shown}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:1"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{shown}/cni"
"#
            ),
        )?;
        std::fs::write(
            directory.join("kubelet.yaml"),
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: cgroupfs\ncgroupsPerQOS: false\n\
             enforceNodeAllocatable: []\nfailSwapOn: false\noomScoreAdj: 0\nmaxPods: 200\nauthentication: {anonymous: {enabled: false}, webhook: {enabled: false}}\n\
             authorization: {mode: AlwaysAllow}\nimageGCHighThresholdPercent: 100\n\
             evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}\n",
        )?;
        let log = |name: &str| std::fs::File::create(directory.join(name).with_extension("log"));
        let begin = |command: &mut Command, name: &str| -> Result<Child> {
            let child = command.stdin(Stdio::null()).stdout(log(name)?).stderr(log(name)?).spawn();
            child.with_context(|| format!("start {name}"))
        };
        let mut command = node.setup.command(Path::new("containerd"));
        let containerd = begin(command.arg("-c").arg(directory.join("containerd.toml")), "containerd")?;
        let socket = directory.join("containerd.sock");
        let ctr =
            |arguments: &[&str]| run("ctr", &[&["-a", &socket.to_string_lossy(), "-n", "k8s.io"], arguments].concat());
        until("containerd", LIMIT, || ctr(&["version"]).map_err(|error| format!("{error:#}")))?;
        for image in [Image::Busybox, Image::Pause] {
            let archive = directory.join("image.tar");
            let (to, from) = (archive.to_string_lossy(), image.layout()?);
            run("tar", &["-C", &from.to_string_lossy(), "-cf", &to, "oci-layout", "index.json", "blobs"])?;
            ctr(&["images", "import", &to])?; // it names itself
        }
        let mut command = node.setup.command(&upstream.join("kubelet"));
        command.arg(format!("--root-dir={shown}/kubelet")).arg(format!("--config={shown}/kubelet.yaml"));
        command
            .arg(format!("--kubeconfig={}", node.setup.kubeconfig().display()))
            .arg(format!("--cert-dir={shown}/pki"));
        command.arg(format!("--hostname-override={PEER}")).arg("--container-runtime=remote");
        command.arg(format!("--container-runtime-endpoint=unix://{}", socket.display()));
        let kubelet = begin(&mut command, "kubelet")?;
        let peer = Self { containerd, kubelet, socket, image: Image::Busybox.reference().to_owned() };
        until("upstream's node", LIMIT, || {
            node.kubectl(&["wait", "--for=condition=Ready", &format!("node/{PEER}"), "--timeout=1s"])
                .map_err(|error| format!("{error:#}"))
        })?;
        Ok(peer)
    }

    /// Milliseconds until `ctr` has run a container, which no API knows and which has no network.
    fn container(&self, name: &str) -> Result<f64> {
        let ctr = |arguments: &[&str]| {
            let socket = self.socket.to_string_lossy();
            let status = Command::new("ctr")
                .args(["-a", &socket, "-n", "alone"])
                .args(arguments)
                .stdout(Stdio::null())
                .status()?;
            ensure!(status.success(), "ctr {}: {status}", arguments.join(" "));
            anyhow::Ok(())
        };
        let socket = self.socket.to_string_lossy();
        if run("ctr", &["-a", &socket, "-n", "alone", "images", "ls", "-q"])?.is_empty() {
            let archive = self.socket.with_file_name("alone.tar");
            run("ctr", &["-a", &socket, "-n", "k8s.io", "images", "export", &archive.to_string_lossy(), &self.image])?;
            ctr(&["images", "import", &archive.to_string_lossy()])?;
        }
        let begun = Instant::now();
        ctr(&["run", "-d", "--null-io", &self.image, name, "sleep", "1000"])?;
        let taken = begun.elapsed().as_secs_f64() * 1000.0;
        ctr(&["task", "rm", "-f", name])?;
        ctr(&["container", "rm", name])?;
        Ok(taken)
    }

    fn processes(&self) -> Result<Processes> {
        let shims = named(&format!("containerd-shim.*{}", self.socket.display()))?;
        Ok(Processes { of_the_node: vec![self.containerd.id(), self.kubelet.id()], of_pods: shims })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for child in [&mut self.kubelet, &mut self.containerd] {
            if let Err(error) = child.kill().and_then(|()| child.wait()) {
                eprintln!("upstream's node: {error}");
            }
        }
        // What a run that failed has left of its pods; each bears this bench's socket in its name.
        for pid in named(&format!("containerd-shim.*{}", self.socket.display())).unwrap_or_default() {
            let _ = run("kill", &["-9", &pid.to_string()]);
        }
        let own = self.socket.parent().map(|directory| directory.to_string_lossy().into_owned()).unwrap_or_default();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        for mount in mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|at| !own.is_empty() && at.starts_with(&own))
        {
            let _ = run("umount", &["-l", mount]);
        }
        // Empty, or somebody else's and then not removed.
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for namespace in ["k8s.io", "alone"] {
                let _ = std::fs::remove_dir(controller.path().join(namespace));
            }
        }
    }
}
