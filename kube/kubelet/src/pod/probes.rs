//! Probes: asking a container whether it is well.
//!
//! ```text
//! startup ──succeeded──▶ liveness  ──failed──▶ the run is stopped
//!    └──failed──▶ stop   readiness ──────────▶ Ready, or not
//! ```
//!
//! Until a container was ready for the first time it is asked more often than its period says (from 50 ms on, doubling):
//! a failure then changes nothing, and a success is known sooner.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use substrate_apiserver::node_proxy::{ExecOptions, ExecOutput};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use engine_runtime::Runtime;

/// The first line of an answer is all that counts; longer ones are no HTTP.
const ANSWER_MAX: usize = 4096;
/// Output of a failed command in an event.
const OUTPUT_MAX: usize = 512;
const EAGER_FIRST: Duration = Duration::from_millis(50);

/// What became known about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The startup probe succeeded, or there is none.
    Started,
    /// The readiness probe's answer changed.
    Ready(bool),
    /// A probe failed, with its name and the reason; not yet often enough to act.
    Failed(&'static str, String),
    /// The liveness or startup probe failed often enough: the run must end.
    Unhealthy(&'static str),
    /// Its `preStop` hook came to an end.
    Hooked(Result<(), String>),
}

/// One run to be probed.
pub(super) struct Subject {
    pub runtime: Arc<dyn Runtime>,
    pub pod_uid: String,
    pub run: String,
    /// Where the pod's ports are.
    pub address: String,
    pub container: Container,
}

/// Asks until it is dropped; every answer that matters goes to `verdicts`.
pub(super) async fn probe(subject: Subject, verdicts: mpsc::Sender<(String, Verdict)>) {
    let say = async |verdict| verdicts.send((subject.run.clone(), verdict)).await.is_ok();
    if let Some(startup) = &subject.container.startup_probe
        && !until_started(&subject, startup, &verdicts).await
    {
        return;
    }
    if !say(Verdict::Started).await {
        return;
    }
    let ready = async {
        match &subject.container.readiness_probe {
            Some(probe) => readiness(&subject, probe, &verdicts).await,
            None => drop(say(Verdict::Ready(true)).await),
        }
    };
    let live = async {
        if let Some(probe) = &subject.container.liveness_probe {
            liveness(&subject, probe, "Liveness", &verdicts).await;
        }
    };
    tokio::join!(ready, live);
}

/// `false` when the run must end.
async fn until_started(subject: &Subject, probe: &Probe, verdicts: &mpsc::Sender<(String, Verdict)>) -> bool {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let (mut good, mut bad) = (0, 0);
    loop {
        match ask(subject, probe, timing.timeout).await {
            Ok(()) => (good, bad) = (good + 1, 0),
            Err(why) => {
                (good, bad) = (0, bad + 1);
                let _ = verdicts.send((subject.run.clone(), Verdict::Failed("Startup", why))).await; // the worker is gone, and we soon
            }
        }
        if good >= timing.successes {
            return true;
        }
        if bad >= timing.failures {
            let _ = verdicts.send((subject.run.clone(), Verdict::Unhealthy("startup"))).await; // as above
            return false;
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn liveness(subject: &Subject, probe: &Probe, name: &'static str, verdicts: &mpsc::Sender<(String, Verdict)>) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let mut bad = 0;
    loop {
        match ask(subject, probe, timing.timeout).await {
            Ok(()) => bad = 0,
            Err(why) => {
                bad += 1;
                if verdicts.send((subject.run.clone(), Verdict::Failed(name, why))).await.is_err() {
                    return;
                }
            }
        }
        if bad >= timing.failures {
            let _ = verdicts.send((subject.run.clone(), Verdict::Unhealthy("liveness"))).await; // as above
            return;
        }
        tokio::time::sleep(timing.period).await;
    }
}

async fn readiness(subject: &Subject, probe: &Probe, verdicts: &mpsc::Sender<(String, Verdict)>) {
    let timing = Timing::of(probe);
    tokio::time::sleep(timing.delay).await;
    let (mut ready, mut was_ready, mut good, mut bad) = (false, false, 0, 0);
    let mut eager = EAGER_FIRST;
    let mut since_said = Duration::MAX;
    loop {
        let wait = if was_ready { timing.period } else { eager.min(timing.period) };
        let mut news = Vec::new();
        match ask(subject, probe, timing.timeout).await {
            Ok(()) => {
                (good, bad) = (good + 1, 0);
                if !ready && good >= timing.successes {
                    (ready, was_ready) = (true, true);
                    news.push(Verdict::Ready(true));
                }
            }
            Err(why) => {
                (good, bad) = (0, bad + 1);
                // Eager questions are ours: their failures are said once a period, as the user expects them.
                if since_said >= timing.period {
                    since_said = Duration::ZERO;
                    news.push(Verdict::Failed("Readiness", why));
                }
                if ready && bad >= timing.failures {
                    ready = false;
                    news.push(Verdict::Ready(false));
                }
            }
        }
        for verdict in news {
            if verdicts.send((subject.run.clone(), verdict)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(wait).await;
        since_said = since_said.saturating_add(wait);
        eager = eager.saturating_mul(2);
    }
}

struct Timing {
    delay: Duration,
    period: Duration,
    timeout: Duration,
    successes: i32,
    failures: i32,
}

impl Timing {
    /// With the API's defaults.
    fn of(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
        };
        Self {
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: probe.success_threshold.unwrap_or(1).max(1),
            failures: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }
}

async fn ask(subject: &Subject, probe: &Probe, timeout: Duration) -> Result<(), String> {
    let asked = async {
        if let Some(http) = &probe.http_get {
            match http_get(subject, http).await? {
                200..400 => Ok(()),
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            }
        } else if let Some(tcp) = &probe.tcp_socket {
            let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&subject.address);
            let address = format!("{host}:{}", port(&subject.container, &tcp.port)?);
            TcpStream::connect(&address).await.map(drop).map_err(|e| format!("dial tcp {address}: {e}"))
        } else if let Some(exec) = &probe.exec {
            command(subject, exec.command.clone().unwrap_or_default()).await
        } else {
            Err("the probe has no handler this node knows".to_owned())
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
    }
}

/// Asks for a page; its code.
pub(super) async fn http_get(subject: &Subject, action: &HTTPGetAction) -> Result<u16, String> {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&subject.address);
    let port = port(&subject.container, &action.port)?;
    let path = action.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let url = format!("http://{host}:{port}{slash}{path}");
    let headers = action.http_headers.clone().unwrap_or_default();
    let host_header = headers.iter().find(|h| h.name.eq_ignore_ascii_case("host")).map(|h| h.value.clone());
    let mut request =
        format!("GET {slash}{path} HTTP/1.1\r\nHost: {}\r\n", host_header.unwrap_or_else(|| format!("{host}:{port}")));
    for (name, value) in [("User-Agent", "kube-probe/1.34"), ("Accept", "*/*"), ("Connection", "close")] {
        if !headers.iter().any(|h| h.name.eq_ignore_ascii_case(name)) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    for header in headers.iter().filter(|h| !h.name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("\r\n");
    let failed = |e: std::io::Error| format!("Get \"{url}\": {e}");
    let mut stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_MAX {
        if stream.read_buf(&mut answer).await.map_err(failed)? == 0 {
            break;
        }
    }
    let line = String::from_utf8_lossy(&answer);
    let code =
        line.strip_prefix("HTTP/1.").and_then(|l| l.split(' ').nth(1)).and_then(|c| c.trim().parse::<u16>().ok());
    code.ok_or_else(|| format!("Get \"{url}\": the answer is not HTTP/1"))
}

fn port(container: &Container, port: &IntOrString) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named =
                container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).ok_or_else(|| format!("the container has no port {port:?}"))
}

/// Runs a command inside; its output if it fails.
pub(super) async fn command(subject: &Subject, command: Vec<String>) -> Result<(), String> {
    let options = ExecOptions { command, stdout: true, stderr: true, ..ExecOptions::default() };
    let mut session =
        subject.runtime.exec(&subject.pod_uid, &subject.run, &options).await.map_err(|e| e.to_string())?;
    let mut said = Vec::new();
    let keep = |said: &mut Vec<u8>, bytes: Bytes| {
        said.extend_from_slice(&bytes[..bytes.len().min(OUTPUT_MAX.saturating_sub(said.len()))])
    };
    while let Some(output) = session.output.recv().await {
        match output {
            ExecOutput::Stdout(bytes) | ExecOutput::Stderr(bytes) => keep(&mut said, bytes),
            ExecOutput::Exit(0) => return Ok(()),
            ExecOutput::Exit(_) => return Err(String::from_utf8_lossy(&said).trim().to_owned()),
            ExecOutput::Failed(why) => return Err(why),
        }
    }
    Err("the command was lost".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use engine_runtime::OciRuntime;
    use serde_json::json;
    use tokio::net::TcpListener;

    async fn check(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..n]).into_owned();
            assert!(request.starts_with("GET /live HTTP/1.1\r\nHost: x.test\r\n"), "{request}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let dir = tempfile::tempdir().unwrap();
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": port}]});
        let subject = Subject {
            runtime: Arc::new(OciRuntime::new(dir.path(), Vec::new()).unwrap()),
            pod_uid: "u".into(),
            run: "r".into(),
            address: "127.0.0.1".into(),
            container: serde_json::from_value(container).unwrap(),
        };
        let probe =
            json!({"httpGet": {"port": "web", "path": "live", "httpHeaders": [{"name": "Host", "value": "x.test"}]}});
        ask(&subject, &serde_json::from_value(probe).unwrap(), Duration::from_secs(2)).await
    }

    #[tokio::test]
    async fn http_answers() {
        assert_eq!(check("HTTP/1.1 200 OK\r\n\r\n").await, Ok(()));
        assert_eq!(check("HTTP/1.0 302 Found\r\n\r\n").await, Ok(()));
        assert_eq!(check("HTTP/1.1 503 Busy\r\n\r\n").await, Err("HTTP probe failed with statuscode: 503".into()));
        assert!(check("SSH-2.0\n").await.unwrap_err().ends_with("the answer is not HTTP/1"));
    }
}
