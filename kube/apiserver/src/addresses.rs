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
    /// 422 for an address or port that is taken or outside its range; 500 when none is left.
    pub fn assign(&self, service: &mut Value, others: &[Value]) -> Result<(), Status> {
        let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let invalid = |error| Status::invalid("", "Service", &name, &[error]);
        let spec = &mut service["spec"];
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
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
                if let Some(port) = port.as_object_mut() {
                    port.remove("nodePort");
                }
            }
            return Ok(());
        }
        let mut taken: BTreeSet<i64> = others
            .iter()
            .flat_map(|o| o["spec"]["ports"].as_array().into_iter().flatten())
            .filter_map(|p| p["nodePort"].as_i64())
            .collect();
        for (i, port) in spec["ports"].as_array_mut().into_iter().flatten().enumerate() {
            let field = format!("spec.ports[{i}].nodePort");
            let given = match port["nodePort"].as_i64().filter(|n| *n != 0) {
                Some(asked) if !NODE_PORTS.contains(&asked) => {
                    let detail = "provided port is not in the valid range. The range of valid ports is 30000-32767";
                    return Err(invalid(FieldError::invalid(field, &json!(asked), detail)));
                }
                Some(asked) if taken.contains(&asked) => {
                    return Err(invalid(FieldError::invalid(
                        field,
                        &json!(asked),
                        "provided port is already allocated",
                    )));
                }
                Some(asked) => asked,
                None => NODE_PORTS
                    .clone()
                    .find(|n| !taken.contains(n))
                    .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?,
            };
            taken.insert(given);
            port["nodePort"] = json!(given);
        }
        Ok(())
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
}
