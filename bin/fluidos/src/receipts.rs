//! `fluidos receipts`: what contracts used, hour by hour, as both parties have signed it; and its proof as a file.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use fluidos_identity::{NodeId, Statement};
use fluidos_model::kinds::{Acquaintance, Receipt, names};
use fluidos_model::receipt::{self, Item, MEMBER, RECEIPT_PURPOSE};
use fluidos_rear::{
    PROOF_WITH_HANDOVERS_BYTES_MAX, export_with_handovers, handovers_of, require_party, verify_with_handovers,
};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::connection::{Connection, with};
use crate::identity::read_statements;
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
    #[command(
        after_help = "Examples:\n  fluidos receipts export receipt-grid-…-0000001 > receipt.json\n  fluidos receipts export receipt-grid-…-0000009 --statements /var/lib/fluidos/identity/history.json > receipt.json"
    )]
    Export {
        /// The receipt.
        name: String,
        /// Hand-overs of a party whose key has changed, to go into the file: this node's own history.json, once it has another key than
        /// its contract names. Those of the other party are known; may be repeated.
        #[arg(long, value_name = "FILE")]
        statements: Vec<PathBuf>,
        /// Where to; default: standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Prove offline what both parties signed; names the field that was changed. Exit 1 if the file proves nothing.
    ///
    /// A party may have signed with a key that follows the one its contract names: along hand-overs in the file, or in --statements.
    #[command(
        after_help = "Examples:\n  fluidos receipts verify receipt.json\n  fluidos receipts verify receipt.json --statements history.json"
    )]
    Verify {
        /// The file.
        file: PathBuf,
        /// More hand-overs: a node's history.json, or one statement; may be repeated.
        #[arg(long, value_name = "FILE")]
        statements: Vec<PathBuf>,
        #[command(flatten)]
        look: Look,
    },
}

/// Does what the verb says.
pub fn run(connection: &Connection, receipts: &Receipts) -> Result<()> {
    match &receipts.verb {
        Some(Verb::Verify { file, statements, look }) => verify(file, statements, look),
        Some(Verb::Export { name, statements, out }) => with(export(connection, name, statements, out.as_ref())),
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

async fn export(connection: &Connection, name: &str, statements: &[PathBuf], out: Option<&PathBuf>) -> Result<()> {
    let (client, namespace) = (connection.client().await?, connection.namespace_or(names::NAMESPACE));
    let object = Api::<Receipt>::namespaced(client.clone(), namespace).get(name).await;
    let object = object.with_context(|| format!("get receipts/{name}"))?;
    let signed = fluidos_accounting::signed_receipt(&object).with_context(|| format!("receipts/{name}"))?;
    let mut heard = read_statements(statements)?;
    let met: Vec<Acquaintance> = look::list(client, namespace, "acquaintances").await?;
    // One that cannot be read proves nothing, and the file may prove itself without it.
    let accepted = met.iter().flat_map(|met| &met.spec.accepted);
    heard.extend(accepted.filter_map(|text| Statement::parse(text.as_bytes()).ok()));
    let mut handovers = Vec::new();
    for (party, named) in parties(signed.value()).with_context(|| format!("receipts/{name}"))? {
        if signed.signed_by(&named) {
            continue;
        }
        // With a doubt about its key nothing is put into the file, and the note says so.
        handovers.extend(handovers_of(named, &heard, Timestamp::now()).unwrap_or_default());
        if let Err(error) = require_party(&signed, party, named, &heard, Timestamp::now()) {
            eprintln!("note: as it is, the file proves nothing: {error} (--statements)");
        }
    }
    let text = export_with_handovers(&signed, MEMBER, &handovers).with_context(|| format!("receipts/{name}"))?;
    match out {
        Some(path) => std::fs::write(path, text + "\n").with_context(|| path.display().to_string()),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}

/// Both parties with the keys under which the contract names them.
fn parties(receipt: &receipt::Receipt) -> Result<[(&'static str, NodeId); 2]> {
    let key = |party: &'static str, did: &str| -> Result<(&'static str, NodeId)> {
        Ok((party, did.parse().with_context(|| format!("{party} {did:?}"))?))
    };
    Ok([key("buyer", &receipt.buyer)?, key("seller", &receipt.seller)?])
}

fn verify(file: &PathBuf, statements: &[PathBuf], look: &Look) -> Result<()> {
    let shown = || file.display().to_string();
    let length = std::fs::metadata(file).with_context(shown)?.len();
    if length > PROOF_WITH_HANDOVERS_BYTES_MAX as u64 {
        bail!("{}: {length} bytes, at most {PROOF_WITH_HANDOVERS_BYTES_MAX}", shown());
    }
    let text = std::fs::read_to_string(file).with_context(shown)?;
    let (signed, mut heard) =
        verify_with_handovers::<receipt::Receipt>(&text, MEMBER, RECEIPT_PURPOSE).with_context(shown)?;
    heard.extend(read_statements(statements)?);
    let receipt = signed.value();
    for (party, named) in parties(receipt).with_context(shown)? {
        require_party(&signed, party, named, &heard, Timestamp::now()).with_context(shown)?;
    }
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
    use fluidos_identity::{Handover, NodeKey, Signed};

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

    #[test]
    fn a_receipt_of_a_next_key_is_proven_by_hand_overs_in_the_file_or_beside_it() -> Result<()> {
        let key = |seed: u8| NodeKey::from_seed([seed; 32]);
        let (buyer, seller, next, stranger) = (key(1)?, key(2)?, key(12)?, key(9)?);
        let document = json!({"version": 2, "contractID": "c", "termsDigest": "", "number": 1, "previous": "",
            "from": "2026-11-01T10:00:00Z", "until": "2026-11-01T11:00:00Z", "buyer": buyer.id(), "seller": seller.id(),
            "lines": [], "pods": [], "podsLeftOut": {"buyer": 0, "seller": 0}});
        let signed = |signers: [&NodeKey; 2]| -> Result<Signed<receipt::Receipt>> {
            let mut signed = Signed::new(RECEIPT_PURPOSE, serde_json::from_value(document.clone())?)?;
            signers.iter().try_for_each(|signer| signed.sign(signer))?;
            Ok(signed)
        };
        let handover: Statement = Handover::by_key(&seller, &next, "2026-10-01T00:00:00Z".parse()?)?.into();
        let directory = tempfile::Builder::new().prefix("flt-receipts-").tempdir()?;
        let (file, history) = (directory.path().join("receipt.json"), directory.path().join("history.json"));
        std::fs::write(&history, Statement::write_all(std::slice::from_ref(&handover))?)?;
        let look = Look::of(crate::output::Output::Json);
        let verified = |signers: [&NodeKey; 2], inside: &[Statement], beside: &[PathBuf]| -> Result<()> {
            std::fs::write(&file, export_with_handovers(&signed(signers)?, MEMBER, inside)?)?;
            verify(&file, beside, &look)
        };
        verified([&buyer, &seller], &[], &[])?;
        verified([&buyer, &next], std::slice::from_ref(&handover), &[])?;
        verified([&buyer, &next], &[], std::slice::from_ref(&history))?;
        let told = |refused: Result<()>| format!("{:#}", refused.err().unwrap_or_else(|| anyhow::anyhow!("it holds")));
        let missing = told(verified([&buyer, &next], &[], &[]));
        assert!(missing.contains(&format!("not signed by the seller {}", seller.id())), "{missing}");
        assert!(missing.contains(&next.id().to_string()), "{missing}");
        let forged = told(verified([&buyer, &stranger], &[handover], &[history]));
        assert!(forged.contains(&format!("lead to {}", next.id())), "{forged}");
        Ok(())
    }
}
