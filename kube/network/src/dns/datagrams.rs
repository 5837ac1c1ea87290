//! Datagrams of one socket, as many at a time as are waiting: each call of the kernel brings or takes several (`recvmmsg`, `sendmmsg`), so that a
//! hundred questions on their way cost a few calls and not two hundred.
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

/// So many go with one call: more would save little, and let the first wait for the last.
const AT_ONCE: usize = 32;
/// The largest question that is read whole: nobody's name is that long.
const QUESTION_MAX: usize = 4096;

/// Bytes, and who they are from or for.
pub(super) type Datagram = (Vec<u8>, SocketAddr);

/// What has arrived.
pub(super) struct Inbox {
    room: Vec<u8>,
    /// How long each is, and who has sent it.
    arrived: Vec<(usize, SocketAddr)>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { room: vec![0; AT_ONCE * QUESTION_MAX], arrived: Vec::with_capacity(AT_ONCE) }
    }
}

impl Inbox {
    /// Waits until something is there, and takes all of it that there is room for, in place of what was there.
    ///
    /// # Errors
    /// The socket's, which may be of a client that has gone away (ICMP).
    pub async fn receive(&mut self, socket: &UdpSocket) -> io::Result<()> {
        self.arrived.clear();
        let Self { room, arrived } = self;
        socket.async_io(Interest::READABLE, || take(socket, room, arrived)).await
    }

    /// What was taken.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        let arrived = self.room.chunks(QUESTION_MAX).zip(&self.arrived);
        arrived.filter_map(|(bytes, (length, from))| Some((bytes.get(..*length)?, *from)))
    }
}

fn take(socket: &UdpSocket, room: &mut [u8], arrived: &mut Vec<(usize, SocketAddr)>) -> io::Result<()> {
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(AT_ONCE, None);
    let mut places: Vec<_> = room.chunks_mut(QUESTION_MAX).map(|place| [IoSliceMut::new(place)]).collect();
    let taken = recvmmsg(socket.as_raw_fd(), &mut headers, &mut places, MsgFlags::MSG_DONTWAIT, None)?;
    // A sender without an address is nobody who could be answered, and keeps its place.
    let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
    arrived.extend(taken.map(|one| (one.bytes, one.address.as_ref().and_then(address).unwrap_or(nobody))));
    Ok(())
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|address| SocketAddrV4::from(*address).into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| SocketAddrV6::from(*address).into()))
}

/// Sends all of these. One that the kernel refuses is left out: its client asks again.
pub(super) async fn send(socket: &UdpSocket, mut datagrams: &[Datagram]) {
    while let [(_, first), ..] = datagrams {
        let gone = match socket.async_io(Interest::WRITABLE, || put(socket, datagrams)).await {
            Ok(count) => count.max(1),
            Err(error) => {
                debug!(%error, to = %first, "DNS answer not sent");
                1
            }
        };
        datagrams = datagrams.get(gone..).unwrap_or_default();
    }
}

/// Returns how many of them the kernel has taken, from the first.
fn put(socket: &UdpSocket, datagrams: &[Datagram]) -> io::Result<usize> {
    let datagrams = datagrams.get(..AT_ONCE).unwrap_or(datagrams);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(datagrams.len(), None);
    let bytes: Vec<_> = datagrams.iter().map(|(bytes, _)| [IoSlice::new(bytes)]).collect();
    let to: Vec<_> = datagrams.iter().map(|(_, to)| Some(SockaddrStorage::from(*to))).collect();
    Ok(sendmmsg(socket.as_raw_fd(), &mut headers, &bytes, &to, [], MsgFlags::MSG_DONTWAIT)?.count())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn all_that_waits_comes_and_goes_to_whom_it_is_for() {
        for (here, own) in [("127.0.0.1:0", "127.0.0.1:0"), ("[::1]:0", "[::1]:0")] {
            let socket = UdpSocket::bind(here).await.unwrap();
            let clients = [UdpSocket::bind(own).await.unwrap(), UdpSocket::bind(own).await.unwrap()];
            for number in 0..AT_ONCE as u8 + 8 {
                let client = &clients[usize::from(number % 2)];
                client.send_to(&[number; 40], socket.local_addr().unwrap()).await.unwrap();
            }
            let (mut inbox, mut said) = (Inbox::default(), Vec::new());
            while said.len() < AT_ONCE + 8 {
                inbox.receive(&socket).await.unwrap();
                said.extend(inbox.datagrams().map(|(bytes, from)| (bytes.to_vec(), from)));
            }
            // Port 0 is nobody's: what is refused holds up none of the others.
            said.insert(AT_ONCE / 2, (vec![0; 40], SocketAddr::new(socket.local_addr().unwrap().ip(), 0)));
            send(&socket, &said).await;
            let mut bytes = [0; 64];
            for number in 0..AT_ONCE as u8 + 8 {
                let answer = clients[usize::from(number % 2)].recv(&mut bytes);
                let read = tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
                assert_eq!(bytes[..read], [number; 40], "in the order of the questions");
            }
        }
    }
}
