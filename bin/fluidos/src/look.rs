//! The verbs that look: `flavors`, and the tables of all that look. They ask the API with the caller's rights, as kubectl does. What is
//! not known is `?`, never 0.
#![allow(clippy::print_stdout)] // the answer of a verb

use anyhow::{Context, Result};
use fluidos_model::kinds::{Flavor, FlavorPrice, names};
use fluidos_model::market::Amounts;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde::Serialize;

use crate::connection::{Connection, with};
use crate::output::Output;

/// How to look.
#[derive(clap::Args, Clone, Debug)]
pub struct Look {
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Output::Table, value_name = "FORM")]
    output: Output,
}

impl Look {
    /// Looks in a given form.
    pub fn of(output: Output) -> Self {
        Self { output }
    }

    /// Whether names are asked for: what has no objects prints its own.
    pub fn is_name(&self) -> bool {
        self.output == Output::Name
    }
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

/// `fluidos flavors`.
pub fn flavors(connection: &Connection, look: &Look) -> Result<()> {
    with(async {
        let client = connection.client().await?;
        let objects = list::<Flavor>(client, connection.namespace_or(names::NAMESPACE), "flavors").await?;
        show(look, "flavors", &objects, flavor_table)
    })
}

/// All objects of a kind in a namespace.
pub async fn list<K>(client: kube::Client, namespace: &str, plural: &str) -> Result<Vec<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + serde::de::DeserializeOwned,
{
    let objects = Api::<K>::namespaced(client, namespace).list(&ListParams::default()).await;
    Ok(objects.with_context(|| format!("list {plural} in namespace {namespace}"))?.items)
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

/// Prints what is no object here, but has names.
pub fn show_named<'a>(
    look: &Look,
    plural: &str,
    value: &impl Serialize,
    names: impl Iterator<Item = &'a str>,
    table: impl FnOnce() -> Table,
) -> Result<()> {
    if look.output == Output::Name {
        names.for_each(|name| println!("{plural}/{name}"));
        return Ok(());
    }
    show_values(look, value, table)
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

/// Extended resources: `example.com/fpga 2`, or `none`; what cannot be read is not known.
pub fn devices(amounts: Option<&Amounts>) -> String {
    let Some(amounts) = amounts else { return "?".into() };
    let devices = Amounts { extended: amounts.extended.clone(), ..Amounts::default() };
    if devices.is_zero() { "none".into() } else { devices.to_string() }
}

fn flavor_table(objects: &[Flavor]) -> Table {
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
            devices(slice.and_then(|slice| slice.characteristics.amounts().ok()).as_ref()),
            option(place.map(|p| p.city.as_str())),
            price(&flavor.spec.price),
            flavor.spec.availability.to_string(),
            option(place.map(|p| p.country.as_str())),
            known(&flavor.spec.owner.domain),
        ]
    });
    Table {
        heading: &[
            "NAME",
            "ARCH",
            "CPU",
            "MEMORY",
            "PODS",
            "DEVICES",
            "CITY",
            "PRICE",
            "AVAILABLE",
            "COUNTRY",
            "OWNER",
        ],
        narrow: 9,
        rows: rows.collect(),
        empty: "Nothing is sold here. To sell: fluidos up --offer cpu=4,memory=8Gi,pods=50".into(),
    }
}

/// A price as it was stated: `0.02 EUR/hour per cpu`; one that is not, or cannot be read, is not known.
pub fn price(price: &FlavorPrice) -> String {
    price.shown().unwrap_or_else(|| "?".into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
