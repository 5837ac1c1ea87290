//! The real kubectl forwards ports of a pod whose machine is this test.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::json;
use substrate_apiserver::node_proxy::{
    ContainerTarget, Duplex, Error, ExecOptions, ExecSession, LogOptions, NodeProxy,
};
use support::kubectl::start;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The port of the pod that something listens on; it is not the port of this machine.
const ECHO: u16 = 80;

/// A machine whose pods have one echo server.
struct Machine {
    echo: std::net::SocketAddr,
}

#[async_trait]
impl NodeProxy for Machine {
    async fn logs(
        &self,
        _: &ContainerTarget,
        _: &LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Error> {
        Err(Error::NotImplemented("logs".into()))
    }

    async fn exec(&self, _: &ContainerTarget, _: &ExecOptions) -> Result<ExecSession, Error> {
        Err(Error::NotImplemented("exec".into()))
    }

    async fn port_forward(&self, target: &ContainerTarget, port: u16) -> Result<Box<dyn Duplex>, Error> {
        assert_eq!((target.namespace.as_str(), target.pod.as_str()), ("default", "web"));
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

async fn forwards(environment: &[(&str, &str)]) {
    let kubectl = start().await;
    kubectl.api.proxies.register("m1", Arc::new(Machine { echo: echo().await }));
    let mut pod = support::pod("web");
    pod["spec"]["nodeName"] = "m1".into();
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(kubectl.api.post(pods, pod).await.0, 201);
    let refused = kubectl.run("port-forward pod/web :80").await;
    assert!(refused.1.contains("pod is not running. Current status=Pending"), "{refused:?}");
    let running = json!({ "status": { "phase": "Running" } });
    assert_eq!(kubectl.api.patch(&format!("{pods}/web/status"), "merge-patch", running).await.0, 200);

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
