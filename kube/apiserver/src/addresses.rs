//! Cluster addresses and node ports of Services: given out when a Service is written, free again when it is gone.
//!
//! What is taken is what the Services themselves say, under one lock, so there is no second truth to repair ([`taken`]).
mod families;
mod taken;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};
use substrate_store::Store;
use tokio::sync::{Mutex, MutexGuard};

use crate::addresses::taken::{Others, Taken};
use crate::status::{FieldError, Status};

/// Addresses at the beginning of the range that are never given out by themselves: `.1` is the API's, `.10` the DNS's
/// (KEP-3070 keeps the lower band for addresses that are asked for).
const KEPT: u32 = 16;
/// Ports of type `NodePort`, as upstream's default.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

/// Gives out addresses of a range, or of one in each family.
pub struct Addresses {
    v4: Range,
    v6: Option<Range>,
    taken: Mutex<Taken>,
}

/// A range of at most 2^31 addresses.
#[derive(Clone, Copy)]
struct Range {
    base: IpAddr,
    prefix_len: u8,
    size: u32,
}

impl Range {
    fn new(base: impl Into<IpAddr>, prefix_len: u8) -> Self {
        let base = base.into();
        let bits = if base.is_ipv4() { 32 } else { 128 };
        // Of a larger one the beginning is used.
        let host_bits = u32::from(bits - prefix_len.min(bits)).min(31);
        let size = 1u32 << host_bits;
        let base = match base {
            IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits() & !(size - 1)).into(),
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits() & !u128::from(size - 1)).into(),
        };
        Self { base, prefix_len, size }
    }

    fn nth(&self, n: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from_bits(base.to_bits().wrapping_add(n)).into(),
            IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().wrapping_add(n.into())).into(),
        }
    }

    /// Whether it may be given away: neither the first, which names the network, nor the last.
    fn gives(&self, address: IpAddr) -> bool {
        let offset = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => u128::from(address.to_bits().wrapping_sub(base.to_bits())),
            (IpAddr::V6(base), IpAddr::V6(address)) => address.to_bits().wrapping_sub(base.to_bits()),
            _ => return false,
        };
        offset > 0 && offset < u128::from(self.size - 1)
    }
}

impl Addresses {
    /// Addresses of `base/prefix_len`, and of such a range of IPv6 if Services may have both families.
    pub fn new((base, prefix_len): (Ipv4Addr, u8), v6: Option<(Ipv6Addr, u8)>) -> Self {
        let v6 = v6.map(|(base, prefix_len)| Range::new(base, prefix_len));
        Self { v4: Range::new(base, prefix_len), v6, taken: Mutex::default() }
    }

    /// The n-th address of the range of IPv4.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        match self.v4.nth(n) {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED, // its base is of IPv4
        }
    }

    /// The range of a family that is configured.
    fn range(&self, family: &str) -> Option<&Range> {
        match family {
            "IPv4" => Some(&self.v4),
            "IPv6" => self.v6.as_ref(),
            _ => None,
        }
    }

    /// What the Services have that the store holds below `prefix`: held while one is completed and written, so that no two get the same.
    ///
    /// # Errors
    /// 500 when the store cannot be read.
    pub async fn taken(&self, store: &Store, prefix: &str) -> Result<MutexGuard<'_, Taken>, Status> {
        let mut taken = self.taken.lock().await;
        taken.catch_up(store, prefix).map_err(Status::internal)?;
        Ok(taken)
    }

    /// Completes `service`, which was `old` before, with families, addresses and ports that no other Service has.
    ///
    /// # Errors
    /// 422 for families that contradict each other or are not configured, and for an address or port that is taken or outside its range; 500 when none is left, or for such a `healthCheckNodePort`.
    pub fn assign(&self, service: &mut Value, old: Option<&Value>, others: &Others<'_>) -> Result<(), Status> {
        let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let invalid = |error| Status::invalid("", "Service", &name, &[error]);
        let spec = &mut service["spec"];
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
        if !has_health_check(spec) {
            without(spec, "healthCheckNodePort");
        }
        if kind == "ExternalName" {
            families::without(spec, old.map(|old| &old["spec"]))
                .map_err(|errors| Status::invalid("", "Service", &name, &errors))?;
            return Ok(());
        }
        families::complete(self, spec, old.map(|old| &old["spec"]))
            .map_err(|errors| Status::invalid("", "Service", &name, &errors))?;
        if spec["clusterIP"] != "None" {
            self.give(spec, old.map(|old| &old["spec"]), others).map_err(|refused| match refused {
                Refused::Invalid(error) => invalid(error),
                Refused::Full => Status::internal("failed to allocate a serviceIP: range is full"),
            })?;
        }
        if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                without(port, "nodePort");
            }
            return Ok(());
        }
        // A balancer that is reached by its own addresses alone needs none but those it asks for.
        let for_all = kind == "NodePort" || spec["allocateLoadBalancerNodePorts"] != false;
        let mut own = Vec::new();
        for (i, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let asked = port["nodePort"].clone();
            if !for_all && asked.as_i64().unwrap_or(0) == 0 {
                without(port, "nodePort");
                continue;
            }
            let given = node_port(&asked, others, &mut own).map_err(|why| match asked.as_i64() {
                None | Some(0) => Status::internal(format!("failed to allocate a nodePort: {why}")),
                Some(_) => invalid(FieldError::invalid(format!("spec.ports[{i}].nodePort"), &asked, why)),
            })?;
            port["nodePort"] = json!(given);
        }
        if !has_health_check(spec) {
            return Ok(());
        }
        // Refused with 500, as upstream does.
        let asked = spec["healthCheckNodePort"].as_i64().unwrap_or(0);
        let what = if asked == 0 { "a HealthCheck NodePort" } else { "requested HealthCheck NodePort" };
        let given = node_port(&spec["healthCheckNodePort"], others, &mut own)
            .map_err(|why| Status::internal(format!("failed to allocate {what} {asked}: {why}")))?;
        spec["healthCheckNodePort"] = json!(given);
        Ok(())
    }
}

enum Refused {
    Invalid(FieldError),
    Full,
}

impl Addresses {
    /// An address for each family: the one that is asked for, or a free one.
    fn give(&self, spec: &mut Value, old: Option<&Value>, others: &Others<'_>) -> Result<(), Refused> {
        let texts = |field: &Value| -> Vec<String> {
            field.as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        let (families, mut given) = (texts(&spec["ipFamilies"]), texts(&spec["clusterIPs"]));
        let own = old.map(|old| texts(&old["clusterIPs"])).unwrap_or_default();
        let asked = given.clone();
        let refused = |why: String| Refused::Invalid(FieldError::invalid("spec.clusterIPs", &json!(asked), &why));
        for (place, family) in families.iter().enumerate() {
            // Which families are there was looked at before.
            let Some(range) = self.range(family) else { continue };
            match given.get(place) {
                Some(kept) if own.contains(kept) => {}
                Some(asked) => {
                    let address = asked.parse::<IpAddr>().ok().filter(|address| range.gives(*address));
                    let Some(address) = address else {
                        let valid = format!("{}/{}", range.base, range.prefix_len);
                        return Err(refused(format!(
                            "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {valid}"
                        )));
                    };
                    if others.have(address) {
                        return Err(refused(format!(
                            "failed to allocate IP {asked}: provided IP is already allocated"
                        )));
                    }
                }
                None => {
                    let mut free = (KEPT..range.size - 1).map(|n| range.nth(n));
                    let free = free.find(|address| !others.have(*address)).ok_or(Refused::Full)?;
                    given.push(free.to_string());
                }
            }
        }
        spec["clusterIP"] = given.first().cloned().into();
        spec["clusterIPs"] = json!(given);
        Ok(())
    }
}

/// Whether machines say of a Service whether they have endpoints of it: load balancers ask those that send nothing on to others.
pub fn has_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// The port that is asked for, or a free one where none is; it is one of its own then.
fn node_port(asked: &Value, others: &Others<'_>, own: &mut Vec<i64>) -> Result<i64, &'static str> {
    let is_taken = |port: i64| own.contains(&port) || others.have_port(port);
    let given = match asked.as_i64().filter(|port| *port != 0) {
        Some(asked) if !NODE_PORTS.contains(&asked) => {
            return Err("provided port is not in the valid range. The range of valid ports is 30000-32767");
        }
        Some(asked) if is_taken(asked) => return Err("provided port is already allocated"),
        Some(asked) => asked,
        None => NODE_PORTS.clone().find(|port| !is_taken(*port)).ok_or("range is full")?,
    };
    own.push(given);
    Ok(given)
}

fn without(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_service_gets_its_own() {
        let addresses = Addresses::new((Ipv4Addr::new(10, 96, 0, 0), 16), None);
        let mut others: Vec<Value> = Vec::new();
        for _ in 0..3 {
            let mut service = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            addresses.assign(&mut service, None, &Taken::of(&others).others("")).unwrap();
            others.push(service);
        }
        let given: Vec<_> = others
            .iter()
            .map(|s| (s["spec"]["clusterIP"].clone(), s["spec"]["ports"][0]["nodePort"].clone()))
            .collect();
        assert_eq!(
            given,
            [
                (json!("10.96.0.16"), json!(30000)),
                (json!("10.96.0.17"), json!(30001)),
                (json!("10.96.0.18"), json!(30002))
            ]
        );
        for asked in ["10.96.0.17", "10.97.0.1", "10.96.0.0", "x"] {
            let mut service = json!({"metadata": {"name": "b"}, "spec": {"type": "ClusterIP", "clusterIP": asked}});
            assert_eq!(
                addresses.assign(&mut service, None, &Taken::of(&others).others("")).unwrap_err().code,
                422,
                "{asked}"
            );
        }
    }

    #[test]
    fn a_balancer_may_do_without_ports_of_machines() {
        let addresses = Addresses::new((Ipv4Addr::new(10, 96, 0, 0), 16), None);
        let mut service = json!({"metadata": {"name": "a"}, "spec": {"type": "LoadBalancer",
            "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}, {"port": 443, "nodePort": 30443}]}});
        addresses.assign(&mut service, None, &Taken::default().others("")).unwrap();
        assert_eq!(service["spec"]["ports"], json!([{"port": 80}, {"port": 443, "nodePort": 30443}]));
    }

    #[test]
    fn a_balancer_of_local_endpoints_gets_a_port_for_health_checks() {
        let addresses = Addresses::new((Ipv4Addr::new(10, 96, 0, 0), 16), None);
        let of = |kind: &str, policy: &str, port: i64| {
            json!({"metadata": {"name": "a"}, "spec": {"type": kind, "externalTrafficPolicy": policy,
                "ports": [{"port": 80}], "healthCheckNodePort": port}})
        };
        let mut first = of("LoadBalancer", "Local", 0);
        addresses.assign(&mut first, None, &Taken::default().others("")).unwrap();
        assert_eq!(first["spec"]["ports"][0]["nodePort"], 30000);
        assert_eq!(first["spec"]["healthCheckNodePort"], 30001);
        let taken = Taken::of(&[first]);
        let mut second = of("LoadBalancer", "Local", 30100);
        addresses.assign(&mut second, None, &taken.others("")).unwrap();
        assert_eq!(second["spec"]["ports"][0]["nodePort"], 30002, "a port for health checks is taken like others");
        assert_eq!(second["spec"]["healthCheckNodePort"], 30100);
        for (kind, policy) in [("LoadBalancer", "Cluster"), ("NodePort", "Local"), ("ClusterIP", "Cluster")] {
            let mut without = of(kind, policy, 0);
            addresses.assign(&mut without, None, &taken.others("")).unwrap();
            assert!(without["spec"].get("healthCheckNodePort").is_none(), "{without}");
        }
        for (port, why) in [(30001, "30001: provided port is already allocated"), (80, "80: provided port is not in")] {
            let mut asked = of("LoadBalancer", "Local", port);
            let refused = addresses.assign(&mut asked, None, &taken.others("")).unwrap_err();
            assert_eq!(refused.code, 500);
            assert!(refused.message.contains(&format!("failed to allocate requested HealthCheck NodePort {why}")));
        }
    }
}
