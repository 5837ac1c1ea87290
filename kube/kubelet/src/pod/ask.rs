//! One question to a container: a page, a port, a health check of gRPC, a command.
//!
//! ```text
//! probe ─┐                 ┌ a page, a port, gRPC: `engine/ask`
//! hook ──┴─ [`Subject`] ───┴ a command inside
//! ```
//!
//! What answers is a container, which may be anybody's: answers are bounded, no certificate is believed or refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use substrate_apiserver::node_proxy::{ExecOptions, ExecOutput};
use url::Url;

use engine_ask::{Page, dial, joined};
use engine_runtime::Runtime;

/// Output of a failed command in an event.
const OUTPUT_MAX: usize = 512;
/// What a probe calls itself: the version of the API that is spoken, as every kubelet does.
pub(super) const PROBE_AGENT: &str = "kube-probe/1.34";
/// What a hook calls itself.
pub(super) const HOOK_AGENT: &str = "kube-lifecycle/1.34";

/// One run to be asked.
pub(super) struct Subject {
    pub runtime: Arc<dyn Runtime>,
    pub pod_uid: String,
    pub run: String,
    /// Where the pod's ports are.
    pub address: String,
    pub container: Container,
}

/// Asks what a probe says; a warning where the answer counts as well and is odd.
///
/// # Errors
/// Why the container is not well, in upstream's words.
pub(super) async fn ask(subject: &Subject, probe: &Probe, timeout: Duration) -> Result<Option<String>, String> {
    let asked = async {
        if let Some(action) = &probe.http_get {
            let page = page(subject, action, PROBE_AGENT).await?;
            match page.code {
                200..300 => Ok(None),
                300..400 => Ok(Some(format!("Probe terminated redirects, Response body: {}", page.body))),
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            }
        } else if let Some(tcp) = &probe.tcp_socket {
            let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&subject.address);
            dial(host, port(&subject.container, &tcp.port)?).await.map(|_| None)
        } else if let Some(check) = &probe.grpc {
            let port = port(&subject.container, &IntOrString::Int(check.port))?;
            let service = check.service.as_deref().unwrap_or_default();
            engine_ask::check(&subject.address, port, service, PROBE_AGENT).await.map(|()| None)
        } else if let Some(exec) = &probe.exec {
            command(subject, exec.command.clone().unwrap_or_default()).await.map(|()| None)
        } else {
            Err("missing probe handler".to_owned())
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(late(subject, probe, timeout)),
    }
}

/// How every kubelet words that nothing came in time.
fn late(subject: &Subject, probe: &Probe, timeout: Duration) -> String {
    let seconds = timeout.as_secs();
    if let Some(action) = &probe.http_get {
        let url = address(subject, action).map_or_else(|why| why, |url| url.to_string());
        format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
    } else if probe.grpc.is_some() {
        format!("timeout: health rpc did not complete within {seconds}s")
    } else if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default().join(" ");
        format!("command timed out: {command:?} timed out after {seconds}s")
    } else {
        format!("dial tcp: i/o timeout after {seconds}s")
    }
}

/// Where a page is.
fn address(subject: &Subject, action: &HTTPGetAction) -> Result<Url, String> {
    let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&subject.address);
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let path = action.path.as_deref().unwrap_or_default().trim_start_matches('/');
    let text = format!("{scheme}://{}/{path}", joined(host, port(&subject.container, &action.port)?));
    Url::parse(&text).map_err(|e| format!("parse {text:?}: {e}"))
}

/// Asks for a page, and follows where it sends us on the same host.
pub(super) async fn page(subject: &Subject, action: &HTTPGetAction, agent: &str) -> Result<Page, String> {
    let own = action.http_headers.iter().flatten().map(|h| (h.name.as_str(), h.value.as_str()));
    let (host, headers) = engine_ask::headers(own, agent)?;
    engine_ask::page(&address(subject, action)?, host, &headers).await
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
mod tests;
