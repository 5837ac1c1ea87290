//! What plug-ins answer: devices, addresses, routes (CNI 1.0, section 5).
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// The place of a pod that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    address: Ipv4Addr,
    gateway: Option<Ipv4Addr>,
    /// As the last plug-in said it: plug-ins want to hear it again when the pod is taken away.
    result: Value,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    /// With the length of its prefix.
    address: String,
    #[serde(default)]
    gateway: Option<IpAddr>,
}

/// An answer as JSON.
pub(crate) fn parse(kind: &str, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Result { kind: kind.to_owned(), why: e.to_string() })
}

impl Added {
    pub(crate) fn new(network: &str, result: Value) -> Result<Added, Error> {
        let wrong = |why: String| Error::Result { kind: network.to_owned(), why };
        let answer = Answer::deserialize(&result).map_err(|e| wrong(e.to_string()))?;
        let mut first = None;
        for ip in answer.ips {
            let address = ip.address.split('/').next().unwrap_or_default().parse();
            match address.map_err(|e| wrong(format!("{}: {e}", ip.address)))? {
                IpAddr::V4(address) => first = first.or(Some((address, ip.gateway))),
                // Whoever asks for a network must know all of a pod's addresses, or its rules lead past one.
                IpAddr::V6(address) => return Err(wrong(format!("{address} is of IPv6, needed IPv4 alone"))),
            }
        }
        let (address, gateway) = first.ok_or_else(|| wrong("it has no IPv4 address for the pod".to_owned()))?;
        let gateway = gateway.and_then(|gateway| match gateway {
            IpAddr::V4(gateway) => Some(gateway),
            IpAddr::V6(_) => None,
        });
        Ok(Added { address, gateway, result })
    }

    /// The pod's address: the first that it got.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The way out that comes with it, if there is one.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.gateway
    }

    pub(crate) fn result(&self) -> &Value {
        &self.result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_address_is_the_pod_s() {
        let ips = json!({"ips": [{"address": "10.22.0.5/16", "gateway": "10.22.0.1"}, {"address": "10.23.0.1/16"}]});
        let added = Added::new("lab", ips).unwrap();
        assert_eq!(
            (added.address(), added.gateway()),
            (Ipv4Addr::new(10, 22, 0, 5), Some(Ipv4Addr::new(10, 22, 0, 1)))
        );
        let none = Added::new("lab", json!({"ips": []})).unwrap_err().to_string();
        assert!(none.contains("it has no IPv4 address"), "{none}");
        let both = json!({"ips": [{"address": "10.22.0.5/16"}, {"address": "fd00::5/64"}]});
        assert!(Added::new("lab", both).unwrap_err().to_string().contains("fd00::5 is of IPv6, needed IPv4 alone"));
        assert!(Added::new("lab", json!({"ips": [{"address": "10.22"}]})).is_err());
        assert!(parse("lab", b"ok").is_err());
    }
}
