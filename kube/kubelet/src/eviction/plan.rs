//! Every choice about what runs out: whether it has, what the Node says, who goes first, and in which words. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use engine_host::space::Room;
use substrate_client::quantity::Quantity;

/// Something of a machine that can run out, under upstream's names; what comes first is looked after first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Memory.
    Memory,
    /// Room where pods, volumes and logs are.
    NodeFs,
    /// … its inodes.
    NodeInodes,
    /// Room where images are.
    ImageFs,
    /// … its inodes.
    ImageInodes,
    /// Ids of processes.
    Pid,
}

/// Each with its name, the condition of the Node, and the name of what is reclaimed.
const SIGNALS: [(Signal, &str, &str, &str); 6] = [
    (Signal::Memory, "memory.available", "MemoryPressure", "memory"),
    (Signal::NodeFs, "nodefs.available", "DiskPressure", "ephemeral-storage"),
    (Signal::NodeInodes, "nodefs.inodesFree", "DiskPressure", "inodes"),
    (Signal::ImageFs, "imagefs.available", "DiskPressure", "ephemeral-storage"),
    (Signal::ImageInodes, "imagefs.inodesFree", "DiskPressure", "inodes"),
    (Signal::Pid, "pid.available", "PIDPressure", "pids"),
];

impl Signal {
    fn row(self) -> (&'static str, &'static str, &'static str) {
        let row = SIGNALS.iter().find(|(signal, ..)| *signal == self);
        row.map_or(("", "", ""), |(_, name, condition, resource)| (*name, *condition, *resource))
    }

    /// The condition that the Node has while it is met.
    pub fn condition(self) -> &'static str {
        self.row().1
    }

    /// What is to be got back.
    pub fn resource(self) -> &'static str {
        self.row().2
    }

    /// Whether removing images can help.
    pub fn is_disk(self) -> bool {
        self.condition() == "DiskPressure"
    }
}

/// How much must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// So much: bytes, inodes or ids.
    Amount(u64),
    /// So many millionths of all.
    Share(u64),
}

impl Least {
    /// Of so much.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Share(ppm) => u64::try_from(u128::from(total) * u128::from(ppm) / 1_000_000).unwrap_or(u64::MAX),
        }
    }
}

/// What must be left of each; what is not in it may run out (upstream's `evictionHard`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds(pub BTreeMap<Signal, Least>);

impl Default for Thresholds {
    /// Upstream's.
    fn default() -> Self {
        let share = |percent: u64| Least::Share(percent * 10_000);
        Self(BTreeMap::from([
            (Signal::Memory, Least::Amount(100 << 20)),
            (Signal::NodeFs, share(10)),
            (Signal::NodeInodes, share(5)),
            (Signal::ImageFs, share(15)),
            (Signal::ImageInodes, share(5)),
        ]))
    }
}

impl std::str::FromStr for Thresholds {
    type Err = String;

    /// `memory.available<100Mi,nodefs.available<10%`; nothing is no threshold at all.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, least) = part.split_once('<').ok_or_else(|| format!("{part:?}: needed SIGNAL<QUANTITY"))?;
            let known = SIGNALS.iter().find(|(_, known, ..)| *known == name);
            let (signal, ..) = known
                .ok_or_else(|| format!("{name:?}: needed one of {}", SIGNALS.map(|(_, name, ..)| name).join(", ")))?;
            let least = match least.strip_suffix('%') {
                Some(percent) => percent
                    .parse::<f64>()
                    .ok()
                    .filter(|p| (0.0..100.0).contains(p))
                    .map(|p| Least::Share((p * 10_000.0) as u64)),
                None => least.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.value()).ok()).map(Least::Amount),
            };
            all.insert(
                *signal,
                least.ok_or_else(|| format!("{part:?}: needed a quantity, as 100Mi, or a share, as 10%"))?,
            );
        }
        Ok(Self(all))
    }
}

/// What is left of each.
pub type Observed = BTreeMap<Signal, Room>;

/// The thresholds that are met, the most pressing first: signal, what must be left, what is left.
pub fn met(thresholds: &Thresholds, observed: &Observed) -> Vec<(Signal, u64, u64)> {
    let all = thresholds.0.iter().filter_map(|(signal, least)| {
        let room = observed.get(signal).filter(|room| room.total > 0)?; // some file systems count no inodes
        let least = least.of(room.total);
        (room.free < least).then_some((*signal, least, room.free))
    });
    all.collect()
}

/// The conditions that hold: those that are met, and those that were within `period`. `last` remembers when, in any clock.
pub fn conditions(
    met: &[(Signal, u64, u64)],
    last: &mut BTreeMap<&'static str, Duration>,
    now: Duration,
    period: Duration,
) -> BTreeSet<&'static str> {
    last.extend(met.iter().map(|(signal, ..)| (signal.condition(), now)));
    last.retain(|_, at| now.saturating_sub(*at) < period || *at == now);
    last.keys().copied().collect()
}

/// Whether a new pod is refused under these conditions, in upstream's words.
pub fn refusal(pressure: &BTreeSet<&'static str>, best_effort: bool, tolerates_memory: bool) -> Option<String> {
    let memory_only = pressure.iter().all(|condition| *condition == "MemoryPressure");
    if pressure.is_empty() || (memory_only && (!best_effort || tolerates_memory)) {
        return None;
    }
    let all: Vec<&str> = pressure.iter().copied().collect();
    Some(format!("Pod was rejected: The node had condition: [{}]. ", all.join(" ")))
}

/// A pod that could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub uid: String,
    /// Lower ones go first.
    pub priority: i32,
    /// Of what runs out.
    pub used: u64,
    /// What it has asked for of that.
    pub requested: u64,
}

/// Who goes first: those that use more than they asked for, by priority, by how much more. Ids of processes are asked for by nobody.
pub fn order(signal: Signal, candidates: &mut [Candidate]) {
    let requests = signal != Signal::Pid;
    candidates.sort_by_key(|c| {
        let within = requests && c.used <= c.requested;
        (within, c.priority, std::cmp::Reverse(i128::from(c.used) - i128::from(if requests { c.requested } else { 0 })))
    });
}

/// What a container uses: its name, what it has, what it asked for.
pub type Share = (String, u64, u64);

/// Why a pod went.
pub fn message(met: (Signal, u64, u64), containers: &[Share]) -> String {
    let (signal, least, free) = met;
    let resource = signal.resource();
    let written = |n: u64| if matches!(resource, "inodes" | "pids") { n.to_string() } else { binary(n) };
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        written(least),
        written(free)
    );
    for (name, used, requested) in containers.iter().filter(|(_, used, requested)| used > requested) {
        text.push_str(&format!(
            "Container {name} was using {}, request is {}, has larger consumption of {resource}. ",
            written(*used),
            written(*requested)
        ));
    }
    text
}

/// Something on the disk: its name, its bytes, its limit as the pod writes it and in bytes.
pub type OnDisk = (String, u64, Option<(String, u64)>);

/// Limits of a pod on the disk, each with what it has of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Volumes.
    pub volumes: Vec<OnDisk>,
    /// Containers, by writable layer and log.
    pub containers: Vec<OnDisk>,
}

impl Disk {
    /// All of it.
    pub fn used(&self) -> u64 {
        self.volumes.iter().chain(&self.containers).map(|(_, bytes, _)| bytes).sum()
    }

    /// The first limit that is exceeded, in upstream's words.
    pub fn exceeded(&self) -> Option<String> {
        let over = |all: &[OnDisk]| {
            let mut limited =
                all.iter().filter_map(|(name, bytes, limit)| Some((name.clone(), *bytes, limit.clone()?)));
            limited.find(|(_, bytes, (_, limit))| bytes > limit).map(|(name, _, (text, _))| (name, text))
        };
        if let Some((name, limit)) = over(&self.volumes) {
            return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. "));
        }
        let limits: Vec<u64> = self.containers.iter().filter_map(|(.., limit)| Some(limit.as_ref()?.1)).collect();
        let total = limits.iter().sum::<u64>();
        if !limits.is_empty() && limits.len() == self.containers.len() && self.used() > total {
            let total = binary(total);
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {total}. "));
        }
        let (name, limit) = over(&self.containers)?;
        Some(format!("Container {name} exceeded its local ephemeral storage limit {limit:?}. "))
    }
}

/// Bytes as a quantity.
fn binary(bytes: u64) -> String {
    let units = [(30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    unit.map_or_else(|| bytes.to_string(), |(shift, name)| format!("{}{name}", bytes >> shift))
}

#[cfg(test)]
mod tests;
