//! `cargo xtask tidy`: the rules of the house that are absences, which code cannot show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::machine::{output, root};

/// Options of the task.
#[derive(clap::Args, Default)]
pub struct Tidy {
    /// Write the crate graph as it is now into its golden file.
    #[arg(long)]
    bless: bool,
}

const GRAPH: &str = "docs/design/crates.txt";
/// Lines of one file; a longer one holds more than one subject.
const LINES_MAX: usize = 900;

/// The floors from below, and the rooms of each in the order in which one may use those before it.
const FLOORS: &[&[&str]] = &[
    &[
        "engine/ask",
        "engine/host",
        "engine/session",
        "engine/images",
        "engine/packets",
        "engine/runtime",
        "engine/conformance",
        "engine/cni",
        "engine/cri",
        "engine/wasm",
    ],
    &[
        "kube/store",
        "kube/client",
        "kube/pod_security",
        "kube/apiserver",
        "kube/network",
        "kube/controllers",
        "kube/scheduler",
        "kube/kubelet",
    ],
    &["model"],
    &["wire/identity", "wire/door", "wire/link", "wire/log", "wire/rear"],
    &["market/ledger", "market/catalog"],
    &[
        "node/resources",
        "node/discovery",
        "node/acquisition",
        "node/accounting",
        "node/fabric",
        "node/services",
        "node/orchestrator",
        "node/security",
        "node/notary",
    ],
    &["bin/fluidos", "bench", "e2e", "xtask"],
];

/// Rooms that meet in the API only.
const STRANGERS: &[&[&str]] = &[
    &["kube/controllers", "kube/scheduler", "kube/kubelet"],
    &[
        "node/resources",
        "node/discovery",
        "node/acquisition",
        "node/accounting",
        "node/fabric",
        "node/services",
        "node/orchestrator",
        "node/security",
        "node/notary",
    ],
];

/// Where `unsafe` may appear.
const UNSAFE: &[&str] = &["engine/host/", "engine/wasm/src/code/mapped.rs", "kube/network/", "node/fabric/", "bin/"];

/// Crates that must not be among the (normal) dependencies of a room.
const ABSENT: &[(&str, &[&str])] = &[
    ("engine/images", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("engine/runtime", &["kube", "kube-core", "kube-client", "k8s-openapi", "wasmtime"]),
    ("engine/cni", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("engine/cri", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("engine/wasm", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("kube/kubelet", &["wasmtime"]),
    ("model", &["tokio", "kube-client", "kube-runtime", "mio"]),
    ("wire/rear", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("wire/door", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("wire/link", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("wire/log", &["kube", "kube-core", "kube-client", "k8s-openapi", "tokio", "mio"]),
    ("wire/identity", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
    ("market/catalog", &["kube", "kube-core", "kube-client", "k8s-openapi"]),
];

type Graph = BTreeMap<String, Vec<String>>;

impl Tidy {
    pub fn run(&self) -> Result<()> {
        let metadata: Value =
            serde_json::from_str(&output("cargo", &["metadata", "--format-version", "1", "--locked"])?)?;
        let graph = graph(&metadata);
        let mut wrong = Vec::new();
        floors(&graph, &mut wrong);
        absences(&metadata, &mut wrong)?;
        let files = output("git", &["ls-files", "--cached", "--others", "--exclude-standard"])?;
        for file in files.lines().filter(|f| f.ends_with(".rs")) {
            source(file, &std::fs::read_to_string(root().join(file)).unwrap_or_default(), &mut wrong);
        }
        self.golden(&graph, &mut wrong)?;
        if wrong.is_empty() {
            println!("tidy: {} rooms, all in order", graph.len());
            return Ok(());
        }
        for line in &wrong {
            println!("tidy: {line}");
        }
        bail!("{} rules of the house are broken", wrong.len())
    }

    fn golden(&self, graph: &Graph, wrong: &mut Vec<String>) -> Result<()> {
        let mut text = String::from(
            "# Which room uses which. `cargo xtask tidy --bless` writes it; a change is reviewed like code.\n",
        );
        for (room, uses) in graph {
            let _ = writeln!(text, "{room}: {}", uses.join(" "));
        }
        let path = root().join(GRAPH);
        if self.bless {
            std::fs::write(path, text)?;
        } else if std::fs::read_to_string(path).unwrap_or_default() != text {
            wrong.push(format!("the crate graph is not {GRAPH}; if the change is meant: cargo xtask tidy --bless"));
        }
        Ok(())
    }
}

fn folder(package: &Value) -> String {
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap_or_default());
    let directory = manifest.parent().unwrap_or(Path::new(""));
    directory.strip_prefix(root()).unwrap_or(directory).display().to_string()
}

fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten().filter(|p| p["source"].is_null())
}

fn graph(metadata: &Value) -> Graph {
    let folders: BTreeMap<&str, String> =
        members(metadata).map(|p| (p["name"].as_str().unwrap_or_default(), folder(p))).collect();
    members(metadata)
        .map(|package| {
            let mut uses: Vec<String> = package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|d| d["kind"].is_null())
                .filter_map(|d| folders.get(d["name"].as_str().unwrap_or_default()).cloned())
                .collect();
            uses.sort();
            uses.dedup();
            (folder(package), uses)
        })
        .collect()
}

fn place(room: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, rooms)| Some((floor, rooms.iter().position(|r| *r == room)?)))
}

fn floors(graph: &Graph, wrong: &mut Vec<String>) {
    for (room, uses) in graph {
        let Some((floor, number)) = place(room) else {
            wrong.push(format!("{room} has no place in the house (xtask/src/tidy.rs)"));
            continue;
        };
        for used in uses {
            let allowed = place(used).is_some_and(|(f, n)| f < floor || (f == floor && n < number));
            let strangers = STRANGERS.iter().any(|s| s.contains(&room.as_str()) && s.contains(&used.as_str()));
            if !allowed || strangers {
                wrong.push(format!("{room} uses {used}, which is not below it"));
            }
        }
    }
}

/// Asks for each room alone: in the whole workspace the features of all rooms are one.
fn absences(metadata: &Value, wrong: &mut Vec<String>) -> Result<()> {
    for package in members(metadata) {
        let room = folder(package);
        let Some((_, banned)) = ABSENT.iter().find(|(r, _)| *r == room) else { continue };
        let name = package["name"].as_str().unwrap_or_default();
        let tree = output("cargo", &["tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "-f", "{p}"])?;
        let used = |crate_name: &str| tree.lines().any(|line| line.split(' ').next() == Some(crate_name));
        wrong.extend(banned.iter().filter(|b| used(b)).map(|b| format!("{room} depends on {b}")));
    }
    Ok(())
}

fn source(file: &str, text: &str, wrong: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        wrong.push(format!("{file} has {lines} lines; over {LINES_MAX} it holds more than one subject"));
    }
    let code = || text.lines().map(|line| line.split("//").next().unwrap_or_default());
    if code().any(|l| ["{", "fn", "impl"].iter().any(|word| l.contains(&["unsafe", word].join(" "))))
        && !UNSAFE.iter().any(|allowed| file.starts_with(allowed))
    {
        wrong.push(format!("{file} uses unsafe; it may appear in {UNSAFE:?} only"));
    }
    if file.starts_with("kube/") && text.to_lowercase().contains("fluidos") {
        wrong.push(format!("{file} names FLUIDOS; kube/ would serve another project unchanged"));
    }
    if !file.starts_with("bin/")
        && !file.starts_with("xtask/")
        && !file.contains("/tests/")
        && code().any(|l| l.contains("process::exit("))
    {
        wrong.push(format!("{file} exits the process; only bin/ does"));
    }
}
