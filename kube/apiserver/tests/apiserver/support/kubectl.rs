//! The real kubectl, against a server of its own over TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use substrate_apiserver::tls::{Authority, serve};
use tokio::io::AsyncReadExt as _;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Api;

pub struct Kubectl {
    pub api: Api,
    directory: tempfile::TempDir,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub async fn start() -> Kubectl {
    let api = super::api().await;
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(directory.path()).unwrap();
    let identity = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"]).unwrap();
    let config = Arc::new(authority.server_config(&identity).unwrap());
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let server = format!("https://{}", listener.local_addr().unwrap());
    let client = authority.client("admin", &["system:masters"]).unwrap();
    std::fs::write(directory.path().join("client.crt"), &client.certificate_pem).unwrap();
    std::fs::write(directory.path().join("client.key"), &client.key_pem).unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{ "name": "t", "cluster": { "server": server, "certificate-authority": "ca.crt" } }],
        "users": [{ "name": "t", "user": { "client-certificate": "client.crt", "client-key": "client.key" } }],
        "contexts": [{ "name": "t", "context": { "cluster": "t", "user": "t" } }],
    });
    std::fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let serving = tokio::spawn(serve(api.server.clone(), listener, config));
    Kubectl { api, directory, serving }
}

impl Kubectl {
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(args.split_whitespace())
            .env("KUBECONFIG", self.directory.path().join("kubeconfig"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Standard output and standard error.
    pub async fn run(&self, args: &str) -> (String, String) {
        let output = tokio::time::timeout(Duration::from_secs(60), self.command(args).output())
            .await
            .unwrap_or_else(|_| panic!("60 s of kubectl {args}"))
            .unwrap_or_else(|e| panic!("kubectl must be in the PATH: {e}"));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    pub async fn ok(&self, args: &str) -> String {
        let (out, error) = self.run(args).await;
        assert!(error.is_empty(), "kubectl {args}: {error}");
        out
    }

    pub async fn json(&self, args: &str) -> Value {
        let out = self.ok(args).await;
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("kubectl {args}: {e}: {out}"))
    }

    /// `kubectl proxy`, which ends when it is dropped, and its port: the way in for what speaks no TLS.
    pub async fn proxy(&self) -> (Child, u16) {
        let mut proxy = self.command("proxy --port=0 --reject-paths=^$").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line()).await.unwrap().unwrap().unwrap();
        let port = line.rsplit(':').next().unwrap().parse().unwrap_or_else(|_| panic!("no port in {line:?}"));
        (proxy, port)
    }
}

/// A WebSocket through a proxy, or the code and the text of who refuses it.
pub async fn websocket(
    port: u16,
    path: &str,
    protocols: &'static str,
) -> Result<WebSocketStream<TcpStream>, (u16, String)> {
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_std().unwrap();
    // A handshake that is refused reads as much of the body as came with the head; the rest is read here.
    let mut rest = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    match tokio_tungstenite::client_async(request, TcpStream::from_std(stream).unwrap()).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => {
            let mut body = response.body().clone().unwrap_or_default();
            // kubectl's proxy sends it in chunks, of which the last is empty.
            while !body.ends_with(b"0\r\n\r\n") {
                let read = tokio::time::timeout(Duration::from_secs(30), rest.read_buf(&mut body)).await;
                assert!(read.unwrap().unwrap() > 0, "{path}: the body ends early: {}", String::from_utf8_lossy(&body));
            }
            Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
        }
        Err(other) => panic!("{path}: {other}"),
    }
}

/// The next message of a WebSocket: its channel and what is in it, `None` when it is closed.
pub async fn message(socket: &mut WebSocketStream<TcpStream>) -> Option<(u8, Vec<u8>)> {
    use futures::StreamExt;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await;
        match next.unwrap_or_else(|_| panic!("30 s without a message")) {
            Some(Ok(Message::Binary(data))) => return Some((data[0], data[1..].to_vec())),
            Some(Ok(Message::Close(_))) | None => return None,
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}
