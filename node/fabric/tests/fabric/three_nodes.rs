//! A buys from R, who serves that with what it has bought from P: A and P do not know each other.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine_images::{Caller, Reference};
use fluidos_model::kinds::{Allocation, Contract};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret};
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use substrate_apiserver::node_proxy::{ExecOptions, ExecOutput};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::*;

const SOLD: &str = "contract-sold-1";
const BOUGHT: &str = "contract-bought-1";

/// `farm` buys from `shop`, `shop` from `grid`; the second serves the first.
struct Chain {
    farm: Side,
    shop: Side,
    grid: Side,
    _machine: Arc<Machine>,
    /// To the reseller, and from it to the provider.
    wires: (Wire, Wire),
    /// Binds at the reseller what may run on a node as a scheduler does; nothing runs on its own machine.
    _scheduler: tokio::task::JoinHandle<()>,
}

impl Chain {
    async fn ready() -> Self {
        let farm = Side::start("farm", 1).await;
        let shop = Side::start("shop", 2).await;
        let mut grid = Side::start("grid", 3).await;
        let _machine = grid.start_machine();
        let wires = (Wire::to(shop.address).await, Wire::to(grid.address).await);
        farm.links.dial(wires.0.address, Some(shop.links.id()));
        shop.links.dial(wires.1.address, Some(grid.links.id()));
        let _scheduler = tokio::spawn(schedule(shop.client.clone()));
        let chain = Self { farm, shop, grid, _machine, wires, _scheduler };
        let bought = contract(BOUGHT, chain.shop.links.id(), chain.grid.links.id(), "1500m", "1Gi", "5");
        let mut sold = contract(SOLD, chain.farm.links.id(), chain.shop.links.id(), "1", "512Mi", "3");
        // What its node is called before there is a link.
        sold["spec"]["seller"]["additionalInformation"]["name"] = "shop".into();
        for side in [&chain.shop, &chain.grid] {
            side.contract(&bought).await;
            side.create::<Allocation>(allocation(BOUGHT)).await;
        }
        for side in [&chain.farm, &chain.shop] {
            side.contract(&sold).await;
            side.create::<Allocation>(allocation(SOLD)).await;
        }
        chain.serve(Some(BOUGHT)).await;
        chain
    }

    /// Has the reseller serve what it sold with what it bought.
    async fn serve(&self, with: Option<&str>) {
        let patch = Patch::Merge(json!({"spec": {"servedBy": with}}));
        let api = Api::<Contract>::namespaced(self.shop.client.clone(), "fluidos");
        api.patch(SOLD, &PatchParams::default(), &patch).await.unwrap();
    }

    /// The node of a side by its name, when it is ready or not.
    async fn node(&self, side: &Side, name: &str, ready: &str) -> Node {
        let nodes = side.nodes();
        let seen = || async { nodes.get_opt(name).await.unwrap() };
        let what = format!("node {name} Ready={ready}");
        until(&what, seen, |node| node.as_ref().is_some_and(|node| condition(node, "Ready") == ready)).await.unwrap()
    }

    async fn run(&self, name: &str) -> Pod {
        self.farm.create::<Pod>(pod(name, "shop", |_| {})).await;
        self.pod_is(name, "running", |pod| phase(pod) == "Running").await
    }

    async fn pod_is(&self, name: &str, what: &str, done: impl Fn(&Pod) -> bool) -> Pod {
        let pods = self.farm.pods("shop");
        let seen = || async { pods.get_opt(name).await.unwrap() };
        until(&format!("pod {name} {what}"), seen, |pod| pod.as_ref().is_some_and(&done)).await.unwrap()
    }

    fn twins(&self) -> Api<Pod> {
        self.shop.pods(&format!("twin-{}-shop", self.farm.links.id().tag()))
    }

    /// Everything that runs for the reseller at the provider.
    async fn at_provider(&self) -> Vec<Pod> {
        let labelled = ListParams::default().labels("reservation.fluidos.eu/contract");
        Api::<Pod>::all(self.grid.client.clone()).list(&labelled).await.unwrap().items
    }

    async fn nothing_at_provider(&self) {
        let seen = || async { self.at_provider().await.iter().map(ResourceExt::name_any).collect::<Vec<_>>() };
        until("nothing at the provider", seen, Vec::is_empty).await;
    }
}

/// Binds pods to a ready node whose labels they ask for and whose taints they tolerate.
async fn schedule(client: kube::Client) {
    let (pods, nodes) = (Api::<Pod>::all(client.clone()), Api::<Node>::all(client.clone()));
    loop {
        let nodes = nodes.list(&Default::default()).await.unwrap().items;
        for pod in pods.list(&Default::default()).await.unwrap().items {
            let spec = pod.spec.clone().unwrap();
            if spec.node_name.is_some() || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let tolerated: BTreeSet<String> = spec
                .tolerations
                .iter()
                .flatten()
                .map(|t| format!("{}:{}", t.key.clone().unwrap_or_default(), t.effect.clone().unwrap_or_default()))
                .collect();
            let fits = |node: &&Node| {
                let selected = spec.node_selector.iter().flatten().all(|(k, v)| node.labels().get(k) == Some(v));
                selected && taints(node).iter().all(|taint| tolerated.contains(taint))
            };
            let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace().unwrap());
            match nodes.iter().find(fits) {
                Some(node) => {
                    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name_any()},
                        "target": {"kind": "Node", "name": node.name_any()}});
                    let _ = api
                        .create_subresource::<serde_json::Value, serde_json::Value>(
                            "binding",
                            &pod.name_any(),
                            &Default::default(),
                            &binding,
                        )
                        .await;
                }
                None => {
                    let waits = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}});
                    let _ = api.patch_status(&pod.name_any(), &Default::default(), &Patch::Strategic(waits)).await;
                }
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn told(pod: &Pod) -> (String, String) {
    let status = pod.status.clone().unwrap_or_default();
    (status.reason.unwrap_or_default(), status.message.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_of_one_runs_at_a_third_whom_it_does_not_know() {
    let chain = Chain::ready().await;
    chain.node(&chain.farm, "shop", "True").await;
    let farm = &chain.farm;
    farm.create::<ConfigMap>(json!({"metadata": {"name": "settings", "namespace": "shop"}, "data": {"COLOUR": "red"}}))
        .await;
    for name in ["password", "private"] {
        farm.create::<Secret>(json!({"metadata": {"name": name, "namespace": "shop"}, "data": {"key": "c2VjcmV0"}}))
            .await;
    }
    let made = pod("web", "shop", |pod| {
        pod["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "password"}}]);
    });
    let created: Pod = farm.create(made).await;
    let web = chain.pod_is("web", "running", |pod| phase(pod) == "Running").await;

    // A knows it by an address of R's that no pod or Service of R's has.
    let prefix = fluidos_identity::fabric_prefix(&chain.shop.links.id(), 0);
    let address: std::net::Ipv4Addr = web.status.clone().unwrap().pod_ip.unwrap().parse().unwrap();
    let number = address.to_bits() & 0xfff;
    assert!(prefix.holds_v4(address) && (0x800..0xf00).contains(&number), "{address}");
    assert_eq!(web.status.clone().unwrap().pod_ips.unwrap()[0].ip, address.to_string());

    // At R: a twin on the node of what was bought, and nowhere else.
    let twin = chain.twins().get("web").await.unwrap();
    let spec = twin.spec.clone().unwrap();
    assert_eq!(spec.node_name.as_deref(), Some("grid"));
    assert_eq!(spec.node_selector.unwrap()["reservation.fluidos.eu/contract"], BOUGHT);
    assert_eq!(twin.annotations()["fluidos.eu/stand-in"], address.to_string());
    let bound = taints(&chain.shop.nodes().get("grid").await.unwrap());
    assert!(bound.contains(&"fluidos.eu/resale:NoSchedule".to_owned()), "{bound:?}");

    // At P: an ordinary guest of R's, from which nobody reads whose it is.
    let at_provider = chain.at_provider().await;
    assert_eq!(at_provider.len(), 1);
    let last = &at_provider[0];
    let text = serde_json::to_string(last).unwrap();
    for secret in [
        farm.links.id().to_string(),
        farm.links.id().tag(),
        SOLD.to_owned(),
        created.uid().unwrap(),
        address.to_string(),
    ] {
        assert!(!text.contains(&secret), "{secret} is told to the provider: {text}");
    }
    let home = fluidos_identity::fabric_prefix(&farm.links.id(), 0);
    assert_eq!(last.annotations()["fluidos.eu/home"], home.v4_cidr());
    assert_eq!(last.labels()["fluidos.eu/peer"], chain.shop.links.id().tag());
    let spec = last.spec.clone().unwrap();
    assert_eq!(spec.dns_config.unwrap().nameservers.unwrap(), [dns_of(farm.links.id()).to_string()]);
    assert_eq!(spec.automount_service_account_token, Some(false));
    let namespace = last.namespace().unwrap();
    let secrets =
        Api::<Secret>::namespaced(chain.grid.client.clone(), &namespace).list(&Default::default()).await.unwrap();
    assert_eq!(
        secrets.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["password"],
        "what it names goes with it"
    );

    // Logs, a command and a port, from the owner's own API.
    let logs = farm.pods("shop").logs("web", &LogParams { tail_lines: Some(7), ..LogParams::default() }).await.unwrap();
    assert_eq!(logs, format!("{namespace}/web main tail=Some(7)\n"));
    let target = substrate_apiserver::node_proxy::ContainerTarget {
        namespace: "shop".into(),
        pod: "web".into(),
        pod_uid: created.uid().unwrap(),
        container: "main".into(),
    };
    let proxy = farm.proxies.get("shop").unwrap();
    let options = ExecOptions { command: vec!["cat".into()], stdin: true, stdout: true, stderr: true, tty: false };
    let mut session = proxy.exec(&target, &options).await.unwrap();
    session.stdin.send("hello".into()).await.unwrap();
    drop(session.stdin);
    let (mut out, mut code) = (Vec::new(), None);
    while let Some(output) = session.output.recv().await {
        match output {
            ExecOutput::Stdout(bytes) => out.extend(bytes),
            ExecOutput::Exit(exit) => code = Some(exit),
            _ => {}
        }
    }
    assert_eq!((out.as_slice(), code), (&b"hello"[..], Some(7)));
    let mut port = proxy.port_forward(&target, 80).await.unwrap();
    port.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    port.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");

    // Its image comes from its owner, through the reseller, who keeps nothing of it.
    let directory = tempfile::tempdir().unwrap();
    let name: Reference = "docker.io/flt/app:1".parse().unwrap();
    farm.images.load(archive(directory.path(), &name.to_string()), Some(name.clone())).await.unwrap();
    let source = chain.grid.fabric.as_ref().unwrap().image_source();
    assert!(source.fetch(&name, last, &Caller::default(), &chain.grid.images).await.unwrap());
    let digest = farm.images.find(&name).await.unwrap().unwrap().digest;
    assert_eq!(chain.grid.images.find(&name).await.unwrap().unwrap().digest, digest);
    assert!(!chain.shop.images.has(&digest) && chain.shop.images.find(&name).await.unwrap().is_none());
    let other: Reference = "docker.io/flt/other:1".parse().unwrap();
    farm.images.load(archive(directory.path(), &other.to_string()), Some(other.clone())).await.unwrap();
    let refused = source.fetch(&other, last, &Caller::default(), &chain.grid.images).await.unwrap_err();
    assert!(refused.to_string().contains("does not name this image"), "{refused}");

    // Deleted by its owner it is gone everywhere.
    farm.delete::<Pod>("shop", "web").await;
    let (pods, twins) = (farm.pods("shop"), chain.twins());
    until("gone at the owner", || async { pods.get_opt("web").await.unwrap() }, Option::is_none).await;
    assert!(twins.get_opt("web").await.unwrap().is_none(), "its twin went before it");
    chain.nothing_at_provider().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_bought_to_be_sold_is_for_nobody_else() {
    let chain = Chain::ready().await;
    chain.node(&chain.farm, "shop", "True").await;
    // The reseller's own pod, put there by name, which no scheduler prevents.
    chain.shop.create::<Pod>(pod("own", "grid", |_| {})).await;
    let own = chain.shop.pods("shop");
    let refused = until("refused", || async { own.get("own").await.unwrap() }, |pod| told(pod).0 == "Refused").await;
    assert!(told(&refused).1.contains(&format!("{BOUGHT} is kept to serve {SOLD}")), "{:?}", told(&refused));
    // And one that asks for the node as others do: its taint keeps it off.
    let asks = pod("asks", "grid", |pod| {
        pod["spec"].as_object_mut().unwrap().remove("nodeName");
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "grid"});
        pod["spec"]["tolerations"] =
            json!([{"key": "fluidos.eu/virtual-node", "operator": "Exists", "effect": "NoSchedule"}]);
    });
    chain.shop.create::<Pod>(asks).await;
    chain.run("web").await;
    assert_eq!(own.get("asks").await.unwrap().spec.unwrap().node_name, None);
    assert_eq!(chain.at_provider().await.len(), 1, "the owner's alone");
    // What was sold is over: the reseller may use it.
    for side in [&chain.farm, &chain.shop] {
        side.delete::<Contract>("fluidos", SOLD).await;
    }
    until("it runs", || async { own.get("own").await.unwrap() }, |pod| phase(pod) == "Running").await;
    let of = || async { chain.at_provider().await.iter().map(ResourceExt::name_any).collect::<BTreeSet<_>>() };
    until("only the reseller's own are left", of, |names| *names == BTreeSet::from(["asks".into(), "own".into()]))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_there_is_told_along_the_chain() {
    let chain = Chain::ready().await;
    chain.node(&chain.farm, "shop", "True").await;
    let web = chain.run("web").await;
    let uid = chain.at_provider().await[0].uid();
    // The provider cannot be reached: its owner's node is not ready, with a reason, and the pod is neither deleted nor ready.
    chain.wires.1.set_cut(true);
    let node = chain.node(&chain.farm, "shop", "False").await;
    let ready = node.status.unwrap().conditions.unwrap().into_iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.reason.as_deref(), Some("ProviderCapacityMissing"));
    assert_eq!(ready.message.as_deref(), Some("what the provider has bought to serve it with is not ready"));
    // Its taints are written after its status.
    let shop = || async { taints(&chain.farm.nodes().get("shop").await.unwrap()) };
    until("a taint", shop, |taints| taints.contains(&"node.kubernetes.io/not-ready:NoExecute".to_owned())).await;
    let twin = chain.twins().get("web").await.unwrap();
    let patient = twin.spec.unwrap().tolerations.unwrap();
    assert!(patient.iter().all(|t| t.toleration_seconds.is_none()), "who gives a pod up is its owner: {patient:?}");
    // One more waits, and says for what; one that its owner gives up goes at once.
    chain.wires.1.set_cut(false);
    chain.node(&chain.farm, "shop", "True").await;
    let same = chain.pod_is("web", "the same", |pod| phase(pod) == "Running").await;
    assert_eq!((same.uid(), chain.at_provider().await[0].uid()), (web.uid(), uid), "the same containers go on");
    chain.wires.1.set_cut(true);
    chain.node(&chain.farm, "shop", "False").await;
    chain.farm.delete::<Pod>("shop", "web").await;
    let pods = chain.farm.pods("shop");
    until("given up", || async { pods.get_opt("web").await.unwrap() }, Option::is_none).await;
    chain.wires.1.set_cut(false);
    chain.nothing_at_provider().await;

    // What serves it is over: the node stays, and is not ready; what is put there waits.
    for side in [&chain.shop, &chain.grid] {
        side.delete::<Contract>("fluidos", BOUGHT).await;
    }
    chain.node(&chain.farm, "shop", "False").await;
    chain.farm.create::<Pod>(pod("late", "shop", |_| {})).await;
    let late = chain.pod_is("late", "waits", |pod| told(pod).0 == "Unschedulable").await;
    assert_eq!(told(&late).1, "what the provider has bought to run it is not there now, or full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reseller_that_starts_again_asks_its_buyer_first() {
    let mut chain = Chain::ready().await;
    chain.node(&chain.farm, "shop", "True").await;
    chain.run("web").await;
    chain.run("api").await;
    let uids =
        async |chain: &Chain| chain.at_provider().await.iter().filter_map(ResourceExt::uid).collect::<BTreeSet<_>>();
    let before = uids(&chain).await;
    assert_eq!(before.len(), 2);
    // It comes back, and its buyer is not there yet: what runs goes on, and the provider hears nothing.
    chain.wires.0.set_cut(true);
    chain.shop.restart().await;
    chain.shop.links.dial(chain.wires.1.address, Some(chain.grid.links.id()));
    chain.node(&chain.shop, "grid", "False").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(uids(&chain).await, before);
    assert_ne!(condition(&chain.shop.nodes().get("grid").await.unwrap(), "Ready"), "True");
    // The buyer has given one up meanwhile.
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    chain.farm.pods("shop").delete("api", &now).await.unwrap();
    chain.wires.0 = Wire::to(chain.shop.address).await;
    chain.farm.links.dial(chain.wires.0.address, Some(chain.shop.links.id()));
    chain.node(&chain.farm, "shop", "True").await;
    let seen = || async { chain.at_provider().await.iter().map(ResourceExt::name_any).collect::<Vec<_>>() };
    until("one is left", seen, |names| names == &["web"]).await;
    assert!(before.contains(&chain.at_provider().await[0].uid().unwrap()), "the same container goes on");
}
