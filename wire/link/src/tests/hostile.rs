//! Peers that prove a key and then misbehave, spoken by a bare QUIC client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fluidos_identity::{NodeKey, client_config};
use quinn::crypto::rustls::QuicClientConfig;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::rig::*;

struct Bare {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl Bare {
    async fn connect(to: SocketAddr, key: Option<&NodeKey>) -> Result<Self, String> {
        let any = NodeKey::from_seed([99; 32]).unwrap();
        let mut tls = client_config(key.unwrap_or(&any), None, &[b"fluidos-link/1"]).unwrap();
        if key.is_none() {
            tls.client_auth_cert_resolver = Arc::new(NoCertificate);
        }
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint.connect_with(config, to, "node.invalid").unwrap();
        let connection = connecting.await.map_err(|error| error.to_string())?;
        Ok(Self { endpoint, connection })
    }

    /// Sends raw bytes as hello; returns the code with which the session was closed, or `None` if it was accepted.
    async fn hello(&self, bytes: &[u8]) -> Option<u64> {
        let (mut send, mut receive) = self.connection.open_bi().await.ok()?;
        let _ = send.write_all(bytes).await;
        let answered = tokio::time::timeout(WAIT, receive.read_u32()).await.expect("an answer in 10 s");
        if answered.is_ok() {
            return None;
        }
        Some(self.closed().await)
    }

    async fn closed(&self) -> u64 {
        let reason = tokio::time::timeout(WAIT, self.connection.closed()).await.expect("a close in 10 s");
        match reason {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("{other}"),
        }
    }

    async fn end(self) {
        self.connection.close(0u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn framed(json: &serde_json::Value) -> Vec<u8> {
    let json = json.to_string().into_bytes();
    [&(json.len() as u32).to_be_bytes()[..], &json].concat()
}

fn good_hello() -> Vec<u8> {
    framed(&json!({"versionMin": 1, "versionMax": 1, "incarnation": 1, "name": "bare", "unknown": "is passed over"}))
}

const HELLO: u64 = 3;
const SILENCED: u64 = 4;

#[tokio::test]
async fn nobody_without_a_key_gets_in() {
    let a = node(1);
    let address = a.local_address().unwrap();
    if let Ok(bare) = Bare::connect(address, None).await {
        // With TLS 1.3 the client may be done first; then the server's refusal comes as a close.
        let reason = tokio::time::timeout(WAIT, bare.connection.closed()).await.expect("a close in 10 s");
        assert!(matches!(reason, quinn::ConnectionError::ConnectionClosed(_)), "{reason}");
        bare.end().await;
    }
    until("it is counted", || a.counters().refused_sessions, |refused| *refused == 1).await;
    assert!(a.peers().is_empty());
    a.stop().await;
}

#[tokio::test]
async fn a_hello_that_is_too_large_or_malformed_is_refused_counted_and_then_not_listened_to() {
    let a = node(1);
    let (address, hooligan) = (a.local_address().unwrap(), key(50));
    let hellos: [Vec<u8>; 8] = [
        u32::MAX.to_be_bytes().to_vec(),
        (16 * 1024u32 + 1).to_be_bytes().to_vec(),
        framed(&json!([])),
        framed(&json!({"versionMin": 1, "versionMax": 1, "incarnation": 1, "name": "a\nb"})),
        framed(&json!({"versionMin": 5, "versionMax": 6, "incarnation": 1, "name": "future"})),
        framed(&json!({"versionMin": 1, "versionMax": 1, "incarnation": -1, "name": "x"})),
        framed(&json!({"versionMin": 1, "versionMax": 1, "incarnation": 1, "name": "x", "features": vec!["f"; 65]})),
        [&4u32.to_be_bytes()[..], &[0xff; 4]].concat(),
    ];
    for (index, hello) in hellos.iter().enumerate() {
        let bare = Bare::connect(address, Some(&hooligan)).await.unwrap();
        assert_eq!(bare.hello(hello).await, Some(HELLO), "hello {index}");
        bare.end().await;
    }
    until("they are counted", || a.counters().strikes, |strikes| *strikes == 8).await;
    let bare = Bare::connect(address, Some(&hooligan)).await.unwrap();
    assert_eq!(bare.closed().await, SILENCED, "even a good one");
    bare.end().await;
    let other = Bare::connect(address, Some(&key(51))).await.unwrap();
    assert_eq!(other.hello(&good_hello()).await, None, "others are listened to");
    up(&a, key(51).id()).await;
    other.end().await;
    a.stop().await;
}

#[tokio::test]
async fn garbage_on_a_session_ends_it() {
    let a = node(1);
    let (address, hooligan) = (a.local_address().unwrap(), key(52));
    let bare = Bare::connect(address, Some(&hooligan)).await.unwrap();
    assert_eq!(bare.hello(&good_hello()).await, None);
    up(&a, hooligan.id()).await;
    for index in 0..7 {
        let (mut send, mut receive) = bare.connection.open_bi().await.unwrap();
        let garbage = if index % 2 == 0 { u32::MAX.to_be_bytes().to_vec() } else { framed(&json!({"kind": 1})) };
        let _ = send.write_all(&garbage).await;
        let end = tokio::time::timeout(WAIT, receive.read_to_end(10)).await.expect("an end in 10 s");
        assert!(end.is_err(), "reset, not an end");
    }
    bare.connection.send_datagram(bytes::Bytes::new()).unwrap();
    assert_eq!(bare.closed().await, SILENCED);
    assert_eq!(a.counters().strikes, 8);
    down(&a, hooligan.id()).await;
    bare.end().await;
    a.stop().await;
}

#[tokio::test]
async fn a_peer_that_never_says_hello_is_hung_up_on() {
    let a = node(1);
    let bare = Bare::connect(a.local_address().unwrap(), Some(&key(53))).await.unwrap();
    let started = std::time::Instant::now();
    assert_eq!(bare.closed().await, HELLO);
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_secs(4) && elapsed < Duration::from_secs(7), "{elapsed:?}");
    assert!(a.peers().is_empty());
    bare.end().await;
    a.stop().await;
}
