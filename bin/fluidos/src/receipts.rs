//! `fluidos receipts`: what contracts used, hour by hour, as both parties have signed it; and its proof as a file.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fluidos_identity::NodeId;
use fluidos_model::kinds::{Receipt, names};
use fluidos_model::receipt::{self, Item, MEMBER, RECEIPT_PURPOSE};
use fluidos_rear::{PROOF_BYTES_MAX, export_signed, verify_signed};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::connection::{Connection, with};
use crate::look::{self, Look, Table};

/// What is done with receipts; without a verb they are listed.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Receipts {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Only those of this contract.
    contract: Option<String>,
    #[command(flatten)]
    look: Look,
    /// Only those with a line that is disputed.
    #[arg(long)]
    disputed: bool,
    /// Which pods ran, when, and how long, as each party saw it.
    #[arg(long)]
    pods: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Verb {
    /// Write a receipt with its signatures as a file that proves itself on any machine.
    #[command(after_help = "Example:\n  fluidos receipts export receipt-grid-…-0000001 > receipt.json")]
    Export {
        /// The receipt.
        name: String,
        /// Where to; default: standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Prove offline what both parties signed; names the field that was changed. Exit 1 if the file proves nothing.
    Verify {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        look: Look,
    },
}

/// Does what the verb says.
pub fn run(connection: &Connection, receipts: &Receipts) -> Result<()> {
    match &receipts.verb {
        Some(Verb::Verify { file, look }) => verify(file, look),
        Some(Verb::Export { name, out }) => with(export(connection, name, out.as_ref())),
        None => with(async {
            let client = connection.client().await?;
            let namespace = connection.namespace_or(names::NAMESPACE);
            let mut objects: Vec<Receipt> = look::list(client, namespace, "receipts").await?;
            objects.retain(|object| receipts.contract.as_ref().is_none_or(|name| *name == object.spec.contract));
            objects.retain(|object| !receipts.disputed || object.spec.state == "Disputed");
            look::show(&receipts.look, "receipts", &objects, if receipts.pods { pods } else { table })
        }),
    }
}

fn table(objects: &[Receipt]) -> Table {
    let rows = objects.iter().map(|object| {
        // One whose signatures do not hold says nothing.
        let read = fluidos_accounting::signed_receipt(object).ok();
        let of = |item| measures(read.as_ref().map(fluidos_identity::Signed::value), item);
        let spec = &object.spec;
        vec![
            object.name_any(),
            spec.contract.clone(),
            spec.number.to_string(),
            spec.from.clone(),
            spec.until.clone(),
            of(Item::Reserved),
            of(Item::Pods),
            of(Item::BytesToSeller),
            of(Item::BytesToBuyer),
            if read.is_some() { spec.state.clone() } else { "?".into() },
            of(Item::Cpu),
            of(Item::Memory),
            of(Item::Away),
            of(Item::Used),
            of(Item::Yielded),
            spec.digest.clone(),
        ]
    });
    Table {
        heading: &[
            "NAME",
            "CONTRACT",
            "NR",
            "FROM",
            "UNTIL",
            "RESERVED",
            "PODS",
            "TO SELLER",
            "TO BUYER",
            "STATE",
            "CPU",
            "MEMORY",
            "AWAY",
            "USED",
            "YIELDED",
            "DIGEST",
        ],
        narrow: 10,
        rows: rows.collect(),
        empty: "There are no receipts: one is signed at each full hour of a contract, and at its end.".into(),
    }
}

/// The pods of receipts, one in a row; those that are not listed in a row of their own.
fn pods(objects: &[Receipt]) -> Table {
    let mut rows = Vec::new();
    for object in objects {
        let Ok(signed) = fluidos_accounting::signed_receipt(object) else {
            rows.push(vec![object.name_any(), "?".into(), "?".into(), "?".into()]);
            continue;
        };
        let ran = |ran: &Option<receipt::PodInterval>| match ran {
            Some(ran) => format!("{} s of {} to {}", ran.ms / 1000, ran.from, ran.until),
            None => "?".into(),
        };
        let lines = signed.value().pods.iter();
        rows.extend(lines.map(|line| vec![object.name_any(), line.pod.clone(), ran(&line.buyer), ran(&line.seller)]));
        let receipt::PodsLeftOut { buyer, seller } = signed.value().pods_left_out;
        if buyer + seller > 0 {
            rows.push(vec![
                object.name_any(),
                "(not listed)".into(),
                format!("{buyer} more"),
                format!("{seller} more"),
            ]);
        }
    }
    Table {
        heading: &["RECEIPT", "POD", "BUYER", "SELLER"],
        narrow: 4,
        rows,
        empty: "No receipt lists a pod: none ran, or the receipts are of before they were listed.".into(),
    }
}

/// Both measures of a thing with its unit, one if they are the same: `1790/1800 s`. Who has measured nothing is `?`.
fn measures(receipt: Option<&receipt::Receipt>, item: Item) -> String {
    let Some(line) = receipt.and_then(|receipt| receipt.line(item)) else { return "?".into() };
    match (line.buyer, line.seller) {
        (Some(buyer), Some(seller)) if buyer != seller => format!("{buyer}/{seller} {}", line.unit),
        (Some(one), _) | (None, Some(one)) => format!("{one} {}", line.unit),
        (None, None) => "?".into(),
    }
}

async fn export(connection: &Connection, name: &str, out: Option<&PathBuf>) -> Result<()> {
    let api = Api::<Receipt>::namespaced(connection.client().await?, connection.namespace_or(names::NAMESPACE));
    let object = api.get(name).await.with_context(|| format!("get receipts/{name}"))?;
    let signed = fluidos_accounting::signed_receipt(&object).with_context(|| format!("receipts/{name}"))?;
    let text = export_signed(&signed, MEMBER).with_context(|| format!("receipts/{name}"))?;
    match out {
        Some(path) => std::fs::write(path, text + "\n").with_context(|| path.display().to_string()),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}

fn verify(file: &PathBuf, look: &Look) -> Result<()> {
    let shown = || file.display().to_string();
    let length = std::fs::metadata(file).with_context(shown)?.len();
    if length > PROOF_BYTES_MAX as u64 {
        bail!("{}: {length} bytes, at most {PROOF_BYTES_MAX}", shown());
    }
    let text = std::fs::read_to_string(file).with_context(shown)?;
    let signed = verify_signed::<receipt::Receipt>(&text, MEMBER, RECEIPT_PURPOSE).with_context(shown)?;
    let receipt = signed.value();
    let party = |field: &str, did: &str| did.parse::<NodeId>().with_context(|| format!("{}: {field}", shown()));
    signed.require(&[party("buyer", &receipt.buyer)?, party("seller", &receipt.seller)?]).with_context(shown)?;
    let signers: Vec<String> = signed.signers().map(|signer| signer.to_string()).collect();
    let value = json!({ "receipt": receipt, "signers": signers, "digest": signed.digest() });
    look::show_values(look, &value, || Table {
        heading: &["CONTRACT", "NR", "FROM", "UNTIL", "RESERVED", "STATE", "BUYER", "SELLER", "SIGNATURES", "DIGEST"],
        narrow: 9,
        rows: vec![vec![
            receipt.contract_id.clone(),
            receipt.number.to_string(),
            receipt.from.to_string(),
            receipt.until.to_string(),
            measures(Some(receipt), Item::Reserved),
            if receipt.is_disputed() { "Disputed" } else { "Agreed" }.into(),
            receipt.buyer.clone(),
            receipt.seller.clone(),
            format!("{} hold", signers.len()),
            signed.digest(),
        ]],
        empty: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_as_each_has_seen_them_and_how_many_are_not_listed() -> Result<()> {
        let document = json!({"version": 2, "contractID": "c", "termsDigest": "", "number": 1, "previous": "",
            "from": "2026-11-01T10:00:00Z", "until": "2026-11-01T11:00:00Z", "buyer": "b", "seller": "s", "lines": [],
            "pods": [{"pod": "uid", "seller": {"from": "2026-11-01T10:00:05Z", "until": "2026-11-01T10:01:00Z", "ms": 50_900}}],
            "podsLeftOut": {"buyer": 0, "seller": 3}});
        let read: receipt::Receipt = serde_json::from_value(document)?;
        let envelope = fluidos_identity::Signed::new(RECEIPT_PURPOSE, read)?.envelope();
        let mut object = Receipt::new("r", Default::default());
        object.spec.signed = fluidos_model::kinds::SignedTerms {
            purpose: envelope.purpose,
            payload: envelope.payload,
            signatures: envelope.signatures,
        };
        let told = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        let seen = "50 s of 2026-11-01T10:00:05Z to 2026-11-01T10:01:00Z";
        let needed = [told(["r", "uid", "?", seen]), told(["r", "(not listed)", "0 more", "3 more"])];
        assert_eq!(pods(&[object]).rows, needed);
        assert_eq!(pods(&[Receipt::new("r", Default::default())]).rows, [told(["r", "?", "?", "?"])]);
        Ok(())
    }

    #[test]
    fn a_receipt_that_cannot_be_read_says_nothing() {
        let mut object = Receipt::new("r", Default::default());
        object.spec.state = "Agreed".into();
        let row = &table(&[object]).rows[0];
        assert_eq!(row[5..10], ["?", "?", "?", "?", "?"].map(str::to_owned));
    }
}
