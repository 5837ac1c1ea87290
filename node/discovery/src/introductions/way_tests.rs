//! The way from what a peer shows to what its KnownCluster says, with the document of its owner's domain fetched between them: two links, the
//! API, and a web server, all on loopback.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fluidos_identity::{CredentialDraft, CredentialKind, DidWeb, NodeId, NodeKey, Presentation, TrustedIssuers};
use fluidos_link::Links;
use fluidos_model::kinds::{
    KnownCluster, KnownClusterIdentity, KnownClusterSource, KnownClusterSpec, KnownClusterTrust, crds, names,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
use substrate_store::Store;

use super::web::tests::{http, server};
use super::{Options, open, present, web};

const DOMAIN: &str = "farm.example";
/// Much longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);
const OWN: u8 = 1;
const PEER: u8 = 2;
const OWNER: u8 = 10;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

async fn api() -> Client {
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

/// What a node shows whose owner says that it is its own, and of this domain.
fn presentation() -> Vec<u8> {
    let now = Timestamp::now();
    let draft = CredentialDraft {
        kind: CredentialKind::NodeOwnership,
        subject: key(PEER).id(),
        claims: [("domain".to_owned(), DOMAIN.to_owned())].into(),
        valid_from: now - SignedDuration::from_hours(1),
        valid_until: now + SignedDuration::from_hours(1),
        status: None,
    };
    let credentials = vec![draft.sign(&key(OWNER)).unwrap().text().to_owned()];
    Presentation { credentials, ..Presentation::default() }.to_bytes().unwrap()
}

/// A node that introduces itself, and a peer of it.
struct Pair {
    known: Api<KnownCluster>,
    /// How often the domain was asked for.
    asked: Arc<AtomicUsize>,
    running: tokio::task::JoinHandle<()>,
    own: Links,
    peer: Links,
}

impl Pair {
    /// The peer shows itself; the domain of its owner answers that it is of `names`, and `trusts` says whether the owner is believed.
    async fn meet(names: NodeId, trusts: bool) -> Self {
        let client = api().await;
        let node = |seed: u8| {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            Links::start(key(seed), fluidos_link::Options::new(listen, format!("flt-{seed}"), 1)).unwrap()
        };
        let (own, peer) = (node(OWN), node(PEER));
        let document = format!("did:web:{DOMAIN}").parse::<DidWeb>().unwrap().document(&names).to_string();
        let (address, root) = server(DOMAIN, http("200 OK", &document)).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let counts = asked.clone();
        let resolve: web::Names = Arc::new(move |_| {
            counts.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { Ok(vec![address]) })
        });
        let mut trusted = TrustedIssuers::default();
        if trusts {
            trusted.trust_owner(key(OWNER).id());
        }
        let directory = tempfile::Builder::new().prefix("flt-way-").tempdir().unwrap();
        let options = Options {
            client: client.clone(),
            caches: Caches::new(client.clone()),
            links: own.clone(),
            own: key(OWN).id(),
            directory: directory.path().to_owned(),
            trusted,
            speakers: Default::default(),
            web: Some(web::Options { private: true, roots: vec![root], names: Some(resolve) }),
            position: None,
        };
        let introductions = open(options).await.unwrap();
        let running = tokio::spawn(async move {
            let _kept = directory;
            introductions.run().await;
        });
        let known = Api::<KnownCluster>::namespaced(client, names::NAMESPACE);
        let spec = KnownClusterSpec {
            address: "127.0.0.1:1".into(),
            did: Some(key(PEER).id().to_string()),
            source: Some(KnownClusterSource::Multicast),
            trust: Some(KnownClusterTrust::Untrusted),
            ..KnownClusterSpec::default()
        };
        let name = names::known_cluster(&key(PEER).id().tag());
        known.create(&PostParams::default(), &KnownCluster::new(&name, spec)).await.unwrap();
        peer.dial(own.local_address().unwrap(), Some(key(OWN).id()));
        let start = Instant::now();
        while peer.get(&key(OWN).id()).is_none() {
            assert!(start.elapsed() < DEADLINE, "there is no link; {:?}", peer.dials());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        present(&peer.get(&key(OWN).id()).unwrap(), &presentation()).await.unwrap();
        Self { known, asked, running, own, peer }
    }

    /// Waits until what is known of who the peer is, is like this.
    async fn tells(&self, what: &str, is: impl Fn(&KnownClusterIdentity) -> bool) -> KnownClusterIdentity {
        let (start, name) = (Instant::now(), names::known_cluster(&key(PEER).id().tag()));
        loop {
            let seen = self.known.get(&name).await.unwrap().status.and_then(|status| status.identity);
            if let Some(identity) = seen.as_ref().filter(|identity| is(identity)) {
                return identity.clone();
            }
            assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}; last seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn end(self) {
        self.running.abort();
        self.own.stop().await;
        self.peer.stop().await;
    }
}

#[tokio::test]
async fn the_domain_that_a_trusted_owner_claims_is_asked_and_then_it_is_proven() {
    let pair = Pair::meet(key(OWNER).id(), true).await;
    let identity = pair.tells("the domain is proven", |identity| identity.domain.is_some()).await;
    let (owner, domain) = (identity.owner.unwrap(), identity.domain.unwrap());
    assert_eq!((owner.value, domain.value.as_str()), (key(OWNER).id().to_string(), DOMAIN));
    let until: Timestamp = domain.until.parse().unwrap();
    assert!(until <= Timestamp::now() + SignedDuration::from_hours(1), "no longer than the owner vouches: {until}");
    assert_eq!((identity.notes, pair.asked.load(Ordering::SeqCst)), (vec![], 1));
    pair.end().await;
}

#[tokio::test]
async fn a_domain_that_names_another_proves_nothing_and_the_entry_says_so() {
    let pair = Pair::meet(key(11).id(), true).await;
    let noted =
        |identity: &KnownClusterIdentity| identity.notes.iter().any(|note| note.contains("its did:web document"));
    let identity = pair.tells("why the domain is not proven", noted).await;
    assert!(identity.owner.is_some() && identity.domain.is_none(), "{identity:?}");
    pair.end().await;
}

#[tokio::test]
async fn a_stranger_cannot_make_this_node_ask_anybody() {
    let pair = Pair::meet(key(OWNER).id(), false).await;
    let identity = pair.tells("who it is", |identity| !identity.notes.is_empty()).await;
    assert!(identity.owner.is_none() && identity.domain.is_none(), "{identity:?}");
    // A look later, too.
    tokio::time::sleep(super::TICK + Duration::from_millis(500)).await;
    assert_eq!(pair.asked.load(Ordering::SeqCst), 0);
    pair.end().await;
}
