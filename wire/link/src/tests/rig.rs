//! Nodes, a wire between them that can be cut, and waits that say what they saw last.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fluidos_identity::{NodeId, NodeKey};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UdpSocket;

use crate::*;

pub(super) const WAIT: Duration = Duration::from_secs(10);

pub(super) fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32]).unwrap()
}

pub(super) fn options(name: &str, incarnation: u64) -> Options {
    Options { domain: format!("{name}.example"), ..Options::new("127.0.0.1:0".parse().unwrap(), name, incarnation) }
}

pub(super) fn node(seed: u8) -> Links {
    Links::start(key(seed), options(&format!("node{seed}"), 1)).unwrap()
}

/// A node that notices a cut wire within a second.
pub(super) fn impatient(seed: u8, incarnation: u64) -> Links {
    let patience = Options {
        keep_alive: Duration::from_millis(100),
        idle_timeout: Duration::from_millis(600),
        ..options(&format!("node{seed}"), incarnation)
    };
    Links::start(key(seed), patience).unwrap()
}

/// Waits until `observe` returns what `done` accepts; a time-out reports the last one.
pub(super) async fn until<T: Debug>(what: &str, mut observe: impl FnMut() -> T, done: impl Fn(&T) -> bool) -> T {
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let observed = observe();
        if done(&observed) {
            return observed;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: after {WAIT:?} still {observed:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn up(links: &Links, peer: NodeId) -> Session {
    let what = format!("{} waits for {}", links.id().tag(), peer.tag());
    let observed = until(&what, || (links.get(&peer), links.dials()), |(session, _)| session.is_some()).await;
    observed.0.unwrap()
}

pub(super) async fn down(links: &Links, peer: NodeId) {
    let what = format!("{} waits for {} to go", links.id().tag(), peer.tag());
    until(&what, || links.peers(), |peers| !peers.iter().any(|known| known.id == peer)).await;
}

/// Two nodes with a session; the first one dialled.
pub(super) async fn pair() -> (Links, Links) {
    let (a, b) = (node(1), node(2));
    a.dial(b.local_address().unwrap(), Some(b.id()));
    up(&a, b.id()).await;
    up(&b, a.id()).await;
    (a, b)
}

/// Sends back what comes.
pub(super) struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn stream(&self, _peer: &PeerInfo, _header: Value, stream: LinkStream) {
        let (mut from, mut to) = stream.into_split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = to.shutdown().await;
    }
}

/// A wire between one dialler and one node, which can be cut and led elsewhere.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    target: Arc<std::sync::Mutex<SocketAddr>>,
    cut: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    pub(super) async fn to(target: SocketAddr) -> Self {
        let (near, far) =
            (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = near.local_addr().unwrap();
        let (target, cut) = (Arc::new(std::sync::Mutex::new(target)), Arc::new(AtomicBool::new(false)));
        let (led_to, is_cut) = (target.clone(), cut.clone());
        let task = tokio::spawn(async move {
            let (mut out, mut back, mut dialler) = (vec![0; 65536], vec![0; 65536], None);
            loop {
                tokio::select! {
                    Ok((length, from)) = near.recv_from(&mut out) => {
                        dialler = Some(from);
                        let target = *led_to.lock().unwrap();
                        if !is_cut.load(Ordering::Relaxed) {
                            let _ = far.send_to(&out[..length], target).await;
                        }
                    }
                    Ok((length, _)) = far.recv_from(&mut back) => {
                        if let Some(dialler) = dialler.filter(|_| !is_cut.load(Ordering::Relaxed)) {
                            let _ = near.send_to(&back[..length], dialler).await;
                        }
                    }
                }
            }
        });
        Self { address, target, cut, task }
    }

    pub(super) fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    pub(super) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}
