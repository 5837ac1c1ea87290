//! Resource requests (ours): what a buyer needs, whether or not a flavor was listed, and what a seller could sell for it.
//!
//! Nothing is held by asking. What is offered here is reserved and bought like any flavor.

use std::collections::BTreeMap;

use fluidos_identity::Envelope;
use serde::{Deserialize, Serialize};

use super::wire::{ConfigurationWire, FlavorWire, PriceWire, flavor_type, message, seconds};
use super::{Configuration, Flavor, FlavorType, Price};
use crate::SelectorFilter;

/// There are five characteristics to filter by; a few more are repetitions.
const FILTERS_MAX: usize = 16;
/// There are some twenty official intents.
const INTENTS_MAX: usize = 32;
/// Values are quantities and names.
const TEXT_LENGTH_MAX: usize = 256;
/// One for each flavor; more are not compared.
const OFFERS_MAX: usize = 64;
/// A reason is a sentence.
const DENIAL_LENGTH_MAX: usize = 512;

/// What is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceRequest {
    /// Of which type.
    pub flavor_type: FlavorType,
    /// How much, and of which architecture.
    pub filters: Vec<SelectorFilter>,
    /// Constraints on the place, as the annotations of a workload: `fluidos-intent-location`.
    pub intents: BTreeMap<String, String>,
    /// For how long; `None` is as long as the seller sells.
    pub term_seconds: Option<u64>,
    /// How long the buyer waits for the answer, in milliseconds: a seller that asks others has less. `None` is not said.
    pub wait_millis: Option<u64>,
    /// Through whose hands it has come: a [`Path`](crate::Path), signed by the buyer for this seller.
    pub path: Option<Envelope>,
}

/// How an offer stands to what is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the variants are their own words
pub enum Fit {
    Exact,
    Less,
    More,
}

/// What could be sold.
#[derive(Clone, PartialEq, Debug)]
pub struct ResourceOffer {
    /// How it stands to what is needed.
    pub fit: Fit,
    /// What it is cut from, as this buyer may buy it.
    pub flavor: Flavor,
    /// How much.
    pub configuration: Configuration,
    /// For what.
    pub price: Price,
    /// For how long.
    pub term_seconds: Option<u64>,
}

/// The answer: offers, or a denial with its reason, or neither where nothing is sold at all.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ResourceAnswer {
    /// What could be sold.
    pub offers: Vec<ResourceOffer>,
    /// Why nothing is offered; beside offers of less, why not more.
    pub denial: Option<String>,
    /// A denial that may be another answer in a moment: nothing is free there, or its machines have started and are not ready yet.
    pub open: bool,
}

#[derive(Serialize, Deserialize)]
struct RequestWire {
    #[serde(rename = "type")]
    flavor_type: String,
    #[serde(default)]
    filters: Vec<FilterWire>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    intents: BTreeMap<String, String>,
    #[serde(rename = "termSeconds", default, skip_serializing_if = "Option::is_none", deserialize_with = "seconds")]
    term_seconds: Option<u64>,
    #[serde(rename = "waitMillis", default, skip_serializing_if = "Option::is_none", deserialize_with = "seconds")]
    wait_millis: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Envelope>,
}

#[derive(Serialize, Deserialize)]
struct FilterWire {
    name: String,
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    is: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct OfferWire {
    fit: Fit,
    flavor: FlavorWire,
    configuration: ConfigurationWire,
    #[serde(default)]
    price: PriceWire,
    #[serde(rename = "termSeconds", default, skip_serializing_if = "Option::is_none", deserialize_with = "seconds")]
    term_seconds: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct AnswerWire {
    #[serde(default)]
    offers: Vec<OfferWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    open: bool,
}

message!(ResourceRequest, RequestWire);
message!(ResourceAnswer, AnswerWire);

impl From<&ResourceRequest> for RequestWire {
    fn from(request: &ResourceRequest) -> Self {
        Self {
            flavor_type: request.flavor_type.as_str().into(),
            filters: request.filters.iter().map(FilterWire::from).collect(),
            intents: request.intents.clone(),
            term_seconds: request.term_seconds,
            wait_millis: request.wait_millis,
            path: request.path.clone(),
        }
    }
}

impl TryFrom<RequestWire> for ResourceRequest {
    type Error = String;

    fn try_from(wire: RequestWire) -> Result<Self, String> {
        at_most("filters", wire.filters.len(), FILTERS_MAX)?;
        at_most("intents", wire.intents.len(), INTENTS_MAX)?;
        for (name, value) in &wire.intents {
            short("intents", name)?;
            short("intents", value)?;
        }
        Ok(Self {
            flavor_type: flavor_type(&wire.flavor_type)?,
            filters: wire.filters.into_iter().map(SelectorFilter::try_from).collect::<Result<_, _>>()?,
            intents: wire.intents,
            term_seconds: wire.term_seconds,
            wait_millis: wire.wait_millis,
            path: wire.path,
        })
    }
}

impl From<&SelectorFilter> for FilterWire {
    fn from(filter: &SelectorFilter) -> Self {
        match filter.clone() {
            SelectorFilter::Match { name, value } => Self { name, is: Some(value), min: None, max: None },
            SelectorFilter::Range { name, min, max } => Self { name, is: None, min, max },
        }
    }
}

impl TryFrom<FilterWire> for SelectorFilter {
    type Error = String;

    fn try_from(wire: FilterWire) -> Result<Self, String> {
        let FilterWire { name, is, min, max } = wire;
        for text in [Some(&name), is.as_ref(), min.as_ref(), max.as_ref()].into_iter().flatten() {
            short("filters", text)?;
        }
        match (is, min, max) {
            (Some(value), None, None) => Ok(Self::Match { name, value }),
            (None, min, max) if min.is_some() || max.is_some() => Ok(Self::Range { name, min, max }),
            _ => Err(format!("filters: `{name}` needs either match, or min, max or both")),
        }
    }
}

impl From<&ResourceAnswer> for AnswerWire {
    fn from(answer: &ResourceAnswer) -> Self {
        let offer = |offer: &ResourceOffer| OfferWire {
            fit: offer.fit,
            flavor: (&offer.flavor).into(),
            configuration: (&offer.configuration).into(),
            price: (&offer.price).into(),
            term_seconds: offer.term_seconds,
        };
        let offers = answer.offers.iter().map(offer).collect();
        Self { offers, denial: answer.denial.clone(), open: answer.open }
    }
}

impl TryFrom<AnswerWire> for ResourceAnswer {
    type Error = String;

    fn try_from(wire: AnswerWire) -> Result<Self, String> {
        at_most("offers", wire.offers.len(), OFFERS_MAX)?;
        let offers = wire.offers.into_iter().map(|offer| {
            Ok(ResourceOffer {
                fit: offer.fit,
                flavor: offer.flavor.try_into()?,
                configuration: offer.configuration.try_into()?,
                price: offer.price.into(),
                term_seconds: offer.term_seconds,
            })
        });
        // It ends up in statuses and terminals: no control characters of somebody else's.
        let cut = |text: String| text.chars().filter(|c| !c.is_control()).take(DENIAL_LENGTH_MAX).collect();
        let offers = offers.collect::<Result<_, String>>()?;
        Ok(Self { offers, denial: wire.denial.map(cut), open: wire.open })
    }
}

fn at_most(field: &str, observed: usize, most: usize) -> Result<(), String> {
    if observed <= most { Ok(()) } else { Err(format!("{observed} {field}, at most {most}")) }
}

fn short(field: &str, text: &str) -> Result<(), String> {
    match text.len() {
        1..=TEXT_LENGTH_MAX => Ok(()),
        length => Err(format!("{field}: a text of {length} bytes, needed 1 to {TEXT_LENGTH_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use serde_json::json;

    use super::super::wire::Message as _;
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = ResourceRequest {
            flavor_type: FlavorType::K8Slice,
            filters: vec![
                SelectorFilter::Match { name: "architecture".into(), value: "amd64".into() },
                SelectorFilter::Range { name: "cpu".into(), min: Some("1500m".into()), max: None },
            ],
            intents: BTreeMap::from([("fluidos-intent-location".into(), "Milan".into())]),
            term_seconds: Some(3600),
            wait_millis: Some(1500),
            path: Some(Envelope { purpose: "p".into(), payload: "e30".into(), signatures: vec!["a.b.c".into()] }),
        };
        let body = request.write().unwrap();
        assert_eq!(ResourceRequest::read(&body), Ok(request));
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains(r#"{"name":"cpu","min":"1500m"}"#), "{text}");
        let floating = text.replace("3600", "3600.0");
        assert_eq!(ResourceRequest::read(floating.as_bytes()).unwrap().term_seconds, Some(3600));
    }

    #[test]
    fn a_hostile_request_or_answer_is_refused() {
        let long = "x".repeat(300);
        let many: BTreeMap<String, &str> = (0..40).map(|n| (format!("i{n}"), "v")).collect();
        for (body, expected) in [
            (json!({}), "missing field `type`"),
            (json!({"type": "boat"}), "type is `boat`"),
            (json!({"type": "k8slice", "filters": [{"name": "cpu"}]}), "needs either match"),
            (json!({"type": "k8slice", "filters": [{"name": "cpu", "match": "1", "min": "1"}]}), "needs either match"),
            (json!({"type": "k8slice", "filters": [{"name": long, "match": "1"}]}), "a text of 300 bytes"),
            (
                json!({"type": "k8slice", "filters": vec![json!({"name": "cpu", "match": "1"}); 17]}),
                "17 filters, at most 16",
            ),
            (json!({"type": "k8slice", "intents": many}), "40 intents, at most 32"),
            (json!({"type": "k8slice", "intents": {"a": long}}), "a text of 300 bytes"),
            (json!({"type": "k8slice", "intents": {"a": 1}}), "expected a string"),
            (json!({"type": "k8slice", "termSeconds": -1}), "needed a whole number of seconds"),
            (json!({"type": "k8slice", "termSeconds": 1.5}), "observed 1.5"),
            (json!({"type": "k8slice", "termSeconds": 1e300}), "needed a whole number of seconds"),
            (json!([]), "expected struct"),
        ] {
            let refused = ResourceRequest::read(body.to_string().as_bytes()).unwrap_err();
            assert!(refused.contains(expected), "{body}: {refused}");
        }
        let flavor = json!({"flavorID": "f", "type": {"name": "k8slice"}});
        let offer = json!({"fit": "exact", "flavor": flavor, "configuration": {"type": "k8slice"}});
        let answer = |value: serde_json::Value| ResourceAnswer::read(value.to_string().as_bytes());
        assert_eq!(answer(json!({"offers": [offer]})).unwrap().offers[0].price, Price::default());
        assert!(answer(json!({"offers": vec![offer.clone(); 65]})).unwrap_err().contains("65 offers, at most 64"));
        let other = json!({"fit": "perfect", "flavor": offer["flavor"], "configuration": {"type": "k8slice"}});
        assert!(answer(json!({"offers": [other]})).is_err());
        let denial = answer(json!({"denial": format!("no\u{1b}[2J{}", "x".repeat(2000))})).unwrap().denial.unwrap();
        assert!(denial.starts_with("no[2Jx") && denial.len() == 512, "{denial}");
    }
}
