//! Sockets: one for each version of IP on each cable, and the task that keeps time.
//!
//! A socket is bound to the group on one cable, beside those of other programs (avahi, or another node on this machine), and hears nothing
//! else; what is sent from it leaves by its cable.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::Heard;
use super::cables::{Cable, cables};
use super::engine::Engine;
use super::message::PACKET_MAX;
use super::pace::{Pace, Twins};
use super::responder::{PORT, Send};
use super::ways::To;

const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// How often it is seen that a cable came or went.
const LOOK: Duration = Duration::from_secs(3);
/// Until there is room again for what waits.
const FULL: Duration = Duration::from_millis(10);
/// A socket whose cable went is closed at the next look.
const BROKEN: Duration = Duration::from_secs(1);
/// A crowd of a thousand that answers in a tenth of a second, about a kilobyte each; the kernel gives less where it is told to.
const BUFFER: usize = 2 << 20;
/// What tasks share.
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Notify,
    heard: Option<mpsc::Sender<Heard>>,
    hasher: RandomState,
}

pub(super) struct State {
    pub(super) engine: Engine,
    open: BTreeMap<u32, Open>,
    look_at: Instant,
    /// Nothing is opened any more.
    closed: bool,
    twins: Twins,
}

/// The sockets of one cable.
struct Open {
    cable: Cable,
    sockets: Vec<Bound>,
}

struct Bound {
    socket: UdpSocket,
    group: SocketAddr,
    /// `None`: it is there for a last word.
    reader: Option<AbortHandle>,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Shared {
    pub(super) fn new(engine: Engine, heard: Option<mpsc::Sender<Heard>>) -> Arc<Self> {
        let state =
            State { engine, open: BTreeMap::new(), look_at: Instant::now(), closed: false, twins: Twins::default() };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new(), heard, hasher: RandomState::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something new to be said.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Opens what there is to be opened, and reads from it.
    ///
    /// # Errors
    /// There are cables, and a socket can be had on none of them.
    pub(super) fn look(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        state.look_at = Instant::now() + LOOK;
        if state.closed {
            return Ok(());
        }
        state.look(|index, socket| {
            let reads = tokio::net::UdpSocket::from_std(socket.try_clone()?)?;
            Ok(Some(tokio::spawn(read(self.clone(), index, reads)).abort_handle()))
        })
    }

    /// Keeps time, until dropped.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                let now = Instant::now();
                if state.look_at <= now
                    && let Err(error) = self.look(&mut state)
                {
                    tracing::debug!(%error, "multicast DNS has no cable; it is tried again");
                }
                state.due(now);
                let full = self.pass_on(&mut state).then(|| now + FULL);
                let next = [state.engine.next(), full].into_iter().flatten().fold(state.look_at, Instant::min);
                next.max(now + Duration::from_millis(1))
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => {}
                // Nothing is lost: all is looked at again.
                () = self.wake.notified() => {}
            }
        }
    }

    fn hear(&self, index: u32, from: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        let mut state = self.lock();
        if bytes.get(2).is_some_and(|flags| flags & 0x80 != 0)
            && state.twins.has(index, self.hasher.hash_one(bytes), now)
        {
            return;
        }
        let before = state.engine.next();
        match state.engine.hear(index, from, bytes, now) {
            Ok(sends) => state.send(sends),
            Err(error) => tracing::debug!(%error, "an answer could not be written"),
        }
        let waits = self.pass_on(&mut state);
        if waits || state.engine.next() < before {
            self.wake();
        }
    }

    /// Passes on news as there is room for them; `true`: some wait.
    fn pass_on(&self, state: &mut State) -> bool {
        let (Some(browser), Some(heard)) = (&mut state.engine.browser, &self.heard) else { return false };
        while !browser.news.is_empty() {
            let Ok(place) = heard.try_reserve() else { return !heard.is_closed() };
            if let Some((_, news)) = browser.news.pop_first() {
                place.send(news);
            }
        }
        false
    }
}

impl State {
    /// Opens what there is to be opened; `listen` is told of each new socket.
    fn look(&mut self, listen: impl Fn(u32, &UdpSocket) -> io::Result<Option<AbortHandle>>) -> io::Result<()> {
        let there = cables()?;
        self.open.retain(|index, open| there.get(index) == Some(&open.cable));
        let mut failed = None;
        for (index, cable) in there {
            if self.open.contains_key(&index) {
                continue;
            }
            match open(index, &cable, &listen) {
                Ok(sockets) => drop(self.open.insert(index, Open { cable, sockets })),
                Err(error) => failed = Some(error),
            }
        }
        let on = self.open.iter().map(|(index, open)| (*index, open.cable.addresses.clone())).collect();
        self.engine.on(on, Instant::now());
        match failed {
            Some(error) if self.open.is_empty() => Err(error),
            Some(error) => {
                tracing::debug!(%error, "multicast DNS on one of the cables; it is tried again");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Says good-bye and closes all, also outside a runtime.
    pub(super) fn end(&mut self) {
        // A cable that has just come back was not looked at yet: who is there has heard of us before it went.
        if let Err(error) = self.look(|_, _| Ok(None)) {
            tracing::debug!(%error, "no good-bye on a cable");
        }
        match self.engine.bye() {
            Ok(sends) => self.send(sends),
            Err(error) => tracing::debug!(%error, "no good-bye"),
        }
        self.closed = true;
        self.open.clear();
    }

    pub(super) fn due(&mut self, now: Instant) {
        match self.engine.due(now) {
            Ok(sends) => self.send(sends),
            Err(error) => tracing::warn!(%error, "a packet of multicast DNS could not be written"),
        }
    }

    /// Sends what there is room for in the kernel: a packet that is lost is said again.
    pub(super) fn send(&self, sends: Vec<Send>) {
        for Send { cable, to, bytes } in sends {
            for bound in self.open.get(&cable).into_iter().flat_map(|open| &open.sockets) {
                let target = match to {
                    To::All(versions) if versions.has(&bound.group) => bound.group,
                    To::One(one) if one.is_ipv4() == bound.group.is_ipv4() => one,
                    To::All(_) | To::One(_) => continue,
                };
                if let Err(error) = bound.socket.send_to(&bytes, target) {
                    tracing::trace!(%error, cable, "a packet of multicast DNS was not sent");
                }
            }
        }
    }
}

/// The sockets of one cable.
fn open(
    index: u32,
    cable: &Cable,
    listen: impl Fn(u32, &UdpSocket) -> io::Result<Option<AbortHandle>>,
) -> io::Result<Vec<Bound>> {
    let v4 = cable.v4.map(|ip| (socket_v4(index, ip), SocketAddr::from((GROUP_V4, PORT))));
    let v6 = cable.v6.then(|| (socket_v6(index), SocketAddr::from(SocketAddrV6::new(GROUP_V6, PORT, 0, index))));
    let (mut bound, mut failed) = (Vec::new(), None);
    for (socket, group) in v4.into_iter().chain(v6) {
        let opened = socket.and_then(|socket| Ok(Bound { reader: listen(index, &socket)?, socket, group }));
        match opened {
            Ok(one) => bound.push(one),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if bound.is_empty() => Err(error),
        _ => Ok(bound),
    }
}

/// Reads one socket, no faster than its share.
async fn read(shared: Arc<Shared>, index: u32, socket: tokio::net::UdpSocket) {
    let mut buffer = vec![0; PACKET_MAX];
    let mut pace = Pace::new(Instant::now());
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, index, "multicast DNS on a cable");
                tokio::time::sleep(BROKEN).await;
                continue;
            }
        };
        let wait = pace.take(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        shared.hear(index, from, &buffer[..length]);
    }
}

fn socket_v4(index: u32, own: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = socket(Domain::IPV4)?;
    // Else it would hear the group on the cables of all other sockets, too.
    socket.set_multicast_all_v4(false)?;
    socket.bind(&SocketAddr::from((GROUP_V4, PORT)).into())?;
    socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(index))?;
    socket.set_multicast_if_v4(&own)?;
    // RFC 6762, section 11.
    socket.set_multicast_ttl_v4(255)?;
    socket.set_ttl_v4(255)?;
    Ok(socket.into())
}

fn socket_v6(index: u32) -> io::Result<UdpSocket> {
    let socket = socket(Domain::IPV6)?;
    socket.set_only_v6(true)?;
    socket.bind(&SocketAddr::from(SocketAddrV6::new(GROUP_V6, PORT, 0, index)).into())?;
    socket.join_multicast_v6(&GROUP_V6, index)?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_hops_v6(255)?;
    socket.set_unicast_hops_v6(255)?;
    Ok(socket.into())
}

fn socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // No more than the kernel gives; a smaller one loses packets of a crowd, which are asked for again.
    if let Err(error) = socket.set_recv_buffer_size(BUFFER) {
        tracing::debug!(%error, "the buffer of multicast DNS stays as it is");
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
