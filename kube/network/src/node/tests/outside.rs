//! What calls from outside of the cluster come to: external addresses, load balancers', and ports of the machine that are a pod's.
use super::*;

const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Nobody's address; the LAN sends what is for it here.
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

impl Machine {
    /// A call made by the neighbour, who sends what is for `EXTERNAL` to the machine.
    fn call(&self, address: Ipv4Addr, port: u16) -> Result<String, io::ErrorKind> {
        namespace::within(&self.neighbour(), move || {
            let mut routing = Routing::open().unwrap();
            let device = routing.link("lan0").unwrap().unwrap();
            let to = Route { to: Cidr::host(EXTERNAL), device, gateway: Some(MACHINE), source: None, metric: None };
            routing.replace_route(to).unwrap();
            Ok(tcp(address, port))
        })
        .unwrap()
    }
}

fn outside(name: &str, external: Ipv4Addr, endpoints: &[(Ipv4Addr, u16)]) -> ServicePort {
    ServicePort { external: vec![external], addresses: Vec::new(), ..service(name, [0; 4], endpoints) }
}

#[test]
fn external_addresses_lead_to_services() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        for (pod, name) in [(&a, "a"), (&b, "b")] {
            serve(&pod.netns, name, 8080);
        }
        // What listens at the machine itself does not see calls for a Service, also when that has nobody to answer.
        let own = TcpListener::bind((MACHINE, 81)).unwrap();
        own.set_nonblocking(true).unwrap();
        let only = |range: &str| Some(vec![range.parse().unwrap()]);
        let at = |port, service: ServicePort| ServicePort { port, ..service };
        let services = vec![
            outside("d/balanced", MACHINE, &[(a.address, 8080)]),
            at(81, outside("d/nobody", MACHINE, &[])),
            outside("d/external", EXTERNAL, &[(b.address, 8080)]),
            at(82, ServicePort { sources: only("192.0.2.2/32"), ..outside("d/his", EXTERNAL, &[(a.address, 8080)]) }),
            at(83, ServicePort { sources: only("192.0.2.3/32"), ..outside("d/not", EXTERNAL, &[(a.address, 8080)]) }),
            at(84, ServicePort { sources: Some(Vec::new()), ..outside("d/no", EXTERNAL, &[(a.address, 8080)]) }),
        ];
        network.set_services(services).await.unwrap();
        assert_eq!(machine.call(MACHINE, 80).unwrap(), "a 192.0.2.2", "the caller's address is kept");
        assert_eq!(machine.call(EXTERNAL, 80).unwrap(), "b 192.0.2.2");
        assert_eq!(machine.call(MACHINE, 81).unwrap_err(), io::ErrorKind::ConnectionRefused);
        assert_eq!(own.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody came to the machine's own");
        assert_eq!(machine.call(EXTERNAL, 82).unwrap(), "a 192.0.2.2", "who is named may");
        for port in [83, 84] {
            assert_eq!(machine.call(EXTERNAL, port).unwrap_err(), io::ErrorKind::TimedOut, "{port}");
        }
        assert_eq!(tcp_from(&b, MACHINE, 80).unwrap(), "a 10.77.0.3", "from a pod");
        assert!(tcp(MACHINE, 80).unwrap().starts_with("a "), "from the machine");
        network.set_services(Vec::new()).await.unwrap();
        assert_eq!(machine.call(MACHINE, 80).unwrap_err(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn ports_of_the_machine_lead_to_their_pod_until_it_goes() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        let (a, b) = (network.attach("flt-a").await.unwrap(), network.attach("flt-b").await.unwrap());
        for (pod, name) in [(&a, "a"), (&b, "b")] {
            serve(&pod.netns, name, 8080);
        }
        let port = |address: Option<Ipv4Addr>, protocol, port| HostPort {
            address: address.map(IpAddr::V4),
            protocol,
            port,
            to: 8080,
        };
        let ports =
            vec![port(None, Protocol::Tcp, 80), port(Some(EXTERNAL), Protocol::Tcp, 81), port(None, Protocol::Udp, 53)];
        network.publish("flt-a", ports.clone()).await.unwrap();
        network.publish("flt-b", vec![port(Some(MACHINE), Protocol::Tcp, 82)]).await.unwrap();
        let check = |machine: &Machine| {
            assert_eq!(machine.call(MACHINE, 80).unwrap(), "a 192.0.2.2");
            assert_eq!(machine.call(MACHINE, 81).unwrap_err(), io::ErrorKind::ConnectionRefused, "at another address");
            assert_eq!(machine.call(EXTERNAL, 81).unwrap(), "a 192.0.2.2");
            assert_eq!(machine.call(MACHINE, 82).unwrap(), "b 192.0.2.2");
            let udp = namespace::within(&machine.neighbour(), || Ok(udp(MACHINE, 53, SOON))).unwrap();
            assert_eq!(udp.unwrap(), "a 192.0.2.2");
        };
        check(&machine);
        assert_eq!(tcp_from(&b, MACHINE, 80).unwrap(), "a 10.77.0.3");
        assert_eq!(tcp_from(&a, MACHINE, 80).unwrap(), "a 10.77.0.1", "a pod reaches itself");
        // Another process after a restart knows them.
        drop(network);
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        check(&machine);
        network.detach("flt-a").await.unwrap();
        assert_eq!(machine.call(MACHINE, 80).unwrap_err(), io::ErrorKind::ConnectionRefused);
        assert_eq!(machine.call(MACHINE, 82).unwrap(), "b 192.0.2.2");
        serve(Path::new("/proc/thread-self/ns/net"), "machine", 80);
        assert_eq!(machine.call(MACHINE, 80).unwrap(), "machine 192.0.2.2", "the port is the machine's again");
        // Who gets the address next has not got the ports.
        let next = network.attach("flt-c").await.unwrap();
        serve(&next.netns, "c", 8080);
        assert_eq!(machine.call(MACHINE, 80).unwrap(), "machine 192.0.2.2");
    });
}
