//! `fluidos invoice`: what contracts cost in a month, and the word that it is paid. Money itself moves elsewhere.
#![allow(clippy::print_stdout)] // the answer of a verb

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use fluidos_accounting::bill;
use fluidos_model::kinds::{Account, Invoice, Receipt, names};
use fluidos_model::receipt::{self, Bill, month_named, month_text};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::connection::{Connection, with};
use crate::look::{self, Look, Table, known};

/// An invoice, all that there are, or the word that one is paid.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Invoices {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Of which contract; without one, all invoices are listed.
    contract: Option<String>,
    /// The month of UTC, as 2026-11. Default: the one that runs, which is an estimate.
    #[arg(long, value_parser = month, requires = "contract")]
    month: Option<Timestamp>,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Form::Table, value_name = "FORM")]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[value(alias = "text")]
    Table,
    /// For people, with everything that is known.
    Wide,
    /// For programs: of one invoice the same bytes at both parties.
    Json,
    /// For programs and people.
    Yaml,
    /// For spreadsheets.
    Csv,
    /// One TYPE/NAME a line.
    Name,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Verb {
    /// Say that an invoice is paid; signed, and told to the other party. The seller's word counts, the buyer's is a claim.
    #[command(after_help = "Example:\n  fluidos invoice paid 3f9c01d2aa10-2026-11")]
    Paid {
        /// The number of the invoice, or its name.
        number: String,
    },
}

fn month(text: &str) -> Result<Timestamp> {
    month_named(text).ok_or_else(|| anyhow!("needed a month as 2026-11"))
}

/// Does what the verb says.
pub fn run(connection: &Connection, invoices: &Invoices) -> Result<()> {
    let namespace = connection.namespace_or(names::NAMESPACE);
    with(async {
        let client = connection.client().await?;
        let kept: Vec<Invoice> = look::list(client.clone(), namespace, "invoices").await?;
        match (&invoices.verb, &invoices.contract) {
            (Some(Verb::Paid { number }), _) => paid(client, namespace, &kept, number).await,
            (None, None) => all(&kept, invoices.output),
            (None, Some(contract)) => {
                let month = invoices.month.unwrap_or_else(Timestamp::now);
                let name = names::invoice(contract, &month_text(month));
                let document = match kept.iter().find(|invoice| invoice.name_any() == name) {
                    Some(invoice) => {
                        serde_json::from_value(invoice.spec.document.clone()).with_context(|| name.clone())?
                    }
                    None => estimate(client, namespace, contract, month).await?,
                };
                print(&document, &name, invoices.output)
            }
        }
    })
}

/// What the receipts of a month come to, of which there is no invoice yet.
async fn estimate(client: kube::Client, namespace: &str, contract: &str, month: Timestamp) -> Result<receipt::Invoice> {
    let account = Api::<Account>::namespaced(client.clone(), namespace).get_opt(contract).await?;
    let account =
        account.ok_or_else(|| anyhow!("there is no account of {contract}; see: fluidos contracts, fluidos invoice"))?;
    let receipts: Vec<Receipt> = look::list(client, namespace, "receipts").await?;
    match bill(&account, &receipts, month)? {
        Bill::Invoice(invoice) => Ok(*invoice),
        Bill::Nothing => bail!("{contract} costs nothing: its price is 0 without a currency, so there is no invoice"),
        Bill::NoReceipts => bail!(
            "there is no receipt of {contract} in {}: one is signed at each full hour, and at the end; see: fluidos receipts {contract}",
            month_text(month)
        ),
    }
}

async fn paid(client: kube::Client, namespace: &str, kept: &[Invoice], number: &str) -> Result<()> {
    let of =
        |invoice: &&Invoice| invoice.spec.document["number"].as_str() == Some(number) || invoice.name_any() == number;
    let invoice = kept.iter().find(of);
    let invoice = invoice.ok_or_else(|| anyhow!("there is no invoice {number}; see: fluidos invoice"))?;
    let said = json!({"metadata": {"annotations": {names::ANNOTATION_PAID: Timestamp::now().to_string()}}});
    let name = invoice.name_any();
    let api = Api::<Invoice>::namespaced(client, namespace);
    api.patch(&name, &PatchParams::default(), &Patch::Merge(said))
        .await
        .with_context(|| format!("annotate invoices/{name}"))?;
    println!("invoices/{name} over {} is paid, says this node; the other party is told", invoice.spec.due);
    Ok(())
}

fn all(kept: &[Invoice], form: Form) -> Result<()> {
    let rows = kept.iter().map(|invoice| {
        let spec = &invoice.spec;
        vec![
            known(spec.document["number"].as_str().unwrap_or_default()),
            spec.contract.clone(),
            spec.month.clone(),
            spec.direction.as_str().to_lowercase(),
            known(&spec.due),
            invoice.status.clone().unwrap_or_default().payment.as_str().to_owned(),
            spec.digest.clone(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let heading = &["NUMBER", "CONTRACT", "MONTH", "DIRECTION", "DUE", "PAYMENT", "DIGEST"];
    match form.look() {
        None => csv(heading, &rows),
        Some(look) => {
            let empty = "There are no invoices: one is made when a month or a contract is over.".into();
            look::show(&look, "invoices", kept, |_| Table { heading, narrow: 6, rows, empty })?;
        }
    }
    Ok(())
}

fn print(invoice: &receipt::Invoice, name: &str, form: Form) -> Result<()> {
    let line = |item: &str, quantity: String, amount: &str, number: &str| {
        vec![invoice.month.clone(), item.to_owned(), quantity, amount.to_owned(), number.to_owned()]
    };
    let mut rows: Vec<Vec<String>> = invoice
        .lines
        .iter()
        .map(|l| line(&l.item, format!("{} at {}", quantity(l), price(invoice)), &l.amount, &invoice.number))
        .collect();
    rows.extend(invoice.credit_notes.iter().map(|note| {
        let quantity =
            format!("{} of {} s served, {} per mille promised", note.served, note.of, note.promised_per_mille);
        line(&format!("credit: {}", note.objective), quantity, &format!("-{}", note.amount), &note.number)
    }));
    let disputed = match invoice.disputed.len() {
        0 => String::new(),
        count => format!("{count} receipts are disputed: the lower measure is charged"),
    };
    let due = if invoice.complete { "due" } else { "due so far (estimate)" };
    rows.push(line(due, disputed, &invoice.due, &invoice.number));
    let heading = &["MONTH", "ITEM", "QUANTITY", "AMOUNT", "NUMBER"];
    if form == Form::Name {
        println!("invoices/{name}");
        return Ok(());
    }
    match form.look() {
        None => csv(heading, &rows),
        Some(look) => {
            look::show_values(&look, invoice, || Table { heading, narrow: 5, rows, empty: String::new() })?;
        }
    }
    Ok(())
}

/// How much, in the unit that people read: milliseconds are parts of a second.
fn quantity(line: &receipt::InvoiceLine) -> String {
    match line.unit.as_str() {
        "ms" => format!("{}.{:03} s", line.quantity / 1000, line.quantity % 1000),
        unit => format!("{} {unit}", line.quantity),
    }
}

fn price(invoice: &receipt::Invoice) -> String {
    let [amount, currency, period] = &invoice.price;
    if period.is_empty() { format!("{amount} {currency}") } else { format!("{amount} {currency}/{period}") }
}

impl Form {
    fn look(self) -> Option<Look> {
        use crate::output::Output;
        let output = match self {
            Self::Table => Output::Table,
            Self::Wide => Output::Wide,
            Self::Json => Output::Json,
            Self::Yaml => Output::Yaml,
            Self::Name => Output::Name,
            Self::Csv => return None,
        };
        Some(Look::of(output))
    }
}

fn csv(heading: &[&str], rows: &[Vec<String>]) {
    println!("{}", csv_line(heading.iter().copied()));
    rows.iter().for_each(|row| println!("{}", csv_line(row.iter().map(String::as_str))));
}

/// RFC 4180; a cell that a spreadsheet would take for a formula is text.
fn csv_line<'a>(cells: impl Iterator<Item = &'a str>) -> String {
    let cell = |text: &str| {
        let is_amount = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        let formula = text.starts_with(['=', '+', '@']) || text.strip_prefix('-').is_some_and(|rest| !is_amount(rest));
        let text = if formula { format!("'{text}") } else { text.to_owned() };
        if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    cells.map(cell).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_read_in_seconds() {
        let line = |unit: &str| receipt::InvoiceLine {
            item: "used".into(),
            quantity: 450_050,
            unit: unit.into(),
            amount_minor: 0,
            amount: String::new(),
        };
        assert_eq!((quantity(&line("ms")), quantity(&line("s"))), ("450.050 s".into(), "450050 s".into()));
    }

    #[test]
    fn a_spreadsheet_reads_what_stands_there_and_computes_nothing() {
        let line = csv_line(["a", "x, y", "say \"so\"", "=1+1", "-0.05 EUR", "-cmd"].into_iter());
        assert_eq!(line, "a,\"x, y\",\"say \"\"so\"\"\",'=1+1,-0.05 EUR,'-cmd");
    }
}
