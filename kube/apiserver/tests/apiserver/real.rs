//! The differential test: the same requests to a real kube-apiserver and to ours, in `tests/apiserver/real/*.yaml`.
//!
//! ```text
//! - do: POST /apis/apps/v1/namespaces/flt/deployments      what is asked of both
//!   body: {…}
//!   differs: { "spec.template.spec.x": why }               each expected difference, with its reason
//! ```
//!
//! Status, content type, `Allow` and bodies are compared. What must differ is evened out: UIDs, times, versions, managed fields, nulls,
//! and values that Go shows in its own syntax. A difference that is expected and does not come is a failure, too.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use serde_json::{Value, json};
use substrate_apiserver::tls::Authority;

use crate::support;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    /// Method and path.
    r#do: String,
    #[serde(default)]
    body: Value,
    /// Media type of the body; JSON if absent.
    r#type: Option<String>,
    /// What is asked for; JSON if absent.
    accept: Option<String>,
    /// Path of a value (`causes` for those of a refusal, `*` for the whole answer), and why it differs.
    #[serde(default)]
    differs: BTreeMap<String, String>,
}

/// etcd and kube-apiserver on loopback, in a directory of their own; gone when dropped.
struct Real {
    processes: Vec<Child>,
    directory: tempfile::TempDir,
    port: u16,
}

impl Drop for Real {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Real {
    fn start(binaries: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("flt-real-").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let authority = Authority::open(directory.path()).unwrap();
        let server = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"]).unwrap();
        std::fs::write(at("server.crt"), &server.certificate_pem).unwrap();
        std::fs::write(at("server.key"), &server.key_pem).unwrap();
        std::fs::write(at("ca.pem"), &authority.certificate_pem).unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let run = |command: &mut Command, log: &str| {
            let log = std::fs::File::create(directory.path().join(log)).unwrap();
            command
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|e| panic!("{command:?}: {e}"))
        };
        let etcd = run(
            Command::new("etcd").args([
                "--data-dir",
                &at("etcd"),
                "--unsafe-no-fsync",
                "--listen-client-urls",
                &url(client),
                "--advertise-client-urls",
                &url(client),
                "--listen-peer-urls",
                &url(peer),
                "--initial-advertise-peer-urls",
                &url(peer),
                "--initial-cluster",
                &format!("default={}", url(peer)),
            ]),
            "etcd.log",
        );
        let mut real = Self { processes: vec![etcd], directory, port };
        let at = |name: &str| real.directory.path().join(name).display().to_string();
        let apiserver = Command::new(binaries.join("kube-apiserver"))
            .args([
                format!("--etcd-servers={}", url(client)),
                format!("--secure-port={port}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                format!("--tls-cert-file={}", at("server.crt")),
                format!("--tls-private-key-file={}", at("server.key")),
                format!("--client-ca-file={}", at("ca.pem")),
                "--authorization-mode=RBAC".into(),
                "--allow-privileged=true".into(),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                format!("--service-account-key-file={}", at("server.crt")),
                format!("--service-account-signing-key-file={}", at("server.key")),
                // There is no controller that makes accounts.
                "--disable-admission-plugins=ServiceAccount".into(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(at("apiserver.log")).unwrap())
            .spawn()
            .unwrap();
        real.processes.push(apiserver);
        real
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        [kind, accept]: [&str; 2],
        body: String,
    ) -> std::io::Result<(u16, Vec<(String, String)>, Value)> {
        let authority = Authority::open(self.directory.path()).unwrap();
        let client = authority.client("admin", &["system:masters"]).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate_pem.as_bytes()).unwrap()).unwrap();
        let chain = CertificateDer::pem_slice_iter(client.certificate_pem.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(client.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let tcp = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(std::io::Error::other)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("accept", accept)
            .header("content-type", kind)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let answer = read(response).await;
        driver.abort();
        Ok(answer)
    }

    async fn ready(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut last = String::new();
        while Instant::now() < end {
            // Classes of priority are the last that it makes for itself.
            let path = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
            match self.ask(Method::GET, path, ["application/json"; 2], String::new()).await {
                Ok((200, ..)) => return,
                other => last = format!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let log = std::fs::read_to_string(self.directory.path().join("apiserver.log")).unwrap_or_default();
        panic!("60 s without an answer, last {last}\n{log}");
    }
}

async fn read<B>(response: http::Response<B>) -> (u16, Vec<(String, String)>, Value)
where
    B: http_body::Body,
    B::Error: std::fmt::Debug,
{
    let headers = ["content-type", "allow"]
        .iter()
        .filter_map(|name| response.headers().get(*name).map(|v| ((*name).to_owned(), v.to_str().unwrap().to_owned())))
        .collect();
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    // A watch answers one document after the other.
    let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&bytes).into_iter().collect();
    let body = match documents {
        Ok(mut one) if one.len() == 1 => one.remove(0),
        Ok(several) => Value::Array(several),
        Err(_) => Value::from(String::from_utf8_lossy(&bytes)),
    };
    (code, headers, body)
}

/// Takes out what cannot be the same.
fn even(value: &mut Value, uids: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for gone in ["managedFields", "selfLink", "resourceVersion", "creationTimestamp", "deletionTimestamp"] {
                map.remove(gone);
            }
            if let Some(uid) = map.get("uid").and_then(Value::as_str) {
                uids.push(uid.to_owned());
            }
            map.values_mut().for_each(|value| even(value, uids));
            map.retain(|_, value| !value.is_null());
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| even(item, uids));
            // In which order objects are listed upstream does not promise.
            let name = |item: &Value| {
                let object = if item["object"].is_object() { &item["object"] } else { item };
                object["metadata"]["name"].as_str().map(str::to_owned)
            };
            items.sort_by_key(name);
        }
        _ => {}
    }
}

/// One line for each value: its path, and the value.
fn flat(value: &Value, path: String, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flat(value, path, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, item)| flat(item, format!("{path}[{i}]"), out));
        }
        other => drop(out.insert(path, other.to_string())),
    }
}

/// What an answer says, line by line.
fn lines(code: u16, headers: &[(String, String)], mut body: Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([("code".to_owned(), code.to_string())]);
    out.extend(headers.iter().map(|(name, value)| (format!("header {name}"), value.clone())));
    let mut uids = Vec::new();
    if body["details"]["causes"].is_array() {
        // The message repeats the causes; what Go shows of a value in its own syntax is left out.
        body["message"] = Value::Null;
        let causes: BTreeSet<String> = body["details"]["causes"].as_array().unwrap().iter().map(cause).collect();
        body["details"]["causes"] = Value::Null;
        out.insert("causes".into(), causes.into_iter().collect::<Vec<_>>().join("\n             "));
    }
    even(&mut body, &mut uids);
    let mut text = body.to_string();
    for uid in uids {
        text = text.replace(&uid, "UID");
    }
    flat(&serde_json::from_str(&text).unwrap(), String::new(), &mut out);
    out
}

fn cause(cause: &Value) -> String {
    let message = cause["message"].as_str().unwrap_or_default();
    let number = regex::Regex::new(r#"intstr\.IntOrString\{Type:(\d), IntVal:(-?\d+), StrVal:("[^"]*")\}"#).unwrap();
    let message =
        &number.replace(message, |found: &regex::Captures<'_>| found[if &found[1] == "0" { 2 } else { 3 }].to_owned());
    let shown = regex::Regex::new(r"^((?:Invalid|Unsupported|Duplicate) value: )(?:[a-z0-9]+\.[A-Z].*?[})]|[a-z0-9]*\.?map\[.*?[})]|\[\].*?[})]|\{.*\}|\[.*\]|null)(: |$)").unwrap();
    let message = shown.replace(message, "${1}VALUE$2");
    format!(
        "{} {}: {message}",
        cause["reason"].as_str().unwrap_or_default(),
        cause["field"].as_str().unwrap_or_default()
    )
}

#[tokio::test]
#[ignore = "needs a real kube-apiserver: cargo xtask test --real-kubernetes"]
async fn both_answer_alike() {
    let binaries = PathBuf::from(
        std::env::var_os("FLT_REAL_KUBERNETES").expect("FLT_REAL_KUBERNETES is the directory of kube-apiserver"),
    );
    let real = Real::start(&binaries);
    real.ready().await;
    let ours = support::api().await;
    let mut files: Vec<PathBuf> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apiserver/real"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let (mut asked, mut wrong) = (0, Vec::new());
    for file in files {
        let steps: Vec<Step> = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap())
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for step in steps {
            let (method, path) = step.r#do.split_once(' ').unwrap();
            let method: Method = method.parse().unwrap();
            let kind = step.r#type.as_deref().unwrap_or("application/json");
            let body = if step.body.is_null() { String::new() } else { step.body.to_string() };
            let accept = step.accept.as_deref().unwrap_or("application/json");
            let (code, headers, answer) = real.ask(method.clone(), path, [kind, accept], body.clone()).await.unwrap();
            let theirs = lines(code, &headers, answer);
            let response = ours.raw(method, path, &[("content-type", kind), ("accept", accept)], body).await;
            let (code, headers, answer) = read(response).await;
            let mine = lines(code, &headers, answer);
            asked += 1;
            let mut unused: BTreeSet<&String> = step.differs.keys().collect();
            for at in theirs.keys().chain(mine.keys()).collect::<BTreeSet<_>>() {
                if theirs.get(at) == mine.get(at) {
                    continue;
                }
                match step.differs.keys().find(|expected| {
                    *expected == "*"
                        || at == *expected
                        || at.starts_with(&format!("{expected}."))
                        || at.starts_with(&format!("{expected}["))
                }) {
                    Some(expected) => drop(unused.remove(expected)),
                    None => wrong.push(format!(
                        "{} {}\n  {at}\n    theirs   {}\n    ours     {}",
                        step.r#do,
                        json!(step.body),
                        theirs.get(at).map_or("-", String::as_str),
                        mine.get(at).map_or("-", String::as_str)
                    )),
                }
            }
            wrong.extend(
                unused.into_iter().map(|at| format!("{}\n  {at} was expected to differ and does not", step.r#do)),
            );
        }
    }
    eprintln!("{asked} requests, {} differences that nobody expected", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
