//! The two loops that move packets. Every packet is judged by the table that holds at that moment.

use std::io;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use fluidos_identity::NodeId;
use fluidos_link::{Datagram, LinkError, Links, Session};
use tokio::sync::mpsc;

use super::Shared;
use super::counters::{Dropped, PeerBytes};
use super::device::{BATCH, Device, is_gone};
use super::packet::{Framer, Joiner, addresses};
use super::relay::{Change, translate};
use super::table::{Table, Taken};

/// From the kernel to the peers, until the device is gone. Returns how it was lost.
pub(super) async fn outgoing(device: &Device, links: &Links, shared: &Shared) -> io::Error {
    let mut reader = device.reader();
    let mut framer = Framer::new();
    let tally = &shared.counting.sent;
    loop {
        let packets = match reader.read().await {
            Ok(packets) => packets,
            // One hand-over of a pod's that makes no sense, not the device.
            Err(error) if error.raw_os_error().is_none() => {
                tally.drop(Dropped::Malformed, 1);
                continue;
            }
            Err(error) => return error,
        };
        let table = shared.table();
        // Most of a batch goes to one peer. Kept no longer: a newer session may replace it.
        let mut session: Option<(NodeId, Option<Session>)> = None;
        let mut sent = 0;
        for packet in packets {
            let peer = match addresses(packet).and_then(|addresses| table.outgoing(addresses)) {
                Ok(peer) => peer,
                Err(why) => {
                    tally.drop(why, 1);
                    continue;
                }
            };
            if session.as_ref().is_none_or(|(of, _)| *of != peer) {
                sent_to(shared, session.as_ref(), &mut sent);
                session = Some((peer, links.get(&peer)));
            }
            let Some((_, Some(session))) = &session else {
                tally.drop(Dropped::LinkDown, 1);
                continue;
            };
            match send(session, &mut framer, packet) {
                Ok(in_parts) => {
                    tally.count(1, packet.len() as u64);
                    sent += packet.len() as u64;
                    shared.counting.parted_packets.fetch_add(in_parts.into(), Ordering::Relaxed);
                }
                Err(_) => tally.drop(Dropped::LinkDown, 1),
            }
        }
        sent_to(shared, session.as_ref(), &mut sent);
    }
}

/// Counts what was sent to the peer of a session.
fn sent_to(shared: &Shared, session: Option<&(NodeId, Option<Session>)>, sent: &mut u64) {
    if let Some((peer, _)) = session {
        shared.counting.exchanged(*peer, PeerBytes { sent: std::mem::take(sent), received: 0 });
    }
}

/// Sends one packet; says whether it took two datagrams.
fn send(session: &Session, framer: &mut Framer, packet: &[u8]) -> Result<bool, LinkError> {
    match session.send_datagram_frame(framer.whole(packet)) {
        Err(LinkError::TooLarge { .. }) => {
            for part in framer.parts(packet) {
                session.send_datagram_frame(part)?;
            }
            Ok(true)
        }
        other => other.map(|()| false),
    }
}

/// From the peers to the kernel, or on to another peer, until the device is gone. Returns how it was lost.
pub(super) async fn incoming(
    device: &Device,
    links: &Links,
    datagrams: &mut mpsc::Receiver<Datagram>,
    shared: &Shared,
) -> io::Error {
    let mut writer = device.writer();
    let mut framer = Framer::new();
    let mut joiner = Joiner::default();
    let mut batch = Vec::with_capacity(BATCH);
    let tally = &shared.counting.received;
    loop {
        if datagrams.recv_many(&mut batch, BATCH).await == 0 {
            // The links have ended; whoever ended them ends this, too.
            return std::future::pending().await;
        }
        let table = shared.table();
        joiner.retain(|peer| table.knows(peer));
        let (mut count, mut bytes) = (0, 0);
        // Most of a batch comes from one peer.
        let mut from: Option<(NodeId, u64)> = None;
        for Datagram { peer, payload } in batch.drain(..) {
            match judge(&table, &mut joiner, peer, payload) {
                Ok(Some((Taken::On(to, change), packet))) => {
                    if let Err(why) = carry_on(links, shared, &mut framer, (peer, to), change, &packet) {
                        tally.drop(why, 1);
                    }
                }
                Ok(Some((Taken::Here, packet))) if writer.push(&packet) => {
                    count += 1;
                    bytes += packet.len() as u64;
                    match &mut from {
                        Some((of, bytes)) if *of == peer => *bytes += packet.len() as u64,
                        _ => received_from(shared, from.replace((peer, packet.len() as u64))),
                    }
                }
                // A batch of datagrams has no more packets than the writer has room.
                Ok(_) => {}
                Err(why) => tally.drop(why, 1),
            }
        }
        received_from(shared, from);
        if count == 0 {
            continue;
        }
        match writer.flush().await {
            Ok(()) => tally.count(count, bytes),
            Err(error) if is_gone(&error) => return error,
            Err(error) => {
                tracing::debug!(%error, "the kernel did not take packets of other nodes");
                tally.drop(Dropped::Device, count);
            }
        }
    }
}

/// Only from one peer to another, for ever: there are no pods here.
pub(super) async fn relaying(
    links: &Links,
    datagrams: &mut mpsc::Receiver<Datagram>,
    shared: &Shared,
) -> std::convert::Infallible {
    let (mut framer, mut joiner) = (Framer::new(), Joiner::default());
    loop {
        let Some(Datagram { peer, payload }) = datagrams.recv().await else {
            // The links have ended; whoever ended them ends this, too.
            return std::future::pending().await;
        };
        let table = shared.table();
        joiner.retain(|peer| table.knows(peer));
        let carried = match judge(&table, &mut joiner, peer, payload) {
            Ok(Some((Taken::On(to, change), packet))) => {
                carry_on(links, shared, &mut framer, (peer, to), change, &packet)
            }
            Ok(Some((Taken::Here, _))) => Err(Dropped::ForeignDestination),
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        };
        if let Err(why) = carried {
            shared.counting.received.drop(why, 1);
        }
    }
}

/// What becomes of a datagram; `None` of the first part of a packet.
fn judge(table: &Table, joiner: &mut Joiner, peer: NodeId, payload: Bytes) -> Result<Option<(Taken, Bytes)>, Dropped> {
    if !table.knows(&peer) {
        return Err(Dropped::NoContract);
    }
    let Some(packet) = joiner.packet(peer, payload)? else { return Ok(None) };
    Ok(Some((table.incoming(&peer, addresses(&packet)?)?, packet)))
}

/// Sends a packet of one peer to another, changed, and counts it. A peer without a link loses it, as on any network.
fn carry_on(
    links: &Links,
    shared: &Shared,
    framer: &mut Framer,
    (from, to): (NodeId, NodeId),
    change: Change,
    packet: &Bytes,
) -> Result<(), Dropped> {
    let mut packet = packet.to_vec();
    translate(&mut packet, change)?;
    let session = links.get(&to).ok_or(Dropped::LinkDown)?;
    let in_parts = send(&session, framer, &packet).map_err(|_| Dropped::LinkDown)?;
    let (counting, bytes) = (&shared.counting, packet.len() as u64);
    counting.parted_packets.fetch_add(in_parts.into(), Ordering::Relaxed);
    counting.relayed.count(1, bytes);
    counting.exchanged(from, PeerBytes { sent: 0, received: bytes });
    counting.exchanged(to, PeerBytes { sent: bytes, received: 0 });
    Ok(())
}

/// Counts what was taken from a peer.
fn received_from(shared: &Shared, from: Option<(NodeId, u64)>) {
    if let Some((peer, received)) = from {
        shared.counting.exchanged(peer, PeerBytes { sent: 0, received });
    }
}
