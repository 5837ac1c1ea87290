//! The steps of the demo. Each looks at the nodes from outside: kubectl, HTTP, processes, cables.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fluidos_e2e::claim::Claim;
use fluidos_e2e::command;
use fluidos_e2e::http;
use fluidos_e2e::images::Image;
use fluidos_e2e::lan::Machine;
use fluidos_e2e::node::{Node, Setup};
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use serde_json::Value;

use super::{directory, undo};

/// Long enough for a slow machine; each step says how long it took.
const LIMIT: Duration = Duration::from_secs(90);
/// A dead machine is noticed, waited for, and replaced.
const FAIL_OVER: Duration = Duration::from_secs(150);
/// Where the shop's page is, on farm's address.
const PAGE_PORT: u16 = 30080;

/// The demo on its stage.
pub struct Story {
    json: bool,
    stage: Option<Stage>,
    farm: Option<Node>,
    grid: Option<Node>,
    cloud: Option<Node>,
    /// What was sold when the machine died.
    contracts: Vec<String>,
}

/// A machine that died, and how long the page was away.
pub struct Death {
    setup: Setup,
    machine: Machine,
    pub outage: Duration,
}

/// What kubectl lists.
fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_ready(object: &Value) -> bool {
    items(&serde_json::json!({ "items": object["status"]["conditions"] }))
        .iter()
        .any(|c| c["type"] == "Ready" && c["status"] == "True")
}

impl Story {
    pub fn new(json: bool, claim: Claim, program: &Path) -> Result<Self> {
        let mut stage = Stage::at(claim, directory())?;
        stage.play(program);
        stage.lan().connect_host()?;
        Ok(Self { json, stage: Some(stage), farm: None, grid: None, cloud: None, contracts: Vec::new() })
    }

    fn tell(&self, line: &str) {
        if !self.json {
            for line in line.trim_end().lines() {
                println!("   {line}");
            }
        }
    }

    fn farm(&self) -> Result<&Node> {
        self.farm.as_ref().ok_or_else(|| anyhow!("farm does not run"))
    }

    fn cloud(&self) -> Result<&Node> {
        self.cloud.as_ref().ok_or_else(|| anyhow!("cloud does not run"))
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        [&self.farm, &self.grid, &self.cloud].into_iter().flatten()
    }

    /// Writes down who runs, so that `--undo` finds the nodes of a demo that was kept or killed.
    fn note_pids(&self) -> Result<()> {
        let pids: Vec<String> = self.nodes().map(|n| n.pid().to_string()).collect();
        let path = undo::pids_file();
        std::fs::write(&path, pids.join("\n")).with_context(|| path.display().to_string())
    }

    pub fn start(&mut self) -> Result<()> {
        for image in [Image::Nginx, Image::Redis, Image::RedisClient] {
            image.layout()?;
        }
        let cores = std::thread::available_parallelism()?.get();
        let all = format!("cpu={cores},memory=2Gi,pods=20");
        let start = |story: &mut Self, name: &str, city: &str, more: &[&str]| -> Result<Node> {
            let stage = story.stage.as_mut().ok_or_else(|| anyhow!("no stage"))?;
            let domain = format!("{name}.example");
            let location = format!("city={city},country=Italy");
            let mut setup = stage.setup(name, &["--domain", &domain, "--location", &location])?;
            setup.arguments.extend(more.iter().map(ToString::to_string));
            let address = setup.machine.as_ref().map(|m| m.address).context("no machine")?;
            setup.arguments.extend(["--api".into(), format!("{address}:6443")]);
            let node = setup.start()?;
            story.tell(&node.ready_line);
            Ok(node)
        };
        self.farm = Some(start(self, "farm", "Turin", &["--trust", "lan"])?);
        self.note_pids()?;
        self.grid = Some(start(self, "grid", "Milan", &["--offer", &all])?);
        self.note_pids()?;
        // Cloud sells less CPU than the database asks for.
        self.cloud = Some(start(self, "cloud", "Milan", &["--offer", "cpu=500m,memory=1Gi,pods=10"])?);
        self.note_pids()?;
        // Only farm has the images: no registry has them, and nobody gives them to the providers.
        for image in [Image::Nginx, Image::Redis, Image::RedisClient] {
            self.farm()?.setup.load(&image.layout()?)?;
        }
        Ok(())
    }

    pub fn discover(&mut self) -> Result<()> {
        for node in self.nodes() {
            until(&format!("{} sees two peers", node.setup.name), LIMIT, || {
                let list = node.get(&["knownclusters", "-n", "fluidos"]).map_err(|e| format!("{e:#}"))?;
                let up = items(&list).iter().filter(|p| p["status"]["link"]["state"] == "Up").count();
                if up == 2 { Ok(()) } else { Err(format!("{up} links are up")) }
            })?;
        }
        // A node sells nothing before it has seen its own machine: who asks meanwhile buys from the other.
        for seller in [&self.grid, &self.cloud].into_iter().flatten() {
            until(&format!("{} has something to sell", seller.setup.name), LIMIT, || {
                let list = seller.get(&["flavors", "-n", "fluidos"]).map_err(|e| format!("{e:#}"))?;
                let sells = |flavor: &Value| flavor["spec"]["availability"] == true;
                if items(&list).iter().any(sells) { Ok(()) } else { Err(list.to_string()) }
            })?;
        }
        self.tell("$ fluidos peers");
        self.tell(&String::from_utf8_lossy(&self.farm()?.setup.fluidos(&["peers"])?.stdout));
        Ok(())
    }

    pub fn apply(&mut self) -> Result<()> {
        let shop = std::fs::read_to_string(fluidos_e2e::root().join("examples/shop.yaml"))?;
        // The database asks for more than farm has left beside the front end, whatever machine this is.
        let cores = std::thread::available_parallelism()?.get();
        let shop = shop.replace("cpu: 1500m", &format!("cpu: {}m", cores * 1000 - 500));
        self.tell("$ kubectl apply -f examples/shop.yaml");
        self.tell(&self.farm()?.apply(&shop)?);
        Ok(())
    }

    pub fn buy(&mut self) -> Result<()> {
        let farm = self.farm()?;
        until("two virtual nodes are ready", LIMIT, || {
            let list = farm.get(&["nodes", "-l", "fluidos.eu/virtual-node"]).map_err(|e| format!("{e:#}"))?;
            let ready = items(&list).iter().filter(|n| is_ready(n)).count();
            if ready == 2 { Ok(()) } else { Err(format!("{ready} are; {}", why(farm))) }
        })?;
        self.tell("$ kubectl get nodes");
        self.tell(&farm.kubectl(&["get", "nodes", "-o", "custom-columns=NAME:.metadata.name,CPU:.status.allocatable.cpu,MEMORY:.status.allocatable.memory,PODS:.status.allocatable.pods,CONTRACT:.metadata.labels.reservation\\.fluidos\\.eu/contract"])?);
        let list = farm.get(&["contracts", "-n", "fluidos"])?;
        for contract in items(&list) {
            let signatures = contract["spec"]["signedTerms"]["signatures"].as_array().map_or(0, Vec::len);
            if signatures != 2 {
                bail!("contract {} has {signatures} signatures, needed 2", contract["metadata"]["name"]);
            }
        }
        self.tell("$ fluidos contracts");
        self.tell(&String::from_utf8_lossy(&farm.setup.fluidos(&["contracts"])?.stdout));
        Ok(())
    }

    pub fn look(&mut self) -> Result<()> {
        let farm = self.farm()?;
        for part in ["web", "api", "db"] {
            until(&format!("{part} is ready"), LIMIT, || {
                let list =
                    farm.get(&["pods", "-n", "shop", "-l", &format!("app={part}")]).map_err(|e| format!("{e:#}"))?;
                if items(&list).iter().any(is_ready) {
                    Ok(())
                } else {
                    Err(items(&list).iter().map(|p| p["status"].to_string()).collect())
                }
            })?;
        }
        self.tell("$ kubectl get pods -o wide");
        self.tell(&farm.kubectl(&["get", "pods", "-n", "shop", "-o", "wide"])?);
        let place = |part: &str| -> Result<String> {
            let list = farm.get(&["pods", "-n", "shop", "-l", &format!("app={part}")])?;
            Ok(items(&list).iter().map(|p| text(&p["spec"]["nodeName"])).collect())
        };
        for (part, wanted) in [("web", "farm"), ("api", "cloud"), ("db", "grid")] {
            let found = place(part)?;
            if found != wanted {
                bail!("{part} is on {found}, expected on {wanted}");
            }
        }
        // Logs that are followed, and a terminal, in a container at another owner's machine.
        let mut follow =
            farm.setup.kubectl_command(&["logs", "-f", "-n", "shop", "deploy/api"]).stdout(Stdio::piped()).spawn()?;
        let line = BufReader::new(follow.stdout.take().context("no output")?).lines().next();
        let _ = follow.kill();
        follow.wait()?;
        let line = line.context("the log is empty")??;
        if line != "the api serves" {
            bail!("the log of the api begins with {line:?}");
        }
        self.tell("$ kubectl logs -f deploy/api");
        self.tell(&line);
        let host = farm.kubectl(&["exec", "-n", "shop", "deploy/api", "--", "hostname"])?;
        if !host.starts_with("api-") {
            bail!("exec of hostname gives {host:?}");
        }
        self.tell("$ kubectl exec deploy/api -- hostname");
        self.tell(&host);
        Ok(())
    }

    /// The page's text; each time it is asked for, the database counts.
    fn fetch(&self) -> std::result::Result<String, String> {
        let machine = self.farm().map_err(|e| e.to_string())?.setup.machine.clone().ok_or("no machine")?;
        http::get(&format!("{}:{PAGE_PORT}", machine.address))
    }

    pub fn page(&mut self) -> Result<()> {
        let page = until("the page", LIMIT, || match self.fetch() {
            Ok(page) if page.contains("visitor number") => Ok(page),
            Ok(page) => Err(page),
            Err(error) => Err(error),
        })?;
        let machine = self.farm()?.setup.machine.clone().context("no machine")?;
        self.tell(&format!("$ curl http://{}:{PAGE_PORT}/", machine.address));
        self.tell(&page);
        Ok(())
    }

    /// Leaves everything running; what to do with it, in lines that a shell understands.
    pub fn keep(mut self) -> String {
        let mut lines = Vec::new();
        let page = self.farm.as_ref().and_then(|farm| farm.setup.machine.as_ref()).map(|machine| machine.address);
        for node in [self.farm.take(), self.grid.take(), self.cloud.take()].into_iter().flatten() {
            lines.push(format!("export KUBECONFIG={}   # {}", node.setup.kubeconfig().display(), node.setup.name));
            std::mem::forget(node); // it runs on
        }
        lines.extend(page.map(|address| format!("# the page: http://{address}:{PAGE_PORT}/")));
        lines.push("# to take it all away: cargo xtask demo --undo".into());
        std::mem::forget(self.stage.take());
        lines.join("\n")
    }

    /// The machine that hosts the api dies, and comes back after the page works again elsewhere.
    pub fn survive(&mut self) -> Result<()> {
        let death = self.fail_over()?;
        self.come_back(&death.setup, &death.machine)
    }

    /// Kills the machine that hosts the api and waits until the page works again.
    pub fn fail_over(&mut self) -> Result<Death> {
        self.contracts = names_of(self.cloud()?, "contracts")?;
        let cloud = self.cloud.take().context("cloud does not run")?;
        let machine = cloud.setup.machine.clone().context("no machine")?;
        let begun = Instant::now();
        machine.plug(false)?;
        let setup = cloud.kill();
        kill_all(&setup)?;
        self.tell("cloud, which runs the api, is dead: its processes are killed and its cable is pulled");
        let farm = self.farm()?;
        let place = until("the api runs elsewhere", FAIL_OVER, || {
            let list = farm.get(&["pods", "-n", "shop", "-l", "app=api"]).map_err(|e| format!("{e:#}"))?;
            let alive = items(&list).iter().find(|p| {
                is_ready(p) && p["metadata"]["deletionTimestamp"].is_null() && text(&p["spec"]["nodeName"]) != "cloud"
            });
            alive.map(|p| text(&p["spec"]["nodeName"]).to_owned()).ok_or_else(|| {
                let seen: Vec<String> = items(&list)
                    .iter()
                    .map(|p| {
                        format!(
                            "{} on {} {}",
                            text(&p["metadata"]["name"]),
                            text(&p["spec"]["nodeName"]),
                            text(&p["status"]["phase"])
                        )
                    })
                    .collect();
                format!("{seen:?}; {}", why(farm))
            })
        })?;
        until("the page works again", LIMIT, || match self.fetch() {
            Ok(page) if page.contains("visitor number") => Ok(()),
            Ok(page) => Err(page),
            Err(error) => Err(error),
        })?;
        let outage = begun.elapsed();
        self.tell(&format!(
            "the api runs on {place}, in Milan as it must; the page works again after {:.1} s",
            outage.as_secs_f64()
        ));
        Ok(Death { setup, machine, outage })
    }

    /// The machine returns: no stale copy runs, its contracts are known, nothing is sold twice.
    fn come_back(&mut self, setup: &Setup, machine: &Machine) -> Result<()> {
        machine.plug(true)?;
        let cloud = setup.start()?;
        let farm = self.farm()?;
        until("cloud is ready again", LIMIT, || {
            let node = farm.get(&["node", "cloud"]).map_err(|e| format!("{e:#}"))?;
            if is_ready(&node) { Ok(()) } else { Err(node["status"]["conditions"].to_string()) }
        })?;
        let stale = cloud.get(&["pods", "-A", "-l", "reservation.fluidos.eu/contract"])?;
        if !items(&stale).is_empty() {
            bail!(
                "cloud is ready and still has stale copies: {:?}",
                items(&stale).iter().map(|p| text(&p["metadata"]["name"])).collect::<Vec<_>>()
            );
        }
        let contracts = names_of(&cloud, "contracts")?;
        if contracts != self.contracts {
            bail!("cloud knows the contracts {contracts:?}, needed {:?}", self.contracts);
        }
        let ledger = cloud.get(&["ledger", "pool", "-n", "fluidos"])?;
        let sold = ledger["spec"]["commitments"].as_array().map_or(0, Vec::len);
        if sold != contracts.len() {
            bail!("cloud's ledger has {sold} commitments for {} contracts", contracts.len());
        }
        self.tell(&format!(
            "cloud is back: no stale copy runs, it knows its {sold} contract, and nothing is sold twice"
        ));
        self.cloud = Some(cloud);
        self.note_pids()
    }

    pub fn leave(&mut self) -> Result<()> {
        let farm = self.farm()?;
        self.tell("$ kubectl delete namespace shop");
        self.tell(&farm.kubectl(&["delete", "namespace", "shop", "--timeout=90s"])?);
        until("nothing is left at farm", LIMIT, || {
            left(
                farm,
                &[
                    "solvers.nodecore.fluidos.eu,contracts.reservation.fluidos.eu,allocations.nodecore.fluidos.eu",
                    "-n",
                    "fluidos",
                ],
            )
        })?;
        until("no virtual node is left", LIMIT, || left(farm, &["nodes", "-l", "fluidos.eu/virtual-node"]))?;
        for node in [self.grid.as_ref(), self.cloud.as_ref()].into_iter().flatten() {
            let name = &node.setup.name;
            until(&format!("nothing is left at {name}"), LIMIT, || {
                left(node, &["contracts.reservation.fluidos.eu,allocations.nodecore.fluidos.eu", "-n", "fluidos"])?;
                left(node, &["pods", "-A", "-l", "reservation.fluidos.eu/contract"])?;
                left(node, &["namespaces", "-l", "fluidos.eu/peer"])?;
                let ledger = node.get(&["ledger", "pool", "-n", "fluidos"]).map_err(|e| format!("{e:#}"))?;
                match ledger["spec"]["commitments"].as_array() {
                    Some(sold) if !sold.is_empty() => Err(format!("the ledger has {} commitments", sold.len())),
                    _ => Ok(()),
                }
            })?;
        }
        self.tell("no Solver, contract, allocation, virtual node or twin is left on any of the three");
        for node in [self.farm.take(), self.grid.take(), self.cloud.take()].into_iter().flatten() {
            node.terminate()?;
        }
        drop(self.stage.take());
        let processes = command::output("pgrep", &["-f", &directory().display().to_string()])?;
        if processes.status.success() {
            bail!("processes are left: {}", String::from_utf8_lossy(&processes.stdout));
        }
        Ok(())
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        // The nodes first: their stage resets what they leave.
        for node in [self.farm.take(), self.grid.take(), self.cloud.take()].into_iter().flatten() {
            drop(node.kill());
        }
        drop(self.stage.take());
    }
}

fn left(node: &Node, arguments: &[&str]) -> std::result::Result<(), String> {
    let list = node.get(arguments).map_err(|e| format!("{e:#}"))?;
    let names: Vec<String> =
        items(&list).iter().map(|o| format!("{} {}", text(&o["kind"]), text(&o["metadata"]["name"]))).collect();
    if names.is_empty() { Ok(()) } else { Err(names.join(", ")) }
}

fn names_of(node: &Node, plural: &str) -> Result<Vec<String>> {
    let list = node.get(&[plural, "-n", "fluidos"])?;
    Ok(items(&list).iter().map(|o| text(&o["metadata"]["name"]).to_owned()).collect())
}

/// What pods that wait say about it.
fn why(node: &Node) -> String {
    let Ok(list) = node.get(&["pods", "-A"]) else { return String::new() };
    let conditions = items(&list).iter().flat_map(|p| p["status"]["conditions"].as_array().into_iter().flatten());
    let waiting: Vec<&str> =
        conditions.filter(|c| c["type"] == "fluidos.eu/Placed").map(|c| text(&c["message"])).collect();
    let solvers = node.get(&["solvers", "-n", "fluidos"]).unwrap_or_default();
    let solvers: Vec<String> = items(&solvers).iter().map(|s| s["status"]["solverPhase"].to_string()).collect();
    format!("{} {}", waiting.join("; "), solvers.join("; "))
}

/// Ends every process of a node's machine at once: the node, its supervisors, and with them the containers.
fn kill_all(setup: &Setup) -> Result<()> {
    let pattern = setup.directory.display().to_string();
    let _ = command::output("pkill", &["-KILL", "-f", &format!("^[^ ]*fluidos pod-supervisor.*{pattern}")])?;
    until("all processes are dead", Duration::from_secs(10), || {
        let output = command::output("pgrep", &["-f", &pattern]).map_err(|e| e.to_string())?;
        if output.status.success() { Err(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Ok(()) }
    })
}
