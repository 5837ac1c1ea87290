//! Machines on a bridge, and nodes on them as far as discovery needs them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_catalog::{Access, Catalog};
use fluidos_discovery::{ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Features, Handle, Options, Trust, run};
use fluidos_identity::{NodeId, NodeKey};
use fluidos_link::Links;
use fluidos_model::kinds::{
    DiscoveryPolicy, DiscoveryPolicyStatus, KnownCluster, KnownClusterOffer, ObservationKind, Rating,
    RatingObservation, RatingSpec, RatingStatus, crds, names,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
use substrate_store::Store;
use tokio::sync::oneshot;

/// What a newcomer is promised.
pub const FOUND: Duration = Duration::from_secs(2);
/// Much longer than anything else here takes, also on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const PORT: u16 = 7300;
pub const CATALOG: &str = "192.0.2.3:7400";

pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("the program `ip`");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the test beside a bridge.
pub fn on_lan<F: AsyncFnOnce() + Send + 'static>(test: F) {
    let thread = std::thread::Builder::new().name("flt-lan".into()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add flt-lan type bridge");
        ip("link set flt-lan up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.unwrap().join().unwrap();
}

pub fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

/// A machine on the bridge.
pub struct Machine {
    seed: u8,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Machine {
    pub async fn new(seed: u8) -> Self {
        Self::with(seed, Some(Ipv4Addr::new(192, 0, 2, seed))).await
    }

    pub async fn with(seed: u8, v4: Option<Ipv4Addr>) -> Self {
        let (thread_id, got_thread_id) = std::sync::mpsc::channel();
        let (wired, is_wired) = std::sync::mpsc::channel();
        let (started, is_started) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            thread_id.send(nix::unistd::gettid()).unwrap();
            is_wired.recv().unwrap();
            if let Some(v4) = v4 {
                ip(&format!("address add {v4}/24 dev lan0"));
            }
            // Addresses of IPv6 are used at once, without asking whether somebody has them.
            ip(&format!("address add fd00:db8::{seed}/64 dev lan0 nodad"));
            ip("link set lan0 up");
            ip("link set lo up");
            // A bridge of pods, as every node has one: an address that nobody else reaches, and smaller than the LAN's.
            ip("link add sb-pods type bridge");
            ip(&format!("address add 100.64.{seed}.1/24 dev sb-pods"));
            ip("link set sb-pods up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            started.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(stopped);
        };
        let thread = std::thread::Builder::new().name(format!("flt-node-{seed}")).spawn(work).unwrap();
        let machine = got_thread_id.recv().unwrap();
        ip(&format!("link add flt-lan-{seed} type veth peer name lan0 netns {machine}"));
        ip(&format!("link set flt-lan-{seed} master flt-lan up"));
        wired.send(()).unwrap();
        Self { seed, runtime: is_started.await.unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    pub async fn here<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.unwrap()
    }

    pub async fn node(&self, trust: Trust) -> Node {
        self.node_on(Ipv4Addr::UNSPECIFIED.into(), trust).await
    }

    pub async fn node_on(&self, listen: IpAddr, trust: Trust) -> Node {
        let seed = self.seed;
        self.here(async move { Node::start(seed, listen, trust, "").await }).await
    }

    /// One that looks into it all the time.
    pub async fn node_of_catalog_often(&self) -> Node {
        let (seed, listen) = (self.seed, Ipv4Addr::UNSPECIFIED.into());
        let often = Some(Duration::from_millis(500));
        self.here(async move { Node::start_with(seed, listen, Trust::default(), CATALOG, None, often).await }).await
    }

    /// A node that knows a catalog and hears no multicast.
    pub async fn node_of_catalog(&self, trust: Trust) -> Node {
        let (seed, listen) = (self.seed, Ipv4Addr::UNSPECIFIED.into());
        self.here(async move { Node::start(seed, listen, trust, CATALOG).await }).await
    }

    /// A catalog, until it is aborted.
    pub async fn catalog(&self, directory: &std::path::Path) -> tokio::task::JoinHandle<()> {
        self.catalog_of(directory, vec![]).await
    }

    /// One that has members, too.
    pub async fn catalog_of(&self, directory: &std::path::Path, members: Vec<NodeId>) -> tokio::task::JoinHandle<()> {
        let (directory, tenants) = (directory.to_owned(), vec![("public".to_owned(), Access::Open)]);
        let options = fluidos_catalog::Options { directory, tenants, members };
        #[allow(clippy::async_yields_async)] // its handle is what is wanted
        self.here(async move {
            let catalog = Catalog::open(options).unwrap();
            let listener = tokio::net::TcpListener::bind(CATALOG).await.unwrap();
            let serving =
                async move { fluidos_catalog::serve(listener, &key(99), catalog, std::future::pending()).await };
            tokio::spawn(async move { serving.await.unwrap() })
        })
        .await
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "machine {} failed", self.seed);
        }
    }
}

/// A node as far as discovery needs one.
pub struct Node {
    pub id: NodeId,
    pub client: Client,
    pub links: Links,
    pub handle: Handle,
    pub running: tokio::task::JoinHandle<()>,
    pub started: Instant,
    /// What it sells.
    pub window: tokio::sync::watch::Sender<Vec<KnownClusterOffer>>,
}

impl Node {
    pub async fn start(seed: u8, listen: IpAddr, trust: Trust, catalog: &str) -> Self {
        Self::start_with(seed, listen, trust, catalog, None, None).await
    }

    /// A node whose owner names an address, and who is called from there before it looks at what its owner has named.
    pub async fn start_with(
        seed: u8,
        listen: IpAddr,
        trust: Trust,
        catalog: &str,
        named: Option<&str>,
        look: Option<Duration>,
    ) -> Self {
        let client = api().await;
        let started = Instant::now();
        let attributes = [ATTRIBUTE_REAR_PORT, ATTRIBUTE_LINK_PORT].map(|name| (name.to_owned(), PORT.to_string()));
        let listen = SocketAddr::from((listen, PORT));
        let links = Links::start(
            key(seed),
            fluidos_link::Options {
                domain: "grid.example".into(),
                attributes: attributes.into(),
                keep_alive: Duration::from_millis(300),
                idle_timeout: Duration::from_millis(1500),
                ..fluidos_link::Options::new(listen, format!("node{seed}"), 1)
            },
        )
        .unwrap();
        while named.is_some() && links.peers().is_empty() {
            assert!(started.elapsed() < DEADLINE, "nobody calls");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let handle = Handle::default();
        // One plan of the size of its number.
        let goods = KnownClusterOffer {
            name: "small/s".into(),
            type_: "K8Slice".into(),
            amounts: [("cpu".to_owned(), seed.to_string())].into(),
            price: "2 EUR/hour".into(),
            billing: "spot".into(),
            ..KnownClusterOffer::default()
        };
        let (window, offers) = tokio::sync::watch::channel(vec![goods]);
        let options = Options {
            client: client.clone(),
            caches: Caches::new(client.clone()),
            key: Arc::new(key(seed)),
            name: format!("node{seed}"),
            domain: "grid.example".into(),
            links: links.clone(),
            rear_port: PORT,
            link_port: PORT,
            peers: named.into_iter().map(str::to_owned).collect(),
            mdns: catalog.is_empty() && named.is_none(),
            catalogs: fluidos_discovery::catalog::Options {
                targets: catalog.parse().into_iter().collect(),
                look,
                ..Default::default()
            },
            trust,
            features: Features::parse(&format!("country=Italy,rack=r{seed}")).unwrap(),
            offers,
            speakers: Default::default(),
        };
        let running = run(options, handle.clone());
        let running = tokio::spawn(async move { running.await.unwrap() });
        Self { id: key(seed).id(), client, links, handle, running, started, window }
    }

    /// What it has seen of another: so often something was delivered.
    pub async fn has_dealt_with(&self, peer: NodeId, times: usize) {
        let now = jiff::Timestamp::now();
        let name = names::known_cluster(&peer.tag());
        let mut rating = Rating::new(&name, RatingSpec { did: peer.to_string(), name: String::new() });
        rating.metadata.namespace = Some(names::NAMESPACE.into());
        let api = Api::<Rating>::namespaced(self.client.clone(), names::NAMESPACE);
        api.create(&PostParams::default(), &rating).await.unwrap();
        let seen: Vec<RatingObservation> = (0..times)
            .map(|i| RatingObservation { kind: ObservationKind::Delivered, at: now.to_string(), id: i.to_string() })
            .collect();
        let status = fluidos_model::rating::observe(RatingStatus::default(), &seen, now);
        let patch = kube::api::Patch::Merge(json!({ "status": status }));
        api.patch_status(&name, &Default::default(), &patch).await.unwrap();
    }

    pub async fn known(&self) -> Vec<KnownCluster> {
        let api = Api::<KnownCluster>::namespaced(self.client.clone(), names::NAMESPACE);
        api.list(&Default::default()).await.unwrap().items
    }

    /// Applies a DiscoveryPolicy.
    pub async fn policy(&self, name: &str, spec: serde_json::Value) {
        let api = Api::<DiscoveryPolicy>::namespaced(self.client.clone(), names::NAMESPACE);
        let policy = DiscoveryPolicy::new(name, serde_json::from_value(spec).unwrap());
        api.create(&PostParams::default(), &policy).await.unwrap();
    }

    pub async fn remove_policy(&self, name: &str) {
        let api = Api::<DiscoveryPolicy>::namespaced(self.client.clone(), names::NAMESPACE);
        api.delete(name, &Default::default()).await.unwrap();
    }

    /// Waits until the policy `default` tells this.
    pub async fn policy_tells(&self, what: &str, is: impl Fn(&DiscoveryPolicyStatus) -> bool) {
        let api = Api::<DiscoveryPolicy>::namespaced(self.client.clone(), names::NAMESPACE);
        let start = Instant::now();
        loop {
            let seen = api.get_opt(names::DISCOVERY_POLICY).await.unwrap().and_then(|policy| policy.status);
            if seen.as_ref().is_some_and(&is) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; last seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One line for each known node.
    pub async fn told(&self) -> String {
        let line = |known: &KnownCluster| {
            let link = known.status.as_ref().and_then(|status| status.link.as_ref()).map(|link| link.state);
            let (spec, link) = (&known.spec, link.map_or("none".into(), |state| format!("{state:?}")));
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            let (source, trust) = (spec.source.unwrap(), spec.trust.unwrap());
            format!("{} {} {} {source:?} {trust:?} {link}\n", word(&spec.name), word(&spec.domain), spec.address)
        };
        self.known().await.iter().map(line).collect()
    }

    /// Waits until the only one that is known is this one, however its link stands.
    pub async fn finds(&self, what: &str, expected: &str) {
        let start = Instant::now();
        loop {
            let seen = self.told().await;
            if seen.lines().count() == 1 && seen.starts_with(expected) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{what}; last seen: {seen:?}; needed: {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn tells(&self, what: &str, expected: &str) -> Duration {
        let start = Instant::now();
        loop {
            let seen = self.told().await;
            if seen == expected {
                return start.elapsed();
            }
            let waited = start.elapsed();
            assert!(waited < DEADLINE, "{what}: not within {DEADLINE:?}; last seen: {seen:?}; needed: {expected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub async fn api() -> Client {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        service_cidr_v6: None,
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap().await.unwrap();
    let client = substrate_client::in_process(server.as_user(User::new("admin", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    client
}
