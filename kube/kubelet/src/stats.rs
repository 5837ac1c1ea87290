//! What a kubelet answers for its node itself: how much CPU and memory the node, its pods and their containers use, under upstream's names.
//!
//! | path | answer |
//! |---|---|
//! | `healthz` | `ok` |
//! | `pods` | the pods that are here, as the API has them |
//! | `stats/summary` | the measurements, in JSON |
//! | `metrics/resource` | the measurements, in the text format of Prometheus |
//!
//! Measured when asked, from the cgroups. How fast CPU is used (`usageNanoCores`, over `usageWindowMilliseconds`, which upstream does not tell) is
//! said by the [`Sampler`]. Memory that counts is the *working set*: what is used but for file pages that
//! have not been looked at for a while, which the kernel takes back first.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine_runtime::cgroups::Usage;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::Shared;
use crate::kubelet::Handle;
use crate::manager::Pods;

/// Measurements are this far apart.
const PERIOD: Duration = Duration::from_secs(15);
/// A rate is over no less.
const WINDOW_MIN: Duration = Duration::from_secs(10);
/// Nobody has asked for so long: an autoscaler asks every 15 s, somebody who looks at `top` now and then.
const ASKED_MAX: Duration = Duration::from_secs(300);

/// CPU time that was used, by cgroup below the node's; `""` is the machine.
type Used = HashMap<String, Duration>;

/// Keeps two measurements while somebody asks: the first question begins it, and it ends five minutes after the last. An idle node is not
/// measured.
#[derive(Default)]
pub(crate) struct Sampler(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    asked: Option<Instant>,
    is_running: bool,
    /// Older first, at most two.
    samples: Vec<(Instant, Used)>,
}

impl Kept {
    fn keep(&mut self, now: Instant, used: Used) {
        self.samples.push((now, used));
        let more = self.samples.len().saturating_sub(2);
        self.samples.drain(..more);
    }

    /// Nanoseconds of CPU a second, and over which time: since the newest measurement that is old enough and knows it.
    fn rate(&self, now: Instant, name: &str, used: Duration) -> Option<(u64, Duration)> {
        let old_enough = self.samples.iter().rev().filter(|(at, _)| now.duration_since(*at) >= WINDOW_MIN);
        let (at, before) = old_enough.filter_map(|(at, all)| Some((*at, *all.get(name)?))).next()?;
        let window = now.duration_since(at);
        let nanos = used.checked_sub(before)?.as_nanos() * 1_000_000_000 / window.as_nanos().max(1);
        Some((u64::try_from(nanos).ok()?, window))
    }
}

/// One pod and its containers that run.
struct Measured {
    namespace: String,
    name: String,
    uid: String,
    started_at: Option<Timestamp>,
    usage: Usage,
    /// Name, its cgroup, when it was started, what it has used.
    containers: Vec<(String, String, Timestamp, Usage)>,
}

fn used(pods: &[Measured], machine: Option<&Usage>) -> Used {
    let of_pod = |pod: &Measured| (format!("pod{}", pod.uid), pod.usage.cpu);
    let of_containers =
        |pod: &Measured| pod.containers.clone().into_iter().map(|(_, path, _, usage)| (path, usage.cpu));
    let pods = pods.iter().flat_map(|pod| of_containers(pod).chain([of_pod(pod)]));
    pods.chain(machine.map(|usage| (String::new(), usage.cpu))).collect()
}

impl Handle {
    /// The type and the text of an answer; `None` where there is nothing.
    pub(crate) async fn answer(&self, path: &str) -> Option<(&'static str, String)> {
        match path.trim_end_matches('/') {
            "healthz" => Some(("text/plain; charset=utf-8", "ok".to_owned())),
            "pods" => {
                let pods: Vec<Value> = self.pods.borrow().values().map(|pod| json!(pod.as_ref())).collect();
                let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods});
                Some(("application/json", list.to_string()))
            }
            "stats/summary" => Some(("application/json", self.summary().await.to_string())),
            "metrics/resource" => Some(("text/plain; version=0.0.4; charset=utf-8", self.metrics().await)),
            _ => None,
        }
    }

    /// Notes that somebody asks, and sees to it that there is something to compare with the next time.
    fn asked(&self, now: Instant, used: Used) {
        let mut kept = self.shared.sampler.0.lock().unwrap_or_else(|e| e.into_inner());
        kept.asked = Some(now);
        if kept.is_running {
            return;
        }
        kept.is_running = true;
        kept.keep(now, used);
        drop(kept);
        // Not by a handle: that of a kubelet that has stopped would keep it.
        let (shared, pods) = (Arc::downgrade(&self.shared), self.pods.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                let Some(shared) = shared.upgrade() else { return };
                let (pods, machine) = (measure(&shared, &pods).await, machine_now());
                let mut kept = shared.sampler.0.lock().unwrap_or_else(|e| e.into_inner());
                if kept.asked.is_none_or(|at| at.elapsed() > ASKED_MAX) {
                    *kept = Kept::default();
                    return;
                }
                kept.keep(Instant::now(), self::used(&pods, machine.as_ref().map(|(usage, _)| usage)));
            }
        });
    }

    async fn summary(&self) -> Value {
        let (measured, machine) = (measure(&self.shared, &self.pods).await, machine_now());
        let (now, at) = (second(Timestamp::now()), Instant::now());
        self.asked(at, used(&measured, machine.as_ref().map(|(usage, _)| usage)));
        let part = |usage: &Usage, path: &str| {
            let nanos = u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX);
            let mut cpu = json!({"time": now, "usageCoreNanoSeconds": nanos});
            let kept = self.shared.sampler.0.lock().unwrap_or_else(|e| e.into_inner());
            if let Some((rate, window)) = kept.rate(at, path, usage.cpu) {
                cpu["usageNanoCores"] = rate.into();
                cpu["usageWindowMilliseconds"] = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).into();
            }
            let memory = json!({"time": now, "usageBytes": usage.memory, "workingSetBytes": usage.working_set});
            (cpu, memory)
        };
        let pods: Vec<Value> = measured
            .iter()
            .map(|pod| {
                let containers = pod.containers.iter().map(|(name, path, at, usage)| {
                    let (cpu, memory) = part(usage, path);
                    json!({"name": name, "startTime": second(*at), "cpu": cpu, "memory": memory})
                });
                let (cpu, memory) = part(&pod.usage, &format!("pod{}", pod.uid));
                json!({"podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
                       "startTime": pod.started_at.map(second), "containers": containers.collect::<Vec<_>>(),
                       "cpu": cpu, "memory": memory})
            })
            .collect();
        let mut node = json!({"nodeName": self.shared.node_name});
        // What cannot be read is not there, rather than nothing.
        if let Some((used, booted)) = machine {
            let (cpu, mut memory) = part(&used, "");
            memory["availableBytes"] = self.shared.capacity.memory_bytes.saturating_sub(used.working_set).into();
            (node["startTime"], node["cpu"], node["memory"]) = (json!(booted.map(second)), cpu, memory);
        }
        json!({"node": node, "pods": pods})
    }

    async fn metrics(&self) -> String {
        let now = Timestamp::now().as_millisecond();
        let pods = measure(&self.shared, &self.pods).await;
        let node = machine_now();
        let mut text = String::new();
        // Writing into a text cannot fail.
        let mut family = |name: &str, kind: &str, rows: Vec<(String, String)>| {
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, value) in rows {
                let _ = writeln!(text, "{name}{labels} {value} {now}");
            }
        };
        let cpu = |usage: &Usage| usage.cpu.as_secs_f64().to_string();
        let memory = |usage: &Usage| usage.working_set.to_string();
        let of_pod = |pod: &Measured| format!("{{namespace={:?},pod={:?}}}", pod.namespace, pod.name);
        // Names are those of Kubernetes: nothing in them need be escaped.
        let each_pod =
            |value: &dyn Fn(&Usage) -> String| pods.iter().map(|pod| (of_pod(pod), value(&pod.usage))).collect();
        let each_container = |value: &dyn Fn(&Timestamp, &Usage) -> String| {
            let all = pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
            all.map(|(pod, (name, _, at, usage))| {
                (format!("{{container={name:?},namespace={:?},pod={:?}}}", pod.namespace, pod.name), value(at, usage))
            })
            .collect()
        };
        family("container_cpu_usage_seconds_total", "counter", each_container(&|_, usage| cpu(usage)));
        family("container_memory_working_set_bytes", "gauge", each_container(&|_, usage| memory(usage)));
        let start = |at: &Timestamp| (at.as_millisecond() as f64 / 1000.0).to_string();
        family("container_start_time_seconds", "gauge", each_container(&|at, _| start(at)));
        if let Some((node, _)) = &node {
            family("node_cpu_usage_seconds_total", "counter", vec![(String::new(), cpu(node))]);
            family("node_memory_working_set_bytes", "gauge", vec![(String::new(), memory(node))]);
        }
        family("pod_cpu_usage_seconds_total", "counter", each_pod(&cpu));
        family("pod_memory_working_set_bytes", "gauge", each_pod(&memory));
        let _ =
            writeln!(text, "# TYPE resource_scrape_error gauge\nresource_scrape_error {}", u8::from(node.is_none()));
        text
    }
}

async fn measure(shared: &Shared, pods: &Pods) -> Vec<Measured> {
    let pods: Vec<_> = pods.borrow().iter().map(|(uid, pod)| (uid.clone(), pod.clone())).collect();
    let mut all = Vec::new();
    for (uid, pod) in pods {
        let Some(usage) = shared.cgroups.measure(&format!("pod{uid}")) else { continue };
        let observed = shared.runtime.watch(&uid).await.borrow().clone();
        let running = observed.containers.iter().filter(|run| run.finished.is_none());
        let containers = running.filter_map(|run| {
            let cgroup = format!("pod{uid}/{}", &run.id[..run.id.len().min(16)]);
            let at = Timestamp::from_nanosecond(run.started_at_ns.into()).ok()?;
            let usage = shared.cgroups.measure(&cgroup)?;
            Some((run.name.clone(), cgroup, at, usage))
        });
        let containers = containers.collect();
        let started_at = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        all.push(Measured { namespace, name, uid, started_at, usage, containers });
    }
    all
}

fn second(at: Timestamp) -> String {
    crate::pod::status::whole_second(at).to_string()
}

/// The machine as it is now; none if the kernel does not say, which is logged.
fn machine_now() -> Option<(Usage, Option<Timestamp>)> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path);
        text.inspect_err(|error| tracing::warn!(path, %error, "the machine is not measured")).ok()
    };
    Some(machine(&read("/proc/stat")?, &read("/proc/meminfo")?))
}

/// What the whole machine has used, and when it was started, from proc(5).
fn machine(stat: &str, memory: &str) -> (Usage, Option<Timestamp>) {
    /// Ticks a second, of every Linux.
    const HZ: u64 = 100;
    let ticks: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal: idle ones are not used.
    let used: u64 = ticks.iter().take(8).enumerate().filter(|(n, _)| !matches!(n, 3 | 4)).map(|(_, ticks)| ticks).sum();
    let number = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default() * 1024
    };
    let total = number("MemTotal");
    let usage = Usage {
        cpu: Duration::from_millis(used * 1000 / HZ),
        memory: total.saturating_sub(number("MemFree")),
        working_set: total.saturating_sub(number("MemAvailable")),
    };
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
    (usage, booted.and_then(|second| Timestamp::from_second(second).ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn the_machine_is_read_from_proc() {
        let stat = "cpu  100 20 30 5000 600 7 8 9 10 11\ncpu0 1 1\nbtime 1700000000\n";
        let memory = "MemTotal:       1000 kB\nMemFree:         300 kB\nMemAvailable:    600 kB\n";
        let (usage, booted) = machine(stat, memory);
        let wanted = Usage { cpu: Duration::from_millis(1740), memory: 700 * 1024, working_set: 400 * 1024 };
        assert_eq!((usage, booted.unwrap().as_second()), (wanted, 1_700_000_000));
    }

    #[test]
    fn a_rate_is_over_ten_seconds_at_least() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let used = |millis: u64| HashMap::from([("pod".to_owned(), Duration::from_millis(millis))]);
        let mut kept = Kept::default();
        let rate =
            |kept: &Kept, seconds: u64, millis: u64| kept.rate(at(seconds), "pod", Duration::from_millis(millis));
        assert_eq!(rate(&kept, 100, 100), None);
        kept.keep(at(0), used(1000));
        assert_eq!(rate(&kept, 9, 9000), None, "too soon");
        assert_eq!(rate(&kept, 10, 6000), Some((500_000_000, Duration::from_secs(10))));
        kept.keep(at(15), used(2000));
        assert_eq!(rate(&kept, 20, 6000), Some((250_000_000, Duration::from_secs(20))), "the older one");
        assert_eq!(rate(&kept, 25, 12_000), Some((1_000_000_000, Duration::from_secs(10))));
        assert_eq!(rate(&kept, 25, 1), None, "another of that name");
        assert_eq!(kept.rate(at(25), "new", Duration::ZERO), None);
        kept.keep(at(30), used(3000));
        assert_eq!(kept.samples.len(), 2);
    }
}
