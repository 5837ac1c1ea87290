//! The verbs that look: `flavors`, `contracts`, and the tables of all that look. They ask the API with the caller's rights, as kubectl does. What is
//! not known is `?`, never 0.
#![allow(clippy::print_stdout)] // the answer of a verb

use anyhow::{Context, Result};
use fluidos_model::kinds::{Contract, Flavor, FlavorPrice, NodeIdentity, names};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use crate::connection::{Connection, with};
use crate::output::Output;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Flavors.
    Flavors,
    /// Contracts.
    Contracts,
}

/// How to look.
#[derive(clap::Args, Clone, Debug)]
pub struct Look {
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

/// What is printed as rows.
pub struct Table {
    /// The names of the columns.
    pub heading: &'static [&'static str],
    /// How many of them are printed without `-o wide`.
    pub narrow: usize,
    /// A cell for each column.
    pub rows: Vec<Vec<String>>,
    /// What is said when there is no row.
    pub empty: String,
}

/// Does what the verb says.
pub fn run(subject: Subject, connection: &Connection, look: &Look) -> Result<()> {
    with(async {
        let client = connection.client().await?;
        let namespace = connection.namespace_or(names::NAMESPACE);
        match subject {
            Subject::Flavors => list::<Flavor>(client, look, namespace, "flavors", flavors).await,
            Subject::Contracts => list::<Contract>(client, look, namespace, "contracts", contracts).await,
        }
    })
}

async fn list<K>(
    client: kube::Client,
    look: &Look,
    namespace: &str,
    plural: &str,
    table: fn(&[K]) -> Table,
) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + serde::de::DeserializeOwned,
{
    let objects = Api::<K>::namespaced(client, namespace).list(&ListParams::default()).await;
    let objects = objects.with_context(|| format!("list {plural} in namespace {}", namespace))?.items;
    show(look, plural, &objects, table)
}

/// Prints objects as it was asked for.
pub fn show<K: kube::Resource<DynamicType = ()> + Serialize>(
    look: &Look,
    plural: &str,
    objects: &[K],
    table: impl FnOnce(&[K]) -> Table,
) -> Result<()> {
    if look.output == Output::Name {
        objects.iter().for_each(|o| println!("{plural}/{}", o.name_any()));
        return Ok(());
    }
    show_values(look, &objects, || table(objects))
}

/// Prints what has no names of its own.
pub fn show_values(look: &Look, value: &impl Serialize, table: impl FnOnce() -> Table) -> Result<()> {
    match look.output.structured(value)? {
        Some(text) => println!("{text}"),
        None => print(&table(), look.output == Output::Wide),
    }
    Ok(())
}

/// Prints rows with a heading, or the sentence for none.
fn print(table: &Table, wide: bool) {
    if table.rows.is_empty() {
        eprintln!("{}", table.empty);
        return;
    }
    let columns = if wide { table.heading.len() } else { table.narrow };
    let width = |column: usize| {
        let cells = table.rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(table.heading[column].len())
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", padded.join("   ").trim_end());
    };
    line(table.heading[..columns].to_vec());
    for row in &table.rows {
        line(row[..columns].iter().map(String::as_str).collect());
    }
}

/// A text, or `?` for one that is empty.
pub fn known(text: &str) -> String {
    if text.is_empty() { "?".into() } else { text.to_owned() }
}

/// A text, or `?` for none.
pub fn option(text: Option<&str>) -> String {
    known(text.unwrap_or_default())
}

fn flavors(objects: &[Flavor]) -> Table {
    let rows = objects.iter().map(|flavor| {
        let slice = flavor.spec.k8slice().ok();
        let amount = |text: Option<&str>| option(text);
        let place = flavor.spec.location.as_ref();
        vec![
            flavor.name_any(),
            slice.as_ref().map_or("?".into(), |s| known(&s.characteristics.architecture)),
            amount(slice.as_ref().map(|s| s.characteristics.cpu.0.as_str())),
            amount(slice.as_ref().map(|s| s.characteristics.memory.0.as_str())),
            amount(slice.as_ref().map(|s| s.characteristics.pods.0.as_str())),
            option(place.map(|p| p.city.as_str())),
            price(&flavor.spec.price),
            flavor.spec.availability.to_string(),
            option(place.map(|p| p.country.as_str())),
            known(&flavor.spec.owner.domain),
        ]
    });
    Table {
        heading: &["NAME", "ARCH", "CPU", "MEMORY", "PODS", "CITY", "PRICE", "AVAILABLE", "COUNTRY", "OWNER"],
        narrow: 8,
        rows: rows.collect(),
        empty: "Nothing is sold here. To sell: fluidos up --offer cpu=4,memory=8Gi,pods=50".into(),
    }
}

/// Whether a contract was sold here or bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Sold,
    Bought,
}

/// The direction follows from who the other side is, which stands on every contract.
fn direction(contract: &Contract) -> Option<Direction> {
    let peer = contract.annotations().get(names::ANNOTATION_PEER_DID)?;
    let did = |identity: &NodeIdentity| identity.additional_information.as_ref().and_then(|more| more.did.clone());
    if did(&contract.spec.buyer).as_ref() == Some(peer) {
        return Some(Direction::Sold);
    }
    (did(&contract.spec.seller).as_ref() == Some(peer)).then_some(Direction::Bought)
}

/// A price as it was stated: `0.02 EUR/hour per cpu`; one that is not, or cannot be read, is not known.
fn price(price: &FlavorPrice) -> String {
    match price.parse() {
        Ok(Some(stated)) if stated.unit.as_str().is_empty() => stated.price.to_string(),
        Ok(Some(stated)) => format!("{} per {}", stated.price, stated.unit.as_str()),
        Ok(None) | Err(_) => "?".into(),
    }
}

fn contracts(objects: &[Contract]) -> Table {
    let rows = objects.iter().map(|contract| {
        let amounts = contract.spec.configuration.as_ref().map(|c| &c.data);
        let amount = |name: &str| match amounts.map(|data| &data[name]) {
            Some(serde_json::Value::String(text)) => known(text),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            _ => "?".into(),
        };
        let party = |identity: &NodeIdentity| {
            let name = identity.additional_information.as_ref().and_then(|i| i.name.as_deref());
            format!("{} ({})", option(name), known(&identity.domain))
        };
        let (direction, peer) = match direction(contract) {
            Some(Direction::Sold) => ("sold", party(&contract.spec.buyer)),
            Some(Direction::Bought) => ("bought", party(&contract.spec.seller)),
            None => ("?", "?".into()),
        };
        let status = contract.status.as_ref();
        vec![
            contract.name_any(),
            direction.into(),
            peer,
            amount("cpu"),
            amount("memory"),
            amount("pods"),
            price(&contract.spec.flavor.spec.price),
            option(contract.spec.expiration_time.as_deref()),
            status.map_or("?".into(), |s| s.phase.as_str().to_owned()),
            party(&contract.spec.buyer),
            party(&contract.spec.seller),
            contract.spec.signed_terms.as_ref().map_or("0".into(), |t| t.signatures.len().to_string()),
        ]
    });
    Table {
        heading: &[
            "NAME",
            "DIRECTION",
            "PEER",
            "CPU",
            "MEMORY",
            "PODS",
            "PRICE",
            "ENDS",
            "PHASE",
            "BUYER",
            "SELLER",
            "SIGNATURES",
        ],
        narrow: 9,
        rows: rows.collect(),
        empty: "There are no contracts: nothing was bought or sold.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_never_0() {
        let row = &contracts(&[Contract::new("c", Default::default())]).rows[0];
        assert_eq!(row[1..9], ["?", "?", "?", "?", "?", "?", "?", "?"].map(str::to_owned));
    }

    #[test]
    fn a_price_is_shown_as_it_was_stated() {
        let stated = |amount: &str, currency: &str, period: &str, unit: &str| {
            price(&FlavorPrice {
                amount: amount.into(),
                currency: currency.into(),
                period: period.into(),
                unit: unit.into(),
            })
        };
        assert_eq!(stated("0.020", "eur", "hourly", "cpu"), "0.02 EUR/hour per cpu");
        assert_eq!(stated("3", "EUR", "month", ""), "3 EUR/month");
        assert_eq!(stated("0", "", "", ""), "0");
        assert_eq!(stated("cheap", "EUR", "hour", ""), "?");
    }

    #[test]
    fn the_other_side_tells_the_direction() {
        let did = |did: &str| NodeIdentity {
            additional_information: Some(fluidos_model::kinds::AdditionalInformation {
                did: Some(did.into()),
                ..Default::default()
            }),
            ..NodeIdentity::default()
        };
        let spec = fluidos_model::kinds::ContractSpec { buyer: did("b"), seller: did("s"), ..Default::default() };
        let mut contract = Contract::new("c", spec);
        for (peer, expected) in [("b", Some(Direction::Sold)), ("s", Some(Direction::Bought)), ("x", None)] {
            contract.annotations_mut().insert(names::ANNOTATION_PEER_DID.into(), peer.into());
            assert_eq!(direction(&contract), expected);
        }
    }
}
