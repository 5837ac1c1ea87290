//! Peers that lie, repeat themselves, or ask for what is not theirs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use engine_images::{Admitted, Caller, Credential, Found, Reference};
use fluidos_identity::{NodeKey, jws_sign};
use fluidos_link::{LinkStream, Links};
use fluidos_model::kinds::KnownCluster;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::*;

/// A provider that works as it should, and peers that only have keys and links.
struct Stage {
    grid: Side,
    farm: Side,
    eve: Side,
}

impl Stage {
    async fn new() -> Self {
        let mut grid = Side::start("grid", 2).await;
        grid.start_machine();
        let (farm, eve) = (Side::bare("farm", 1).await, Side::bare("eve", 3).await);
        for peer in [&farm, &eve] {
            peer.links.dial(grid.address, Some(grid.links.id()));
            let up =
                || async { peer.links.get(&grid.links.id()).is_some() && grid.links.get(&peer.links.id()).is_some() };
            until("the link", up, |up| *up).await;
        }
        let stage = Self { grid, farm, eve };
        for (name, peer) in [(CONTRACT, &stage.farm), ("contract-eve", &stage.eve)] {
            stage.grid.contract(&contract(name, peer.links.id(), stage.grid.links.id(), "1", "1Gi", "5")).await;
        }
        // The fabric has seen them when a stream is taken.
        for (name, peer) in [(CONTRACT, &stage.farm), ("contract-eve", &stage.eve)] {
            let taken = || async {
                let mut stream = Stream::open(&peer.links, &stage.grid, name).await;
                stream.send(&stage.envelope(&peer.key, name, 0, 0, json!({"begin": {"pods": []}}))).await;
                stream.send(&stage.envelope(&peer.key, name, 0, 1, json!("synced"))).await;
                stream.read().await
            };
            // Sequences 0.0 and 0.1 are used once; tried again they are refused as such, which is an answer too.
            until("the contract is known", taken, |said| {
                *said == json!("ready") || said.to_string().contains("not newer")
            })
            .await;
        }
        stage
    }

    /// What a consumer sends, with any part of it chosen.
    fn envelope(&self, signer: &NodeKey, contract: &str, epoch: u64, sequence: u64, change: Value) -> Value {
        let consumer = if contract == CONTRACT { self.farm.links.id() } else { self.eve.links.id() };
        let desired = json!({"contract": contract, "consumer": consumer, "provider": self.grid.links.id(),
            "epoch": epoch, "sequence": sequence, "change": change});
        let bytes = serde_json::to_vec(&desired).unwrap();
        let signature = jws_sign(signer, "fluidos-desired-1", &bytes).unwrap();
        json!({"purpose": "fluidos-desired-1", "payload": URL_SAFE_NO_PAD.encode(bytes), "signatures": [signature]})
    }

    async fn farm(&self) -> Stream {
        Stream::open(&self.farm.links, &self.grid, CONTRACT).await
    }

    fn good(&self, epoch: u64, sequence: u64, change: Value) -> Value {
        self.envelope(&self.farm.key, CONTRACT, epoch, sequence, change)
    }
}

struct Stream(LinkStream);

impl Stream {
    async fn open(from: &Links, to: &Side, contract: &str) -> Self {
        Self(from.open(&to.links.id(), "desired/1", &json!({"contract": contract})).await.unwrap())
    }

    async fn send(&mut self, value: &Value) {
        let json = serde_json::to_vec(value).unwrap();
        // A stream that has been refused already takes no more, which is seen when it is read.
        let _ = self.0.write_all(&[&u32::try_from(json.len()).unwrap().to_be_bytes()[..], &json].concat()).await;
    }

    async fn read(&mut self) -> Value {
        let reading = async {
            let length = self.0.read_u32().await.ok()?;
            let mut json = vec![0; length as usize];
            self.0.read_exact(&mut json).await.ok()?;
            serde_json::from_slice(&json).ok()
        };
        tokio::time::timeout(WAIT, reading).await.unwrap_or(None).unwrap_or(Value::Null)
    }

    /// Reads until the stream is closed; why.
    async fn closing(&mut self) -> String {
        loop {
            match self.read().await {
                Value::Null => return "closed without a word".into(),
                said if said["closing"].is_object() => return said["closing"]["reason"].as_str().unwrap().to_owned(),
                _ => {}
            }
        }
    }

    async fn refused(&mut self) -> String {
        loop {
            match self.read().await {
                Value::Null => return "closed without a word".into(),
                said if said["refused"].is_object() => return said["refused"]["reason"].as_str().unwrap().to_owned(),
                _ => {}
            }
        }
    }
}

/// What makes a pod of another kind.
type Change = Box<dyn FnOnce(&mut Value)>;

fn begin() -> Value {
    json!({"begin": {"pods": []}})
}

fn put(uid: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({"metadata": {"name": uid, "namespace": "shop", "uid": uid},
        "spec": {"containers": [{"name": "main", "image": "flt/app:1"}],
            "dnsPolicy": "None", "dnsConfig": {"nameservers": [dns_of(key(1).id()).to_string(), "8.8.8.8"]}}});
    change(&mut pod);
    json!({"put": {"pod": pod}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_are_forged_repeated_or_about_others_end_the_stream_and_start_nothing() {
    let stage = Stage::new().await;
    let mut forged = stage.farm().await;
    forged.send(&stage.envelope(&stage.eve.key, CONTRACT, 1, 1, begin())).await;
    assert!(forged.closing().await.contains("is signed by"));

    let mut changed = stage.good(1, 2, begin());
    changed["payload"] = stage.good(1, 3, begin())["payload"].clone();
    let mut stream = stage.farm().await;
    stream.send(&changed).await;
    assert_ne!(stream.closing().await, "closed without a word");

    let mut early = stage.farm().await;
    early.send(&stage.good(1, 4, put("early", |_| {}))).await;
    assert!(early.closing().await.contains("does not begin with Begin"));

    let mut replayed = stage.farm().await;
    let (first, again) = (stage.good(2, 1, begin()), stage.good(2, 2, put("replayed", |_| {})));
    replayed.send(&first).await;
    replayed.send(&again).await;
    replayed.send(&again).await;
    assert!(replayed.closing().await.contains("2.2 is not newer than 2.2"));

    let mut older = stage.farm().await;
    older.send(&stage.good(2, 1, begin())).await;
    assert!(older.closing().await.contains("2.1 is not newer than 2.2"), "a recorded stream");

    let mut others = Stream::open(&stage.eve.links, &stage.grid, CONTRACT).await;
    assert!(others.closing().await.contains("between others"));
    let mut mixed = Stream::open(&stage.eve.links, &stage.grid, "contract-eve").await;
    mixed.send(&stage.good(9, 1, begin())).await;
    assert!(mixed.closing().await.contains("is signed by"));
    let mut none = Stream::open(&stage.eve.links, &stage.grid, "../secrets").await;
    assert!(none.closing().await.contains("there is none"));

    let mut garbage = stage.farm().await;
    garbage.0.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert!(garbage.closing().await.contains("at most"));

    // After all this it still serves.
    let mut good = stage.farm().await;
    good.send(&stage.good(3, 1, begin())).await;
    good.send(&stage.good(3, 2, put("good", |_| {}))).await;
    good.send(&stage.good(3, 3, json!("synced"))).await;
    let twins = stage.grid.pods(&format!("twin-{}-shop", stage.farm.links.id().tag()));
    until("the twin", || async { twins.get_opt("good").await.unwrap() }, Option::is_some).await;
    until("the earlier one is taken down", || async { twins.get_opt("replayed").await.unwrap() }, Option::is_none)
        .await;
    let all = Api::<Pod>::all(stage.grid.client.clone()).list(&Default::default()).await.unwrap();
    assert_eq!(all.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["good"]);
    let servers = all.items[0].spec.clone().unwrap().dns_config.unwrap().nameservers.unwrap();
    assert_eq!(servers, [dns_of(stage.farm.links.id()).to_string()], "no other name server than its consumer's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_reach_for_what_is_the_providers_are_refused() {
    let stage = Stage::new().await;
    let mut stream = stage.farm().await;
    stream.send(&stage.good(1, 1, begin())).await;
    let mut sequence = 1;
    let container = |json: Value| {
        move |pod: &mut Value| {
            pod["spec"]["containers"][0].as_object_mut().unwrap().extend(json.as_object().unwrap().clone())
        }
    };
    let spec = |json: Value| {
        move |pod: &mut Value| pod["spec"].as_object_mut().unwrap().extend(json.as_object().unwrap().clone())
    };
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(container(json!({"securityContext": {"privileged": true}}))), "privileged"),
        (Box::new(container(json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}))), "NET_ADMIN"),
        (Box::new(container(json!({"securityContext": {"procMount": "Unmasked"}}))), "procMount"),
        (Box::new(container(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}))), "seccompProfile"),
        (Box::new(container(json!({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}))), "seLinuxOptions"),
        (Box::new(container(json!({"ports": [{"containerPort": 80, "hostPort": 80}]}))), "hostPort"),
        (
            Box::new(container(json!({"livenessProbe": {"httpGet": {"host": "127.0.0.1", "port": 80}}}))),
            "probe or lifecycle host",
        ),
        (Box::new(spec(json!({"hostNetwork": true}))), "hostNetwork=true"),
        (Box::new(spec(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}))), "AppArmor"),
        (
            Box::new(spec(json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}))),
            "kernel.msgmax",
        ),
        (Box::new(spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}))), "hostPath volumes"),
        (
            Box::new(spec(json!({"volumes": [{"name": "v", "nfs": {"server": "10.0.0.1", "path": "/"}}]}))),
            "the kind of volume \"v\"",
        ),
        (
            Box::new(spec(
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            )),
            "the kind of volume \"v\"",
        ),
        (Box::new(spec(json!({"dnsConfig": {"nameservers": ["8.8.8.8"]}}))), "name servers"),
        (Box::new(container(json!({"resources": {"requests": {"cpu": "1001m"}}}))), "cpu: 1 bought, needed 1001m"),
        (
            Box::new(container(json!({"resources": {"requests": {"example.com/gpu": "1"}}}))),
            "example.com/gpu: 0 bought, needed 1",
        ),
        (Box::new(container(json!({"resources": {"requests": {"hugepages-2Mi": "2Mi"}}}))), "is not sold"),
        (Box::new(|pod: &mut Value| pod["metadata"]["namespace"] = "../kube-system".into()), "a namespace and a name"),
    ];
    for (change, reason) in cases {
        sequence += 1;
        stream.send(&stage.good(1, sequence, put("bad", change))).await;
        let said = stream.refused().await;
        assert!(said.contains(reason), "{reason}: {said}");
    }
    // Homes that a consumer must not lead packets of; and a good one, in which the name server is not.
    let prefix_of = |seed| fluidos_identity::fabric_prefix(&key(seed).id(), 0).v4_cidr();
    let homes = [
        ("10.0.0.0/20".to_owned(), "needed a /20 of 100.64.0.0/10"),
        ("100.64.0.0/10".to_owned(), "needed a /20 of 100.64.0.0/10"),
        (prefix_of(2), "addresses of this node itself"),
        (prefix_of(9), "name servers"),
    ];
    for (home, reason) in homes {
        sequence += 1;
        let mut change = put("bad", |_| {});
        change["put"]["home"] = home.into();
        stream.send(&stage.good(1, sequence, change)).await;
        let said = stream.refused().await;
        assert!(said.contains(reason), "{reason}: {said}");
    }
    // Somebody whose key begins alike has the namespace already.
    let name = format!("twin-{}-taken", stage.farm.links.id().tag());
    let taken: Namespace =
        from(json!({"metadata": {"name": name, "annotations": {"fluidos.eu/peer-did": "did:key:other"}}}));
    Api::all(stage.grid.client.clone()).create(&PostParams::default(), &taken).await.unwrap();
    let squat = put("bad", |pod| pod["metadata"]["namespace"] = "taken".into());
    stream.send(&stage.good(1, sequence + 1, squat)).await;
    assert!(stream.refused().await.contains("belongs to somebody else"));
    let all = Api::<Pod>::all(stage.grid.client.clone()).list(&Default::default()).await.unwrap();
    assert!(all.items.is_empty(), "{:?}", all.items);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_terminals_are_for_the_one_whose_twin_it_is() {
    let stage = Stage::new().await;
    let mut stream = stage.farm().await;
    stream.send(&stage.good(1, 1, begin())).await;
    stream.send(&stage.good(1, 2, put("web", |_| {}))).await;
    let twins = stage.grid.pods(&format!("twin-{}-shop", stage.farm.links.id().tag()));
    let seen = || async { twins.get_opt("web").await.unwrap() };
    until("the twin runs", seen, |twin| twin.as_ref().is_some_and(|twin| phase(twin) == "Running")).await;
    let ask = async |peer: &Side, contract: &str, uid: &str, container: &str| {
        let logs = json!({"follow": false, "previous": false, "timestamps": false});
        let header = json!({"contract": contract, "uid": uid, "container": container, "logs": logs});
        let mut stream = Stream(peer.links.open(&stage.grid.links.id(), "logs/1", &header).await.unwrap());
        stream.read().await.to_string()
    };
    assert_eq!(ask(&stage.farm, CONTRACT, "web", "main").await, "\"yes\"");
    assert!(ask(&stage.eve, CONTRACT, "web", "main").await.contains("between others"));
    assert!(ask(&stage.eve, "contract-eve", "web", "main").await.contains("no twin"));
    assert!(ask(&stage.farm, CONTRACT, "other", "main").await.contains("no twin"));
    assert!(ask(&stage.farm, CONTRACT, "web", "other").await.contains("not one of the pod's"));
}

/// A provider that has seen a later epoch; notes what it is sent.
struct Forward(tokio::sync::mpsc::UnboundedSender<u64>);

#[async_trait::async_trait]
impl fluidos_link::Handler for Forward {
    async fn stream(&self, _peer: &fluidos_link::PeerInfo, _header: Value, stream: LinkStream) {
        let mut stream = Stream(stream);
        let payload = stream.read().await["payload"].as_str().unwrap().to_owned();
        let desired: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let epoch = desired["epoch"].as_u64().unwrap();
        self.0.send(epoch).unwrap();
        stream.send(&json!({"closing": {"reason": "older", "newestEpoch": epoch + 1000}})).await;
        stream.read().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_whose_clock_went_back_goes_on_from_what_its_provider_has_seen() {
    let (farm, grid) = (Side::start("farm", 1).await, Side::bare("grid", 2).await);
    let (sender, mut epochs) = tokio::sync::mpsc::unbounded_channel();
    grid.links.handle("desired/1", std::sync::Arc::new(Forward(sender))).unwrap();
    farm.links.dial(grid.address, Some(grid.links.id()));
    farm.contract(&contract(CONTRACT, farm.links.id(), grid.links.id(), "1", "1Gi", "5")).await;
    let mut next = async || tokio::time::timeout(WAIT, epochs.recv()).await.unwrap().unwrap();
    let first = next().await;
    assert_eq!([next().await, next().await], [first + 1001, first + 2002]);
    // And the real provider says what it has seen.
    let stage = Stage::new().await;
    for epoch in [9, 8] {
        let mut stream = stage.farm().await;
        stream.send(&stage.good(epoch, 1, begin())).await;
        if epoch == 8 {
            assert_eq!(stream.read().await["closing"]["newestEpoch"], json!(9));
        } else {
            stream.send(&stage.good(epoch, 2, json!("synced"))).await;
            assert_eq!(stream.read().await, json!("ready"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_follow_their_pods_and_no_others_are_given() {
    let pair = Pair::ready().await;
    let directory = tempfile::tempdir().unwrap();
    for name in ["docker.io/flt/app:1", "docker.io/private/app:1"] {
        let name: Reference = name.parse().unwrap();
        pair.farm.images.load(archive(directory.path(), &name.to_string()), Some(name)).await.unwrap();
    }
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    pair.pod_is("web", "running", |pod| phase(pod) == "Running").await;
    let twin = pair.twin("web").await;
    let source = pair.grid.fabric.as_ref().unwrap().image_source();
    let wanted: Reference = "flt/app:1".parse().unwrap();
    assert!(pair.grid.images.find(&wanted).await.unwrap().is_none());
    assert!(source.fetch(&wanted, &twin, &Caller::default(), &pair.grid.images).await.unwrap());
    let found = pair.grid.images.find(&wanted).await.unwrap().unwrap();
    assert_eq!(found.digest, pair.farm.images.find(&wanted).await.unwrap().unwrap().digest);
    assert!(
        source.fetch(&wanted, &twin, &Caller::default(), &pair.grid.images).await.unwrap(),
        "what is there is not sent again"
    );

    let private: Reference = "private/app:1".parse().unwrap();
    let refused = source.fetch(&private, &twin, &Caller::default(), &pair.grid.images).await.unwrap_err();
    assert!(refused.to_string().contains("does not name this image"), "{refused}");
    // Not even by the digest of its blobs.
    let hidden = pair.farm.images.blobs(&private).await.unwrap().pop().unwrap();
    let uid = twin.annotations()["fluidos.eu/origin"].rsplit('/').next().unwrap().to_owned();
    let header = json!({"contract": CONTRACT, "uid": uid, "digest": hidden.digest});
    let mut blob = Stream(pair.grid.links.open(&pair.farm.links.id(), "blob/1", &header).await.unwrap());
    assert_eq!(blob.read().await, json!({"refused": "no image of the pod has this blob"}));
    // A pod that is no twin is not the fabric's business.
    let own: Pod = from(json!({"metadata": {"name": "own", "namespace": "shop"}}));
    assert!(!source.fetch(&wanted, &own, &Caller::default(), &pair.grid.images).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_image_goes_with_a_pod_that_may_have_it_and_is_its_contracts_alone() {
    let pair = Pair::ready().await;
    let directory = tempfile::tempdir().unwrap();
    let (open, name): (Reference, Reference) = ("flt/app:1".parse().unwrap(), "flt/secret:1".parse().unwrap());
    pair.farm.images.load(archive(directory.path(), &open.to_string()), Some(open.clone())).await.unwrap();
    // Its registry has admitted Ada.
    let digest = pair.farm.images.find(&open).await.unwrap().unwrap().digest;
    let mut manifest = Vec::new();
    pair.farm.images.open_blob(&digest).await.unwrap().read_to_end(&mut manifest).await.unwrap();
    let ada = Credential::new("ada", "flt-one");
    let caller = Caller { realm: String::new(), credentials: vec![ada.clone()] };
    let incoming = pair.farm.images.incoming(&name, &manifest, &caller, Admitted::With(&ada)).await.unwrap();
    incoming.finish().await.unwrap();

    let config = json!({"auths": {"docker.io": {"username": "ada", "password": "flt-one"}}}).to_string();
    let secret = json!({"metadata": {"name": "pull", "namespace": "shop"}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config}});
    pair.farm.create::<Secret>(secret).await;
    for (pod_name, secrets) in [("bare", json!([])), ("keyed", json!([{"name": "pull"}]))] {
        let change = |pod: &mut Value| {
            pod["spec"]["containers"][0]["image"] = "flt/secret:1".into();
            pod["spec"]["imagePullSecrets"] = secrets;
        };
        pair.farm.create::<Pod>(pod(pod_name, "grid", change)).await;
    }
    let source = pair.grid.fabric.as_ref().unwrap().image_source();
    let guest = Caller { realm: CONTRACT.into(), credentials: Vec::new() };
    let refused = source.fetch(&name, &pair.twin("bare").await, &guest, &pair.grid.images).await.unwrap_err();
    assert!(refused.to_string().contains("the pod has no credential that was admitted to it"), "{refused}");
    assert!(source.fetch(&name, &pair.twin("keyed").await, &guest, &pair.grid.images).await.unwrap());
    for (caller, is_here) in [(guest, true), (Caller::default(), false)] {
        let found = pair.grid.images.find_for(&name, &caller).await.unwrap();
        assert_eq!(matches!(found, Found::Here(_)), is_here, "{caller:?}: {found:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_of_ours_that_is_ready_there_shows_the_architecture_of_its_provider() {
    let pair = Pair::ready().await;
    let directory = tempfile::tempdir().unwrap();
    let name: Reference = "docker.io/flt/app:1".parse().unwrap();
    pair.farm.images.load(archive(directory.path(), &name.to_string()), Some(name.clone())).await.unwrap();
    let image = pair.farm.images.find(&name).await.unwrap().unwrap();
    let grid = pair.grid.links.id().to_string();
    pair.farm
        .create::<KnownCluster>(json!({
            "apiVersion": "network.fluidos.eu/v1alpha1", "kind": "KnownCluster", "metadata": {"name": "grid", "namespace": "fluidos"},
            "spec": {"address": "192.0.2.1:7300", "did": grid},
        }))
        .await;
    let entries = Api::<KnownCluster>::namespaced(pair.farm.client.clone(), "fluidos");
    let measured = || async { entries.get("grid").await.unwrap().status.unwrap_or_default().measured };
    pair.farm.create::<Pod>(pod("web", "grid", |_| {})).await;
    pair.pod_is("web", "running", |pod| phase(pod) == "Running").await;
    // It says that another image runs there: longer than is gathered nothing is seen.
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert_eq!(measured().await, []);
    let status = json!({"status": {"containerStatuses": [{"name": "main", "image": "flt/app:1", "imageID": image.id(), "ready": true,
        "started": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}});
    pair.twins().patch_status("web", &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
    let seen = until("its architecture is seen", measured, |seen| !seen.is_empty()).await;
    assert_eq!((seen.len(), seen[0].name.as_str(), &seen[0].value), (1, "arch", &image.architecture));
    let lasts = seen[0].until.parse::<Timestamp>().unwrap().duration_since(Timestamp::now()).as_secs();
    assert!((500..=600).contains(&lasts), "ten minutes: {lasts} s");
}
