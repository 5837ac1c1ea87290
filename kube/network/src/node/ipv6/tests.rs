//! The other family with real namespaces, cables and rules of the kernel.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::*;
use crate::node::tests::{Machine, NEVER, SOON, from, on_machine, tcp, tcp_from};
use crate::rules::{Allowed, Peers};
use crate::{Attachment, Both, ConfinedPod, HostPort, Isolated, Protocol, ServicePort, namespace};

const MACHINE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const ANYBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn ranges() -> Ipv6 {
    Ipv6 { pods: "fd00:77::/80".parse().unwrap(), services: "fd00:77:0:0:1::/112".parse().unwrap() }
}

fn at(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x77, 0, 0, 1, 0, 0, last)
}

fn options(machine: &Machine) -> Options {
    Options { ipv6: Some(ranges()), ..machine.options() }
}

/// A network of both families on a machine whose LAN has both.
async fn open(machine: &Machine) -> NodeNetwork {
    let give = |address: Ipv6Addr| {
        move || {
            let mut routing = Routing::open().unwrap();
            let lan = routing.link("lan0").unwrap().unwrap();
            routing.add_address(lan, address, 64).unwrap();
            Ok(())
        }
    };
    give(MACHINE)().unwrap();
    namespace::within(&machine.neighbour(), give(NEIGHBOUR)).unwrap();
    NodeNetwork::open(options(machine)).await.unwrap()
}

/// Answers calls of either family with `name` and the caller's address.
fn serve(netns: &Path, name: &'static str, port: u16) {
    namespace::within(netns, move || {
        let tcp = TcpListener::bind((ANYBODY, port)).unwrap();
        let udp = UdpSocket::bind((ANYBODY, port)).unwrap();
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _ = write!(stream, "{name} {peer}");
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
        Ok(())
    })
    .unwrap();
}

fn call(to: impl Into<SocketAddr>) -> Result<String, ErrorKind> {
    let mut stream = TcpStream::connect_timeout(&to.into(), SOON).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    Ok(text)
}

fn call_from(pod: &Attachment, address: Ipv6Addr, port: u16) -> Result<String, ErrorKind> {
    from(pod, move || call((address, port)))
}

fn neighbour_calls(machine: &Machine, address: Ipv6Addr, port: u16) -> Result<String, ErrorKind> {
    namespace::within(&machine.neighbour(), move || Ok(call((address, port)))).unwrap()
}

fn ask(socket: &UdpSocket, wait: Duration) -> Result<String, ErrorKind> {
    socket.set_read_timeout(Some(wait)).unwrap();
    socket.send(b"x").map_err(|error| error.kind())?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn service(name: &str, address: u16, endpoints: &[Ipv6Addr]) -> ServicePort<Ipv6Addr> {
    ServicePort {
        name: name.into(),
        addresses: vec![at(address)],
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        external: Vec::new(),
        sources: None,
        endpoints: endpoints.iter().map(|address| (*address, 8080)).collect(),
        by_client: false,
    }
}

fn v6(services: Vec<ServicePort<Ipv6Addr>>) -> Both<Vec<ServicePort>, Vec<ServicePort<Ipv6Addr>>> {
    Both { v4: Vec::new(), v6: services }
}

fn address(pod: &Attachment) -> Ipv6Addr {
    pod.address_v6.unwrap()
}

#[test]
fn pods_have_an_address_of_each_family_and_guests_of_one() {
    on_machine(async |machine| {
        let network = open(&machine).await;
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        let told = [&a, &b].map(|pod| format!("{} {}", pod.address, address(pod)));
        assert_eq!(told, ["10.77.0.2 fd00:77::2", "10.77.0.3 fd00:77::3"]);
        serve(&b.netns, "b", 80);
        serve(&machine.neighbour(), "neighbour", 80);
        // At once: nobody is asked first whether an address is in use.
        assert_eq!(call_from(&a, address(&b), 80).unwrap(), "b fd00:77::2");
        assert_eq!(tcp_from(&a, b.address, 80).unwrap(), "b 10.77.0.2");
        assert_eq!(call((address(&b), 80)).unwrap(), "b fd00:77::1", "the machine calls with the gateway's address");
        assert_eq!(call_from(&a, NEIGHBOUR, 80).unwrap(), format!("neighbour {MACHINE}"), "masqueraded");
        let nobody = "fd00:77::99".parse().unwrap();
        assert_eq!(call_from(&a, nobody, 80), Err(ErrorKind::ConnectionRefused), "refused at once, not lost");

        let guest = network.attach_confined("flt-guest").await.unwrap();
        assert_eq!(guest.address_v6, None);
        let has = namespace::within(&guest.netns, || {
            Ok(fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default())
        });
        let has = has.unwrap();
        assert!(!has.contains("eth0"), "switched off, its link-local address too: {has}");
        assert_eq!(call_from(&guest, address(&b), 80), Err(ErrorKind::NetworkUnreachable));

        // One that is told to be confined only later reaches nothing by the other family.
        let confined = ConfinedPod { address: a.address, allow_to: vec![Cidr::ANY], own_cluster: true };
        network.set_confined(vec![confined]).await.unwrap();
        assert_eq!(tcp_from(&a, b.address, 80).unwrap(), "b 10.77.0.2");
        for address in [address(&b), NEIGHBOUR] {
            assert_eq!(call_from(&a, address, 80), Err(ErrorKind::PermissionDenied), "{address}");
        }
        network.destroy().await.unwrap();
    });
}

#[test]
fn a_restart_keeps_both_and_what_began_with_one_keeps_one() {
    on_machine(async |machine| {
        let network = open(&machine).await;
        let a = network.attach("flt-a").await.unwrap();
        serve(&a.netns, "a", 80);
        drop(network);
        assert_eq!(NodeNetwork::dual(&machine.options(), ranges()).await.unwrap(), Some(ranges()));
        let network = NodeNetwork::open(options(&machine)).await.unwrap();
        assert_eq!(call((address(&a), 80)).unwrap(), "a fd00:77::1", "works before it is attached again");
        assert_eq!(network.attach("flt-a").await.unwrap(), a);
        network.detach("flt-a").await.unwrap();
        network.destroy().await.unwrap();
        let mut socket =
            engine_packets::netlink::Socket::open(nix::sys::socket::SockProtocol::NetlinkNetFilter).unwrap();
        assert!(!engine_packets::nftables::exists::<Ipv6Addr>(&mut socket, "substrate-a1").unwrap());

        let network = NodeNetwork::open(machine.options()).await.unwrap();
        assert_eq!(network.attach("flt-a").await.unwrap().address_v6, None);
        drop(network);
        assert_eq!(NodeNetwork::dual(&machine.options(), ranges()).await.unwrap(), None, "it began with IPv4");
        let network = NodeNetwork::open(options(&machine)).await.unwrap();
        assert_eq!(network.options().ipv6, None);
        assert_eq!(network.attach("flt-b").await.unwrap().address_v6, None);
    });
}

#[test]
fn a_machine_that_listens_to_a_router_goes_on_listening() {
    on_machine(async |machine| {
        fs::write("/proc/sys/net/ipv6/conf/lan0/accept_ra", "1").unwrap();
        let off = Path::new("/proc/sys/net/ipv6/conf/default/accept_ra");
        fs::write(off, "0").unwrap();
        open(&machine).await;
        let said = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}")).unwrap();
        assert_eq!((said("all/forwarding").trim(), said("lan0/accept_ra").trim()), ("1", "2"));
        assert_eq!(fs::read_to_string(off).unwrap().trim(), "0", "who does not listen is left");
        // A router that does not listen was made so by its owner.
        fs::write("/proc/sys/net/ipv6/conf/lan0/accept_ra", "1").unwrap();
        NodeNetwork::open(options(&machine)).await.unwrap();
        assert_eq!(said("lan0/accept_ra").trim(), "1");
    });
}

#[test]
fn services_of_the_other_family() {
    on_machine(async |machine| {
        let network = open(&machine).await;
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            let pod = network.attach(&format!("flt-{name}")).await.unwrap();
            serve(&pod.netns, name, 8080);
            pods.push(pod);
        }
        let [a, b, c] = &pods[..] else { panic!() };
        let two = [address(b), address(c)];
        let external: Ipv6Addr = "2001:db8:9::7".parse().unwrap();
        let udp = ServicePort { protocol: Protocol::Udp, port: 53, ..service("d/udp", 0x20, &two[..1]) };
        let services = vec![
            service("d/one", 0x20, &two[..1]),
            udp.clone(),
            ServicePort { node_port: Some(30080), external: vec![external], ..service("d/two", 0x21, &two) },
            ServicePort { by_client: true, ..service("d/sticky", 0x24, &two) },
            service("d/none", 0x23, &[]),
            ServicePort {
                port: 81,
                external: vec![MACHINE],
                sources: Some(vec![Cidr::host(NEIGHBOUR)]),
                ..service("d/his", 0x25, &two[..1])
            },
            ServicePort {
                port: 82,
                external: vec![MACHINE],
                sources: Some(vec!["2001:db8:2::/64".parse().unwrap()]),
                ..service("d/not", 0x26, &two[..1])
            },
        ];
        let old =
            ServicePort { addresses: vec![[10, 96, 0, 20].into()], ..crate::node::tests::one(&[(b.address, 8080)]) };
        network.set_services(Both { v4: vec![old], v6: services.clone() }).await.unwrap();
        assert_eq!(call_from(a, at(0x20), 80).unwrap(), "b fd00:77::2");
        assert_eq!(tcp_from(a, [10, 96, 0, 20].into(), 80).unwrap(), "b 10.77.0.2", "IPv4 goes on beside it");
        assert_eq!(call((at(0x20), 80)).unwrap(), "b fd00:77::1");
        assert_eq!(call_from(b, at(0x20), 80).unwrap(), "b fd00:77::1", "hairpin: a pod reaches itself");
        let answers =
            |address| (0..40).map(|_| call_from(a, address, 80).unwrap()).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(answers(at(0x21)).len(), 2, "both endpoints are used");
        assert_eq!(answers(at(0x24)).len(), 1, "a client always comes to the same endpoint");
        let reply = neighbour_calls(&machine, MACHINE, 30080).unwrap();
        assert!(reply.ends_with(&format!(" {NEIGHBOUR}")), "a node port keeps the caller's address: {reply}");
        assert!(call((MACHINE, 30080)).is_ok(), "a node port from the machine itself");
        assert!(call_from(a, external, 80).is_ok());
        assert_eq!(neighbour_calls(&machine, MACHINE, 81).unwrap(), format!("b {NEIGHBOUR}"), "who is named may");
        assert_eq!(neighbour_calls(&machine, MACHINE, 82), Err(ErrorKind::TimedOut));
        for result in [call_from(a, at(0x23), 80), call((at(0x23), 80)), call_from(a, at(0x99), 80)] {
            assert_eq!(result, Err(ErrorKind::ConnectionRefused));
        }

        // A client of UDP that keeps its socket comes to who is there now.
        let client = namespace::within(&a.netns, || Ok(UdpSocket::bind((ANYBODY, 0)).unwrap())).unwrap();
        client.connect((at(0x20), 53)).unwrap();
        assert_eq!(ask(&client, SOON).unwrap(), "b fd00:77::2");
        let other = ServicePort { endpoints: vec![(address(c), 8080)], ..udp };
        network.set_services(v6(vec![other])).await.unwrap();
        assert_eq!(ask(&client, SOON).unwrap(), "c fd00:77::2");
        network.set_services(v6(Vec::new())).await.unwrap();
        assert_eq!(call_from(a, at(0x20), 80), Err(ErrorKind::ConnectionRefused), "removed");
    });
}

#[test]
fn ports_of_the_machine_lead_to_a_pod_in_both_families() {
    on_machine(async |machine| {
        let network = open(&machine).await;
        let a = network.attach("flt-a").await.unwrap();
        serve(&a.netns, "a", 8080);
        let port = |address: Option<IpAddr>, port| HostPort { address, protocol: Protocol::Tcp, port, to: 8080 };
        let lan: std::net::Ipv4Addr = [192, 0, 2, 1].into();
        let everywhere = std::net::Ipv4Addr::UNSPECIFIED.into();
        let ports = vec![
            port(None, 80),
            port(Some(MACHINE.into()), 81),
            port(Some(lan.into()), 82),
            port(Some(everywhere), 83),
        ];
        network.publish("flt-a", ports).await.unwrap();
        drop(network);
        let network = NodeNetwork::open(options(&machine)).await.unwrap();
        let old = |port| namespace::within(&machine.neighbour(), move || Ok(tcp(lan, port))).unwrap().is_ok();
        let new = |port| neighbour_calls(&machine, MACHINE, port).is_ok();
        assert_eq!(
            [80, 81, 82, 83].map(|port| (old(port), new(port))),
            [(true, true), (false, true), (true, false), (true, false)]
        );
        network.detach("flt-a").await.unwrap();
        assert_eq!([80, 81].map(new), [false, false]);
    });
}

#[test]
fn an_isolated_pod_is_isolated_in_both_families() {
    on_machine(async |machine| {
        let network = open(&machine).await;
        let (a, b, c) = (
            network.attach("flt-a").await.unwrap(),
            network.attach("flt-b").await.unwrap(),
            network.attach("flt-c").await.unwrap(),
        );
        for (pod, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
            serve(&pod.netns, name, 8080);
        }
        serve(Path::new("/proc/thread-self/ns/net"), "machine", 7443);
        // By the other address that each end of a cable has.
        let on_the_cable = || {
            let link = Routing::open().unwrap().link("eth0").unwrap().unwrap();
            call(SocketAddrV6::new(CABLE, 7443, 0, link))
        };
        let cable = |pod: &Attachment| from(pod, on_the_cable);
        let gateway = "fd00:77::1".parse().unwrap();
        network.set_services(v6(vec![service("d/b", 0x20, &[address(&b)])])).await.unwrap();
        let calls = |pod: &Attachment| {
            let [b, c] = [&b, &c].map(address);
            let to = [(b, 8080), (c, 8080), (at(0x20), 80), (gateway, 7443), (MACHINE, 7443)];
            to.map(|(address, port)| call_from(pod, address, port).is_ok())
        };
        assert_eq!(calls(&a), [true; 5], "before");
        assert!(cable(&a).is_err(), "by an address that no rule knows nothing goes, isolated or not");

        let only = |pods: &[Ipv6Addr]| {
            Some(vec![Allowed { peers: Peers::Pods(pods.iter().copied().collect()), ports: Vec::new() }])
        };
        let isolated = Isolated { egress: only(&[address(&c)]), ..Isolated::new(address(&a)) };
        network.set_isolated(Both { v4: Vec::new(), v6: vec![isolated] }).await.unwrap();
        assert_eq!(calls(&a), [false, true, false, false, false], "only where it may");
        assert!(cable(&a).is_err());
        assert_eq!(calls(&b), [true; 5], "the other is not isolated");
        assert!(tcp_from(&a, b.address, 8080).is_ok(), "the other family is told by itself");
        assert!(call_from(&b, address(&a), 8080).is_ok(), "who is called may answer");

        let isolated = Isolated { ingress: only(&[address(&c), at(1)]), ..Isolated::new(address(&b)) };
        network.set_isolated(Both { v4: Vec::new(), v6: vec![isolated] }).await.unwrap();
        let refused = [call_from(&a, address(&b), 8080), call_from(&a, at(0x20), 80)];
        assert_eq!(refused, [Err(ErrorKind::PermissionDenied), Err(ErrorKind::PermissionDenied)], "and by the Service");
        assert_eq!(call_from(&c, address(&b), 8080).unwrap(), "b fd00:77::4");
        let range = |range: &str, except: &str| Peers::Range {
            range: range.parse().unwrap(),
            except: vec![except.parse().unwrap()],
        };
        let some = Allowed { peers: range("fd00:77::/80", "fd00:77::2/128"), ports: Vec::new() };
        let isolated = Isolated { ingress: Some(vec![some]), ..Isolated::new(address(&b)) };
        network.set_isolated(Both { v4: Vec::new(), v6: vec![isolated] }).await.unwrap();
        assert!(call_from(&c, address(&b), 8080).is_ok());
        assert!(call_from(&a, address(&b), 8080).is_err(), "the exception of a range");
    });
}

#[test]
fn a_pod_cannot_speak_with_another_address_of_the_other_family() {
    on_machine(async |machine| {
        let network = open(&machine).await;
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        let receiver = namespace::within(&b.netns, || Ok(UdpSocket::bind((ANYBODY, 90)).unwrap())).unwrap();
        receiver.set_read_timeout(Some(NEVER)).unwrap();
        let target = address(&b);
        let send = |source: Ipv6Addr| {
            namespace::within(&a.netns, move || {
                Routing::open().unwrap().add_address(1, source, 128).unwrap();
                let socket = UdpSocket::bind((source, 0)).unwrap();
                Ok(socket.send_to(b"x", (target, 90)).unwrap())
            })
            .unwrap()
        };
        send("fd00:77::9".parse().unwrap());
        assert!(receiver.recv(&mut [0; 8]).is_err(), "another pod's address");
        send(NEIGHBOUR);
        assert!(receiver.recv(&mut [0; 8]).is_err(), "an address of the LAN");
        send(address(&a));
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1, "its own address");
    });
}
