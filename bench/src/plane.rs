//! A control plane as processes of their own, on loopback: ours, or upstream's beside it.
//!
//! ```text
//! ours       fluidos-bench serve      API server and store, as a node has them
//! upstream   etcd ◀── kube-apiserver  v1.20.2, built by cargo xtask bench from Debian's source
//! bound      fluidos-bench bound      a sync for each request and nothing else
//! ```
//! Both take client certificates of one authority, sync what they acknowledge, and run without controllers and without schedulers: those
//! are started by who measures them. A process ends with the [`Plane`] that started it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use substrate_apiserver::auth::Tokens;
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::tls::{self, Authority};
use substrate_apiserver::{ApiServer, Options};
use substrate_store::Store;
use tokio::net::TcpListener;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::wire::{Address, Wire};

const START_LIMIT: Duration = Duration::from_secs(60);

/// Its processes, first started first, in a directory of their own.
pub struct Plane {
    pub name: &'static str,
    processes: Vec<(String, Child)>,
    directory: tempfile::TempDir,
    authority: Authority,
    port: u16,
    /// Where etcd listens, at upstream's.
    pub etcd: Option<Address>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        for (_, process) in self.processes.iter_mut().rev() {
            // What has ended already needs no end.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Plane {
    fn new(name: &'static str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("flt-bench-").tempdir()?;
        let authority = Authority::open(directory.path())?;
        Ok(Self { name, processes: Vec::new(), directory, authority, port: free_port()?, etcd: None })
    }

    /// Ours: this program again.
    pub async fn ours() -> Result<Self> {
        Self::of_this("ours", "serve").await
    }

    /// What does nothing but sync ([`crate::api::bound`]).
    pub async fn bound() -> Result<Self> {
        Self::of_this("bound", "bound").await
    }

    async fn of_this(name: &'static str, command: &str) -> Result<Self> {
        let mut plane = Self::new(name)?;
        let mut serve = Command::new(std::env::current_exe()?);
        serve.arg(command).arg("--directory").arg(plane.directory.path()).arg("--port").arg(plane.port.to_string());
        plane.start(command, serve)?;
        plane.ready().await?;
        Ok(plane)
    }

    /// etcd from the machine, kube-apiserver from `binaries`.
    pub async fn upstream(binaries: &Path) -> Result<Self> {
        let mut plane = Self::new("upstream")?;
        let at = |name: &str| plane.directory.path().join(name).display().to_string();
        let server = plane.authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"])?;
        std::fs::write(at("server.crt"), &server.certificate_pem)?;
        tls::write_private(Path::new(&at("server.key")), server.key_pem.as_bytes())?;
        std::fs::write(at("ca.pem"), &plane.authority.certificate_pem)?;
        let (client, peer) = (free_port()?, free_port()?);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut etcd = Command::new("etcd");
        etcd.args(["--data-dir", &at("etcd"), "--listen-client-urls", &url(client), "--advertise-client-urls"]);
        etcd.args([&url(client), "--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
        etcd.args(["--initial-cluster", &format!("default={}", url(peer)), "--quota-backend-bytes", "8589934592"]);
        let mut apiserver = Command::new(binaries.join("kube-apiserver"));
        apiserver.args([
            format!("--etcd-servers={}", url(client)),
            format!("--secure-port={}", plane.port),
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
            // There is no controller that makes accounts, or that takes the taint of a new node away.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition".into(),
            // Ours has no bound for all clients either.
            "--max-requests-inflight=4000".into(),
            "--max-mutating-requests-inflight=2000".into(),
            "--enable-priority-and-fairness=false".into(),
        ]);
        plane.etcd = Some(Address { port: client, tls: None });
        plane.start("etcd", etcd)?;
        plane.start("kube-apiserver", apiserver)?;
        plane.ready().await?;
        Ok(plane)
    }

    /// Starts one more process of it, whose output goes to a file beside it.
    pub fn start(&mut self, name: &str, mut command: Command) -> Result<()> {
        let log = std::fs::File::create(self.directory.path().join(format!("{name}.log")))?;
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.processes.push((name.to_owned(), process.with_context(|| format!("start {name}"))?));
        Ok(())
    }

    /// Ends the process that was started last.
    pub fn stop_last(&mut self) -> Result<()> {
        let (_, mut process) = self.processes.pop().context("nothing runs")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let address = self.address("admin")?;
        loop {
            // Classes of priority are the last that upstream makes for itself.
            let path = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
            let answer = async { Wire::open(&address).await?.ask("GET", path, Bytes::new()).await }.await;
            let Err(error) = answer else { return Ok(()) };
            for (name, process) in &mut self.processes {
                if let Some(status) = process.try_wait()? {
                    let log = std::fs::read_to_string(self.directory.path().join(format!("{name}.log")))?;
                    bail!("{name} has ended, {status}: {log}");
                }
            }
            if begun.elapsed() > START_LIMIT {
                return Err(error.context(format!("{} does not answer within {START_LIMIT:?}", self.name)));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Its API, for a user of that name who may do everything.
    pub fn address(&self, user: &str) -> Result<Address> {
        let identity = self.authority.client(user, &["system:masters"])?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate_pem.as_bytes())?)?;
        let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?;
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Address { port: self.port, tls: Some(Arc::new(config)) })
    }

    /// A kubeconfig of that user.
    pub fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        let identity = self.authority.client(user, &["system:masters"])?;
        let at = |name: &str| self.directory.path().join(name);
        let (certificate, key) = (at(&format!("{user}.crt")), at(&format!("{user}.key")));
        std::fs::write(at("ca.pem"), &self.authority.certificate_pem)?;
        std::fs::write(&certificate, identity.certificate_pem)?;
        tls::write_private(&key, identity.key_pem.as_bytes())?;
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port), "certificate-authority": at("ca.pem")}}],
            "users": [{"name": "bench", "user": {"client-certificate": certificate, "client-key": key}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        let path = at(&format!("{user}.kubeconfig"));
        std::fs::write(&path, text.to_string())?;
        Ok(path)
    }

    /// What its processes have in memory: the sum of their proportional set sizes, in bytes (proc(5), `smaps_rollup`).
    pub fn memory(&self) -> Result<u64> {
        self.processes.iter().map(|(_, process)| proportional_set_size(process.id())).sum()
    }
}

/// Bytes of one process, shared pages divided by those that share them.
pub fn proportional_set_size(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Our API server over a store, as a node has it.
pub fn api_server(store: Store) -> Result<ApiServer> {
    Ok(ApiServer::new(Options {
        store,
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })?)
}

/// Our API server over a store in `directory`, until the process is ended.
pub async fn serve(directory: &Path, port: u16) -> Result<()> {
    let server = api_server(Store::open(&directory.join("store"))?)?;
    server.bootstrap().await?;
    let authority = Authority::open(directory)?;
    let identity = authority.server(&[IpAddr::V4(Ipv4Addr::LOCALHOST)], &["localhost"])?;
    let config = Arc::new(authority.server_config(&identity)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tls::serve(server, listener, config).await;
    Ok(())
}
