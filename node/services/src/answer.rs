//! What a seller tells the buyer of a service, over the link: where the instance is, and its credentials.
//!
//! It is told to one key: the one that speaks for the buyer of the contract, as the link has proven it. Nothing of it can be printed: it has
//! no `Debug`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use fluidos_identity::FabricPrefix;
use fluidos_link::{PeerInfo, RequestHandler, RequestRefusal};
use fluidos_model::kinds::{Contract, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::home::Home;
use crate::passing::Passed;
use crate::{Deal, Options, seller};

/// The kind of the request.
pub const KIND: &str = "service/1";
/// Each is four reads of the API; a buyer asks for each of its contracts every some seconds.
const AT_ONCE: usize = 8;
/// A service has a few ports, each with a few endpoints.
const PORTS_MAX: usize = 16;
const ENDPOINTS_MAX: usize = 64;
/// Credentials of a blueprint are at most eight, of at most 128 letters.
const CREDENTIALS_MAX: usize = 16;
const CREDENTIAL_LENGTH_MAX: usize = 4096;
/// A message is a sentence.
const MESSAGE_LENGTH_MAX: usize = 256;

/// What is asked.
#[derive(Serialize, Deserialize)]
pub(crate) struct Question {
    /// Which contract.
    pub contract: String,
    /// Where those have their addresses who use it, if that is not its buyer: this one has sold it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

/// The answer. Before the instance is ready it has a message only.
#[derive(Serialize, Deserialize, Clone, PartialEq, Default)]
#[serde(default)]
pub(crate) struct Answer {
    /// Whether it can be used.
    pub ready: bool,
    /// How it stands, in words.
    pub message: String,
    /// The ports of its Service.
    pub ports: Vec<Port>,
    /// Where connections go.
    pub endpoints: Vec<Endpoint>,
    /// The credentials, by name.
    pub credentials: BTreeMap<String, String>,
}

/// A port of a Service.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[serde(default)]
pub(crate) struct Port {
    /// Its name; may be empty if it is the only one.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `TCP` or `UDP`.
    pub protocol: String,
}

/// An address that serves, with its own ports, named as those of the Service.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Endpoint {
    /// A pod of the instance.
    pub address: Ipv4Addr,
    /// Where it listens.
    pub ports: Vec<Port>,
}

/// Answers buyers.
pub(crate) struct Door {
    client: Client,
    options: Options,
    passed: Arc<Passed>,
    places: Semaphore,
}

impl Door {
    pub(crate) fn new(client: Client, options: Options, passed: Arc<Passed>) -> Self {
        Self { client, options, passed, places: Semaphore::new(AT_ONCE) }
    }
}

#[async_trait]
impl RequestHandler for Door {
    async fn request(&self, peer: &PeerInfo, request: Value) -> Result<Value, RequestRefusal> {
        let question: Question =
            serde_json::from_value(request).map_err(|error| RequestRefusal::new("malformed", error.to_string()))?;
        let busy = |_| RequestRefusal::new("busy", "too many ask at once");
        let _place = self.places.try_acquire().map_err(busy)?;
        let failed = |error: kube::Error| {
            tracing::warn!(%error, "a buyer of a service is not answered");
            RequestRefusal::new("internal", "the seller's own records could not be read")
        };
        let api = Api::<Contract>::namespaced(self.client.clone(), names::NAMESPACE);
        // The name is a peer's text: one that cannot be a name is nobody's.
        let named =
            question.contract.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let contract = if named { api.get_opt(&question.contract).await.map_err(failed)? } else { None };
        let deal = contract.and_then(|contract| Deal::of(&contract, &self.options.speakers, Timestamp::now()));
        // To whom it is none of its business there is no such contract.
        let deal = deal.filter(|deal| deal.live && deal.seller == self.options.own && deal.buyer == peer.id);
        let deal =
            deal.ok_or_else(|| RequestRefusal::new("not-found", "no service is sold to you under this contract"))?;
        let own = Home::of(&self.options.speakers.first(&self.options.own));
        let home = question.home.as_deref().map(|home| Home::read(home, &own)).transpose();
        let home = home.map_err(|reason| RequestRefusal::new("malformed", reason))?;
        if deal.served_by.is_some() {
            self.passed.used_from(&deal, home);
            let said = self.passed.answer(&deal.contract);
            return serde_json::to_value(said).map_err(|error| RequestRefusal::new("internal", error.to_string()));
        }
        let namespace = names::service_namespace(&deal.contract);
        if let Some(home) = home {
            seller::used_from(&self.client, &namespace, home).await.map_err(failed)?;
        }
        let endpoint = seller::endpoint(&self.client, &namespace).await.map_err(failed)?;
        let credentials = seller::credentials(&self.client, &namespace).await.map_err(failed)?;
        let answer = match (endpoint, credentials) {
            (Some((service, slices)), Some(credentials)) => told(&service, &slices, credentials),
            _ => Answer { message: "the service is being made".into(), ..Answer::default() },
        };
        serde_json::to_value(answer).map_err(|error| RequestRefusal::new("internal", error.to_string()))
    }
}

/// What is told of a Service and what stands behind it.
fn told(service: &Service, slices: &[EndpointSlice], credentials: BTreeMap<String, String>) -> Answer {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let port = |name: Option<&String>, number: i32, protocol: Option<&String>| {
        let protocol = protocol.cloned().unwrap_or_else(|| "TCP".into());
        Some(Port { name: name.cloned().unwrap_or_default(), port: u16::try_from(number).ok()?, protocol })
    };
    let ports = ports.filter_map(|known| port(known.name.as_ref(), known.port, known.protocol.as_ref())).collect();
    let mut endpoints = Vec::new();
    for slice in slices {
        let open = slice.ports.iter().flatten();
        let open = open.filter_map(|known| port(known.name.as_ref(), known.port?, known.protocol.as_ref()));
        let open: Vec<Port> = open.collect();
        let ready = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true)));
        let addresses = ready.flat_map(|endpoint| endpoint.addresses.iter().filter_map(|text| text.parse().ok()));
        endpoints.extend(addresses.map(|address| Endpoint { address, ports: open.clone() }));
    }
    endpoints.sort();
    endpoints.dedup();
    if endpoints.is_empty() {
        return Answer { message: "no endpoint of the service is ready yet".into(), ..Answer::default() };
    }
    Answer { ready: true, message: "the service is ready".into(), ports, endpoints, credentials }
}

impl Answer {
    /// Returns the answer if it is such as a seller may give: bounded, and nowhere but among its own addresses. A seller could otherwise
    /// lead the buyer's pods to anything that they reach.
    ///
    /// # Errors
    /// What is wrong with it, in words; nothing secret is in them.
    pub(crate) fn checked(mut self, prefix: &FabricPrefix) -> Result<Self, String> {
        self.message = self.message.chars().filter(|c| !c.is_control()).take(MESSAGE_LENGTH_MAX).collect();
        if !self.ready {
            return Ok(Self { message: self.message, ..Self::default() });
        }
        if self.ports.is_empty() || self.ports.len() > PORTS_MAX || self.endpoints.len() > ENDPOINTS_MAX {
            let (ports, endpoints) = (self.ports.len(), self.endpoints.len());
            return Err(format!(
                "{ports} ports and {endpoints} endpoints, needed 1 to {PORTS_MAX} and at most {ENDPOINTS_MAX}"
            ));
        }
        if let Some(foreign) = self.endpoints.iter().find(|endpoint| !prefix.holds_v4(endpoint.address)) {
            return Err(format!("endpoint {} is not among the seller's addresses", foreign.address));
        }
        let all = self.ports.iter().chain(self.endpoints.iter().flat_map(|endpoint| &endpoint.ports));
        let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let wrong = |port: &&Port| {
            port.port == 0
                || !matches!(port.protocol.as_str(), "TCP" | "UDP")
                || port.name.len() > 15
                || !port.name.bytes().all(label)
        };
        if self.endpoints.iter().any(|endpoint| endpoint.ports.len() > PORTS_MAX)
            || all.clone().any(|port| wrong(&port))
        {
            return Err("a port is none".into());
        }
        let key = |name: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            (1..=64).contains(&name.len()) && name.bytes().all(inner)
        };
        let credentials = &self.credentials;
        if credentials.len() > CREDENTIALS_MAX
            || credentials.iter().any(|(name, text)| !key(name) || text.len() > CREDENTIAL_LENGTH_MAX)
        {
            return Err(format!("{} credentials, or one that is too long or has no name", credentials.len()));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_identity::{NodeKey, fabric_prefix};
    use serde_json::json;

    use super::*;

    fn prefix() -> FabricPrefix {
        fabric_prefix(&NodeKey::from_seed([3; 32]).unwrap().id(), 0) // 100.125.80.0/20
    }

    fn answer(change: impl FnOnce(&mut Value)) -> Result<Answer, String> {
        let mut value = json!({
            "ready": true, "message": "", "ports": [{"name": "", "port": 6379, "protocol": "TCP"}],
            "endpoints": [{"address": "100.125.80.5", "ports": [{"name": "", "port": 6379, "protocol": "TCP"}]}],
            "credentials": {"password": "x"},
        });
        change(&mut value);
        serde_json::from_value::<Answer>(value).unwrap().checked(&prefix())
    }

    #[test]
    fn a_seller_leads_nowhere_but_to_itself() {
        assert!(answer(|_| {}).is_ok());
        for address in ["192.168.0.1", "127.0.0.1", "10.96.0.1", "100.125.96.5"] {
            let error = answer(|value| value["endpoints"][0]["address"] = json!(address)).err().unwrap();
            assert_eq!(error, format!("endpoint {address} is not among the seller's addresses"));
        }
    }

    #[test]
    fn what_is_said_is_bounded() {
        let many: Vec<Value> = (1..100).map(|port| json!({"name": "p", "port": port, "protocol": "TCP"})).collect();
        assert!(answer(|value| value["ports"] = json!(many)).is_err());
        assert!(answer(|value| value["ports"] = json!([])).is_err());
        assert!(answer(|value| value["ports"][0]["port"] = json!(0)).is_err());
        assert!(answer(|value| value["ports"][0]["protocol"] = json!("SCTP")).is_err());
        assert!(answer(|value| value["ports"][0]["name"] = json!("A b")).is_err());
        assert!(answer(|value| value["credentials"] = json!({"a/b": "x"})).is_err());
        assert!(answer(|value| value["credentials"] = json!({"a": "x".repeat(5000)})).is_err());
        let starting = answer(|value| {
            value["ready"] = json!(false);
            value["message"] = json!("x\u{1b}[31m".repeat(100));
        });
        let starting = starting.unwrap_or_default();
        assert!(
            starting.credentials.is_empty() && starting.endpoints.is_empty(),
            "before it is ready nothing is taken"
        );
        assert!(starting.message.chars().count() <= 256 && !starting.message.contains('\u{1b}'));
    }

    #[test]
    fn what_is_ready_is_told_and_nothing_else() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "db"},
            "spec": {"ports": [{"port": 5432, "targetPort": 15432}]}}))
        .unwrap();
        let endpoint = |address: &str, ready: bool| json!({"addresses": [address], "conditions": {"ready": ready}});
        let slice = |endpoints: Vec<Value>| -> EndpointSlice {
            serde_json::from_value(json!({"addressType": "IPv4", "metadata": {"name": "db"}, "endpoints": endpoints,
                "ports": [{"port": 15432, "protocol": "TCP"}]}))
            .unwrap()
        };
        let secret = || BTreeMap::from([("password".to_owned(), "x".to_owned())]);
        let starting = told(&service, &[slice(vec![endpoint("100.125.80.5", false)])], secret());
        assert!(!starting.ready && starting.credentials.is_empty());
        let ready =
            told(&service, &[slice(vec![endpoint("100.125.80.5", true), endpoint("100.125.80.6", false)])], secret());
        assert!(ready.ready && ready.credentials == secret());
        let open = Port { name: String::new(), port: 15432, protocol: "TCP".into() };
        assert_eq!(ready.endpoints, [Endpoint { address: "100.125.80.5".parse().unwrap(), ports: vec![open] }]);
        assert_eq!(ready.ports[0].port, 5432);
    }
}
