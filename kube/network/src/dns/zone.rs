//! The names of a cluster and what they mean. No effects.
//!
//! A **zone** is a table from a name to its records. A name exists if it has records or if one below it has; a question
//! for an existing name without the records asked for is answered empty, for another name `NXDOMAIN`.
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::services::{self, Slices};

/// What a name means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    pub addresses: BTreeSet<IpAddr>,
    /// Port and name of the target.
    pub services: BTreeSet<(u16, String)>,
    pub pointers: BTreeSet<String>,
    pub alias: Option<String>,
    pub text: Option<String>,
}

/// All names of a cluster: lower case, without the last dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    domain: String,
    names: BTreeMap<String, Records>,
    /// Names that exist because one below them does.
    above: BTreeSet<String>,
}

/// The answer to a question for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer<'a> {
    /// The name exists, with these records.
    Records(&'a Records),
    /// The name is a pod's: its address.
    Pod(IpAddr),
    /// The name exists without records.
    Empty,
    /// There is no such name.
    NoName,
    /// The name is not this zone's.
    Elsewhere,
}

impl Zone {
    /// The zone `domain` (lower case, no last dot) of these Services, and of slices of both families.
    pub fn new(domain: &str, all: &[Arc<Service>], slices: &Slices) -> Zone {
        let mut zone = Zone { domain: domain.to_owned(), ..Zone::default() };
        zone.at(&format!("dns-version.{domain}")).text = Some("1.1.0".to_owned());
        zone.above.insert(format!("svc.{domain}"));
        for service in all {
            zone.add(service, services::slices_of(slices, service));
        }
        let mut above = std::mem::take(&mut zone.above);
        for name in zone.names.keys().filter(|name| name.ends_with(domain)) {
            let mut rest = name.as_str();
            while let Some((_, parent)) = rest.split_once('.') {
                if parent.len() < domain.len() || !above.insert(parent.to_owned()) {
                    break;
                }
                rest = parent;
            }
        }
        zone.above = above;
        zone
    }

    /// What the zone says about a name. `name` is lower case without the last dot.
    pub fn answer(&self, name: &str) -> Answer<'_> {
        if let Some(records) = self.names.get(name) {
            return Answer::Records(records);
        }
        let inside = name.strip_suffix(self.domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if !inside {
            return Answer::Elsewhere;
        }
        let of_pods = name.strip_suffix(self.domain.as_str()).and_then(|rest| rest.strip_suffix("pod."));
        let of_pods = of_pods.filter(|rest| rest.is_empty() || rest.ends_with('.'));
        match of_pods.map(|rest| rest.trim_end_matches('.').split('.').collect::<Vec<_>>()).as_deref() {
            Some([dashed, _]) => pod_address(dashed).map_or(Answer::NoName, Answer::Pod),
            // The domain of pods, and that of each namespace.
            Some([_]) => Answer::Empty,
            _ if self.above.contains(name) => Answer::Empty,
            _ => Answer::NoName,
        }
    }

    /// The domain that it has authority for.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    fn at(&mut self, name: &str) -> &mut Records {
        self.names.entry(name.to_owned()).or_default()
    }

    fn add(&mut self, service: &Service, slices: &[Arc<EndpointSlice>]) {
        let (Some(namespace), Some(name)) = (&service.metadata.namespace, &service.metadata.name) else { return };
        let Some(spec) = &service.spec else { return };
        let full = format!("{name}.{namespace}.svc.{}", self.domain);
        if spec.type_.as_deref() == Some("ExternalName") {
            // What is no name of the Internet cannot be sent; the server leaves it out.
            let target = spec.external_name.as_deref().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
            self.at(&full).alias = Some(target).filter(|target| !target.is_empty());
            return;
        }
        let addresses = services::cluster_addresses::<IpAddr>(spec);
        if spec.cluster_ip.as_deref() == Some("None") {
            let unready_too = spec.publish_not_ready_addresses.unwrap_or(false);
            self.add_headless(&full, slices, unready_too);
            return;
        }
        for address in addresses {
            self.at(&full).addresses.insert(address);
            self.at(&reverse(address)).pointers.insert(full.clone());
        }
        for port in spec.ports.iter().flatten() {
            let number = u16::try_from(port.port).ok();
            if let (Some(port_name), Some(number)) = (port.name.as_deref().filter(|name| !name.is_empty()), number) {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
                self.at(&format!("_{port_name}._{protocol}.{full}")).services.insert((number, full.clone()));
            }
        }
    }

    fn add_headless(&mut self, full: &str, slices: &[Arc<EndpointSlice>], unready_too: bool) {
        for slice in slices {
            for endpoint in slice.endpoints.iter().filter(|endpoint| unready_too || services::is_ready(endpoint)) {
                let Some(address) = services::address::<IpAddr>(endpoint) else { continue };
                let hostname = endpoint.hostname.clone().filter(|name| !name.is_empty());
                let hostname = hostname.unwrap_or_else(|| address.to_string().replace(['.', ':'], "-"));
                let target = format!("{hostname}.{full}");
                self.at(full).addresses.insert(address);
                self.at(&target).addresses.insert(address);
                self.at(&reverse(address)).pointers.insert(target.clone());
                for port in slice.ports.iter().flatten() {
                    let number = port.port.and_then(|port| u16::try_from(port).ok());
                    let name = port.name.as_deref().filter(|name| !name.is_empty());
                    if let (Some(name), Some(number)) = (name, number) {
                        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
                        self.at(&format!("_{name}._{protocol}.{full}")).services.insert((number, target.clone()));
                    }
                }
            }
        }
    }
}

/// The address in `10-1-0-2` or `fd00--2`.
fn pod_address(dashed: &str) -> Option<IpAddr> {
    let written = |mark| dashed.replace('-', mark);
    let v4 = written(".").parse::<Ipv4Addr>().ok().filter(|v4| v4.to_string() == written(".")).map(IpAddr::V4);
    let v6 = || written(":").parse::<Ipv6Addr>().ok().filter(|v6| v6.to_string() == written(":")).map(IpAddr::V6);
    v4.or_else(v6).filter(|_| !dashed.contains(['.', ':']))
}

/// The name that asks for an address's name (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().rev().map(|byte| format!("{:x}.{:x}.", byte & 0xf, byte >> 4));
            digits.collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::services::tests::{service, slice};

    fn zone() -> Zone {
        let services = [
            service("shop/web", "10.96.0.5", json!({})),
            service("shop/db", "None", json!({"ports": [{"name": "http", "port": 80}]})),
            service("shop/all", "None", json!({"publishNotReadyAddresses": true})),
            service("shop/empty", "None", json!({})),
            service("shop/both", "10.96.0.6", json!({"clusterIPs": ["10.96.0.6", "fd00:9::6"]})),
            service("shop/pods", "None", json!({})),
            service("shop/out", "", json!({"type": "ExternalName", "externalName": "Example.org."})),
        ];
        let slices = [
            slice("shop/db", &[("10.1.0.2", "db-0"), ("10.1.0.3", "ready"), ("10.1.0.4", "unready")]),
            slice("shop/all", &[("10.1.0.4", "unready")]),
            slice("shop/pods", &[("10.1.0.5", "p-0"), ("10.1.0.6", "ready")]),
            slice("shop/pods", &[("fd00:1::5", "p-0"), ("fd00:1::6", "ready")]),
        ];
        Zone::new("cluster.local", &services, &services::all_by_service(&slices))
    }

    fn check(name: &str, expected: Expect) {
        let zone = zone();
        let text = match zone.answer(name) {
            Answer::Records(r) => {
                let mut parts: Vec<String> =
                    r.addresses.iter().map(|a| format!("{} {a}", if a.is_ipv4() { "A" } else { "AAAA" })).collect();
                parts.extend(r.services.iter().map(|(port, target)| format!("SRV {port} {target}")));
                parts.extend(r.pointers.iter().map(|target| format!("PTR {target}")));
                parts.extend(r.alias.iter().map(|target| format!("CNAME {target}")));
                parts.extend(r.text.iter().map(|text| format!("TXT {text}")));
                parts.join(", ")
            }
            other => format!("{other:?}"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn service_with_an_address() {
        check("web.shop.svc.cluster.local", expect!["A 10.96.0.5"]);
        check("_http._tcp.web.shop.svc.cluster.local", expect!["SRV 80 web.shop.svc.cluster.local"]);
        check("5.0.96.10.in-addr.arpa", expect!["PTR web.shop.svc.cluster.local"]);
    }

    #[test]
    fn headless_service() {
        check("db.shop.svc.cluster.local", expect!["A 10.1.0.2, A 10.1.0.3"]);
        check("db-0.db.shop.svc.cluster.local", expect!["A 10.1.0.2"]);
        check("10-1-0-3.db.shop.svc.cluster.local", expect!["A 10.1.0.3"]);
        check(
            "_http._tcp.db.shop.svc.cluster.local",
            expect!["SRV 8080 10-1-0-3.db.shop.svc.cluster.local, SRV 8080 db-0.db.shop.svc.cluster.local"],
        );
        check("2.0.1.10.in-addr.arpa", expect!["PTR db-0.db.shop.svc.cluster.local"]);
        check("all.shop.svc.cluster.local", expect!["A 10.1.0.4"]);
        check("empty.shop.svc.cluster.local", expect!["NoName"]);
    }

    #[test]
    fn addresses_of_both_families() {
        check("both.shop.svc.cluster.local", expect!["A 10.96.0.6, AAAA fd00:9::6"]);
        check("pods.shop.svc.cluster.local", expect!["A 10.1.0.5, A 10.1.0.6, AAAA fd00:1::5, AAAA fd00:1::6"]);
        check("p-0.pods.shop.svc.cluster.local", expect!["A 10.1.0.5, AAAA fd00:1::5"]);
        check("fd00-1--6.pods.shop.svc.cluster.local", expect!["AAAA fd00:1::6"]);
        let zeros = |count| "0.".repeat(count);
        let six = format!("6.{}9.0.0.0.0.0.d.f.ip6.arpa", zeros(23));
        check(&six, expect!["PTR both.shop.svc.cluster.local"]);
        let five = format!("5.{}1.0.0.0.0.0.d.f.ip6.arpa", zeros(23));
        check(&five, expect!["PTR p-0.pods.shop.svc.cluster.local"]);
        check("fd00-1--5.shop.pod.cluster.local", expect!["Pod(fd00:1::5)"]);
        for name in
            ["fd00-01--5.shop.pod.cluster.local", "fd00:1::5.shop.pod.cluster.local", "fd00-1-5.shop.pod.cluster.local"]
        {
            check(name, expect!["NoName"]);
        }
    }

    #[test]
    fn pods_by_their_address() {
        check("10-1-0-2.shop.pod.cluster.local", expect!["Pod(10.1.0.2)"]);
        for name in ["pod.cluster.local", "shop.pod.cluster.local"] {
            check(name, expect!["Empty"]);
        }
        for name in [
            "10-1-0.shop.pod.cluster.local",
            "10-1-0-256.shop.pod.cluster.local",
            "x.10-1-0-2.shop.pod.cluster.local",
            "xpod.cluster.local",
        ] {
            check(name, expect!["NoName"]);
        }
    }

    #[test]
    fn what_exists_without_records_and_what_does_not() {
        check("out.shop.svc.cluster.local", expect!["CNAME example.org"]);
        check("dns-version.cluster.local", expect!["TXT 1.1.0"]);
        for name in ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "_tcp.web.shop.svc.cluster.local"]
        {
            check(name, expect!["Empty"]);
        }
        for name in
            ["nobody.shop.svc.cluster.local", "a.web.shop.svc.cluster.local", "web.cluster.local", "x.cluster.local"]
        {
            check(name, expect!["NoName"]);
        }
        for name in ["example.org", "mycluster.local", "local", "", "9.9.9.9.in-addr.arpa"] {
            check(name, expect!["Elsewhere"]);
        }
    }
}
