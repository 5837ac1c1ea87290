//! What the pods' network costs: a Service beside the pod's own address, with one Service and with thousands; cluster DNS beside unbound
//! with the same names.
//!
//! ```text
//! client pod ─┬─▶ server pod                     connect, one byte there and back, close; and bytes on one connection
//!             ├─▶ ClusterIP ─▶ server pod        (in turns)
//!             └─▶ dnsperf ─┬─▶ the node's DNS
//!                          └─▶ unbound, at the node's machine
//! ```

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fluidos_e2e::command::run;
use fluidos_e2e::images::Image;
use fluidos_e2e::node::Node;
use fluidos_e2e::stage::Stage;
use fluidos_e2e::wait::until;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::main_job::{round, stage};
use crate::machine::Package;

/// What stands beside us, and what asks.
pub const PEERS: [Package; 2] = [
    ("dnsperf", "/usr/bin/dnsperf", "asks DNS servers as often as they answer"),
    ("unbound", "/usr/sbin/unbound", "the peer of the cluster's DNS"),
];

const LIMIT: Duration = Duration::from_secs(120);
const PORT: u16 = 8080;
/// Connections and bytes of each kind, in turns.
const CONNECTIONS: usize = 10_000;
const BYTES: usize = 50_000;
/// How many Services there are in the second part.
const SERVICES: usize = 5000;
/// Seconds of questions.
const ASKED_S: &str = "8";

/// Measures everything with this program.
pub fn measure(binary: &Path) -> Result<Value> {
    let mut stage = stage(binary)?;
    // A node's own range has room for some 240 Services.
    let range = ["--service-cidr", "10.96.0.0/16"];
    let node = stage.setup("farm", &[&["--no-mdns", "--api", "0.0.0.0:6443"][..], &range].concat())?.start()?;
    node.setup.load(&Image::Busybox.layout()?)?;
    node.apply(PODS_AND_SERVICE)?;
    node.kubectl(&["wait", "--for=condition=Ready", "pod/server", "pod/client", "--timeout=60s"])?;
    let (server, client) = (process("100001")?, process("100002")?);
    serve(server)?;
    let direct: Ipv4Addr = node.kubectl(&["get", "pod", "server", "-o", "jsonpath={.status.podIP}"])?.trim().parse()?;
    println!("hop by a Service, with one");
    let one = hop(client, direct, cluster_ip(&node, "s0")?)?;
    println!("names");
    let names = names(&node, client)?;
    println!("{SERVICES} Services");
    let begun = Instant::now();
    many_services(&node, &stage)?;
    let last = cluster_ip(&node, &format!("s{}", SERVICES - 1))?;
    until("the last Service", LIMIT, || {
        inside(client, move || ask(last).map(drop)).map_err(|error| format!("{error:#}"))
    })?;
    println!("  made in {:.0} s", begun.elapsed().as_secs_f64());
    let many = hop(client, direct, last)?;
    println!("names of {SERVICES} Services");
    let many_names =
        dnsperf(client, &[], &resolver(&node)?, &[format!("s{}.default.svc.cluster.local", SERVICES / 2)], &stage)?;
    node.terminate()?;
    Ok(json!({
        "service_hop": { "1": one, SERVICES.to_string(): many },
        "dns": names, "dns_with_services": { SERVICES.to_string(): many_names },
    }))
}

const PODS_AND_SERVICE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: "busybox:1", command: [sleep, "100001"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: a, image: "busybox:1", command: [sleep, "100002"]}]}
---
apiVersion: v1
kind: Service
metadata: {name: s0}
spec: {selector: {app: server}, ports: [{port: 8080}]}
"#;

/// The only process that sleeps for so long.
fn process(seconds: &str) -> Result<u32> {
    let found = run("pgrep", &["-f", "-x", &format!("sleep {seconds}")])?;
    found.trim().parse().with_context(|| format!("one process that sleeps for {seconds} s, found {found:?}"))
}

fn cluster_ip(node: &Node, service: &str) -> Result<Ipv4Addr> {
    let address = node.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])?;
    address.trim().parse().with_context(|| format!("the address of {service}: {address:?}"))
}

/// Goes on in the network of a process, on a thread of its own.
fn inside<T: Send + 'static>(pid: u32, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = std::thread::spawn(move || {
        setns(std::fs::File::open(format!("/proc/{pid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
        work()
    });
    thread.join().map_err(|_| anyhow::anyhow!("the thread in the network of {pid} has ended"))?
}

/// Gives each byte back, for as long as this program runs.
fn serve(pid: u32) -> Result<()> {
    let listener = inside(pid, || Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
    std::thread::spawn(move || {
        // One after the other: the two kinds of calls are alike in it.
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let _ = stream.set_nodelay(true);
            let mut byte = [0];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        }
    });
    Ok(())
}

/// Connects, and has a byte back.
fn ask(address: Ipv4Addr) -> Result<Duration> {
    let to = SocketAddr::from((address, PORT));
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    there_and_back(&mut stream)?;
    Ok(begun.elapsed())
}

fn there_and_back(stream: &mut TcpStream) -> Result<()> {
    let mut byte = [7];
    stream.write_all(&byte)?;
    Ok(stream.read_exact(&mut byte)?)
}

/// Median microseconds, direct and by the Service, of a connection and of a byte on one that stands.
fn hop(client: u32, direct: Ipv4Addr, service: Ipv4Addr) -> Result<Value> {
    inside(client, move || {
        let (mut directs, mut services) = (Vec::new(), Vec::new());
        for turn in 0..CONNECTIONS {
            // Who is first changes, so that neither finds what the other has warmed.
            let order = if turn % 2 == 0 { [true, false] } else { [false, true] };
            for is_direct in order {
                let (address, all) = if is_direct { (direct, &mut directs) } else { (service, &mut services) };
                all.push(ask(address)?.as_secs_f64() * 1e6);
            }
        }
        let connections = ratio(directs, services);
        let mut bytes = Vec::new();
        // One connection at a time, as the server has it; in several parts, in turns.
        for part in 0..10 {
            let mut times = [Vec::new(), Vec::new()];
            for i in [part % 2, 1 - part % 2] {
                let mut stream = TcpStream::connect((if i == 0 { direct } else { service }, PORT))?;
                stream.set_nodelay(true)?;
                for _ in 0..BYTES / 10 {
                    let begun = Instant::now();
                    there_and_back(&mut stream)?;
                    times[i].push(begun.elapsed().as_secs_f64() * 1e6);
                }
            }
            bytes.push(times);
        }
        let all = |i: usize| bytes.iter().flat_map(|times: &[Vec<f64>; 2]| times[i].clone()).collect();
        let figure = json!({ "connection": connections, "byte_on_a_connection": ratio(all(0), all(1)) });
        println!("  {figure}");
        Ok(figure)
    })
}

fn ratio(mut direct: Vec<f64>, mut service: Vec<f64>) -> Value {
    let mut p = |share: f64| {
        let at = |all: &mut Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all[((all.len() - 1) as f64 * share) as usize]
        };
        (at(&mut direct), at(&mut service))
    };
    let ((d50, s50), (d99, s99)) = (p(0.5), p(0.99));
    let thousandths = (s50 / d50 * 1000.0).round() / 1000.0;
    json!({ "direct_us": {"p50": round(d50), "p99": round(d99)}, "service_us": {"p50": round(s50), "p99": round(s99)}, "ratio_p50": thousandths })
}

/// All at once by one list; each leads to the same pod.
fn many_services(node: &Node, stage: &Stage) -> Result<()> {
    let one = |i| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("s{i}")},
        "spec": {"selector": {"app": "server"}, "ports": [{"port": PORT}]}})
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": (1..SERVICES).map(one).collect::<Vec<_>>()});
    let file = stage.directory().join("services.json");
    std::fs::write(&file, list.to_string())?;
    node.kubectl(&["create", "-f", &file.to_string_lossy()]).map(drop)
}

fn resolver(node: &Node) -> Result<Ipv4Addr> {
    let conf = node.kubectl(&["exec", "client", "--", "cat", "/etc/resolv.conf"])?;
    let address = conf.lines().find_map(|line| line.strip_prefix("nameserver ")).context("no nameserver")?;
    Ok(address.trim().parse()?)
}

/// Questions a second: of ours, and of unbound with the same name and address.
fn names(node: &Node, client: u32) -> Result<Value> {
    let names = ["s0.default.svc.cluster.local".to_owned()];
    let machine = node.setup.machine.as_ref().context("no machine")?;
    let peer = Unbound::start(node, &names[0], cluster_ip(node, "s0")?)?;
    let directory = node.setup.directory.parent().context("no folder")?;
    let mut figures = serde_json::Map::new();
    // In turns, twice.
    for turn in 0..2 {
        let ours = dnsperf_in(client, &[], &resolver(node)?, &names, directory)?;
        let theirs = dnsperf_in(client, &["-p", "5300"], &machine.address, &names, directory)?;
        figures.insert(format!("run_{turn}"), json!({ "ours": ours, "unbound": theirs }));
    }
    drop(peer);
    Ok(Value::Object(figures))
}

fn dnsperf(client: u32, more: &[&str], server: &Ipv4Addr, names: &[String], stage: &Stage) -> Result<Value> {
    dnsperf_in(client, more, server, names, stage.directory())
}

fn dnsperf_in(client: u32, more: &[&str], server: &Ipv4Addr, names: &[String], directory: &Path) -> Result<Value> {
    let file = directory.join("names");
    std::fs::write(&file, names.iter().map(|name| format!("{name} A\n")).collect::<String>())?;
    let (pid, server) = (client.to_string(), server.to_string());
    let enter = ["-t", &pid, "-n", "dnsperf", "-s", &server, "-d", &*file.to_string_lossy()];
    let told = run("nsenter", &[&enter[..], &["-l", ASKED_S, "-c", "4", "-T", "1", "-q", "100"], more].concat())?;
    let field = |name: &str| -> Result<f64> {
        let line = told
            .lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .with_context(|| format!("no {name:?} in {told}"))?;
        line.split_whitespace().next().unwrap_or_default().parse().with_context(|| format!("{name} {line}"))
    };
    let (sent, lost) = (field("Queries sent:")?, field("Queries lost:")?);
    ensure!(told.contains("NOERROR"), "no answer without an error: {told}");
    let figure = json!({ "queries_per_second": field("Queries per second:")?.round(), "average_latency_us": round(field("Average Latency (s):")? * 1e6), "sent": sent, "lost": lost });
    println!("  {server}: {figure}");
    Ok(figure)
}

/// A server of DNS that knows one name.
struct Unbound(Child);

impl Unbound {
    fn start(node: &Node, name: &str, address: Ipv4Addr) -> Result<Self> {
        let conf = node.setup.directory.with_extension("unbound");
        std::fs::write(
            &conf,
            format!(
                "server:\n interface: 0.0.0.0\n port: 5300\n access-control: 0.0.0.0/0 allow\n chroot: \"\"\n username: \"\"\n directory: \"/tmp\"\n \
                 use-syslog: no\n do-daemonize: no\n num-threads: 1\n local-zone: \"cluster.local.\" static\n local-data: \"{name}. 5 IN A {address}\"\n pidfile: \"\"\n\
                 remote-control:\n control-enable: no\n"
            ),
        )?;
        let mut command = node.setup.command(Path::new("unbound"));
        let child = command
            .args(["-d", "-c"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut peer = Self(child.context("start unbound")?);
        std::thread::sleep(Duration::from_secs(1));
        if let Some(status) = peer.0.try_wait()? {
            bail!("unbound has ended: {status}");
        }
        Ok(peer)
    }
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
