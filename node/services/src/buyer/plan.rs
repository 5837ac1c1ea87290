//! What access to a service consists of: a pure function of its contract and of what its seller says.

use std::collections::BTreeMap;

use fluidos_model::kinds::{Contract, names};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::answer::{Answer, Port};

/// Where access to a service is, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub namespace: String,
    /// Of the Secret.
    pub name: String,
    /// Of the Service.
    pub service: String,
}

/// The objects by which a service is used.
pub(crate) struct Access {
    pub secret: Secret,
    pub service: Service,
    pub slice: EndpointSlice,
}

/// Returns where access to the service of a contract is: in the namespace that it was bought for, under the name that was asked for.
///
/// # Errors
/// A name that cannot be one.
pub(crate) fn place(contract: &Contract, name: &str) -> Result<Place, String> {
    let annotations = contract.annotations();
    let namespace = annotations.get(names::ANNOTATION_NAMESPACE).cloned().unwrap_or_else(|| names::NAMESPACE.into());
    let Some(asked) = annotations.get(names::ANNOTATION_SERVICE_NAME) else {
        let service = names::service_namespace(name);
        return Ok(Place { namespace, name: names::service_credentials(name), service });
    };
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let letter = asked.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    if !letter || asked.len() > 63 || asked.ends_with('-') || !asked.bytes().all(inner) {
        let key = names::ANNOTATION_SERVICE_NAME;
        return Err(format!(
            "{key} is {asked:?}, needed a letter, then at most 62 lower-case letters, digits and dashes"
        ));
    }
    Ok(Place { namespace, name: asked.clone(), service: asked.clone() })
}

/// Returns the objects by which a service is used.
pub(crate) fn access(contract: &Contract, name: &str, place: &Place, answer: &Answer) -> Access {
    let metadata = |object: &str, more: &[(&str, &str)]| {
        let labels = [(names::LABEL_SERVICE_ACCESS, name)].into_iter().chain(more.iter().copied());
        ObjectMeta {
            name: Some(object.to_owned()),
            namespace: Some(place.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            ..ObjectMeta::default()
        }
    };
    let secret = Secret {
        metadata: metadata(&place.name, &[(names::LABEL_SERVICE_CREDENTIALS, "true")]),
        data: Some(
            texts(contract, place, answer)
                .into_iter()
                .map(|(key, text)| (key, ByteString(text.into_bytes())))
                .collect(),
        ),
        type_: Some("Opaque".into()),
        ..Secret::default()
    };
    let service_port = |port: &Port| ServicePort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        port: port.port.into(),
        target_port: Some(IntOrString::Int(port.port.into())),
        protocol: Some(port.protocol.clone()),
        ..ServicePort::default()
    };
    let spec = ServiceSpec { ports: Some(answer.ports.iter().map(service_port).collect()), ..ServiceSpec::default() };
    let service = Service { metadata: metadata(&place.service, &[]), spec: Some(spec), status: None };
    let open = answer.endpoints.first().map(|endpoint| endpoint.ports.as_slice()).unwrap_or_default();
    let endpoint_port = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port.into()),
        protocol: Some(port.protocol.clone()),
        app_protocol: None,
    };
    // One slice has one set of ports: who listens elsewhere is left out.
    let alike = answer.endpoints.iter().filter(|endpoint| endpoint.ports == open);
    let endpoint = |endpoint: &crate::answer::Endpoint| Endpoint {
        addresses: vec![endpoint.address.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let slice = EndpointSlice {
        metadata: metadata(
            &place.service,
            &[
                ("kubernetes.io/service-name", &place.service),
                ("endpointslice.kubernetes.io/managed-by", "fluidos-services"),
            ],
        ),
        address_type: "IPv4".into(),
        endpoints: alike.map(endpoint).collect(),
        ports: Some(open.iter().map(endpoint_port).collect()),
    };
    Access { secret, service, slice }
}

/// What stands in the Secret: what was configured, where it is, and last the credentials, which nothing takes the place of.
fn texts(contract: &Contract, place: &Place, answer: &Answer) -> BTreeMap<String, String> {
    let configured = contract.spec.configuration.as_ref().and_then(|configuration| configuration.service().ok());
    let configured = configured.map(|configured| configured.configuration_data).unwrap_or_default();
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut texts: BTreeMap<String, String> =
        configured.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect();
    let host = format!("{}.{}.svc", place.service, place.namespace);
    let endpoints: Vec<String> = answer.ports.iter().map(|port| format!("{host}:{}", port.port)).collect();
    texts.insert("endpoints".into(), endpoints.join(","));
    texts.insert("port".into(), answer.ports.first().map(|port| port.port.to_string()).unwrap_or_default());
    texts.insert("host".into(), host);
    texts.extend(answer.credentials.clone());
    texts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluidos_model::kinds::{Configuration, FlavorType};
    use serde_json::json;

    use super::*;

    fn contract(annotations: Value) -> Contract {
        let mut contract = Contract::new("contract-1", Default::default());
        contract.metadata.annotations = serde_json::from_value(annotations).unwrap();
        let data = json!({"configurationData": {"username": "shop", "connections": 7, "password": "mine"}});
        contract.spec.configuration = Some(Configuration { flavor_type: FlavorType::Service, data });
        contract
    }

    #[test]
    fn access_is_where_it_was_bought_for_under_its_name() {
        let at = |annotations: Value| {
            place(&contract(annotations), "contract-1").map(|it| format!("{}/{} {}", it.namespace, it.name, it.service))
        };
        assert_eq!(at(json!({})).unwrap(), "fluidos/credentials-contract-1 service-1");
        let named = json!({names::ANNOTATION_NAMESPACE: "shop", names::ANNOTATION_SERVICE_NAME: "db"});
        assert_eq!(at(named).unwrap(), "shop/db db");
        for wrong in ["Db", "1db", "db-", "", "d.b"] {
            assert!(
                at(json!({names::ANNOTATION_SERVICE_NAME: wrong})).unwrap_err().contains("needed a letter"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_secret_says_all_that_a_program_needs() {
        let answer: Answer = serde_json::from_value(json!({
            "ready": true, "ports": [{"name": "", "port": 5432, "protocol": "TCP"}],
            "endpoints": [{"address": "100.125.80.5", "ports": [{"name": "", "port": 15432, "protocol": "TCP"}]}],
            "credentials": {"password": "s3cret"},
        }))
        .unwrap();
        let place = Place { namespace: "shop".into(), name: "db".into(), service: "db".into() };
        let access = access(&contract(json!({})), "contract-1", &place, &answer);
        let said: Vec<(String, String)> = access
            .secret
            .data
            .unwrap()
            .into_iter()
            .map(|(key, text)| (key, String::from_utf8(text.0).unwrap()))
            .collect();
        let said: Vec<String> = said.into_iter().map(|(key, text)| format!("{key}={text}")).collect();
        let needed = [
            "connections=7",
            "endpoints=db.shop.svc:5432",
            "host=db.shop.svc",
            "password=s3cret",
            "port=5432",
            "username=shop",
        ];
        assert_eq!(said, needed);
        assert_eq!(access.slice.endpoints[0].addresses, ["100.125.80.5"]);
        assert_eq!(access.slice.ports.unwrap()[0].port, Some(15432));
        assert!(access.service.spec.unwrap().selector.is_none(), "nobody else follows its pods");
    }
}
