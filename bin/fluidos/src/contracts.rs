//! `fluidos contracts`: what was bought and sold, its proof as a file, and its end. `fluidos unpeer`: the end of all of it with one
//! peer. They act on objects with the caller's rights; deleting the object is what ends a contract.
#![allow(clippy::print_stdout)] // the answer of a verb

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use fluidos_identity::Signed;
use fluidos_model::kinds::{
    Account, Contract, Invoice, KnownCluster, LogState, NodeIdentity, PaymentState, Receipt, TransparencyLog, names,
};
use fluidos_model::market::{BusinessModel, Conditions, Currency, Money, SHARE_MOST};
use fluidos_model::receipt::{self, Bill, Measures};
use fluidos_rear::{CONTRACT_PURPOSE, ContractTerms, Envelope};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::connection::{Connection, with};
use crate::look::{self, Look, Table, known, option, price};

/// Reasons are shown at the other side; a line.
const REASON_MAX: usize = 200;

/// What is done with contracts; without a verb they are listed.
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Contracts {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    look: Look,
    /// Only what was sold here.
    #[arg(long, conflicts_with = "bought")]
    sold: bool,
    /// Only what was bought.
    #[arg(long)]
    bought: bool,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum Verb {
    /// Write a contract with its signatures as a file that proves itself on any machine.
    #[command(after_help = "Example:\n  fluidos contracts export contract-grid-… > contract.json")]
    Export {
        /// The contract.
        name: String,
        /// Where to; default: standard output.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Its last renewal instead, which names the contract by its digest.
        #[arg(long)]
        renewal: bool,
    },
    /// Prove offline what both parties signed; names the field that was changed. Exit 1 if the file proves nothing.
    Verify {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        look: Look,
    },
    /// Do not use what was bought for now: its pods move, what it costs and what is promised stays.
    #[command(after_help = "Example:\n  fluidos contracts suspend contract-grid-… --reason 'the harvest is over'")]
    Suspend {
        /// The contract.
        name: String,
        /// Why.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
    /// Use what was suspended again.
    #[command(after_help = "Example:\n  fluidos contracts resume contract-grid-…")]
    Resume {
        /// The contract.
        name: String,
    },
    /// End a contract: after the notice that both have signed, without one at once. Then access ends and capacity returns; the other
    /// side is told why.
    Terminate {
        /// The contract.
        name: String,
        /// Why, for both sides.
        #[arg(long, value_parser = reason)]
        reason: String,
    },
}

/// With whom it is over.
#[derive(clap::Args, Clone, Debug)]
pub struct Unpeer {
    /// The peer: its name, the name of its KnownCluster, or its DID.
    peer: String,
    /// Why, for both sides.
    #[arg(long, value_parser = reason, default_value = "the peering is over")]
    reason: String,
}

fn reason(text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > REASON_MAX || text.chars().any(char::is_control) {
        bail!("needed a line of at most {REASON_MAX} characters");
    }
    Ok(text.to_owned())
}

/// Does what the verb says.
pub fn run(connection: &Connection, contracts: &Contracts) -> Result<()> {
    match &contracts.verb {
        Some(Verb::Verify { file, look }) => verify(file, look),
        Some(Verb::Export { name, out, renewal }) => with(export(connection, name, *renewal, out.as_ref())),
        Some(Verb::Terminate { name, reason }) => with(async {
            let api = api(connection).await?;
            end(&api, name, reason).await
        }),
        Some(Verb::Suspend { name, reason }) => with(async {
            let api = api(connection).await?;
            suspend(&api, name, Some(reason)).await
        }),
        Some(Verb::Resume { name }) => with(async {
            let api = api(connection).await?;
            suspend(&api, name, None).await
        }),
        None => with(async {
            let client = connection.client().await?;
            let namespace = connection.namespace_or(names::NAMESPACE);
            let mut objects: Vec<Contract> = look::list(client.clone(), namespace, "contracts").await?;
            let wanted = match (contracts.sold, contracts.bought) {
                (true, _) => Some(Direction::Sold),
                (_, true) => Some(Direction::Bought),
                _ => None,
            };
            objects.retain(|contract| wanted.is_none() || direction(contract) == wanted);
            let books = Books::read(connection).await?;
            // Rows that are missing look like rows that never were.
            if let Ok(log) = Api::<TransparencyLog>::namespaced(client, namespace).get(names::LOG).await
                && let Some(status) = log.status.filter(|status| status.state == LogState::Restoring)
            {
                eprintln!("Not all contracts are here: {}. See fluidos restore.", status.message);
            }
            look::show(&contracts.look, "contracts", &objects, |objects| table(objects, &books))
        }),
    }
}

/// Ends what there is with a peer.
pub fn unpeer(connection: &Connection, unpeer: &Unpeer) -> Result<()> {
    with(async {
        let client = connection.client().await?;
        let namespace = connection.namespace_or(names::NAMESPACE);
        let peers: Vec<KnownCluster> = look::list(client.clone(), namespace, "knownclusters").await?;
        let did = did_of(&peers, &unpeer.peer)?;
        let mut contracts: Vec<Contract> = look::list(client.clone(), namespace, "contracts").await?;
        contracts.retain(|contract| contract.annotations().get(names::ANNOTATION_PEER_DID) == Some(&did));
        let api = Api::<Contract>::namespaced(client, namespace);
        for contract in &contracts {
            end(&api, &contract.name_any(), &unpeer.reason).await?;
        }
        println!("{} contracts with {} are over; it stays known: fluidos peers", contracts.len(), unpeer.peer);
        Ok(())
    })
}

/// The DID of a peer that was named; two of one name are told apart by theirs.
fn did_of(peers: &[KnownCluster], named: &str) -> Result<String> {
    if named.starts_with("did:") {
        return Ok(named.to_owned());
    }
    let found: Vec<&KnownCluster> =
        peers.iter().filter(|peer| peer.spec.name.as_deref() == Some(named) || peer.name_any() == named).collect();
    match found.as_slice() {
        [peer] => peer.spec.did.clone().ok_or_else(|| anyhow!("the DID of {named} is not known")),
        [] => bail!("no peer is called {named}; see: fluidos peers"),
        several => {
            let dids: Vec<&str> = several.iter().filter_map(|peer| peer.spec.did.as_deref()).collect();
            bail!("{} peers are called {named}; name one by its DID: {}", several.len(), dids.join(", "))
        }
    }
}

async fn api(connection: &Connection) -> Result<Api<Contract>> {
    Ok(Api::namespaced(connection.client().await?, connection.namespace_or(names::NAMESPACE)))
}

/// Says why, then deletes: the contract manager tells the other side and takes everything down.
async fn end(api: &Api<Contract>, name: &str, reason: &str) -> Result<()> {
    let why = json!({ "metadata": { "annotations": { names::ANNOTATION_END_REASON: reason } } });
    let contract = api.get(name).await.with_context(|| format!("get contracts/{name}"))?;
    let notice = conditions(&contract).map_or(0, |conditions| conditions.notice_seconds);
    if notice > 0 {
        // Who deletes it goes at once; who gives notice stays until that is over.
        api.patch(name, &PatchParams::default(), &Patch::Merge(why))
            .await
            .with_context(|| format!("annotate contracts/{name}"))?;
        println!("contracts/{name} ends after its notice of {notice} s: {reason}");
        return Ok(());
    }
    api.patch(name, &PatchParams::default(), &Patch::Merge(why))
        .await
        .with_context(|| format!("annotate contracts/{name}"))?;
    api.delete(name, &DeleteParams::default()).await.with_context(|| format!("delete contracts/{name}"))?;
    println!("contracts/{name} ends: {reason}");
    Ok(())
}

/// What both have signed beyond size, price and term; `None` if nothing is signed or it cannot be read.
fn conditions(contract: &Contract) -> Option<Conditions> {
    let terms = contract.spec.signed_terms.as_ref()?;
    let envelope = Envelope {
        purpose: terms.purpose.clone(),
        payload: terms.payload.clone(),
        signatures: terms.signatures.clone(),
    };
    let signed: Signed<ContractTerms> = Signed::open(&envelope, CONTRACT_PURPOSE).ok()?;
    Conditions::read(signed.value().conditions.as_ref()).ok()
}

/// Writes that it is not used for now, or is again: the contract manager does it.
async fn suspend(api: &Api<Contract>, name: &str, reason: Option<&String>) -> Result<()> {
    let contract = api.get(name).await.with_context(|| format!("get contracts/{name}"))?;
    if direction(&contract) != Some(Direction::Bought) {
        bail!(
            "contracts/{name} was not bought here: who bought it suspends it; to end it: fluidos contracts terminate {name} --reason …"
        );
    }
    let why = json!({ "metadata": { "annotations": { names::ANNOTATION_SUSPENDED: reason } } });
    api.patch(name, &PatchParams::default(), &Patch::Merge(why))
        .await
        .with_context(|| format!("annotate contracts/{name}"))?;
    match reason {
        Some(reason) => println!("contracts/{name} is suspended: {reason}"),
        None => println!("contracts/{name} is used again"),
    }
    Ok(())
}

async fn export(connection: &Connection, name: &str, renewal: bool, out: Option<&PathBuf>) -> Result<()> {
    let contract = api(connection).await?.get(name).await.with_context(|| format!("get contracts/{name}"))?;
    let signed = contract.spec.signed_terms.as_ref();
    let signed =
        signed.ok_or_else(|| anyhow!("contracts/{name} has no signed terms: an official node signs nothing"))?;
    let envelope = Envelope {
        purpose: signed.purpose.clone(),
        payload: signed.payload.clone(),
        signatures: signed.signatures.clone(),
    };
    let text = if renewal {
        let last = contract.spec.renewal.as_ref().filter(|renewal| renewal.signatures.len() > 1);
        let last = last.ok_or_else(|| anyhow!("contracts/{name} was not renewed: nothing is signed by both"))?;
        let (purpose, payload, signatures) = (last.purpose.clone(), last.payload.clone(), last.signatures.clone());
        let signed = fluidos_rear::open_renewal(&Envelope { purpose, payload, signatures })?;
        fluidos_rear::export_signed(&signed, RENEWAL_MEMBER).with_context(|| format!("contracts/{name}"))?
    } else {
        fluidos_rear::export_contract(&envelope).with_context(|| format!("contracts/{name}"))?
    };
    match out {
        Some(path) => std::fs::write(path, text + "\n").with_context(|| path.display().to_string()),
        None => {
            println!("{text}");
            Ok(())
        }
    }
}

fn verify(file: &PathBuf, look: &Look) -> Result<()> {
    let length = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    if length > fluidos_rear::PROOF_BYTES_MAX as u64 {
        bail!("{}: {length} bytes, at most {}", file.display(), fluidos_rear::PROOF_BYTES_MAX);
    }
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if holds_renewal(&text) {
        return verify_renewal(file, &text, look);
    }
    let proof = fluidos_rear::verify_contract(&text).with_context(|| file.display().to_string())?;
    let terms = &proof.terms;
    let signers: Vec<String> = proof.signers.iter().map(ToString::to_string).collect();
    let value = json!({ "contract": terms, "signers": signers, "digest": proof.digest });
    look::show_values(look, &value, || Table {
        heading: &["CONTRACT", "BUYER", "SELLER", "CONFIGURATION", "PRICE", "ISSUED", "ENDS", "SIGNATURES", "DIGEST"],
        narrow: 8,
        rows: vec![vec![
            terms.contract_id.clone(),
            terms.buyer.to_string(),
            terms.seller.to_string(),
            terms.configuration.to_string(),
            known(&terms.price.join(" ")),
            terms.issued.clone(),
            option(terms.until.as_deref()),
            format!("{} hold", signers.len()),
            proof.digest.clone(),
        ]],
        empty: String::new(),
    })
}

/// Under this name a renewal stands in the file that proves it.
const RENEWAL_MEMBER: &str = "renewal";

fn holds_renewal(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_ok_and(|file| file.get(RENEWAL_MEMBER).is_some())
}

/// What a renewal proves: who has signed it. Whether these are the parties of the contract is told by the contract's own file, which
/// has the digest that is named.
fn verify_renewal(file: &std::path::Path, text: &str, look: &Look) -> Result<()> {
    let shown = || file.display().to_string();
    let purpose = fluidos_rear::RENEWAL_PURPOSE;
    let signed = fluidos_rear::verify_signed::<fluidos_rear::RenewalTerms>(text, RENEWAL_MEMBER, purpose);
    let signed = signed.with_context(shown)?;
    let signers: Vec<String> = signed.signers().map(|signer| signer.to_string()).collect();
    if signers.len() < 2 {
        bail!("{}: {} has signed, needed both parties", shown(), signers.join(", "));
    }
    let terms = signed.value();
    let value = json!({ "renewal": terms, "signers": signers, "digest": signed.digest() });
    look::show_values(look, &value, || Table {
        heading: &["CONTRACT", "RENEWAL", "FROM", "UNTIL", "SIGNED BY", "CONTRACT DIGEST"],
        narrow: 6,
        rows: vec![vec![
            terms.contract_id.clone(),
            terms.number.to_string(),
            terms.from.clone(),
            terms.until.clone(),
            signers.join(", "),
            terms.terms_digest.clone(),
        ]],
        empty: String::new(),
    })
}

/// Whether a contract was sold here or bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Sold,
    Bought,
}

/// The direction follows from who the other side is, which stands on every contract; of two parties one of whom has no key, the other is
/// this node.
fn direction(contract: &Contract) -> Option<Direction> {
    let did = |identity: &NodeIdentity| identity.additional_information.as_ref().and_then(|more| more.did.clone());
    let Some(peer) = contract.annotations().get(names::ANNOTATION_PEER_DID) else {
        return match (did(&contract.spec.buyer), did(&contract.spec.seller)) {
            (None, Some(_)) => Some(Direction::Sold),
            (Some(_), None) => Some(Direction::Bought),
            _ => None,
        };
    };
    if did(&contract.spec.buyer).as_ref() == Some(peer) {
        return Some(Direction::Sold);
    }
    (did(&contract.spec.seller).as_ref() == Some(peer)).then_some(Direction::Bought)
}

/// What the accounts say of contracts.
#[derive(Default)]
struct Books {
    accounts: Vec<Account>,
    receipts: Vec<Receipt>,
    invoices: Vec<Invoice>,
}

impl Books {
    async fn read(connection: &Connection) -> Result<Self> {
        let (client, namespace) = (connection.client().await?, connection.namespace_or(names::NAMESPACE));
        Ok(Self {
            accounts: look::list(client.clone(), namespace, "accounts").await?,
            receipts: look::list(client.clone(), namespace, "receipts").await?,
            invoices: look::list(client, namespace, "invoices").await?,
        })
    }

    /// How long a contract has served, and what is owed for it: by receipts, so an hour behind at most.
    fn of(&self, contract: &str) -> (String, String) {
        let Some(account) = self.accounts.iter().find(|account| account.spec.contract == contract) else {
            return ("?".into(), "?".into());
        };
        let status = account.status.clone().unwrap_or_default();
        // What is paid per use has a measure of its own, absent of everything else.
        let of = |measures: &Measures| measures.used_ppm_ms.map_or(measures.reserved_ms, |parts| parts / SHARE_MOST);
        let own = status.meter.as_ref().map_or(0, |meter| {
            let closed: u64 = meter.closed.iter().map(|closed| of(&closed.measures)).sum();
            (closed + of(&meter.open)) / 1000
        });
        let used = status.served_seconds + own;
        let owed = self.owed(account).unwrap_or_else(|error| {
            tracing::debug!(contract, %error, "what is owed cannot be told");
            "?".into()
        });
        (format!("{}h{:02}m{:02}s", used / 3600, used % 3600 / 60, used % 60), owed)
    }

    /// How many pods of a contract yield now; `None` of what does not yield, or without an account.
    fn yielding(&self, contract: &str) -> Option<u64> {
        let account = self.accounts.iter().find(|account| account.spec.contract == contract)?;
        account.status.as_ref()?.meter.as_ref()?.yielding
    }

    /// Invoices that nobody has acknowledged, and months that have none yet.
    fn owed(&self, account: &Account) -> Result<String> {
        let of_contract = |contract: &String| *contract == account.spec.contract;
        let invoices: Vec<&Invoice> = self.invoices.iter().filter(|i| of_contract(&i.spec.contract)).collect();
        let mut sum = None::<Money>;
        let mut add = |minor: i64, currency: &str| -> Result<()> {
            let more = Money { minor, currency: Currency::parse(currency)? };
            sum = Some(sum.map_or(Some(more), |sum| sum.checked_add(more)).ok_or_else(|| anyhow!("too much"))?);
            Ok(())
        };
        for invoice in &invoices {
            let paid = invoice.status.as_ref().is_some_and(|status| status.payment == PaymentState::Acknowledged);
            let document: receipt::Invoice = serde_json::from_value(invoice.spec.document.clone())?;
            add(if paid { 0 } else { document.due_minor }, &document.price[1])?;
        }
        let receipts = self.receipts.iter().filter(|receipt| of_contract(&receipt.spec.contract));
        let months: BTreeSet<String> = receipts.filter_map(|r| r.spec.from.get(..7).map(str::to_owned)).collect();
        for month in months.iter().filter(|month| invoices.iter().all(|invoice| invoice.spec.month != **month)) {
            let Some(at) = receipt::month_named(month) else { continue };
            if let Bill::Invoice(invoice) = fluidos_accounting::bill(account, &self.receipts, at)? {
                add(invoice.due_minor, &invoice.price[1])?;
            }
        }
        Ok(sum.map_or_else(|| "0".into(), |sum| sum.to_string()))
    }
}

/// What was signed beyond size, price and term, in a line.
fn told(conditions: &Conditions) -> String {
    let mut told = vec![conditions.business_model.as_str().to_owned()];
    if conditions.business_model == BusinessModel::PayPerUse {
        told.push(format!("promised to {} %", conditions.overcommit()));
        told.push(conditions.yields.map_or("yields last".into(), |yields| format!("yields {yields}")));
    }
    told.push(format!("notice {} s", conditions.notice_seconds));
    told.extend(conditions.resold.then(|| "resold".to_owned()));
    told.extend(conditions.runtime_class.as_ref().map(|class| format!("runtime class {class}")));
    told.join(", ")
}

/// Who serves a contract: at who sold it, itself or a contract that it has bought; at who bought it, what was signed about that.
fn served_by(contract: &Contract, direction: &str) -> String {
    match (direction, &contract.spec.served_by, conditions(contract)) {
        ("sold", Some(bought), _) => bought.clone(),
        ("sold", None, _) => "itself".into(),
        ("bought", _, Some(conditions)) if conditions.resold => "? (resold)".into(),
        ("bought", _, Some(_)) => "its seller".into(),
        _ => "?".into(),
    }
}

/// How a contract goes on beyond its end, and what came of it.
fn renewal(contract: &Contract) -> String {
    let Some(conditions) = conditions(contract) else { return "?".into() };
    let Some(rule) = conditions.renewal else { return "none".into() };
    let often = rule.at_most.map_or(String::new(), |most| format!(", at most {most} times"));
    let told = contract.status.as_ref().map(|status| status.renewal.as_str()).filter(|told| !told.is_empty());
    let told = told.map(|told| format!("; {told}")).unwrap_or_default();
    format!("by {} s, from {} s before the end{often}{told}", rule.by_seconds, rule.before_seconds)
}

/// Whether the other party has shown that the contract is in its log, or why not, and since when.
fn logged(contract: &Contract) -> String {
    match contract.condition("LoggedByOtherParty") {
        Some(told) => format!("{} since {}", known(&told.reason), known(&told.last_transition_time)),
        None => "?".into(),
    }
}

fn table(objects: &[Contract], books: &Books) -> Table {
    let rows = objects.iter().map(|contract| {
        let amounts = contract.spec.configuration.as_ref().map(|c| &c.data);
        let amount = |name: &str| match amounts.map(|data| &data[name]) {
            Some(serde_json::Value::String(text)) => known(text),
            Some(serde_json::Value::Number(number)) => number.to_string(),
            _ => "?".into(),
        };
        let party = |identity: &NodeIdentity| {
            let more = identity.additional_information.as_ref();
            // Official nodes have no name, and call themselves by the id of their Liqo cluster.
            let name = more.and_then(|more| more.name.as_deref().or(more.liqo_id.as_deref()));
            format!("{} ({})", option(name), known(&identity.domain))
        };
        let (direction, peer) = match direction(contract) {
            Some(Direction::Sold) => ("sold", party(&contract.spec.buyer)),
            Some(Direction::Bought) => ("bought", party(&contract.spec.seller)),
            None => ("?", "?".into()),
        };
        let status = contract.status.as_ref();
        let amounts = [amount("cpu"), amount("memory"), amount("pods")];
        let size = if amounts.iter().all(|amount| amount == "?") { "?".into() } else { amounts.join("/") };
        let size = size + &devices(contract);
        let (used, owed) = books.of(&contract.name_any());
        vec![
            contract.name_any(),
            direction.into(),
            peer,
            size,
            used,
            price(&contract.spec.flavor.spec.price),
            owed,
            option(status.and_then(|s| s.ends.as_deref()).or(contract.spec.expiration_time.as_deref())),
            status.map_or("?".into(), |s| s.phase.as_str().to_owned()),
            party(&contract.spec.buyer),
            party(&contract.spec.seller),
            contract.spec.signed_terms.as_ref().map_or("0".into(), |t| t.signatures.len().to_string()),
            conditions(contract).map_or("?".into(), |conditions| told(&conditions)),
            match conditions(contract).map(|conditions| conditions.business_model) {
                None => "?".into(),
                Some(BusinessModel::PayPerUse) => {
                    books.yielding(&contract.name_any()).map_or("?".into(), |pods| format!("{pods} pods"))
                }
                Some(_) => "never".into(),
            },
            renewal(contract),
            served_by(contract, direction),
            logged(contract),
        ]
    });
    Table {
        heading: &[
            "NAME",
            "DIRECTION",
            "PEER",
            "SIZE",
            "USED",
            "PRICE",
            "OWED",
            "ENDS",
            "PHASE",
            "BUYER",
            "SELLER",
            "SIGNATURES",
            "CONDITIONS",
            "YIELDING",
            "RENEWAL",
            "SERVED BY",
            "LOGGED",
        ],
        narrow: 9,
        rows: rows.collect(),
        empty: "There are no contracts: nothing was bought or sold.".into(),
    }
}

/// The devices of a contract behind its size: `+example.com/fpga 1`; nothing if it has none.
fn devices(contract: &Contract) -> String {
    let amounts = contract.spec.configuration.as_ref().and_then(|configuration| configuration.amounts().ok());
    let named = amounts.iter().flat_map(|amounts| amounts.extended.iter());
    named.map(|(name, amount)| format!("+{name} {amount}")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_not_known_is_never_0() {
        let row = &table(&[Contract::new("c", Default::default())], &Books::default()).rows[0];
        assert_eq!(row[1..9], ["?", "?", "?", "?", "?", "?", "?", "?"].map(str::to_owned));
    }

    #[test]
    fn whether_the_other_party_has_it_in_its_log_is_not_known_until_it_was_asked() {
        let mut contract = Contract::new("c", Default::default());
        assert_eq!(logged(&contract), "?");
        let told = json!({"type": "LoggedByOtherParty", "status": "False", "reason": "Missing", "message": "m",
            "lastTransitionTime": "2026-11-01T10:00:00Z"});
        contract.status.get_or_insert_default().conditions = vec![serde_json::from_value(told).unwrap()];
        assert_eq!(logged(&contract), "Missing since 2026-11-01T10:00:00Z");
        let columns = table(&[contract], &Books::default());
        assert_eq!(columns.heading.len(), columns.rows[0].len());
        assert_eq!(
            (columns.heading.last(), columns.rows[0].last().unwrap().as_str()),
            (Some(&"LOGGED"), "Missing since 2026-11-01T10:00:00Z")
        );
    }

    #[test]
    fn what_was_signed_is_told_in_a_line() {
        let conditions: Conditions = serde_json::from_value(json!({
            "businessModel": "pay-per-use", "overcommitPerCent": 250, "yields": 7, "runtimeClass": "strong",
            "renewal": {"bySeconds": 3600, "beforeSeconds": 300, "atMost": 2}}))
        .unwrap();
        let line = "pay-per-use, promised to 250 %, yields 7, notice 0 s, runtime class strong";
        assert_eq!(told(&conditions), line);
        assert_eq!(told(&Conditions::default()), "reserved, notice 0 s");
    }

    #[test]
    fn a_peer_is_named_so_that_it_is_one() {
        let peer = |object: &str, name: &str, did: &str| {
            let mut peer = KnownCluster::new(object, Default::default());
            peer.spec.name = Some(name.into());
            peer.spec.did = Some(did.into());
            peer
        };
        let peers = [peer("k1", "grid", "did:key:a"), peer("k2", "grid", "did:key:b"), peer("k3", "farm", "did:key:c")];
        assert_eq!(did_of(&peers, "farm").unwrap(), "did:key:c");
        assert_eq!(did_of(&peers, "k2").unwrap(), "did:key:b");
        assert_eq!(did_of(&peers, "did:key:x").unwrap(), "did:key:x");
        assert!(did_of(&peers, "grid").unwrap_err().to_string().contains("did:key:a, did:key:b"));
        assert!(did_of(&peers, "cloud").unwrap_err().to_string().contains("no peer is called cloud"));
        assert!(reason("a\nb").is_err() && reason("").is_err() && reason("the rack moves").is_ok());
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
        let spec = fluidos_model::kinds::ContractSpec { seller: did("s"), ..Default::default() };
        assert_eq!(direction(&Contract::new("c", spec)), Some(Direction::Sold), "an official node bought it");
    }
}
