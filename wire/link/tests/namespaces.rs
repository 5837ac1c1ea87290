//! A link between two network namespaces over a real wire (veth): what loopback cannot show. Needs root.
//!
//! ```text
//!   flt-link-PID-a  10.199.0.1 ─── veth ─── 10.199.0.2  flt-link-PID-b
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use std::fmt::Debug;
use std::fs::File;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use fluidos_identity::{NodeId, NodeKey};
use fluidos_link::{DialStatus, Event, Handler, LinkStream, Links, Options, PeerInfo};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const WAIT: Duration = Duration::from_secs(15);

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("the program `ip`");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two namespaces with a wire between them, gone when dropped.
struct Lan {
    a: String,
    b: String,
}

impl Lan {
    fn new() -> Self {
        let name = |side: &str| format!("flt-link-{}-{side}", std::process::id());
        let lan = Self { a: name("a"), b: name("b") };
        ip(&format!("netns add {}", lan.a));
        ip(&format!("netns add {}", lan.b));
        ip(&format!("-n {} link add wire type veth peer name wire netns {}", lan.a, lan.b));
        for (namespace, address) in [(&lan.a, "10.199.0.1/24"), (&lan.b, "10.199.0.2/24")] {
            ip(&format!("-n {namespace} address add {address} dev wire"));
            ip(&format!("-n {namespace} link set wire up"));
        }
        lan
    }

    /// Starts a node whose socket lives in a namespace. Only the thread that opens the socket need be there.
    fn node(&self, namespace: &str, seed: u8) -> Links {
        let runtime = tokio::runtime::Handle::current();
        let path = format!("/run/netns/{namespace}");
        let start = move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let _entered = runtime.enter();
            let options = Options {
                keep_alive: Duration::from_millis(300),
                idle_timeout: Duration::from_millis(1500),
                ..Options::new("0.0.0.0:7300".parse().unwrap(), format!("node{seed}"), 1)
            };
            Links::start(NodeKey::from_seed([seed; 32]).unwrap(), options).unwrap()
        };
        std::thread::spawn(start).join().unwrap()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in [&self.a, &self.b] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).output();
        }
    }
}

async fn until<T: Debug>(what: &str, mut observe: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> Duration {
    let started = Instant::now();
    loop {
        let observed = observe();
        if done(&observed) {
            return started.elapsed();
        }
        assert!(started.elapsed() < WAIT, "{what}: after {WAIT:?} still {observed:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

struct Sink;

#[async_trait]
impl Handler for Sink {
    async fn stream(&self, _peer: &PeerInfo, _header: Value, stream: LinkStream) {
        let (mut from, mut to) = stream.into_split();
        let count = tokio::io::copy(&mut from, &mut tokio::io::sink()).await.unwrap_or(0);
        let _ = to.write_u64(count).await;
        let _ = to.shutdown().await;
    }
}

fn is_up(links: &Links, peer: NodeId) -> bool {
    links.get(&peer).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_over_a_real_wire_carries_and_survives_the_wire_being_pulled() {
    let lan = Lan::new();
    let (a, b) = (lan.node(&lan.a, 1), lan.node(&lan.b, 2));
    let mut events = b.events();
    a.dial("10.199.0.2:7300".parse().unwrap(), Some(b.id()));
    let first = until("up", || (is_up(&a, b.id()) && is_up(&b, a.id()), a.dials()), |(up, _)| *up).await;
    let Event::Up(peer) = events.recv().await.unwrap() else { panic!("not up") };
    assert_eq!(peer.address.ip().to_string(), "10.199.0.1");

    // The path takes more than QUIC's first 1,200 bytes, and datagrams grow with it.
    let longest = || a.get(&b.id()).and_then(|session| session.stats().datagram_bytes_max);
    until("the path is measured", longest, |longest| longest.is_some_and(|bytes| bytes > 1380)).await;

    b.handle("sink", Arc::new(Sink)).unwrap();
    const BYTES: u64 = 64 << 20;
    let started = Instant::now();
    let (mut from, mut to) = a.open(&b.id(), "sink", &()).await.unwrap().into_split();
    let chunk = vec![7; 1 << 20];
    for _ in 0..BYTES >> 20 {
        to.write_all(&chunk).await.unwrap();
    }
    to.shutdown().await.unwrap();
    assert_eq!(from.read_u64().await.unwrap(), BYTES);
    let rate = 64.0 / started.elapsed().as_secs_f64();
    assert!(rate > 1.0, "{rate} MiB/s");

    ip(&format!("-n {} link set wire down", lan.b));
    let noticed = until("down", || (a.peers(), b.peers()), |(at_a, at_b)| at_a.is_empty() && at_b.is_empty()).await;
    assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    let trying = |status: &DialStatus| matches!(status, DialStatus::Trying { failures, .. } if *failures > 0);
    until("dialling goes on", || a.dials()[0].1.clone(), trying).await;
    ip(&format!("-n {} link set wire up", lan.b));
    let mended = until("up again", || (is_up(&a, b.id()) && is_up(&b, a.id()), a.dials()), |(up, _)| *up).await;
    assert!(mended < Duration::from_secs(6), "{mended:?}");
    println!("up {first:?}, {rate:.0} MiB/s, cut noticed {noticed:?}, mended {mended:?}");
    a.stop().await;
    b.stop().await;
}
