//! A node: its parts, composed. Rooms do not know each other; they are introduced here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use substrate_apiserver::auth::Tokens;
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options, tls};
use substrate_store::Store;
use tokio::net::TcpListener;

use crate::cli::Up;

/// The Kubernetes version whose API this is.
const VERSION: &str = "v1.34.0";
const SERVICE_CIDR: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 96, 0, 0), 16);

/// Runs a node until a signal ends it.
pub fn up(up: &Up) -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("FLUIDOS_LOG").unwrap_or_else(|_| "info".into()))
        .init();
    data_dir(&up.data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run(up))
}

async fn run(up: &Up) -> Result<()> {
    let directory = &up.data_dir;
    let store = Store::open(&directory.join("store")).with_context(|| format!("--data-dir {}", directory.display()))?;
    let listener = TcpListener::bind(up.api).await.with_context(|| format!("--api {}: cannot listen", up.api))?;
    let address = listener.local_addr()?;
    let server = ApiServer::new(Options {
        store,
        service_cidr: SERVICE_CIDR,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: VERSION.into(),
    })?;
    server.bootstrap(None).await?;
    let authority = tls::Authority::open(&directory.join("pki"))?;
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), address.ip()];
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let config = authority.server_config(&authority.server(&addresses, &names)?)?;
    kubeconfig(directory, &up.name, address, &authority)?;
    let _serving = tokio::spawn(tls::serve(server, listener, Arc::new(config)));
    println!("ready name={} api=https://{address} kubeconfig={}", up.name, directory.join("kubeconfig").display());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}

/// Makes the node's directory, which only its owner may enter.
fn data_dir(path: &Path) -> Result<()> {
    if !path.exists() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("--data-dir {}: cannot make it", path.display()))?;
    }
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(
            "--data-dir {} has mode {mode:03o} and others could read the node's key; run: chmod 700 {0}",
            path.display()
        );
    }
    Ok(())
}

/// Writes the owner's way in.
fn kubeconfig(directory: &Path, name: &str, address: SocketAddr, authority: &tls::Authority) -> Result<()> {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    let admin = authority.client("admin", &["system:masters"])?;
    let data = |pem: &str| base64(pem.as_bytes());
    let config = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{}", SocketAddr::new(ip, address.port())),
            "certificate-authority-data": data(&authority.certificate_pem) } }],
        "users": [{ "name": name, "user": {
            "client-certificate-data": data(&admin.certificate_pem), "client-key-data": data(&admin.key_pem) } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
    });
    let text = serde_json::to_vec_pretty(&config)?;
    tls::write_private(&directory.join("kubeconfig"), &text).context("kubeconfig")
}

fn base64(bytes: &[u8]) -> String {
    use k8s_openapi::ByteString;
    serde_json::to_value(ByteString(bytes.to_vec()))
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default()
}
