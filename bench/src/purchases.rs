//! Whole purchases at a real node, on its disk, beside nginx that serves the same bytes, unsigned, from memory.
//!
//! ```text
//!  one purchase = TLS handshake with both keys ─▶ request ─▶ reserve ─▶ purchase (signed by both)
//!  nginx        = TLS handshake with both keys ─▶ the same three answers, whatever is asked
//!  afterwards     each contract of the round is released by its buyer, over a connection of its own
//! ```
//! Buyers run on the same two cores, sign and verify; nginx's only send and read. Each purchase has a key of its own: the node
//! listens to each for 20 requests a second. What the node's process takes of the processor is read from the kernel.

pub mod costs;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use fluidos_identity::{NodeId, NodeKey, Signed, client_config};
use fluidos_rear as rear;
use fluidos_rear::Target;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::figures::{Samples, spread};
use crate::market::{release, request, reservation, sign_and_buy};

const ROUNDS: usize = 5;
/// Purchases of one round, all of which are in force at its end, and how many at a time.
const LIVE: [u32; 4] = [8, 32, 128, 512];
const AT_ONCE: u32 = 8;
/// Purchases one by one.
const ALONE: u32 = 200;
const START_LIMIT: Duration = Duration::from_secs(20);
/// The port of REAR and of nginx, and of the API, on loopback.
const REAR_PORT: u16 = 17_300;
const NGINX_PORT: u16 = 17_301;
const API_PORT: u16 = 17_302;

/// The figures.
pub async fn measure(binary: &Path) -> Result<Value> {
    let directory = tempfile::Builder::new().prefix("flt-bench-").tempdir()?;
    let (node, flavor) = start(binary, directory.path()).await?;
    let answers = Arc::new(recorded(&flavor).await?);
    let _nginx = nginx(directory.path(), &answers)?;
    let number = Arc::new(AtomicU32::new(0));
    let pid = node.id().context("the node has ended")?;
    let sold = Sold::default();
    let mut rounds = Vec::new();
    // The first fills caches of both.
    round(&number, &flavor, &answers, (pid, LIVE[0])).await?;
    for live in LIVE {
        let mut these = Vec::new();
        for _ in 0..ROUNDS {
            these.push(round(&number, &flavor, &answers, (pid, live)).await?);
        }
        let of = |figure: fn(&Round) -> f64| spread(these.iter().map(figure).collect());
        let mut times = Samples::default();
        for round in &these {
            times.extend(round.times.clone());
        }
        rounds.push(json!({
            "live": live, "ours_per_second": of(|round| round.ours), "nginx_per_second": of(|round| round.theirs),
            "ratio": of(|round| round.ours / round.theirs), "releases_per_second": of(|round| round.releases),
            "processor_of_the_node_ms_per_purchase": of(|round| round.processor_ms[0]),
            "processor_of_the_buyer_ms_per_purchase": of(|round| round.processor_ms[1]),
            "processor_of_the_visitor_ms_per_visit": of(|round| round.processor_ms[2]),
            "one_of_many": times.figures(),
        }));
    }
    let mut alone: [Samples; 5] = Default::default();
    for _ in 0..ALONE {
        let begun = Instant::now();
        let stages = purchase(flavor.clone(), number.fetch_add(1, Ordering::Relaxed), sold.clone()).await?;
        alone.iter_mut().zip(stages.into_iter().chain([begun.elapsed()])).for_each(|(all, one)| all.add(one));
        give_back(sold.clone()).await?;
    }
    let [connect, request, reserve, purchase, whole] = alone.map(|samples| samples.figures());
    Ok(json!({
        "at_once": AT_ONCE, "rounds": rounds, "one_alone": whole,
        "messages_of_one_alone": { "connect": connect, "request": request, "reserve": reserve, "purchase": purchase },
    }))
}

/// How long the handshake and each of the three messages took.
type Stages = [Duration; 4];

/// What one round has shown: how many a second, and what the node's process took for each.
struct Round {
    ours: f64,
    theirs: f64,
    releases: f64,
    /// Of the node, of its buyers, and of those who visit nginx.
    processor_ms: [f64; 3],
    times: Samples,
}

/// So many purchases, as many visits of nginx, and as many releases.
async fn round(
    number: &Arc<AtomicU32>,
    flavor: &str,
    answers: &Arc<Vec<Answer>>,
    (pid, live): (u32, u32),
) -> Result<Round> {
    let sold = Sold::default();
    let per_second = |begun: Instant| f64::from(live) / begun.elapsed().as_secs_f64();
    let own = std::process::id();
    let (begun, before, buyers) = (Instant::now(), processor_ms(pid)?, processor_ms(own)?);
    let times = together(number, live, {
        let (flavor, sold) = (flavor.to_owned(), sold.clone());
        move |number| {
            let bought = purchase(flavor.clone(), number, sold.clone());
            async { bought.await.map(|_| ()) }
        }
    })
    .await?;
    let (ours, used) = (per_second(begun), processor_ms(pid)? - before);
    let buyers = processor_ms(own)? - buyers;
    let (begun, before) = (Instant::now(), processor_ms(own)?);
    together(number, live, {
        let answers = answers.clone();
        move |number| visit(answers.clone(), number)
    })
    .await?;
    let theirs = per_second(begun);
    let visitors = processor_ms(own)? - before;
    let begun = Instant::now();
    together(number, live, move |_| give_back(sold.clone())).await?;
    Ok(Round {
        ours,
        theirs,
        releases: per_second(begun),
        processor_ms: [used, buyers, visitors].map(|all| all / f64::from(live)),
        times,
    })
}

/// What was bought in a round, and by which key.
type Sold = Arc<Mutex<Vec<(NodeKey, Signed<rear::ContractTerms>)>>>;

/// Releases one of them.
async fn give_back(sold: Sold) -> Result<()> {
    let one = sold.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let (buyer, contract) = one.context("nothing is sold")?;
    let client = rear::Client::new(&buyer, Target { address: here(REAR_PORT), expected: None })?;
    release(&client, &buyer, &contract).await
}

/// What a process has had of the processor, in milliseconds: user and system time of its threads (proc_pid_stat(5)), by ticks of 10 ms.
fn processor_ms(pid: u32) -> Result<f64> {
    const USER: usize = 11;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let ticks = fields.split(' ').skip(USER).take(2).map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(f64::from(ticks) * 10.0)
}

/// So many of them, some at a time; how long each took.
async fn together<F>(
    number: &Arc<AtomicU32>,
    many: u32,
    one: impl Fn(u32) -> F + Clone + Send + 'static,
) -> Result<Samples>
where
    F: Future<Output = Result<()>> + Send,
{
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (number, one) = (number.clone(), one.clone());
        workers.spawn(async move {
            let mut times = Samples::default();
            for _ in 0..many / AT_ONCE {
                let begun = Instant::now();
                one(number.fetch_add(1, Ordering::Relaxed)).await?;
                times.add(begun.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Samples::default();
    while let Some(done) = workers.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}

fn buyer(number: u32) -> Result<NodeKey> {
    let mut seed = [11; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    Ok(NodeKey::from_seed(seed)?)
}

fn here(port: u16) -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

async fn purchase(flavor: String, number: u32, sold: Sold) -> Result<Stages> {
    let buyer = buyer(number)?;
    let client = rear::Client::new(&buyer, Target { address: here(REAR_PORT), expected: None })?;
    let (contract, stages) = bought(&client, &buyer, &flavor, &format!("flt-bench-{number}")).await?;
    sold.lock().unwrap_or_else(PoisonError::into_inner).push((buyer, contract));
    Ok(stages)
}

/// The handshake and the three messages.
async fn bought(
    client: &rear::Client,
    buyer: &NodeKey,
    flavor: &str,
    transaction: &str,
) -> Result<(Signed<rear::ContractTerms>, Stages)> {
    let mut last = Instant::now();
    let mut lap = || {
        let lap = last.elapsed();
        last = Instant::now();
        lap
    };
    client.seller().await?;
    let connect = lap();
    let answer = client.request(&request()).await?.context("no such route")?;
    anyhow::ensure!(!answer.offers.is_empty(), "nothing is offered: {:?}", answer.denial);
    let request = lap();
    let transaction = client.reserve(&reservation(flavor, transaction)?).await?;
    let reserve = lap();
    let contract = sign_and_buy(client, buyer, &transaction).await?;
    Ok((contract, [connect, request, reserve, lap()]))
}

/// The node, and its flavor.
async fn start(binary: &Path, directory: &Path) -> Result<(Child, String)> {
    let data = directory.join("node");
    let mut command = Command::new(binary);
    command.args([
        "up",
        "--name",
        "flt-bench",
        "--no-agent",
        "--no-mdns",
        "--offer",
        "cpu=64,memory=64Gi,pods=1000",
        "--data-dir",
    ]);
    command.arg(&data).arg("--api").arg(here(API_PORT).to_string()).arg("--rear").arg(here(REAR_PORT).to_string());
    let log = std::fs::File::create(directory.join("node.log"))?;
    let mut node = command.env("FLUIDOS_LOG", "warn").stdout(Stdio::piped()).stderr(log).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(node.stdout.take().context("no output")?).lines();
    let ready = tokio::time::timeout(START_LIMIT, lines.next_line()).await.context("the node is not ready")??;
    anyhow::ensure!(ready.as_deref().is_some_and(|line| line.starts_with("ready ")), "{ready:?}");
    let client = rear::Client::new(&buyer(u32::MAX)?, Target { address: here(REAR_PORT), expected: None })?;
    let all = rear::Selector { flavor_type: Some(rear::FlavorType::K8Slice), filters: Vec::new() };
    let begun = Instant::now();
    loop {
        // It looks first whether others keep records that it has lost.
        match client.list_flavors(&all).await {
            Ok(flavors) => {
                if let Some(flavor) = flavors.first() {
                    return Ok((node, flavor.id.clone()));
                }
            }
            Err(error) if !error.is_retryable() => return Err(error.into()),
            Err(_) => {}
        }
        if begun.elapsed() > START_LIMIT {
            bail!("the node lists no flavor within {START_LIMIT:?}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One answer of the node as nginx will give it, and what was asked.
struct Answer {
    path: String,
    sent: Bytes,
    received: Bytes,
}

/// What goes there and back in one purchase, byte by byte, without the handshake.
async fn recorded(flavor: &str) -> Result<Vec<Answer>> {
    let buyer = buyer(u32::MAX - 1)?;
    let tap = Tap { key: buyer.clone(), both: Arc::default() };
    let both = tap.both.clone();
    let client = rear::Client::over(Arc::new(tap));
    let (contract, _) = bought(&client, &buyer, flavor, "flt-bench-recorded").await?;
    let client = rear::Client::new(&buyer, Target { address: here(REAR_PORT), expected: None })?;
    release(&client, &buyer, &contract).await?;
    let both = both.lock().map_err(|_| anyhow::anyhow!("a recorder broke"))?;
    let (sent, received) = (bodies(&both.0)?, bodies(&both.1)?);
    anyhow::ensure!(sent.len() == 3 && received.len() == 3, "{} requests, {} answers", sent.len(), received.len());
    let answers = sent.into_iter().zip(received).enumerate();
    Ok(answers.map(|(number, (sent, received))| Answer { path: format!("/answer-{number}"), sent, received }).collect())
}

/// The bodies of messages that follow one another.
fn bodies(mut bytes: &[u8]) -> Result<Vec<Bytes>> {
    let mut bodies = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").context("no head")? + 4;
        let (head, rest) = bytes.split_at(end);
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let (body, rest) = rest.split_at_checked(length.unwrap_or(0)).context("a short body")?;
        bodies.push(Bytes::copy_from_slice(body));
        bytes = rest;
    }
    Ok(bodies)
}

/// A way to the node that keeps what goes there and what comes back.
struct Tap {
    key: NodeKey,
    both: Arc<Mutex<(Vec<u8>, Vec<u8>)>>,
}

#[async_trait]
impl rear::Connect for Tap {
    async fn connect(&self) -> Result<(Box<dyn rear::Stream>, Option<NodeId>), String> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let outside = connected(&self.key, REAR_PORT).await.map_err(|error| error.to_string())?;
        let ((mut to, mut from), (mut read, mut write)) = {
            let (from, to) = tokio::io::split(outside);
            ((to, from), tokio::io::split(far))
        };
        let there = self.both.clone();
        tokio::spawn(async move { copy(&mut read, &mut to, |bytes| keep(&there, |both| both.0.extend(bytes))).await });
        let back = self.both.clone();
        tokio::spawn(
            async move { copy(&mut from, &mut write, |bytes| keep(&back, |both| both.1.extend(bytes))).await },
        );
        Ok((Box::new(near), None))
    }

    fn host(&self) -> String {
        here(REAR_PORT).to_string()
    }
}

fn keep(both: &Mutex<(Vec<u8>, Vec<u8>)>, keep: impl FnOnce(&mut (Vec<u8>, Vec<u8>))) {
    keep(&mut both.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Copies until either end is closed.
async fn copy(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), seen: impl Fn(&[u8])) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..read).unwrap_or_default();
        seen(bytes);
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

/// The same as a buyer of nginx: the handshake, and the answers.
async fn visit(answers: Arc<Vec<Answer>>, number: u32) -> Result<()> {
    let mut raw = Raw::open(&buyer(number)?, NGINX_PORT).await?;
    for answer in answers.iter() {
        let received = raw.post(&answer.path, answer.sent.clone()).await?;
        anyhow::ensure!(received == answer.received, "{}: other bytes", answer.path);
    }
    Ok(())
}

/// A TLS connection that proves a key.
async fn connected(key: &NodeKey, port: u16) -> Result<TlsStream<TcpStream>> {
    let address = here(port);
    let connector = TlsConnector::from(Arc::new(client_config(key, None, rear::ALPN)?));
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(connector.connect(ServerName::IpAddress(address.ip().into()), stream).await?)
}

/// HTTP on one.
struct Raw {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Raw {
    async fn open(key: &NodeKey, port: u16) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(connected(key, port).await?)).await?;
        // It ends with its sender.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(Self { sender, host: here(port).to_string() })
    }

    async fn post(&mut self, path: &str, body: Bytes) -> Result<Bytes> {
        let request = http::Request::post(path)
            .header(http::header::HOST, &self.host)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

/// nginx with a node's key, that demands one of its clients, as REAR does.
fn nginx(directory: &Path, answers: &[Answer]) -> Result<Nginx> {
    // OpenSSL reads no key of the form that rustls writes.
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ed25519",
            "-nodes",
            "-subj",
            "/CN=nginx",
            "-keyout",
            "key.pem",
            "-out",
            "certificate.pem",
        ])
        .current_dir(directory)
        .output()
        .context("openssl")?;
    anyhow::ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let mut places = String::new();
    for (number, answer) in answers.iter().enumerate() {
        std::fs::write(directory.join(format!("answer-{number}.json")), &answer.received)?;
        // Static files take no POST; this is the usual way round it.
        places += &format!(
            "location = {} {{ error_page 405 =200 /answer-{number}.json; try_files /answer-{number}.json =404; }}\n",
            answer.path
        );
    }
    let root = directory.display();
    let text = format!(
        "worker_processes 2; pid {root}/nginx.pid; error_log {root}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi; open_file_cache max=100;\n\
         server {{ listen 127.0.0.1:{NGINX_PORT} ssl; root {root}; ssl_protocols TLSv1.3; ssl_verify_client optional_no_ca;\n\
         ssl_certificate {root}/certificate.pem; ssl_certificate_key {root}/key.pem;\n{places}}} }}\n"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, text)?;
    let nginx = Nginx { directory: directory.to_owned() };
    let started = nginx.told(&[]).status().context("nginx")?;
    anyhow::ensure!(started.success(), "nginx does not start: {started}");
    Ok(nginx)
}

/// A running nginx; its workers end with it, which they do not when their master is killed.
struct Nginx {
    directory: PathBuf,
}

impl Nginx {
    fn told(&self, what: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("nginx");
        command.arg("-c").arg(self.directory.join("nginx.conf")).arg("-p").arg(&self.directory).args(what);
        command
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // If it has ended already there is nothing to stop.
        let _ = self.told(&["-s", "stop"]).output();
    }
}
