//! Pods on the network of the machine: Debian's plug-ins `bridge` and `host-local`, and one of the test's own that refuses.
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{Allowed, Isolated, Peers};

/// Where Debian has its plug-ins.
const PLUGINS: &str = "/usr/lib/cni";
const BRIDGE: &str = "flt-br0";
const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

impl Machine {
    /// This machine with a configuration: a bridge whose pods are in `subnet`, and then what `more` adds.
    fn with_network(&self, subnet: &str, more: &str) -> Options {
        let conf = self.dir.path().join("net.d");
        fs::create_dir_all(&conf).unwrap();
        let leases = self.leases();
        let text = format!(
            r#"{{"cniVersion":"1.0.0","name":"lab","plugins":[{{"type":"bridge","bridge":"{BRIDGE}","isGateway":true,"hairpinMode":true,
                "ipam":{{"type":"host-local","subnet":"{subnet}","dataDir":{leases:?},"routes":[{{"dst":"0.0.0.0/0"}}]}}}}{more}]}}"#
        );
        fs::write(conf.join("10-lab.conflist"), text).unwrap();
        let programs = [self.dir.path().join("bin"), PLUGINS.into()];
        Options { cni: Some(engine_cni::Network::find(&conf, &programs).unwrap()), ..self.options() }
    }

    fn leases(&self) -> PathBuf {
        self.dir.path().join("leases")
    }

    /// The addresses that are given to somebody.
    fn leased(&self) -> Vec<String> {
        let all = fs::read_dir(self.leases().join("lab")).into_iter().flatten().flatten();
        let mut all: Vec<String> = all.map(|entry| entry.file_name().into_string().unwrap()).collect();
        all.retain(|name| name.starts_with("10."));
        all.sort();
        all
    }

    /// A plug-in that refuses what it is asked first, and says so.
    fn refusing(&self) {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let refuses = "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = DEL ] && exit 0\necho '{\"code\":7,\"msg\":\"no room in the lab\"}'\nexit 1\n";
        fs::write(bin.join("flt-refuses"), refuses).unwrap();
        fs::set_permissions(bin.join("flt-refuses"), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

async fn plug(network: &NodeNetwork, name: &'static str) -> Attachment {
    let pod = network.attach_as(&format!("flt-{name}"), "default", name).await.unwrap();
    serve(&pod.netns, name, 8080);
    pod
}

fn devices() -> Vec<String> {
    Routing::open().unwrap().links().unwrap().into_iter().map(|(_, name)| name).collect()
}

#[test]
fn services_policies_and_ports_hold_on_the_machine_s_network() {
    on_machine(async |machine| {
        let network = NodeNetwork::open(machine.with_network("10.22.0.0/24", "")).await.unwrap();
        let (a, b) = (plug(&network, "a").await, plug(&network, "b").await);
        assert_eq!((a.address, b.address), (Ipv4Addr::new(10, 22, 0, 2), Ipv4Addr::new(10, 22, 0, 3)));
        assert_eq!(network.attach_as("flt-a", "default", "a").await.unwrap(), a, "once");
        assert_eq!(network.attach("flt-a").await.unwrap(), a, "by whoever asks");
        assert!(network.here().v4.contains(a.address), "policies are to hold for it");
        assert_eq!(tcp_from(&a, b.address, 8080).unwrap(), "b 10.22.0.2");
        assert_eq!(tcp_from(&a, Ipv4Addr::LOCALHOST, 8080).unwrap(), "a 127.0.0.1");

        let at = |last| Ipv4Addr::new(10, 96, 0, last);
        let services =
            vec![service("d/b", [10, 96, 0, 20], &[(b.address, 8080)]), service("d/none", [10, 96, 0, 21], &[])];
        network.set_services(services).await.unwrap();
        assert_eq!(
            tcp_from(&a, at(20), 80).unwrap(),
            "b 10.22.0.2",
            "answers pass the machine, which translates them back"
        );
        assert_eq!(tcp_from(&b, at(20), 80).unwrap(), "b 10.77.0.1", "a pod reaches itself");
        assert_eq!(tcp_from(&a, at(21), 80).unwrap_err(), io::ErrorKind::ConnectionRefused);
        assert!(tcp(at(20), 80).unwrap().starts_with("b "), "from the machine");

        let port = HostPort { address: None, protocol: Protocol::Tcp, port: 8081, to: 8080 };
        network.publish("flt-b", vec![port]).await.unwrap();
        let neighbour = machine.neighbour();
        let called = namespace::within(&neighbour, || Ok(tcp(MACHINE, 8081))).unwrap();
        assert_eq!(called.unwrap(), "b 192.0.2.2");

        // Between two pods of one bridge the machine routes nothing, and yet:
        let alone = Isolated { ingress: Some(Vec::new()), ..Isolated::new(b.address) };
        network.set_isolated(vec![alone]).await.unwrap();
        assert_eq!(tcp_from(&a, b.address, 8080).unwrap_err(), io::ErrorKind::HostUnreachable);
        assert_eq!(tcp_from(&a, at(20), 80).unwrap_err(), io::ErrorKind::HostUnreachable, "nor by a Service");
        let only_a = Allowed { peers: Peers::Pods([a.address].into()), ports: Vec::new() };
        let from_a = Isolated { ingress: Some(vec![only_a]), ..Isolated::new(b.address) };
        let nowhere = Isolated { egress: Some(Vec::new()), ..Isolated::new(a.address) };
        network.set_isolated(vec![from_a.clone()]).await.unwrap();
        assert_eq!(tcp_from(&a, b.address, 8080).unwrap(), "b 10.22.0.2");
        network.set_isolated(vec![from_a, nowhere]).await.unwrap();
        assert_eq!(tcp_from(&a, b.address, 8080).unwrap_err(), io::ErrorKind::HostUnreachable);
        assert_eq!(
            tcp_from(&a, network.gateway(), 53).unwrap_err(),
            io::ErrorKind::HostUnreachable,
            "its machine, too"
        );
        network.set_isolated(Vec::new()).await.unwrap();

        // By what the kernel gives devices of itself, past all rules.
        let inside = namespace::within(&a.netns, || Ok(fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()));
        assert!(!inside.unwrap().contains("eth0"));

        // A guest is on this node's own network, where it is confined.
        let guest = network.attach_confined("flt-guest").await.unwrap();
        serve(&guest.netns, "guest", 8080);
        assert_eq!(guest.address, Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(tcp_from(&guest, a.address, 8080).unwrap_err(), io::ErrorKind::HostUnreachable);
        assert_eq!(tcp_from(&a, guest.address, 8080).unwrap(), "guest 10.22.0.2");
        network.destroy().await.unwrap();
        assert_eq!(machine.leased(), [""; 0]);
        assert_eq!(devices(), ["lo", "lan0", BRIDGE], "the bridge is the machine's");
        assert_eq!(fs::read_dir(machine.dir.path().join("a1")).unwrap().count(), 0);
    });
}

#[test]
fn a_pod_keeps_its_network_until_it_goes_also_when_the_configuration_has_gone() {
    on_machine(async |machine| {
        let before = NodeNetwork::open(machine.options()).await.unwrap();
        let old = before.attach_as("flt-old", "default", "old").await.unwrap();
        assert_eq!(old.address, Ipv4Addr::new(10, 77, 0, 2), "no network of the machine");
        drop(before);
        let network = NodeNetwork::open(machine.with_network("10.22.0.0/24", "")).await.unwrap();
        assert_eq!(network.attach_as("flt-old", "default", "old").await.unwrap(), old, "it stays where it is");
        let (a, b) = (plug(&network, "a").await, plug(&network, "b").await);
        assert_eq!(machine.leased(), ["10.22.0.2", "10.22.0.3"]);
        drop(network);

        fs::remove_dir_all(machine.dir.path().join("net.d")).unwrap();
        let network = NodeNetwork::open(machine.options()).await.unwrap();
        assert_eq!(network.attached().await, ["flt-old", "flt-a", "flt-b"]);
        assert_eq!(network.attach_as("flt-a", "default", "a").await.unwrap(), a);
        network.set_services(vec![service("d/b", [10, 96, 0, 20], &[(b.address, 8080)])]).await.unwrap();
        assert_eq!(tcp_from(&a, Ipv4Addr::new(10, 96, 0, 20), 80).unwrap(), "b 10.22.0.2", "still known as ours");
        network.detach("flt-a").await.unwrap();
        network.detach("flt-a").await.unwrap();
        assert!(!a.netns.exists());
        assert_eq!(machine.leased(), ["10.22.0.3"]);
        network.destroy().await.unwrap();
        assert_eq!(machine.leased(), [""; 0]);
    });
}

#[test]
fn a_machine_that_was_switched_off_gives_pods_a_place_again() {
    on_machine(async |machine| {
        let options = machine.with_network("10.22.0.0/24", "");
        let network = NodeNetwork::open(options.clone()).await.unwrap();
        let a = plug(&network, "a").await;
        drop(network);
        // What a machine that was off has lost: namespaces and devices, not files.
        namespace::remove(&a.netns).unwrap();
        let network = NodeNetwork::open(options).await.unwrap();
        let again = plug(&network, "a").await;
        assert_eq!(machine.leased(), [again.address.to_string()], "the first place was given back");
        assert_eq!(tcp(again.address, 8080).unwrap(), "a 10.22.0.1", "the machine calls from its bridge");
    });
}

#[test]
fn a_network_that_refuses_leaves_nothing_and_says_why() {
    on_machine(async |machine| {
        machine.refusing();
        let network =
            NodeNetwork::open(machine.with_network("10.22.0.0/24", r#",{"type":"flt-refuses"}"#)).await.unwrap();
        let refused = network.attach_as("flt-a", "default", "a").await.unwrap_err().to_string();
        assert!(refused.ends_with("flt-refuses refused ADD: no room in the lab"), "{refused}");
        assert_eq!((machine.leased(), network.attached().await), (Vec::new(), Vec::new()));
        assert_eq!(fs::read_dir(machine.dir.path().join("a1/net")).unwrap().count(), 0);
        drop(network);
        let mut routing = Routing::open().unwrap();
        let bridge = routing.link(BRIDGE).unwrap().unwrap();
        routing.delete_link(bridge).unwrap();

        let network = NodeNetwork::open(machine.with_network("10.77.0.0/24", "")).await.unwrap();
        let refused = network.attach_as("flt-a", "default", "a").await.unwrap_err().to_string();
        assert!(refused.contains("addresses as 10.77.0.2, which are in 10.77.0.0/24"), "{refused}");
        assert_eq!((machine.leased(), network.attached().await), (Vec::new(), Vec::new()));
    });
}
