//! The real kubectl forwards ports of a pod whose machine is this test.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::SinkExt;
use serde_json::json;
use substrate_apiserver::node_proxy::{ContainerTarget, Duplex, Error, NodeProxy};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support;
use crate::support::kubectl::{Kubectl, message, start, websocket};

const PODS: &str = "/api/v1/namespaces/default/pods";

/// The port of the pod that something listens on; it is not the port of this machine.
const ECHO: u16 = 80;

/// The port of the pod that says a word and closes.
const WORD: u16 = 82;

/// A machine whose pods have one echo server, and one that says a word.
struct Machine {
    echo: std::net::SocketAddr,
}

#[async_trait]
impl NodeProxy for Machine {
    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        assert_eq!((target.namespace.as_str(), target.pod.as_str()), ("default", "web"));
        if port == WORD {
            return Ok(Box::new(tokio::io::join(&b"word"[..], tokio::io::sink())));
        }
        if port != ECHO {
            return Err(Error::Unavailable(format!("dial tcp4 127.0.0.1:{port}: connect: connection refused")));
        }
        let stream = TcpStream::connect(self.echo).await.map_err(|e| Error::Internal(e.to_string()))?;
        Ok(Box::new(stream))
    }
}

/// Sends back what it gets, and closes when its caller has no more.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// One MiB there and the same MiB back.
async fn mebibyte_there_and_back(port: u16, seed: u8) {
    let sent: Vec<u8> = (0..1024 * 1024u32).map(|i| (i % 251) as u8 ^ seed).collect();
    let (mut read, mut write) = TcpStream::connect(("127.0.0.1", port)).await.unwrap().into_split();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write // kept open: the end of writing ends a forwarded connection in kubectl
    });
    let mut got = vec![0; expected.len()];
    read.read_exact(&mut got).await.unwrap();
    assert!(got == expected, "the bytes of connection {seed} came back changed");
    drop(writer.await.unwrap());
}

/// A server, and a pod on the machine that is not running yet.
async fn waiting() -> Kubectl {
    let kubectl = start().await;
    kubectl.api.proxies.register("m1", Arc::new(Machine { echo: echo().await }));
    let mut pod = support::pod("web");
    pod["spec"]["nodeName"] = "m1".into();
    assert_eq!(kubectl.api.post(PODS, pod).await.0, 201);
    kubectl
}

async fn runs(kubectl: &Kubectl) {
    let running = json!({ "status": { "phase": "Running" } });
    assert_eq!(kubectl.api.patch(&format!("{PODS}/web/status"), "merge-patch", running).await.0, 200);
}

async fn forwards(environment: &[(&str, &str)]) {
    let kubectl = waiting().await;
    let refused = kubectl.run("port-forward pod/web :80").await;
    assert!(refused.1.contains("pod is not running. Current status=Pending"), "{refused:?}");
    runs(&kubectl).await;

    let mut forward = kubectl
        .command("port-forward pod/web :80 :81")
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(forward.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(forward.stderr.take().unwrap()).lines();
    let within = Duration::from_secs(30);
    let mut ports = Vec::new();
    while ports.len() < 2 {
        let line = tokio::time::timeout(within, lines.next_line()).await;
        let line = match line {
            Ok(Ok(Some(line))) => line,
            other => panic!("30 s without two forwarded ports: {other:?}, {:?}", errors.next_line().await),
        };
        // Forwarding from 127.0.0.1:40123 -> 80
        if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") {
            ports.push(rest.split(' ').next().unwrap().parse::<u16>().unwrap());
        }
    }
    let both = async { tokio::join!(mebibyte_there_and_back(ports[0], 1), mebibyte_there_and_back(ports[0], 2)) };
    tokio::time::timeout(within, both).await.unwrap_or_else(|_| panic!("30 s for 2 MiB there and back"));
    // More connections than a session holds at once, one after the other: what is over is let go.
    for seed in 0..70u8 {
        let mut socket = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        socket.write_all(&[seed; 10]).await.unwrap();
        let mut got = [0; 10];
        let read = tokio::time::timeout(within, socket.read_exact(&mut got)).await;
        read.unwrap_or_else(|_| panic!("30 s without an answer on connection {seed}")).unwrap();
        assert_eq!(got, [seed; 10]);
    }
    // A port that nobody listens on.
    let mut closed = TcpStream::connect(("127.0.0.1", ports[1])).await.unwrap();
    let _ = closed.write_all(b"x").await;
    let mut said = Vec::new();
    loop {
        let line = tokio::time::timeout(within, errors.next_line()).await;
        let Ok(Ok(Some(line))) = line else { panic!("30 s without the error; said {said:?}") };
        let found = line.contains("error forwarding port 81 to pod web") && line.contains("connection refused");
        said.push(line);
        if found {
            break;
        }
    }
    forward.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_websocket() {
    forwards(&[]).await;
}

/// As clients before 1.31 do it.
#[tokio::test(flavor = "multi_thread")]
async fn over_spdy_itself() {
    forwards(&[("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")]).await;
}

/// As the client of Python does it: ports that are named beforehand, each with two channels that begin with its number.
#[tokio::test(flavor = "multi_thread")]
async fn over_channels() {
    const BOTH: &str = "v5.channel.k8s.io, v4.channel.k8s.io";
    let kubectl = waiting().await;
    runs(&kubectl).await;
    let (_proxy, port) = kubectl.proxy().await;
    let path = |ports: &str| format!("{PODS}/web/portforward{ports}");
    let mut socket = websocket(port, &path("?ports=80&ports=8081"), BOTH).await.unwrap();
    let mut heard = BTreeMap::<u8, Vec<u8>>::new();
    // Four numbers of two bytes, and why one of the ports is not to be had.
    while heard.len() < 4 || heard[&3].len() == 2 {
        let (channel, mut data) = message(&mut socket).await.unwrap();
        heard.entry(channel).or_default().append(&mut data);
    }
    let why = String::from_utf8(heard.get_mut(&3).unwrap().split_off(2)).unwrap();
    assert!(
        why.starts_with("error forwarding port 8081 to pod web, uid ") && why.ends_with("connection refused"),
        "{why}"
    );
    let number = |channel: u8, bytes: [u8; 2]| (channel, bytes.to_vec());
    assert_eq!(
        heard,
        [number(0, [80, 0]), number(1, [80, 0]), number(2, [0x91, 0x1f]), number(3, [0x91, 0x1f])].into()
    );
    // The other one goes on; what is on a channel that nobody has is nobody's.
    for words in ["\u{1}x", "\u{9}x", "\u{0}hello"] {
        socket.send(Message::Binary(words.as_bytes().to_vec().into())).await.unwrap();
    }
    assert_eq!(message(&mut socket).await, Some((0, b"hello".to_vec())));
    // The end of the last port is that of the connection, and no error of it.
    let mut socket = websocket(port, &path("?ports=82,82"), BOTH).await.unwrap();
    let mut said = Vec::new();
    while let Some(heard) = message(&mut socket).await {
        said.push(heard);
    }
    said.sort();
    let ends = |channel| [(channel, b"R\0".to_vec()), (channel, b"word".to_vec()), (channel + 1, b"R\0".to_vec())];
    assert_eq!(said, [ends(0), ends(2)].concat());

    let many = format!("?ports={}", vec!["80"; 65].join(","));
    for (ports, protocols, why) in [
        ("", BOTH, r#"query parameter \"port\" is required"#),
        ("?ports=x", BOTH, r#"unable to parse \"x\" as a port: invalid digit found in string"#),
        ("?ports=0", BOTH, r#"port \"0\" must be > 0"#),
        (&many, BOTH, "65 ports; at most 64 are forwarded at once"),
        ("?ports=80", "v9", "unable to negotiate protocol: client supports [v9], server accepts "),
    ] {
        let (code, told) = websocket(port, &path(ports), protocols).await.err().unwrap();
        assert!(code == 400 && told.contains(why), "{code} {told}");
    }
}
