//! Real namespaces, cables and rules of the kernel. Each test runs on a thread with a network and a mount namespace of
//! its own, so all it makes is gone with the thread.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::FabricAccess;

mod outside;
mod plugged;

/// Longer than any answer on one machine takes.
pub(crate) const SOON: Duration = Duration::from_secs(3);
/// Long enough that what is let through would have arrived.
pub(crate) const NEVER: Duration = Duration::from_millis(400);

/// A machine of its own with a neighbour on its LAN: 192.0.2.1 and 192.0.2.2.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
}

pub(crate) fn on_machine<F: AsyncFnOnce(Machine) + Send + 'static>(test: F) {
    let thread = std::thread::Builder::new().name("flt-machine".into()).spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let dir = tempfile::Builder::new().prefix("flt-network-").tempdir().unwrap();
        let machine = Machine { dir };
        machine.make_lan();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(machine));
    });
    thread.unwrap().join().unwrap();
}

impl Machine {
    fn make_lan(&self) {
        let mut routing = Routing::open().unwrap();
        routing.set_up(1).unwrap();
        namespace::create(&self.neighbour()).unwrap();
        let file = fs::File::open(self.neighbour()).unwrap();
        routing.add_veth("lan0", "lan0", std::os::fd::AsFd::as_fd(&file)).unwrap();
        let link = routing.link("lan0").unwrap().unwrap();
        routing.add_address(link, Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
        routing.set_up(link).unwrap();
        namespace::within(&self.neighbour(), || {
            let mut routing = Routing::open().unwrap();
            let link = routing.link("lan0").unwrap().unwrap();
            routing.add_address(link, NEIGHBOUR, 24).unwrap();
            routing.set_up(link).unwrap();
            Ok(())
        })
        .unwrap();
    }

    pub(crate) fn neighbour(&self) -> PathBuf {
        self.dir.path().join("flt-neighbour")
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            instance: "a1".into(),
            data_dir: self.dir.path().join("a1"),
            pod_cidr: "10.77.0.0/24".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            cni: None,
            ipv6: None,
        }
    }
}

const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// Answers every connection with `name` and the caller's address.
pub(crate) fn serve(netns: &Path, name: &'static str, port: u16) {
    namespace::within(netns, move || {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let peer = stream.peer_addr().unwrap().ip();
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

pub(crate) fn tcp(address: Ipv4Addr, port: u16) -> Result<String, io::ErrorKind> {
    let to = SocketAddr::V4(SocketAddrV4::new(address, port));
    let mut stream = TcpStream::connect_timeout(&to, SOON).map_err(|error| error.kind())?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind())?;
    Ok(text)
}

fn udp(address: Ipv4Addr, port: u16, wait: Duration) -> Result<String, io::ErrorKind> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket.set_read_timeout(Some(wait)).unwrap();
    socket.connect((address, port)).map_err(|error| error.kind())?;
    socket.send(b"x").map_err(|error| error.kind())?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A call made in a pod.
pub(crate) fn from(
    pod: &Attachment,
    call: impl FnOnce() -> Result<String, io::ErrorKind> + Send + 'static,
) -> Result<String, io::ErrorKind> {
    namespace::within(&pod.netns, move || Ok(call())).unwrap()
}

pub(crate) fn tcp_from(pod: &Attachment, address: Ipv4Addr, port: u16) -> Result<String, io::ErrorKind> {
    from(pod, move || tcp(address, port))
}

/// A Service of no address yet.
pub(crate) fn one(endpoints: &[(Ipv4Addr, u16)]) -> ServicePort {
    ServicePort { addresses: Vec::new(), ..service("d/old", [0; 4], endpoints) }
}

fn service(name: &str, address: [u8; 4], endpoints: &[(Ipv4Addr, u16)]) -> ServicePort {
    ServicePort {
        name: name.into(),
        addresses: vec![address.into()],
        protocol: Protocol::Tcp,
        port: 80,
        node_port: None,
        external: Vec::new(),
        sources: None,
        endpoints: endpoints.to_vec(),
        by_client: false,
    }
}

#[test]
fn pods_reach_each_other_the_machine_and_the_outside() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        let b = network.attach("flt-b").await.unwrap();
        assert_eq!((a.address, b.address), (Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)));
        serve(&b.netns, "b", 80);
        serve(&machine.neighbour(), "neighbour", 80);
        assert_eq!(tcp_from(&a, b.address, 80).unwrap(), "b 10.77.0.2");
        assert_eq!(tcp_from(&b, Ipv4Addr::LOCALHOST, 80).unwrap(), "b 127.0.0.1");
        assert_eq!(tcp(b.address, 80).unwrap(), "b 10.77.0.1", "the machine calls with the gateway's address");
        assert_eq!(tcp_from(&a, NEIGHBOUR, 80).unwrap(), "neighbour 192.0.2.1", "masqueraded");
        let nobody = Ipv4Addr::new(10, 77, 0, 99);
        assert_eq!(tcp_from(&a, nobody, 80), Err(io::ErrorKind::ConnectionRefused), "refused at once, not lost");
        network.destroy().await.unwrap();
    });
}

#[test]
fn an_attachment_survives_a_restart_and_nothing_survives_destroy() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        assert_eq!(network.attach("flt-a").await.unwrap(), a);
        serve(&a.netns, "a", 80);
        drop(network);
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        assert_eq!(network.attached().await, ["flt-a"]);
        assert_eq!(tcp(a.address, 80).unwrap(), "a 10.77.0.1", "works before it is attached again");
        assert_eq!(network.attach("flt-a").await.unwrap(), a);
        assert_eq!(network.attach("flt-b").await.unwrap().address, Ipv4Addr::new(10, 77, 0, 3));
        network.detach("flt-a").await.unwrap();
        network.detach("flt-a").await.unwrap();
        assert!(!a.netns.exists());
        network.destroy().await.unwrap();
        let names: Vec<String> = Routing::open().unwrap().links().unwrap().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["lo", "lan0"]);
        assert_eq!(fs::read_dir(machine.dir.path().join("a1")).unwrap().count(), 0);
    });
}

#[test]
fn a_pod_whose_cable_was_pulled_is_mended() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        let mut routing = Routing::open().unwrap();
        let link = routing.link("va1-2").unwrap().unwrap();
        routing.delete_link(link).unwrap();
        assert_eq!(network.attach("flt-a").await.unwrap(), a);
        serve(&a.netns, "a", 80);
        assert_eq!(tcp(a.address, 80).unwrap(), "a 10.77.0.1");
    });
}

#[test]
fn a_pod_cannot_speak_with_another_address() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        let receiver = namespace::within(&b.netns, || Ok(UdpSocket::bind("0.0.0.0:90").unwrap())).unwrap();
        receiver.set_read_timeout(Some(NEVER)).unwrap();
        let target = b.address;
        let send = move |source: Ipv4Addr| {
            move || {
                let mut routing = Routing::open().unwrap();
                routing.add_address(1, source, 32).unwrap();
                let socket = UdpSocket::bind((source, 0)).unwrap();
                Ok(socket.send_to(b"x", (target, 90)).unwrap())
            }
        };
        namespace::within(&a.netns, send(Ipv4Addr::new(10, 77, 0, 9))).unwrap();
        assert!(receiver.recv(&mut [0; 8]).is_err(), "another pod's address");
        namespace::within(&a.netns, send(NEIGHBOUR)).unwrap();
        assert!(receiver.recv(&mut [0; 8]).is_err(), "an address of the LAN");
        namespace::within(&a.netns, send(a.address)).unwrap();
        assert_eq!(receiver.recv(&mut [0; 8]).unwrap(), 1, "its own address");
    });
}

#[test]
fn services_work_from_pods_and_machine_and_refuse_without_endpoints() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            let pod = network.attach(&format!("flt-{name}")).await.unwrap();
            serve(&pod.netns, name, 8080);
            pods.push(pod);
        }
        let two = [(pods[1].address, 8080), (pods[2].address, 8080)];
        let mut udp_service = service("d/udp", [10, 96, 0, 20], &two[..1]);
        (udp_service.protocol, udp_service.port) = (Protocol::Udp, 53);
        let mut exposed = service("d/exposed", [10, 96, 0, 22], &two);
        exposed.node_port = Some(30080);
        let mut sticky = service("d/sticky", [10, 96, 0, 24], &two);
        sticky.by_client = true;
        let services = vec![
            sticky,
            service("d/one", [10, 96, 0, 20], &two[..1]),
            udp_service,
            service("d/two", [10, 96, 0, 21], &two),
            exposed,
            service("d/none", [10, 96, 0, 23], &[]),
        ];
        network.set_services(services).await.unwrap();
        let at = |last| Ipv4Addr::new(10, 96, 0, last);
        assert_eq!(tcp_from(&pods[0], at(20), 80).unwrap(), "b 10.77.0.2");
        assert_eq!(tcp(at(20), 80).unwrap(), "b 10.77.0.1");
        assert_eq!(from(&pods[0], move || udp(at(20), 53, SOON)).unwrap(), "b 10.77.0.2");
        assert_eq!(udp(at(20), 53, SOON).unwrap(), "b 10.77.0.1");
        assert_eq!(tcp_from(&pods[1], at(20), 80).unwrap(), "b 10.77.0.1", "hairpin: a pod reaches itself");
        let seen: std::collections::BTreeSet<String> =
            (0..40).map(|_| tcp_from(&pods[0], at(21), 80).unwrap()).collect();
        assert_eq!(seen.len(), 2, "both endpoints are used: {seen:?}");
        let seen: std::collections::BTreeSet<String> =
            (0..40).map(|_| tcp_from(&pods[0], at(24), 80).unwrap()).collect();
        assert_eq!(seen.len(), 1, "a client always comes to the same endpoint: {seen:?}");
        let neighbour = machine.neighbour();
        let reply = namespace::within(&neighbour, || Ok(tcp(Ipv4Addr::new(192, 0, 2, 1), 30080))).unwrap().unwrap();
        assert!(reply.ends_with(" 192.0.2.2"), "a node port keeps the caller's address: {reply}");
        assert!(tcp(Ipv4Addr::new(192, 0, 2, 1), 30080).is_ok(), "a node port from the machine itself");
        assert_eq!(tcp_from(&pods[0], at(23), 80), Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(tcp(at(23), 80), Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(from(&pods[0], move || udp(at(23), 80, SOON)), Err(io::ErrorKind::ConnectionRefused));
        network.set_services(Vec::new()).await.unwrap();
        assert_eq!(tcp_from(&pods[0], at(20), 80), Err(io::ErrorKind::ConnectionRefused), "removed");
    });
}

#[test]
fn a_confined_pod_reaches_pods_services_and_dns_only() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        serve(&a.netns, "a", 80);
        serve(&b.netns, "b", 80);
        serve(&machine.neighbour(), "neighbour", 80);
        for (address, port) in [([0, 0, 0, 0], 7443), ([10, 77, 0, 1], 53)] {
            let listener = TcpListener::bind((Ipv4Addr::from(address), port)).unwrap();
            std::thread::spawn(move || listener.incoming().flatten().for_each(|mut s| drop(s.write_all(b"machine"))));
        }
        let at = |last| Ipv4Addr::new(10, 96, 0, last);
        let services = vec![
            service("d/b", [10, 96, 0, 20], &[(b.address, 80)]),
            service("d/api", [10, 96, 0, 1], &[(network.gateway(), 7443)]),
            service("d/lan", [10, 96, 0, 21], &[(NEIGHBOUR, 80)]),
        ];
        network.set_services(services).await.unwrap();
        let lan = Ipv4Addr::new(192, 0, 2, 1);
        for (address, port) in [(lan, 7443), (network.gateway(), 7443), (at(1), 80), (NEIGHBOUR, 80), (at(21), 80)] {
            assert!(tcp_from(&a, address, port).is_ok(), "before it is confined: {address}:{port}");
        }
        let confined = |allow_to: &[&str]| {
            let allow_to = allow_to.iter().map(|r| r.parse().unwrap()).collect();
            vec![ConfinedPod { address: a.address, allow_to, own_cluster: true }]
        };
        network.set_confined(confined(&[])).await.unwrap();
        for (address, port) in [(lan, 7443), (network.gateway(), 7443), (at(1), 80), (NEIGHBOUR, 80), (at(21), 80)] {
            let result = tcp_from(&a, address, port);
            assert_eq!(result, Err(io::ErrorKind::HostUnreachable), "confined: {address}:{port}");
            assert!(tcp_from(&b, address, port).is_ok(), "the other is not: {address}:{port}");
        }
        assert_eq!(tcp_from(&a, b.address, 80).unwrap(), "b 10.77.0.2");
        assert_eq!(tcp_from(&a, at(20), 80).unwrap(), "b 10.77.0.2");
        assert_eq!(tcp_from(&a, network.gateway(), 53).unwrap(), "machine", "DNS by the gateway's address");
        assert_eq!(tcp_from(&a, at(10), 53).unwrap(), "machine", "DNS by its Service address");
        assert_eq!(tcp(a.address, 80).unwrap(), "a 10.77.0.1", "the machine may call it");
        assert_eq!(tcp_from(&b, a.address, 80).unwrap(), "a 10.77.0.3", "others may call it");
        network.set_confined(confined(&["192.0.2.2/32"])).await.unwrap();
        assert_eq!(tcp_from(&a, NEIGHBOUR, 80).unwrap(), "neighbour 192.0.2.1");
        assert_eq!(tcp_from(&a, lan, 7443), Err(io::ErrorKind::HostUnreachable));
        let mut stranger = confined(&["192.0.2.2/32"]);
        stranger[0].own_cluster = false;
        network.set_confined(stranger).await.unwrap();
        assert_eq!(tcp_from(&a, NEIGHBOUR, 80).unwrap(), "neighbour 192.0.2.1");
        for (address, port) in [(b.address, 80), (at(20), 80), (network.gateway(), 53), (at(10), 53), (lan, 7443)] {
            let result = tcp_from(&a, address, port);
            assert_eq!(result, Err(io::ErrorKind::HostUnreachable), "a stranger: {address}:{port}");
        }
        assert_eq!(tcp_from(&b, a.address, 80).unwrap(), "a 10.77.0.3", "others may call it");
    });
}

/// A peer behind a device of its own: `device` here, a pod address there that leads back over it.
fn peer(machine: &Machine, device: &'static str, subnet: u8, pod: Ipv4Addr) -> (PathBuf, FabricRoute) {
    let netns = machine.dir.path().join(format!("flt-peer-{device}"));
    namespace::create(&netns).unwrap();
    let file = fs::File::open(&netns).unwrap();
    let (here, there) = (Ipv4Addr::new(198, 51, 100, subnet + 1), Ipv4Addr::new(198, 51, 100, subnet + 2));
    let mut routing = Routing::open().unwrap();
    routing.add_veth(device, "up0", std::os::fd::AsFd::as_fd(&file)).unwrap();
    let link = routing.link(device).unwrap().unwrap();
    routing.add_address(link, here, 30).unwrap();
    routing.set_up(link).unwrap();
    namespace::within(&netns, move || {
        let mut routing = Routing::open().unwrap();
        routing.set_up(1).unwrap();
        routing.add_address(1, pod, 32).unwrap();
        let device = routing.link("up0").unwrap().unwrap();
        routing.add_address(device, there, 30).unwrap();
        routing.set_up(device).unwrap();
        let everything = Route { to: Cidr::ANY, device, gateway: Some(here), source: Some(pod), metric: None };
        routing.replace_route(everything).unwrap();
        Ok(())
    })
    .unwrap();
    (netns, FabricRoute { to: Cidr::new(pod, 24).unwrap(), device: device.into(), access: FabricAccess::Cluster })
}

#[test]
fn the_fabric_joins_pods_and_services_and_nothing_else() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        let (one, two) = (Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 89, 0, 2));
        let (one_ns, one_route) = peer(&machine, "fab1", 0, one);
        let (two_ns, two_route) = peer(&machine, "fab2", 4, two);
        serve(&a.netns, "a", 80);
        serve(&one_ns, "one", 80);
        serve(&two_ns, "two", 80);
        serve(&machine.neighbour(), "neighbour", 80);
        for (address, port) in [([0, 0, 0, 0], 7443), ([10, 77, 0, 1], 53)] {
            let listener = TcpListener::bind((Ipv4Addr::from(address), port)).unwrap();
            std::thread::spawn(move || listener.incoming().flatten().for_each(|mut s| drop(s.write_all(b"machine"))));
        }
        network.set_routes(vec![one_route.clone(), two_route.clone()]).await.unwrap();
        let at = |last| Ipv4Addr::new(10, 96, 0, last);
        let services = vec![
            service("d/far", [10, 96, 0, 30], &[(one, 80)]),
            service("d/near", [10, 96, 0, 31], &[(a.address, 80)]),
            service("d/two", [10, 96, 0, 32], &[(two, 80)]),
            service("d/api", [10, 96, 0, 1], &[(network.gateway(), 7443)]),
        ];
        network.set_services(services).await.unwrap();
        assert_eq!(tcp_from(&a, one, 80).unwrap(), "one 10.77.0.2", "a pod keeps its address");
        assert_eq!(tcp(one, 80).unwrap(), "one 10.77.0.1", "the machine has the gateway's");
        assert_eq!(tcp_from(&a, at(30), 80).unwrap(), "one 10.77.0.2", "a Service whose pod is elsewhere");
        let from_one =
            |address: Ipv4Addr, port: u16| namespace::within(&one_ns, move || Ok(tcp(address, port))).unwrap();
        assert_eq!(from_one(a.address, 80).unwrap(), "a 10.88.0.2", "a pod elsewhere calls a pod here");
        assert_eq!(from_one(at(31), 80).unwrap(), "a 10.88.0.2", "and a Service here");
        assert_eq!(from_one(at(32), 80).unwrap(), "two 10.77.0.1", "and a Service here whose pod is at a third");
        assert_eq!(from_one(at(10), 53).unwrap(), "machine", "and DNS");
        let machine_lan = Ipv4Addr::new(192, 0, 2, 1);
        let refused = [(network.gateway(), 7443), (machine_lan, 7443), (at(1), 80), (NEIGHBOUR, 80), (two, 80)];
        for (address, port) in refused {
            assert_eq!(from_one(address, port), Err(io::ErrorKind::HostUnreachable), "not {address}:{port}");
        }
        // A guest of the first, and a pod of this node.
        let guest = network.attach("flt-guest").await.unwrap();
        serve(&guest.netns, "guest", 80);
        let confined = ConfinedPod { address: guest.address, allow_to: vec![one_route.to], own_cluster: false };
        network.set_confined(vec![confined]).await.unwrap();
        let only_guests = FabricRoute { access: FabricAccess::Guests, ..one_route };
        network.set_routes(vec![only_guests, two_route]).await.unwrap();
        assert_eq!(from_one(guest.address, 80).unwrap(), "guest 10.88.0.2", "its own guest");
        assert_eq!(tcp_from(&guest, one, 80).unwrap(), "one 10.77.0.3", "and back");
        for (address, port) in [(a.address, 80), (at(31), 80), (at(32), 80), (at(10), 53)] {
            assert_eq!(from_one(address, port), Err(io::ErrorKind::HostUnreachable), "guests only: {address}:{port}");
        }
        let guest_address = guest.address;
        let from_two = namespace::within(&two_ns, move || Ok(tcp(guest_address, 80))).unwrap();
        assert_eq!(from_two, Err(io::ErrorKind::HostUnreachable), "the guest of another");
        network.set_routes(Vec::new()).await.unwrap();
        assert!(tcp(one, 80).is_err());
        let missing = FabricRoute {
            to: "10.88.0.0/24".parse().unwrap(),
            device: "flt-none".into(),
            access: FabricAccess::Guests,
        };
        let error = network.set_routes(vec![missing]).await.unwrap_err();
        assert_eq!(error.errno(), Some(ENODEV));
    });
}

#[test]
fn pods_of_another_machine_are_reached_as_they_are() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        serve(&a.netns, "a", 80);
        // The neighbour is another machine with one pod.
        let there = Ipv4Addr::new(10, 78, 0, 2);
        let neighbour = machine.neighbour();
        namespace::within(&neighbour, move || {
            let mut routing = Routing::open().unwrap();
            routing.set_up(1).unwrap();
            routing.add_address(1, there, 32).unwrap();
            let (to, gateway) = ("10.77.0.0/24".parse().unwrap(), Some(Ipv4Addr::new(192, 0, 2, 1)));
            routing.replace_route(Route { to, device: 0, gateway, source: Some(there), metric: None }).unwrap();
            Ok(())
        })
        .unwrap();
        serve(&neighbour, "there", 80);
        let mut ports = service("d/far", [10, 96, 0, 30], &[(there, 80)]);
        ports.node_port = Some(30080);
        network.set_services(vec![ports]).await.unwrap();
        assert!(tcp_from(&a, there, 80).is_err(), "nobody has said where it is");
        let route = |third, last| MachineRoute {
            to: Cidr::new(Ipv4Addr::new(10, 78, third, 0), 24).unwrap(),
            via: Ipv4Addr::new(192, 0, 2, last),
        };
        network.set_machines(vec![route(0, 2)]).await.unwrap();
        assert_eq!(tcp_from(&a, there, 80).unwrap(), "there 10.77.0.2", "a pod keeps its address");
        assert_eq!(tcp_from(&a, [10, 96, 0, 30].into(), 80).unwrap(), "there 10.77.0.2", "through a Service, too");
        assert_eq!(tcp(there, 80).unwrap(), "there 10.77.0.1", "the machine has the gateway's");
        let here = a.address;
        let from_there = |address, port| namespace::within(&neighbour, move || Ok(tcp(address, port))).unwrap();
        assert_eq!(from_there(here, 80).unwrap(), "a 10.78.0.2");
        let node_port = from_there(Ipv4Addr::new(192, 0, 2, 1), 30080);
        assert_eq!(node_port.unwrap(), "there 10.77.0.1", "who comes from outside comes back by this machine");
        // A node of the fabric knows only this machine.
        let one = Ipv4Addr::new(10, 88, 0, 2);
        let (one_ns, one_route) = peer(&machine, "fab1", 0, one);
        network.set_routes(vec![one_route.clone()]).await.unwrap();
        let from_one =
            |address: Ipv4Addr, port: u16| namespace::within(&one_ns, move || Ok(tcp(address, port))).unwrap();
        assert_eq!(from_one(there, 80).unwrap(), "there 10.77.0.1", "a pod elsewhere calls a pod of another machine");
        assert_eq!(from_one([10, 96, 0, 30].into(), 80).unwrap(), "there 10.77.0.1", "and a Service that leads there");
        let only_guests = FabricRoute { access: FabricAccess::Guests, ..one_route };
        network.set_routes(vec![only_guests]).await.unwrap();
        assert_eq!(from_one(there, 80), Err(io::ErrorKind::HostUnreachable));
        // One that is on no network of this machine, beside one that is.
        let far = MachineRoute { via: Ipv4Addr::new(203, 0, 113, 1), ..route(1, 0) };
        let error = network.set_machines(vec![route(0, 2), far]).await.unwrap_err();
        assert_eq!(error.errno(), Some(nix::libc::ENETUNREACH), "{error}");
        assert!(tcp_from(&a, there, 80).is_ok(), "the other is led on");
        network.set_machines(Vec::new()).await.unwrap();
        assert!(tcp_from(&a, there, 80).is_err());
    });
}

#[test]
fn a_pod_to_be_confined_is_never_free() {
    on_machine(async |machine| {
        let options = Options { pod_cidr: "10.77.0.0/28".parse().unwrap(), ..machine.options() };
        let network = NodeNetwork::open(options.clone()).await.unwrap();
        let a = network.attach_confined("flt-a").await.unwrap();
        let b = network.attach("flt-b").await.unwrap();
        serve(&b.netns, "b", 80);
        let refused = Err(io::ErrorKind::HostUnreachable);
        assert_eq!(tcp_from(&a, b.address, 80), refused, "nothing has been said of it yet");
        let told = ConfinedPod { address: a.address, allow_to: vec![], own_cluster: true };
        network.set_confined(vec![told]).await.unwrap();
        assert!(tcp_from(&a, b.address, 80).is_ok());
        assert_eq!(tcp_from(&a, Ipv4Addr::new(192, 0, 2, 1), 80), refused);
        drop(network);
        let network = NodeNetwork::open(options).await.unwrap();
        assert!(tcp_from(&a, b.address, 80).is_ok(), "what was said holds after a restart");
        assert_eq!(tcp_from(&a, Ipv4Addr::new(192, 0, 2, 1), 80), refused, "and so does the rest");
        network.set_confined(Vec::new()).await.unwrap();
        assert_eq!(tcp_from(&a, b.address, 80), refused, "attached to be confined");
        network.detach("flt-a").await.unwrap();
        let mut attached = Vec::new();
        for number in 0..12 {
            let pod = network.attach(&format!("flt-{number}")).await.unwrap();
            if pod.address == a.address {
                assert!(tcp_from(&pod, b.address, 80).is_ok(), "the next with its address is another pod");
                attached.push(pod);
                break;
            }
        }
        assert_eq!(attached.len(), 1, "the address was given again");
    });
}

#[test]
fn rules_that_somebody_removed_are_made_again() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        serve(&a.netns, "a", 80);
        network.set_services(vec![service("d/s", [10, 96, 0, 20], &[(a.address, 80)])]).await.unwrap();
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).unwrap();
        nftables::remove::<Ipv4Addr>(&mut socket, "substrate-a1").unwrap();
        assert!(tcp(Ipv4Addr::new(10, 96, 0, 20), 80).is_err());
        network.mend().await.unwrap();
        assert_eq!(tcp(Ipv4Addr::new(10, 96, 0, 20), 80).unwrap(), "a 10.77.0.1");
        network.mend().await.unwrap();
    });
}

#[test]
fn a_udp_client_that_keeps_its_socket_follows_the_service() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let (a, b, c) = (
            network.attach("flt-a").await.unwrap(),
            network.attach("flt-b").await.unwrap(),
            network.attach("flt-c").await.unwrap(),
        );
        serve(&b.netns, "b", 53);
        serve(&c.netns, "c", 53);
        let leads_to = |pod: &Attachment| {
            let mut port = service("d/dns", [10, 96, 0, 20], &[(pod.address, 53)]);
            (port.protocol, port.port) = (Protocol::Udp, 53);
            vec![port]
        };
        let socket = namespace::within(&a.netns, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.connect("10.96.0.20:53").unwrap();
            Ok(socket)
        })
        .unwrap();
        let ask = || {
            socket.send(b"x").unwrap();
            let mut buffer = [0; 64];
            socket.recv(&mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        network.set_services(leads_to(&b)).await.unwrap();
        assert_eq!(ask().unwrap(), "b 10.77.0.2");
        network.set_services(leads_to(&c)).await.unwrap();
        assert_eq!(ask().unwrap(), "c 10.77.0.2");
    });
}

#[test]
fn a_thousand_services_are_one_transaction() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let a = network.attach("flt-a").await.unwrap();
        serve(&a.netns, "a", 80);
        let services: Vec<ServicePort> = (0..1000u16)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let others = (10..14).map(|last| (Ipv4Addr::new(10, 77, 0, last), 80));
                let mut endpoints = vec![(a.address, 80)];
                endpoints.extend(others.filter(|_| number != 999));
                service(&format!("d/s{number}"), [10, 96, 1 + high, low], &endpoints)
            })
            .collect();
        network.set_services(services).await.unwrap();
        assert_eq!(tcp(Ipv4Addr::new(10, 96, 4, 231), 80).unwrap(), "a 10.77.0.1");
    });
}

#[test]
fn two_nodes_in_one_namespace_do_not_meddle() {
    on_machine(async |machine| {
        let one = NodeNetwork::open(machine.options()).await.unwrap();
        let mut options = machine.options();
        options.instance = "a".into();
        options.data_dir = machine.dir.path().join("a");
        let taken = NodeNetwork::open(options.clone()).await.unwrap_err().to_string();
        assert!(taken.starts_with("address 10.77.0.1 is already on interface number "), "{taken}");
        options.pod_cidr = "10.78.0.0/24".parse().unwrap();
        let two = NodeNetwork::open(options).await.unwrap();
        let (a, b) = (one.attach("flt-a").await.unwrap(), two.attach("flt-b").await.unwrap());
        serve(&a.netns, "a", 80);
        serve(&b.netns, "b", 80);
        let cluster = Ipv4Addr::new(10, 96, 0, 20);
        one.set_services(vec![service("d/s", [10, 96, 0, 20], &[(a.address, 80)])]).await.unwrap();
        two.set_services(vec![service("d/s", [10, 96, 0, 20], &[(b.address, 80)])]).await.unwrap();
        assert!(tcp_from(&a, cluster, 80).unwrap().starts_with("a "), "the same address, each its own Service");
        assert!(tcp_from(&b, cluster, 80).unwrap().starts_with("b "));
        assert!(tcp(cluster, 80).unwrap().starts_with("a "), "the machine's calls go to the first");
        two.destroy().await.unwrap();
        assert!(tcp_from(&a, cluster, 80).unwrap().starts_with("a "));
        assert!(a.netns.exists());
    });
}

#[test]
fn options_and_identifiers_that_cannot_work_are_refused() {
    on_machine(async |machine| {
        for (change, expected) in [
            ("instance", "network option instance is \"Zz\", needed 1 to 8 lower-case hexadecimal digits"),
            ("pod_cidr", "network option pod_cidr is \"10.0.0.0/11\", needed a prefix of 12 to 29 bits"),
            ("service_cidr", "network option service_cidr is \"10.77.0.0/16\", needed no address of the pod range"),
        ] {
            let mut options = machine.options();
            match change {
                "instance" => options.instance = "Zz".into(),
                "pod_cidr" => options.pod_cidr = "10.0.0.0/11".parse().unwrap(),
                _ => options.service_cidr = "10.77.0.0/16".parse().unwrap(),
            }
            assert_eq!(NodeNetwork::open(options).await.unwrap_err().to_string(), expected);
        }
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        for uid in ["", "..", "../a", "a/b", ".hidden"] {
            assert!(matches!(network.attach(uid).await, Err(Error::PodUid(_))), "{uid}");
        }
    });
}
