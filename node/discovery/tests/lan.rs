//! Nodes that find each other on a LAN by real multicast, over real links, with an API server each. Needs root.
//!
//! ```text
//!  thread flt-lan: flt-lan (bridge) ─┬─ lan0 192.0.2.1 ─ thread flt-node-1: API, Links, discovery
//!                                    ├─ lan0 192.0.2.2 ─ thread flt-node-2: the same
//!                                    └─ lan0 192.0.2.3 ─ thread flt-node-3: a stranger who forges
//! ```
//! The sockets of multicast DNS and of links belong to the namespace of the thread that opens them, so each machine is one
//! thread with a network namespace of its own; all of it is gone with the threads.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluidos_catalog::{Access, Catalog, Feedback};
use fluidos_discovery::{ATTRIBUTE_LINK_PORT, ATTRIBUTE_REAR_PORT, Features, Handle, Options, Trust, run};
use fluidos_identity::{NodeId, NodeKey};
use fluidos_link::Links;
use fluidos_model::kinds::{
    DiscoveryPolicy, DiscoveryPolicyStatus, KnownCluster, KnownClusterOffer, KnownClusterOpinion, KnownClusterSource,
    KnownClusterTrust, LinkState, MulticastState, ObservationKind, Rating, RatingObservation, RatingSpec, RatingStatus,
    crds, names,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use mdns_sd::{ServiceDaemon, ServiceInfo};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
use substrate_store::Store;
use tokio::sync::oneshot;

/// What a newcomer is promised.
const FOUND: Duration = Duration::from_secs(2);
/// Much longer than anything else here takes, also on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
const PORT: u16 = 7300;
const CATALOG: &str = "192.0.2.3:7400";

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("the program `ip`");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs the test beside a bridge.
fn on_lan<F: AsyncFnOnce() + Send + 'static>(test: F) {
    let thread = std::thread::Builder::new().name("flt-lan".into()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add flt-lan type bridge");
        ip("link set flt-lan up");
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    });
    thread.unwrap().join().unwrap();
}

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

/// A machine on the bridge.
struct Machine {
    seed: u8,
    runtime: tokio::runtime::Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Machine {
    async fn new(seed: u8) -> Self {
        Self::with(seed, Some(Ipv4Addr::new(192, 0, 2, seed))).await
    }

    async fn with(seed: u8, v4: Option<Ipv4Addr>) -> Self {
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

    async fn here<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(work).await.unwrap()
    }

    async fn node(&self, trust: Trust) -> Node {
        self.node_on(Ipv4Addr::UNSPECIFIED.into(), trust).await
    }

    async fn node_on(&self, listen: IpAddr, trust: Trust) -> Node {
        let seed = self.seed;
        self.here(async move { Node::start(seed, listen, trust, "").await }).await
    }

    /// One that looks into it all the time.
    async fn node_of_catalog_often(&self) -> Node {
        let (seed, listen) = (self.seed, Ipv4Addr::UNSPECIFIED.into());
        let often = Some(Duration::from_millis(500));
        self.here(async move { Node::start_with(seed, listen, Trust::default(), CATALOG, None, often).await }).await
    }

    /// A node that knows a catalog and hears no multicast.
    async fn node_of_catalog(&self, trust: Trust) -> Node {
        let (seed, listen) = (self.seed, Ipv4Addr::UNSPECIFIED.into());
        self.here(async move { Node::start(seed, listen, trust, CATALOG).await }).await
    }

    /// A catalog, until it is aborted.
    async fn catalog(&self, directory: &std::path::Path) -> tokio::task::JoinHandle<()> {
        self.catalog_of(directory, vec![]).await
    }

    /// One that has members, too.
    async fn catalog_of(&self, directory: &std::path::Path, members: Vec<NodeId>) -> tokio::task::JoinHandle<()> {
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
struct Node {
    id: NodeId,
    client: Client,
    links: Links,
    handle: Handle,
    running: tokio::task::JoinHandle<()>,
    started: Instant,
    /// What it sells.
    window: tokio::sync::watch::Sender<Vec<KnownClusterOffer>>,
}

impl Node {
    async fn start(seed: u8, listen: IpAddr, trust: Trust, catalog: &str) -> Self {
        Self::start_with(seed, listen, trust, catalog, None, None).await
    }

    /// A node whose owner names an address, and who is called from there before it looks at what its owner has named.
    async fn start_with(
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
    async fn has_dealt_with(&self, peer: NodeId, times: usize) {
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

    async fn known(&self) -> Vec<KnownCluster> {
        let api = Api::<KnownCluster>::namespaced(self.client.clone(), names::NAMESPACE);
        api.list(&Default::default()).await.unwrap().items
    }

    /// Applies a DiscoveryPolicy.
    async fn policy(&self, name: &str, spec: serde_json::Value) {
        let api = Api::<DiscoveryPolicy>::namespaced(self.client.clone(), names::NAMESPACE);
        let policy = DiscoveryPolicy::new(name, serde_json::from_value(spec).unwrap());
        api.create(&PostParams::default(), &policy).await.unwrap();
    }

    async fn remove_policy(&self, name: &str) {
        let api = Api::<DiscoveryPolicy>::namespaced(self.client.clone(), names::NAMESPACE);
        api.delete(name, &Default::default()).await.unwrap();
    }

    /// Waits until the policy `default` tells this.
    async fn policy_tells(&self, what: &str, is: impl Fn(&DiscoveryPolicyStatus) -> bool) {
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
    async fn told(&self) -> String {
        let line = |known: &KnownCluster| {
            let link = known.status.as_ref().and_then(|status| status.link.as_ref()).map(|link| link.state);
            let (spec, link) = (&known.spec, link.map_or("none".into(), |state| format!("{state:?}")));
            let word = |text: &Option<String>| text.clone().unwrap_or_default();
            let (source, trust) = (spec.source.unwrap(), spec.trust.unwrap());
            format!("{} {} {} {source:?} {trust:?} {link}\n", word(&spec.name), word(&spec.domain), spec.address)
        };
        self.known().await.iter().map(line).collect()
    }

    async fn tells(&self, what: &str, expected: &str) -> Duration {
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

async fn api() -> Client {
    let server = ApiServer::new(ApiOptions {
        store: Store::memory().unwrap(),
        service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
        tokens: Tokens::default(),
        proxies: NodeProxies::default(),
        admission: Vec::new(),
        version: "v1.34.0".into(),
    })
    .unwrap();
    server.bootstrap(None).await.unwrap();
    let client = substrate_client::in_process(server.as_user(User::new("admin", &["system:masters"])));
    for crd in crds() {
        Api::all(client.clone()).create(&PostParams::default(), &crd).await.unwrap();
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(names::NAMESPACE.into());
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    client
}

/// Announces that `id` is at this machine, with a signature that is nobody's.
fn forge(instance: &str, id: NodeId) -> ServiceDaemon {
    let daemon = ServiceDaemon::new().unwrap();
    let signature = "A".repeat(86);
    let did = id.to_string();
    let port = PORT.to_string();
    let fields = [
        ("v", "1"),
        ("did", &did),
        ("name", "forged"),
        ("domain", "x"),
        ("rear", &port),
        ("link", &port),
        ("sig", &signature),
    ];
    let service =
        ServiceInfo::new("_fluidos._udp.local.", instance, &format!("{instance}.local."), (), PORT, &fields[..]);
    let mut service = service.unwrap().enable_addr_auto();
    service.set_requires_probe(false);
    daemon.register(service).unwrap();
    daemon
}

#[test]
fn nodes_on_a_lan_find_each_other_and_nobody_else() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let a = one.node(Trust { known: true, lan: true, ..Trust::default() }).await;
        let b = two.node(Trust { known: true, ..Trust::default() }).await;
        let (at_a, at_b) = (
            "node2 grid.example 192.0.2.2:7300 Multicast Trusted Up\n",
            "node1 grid.example 192.0.2.1:7300 Multicast Untrusted Up\n",
        );
        a.tells("A finds B", at_a).await;
        b.tells("B finds A", at_b).await;
        let found = b.started.elapsed();
        println!("found and linked after {found:?}");
        assert!(found < FOUND, "{found:?}");
        assert_eq!(a.known().await[0].spec.did, Some(b.id.to_string()));
        assert_eq!(a.links.get(&b.id).map(|session| session.peer().name.clone()).as_deref(), Some("node2"));

        // A stranger takes nobody's place and is nobody: not under A's instance, nor under one of its own.
        let (of_a, nobody) = (a.id, key(9).id());
        let forging = three.here(async move { [forge("intruder", of_a), forge(&nobody.tag(), nobody)] }).await;
        let start = Instant::now();
        loop {
            let rejected = b.handle.rejected();
            let seen = |id: NodeId| rejected.iter().any(|r| r.reason.contains(&format!("not signed by {id}")));
            if seen(a.id) && seen(nobody) {
                break;
            }
            assert!(start.elapsed() < DEADLINE, "the forged ones are rejected; last seen: {rejected:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for daemon in forging {
            let _ = daemon.shutdown();
        }
        assert_eq!((a.told().await.as_str(), b.told().await.as_str()), (at_a, at_b));

        // A cable that is pulled is no good-bye: B is called until it answers.
        ip("link set flt-lan-2 down");
        a.tells("B is down", &at_a.replace("Up", "Down")).await;
        let left = || async {
            let until: jiff::Timestamp = a.known().await[0].status.clone().unwrap().expiration_time.parse().unwrap();
            until.duration_since(jiff::Timestamp::now()).as_secs()
        };
        // However long the link was up before.
        assert!((100..=120).contains(&left().await), "{}", left().await);
        ip("link set flt-lan-2 up");
        a.tells("B is back", at_a).await;
        b.tells("A is back", at_b).await;

        // B says good-bye and is forgotten, not after its time but at the next look.
        b.running.abort();
        let (links, client) = (b.links.clone(), b.client.clone());
        two.here(async move { links.stop().await }).await;
        let gone = a.tells("B is forgotten", "").await;
        println!("forgotten after {gone:?}");
        drop(client);
        let start = Instant::now();
        while !a.links.dials().is_empty() {
            assert!(start.elapsed() < DEADLINE, "B is called no more; last seen: {:?}", a.links.dials());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_policy_drops_candidates_and_takes_them_again() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let a = one.node(Trust { known: true, ..Trust::default() }).await;
        a.policy("french", json!({"incoming": {"matchLabels": {"country": "France"}}})).await;
        let b = two.node(Trust { known: true, ..Trust::default() }).await;
        b.tells("B finds A", "node1 grid.example 192.0.2.1:7300 Multicast Untrusted Up\n").await;
        a.policy_tells("A says whom it did not take, and why", |status| {
            status.rejected.iter().any(|r| {
                r.peer == format!("node2 {}", b.id) && r.reason == "policy french: country is Italy, needed France"
            })
        })
        .await;
        assert_eq!(a.told().await, "");
        // The rule is gone: B is taken when it is heard again, which is when it announces something new.
        a.remove_policy("french").await;
        b.policy("more", json!({"outgoing": {"features": ["country", "hardware"], "labels": {"hardware": "lidar"}}}))
            .await;
        let at_a = "node2 grid.example 192.0.2.2:7300 Multicast Untrusted Up\n";
        a.tells("A finds B", at_a).await;
        let start = Instant::now();
        while a.known().await[0].spec.features != ["country=Italy", "hardware=lidar"] {
            assert!(start.elapsed() < DEADLINE, "last seen: {:?}", a.known().await[0].spec.features);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(a.known().await[0].metadata.labels.as_ref().unwrap()["feature.fluidos.eu/hardware"], "lidar");
        a.policy_tells("nobody is rejected any more", |status| {
            let multicast = status.multicast.as_ref();
            multicast.is_some_and(|m| m.state == MulticastState::Announcing && m.heard == 1)
        })
        .await;
        // A rule that comes later drops who is there already.
        a.policy("with-tee", json!({"incoming": {"matchExpressions": [{"key": "tee", "operator": "Exists"}]}})).await;
        a.tells("B is dropped", "").await;
        // Nothing is announced any more, and A forgets nothing that a link shows to live.
        b.policy("quiet", json!({"outgoing": {"approaches": ["Catalog"]}})).await;
        b.policy_tells("B only listens", |status| {
            status.multicast.as_ref().is_some_and(|m| m.state == MulticastState::Listening)
        })
        .await;
    });
}

#[test]
fn nodes_find_each_other_where_there_is_only_ipv6() {
    on_lan(async || {
        let (one, two) = (Machine::with(1, None).await, Machine::with(2, None).await);
        let listen = Ipv6Addr::UNSPECIFIED.into();
        let a = one.node_on(listen, Trust { known: true, lan: true, ..Trust::default() }).await;
        let b = two.node_on(listen, Trust { known: true, ..Trust::default() }).await;
        a.tells("A finds B", "node2 grid.example [fd00:db8::2]:7300 Multicast Trusted Up\n").await;
        b.tells("B finds A", "node1 grid.example [fd00:db8::1]:7300 Multicast Untrusted Up\n").await;
    });
}

#[test]
fn who_is_behind_no_multicast_is_found_by_its_call() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let a = one.node(Trust { known: true, lan: true, ..Trust::default() }).await;
        // Only A's cable lets multicast pass: B hears nothing and is not heard, and has A's address by hand.
        let b = two
            .here(async {
                let links = Links::start(
                    key(2),
                    fluidos_link::Options {
                        attributes: [(ATTRIBUTE_REAR_PORT.to_owned(), PORT.to_string())].into(),
                        ..fluidos_link::Options::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)), "node2", 1)
                    },
                )
                .unwrap();
                links.dial(SocketAddr::from(([192, 0, 2, 1], PORT)), None);
                links
            })
            .await;
        a.tells("A is called", "node2  192.0.2.2:7300 Inbound Untrusted Up\n").await;
        let known = a.known().await.remove(0);
        assert_eq!(known.spec.source, Some(KnownClusterSource::Inbound));
        assert_eq!(known.spec.trust, Some(KnownClusterTrust::Untrusted));
        assert_eq!(known.status.unwrap().link.unwrap().state, LinkState::Up);
        two.here(async move { b.stop().await }).await;
        // Nobody announced it, so it does not end by itself.
        a.tells("B is down", "node2  192.0.2.2:7300 Inbound Untrusted Down\n").await;
    });
}

#[test]
fn who_is_named_by_its_owner_and_calls_first_is_who_is_named() {
    on_lan(async || {
        let (one, two) = (Machine::new(1).await, Machine::new(2).await);
        let b = two
            .here(async {
                let attributes =
                    [ATTRIBUTE_REAR_PORT, ATTRIBUTE_LINK_PORT].map(|name| (name.to_owned(), PORT.to_string()));
                let options = fluidos_link::Options::new(SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)), "node2", 1);
                let links =
                    Links::start(key(2), fluidos_link::Options { attributes: attributes.into(), ..options }).unwrap();
                links.dial(SocketAddr::from(([192, 0, 2, 1], PORT)), None);
                links
            })
            .await;
        let trust = Trust { known: true, ..Trust::default() };
        let listen = Ipv6Addr::UNSPECIFIED.into();
        let named = "[fd00:db8::2]:7300";
        let a = one.here(async move { Node::start_with(1, listen, trust, "", Some(named), None).await }).await;
        // It calls from another address than the one that is named: it is a caller like any other until A's own call has led to it.
        a.tells("A's call leads to B", "node2  [fd00:db8::2]:7300 Static Trusted Up\n").await;
        two.here(async move { b.stop().await }).await;
    });
}

#[test]
fn nodes_find_each_other_by_a_catalog_alone_and_need_it_no_more() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let directory = tempfile::tempdir().unwrap();
        let catalog = three.catalog(directory.path()).await;
        let a = one.node_of_catalog(Trust { keys: vec![key(2).id()], lan: true, ..Trust::default() }).await;
        let b = two.node_of_catalog(Trust { known: true, lan: true, ..Trust::default() }).await;
        // A looked before B was there; the second look is half a minute later, but B's call comes first.
        let at_b = "node1 grid.example 192.0.2.1:7300 Catalog Untrusted Up\n";
        b.tells("B finds A in the catalog, which gives no trust", at_b).await;
        a.tells("A is called", "node2 grid.example 192.0.2.2:7300 Inbound Trusted Up\n").await;
        // A policy drops who is listed, and takes it again when it is gone.
        b.policy("french", json!({"incoming": {"matchLabels": {"country": "France"}}})).await;
        b.tells("A is dropped", "").await;
        b.remove_policy("french").await;
        b.tells("A is taken again", at_b).await;
        // The catalog dies. Nobody is forgotten, and who is away is called until it answers.
        catalog.abort();
        ip("link set flt-lan-1 down");
        b.tells("A is down", &at_b.replace("Up", "Down")).await;
        ip("link set flt-lan-1 up");
        b.tells("A is back", at_b).await;
    });
}

#[test]
fn what_is_sold_is_told_in_catalogs_and_taken_back_and_killing_the_catalog_harms_nobody() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let directory = tempfile::tempdir().unwrap();
        let catalog = three.catalog(directory.path()).await;
        let a = one.node_of_catalog_often().await;
        let b = two.node_of_catalog_often().await;
        let sold = async || {
            let known = b.known().await;
            let of_a = known.into_iter().find(|known| known.spec.did == Some(a.id.to_string()));
            let offers = of_a.as_ref().map(|known| known.spec.offers.clone()).unwrap_or_default();
            let labels = of_a.and_then(|known| known.metadata.labels).unwrap_or_default();
            let spot =
                labels.contains_key("billing.fluidos.eu/spot") && labels.contains_key("offer.fluidos.eu/K8Slice");
            let lines = offers.iter().map(|o| {
                format!("{} {} cpu={} {} {} from {}\n", o.type_, o.name, o.amounts["cpu"], o.price, o.billing, o.from)
            });
            (lines.collect::<String>(), spot)
        };
        let wait = async |what: &str, needed: &str| {
            let start = Instant::now();
            while sold().await != (needed.to_owned(), !needed.is_empty()) {
                let seen = sold().await;
                assert!(start.elapsed() < DEADLINE, "{what}; last seen: {seen:?}; needed: {needed:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let of_a = "K8Slice small/s cpu=1 2 EUR/hour spot from 192.0.2.3:7400/public\n";
        wait("B sees what A sells", of_a).await;

        // More of the same is no news; another price is.
        let sells = |price: &str, cpu: &str| {
            a.window.send_modify(|goods| {
                goods[0].price = price.into();
                goods[0].amounts.insert("cpu".into(), cpu.into());
            });
        };
        sells("3 EUR/hour", "7");
        wait("B sees the new price", &of_a.replace("2 EUR", "3 EUR").replace("cpu=1", "cpu=7")).await;

        // Its owner keeps the window shut.
        a.policy("discreet", json!({"outgoing": {"offers": false}})).await;
        wait("A says nothing any more", "").await;
        a.remove_policy("discreet").await;
        wait("and says it again", &of_a.replace("2 EUR", "3 EUR").replace("cpu=1", "cpu=7")).await;

        catalog.abort();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(sold().await.1, "what is known stays without the catalog");
    });
}

#[test]
fn a_good_sellers_name_travels_and_a_thousand_liars_do_not_change_it() {
    on_lan(async || {
        let (one, two, three) = (Machine::new(1).await, Machine::new(2).await, Machine::new(3).await);
        let liar = |number: u32| {
            let mut seed = [200; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            NodeKey::from_seed(seed).unwrap()
        };
        let directory = tempfile::tempdir().unwrap();
        // They have even bought places in the catalog.
        let _catalog = three.catalog_of(directory.path(), (0..1000).map(|number| liar(number).id()).collect()).await;
        let seller = key(40).id();
        let feedback = |author: &NodeKey, about: NodeId, value: u16| {
            let said = Feedback { version: 1, author: author.id(), about, value, observations: 1_000_000, sequence: 1 };
            fluidos_catalog::seal(author, said).unwrap()
        };
        three
            .here(async move {
                let mut client = fluidos_catalog::Client::new(&key(40), CATALOG, "public", None).unwrap();
                let announcement = fluidos_catalog::Announcement {
                    version: 1,
                    did: seller,
                    name: "mill".into(),
                    domain: "mill.example".into(),
                    addresses: vec!["192.0.2.3".into()],
                    rear_port: PORT,
                    link_port: PORT,
                    features: [("sells".to_owned(), "compute".to_owned())].into(),
                    offers: vec![],
                    sequence: 1,
                    lifetime_seconds: 3600,
                };
                client.announce(&fluidos_catalog::seal(&key(40), announcement).unwrap()).await.unwrap();
                // Nobody says anything in another's name, nor does the catalog take what was signed for something else.
                assert!(client.say(&feedback(&liar(0), seller, 1000)).await.is_err(), "it is sent by another");
                for number in 0..1000 {
                    let liar = liar(number);
                    let mut client = fluidos_catalog::Client::new(&liar, CATALOG, "public", None).unwrap();
                    let start = Instant::now();
                    while let Err(error) = client.say(&feedback(&liar, seller, 0)).await {
                        assert!(start.elapsed() < DEADLINE, "{error}"); // it counts requests of an address
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            })
            .await;

        let a = one.node_of_catalog_often().await;
        a.has_dealt_with(seller, 20).await;
        let authors = async || {
            three
                .here(async move {
                    let mut reader = fluidos_catalog::Client::new(&key(50), CATALOG, "public", None).unwrap();
                    let opinions = reader.opinions(seller).await.unwrap();
                    (opinions.len(), opinions.into_iter().find(|said| said.author == key(1).id()))
                })
                .await
        };
        tokio::time::sleep(Duration::from_secs(7)).await; // longer than discovery needs to look at ratings
        assert_eq!(authors().await, (1000, None), "whose customer it is is nobody's business");
        a.policy("frank", json!({"outgoing": {"opinions": true}})).await;
        let start = Instant::now();
        let said = loop {
            if let (1001, Some(said)) = authors().await {
                break said;
            }
            assert!(start.elapsed() < DEADLINE, "A says how it has fared; last seen: {:?}", authors().await.0);
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        assert_eq!((said.value, said.observations), (1000, 10), "not how often");

        let b = two.node_of_catalog_often().await;
        b.has_dealt_with(a.id, 20).await;
        let heard = async || {
            let known = b.known().await.into_iter().find(|known| known.spec.did == Some(seller.to_string()));
            known.and_then(|known| known.status).map(|status| status.opinions).unwrap_or_default()
        };
        let start = Instant::now();
        while heard().await.is_empty() {
            assert!(start.elapsed() < DEADLINE, "B hears of it");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let needed = KnownClusterOpinion {
            author: a.id.to_string(),
            value: 1000,
            observations: 10,
            from: format!("{CATALOG}/public"),
        };
        assert_eq!(heard().await, [needed], "of 1,001 one is known here");
    });
}

#[test]
fn a_node_that_stops_takes_itself_out_of_the_catalog() {
    on_lan(async || {
        let (one, three) = (Machine::new(1).await, Machine::new(3).await);
        let directory = tempfile::tempdir().unwrap();
        let _catalog = three.catalog(directory.path()).await;
        let a = one.node_of_catalog(Trust::default()).await;
        let listed = async || {
            three
                .here(async {
                    let mut reader = fluidos_catalog::Client::new(&key(50), CATALOG, "public", None).unwrap();
                    reader.list(None).await.unwrap().unwrap().announcements.len()
                })
                .await
        };
        let wait = async |needed: usize| {
            let start = Instant::now();
            while listed().await != needed {
                assert!(start.elapsed() < DEADLINE, "needed {needed} announcements");
                tokio::time::sleep(Duration::from_millis(200)).await; // the catalog counts requests
            }
        };
        wait(1).await;
        a.handle.withdraw().await;
        wait(0).await;
    });
}
