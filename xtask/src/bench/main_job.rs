//! The figures of the main job: what one node costs, and how long a user waits.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use fluidos_e2e::claim::Claim;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::{Value, json};

use crate::demo::steps::Story;

/// Runs of what is measured several times.
const RUNS: usize = 7;
/// Deaths of a machine: each is half a minute of waiting, and the longest of them is what p99 is taken for.
const DEATHS: usize = 11;
/// How long an idle node is watched.
const IDLE: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(90);

/// Measures everything with this program.
pub fn measure(binary: &Path) -> Result<Value> {
    let mut figures = serde_json::Map::new();
    figures.insert("binary_mib".into(), json!(round(std::fs::metadata(binary)?.len() as f64 / f64::from(1 << 20))));
    figures.insert("up_to_ready_ms".into(), spread(ready(binary)?));
    idle(binary, &mut figures)?;
    figures.insert("second_node_to_virtual_node_ready_ms".into(), spread(virtual_node(binary)?));
    pods(binary, &mut figures)?;
    figures.insert("machine_death_to_page_ms".into(), spread(deaths(binary)?));
    Ok(Value::Object(figures))
}

pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Median, least and most.
pub fn spread(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let text = json!({
        "p50": round(values[values.len() / 2]), "min": round(values[0]), "max": round(values[values.len() - 1]), "runs": values.len(),
    });
    println!("  {text}");
    text
}

pub fn stage(binary: &Path) -> Result<Stage> {
    let mut stage = Stage::new("bnch")?;
    stage.play(binary);
    Ok(stage)
}

fn ready(binary: &Path) -> Result<Vec<f64>> {
    println!("up to ready");
    let mut stage = stage(binary)?;
    let mut times = Vec::new();
    for run in 0..RUNS {
        let node = stage.setup(&format!("n{run}"), &["--no-mdns"])?.start()?;
        times.push(node.ready_after.as_secs_f64() * 1000.0);
        node.terminate()?;
    }
    Ok(times)
}

/// Proportional set sizes and processor time of a node with nothing to do.
fn idle(binary: &Path, figures: &mut serde_json::Map<String, Value>) -> Result<()> {
    println!("idle");
    let mut stage = stage(binary)?;
    let node = stage.setup("idle", &[])?.start()?;
    std::thread::sleep(Duration::from_secs(5)); // what starts has settled
    let before = ticks(node.pid())?;
    std::thread::sleep(IDLE);
    let spent = (ticks(node.pid())? - before) as f64 / 100.0; // USER_HZ
    figures.insert("idle_cpu_percent_of_a_core".into(), json!(round(spent / IDLE.as_secs_f64() * 1000.0) / 10.0));
    figures.insert("idle_pss_mib".into(), json!(round(pss_kib(node.pid())? as f64 / 1024.0)));
    println!("  {} MiB, {} % of a core", figures["idle_pss_mib"], figures["idle_cpu_percent_of_a_core"]);
    node.terminate()?;
    Ok(())
}

/// From the death of the machine that hosts the shop's api until the page works again, on a new stage each time.
fn deaths(binary: &Path) -> Result<Vec<f64>> {
    println!("machine death to page works");
    let mut times = Vec::new();
    for _ in 0..DEATHS {
        let mut story = Story::new(true, Claim::take(crate::demo::NAME)?, binary)?;
        for part in [Story::start, Story::discover, Story::apply, Story::buy, Story::look, Story::page] {
            part(&mut story)?;
        }
        times.push(story.fail_over()?.outage.as_secs_f64() * 1000.0);
    }
    Ok(times)
}

pub fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

pub fn pss_kib(pid: u32) -> Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

const SOLVER: &str = r#"
apiVersion: nodecore.fluidos.eu/v1alpha1
kind: Solver
metadata: {name: waiting, namespace: fluidos}
spec:
  selector: {flavorType: K8Slice, filters: {cpuFilter: {name: Range, data: {min: 100m}}, memoryFilter: {name: Range, data: {min: 64Mi}}, podsFilter: {name: Range, data: {min: 2}}}}
  intentID: bench
  findCandidate: true
  reserveAndBuy: true
  establishPeering: true
"#;

/// From the start of the second node until its capacity is a ready Node at the first, where a Solver waits.
fn virtual_node(binary: &Path) -> Result<Vec<f64>> {
    println!("second node started to virtual node ready");
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let mut stage = stage(binary)?;
        let farm = stage.setup("farm", &["--trust", "lan"])?.start()?;
        farm.apply(SOLVER)?;
        let grid = stage.setup("grid", &["--offer", "cpu=1,memory=1Gi,pods=10"])?;
        let begun = Instant::now();
        let mut watch = farm.setup.kubectl_command(&["wait", "--for=create", "node/grid", "--timeout=60s"]).spawn()?;
        let grid = grid.start()?;
        watch.wait()?;
        farm.kubectl(&["wait", "--for=condition=Ready", "node/grid", "--timeout=60s"])?;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        drop((farm, grid));
    }
    Ok(times)
}

/// From a pod's creation until it is Ready, here and at a provider; the image is present.
fn pods(binary: &Path, figures: &mut serde_json::Map<String, Value>) -> Result<()> {
    let mut stage = stage(binary)?;
    let farm = stage.setup("farm", &["--trust", "lan"])?.start()?;
    let grid = stage.setup("grid", &["--offer", "cpu=1,memory=1Gi,pods=30", "--location", "city=Milan"])?.start()?;
    for node in [&farm, &grid] {
        node.setup.load(&Image::Busybox.layout()?)?;
    }
    farm.apply(&SOLVER.replace("min: 2", "min: 20"))?;
    until("the virtual node", LIMIT, || {
        farm.kubectl(&["wait", "--for=condition=Ready", "node/grid", "--timeout=1s"]).map_err(|e| format!("{e:#}"))
    })?;
    for (name, node) in [("pod_local_ms", "farm"), ("pod_at_provider_ms", "grid")] {
        println!("{name}");
        let mut times = Vec::new();
        for run in 0..RUNS {
            times.push(one_pod(&farm, &format!("p{run}"), node)?);
        }
        figures.insert(name.into(), spread(times));
    }
    Ok(())
}

/// All pods of a node's API, as kubectl sees them change.
pub struct Watch {
    kubectl: Child,
    events: mpsc::Receiver<(Instant, Value)>,
}

impl Watch {
    pub fn open(node: &Node) -> Result<Self> {
        let arguments = ["get", "pods", "--watch-only", "--output-watch-events", "-o", "json"];
        let mut kubectl = node.setup.kubectl_command(&arguments).stdout(Stdio::piped()).spawn()?;
        let stdout = kubectl.stdout.take().ok_or_else(|| anyhow!("no output"))?;
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            for event in serde_json::Deserializer::from_reader(stdout).into_iter::<Value>().map_while(Result::ok) {
                if sender.send((Instant::now(), event)).is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(500)); // it is open
        Ok(Self { kubectl, events })
    }

    /// When each of these many pods, whose names begin so, was created and Ready. Times in objects have whole seconds.
    pub fn ready(&self, prefix: &str, count: usize) -> Result<Vec<(Instant, Instant)>> {
        let mut created: BTreeMap<String, Instant> = BTreeMap::new();
        let mut ready: BTreeMap<String, Instant> = BTreeMap::new();
        while ready.len() < count {
            let Ok((at, event)) = self.events.recv_timeout(LIMIT) else {
                bail!("{} of {count} pods {prefix}… are ready after {LIMIT:?}", ready.len())
            };
            let pod = &event["object"];
            let Some(name) = pod["metadata"]["name"].as_str().filter(|name| name.starts_with(prefix)) else { continue };
            created.entry(name.to_owned()).or_insert(at);
            let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            if conditions.any(|c| c["type"] == "Ready" && c["status"] == "True") {
                ready.entry(name.to_owned()).or_insert(at);
            }
        }
        Ok(ready.into_iter().filter_map(|(name, at)| Some((*created.get(&name)?, at))).collect())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It ends by nothing else.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Milliseconds from a pod's creation until it is Ready on a node.
pub fn one_pod(farm: &Node, name: &str, node: &str) -> Result<f64> {
    let watch = Watch::open(farm)?;
    farm.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  nodeSelector: {{kubernetes.io/hostname: {node}}}
  containers: [{{name: a, image: "busybox:1", command: [sleep, "1000"]}}]
"#
    ))?;
    let times = watch.ready(name, 1)?;
    farm.kubectl(&["delete", "pod", name, "--wait=true"])?;
    let (created, ready) = times.first().ok_or_else(|| anyhow!("no pod {name}"))?;
    Ok((*ready - *created).as_secs_f64() * 1000.0)
}
