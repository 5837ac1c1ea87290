//! What of all this the running kernel has: tried in a network namespace of its own, which ends with the thread that made it, so that
//! nothing on the machine changes (but for modules that the kernel loads when it is asked for what they do).
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::SockProtocol;

use crate::Address;
use crate::netlink::{DUMP, Message, REQUEST, Socket};
use crate::nftables::{Chain, Expr, Hook, Key, KeyKind, Protocol, Ruleset, Set, Value, ValueKind, replace};
use crate::route::Routing;

/// Something that is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// A bridge: a device to put an address on.
    Bridge,
    /// A cable between two namespaces (`veth`).
    Cable,
    /// Tables, chains and maps of nftables.
    Rules,
    /// Addresses that are translated (`nat`, `masq`), and connections that are known (`ct`).
    Translation,
    /// Whether an address is this machine's, and by which device it is reached (`fib`).
    Lookup,
    /// One of several, by chance (`numgen`).
    Chance,
    /// One of several, by who asks (`hash`).
    Hash,
    /// An answer to who is refused (`reject`).
    Refusal,
    /// The list of known connections.
    Connections,
}

/// What is tried, in turn.
const FEATURES: [Feature; 9] = [
    Feature::Bridge,
    Feature::Cable,
    Feature::Rules,
    Feature::Translation,
    Feature::Lookup,
    Feature::Chance,
    Feature::Hash,
    Feature::Refusal,
    Feature::Connections,
];

/// What the kernel does not have, with its answer.
///
/// # Errors
/// No network namespace can be made; it needs CAP_SYS_ADMIN.
pub fn missing() -> io::Result<Vec<(Feature, io::Error)>> {
    let work = || -> io::Result<_> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // One for all: the kernel takes a hundredth of a second to close one that has removed rules.
        let mut netfilter = Socket::open(SockProtocol::NetlinkNetFilter);
        let tried = FEATURES.into_iter().filter_map(|feature| Some((feature, tried(&mut netfilter, feature).err()?)));
        Ok(tried.collect())
    };
    let thread = std::thread::Builder::new().name("probe".into()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread that tried it has ended without an answer"))?
}

/// Whether the kernel has IPv6 and can do to it what is done to IPv4: devices of this network namespace may have addresses, and rules of
/// every sort are taken.
///
/// # Errors
/// What is missing, or a network namespace could not be made to try it in.
pub fn ipv6() -> io::Result<()> {
    let off = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6")?;
    if off.trim() != "0" {
        return Err(io::Error::other("net.ipv6.conf.all.disable_ipv6 is set"));
    }
    let work = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
        for feature in FEATURES
            .into_iter()
            .filter(|feature| !matches!(feature, Feature::Bridge | Feature::Cable | Feature::Connections))
        {
            let rules = rules(feature, Ipv6Addr::LOCALHOST);
            replace(&mut socket, &ruleset(rules, Ipv6Addr::LOCALHOST)).map_err(|(_, error)| error)?;
        }
        Ok(())
    };
    let thread = std::thread::Builder::new().name("probe".into()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("the thread that tried it has ended without an answer"))?
}

fn tried(netfilter: &mut io::Result<Socket>, feature: Feature) -> io::Result<()> {
    // A kernel without any of it has no such socket.
    let netfilter = netfilter.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()));
    match feature {
        Feature::Bridge => Routing::open()?.add_bridge("probe"),
        Feature::Cable => {
            let own = std::fs::File::open("/proc/thread-self/ns/net")?;
            Routing::open()?.add_veth("probe0", "probe1", std::os::fd::AsFd::as_fd(&own))
        }
        Feature::Connections => {
            const CTNETLINK_GET: u16 = (1 << 8) | 1;
            let message = Message::new(CTNETLINK_GET, REQUEST | DUMP, &[2, 0, 0, 0]);
            netfilter?.dump(message).map(drop)
        }
        feature => replace(netfilter?, &ruleset(rules(feature, SOMEWHERE), SOMEWHERE)).map_err(|(_, error)| error),
    }
}

/// An address that is nobody's (RFC 5737).
const SOMEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn rules<A: Address>(feature: Feature, somewhere: A) -> (Hook, Vec<Vec<Expr<A>>>) {
    let map = || "map".to_owned();
    match feature {
        Feature::Translation => {
            let dnat = vec![Expr::Protocol(Protocol::Tcp), Expr::Dnat(somewhere, 1)];
            (Hook::NatPrerouting, vec![vec![Expr::Established, Expr::Accept], dnat])
        }
        Feature::Lookup => (
            Hook::RawPrerouting,
            vec![vec![Expr::DestinationLocal, Expr::Accept], vec![Expr::SourceElsewhere, Expr::Drop]],
        ),
        Feature::Chance => (Hook::NatPrerouting, vec![vec![Expr::Protocol(Protocol::Tcp), Expr::DnatRandom(1, map())]]),
        Feature::Hash => (Hook::NatPrerouting, vec![vec![Expr::Protocol(Protocol::Tcp), Expr::DnatByClient(1, map())]]),
        Feature::Refusal => (Hook::FilterForward, vec![vec![Expr::RejectPort], vec![Expr::RejectProhibited]]),
        _ => (Hook::FilterForward, vec![vec![Expr::Accept]]),
    }
}

fn ruleset<A: Address>((hook, rules): (Hook, Vec<Vec<Expr<A>>>), somewhere: A) -> Ruleset<A> {
    let map = Set {
        name: "map".into(),
        key: &[KeyKind::Number],
        value: ValueKind::Endpoint,
        elements: vec![(vec![Key::Number(0)], Value::Endpoint(somewhere, 1))],
    };
    let chains = vec![Chain { name: "chain".into(), hook: Some(hook), rules }];
    Ruleset { table: "probe".into(), chains, sets: vec![map] }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    #[test]
    fn this_kernel_has_all_and_nothing_is_left() {
        let missing = missing().unwrap();
        assert!(missing.is_empty(), "{missing:?}");
        let links = Routing::open().unwrap().links().unwrap();
        assert!(!links.iter().any(|(_, name)| name.starts_with("probe")), "{links:?}");
    }

    #[test]
    fn ipv6_is_asked_for_where_it_is_used() {
        // /proc/sys/net is that of the thread that reads it.
        let switched = |off: &'static str| {
            let work = move || {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", off).unwrap();
                ipv6().map_err(|error| error.to_string())
            };
            std::thread::spawn(work).join().unwrap()
        };
        assert_eq!(switched("0"), Ok(()));
        assert_eq!(switched("1"), Err("net.ipv6.conf.all.disable_ipv6 is set".to_owned()));
    }

    #[test]
    fn it_is_really_tried() {
        let tried_twice = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut socket = Socket::open(SockProtocol::NetlinkNetFilter);
            let mut twice = |feature| [(); 2].map(|()| tried(&mut socket, feature).is_ok());
            // What is there already cannot be made.
            let devices = [twice(Feature::Bridge), twice(Feature::Cable)];
            tried(&mut socket, Feature::Hash).unwrap();
            (devices, crate::nftables::exists::<Ipv4Addr>(&mut socket.unwrap(), "probe").unwrap())
        });
        assert_eq!(tried_twice.join().unwrap(), ([[true, false]; 2], true));
    }

    #[test]
    fn a_kernel_without_such_sockets_has_no_rules_but_bridges() {
        let devices_and_rules = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut none = Err(io::Error::from_raw_os_error(nix::libc::EPROTONOSUPPORT));
            let refused = [Feature::Rules, Feature::Connections].map(|feature| tried(&mut none, feature).unwrap_err());
            (tried(&mut none, Feature::Bridge).is_ok(), refused.map(|error| error.to_string()))
        });
        let (devices, refused) = devices_and_rules.join().unwrap();
        assert!(devices && refused.iter().all(|why| why.contains("Protocol not supported")), "{refused:?}");
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error() {
        // A map that no set is: the kernel does not take the rule.
        let (hook, mut rules) = rules(Feature::Chance, SOMEWHERE);
        rules[0][1] = Expr::DnatRandom(1, "another".into());
        let refused = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).unwrap();
            replace(&mut socket, &ruleset((hook, rules), SOMEWHERE)).unwrap_err().0
        });
        assert!(refused.join().unwrap().contains("rule of chain"));
    }
}
