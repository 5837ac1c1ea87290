//! The real kubectl, against a server of its own over TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use substrate_apiserver::tls::{Authority, serve};
use tokio::process::Command;

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
}
