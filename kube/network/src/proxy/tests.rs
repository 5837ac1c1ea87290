//! Services and names from the API server's objects to a pod's sockets, in a namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use substrate_apiserver::auth::{Tokens, User};
use substrate_apiserver::node_proxy::NodeProxies;
use substrate_apiserver::{ApiServer, Options as ApiOptions};
use substrate_client::Caches;
use substrate_store::Store;

use super::*;
use crate::node::tests::{on_machine, serve, tcp_from};
use crate::{Attachment, DnsOptions, DnsServer, namespace};

pub(crate) async fn api_client() -> Client {
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
    substrate_client::in_process(server.as_user(User::new("admin", &["system:masters"])))
}

pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if start.elapsed() > Duration::from_secs(10) => panic!("{what}: last seen: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// What a pod hears when it asks the Service address of DNS. The pod waits on a thread, so that the server can answer.
async fn resolve(pod: &Attachment, name: &'static str) -> Result<Vec<IpAddr>, String> {
    let netns = pod.netns.clone();
    let ask = move || {
        namespace::within(&netns, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
            socket.connect("10.96.0.10:53").unwrap();
            let mut message = Message::query();
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
            socket.send(&message.to_vec().unwrap()).unwrap();
            let mut buffer = [0; 1500];
            Ok(socket.recv(&mut buffer).map(|length| buffer[..length].to_vec()).map_err(|error| error.to_string()))
        })
        .unwrap()
    };
    let answer = Message::from_vec(&tokio::task::spawn_blocking(ask).await.unwrap()?).unwrap();
    let address = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    };
    let found: Vec<IpAddr> = answer.answers.iter().filter_map(address).collect();
    if found.is_empty() { Err(format!("{:?}", answer.metadata.response_code)) } else { Ok(found) }
}

#[test]
fn a_pod_calls_a_service_by_its_name() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        serve(&b.netns, "b", 8080);
        let client = api_client().await;
        let caches = ServiceCaches::start(&Caches::new(client.clone()));
        let mut options = DnsOptions::for_network(&network);
        options.resolv_conf = "/nonexistent/flt-resolv.conf".into();
        let dns = DnsServer::bind(options).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(dns.run(caches.clone()));
        tasks.spawn(ServiceProxy::run(caches, network.clone()));
        assert_eq!(resolve(&a, "web.default.svc.cluster.local.").await, Err("NXDomain".to_owned()));
        let services: Api<Service> = Api::namespaced(client.clone(), "default");
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
        let address = until("the name", async || resolve(&a, "web.default.svc.cluster.local.").await).await[0];
        let IpAddr::V4(address) = address else { panic!("{address}") };
        assert_eq!(tcp_from(&a, address, 80).unwrap_err(), std::io::ErrorKind::ConnectionRefused);
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
        let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": [b.address.to_string()]}]});
        slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
        until("the Service", async || match tcp_from(&a, address, 80) {
            Ok(text) if text == "b 10.77.0.2" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(resolve(&a, "example.org.").await, Err("ServFail".to_owned()), "a machine without resolvers");
        services.delete("web", &DeleteParams::default()).await.unwrap();
        until("the Service is gone", async || match tcp_from(&a, address, 80) {
            Err(std::io::ErrorKind::ConnectionRefused) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        assert_eq!(resolve(&a, "web.default.svc.cluster.local.").await, Err("NXDomain".to_owned()));
    });
}
