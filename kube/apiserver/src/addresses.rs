//! Cluster addresses and node ports of Services: given out when a Service is written, free again when it is gone.
//!
//! What is taken is read from the Services themselves, under one lock, so there is no second truth to repair.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use crate::status::{FieldError, Status};

/// Addresses at the beginning of the range that are never given out by themselves: `.1` is the API's, `.10` the DNS's
/// (KEP-3070 keeps the lower band for addresses that are asked for).
const KEPT: u32 = 16;
/// Ports of type `NodePort`, as upstream's default.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

/// Gives out addresses of one range.
pub struct Addresses {
    base: u32,
    size: u32,
    lock: Mutex<()>,
}

impl Addresses {
    /// Addresses of `base/prefix_len`.
    pub fn new(base: Ipv4Addr, prefix_len: u8) -> Self {
        let size = 1u32.checked_shl(32 - u32::from(prefix_len)).unwrap_or(u32::MAX);
        Self { base: u32::from(base) & !(size - 1), size, lock: Mutex::new(()) }
    }

    /// The n-th address of the range.
    pub fn nth(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + n)
    }

    /// Held while a Service is completed and written, so that no two get the same.
    pub async fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().await
    }

    /// Completes `service` with addresses and ports that none of `others` has.
    ///
    /// # Errors
    /// 422 for an address or port that is taken or outside its range; 500 when none is left, or for such a `healthCheckNodePort`.
    pub fn assign(&self, service: &mut Value, others: &[Value]) -> Result<(), Status> {
        let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let invalid = |error| Status::invalid("", "Service", &name, &[error]);
        let spec = &mut service["spec"];
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
        if !has_health_check(spec) {
            without(spec, "healthCheckNodePort");
        }
        if kind == "ExternalName" {
            return Ok(());
        }
        match spec["clusterIP"].as_str() {
            Some("None") => spec["clusterIPs"] = json!(["None"]),
            Some(asked) if !asked.is_empty() => {
                let inside = asked.parse::<Ipv4Addr>().is_ok_and(|a| {
                    let offset = u32::from(a).wrapping_sub(self.base);
                    offset > 0 && offset < self.size - 1
                });
                if !inside {
                    let range = format!("{}/{}", self.nth(0), self.size.leading_zeros() + 1);
                    let detail = format!(
                        "failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
                    );
                    return Err(invalid(FieldError::invalid("spec.clusterIPs", &json!([asked]), &detail)));
                }
                if others.iter().any(|o| o["spec"]["clusterIP"] == asked) {
                    let detail = format!("failed to allocate IP {asked}: provided IP is already allocated");
                    return Err(invalid(FieldError::invalid("spec.clusterIPs", &json!([asked]), &detail)));
                }
                spec["clusterIPs"] = json!([asked]);
            }
            _ => {
                let taken: BTreeSet<&str> = others.iter().filter_map(|o| o["spec"]["clusterIP"].as_str()).collect();
                let free = (KEPT..self.size - 1)
                    .map(|n| self.nth(n).to_string())
                    .find(|address| !taken.contains(address.as_str()))
                    .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
                spec["clusterIP"] = json!(free);
                spec["clusterIPs"] = json!([free]);
            }
        }
        if !matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                without(port, "nodePort");
            }
            return Ok(());
        }
        let mut taken: BTreeSet<i64> = others.iter().flat_map(node_ports).collect();
        for (i, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let asked = port["nodePort"].clone();
            let given = node_port(&asked, &mut taken).map_err(|why| match asked.as_i64() {
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
        let given = node_port(&spec["healthCheckNodePort"], &mut taken)
            .map_err(|why| Status::internal(format!("failed to allocate {what} {asked}: {why}")))?;
        spec["healthCheckNodePort"] = json!(given);
        Ok(())
    }
}

/// Whether machines say of a Service whether they have endpoints of it: load balancers ask those that send nothing on to others.
pub fn has_health_check(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

/// The ports of every machine that a Service has.
fn node_ports(service: &Value) -> impl Iterator<Item = i64> {
    let spec = &service["spec"];
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_i64)
}

/// The port that is asked for, or a free one where none is; it is taken then.
fn node_port(asked: &Value, taken: &mut BTreeSet<i64>) -> Result<i64, &'static str> {
    let given = match asked.as_i64().filter(|port| *port != 0) {
        Some(asked) if !NODE_PORTS.contains(&asked) => {
            return Err("provided port is not in the valid range. The range of valid ports is 30000-32767");
        }
        Some(asked) if taken.contains(&asked) => return Err("provided port is already allocated"),
        Some(asked) => asked,
        None => NODE_PORTS.clone().find(|port| !taken.contains(port)).ok_or("range is full")?,
    };
    taken.insert(given);
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
        let addresses = Addresses::new(Ipv4Addr::new(10, 96, 0, 0), 16);
        let mut others = Vec::new();
        for _ in 0..3 {
            let mut service = json!({"metadata": {"name": "a"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
            addresses.assign(&mut service, &others).unwrap();
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
            assert_eq!(addresses.assign(&mut service, &others).unwrap_err().code, 422, "{asked}");
        }
    }

    #[test]
    fn a_balancer_of_local_endpoints_gets_a_port_for_health_checks() {
        let addresses = Addresses::new(Ipv4Addr::new(10, 96, 0, 0), 16);
        let of = |kind: &str, policy: &str, port: i64| {
            json!({"metadata": {"name": "a"}, "spec": {"type": kind, "externalTrafficPolicy": policy,
                "ports": [{"port": 80}], "healthCheckNodePort": port}})
        };
        let mut first = of("LoadBalancer", "Local", 0);
        addresses.assign(&mut first, &[]).unwrap();
        assert_eq!(first["spec"]["ports"][0]["nodePort"], 30000);
        assert_eq!(first["spec"]["healthCheckNodePort"], 30001);
        let others = [first];
        let mut second = of("LoadBalancer", "Local", 30100);
        addresses.assign(&mut second, &others).unwrap();
        assert_eq!(second["spec"]["ports"][0]["nodePort"], 30002, "a port for health checks is taken like others");
        assert_eq!(second["spec"]["healthCheckNodePort"], 30100);
        for (kind, policy) in [("LoadBalancer", "Cluster"), ("NodePort", "Local"), ("ClusterIP", "Cluster")] {
            let mut without = of(kind, policy, 0);
            addresses.assign(&mut without, &others).unwrap();
            assert!(without["spec"].get("healthCheckNodePort").is_none(), "{without}");
        }
        for (port, why) in [(30001, "30001: provided port is already allocated"), (80, "80: provided port is not in")] {
            let refused = addresses.assign(&mut of("LoadBalancer", "Local", port), &others).unwrap_err();
            assert_eq!(refused.code, 500);
            assert!(refused.message.contains(&format!("failed to allocate requested HealthCheck NodePort {why}")));
        }
    }
}
