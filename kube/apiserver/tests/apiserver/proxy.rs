//! HTTP through the API server to pods, whose machine is this test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use substrate_apiserver::node_proxy::{ContainerTarget, Duplex, Error, NodeProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support;
use crate::support::Api;
use crate::support::kubectl::start;

const CORE: &str = "/api/v1/namespaces/default";

/// A machine whose pods have one HTTP server, on port 8080.
struct Machine(SocketAddr);

#[async_trait]
impl NodeProxy for Machine {
    async fn read(&self, path: &str) -> Result<Option<(&'static str, String)>, Error> {
        Ok((path == "stats/summary").then(|| ("application/json", "{}".to_owned())))
    }

    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        assert_eq!(target.pod, "web", "nobody else is reached");
        match port {
            8080 => Ok(Box::new(TcpStream::connect(self.0).await.unwrap())),
            _ => Err(Error::Unavailable(format!("dial port {port}: connection refused"))),
        }
    }
}

/// Answers with what it was asked; `/jump` leads elsewhere, and who wants to upgrade gets back every byte.
async fn served() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = socket.read_u8().await else { return };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                if head.contains("upgrade: echo") {
                    let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n";
                    socket.write_all(switch).await.unwrap();
                    let (mut read, mut write) = socket.split();
                    return drop(tokio::io::copy(&mut read, &mut write).await);
                }
                let jump = match head.contains("/jump") {
                    true => "302 Found\r\nlocation: /there",
                    false => "200 OK\r\nkeep-alive: 9\r\nx-own: 1\r\nconnection: x-own",
                };
                let answer = format!("HTTP/1.1 {jump}\r\ncontent-length: {}\r\n\r\n{head}", head.len());
                socket.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    address
}

/// A pod `web` with a Service, and others that lead to no pod.
async fn world(api: &Api) {
    api.proxies.register("m1", Arc::new(Machine(served().await)));
    for (name, host) in [("web", false), ("host", true)] {
        let mut pod = support::pod(name);
        pod["spec"]["nodeName"] = "m1".into();
        pod["spec"]["hostNetwork"] = host.into();
        pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080 }]);
        assert_eq!(api.post(&format!("{CORE}/pods"), pod).await.0, 201);
    }
    for (service, target) in [
        ("web", json!({ "kind": "Pod", "name": "web" })),
        ("foreign", Value::Null),
        ("other", json!({ "kind": "Pod", "name": "web", "uid": "of-an-older-one" })),
        ("machine", json!({ "kind": "Pod", "name": "host" })),
    ] {
        let port = json!({ "name": "http", "port": 80, "targetPort": 8080 });
        let object = json!({ "metadata": { "name": service }, "spec": { "ports": [port] } });
        assert_eq!(api.post(&format!("{CORE}/services"), object).await.0, 201);
        let slice = json!({
            "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            "endpoints": [
                { "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "targetRef": target },
                { "addresses": ["10.0.0.2"], "conditions": { "ready": false }, "targetRef": { "kind": "Pod", "name": "host" } },
            ],
        });
        let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        assert_eq!(api.post(slices, slice).await.0, 201);
    }
}

async fn asked(api: &Api, method: Method, path: &str, headers: &[(&str, &str)]) -> (u16, http::HeaderMap, String) {
    let response = api.raw(method, &format!("{CORE}/{path}"), headers, "").await;
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn requests_reach_pods() {
    let api = support::api().await;
    world(&api).await;
    let sent = [("te", "trailers"), ("x-hop", "1"), ("connection", "x-hop"), ("x-mine", "1"), ("host", "api")];
    for (method, path) in [
        (Method::GET, "services/web:http/proxy/a/b?c=d%20e"),
        (Method::PUT, "services/http:web:80/proxy/a/b?c=d%20e"),
        (Method::DELETE, "pods/web/proxy/a/b?c=d%20e"),
        (Method::PATCH, "pods/web:8080/proxy/a/b?c=d%20e"),
    ] {
        let (code, headers, body) = asked(&api, method.clone(), path, &sent).await;
        let mut lines: Vec<&str> = body.trim().lines().filter(|l| !l.starts_with("content-length")).collect();
        lines.sort_unstable();
        let uri = format!("x-forwarded-uri: {CORE}/{}", path.split('?').next().unwrap());
        let line = format!("{} /a/b?c=d%20e http/1.1", method.as_str().to_lowercase());
        let mut expected = ["host: web:8080", "x-forwarded-host: api", "x-mine: 1", uri.as_str(), line.as_str()];
        expected.sort_unstable();
        assert_eq!((code, lines.as_slice()), (200, &expected[..]), "{path}");
        assert!(!headers.contains_key("keep-alive") && !headers.contains_key("x-own"), "{headers:?}");
    }
    let (code, headers, _) = asked(&api, Method::GET, "services/web:http/proxy?a=b", &[]).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, &*format!("{CORE}/services/web:http/proxy/?a=b")));
    let (code, headers, _) = asked(&api, Method::GET, "pods/web/proxy/jump", &[]).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (302, &*format!("{CORE}/pods/web/proxy/there")));
    let (code, _, body) = asked(&api, Method::HEAD, "pods/web/proxy/", &[]).await;
    assert_eq!((code, body.as_str()), (200, ""));
}

#[tokio::test]
async fn what_leads_nowhere_says_so() {
    let api = support::api().await;
    world(&api).await;
    for (path, expected) in [
        ("services/none/proxy/", "404 services \"none\" not found"),
        ("services/web:81/proxy/", "503 no service port 81 found for service \"web\""),
        ("services/web/proxy/", "503 no endpoints available for service \"web\""), // its port has a name
        ("services/foreign:80/proxy/", "503 no endpoints available for service \"foreign\""),
        ("services/other:80/proxy/", "503 no endpoints available for service \"other\""),
        (
            "services/machine:80/proxy/",
            "400 pod host has the network of its machine, which this proxy does not lead to",
        ),
        ("pods/host/proxy/", "400 pod host has the network of its machine, which this proxy does not lead to"),
        ("pods/web:9/proxy/", "503 error trying to reach service: dial port 9: connection refused"),
        ("pods/web:x/proxy/", "400 invalid pod request \"web:x\""),
        ("pods/web:0/proxy/", "400 invalid pod request \"web:0\""),
        ("pods/ftp:web:1/proxy/", "400 invalid pod request \"ftp:web:1\""),
        ("pods/https:web:1/proxy/", "501 a proxy to https is not implemented by this server"),
        ("pods/web/%70roxy/", "404 the server could not find the requested resource"),
    ] {
        let (code, status) = api.get(&format!("{CORE}/{path}")).await;
        assert_eq!(format!("{code} {}", status["message"].as_str().unwrap()), expected, "{path}");
    }
}

#[tokio::test]
async fn the_right_is_one_of_its_own() {
    let api = support::api().await;
    world(&api).await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rule = json!({ "apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"] });
    let role = json!({ "metadata": { "name": "look" }, "rules": [rule] });
    assert_eq!(api.post(&format!("{rbac}/roles"), role).await.0, 201);
    let binding = json!({
        "metadata": { "name": "look" }, "subjects": [{ "kind": "User", "name": "eve" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look" },
    });
    assert_eq!(api.post(&format!("{rbac}/rolebindings"), binding).await.0, 201);
    let eve = api.asked_by("eve", &[]);
    let mut codes = Vec::new();
    for (method, path) in [
        (Method::GET, "services/web:80/proxy/"),
        (Method::POST, "services/web:80/proxy/"),
        (Method::GET, "pods/web/proxy/"),
    ] {
        codes.push(asked(&eve, method, path, &[]).await.0);
    }
    assert_eq!(codes, [200, 403, 403]);
}

/// Through `kubectl get --raw`, and through `kubectl proxy` what is no HTTP any more.
#[tokio::test(flavor = "multi_thread")]
async fn kubectl_and_upgrades() {
    let kubectl = start().await;
    world(&kubectl.api).await;
    let said = kubectl.ok(&format!("get --raw {CORE}/services/web:80/proxy/hello")).await;
    assert!(said.starts_with("get /hello http/1.1\r\n") && !said.contains("authorization"), "{said}");

    let (_proxy, port) = kubectl.proxy().await;
    let within = Duration::from_secs(30);
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let ask = format!(
        "GET {CORE}/pods/web/proxy/ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"hello, pod") {
        let byte = tokio::time::timeout(within, socket.read_u8()).await;
        match byte {
            Ok(Ok(byte)) => said.push(byte),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&said)),
        }
        if said.ends_with(b"\r\n\r\n") {
            socket.write_all(b"hello, pod").await.unwrap();
        }
    }
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
}

/// A node whose machine is elsewhere.
struct Elsewhere;

#[async_trait]
impl NodeProxy for Elsewhere {}

#[tokio::test]
async fn a_node_answers_for_itself_and_a_virtual_one_says_why_not() {
    let api = support::api().await;
    world(&api).await;
    api.proxies.register("virtual", Arc::new(Elsewhere));
    for name in ["m1", "virtual", "silent"] {
        api.post("/api/v1/nodes", json!({ "metadata": { "name": name } })).await;
    }
    let ask = async |method: Method, path: &str| {
        let response = api.raw(method, &format!("/api/v1/nodes/{path}"), &[], "").await;
        let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let code = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        (code, kind.unwrap_or_default(), String::from_utf8(text.to_vec()).unwrap())
    };
    let json = "application/json".to_owned();
    assert_eq!(ask(Method::GET, "m1/proxy/stats/summary").await, (200, json.clone(), "{}".to_owned()));
    assert_eq!(ask(Method::GET, "https:m1:10250/proxy/stats/summary").await, (200, json, "{}".to_owned()));
    assert_eq!(ask(Method::GET, "m1/proxy").await.0, 301);
    assert_eq!(ask(Method::GET, "m1/proxy/run/default/web").await.0, 404, "nothing is done through it");
    assert_eq!(ask(Method::POST, "m1/proxy/stats/summary").await.0, 405);
    assert_eq!(ask(Method::GET, "none/proxy/healthz").await.0, 404);
    for (path, code, words) in [
        ("m1:22/proxy/healthz", 503, "none of its kubelet's"),
        ("silent/proxy/healthz", 503, "error trying to reach service: no kubelet of node silent is there"),
        ("virtual/proxy/healthz", 501, "this node is not a machine of this cluster"),
    ] {
        let (found, _, text) = ask(Method::GET, path).await;
        assert!(found == code && text.contains(words), "{found} {text}");
    }
    let other = api.asked_by("ada", &[]);
    let refused = other.get("/api/v1/nodes/m1/proxy/stats/summary").await;
    assert_eq!(refused.0, 403, "it takes a right of its own: {}", refused.1);
}
