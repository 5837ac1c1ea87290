//! Real devices, rules and links between machines of three owners: A buys from B and from C. Needs root.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use substrate_network::{Attachment, Protocol, ServicePort};

use super::lan::{Lan, Node, ip, on_lan, until, within};
use super::{of, packet};
use crate::network::{CHANNEL, Dropped, MTU};

/// Longer than any answer on one machine takes.
const SOON: Duration = Duration::from_secs(3);
/// Long enough that what is let through would have arrived.
const NEVER: Duration = Duration::from_millis(400);

/// Sends an echo request (RFC 792) with so many bytes and says whether they came back.
fn ping(from: &Attachment, to: Ipv4Addr, bytes: usize) -> bool {
    let work = move || {
        let fd: OwnedFd =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).unwrap();
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(1, 0)).unwrap();
        let head = [8, 0, 0, 0, 0x0f, 0x17, 0, 1];
        let mut request: Vec<u8> = head.into_iter().chain((0..bytes).map(|i| i as u8)).collect();
        let word = |two: &[u8]| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0));
        let mut sum: u32 = request.chunks(2).map(word).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        request[2..4].copy_from_slice(&(!sum as u16).to_be_bytes());
        let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
        if sendto(fd.as_raw_fd(), &request, &to, MsgFlags::empty()).is_err() {
            return false;
        }
        let mut answer = vec![0; 65536];
        let start = Instant::now();
        while start.elapsed() < SOON {
            let Ok(length) = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty()) else { return false };
            if answer[20] == 0 && answer[24..length] == request[4..] {
                return true;
            }
        }
        false
    };
    within(from, work).join().unwrap()
}

/// Answers every connection and datagram with the caller's address.
fn serve(pod: &Attachment, port: u16) {
    let work = move || {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let _ = write!(stream, "{}", stream.peer_addr().unwrap().ip());
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{} {length}", peer.ip()).as_bytes(), peer);
            }
        });
    };
    within(pod, work).join().unwrap();
}

fn tcp(from: &Attachment, to: Ipv4Addr, port: u16, wait: Duration) -> Result<String, io::ErrorKind> {
    let call = move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((to, port)), wait)?;
        stream.set_read_timeout(Some(SOON))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    within(from, call).join().unwrap().map_err(|error: io::Error| error.kind())
}

fn udp(from: &Attachment, to: Ipv4Addr, port: u16, bytes: usize) -> Result<String, io::ErrorKind> {
    let call = move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(SOON))?;
        socket.connect((to, port))?;
        socket.send(&vec![7; bytes])?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    within(from, call).join().unwrap().map_err(|error: io::Error| error.kind())
}

/// What is left of bytes whose order matters (FNV-1a).
fn digest(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    }
    hash
}

/// Sends so many bytes over TCP; returns how long that took. They arrive as they were sent.
fn transfer(from: &Attachment, to: &Attachment, bytes: usize) -> Duration {
    let (listening, is_listening) = std::sync::mpsc::channel();
    let server = within(to, move || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 5001)).unwrap();
        listening.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let (mut buffer, mut hash, mut count) = (vec![0; 1 << 16], 0, 0);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return (count, hash),
                length => {
                    count += length;
                    hash = digest(hash, &buffer[..length]);
                }
            }
        }
    });
    is_listening.recv().unwrap();
    let address = to.address;
    let start = Instant::now();
    let client = within(from, move || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, 5001)), SOON).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        let data: Vec<u8> = (0..bytes).map(|i| (i * 31 + i / 251) as u8).collect();
        stream.write_all(&data).unwrap();
        digest(0, &data)
    });
    let sent = client.join().unwrap();
    assert_eq!(server.join().unwrap(), (bytes, sent));
    start.elapsed()
}

/// A and its two sellers: linked, under contract, with routes.
struct Three {
    a: Node,
    b: Node,
    c: Node,
    with_b: String,
}

async fn three(lan: &Lan) -> Three {
    let (a, b, c) = (lan.node(1).await, lan.node(2).await, lan.node(3).await);
    for (from, to) in [(&a, &b), (&a, &c), (&b, &c)] {
        let (links, address, id) = (from.links.clone(), SocketAddr::from(([192, 0, 2, to.seed], 7300)), to.id);
        // A session runs where it was dialled; this thread waits for pods.
        from.here(async move { links.dial(address, Some(id)) }).await;
    }
    until("links", || [&a, &b, &c].map(|node| node.links.peers().len()), |up| *up == [2; 3]).await;
    let with_b = a.agree(a.id, b.id).await;
    b.agree(a.id, b.id).await;
    a.agree(a.id, c.id).await;
    c.agree(a.id, c.id).await;
    until("peers", || [&a, &b, &c].map(|node| node.fabric.peers().len()), |peers| *peers == [2, 1, 1]).await;
    Three { a, b, c, with_b }
}

#[test]
fn pods_of_two_owners_reach_each_other_and_nothing_else() {
    on_lan(async |lan| {
        let Three { a, b, c, with_b } = three(&lan).await;
        let (at_a, at_b, at_c) = (a.pod("web").await, b.guest("api", &a).await, c.guest("db", &a).await);
        for pod in [&at_a, &at_b, &at_c] {
            serve(pod, 80);
        }
        until("a route", || ping(&at_a, at_b.address, 56), |answered| *answered).await;
        assert!(ping(&at_b, at_a.address, 56));
        // Whole and in pieces: the kernel cuts what is longer than the device takes.
        for bytes in [1, usize::from(MTU) - 28, 4000] {
            assert!(ping(&at_a, at_c.address, bytes), "{bytes} bytes");
        }
        assert_eq!(tcp(&at_a, at_b.address, 80, SOON), Ok(at_a.address.to_string()));
        assert_eq!(tcp(&at_b, at_a.address, 80, SOON), Ok(at_b.address.to_string()));
        assert_eq!(udp(&at_a, at_b.address, 80, 1), Ok(format!("{} 1", at_a.address)));
        assert_eq!(udp(&at_b, at_a.address, 80, 3000), Ok(format!("{} 3000", at_b.address)));

        const BYTES: usize = 10 << 20;
        let (there, back) = (transfer(&at_a, &at_b, BYTES), transfer(&at_b, &at_a, BYTES));
        println!("10 MiB: there {there:?}, back {back:?}; A {:?}", a.fabric.counters());

        // B and C have no contract with each other, and A carries nothing between them.
        assert!(tcp(&at_b, at_c.address, 80, NEVER).is_err());
        // A's machine is not reached from a guest elsewhere.
        assert!(tcp(&at_b, Ipv4Addr::new(192, 0, 2, 1), 7300, NEVER).is_err());

        // The contract ends at A: nothing of B's is taken or sent any more.
        a.end(with_b).await;
        until("only C", || a.fabric.peers(), |peers| peers.len() == 1 && peers[0].id == c.id).await;
        let before = a.fabric.counters().dropped_incoming(Dropped::NoContract);
        assert!(tcp(&at_b, at_a.address, 80, NEVER).is_err());
        let dropped = || a.fabric.counters().dropped_incoming(Dropped::NoContract) - before;
        until("dropped", dropped, |dropped| *dropped > 0).await;
        assert!(ping(&at_a, at_c.address, 56));
    });
}

#[test]
fn a_service_here_is_called_there_and_served_at_a_third() {
    on_lan(async |lan| {
        let Three { a, b, c, .. } = three(&lan).await;
        let (at_b, at_c) = (b.guest("api", &a).await, c.guest("db", &a).await);
        serve(&at_c, 6379);
        let address = of(1, 0xf14);
        let services = [Protocol::Tcp, Protocol::Udp].map(|protocol| ServicePort {
            name: format!("shop/db:{}", protocol.name()),
            addresses: vec![address],
            protocol,
            port: 80,
            node_port: None,
            external: Vec::new(),
            sources: None,
            endpoints: vec![(at_c.address, 6379)],
            by_client: false,
        });
        let network = a.network.clone();
        a.here(async move { network.set_services(Vec::from(services)).await.unwrap() }).await;
        // C sees A's gateway, the only address of A's side that it knows.
        let gateway = a.network.gateway().to_string();
        let call = || tcp(&at_b, address, 80, SOON);
        let _ = until("the Service", call, |answer| answer.as_ref() == Ok(&gateway)).await;
        assert_eq!(udp(&at_b, address, 80, 5), Ok(format!("{gateway} 5")));
        assert_eq!(udp(&at_b, address, 80, 2000), Ok(format!("{gateway} 2000")));
        // From A's own pods, too: C sees them as they are.
        let at_a = a.pod("web").await;
        assert_eq!(tcp(&at_a, address, 80, SOON), Ok(at_a.address.to_string()));
        // Without endpoints it is refused at once, over the fabric as at home.
        let network = a.network.clone();
        a.here(async move { network.set_services(Vec::new()).await.unwrap() }).await;
        let start = Instant::now();
        assert!(tcp(&at_b, address, 80, SOON).is_err());
        assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
    });
}

#[test]
fn what_a_peer_forges_is_dropped_and_counted() {
    on_lan(async |lan| {
        let Three { a, b, c, .. } = three(&lan).await;
        let at_a = a.pod("web").await;
        let listening = within(&at_a, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).unwrap();
            socket.set_read_timeout(Some(NEVER)).unwrap();
            let mut buffer = [0; 2048];
            socket.recv_from(&mut buffer).map(|(length, _)| length).unwrap_or(0)
        });
        let forge = async |why: Dropped, payload: &[u8]| {
            let before = a.fabric.counters().dropped_incoming(why);
            b.links.send_datagram(&a.id, CHANNEL, payload).unwrap();
            let dropped = || a.fabric.counters().dropped_incoming(why) - before;
            assert_eq!(until("it is dropped", dropped, |dropped| *dropped > 0).await, 1);
        };
        for source in [of(3, 5), of(1, 1), Ipv4Addr::new(192, 0, 2, 2)] {
            forge(Dropped::ForeignSource, &packet(source, at_a.address, 60)).await;
        }
        for destination in [Ipv4Addr::new(192, 0, 2, 1), of(3, 5)] {
            forge(Dropped::ForeignDestination, &packet(of(2, 5), destination, 60)).await;
        }
        for garbage in [&[][..], &[0x45; 5], &[0x60; 40], &[0; 3], &[0xff; 900]] {
            forge(Dropped::Malformed, garbage).await;
        }
        // C takes nothing from B: they have no contract.
        b.links.send_datagram(&c.id, CHANNEL, &packet(of(2, 5), of(3, 5), 60)).unwrap();
        let no_contract = || c.fabric.counters().dropped_incoming(Dropped::NoContract);
        until("dropped at C", no_contract, |dropped| *dropped == 1).await;
        assert_eq!(a.fabric.counters().received_packets, 0);
        assert_eq!(listening.join().unwrap(), 0);
    });
}

#[test]
fn a_path_too_narrow_for_a_packet_takes_it_in_parts() {
    on_lan(async |lan| {
        let Three { a, b, .. } = three(&lan).await;
        // 1,300 bytes leave 1,272 for QUIC: too few for 1,280 and what QUIC adds.
        for node in [&a, &b] {
            node.here(async { ip("link set lan0 mtu 1300") }).await;
        }
        let (at_a, at_b) = (a.pod("web").await, b.guest("api", &a).await);
        serve(&at_b, 80);
        until("a route", || ping(&at_a, at_b.address, 56), |answered| *answered).await;
        // QUIC finds out within a few lost packets that the path does not take what it took before.
        until("a large packet", || ping(&at_a, at_b.address, usize::from(MTU) - 28), |answered| *answered).await;
        transfer(&at_a, &at_b, 1 << 20);
        transfer(&at_b, &at_a, 1 << 20);
        let parted = [&a, &b].map(|node| node.fabric.counters().parted_packets);
        assert!(parted.iter().all(|parted| *parted > 500), "{parted:?}");
    });
}

#[test]
fn a_device_that_somebody_removed_is_made_again() {
    on_lan(async |lan| {
        let Three { a, b, .. } = three(&lan).await;
        let (at_a, at_b) = (a.pod("web").await, b.guest("api", &a).await);
        until("a route", || ping(&at_a, at_b.address, 56), |answered| *answered).await;
        let device = format!("flt{}", a.id.tag());
        a.here(async move { ip(&format!("link delete {device}")) }).await;
        until("a route again", || ping(&at_a, at_b.address, 56), |answered| *answered).await;
    });
}

/// A buys from B, who serves that with what it bought from C. A and C have no link.
async fn chain(a: &Node, b: &Node, c: &Node) -> (String, String) {
    for (from, to) in [(a, b), (b, c)] {
        let (links, address, id) = (from.links.clone(), SocketAddr::from(([192, 0, 2, to.seed], 7300)), to.id);
        from.here(async move { links.dial(address, Some(id)) }).await;
    }
    until("links", || [a, b, c].map(|node| node.links.peers().len()), |up| *up == [1, 2, 1]).await;
    let sold = a.agree(a.id, b.id).await;
    b.agree(a.id, b.id).await;
    let bought = b.agree(b.id, c.id).await;
    c.agree(b.id, c.id).await;
    b.serve(&sold, &bought).await;
    (sold, bought)
}

#[test]
fn a_reseller_without_pods_carries_all_the_same_and_takes_nothing() {
    on_lan(async |lan| {
        let (a, b, c) = (lan.node(1).await, lan.carrier(2).await, lan.node(3).await);
        let (sold, bought) = chain(&a, &b, &c).await;
        let (at_a, at_c) = (a.pod("web").await, c.guest("api", &a).await);
        let stand_in = of(2, 0x8ff);
        b.twin(&sold, at_c.address, serde_json::json!({"fluidos.eu/stand-in": stand_in})).await;
        c.twin(&bought, at_c.address, serde_json::json!({"fluidos.eu/home": super::prefix(&a.id)})).await;
        serve(&at_c, 80);
        until("a way there", || ping(&at_a, stand_in, 4000), |answered| *answered).await;
        assert_eq!(tcp(&at_a, stand_in, 80, SOON), Ok(at_a.address.to_string()));
        transfer(&at_c, &at_a, 1 << 20);
        let before = b.fabric.counters().dropped_incoming(Dropped::ForeignDestination);
        a.links.send_datagram(&b.id, CHANNEL, &packet(at_a.address, of(2, 5), 60)).unwrap();
        let dropped = || b.fabric.counters().dropped_incoming(Dropped::ForeignDestination) - before;
        until("what is for itself is dropped", dropped, |dropped| *dropped == 1).await;
    });
}

#[test]
fn a_pod_behind_a_reseller_reaches_its_owner_and_is_reached() {
    on_lan(async |lan| {
        let (a, b, c) = (lan.node(1).await, lan.node(2).await, lan.node(3).await);
        let (sold, bought) = chain(&a, &b, &c).await;
        let (at_a, at_b) = (a.pod("web").await, b.pod("own").await);
        // C's guest may reach A's addresses, as `guests` says, and nothing of B's.
        let at_c = c.guest("api", &a).await;
        let stand_in = of(2, 0x8ff);
        b.twin(&sold, at_c.address, serde_json::json!({"fluidos.eu/stand-in": stand_in})).await;
        c.twin(&bought, at_c.address, serde_json::json!({"fluidos.eu/home": super::prefix(&a.id)})).await;
        for pod in [&at_a, &at_b, &at_c] {
            serve(pod, 80);
        }
        until("a way there", || ping(&at_a, stand_in, 56), |answered| *answered).await;
        assert!(ping(&at_c, at_a.address, 56));
        for bytes in [1, usize::from(MTU) - 28, 4000] {
            assert!(ping(&at_a, stand_in, bytes) && ping(&at_c, at_a.address, bytes), "{bytes} bytes");
        }
        // Each sees the other as it knows it: the pod sees its owner's address, its owner the stand-in.
        assert_eq!(tcp(&at_a, stand_in, 80, SOON), Ok(at_a.address.to_string()));
        assert_eq!(tcp(&at_c, at_a.address, 80, SOON), Ok(stand_in.to_string()));
        assert_eq!(udp(&at_a, stand_in, 80, 3000), Ok(format!("{} 3000", at_a.address)));
        assert_eq!(udp(&at_c, at_a.address, 80, 3000), Ok(format!("{stand_in} 3000")));
        let known = Attachment { address: stand_in, ..at_c.clone() };
        transfer(&at_a, &known, 4 << 20);
        transfer(&at_c, &at_a, 4 << 20);
        // Nobody listens there: the refusal comes back at once, over both links and both ways.
        for (from, to) in [(&at_a, stand_in), (&at_c, at_a.address)] {
            let start = Instant::now();
            assert_eq!(udp(from, to, 4444, 5), Err(io::ErrorKind::ConnectionRefused));
            assert!(start.elapsed() < SOON / 2, "{:?}", start.elapsed());
        }
        // A Service of A's, served by the pod behind B, called from A and from that very pod.
        let address = of(1, 0xf14);
        let service = ServicePort {
            name: "shop/api:tcp".into(),
            addresses: vec![address],
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            external: Vec::new(),
            sources: None,
            endpoints: vec![(stand_in, 80)],
            by_client: false,
        };
        let network = a.network.clone();
        a.here(async move { network.set_services(vec![service]).await.unwrap() }).await;
        assert_eq!(tcp(&at_a, address, 80, SOON), Ok(at_a.address.to_string()));
        let gateway = a.network.gateway().to_string();
        assert_eq!(tcp(&at_c, address, 80, SOON), Ok(gateway), "a pod may call itself through its owner");

        // B's own pods and machine are not its: neither side reaches the other.
        let gateway = b.network.gateway();
        for elsewhere in [at_b.address, gateway, Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 3)] {
            assert!(tcp(&at_c, elsewhere, 80, NEVER).is_err(), "{elsewhere}");
        }
        assert!(tcp(&at_b, at_c.address, 80, NEVER).is_err());
        // Forged by C: from the pod to B's own pods, from another to A; by B: from A to another of C's.
        let forge = async |from: &Node, to: &Node, packet: Vec<u8>| {
            let counted = || to.fabric.counters();
            let sum = |c: &crate::network::Counters| {
                c.dropped_incoming(Dropped::ForeignSource) + c.dropped_incoming(Dropped::ForeignDestination)
            };
            let before = sum(&counted());
            from.links.send_datagram(&to.id, CHANNEL, &packet).unwrap();
            until("it is dropped", counted, |now| sum(now) == before + 1).await;
        };
        forge(&c, &b, packet(at_c.address, at_b.address, 60)).await;
        forge(&c, &b, packet(of(3, 99), at_a.address, 60)).await;
        forge(&b, &c, packet(at_a.address, of(3, 99), 60)).await;
        forge(&a, &b, packet(of(1, 5), of(2, 0x900), 60)).await;
        let counters = b.fabric.counters();
        assert!(counters.relayed_packets > 1000 && counters.relayed_bytes > 8 << 20, "{counters:?}");
        assert!(b.fabric.exchanged(&a.id).sent > 4 << 20 && b.fabric.exchanged(&c.id).received > 4 << 20);

        // What was bought ends: nothing is carried any more.
        b.end(bought).await;
        let _ = until("no way there", || tcp(&at_a, stand_in, 80, NEVER), Result::is_err).await;
    });
}
