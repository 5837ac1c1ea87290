//! `fluidos check`: what works and what does not, and how to mend it.
#![allow(clippy::print_stdout)] // the answer of a verb

pub mod machine;

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use fluidos_model::kinds::{
    Contract, KnownCluster, LinkState, LogState, TransparencyLog, TransparencyLogStatus, names,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::connection::{Connection, with};
use crate::node::runtimes;
use crate::output::Output;

/// What is checked.
#[derive(clap::Args, Clone, Debug)]
pub struct Check {
    /// Check this machine before `fluidos up`, not a running node.
    #[arg(long)]
    pub pre: bool,
    /// What to print; wide is the same as table, name is what was looked at.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
    /// With --pre: the directory that the node would use.
    #[arg(long, env = "FLUIDOS_DATA_DIR", default_value = "/var/lib/fluidos", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
    /// With --pre: where the API would listen.
    #[arg(long, env = "FLUIDOS_API", default_value = "127.0.0.1:6443")]
    api: SocketAddr,
    /// With --pre: where peers would reach the node.
    #[arg(long, env = "FLUIDOS_REAR", default_value = "0.0.0.0:7300")]
    rear: SocketAddr,
}

/// What is checked of a machine that is to join.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckMachine {
    /// What to print; wide is the same as table, name is what was looked at.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
    /// The directory that the agent would use.
    #[arg(long, env = "FLUIDOS_DATA_DIR", default_value = "/var/lib/fluidos-agent", value_parser = crate::cli::up::directory)]
    data_dir: PathBuf,
}

/// One thing that was looked at.
pub struct Finding {
    what: String,
    /// What is wrong and how to mend it; `None` is well.
    wrong: Option<(String, &'static str)>,
    /// The node does without it.
    optional: bool,
}

impl Finding {
    fn new(what: impl Into<String>, wrong: Option<(String, &'static str)>) -> Self {
        Self { what: what.into(), wrong, optional: false }
    }

    fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn text(&self) -> String {
        match &self.wrong {
            None => format!("✓ {}", self.what),
            Some((seen, remedy)) => {
                let glyph = if self.optional { "–" } else { "✗" };
                format!("{glyph} {}: {seen}\n    {remedy}", self.what)
            }
        }
    }

    fn value(&self) -> Value {
        let (seen, remedy) = self.wrong.as_ref().map(|(seen, remedy)| (seen, remedy)).unzip();
        json!({ "what": self.what, "ok": self.wrong.is_none(), "optional": self.optional, "seen": seen, "remedy": remedy })
    }
}

/// Does what the verb says.
pub fn run(connection: &Connection, check: &Check) -> Result<()> {
    tell(if check.pre { before(check) } else { with(node(connection))? }, check.output)
}

/// Checks a machine that is to join.
pub fn of_machine(check: &CheckMachine) -> Result<()> {
    let mut findings = machine::findings(&machine::look());
    findings.push(Finding::new(format!("--data-dir {}", check.data_dir.display()), directory(&check.data_dir)));
    findings.extend(runtimes_of(&check.data_dir));
    tell(findings, check.output)
}

fn tell(findings: Vec<Finding>, output: Output) -> Result<()> {
    if let Some(text) = output.structured(&findings.iter().map(Finding::value).collect::<Vec<_>>())? {
        println!("{text}");
    } else if output == Output::Name {
        findings.iter().for_each(|finding| println!("{}", finding.what));
    } else {
        findings.iter().for_each(|finding| println!("{}", finding.text()));
    }
    let broken = findings.iter().filter(|finding| finding.wrong.is_some() && !finding.optional).count();
    if broken > 0 {
        bail!("{broken} of {} checks failed", findings.len());
    }
    Ok(())
}

fn before(check: &Check) -> Vec<Finding> {
    let taken = |error: std::io::Error| (error.to_string(), "free the port or choose another");
    let mut findings = machine::findings(&machine::look());
    findings.extend([
        Finding::new(format!("--api {} is free", check.api), TcpListener::bind(check.api).err().map(taken)),
        Finding::new(format!("--rear {} is free for TCP", check.rear), TcpListener::bind(check.rear).err().map(taken)),
        Finding::new(format!("--rear {} is free for UDP", check.rear), UdpSocket::bind(check.rear).err().map(taken)),
        Finding::new(format!("--data-dir {}", check.data_dir.display()), directory(&check.data_dir)),
        Finding::new("kubectl", kubectl()).optional(),
    ]);
    findings.extend(runtimes_of(&check.data_dir));
    findings
}

/// What runs pods on this machine.
fn runtimes_of(data_dir: &Path) -> impl Iterator<Item = Finding> {
    let found = crate::cli::pods::usual_socket().map(|socket| container_runtime(&socket));
    found.into_iter().chain([default_runtime(data_dir)])
}

/// Whether a container runtime that this machine has can run pods.
fn container_runtime(socket: &Path) -> Finding {
    let remedy = "pods of the handler cri wait until it is mended; the handler oci needs no container runtime";
    let what = format!("the container runtime at {} runs pods (handler cri)", socket.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime
        .map_err(|e| e.to_string())
        .and_then(|runtime| runtime.block_on(engine_cri::CriRuntime::look(socket)).map_err(|e| e.to_string()));
    let wrong = found.map_or_else(Some, |found| found.unusable);
    Finding::new(what, wrong.map(|why| (why, remedy))).optional()
}

/// Which runtime pods get that ask for none.
fn default_runtime(data_dir: &Path) -> Finding {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let forecast = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(runtimes::forecast(&data_dir.join("kubelet"))));
    match forecast {
        Ok(handler) => Finding::new(format!("pods without a RuntimeClass are run by {handler}"), None),
        Err(e) => Finding::new(
            "pods without a RuntimeClass have a runtime",
            Some((format!("{e:#}"), "--default-runtime says which")),
        ),
    }
}

fn directory(path: &Path) -> Option<(String, &'static str)> {
    use std::os::unix::fs::PermissionsExt;
    let remedy = "chmod 700 it, or choose another";
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Some(("it is not a directory".into(), remedy)),
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            Some((format!("others may read it: {:03o}", metadata.permissions().mode() & 0o777), remedy))
        }
        _ => None,
    }
}

fn kubectl() -> Option<(String, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|p| p.join("kubectl").exists());
    (!found)
        .then(|| ("it is not on the PATH".into(), "install it to look at the node; the node itself does not need it"))
}

/// A copy calls again at least twice a minute: what was told longer ago is over.
const COPIES_SINCE: SignedDuration = SignedDuration::from_mins(5);

/// Keys with which two processes run.
fn copies(events: Vec<Event>) -> Vec<Finding> {
    let since = Timestamp::now() - COPIES_SINCE;
    let mut told: Vec<(String, String)> = events
        .into_iter()
        .filter(|event| event.last_timestamp.as_ref().is_some_and(|at| at.0 > since))
        .filter_map(|event| Some((event.reason?, event.message?)))
        .filter(|(reason, _)| matches!(reason.as_str(), "KeyCopied" | "OwnKeyCopied"))
        .collect();
    told.sort();
    told.dedup();
    let remedy = "stop the copy; if it is not yours, hand the key over: fluidos identity rotate";
    let finding = |(reason, message): (String, String)| {
        let what =
            if reason == "OwnKeyCopied" { "this node's key is this node's alone" } else { "a peer's key is its alone" };
        Finding::new(what, Some((message, remedy)))
    };
    told.into_iter().map(finding).collect()
}

/// Whether records are missing, and who has rewritten its own.
fn log(status: TransparencyLogStatus) -> Vec<Finding> {
    let what = "no contract or receipt is known to be lost";
    let own = match status.state {
        LogState::Complete => Finding::new(what, None),
        LogState::Comparing => {
            Finding::new(what, Some((status.message, "nothing is sold yet; fluidos restore"))).optional()
        }
        LogState::Restoring => {
            Finding::new(what, Some((status.message, "start the peers that have them; what is left: fluidos restore")))
        }
    };
    let remedy = "its contracts are as both have signed them; ask it: fluidos log verify";
    let told = |message| Finding::new("peers show one history", Some((message, remedy))).optional();
    let wait =
        "nothing is proven: it is asked again each minute, as long as it does not show that one continues the other";
    let open = |message| Finding::new("peers show one history", Some((message, wait))).optional();
    let found = status.rewritten.into_iter().map(told).chain(status.unproven.into_iter().map(open));
    std::iter::once(own).chain(found).collect()
}

async fn node(connection: &Connection) -> Result<Vec<Finding>> {
    let client = connection.client().await?;
    let mut findings = Vec::new();
    let version = client.apiserver_version().await;
    findings.push(Finding::new(
        "the API answers",
        version.err().map(|e| (e.to_string(), "is the node running? fluidos up")),
    ));
    if findings.iter().any(|f| f.wrong.is_some()) {
        return Ok(findings);
    }
    let all = ListParams::default();
    for node in Api::<Node>::all(client.clone()).list(&all).await? {
        let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "Ready");
        let wrong = match ready {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some((
                ready.message.clone().unwrap_or_else(|| "not ready".into()),
                "its machine or the link to it is away; kubectl describe node",
            )),
            None => Some(("it has never reported".into(), "kubectl describe node")),
        };
        findings.push(Finding::new(format!("node {} is ready", node.name_any()), wrong));
    }
    let peers = Api::<KnownCluster>::namespaced(client.clone(), names::NAMESPACE).list(&all).await?.items;
    for peer in &peers {
        let link = peer.status.as_ref().and_then(|s| s.link.as_ref());
        let up = link.is_some_and(|l| l.state == LinkState::Up);
        let seen = || link.map_or_else(|| "never".to_owned(), |l| format!("down since {} {}", l.since, l.message));
        let name = peer.spec.name.as_deref().unwrap_or("?");
        let remedy = "is it running, and does a firewall let UDP through to its --rear port?";
        findings.push(Finding::new(format!("link to {name}"), (!up).then(|| (seen(), remedy))));
    }
    findings.extend(copies(Api::<Event>::namespaced(client.clone(), names::NAMESPACE).list(&all).await?.items));
    for contract in Api::<Contract>::namespaced(client.clone(), names::NAMESPACE).list(&all).await? {
        let signatures = contract.spec.signed_terms.as_ref().map_or(0, |t| t.signatures.len());
        let wrong = (signatures < 2)
            .then(|| (format!("it has {signatures} signatures"), "it proves nothing; delete its Solver"));
        findings.push(Finding::new(format!("contract {}", contract.name_any()), wrong));
    }
    let logs = Api::<TransparencyLog>::namespaced(client.clone(), names::NAMESPACE).list(&all).await?;
    findings.extend(logs.into_iter().filter_map(|log| log.status).flat_map(log));
    let pods = Api::<Pod>::all(client).list(&all).await?;
    let stuck = pods.iter().filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Pending")).count();
    let wrong = (stuck > 0).then(|| (format!("{stuck} wait"), "kubectl get pods -A; fluidos why NAME -n NAMESPACE"));
    findings.push(Finding::new("pods are placed", wrong).optional());
    Ok(findings)
}
