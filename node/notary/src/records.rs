//! Which entry a document is: pure. Whoever has the document makes the same entry.

use fluidos_identity::{Envelope, Signed, Statement, canonical_json, sha256_hex};
use fluidos_log::{Entry, EntryKind, Hash};
use fluidos_model::kinds::{Account, Contract, Invoice, Receipt, SignedTerms};
use fluidos_model::receipt::{self, RECEIPT_PURPOSE};
use fluidos_rear as rear;

/// A renewal is signed by buyer and seller.
const PARTIES: usize = 2;

/// Terms with the signatures of both parties, if they hold.
pub(crate) fn terms(envelope: &Envelope) -> Result<Signed<rear::ContractTerms>, String> {
    let signed: Signed<rear::ContractTerms> =
        Signed::open(envelope, rear::CONTRACT_PURPOSE).map_err(|error| error.to_string())?;
    signed.require(&[signed.value().buyer, signed.value().seller]).map_err(|error| error.to_string())?;
    Ok(signed)
}

/// That a contract was signed by both; `None` for one that was not, such as one with an official node.
pub(crate) fn of_contract(contract: &Contract) -> Option<Entry> {
    of_terms(&terms(&envelope(contract.spec.signed_terms.as_ref()?)).ok()?)
}

/// The same, of the account that is kept of it: it stays when the contract is over.
pub(crate) fn of_account(account: &Account) -> Option<Entry> {
    of_terms(&terms(&envelope(&account.spec.signed_terms)).ok()?).filter(|entry| entry.of == account.spec.contract)
}

pub(crate) fn of_terms(terms: &Signed<rear::ContractTerms>) -> Option<Entry> {
    let value = terms.value();
    let digest = terms.digest().parse().ok()?;
    let at = Some(value.issued.clone());
    Some(Entry { kind: EntryKind::ContractSigned, of: value.contract_id.clone(), digest, at })
}

/// That a contract was renewed, the last time; `None` if both have not signed that.
pub(crate) fn of_renewal(contract: &Contract) -> Option<Entry> {
    let signed = terms(&envelope(contract.spec.signed_terms.as_ref()?)).ok()?;
    let renewal = rear::open_renewal(&envelope(contract.spec.renewal.as_ref()?)).ok()?;
    // Whether the keys that signed it speak for its parties is asked by who acts on it; here it must be two, of which this node's is one.
    rear::check_renewal(&renewal, &signed, &[]).ok()?;
    let value = renewal.value();
    let (of, digest) = (value.contract_id.clone(), renewal.digest().parse().ok()?);
    (renewal.signers().count() == PARTIES).then(|| Entry {
        kind: EntryKind::ContractRenewed,
        of,
        digest,
        at: Some(value.until.clone()),
    })
}

/// What tells one renewal of a contract from the next, without reading it.
pub(crate) fn renewal_mark(renewal: &SignedTerms) -> String {
    let digest = sha256_hex(renewal.payload.as_bytes());
    format!("{}-{}", &digest[..16], renewal.signatures.len())
}

/// That the contract of such an entry is over.
pub(crate) fn ended(signed: &Entry) -> Entry {
    Entry { kind: EntryKind::ContractEnded, at: None, ..signed.clone() }
}

/// That the receipts of a contract are closed; `None` for a receipt that is not its last.
pub(crate) fn of_receipt(receipt: &Receipt) -> Option<Entry> {
    let signed = Signed::<receipt::Receipt>::open(&envelope(&receipt.spec.signed), RECEIPT_PURPOSE).ok()?;
    signed.value().end?;
    let (of, digest) = (receipt.spec.contract.clone(), signed.digest().parse().ok()?);
    Some(Entry { kind: EntryKind::ReceiptsClosed, of, digest, at: Some(signed.value().until.to_string()) })
}

/// That a month was invoiced.
pub(crate) fn of_invoice(invoice: &Invoice) -> Option<Entry> {
    of_document(&invoice.spec.document).filter(|entry| entry.of == invoice.spec.contract)
}

/// The same, of the invoice itself.
pub(crate) fn of_document(document: &serde_json::Value) -> Option<Entry> {
    let invoice: receipt::Invoice = serde_json::from_value(document.clone()).ok()?;
    let digest = digest(&canonical_json(&invoice).ok()?)?;
    Some(Entry { kind: EntryKind::InvoiceMade, of: invoice.contract_id, digest, at: Some(invoice.month) })
}

/// What was said about this node's keys.
pub(crate) fn of_statements(statements: &[Statement]) -> Vec<Entry> {
    let entry = |statement: &Statement| {
        let digest = digest(&canonical_json(&statement.envelope()).ok()?)?;
        Some(match statement {
            Statement::Handover(handover) => Entry {
                kind: EntryKind::KeyHandedOver,
                of: handover.to().to_string(),
                digest,
                at: Some(handover.at().to_string()),
            },
            Statement::Revocation(revocation) => Entry {
                kind: EntryKind::KeyRevoked,
                of: revocation.key().to_string(),
                digest,
                at: Some(revocation.at().to_string()),
            },
        })
    };
    statements.iter().filter_map(entry).collect()
}

pub(crate) fn envelope(signed: &SignedTerms) -> Envelope {
    let SignedTerms { purpose, payload, signatures } = signed.clone();
    Envelope { purpose, payload, signatures }
}

fn digest(bytes: &[u8]) -> Option<Hash> {
    sha256_hex(bytes).parse().ok()
}
