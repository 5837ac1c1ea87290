//! Invoices and credit notes: what the receipts of a month cost. Pure, so both parties compute the same from the same receipts.
//!
//! ```text
//!   receipts of the month ── Σ served, exact ── × price ── rounded once ──► line "reserved"
//!                         │  paid per use: Σ used, exact ── × price ── rounded once ──► line "used"
//!                         └─ served / whole time, against each service level ── rounded once ──► credit note
//! ```
//! Of a month that is not over the same is an *estimate*. A price of 0 without a currency costs nothing and has no invoice.

use jiff::tz::Offset;
use jiff::{Timestamp, civil};
use serde::{Deserialize, Serialize};

use super::{Basis, End, INTERVAL_SECONDS, Item, Receipt};
use crate::market::{
    BusinessModel, Money, MoneyError, Objective, Price, PriceError, ServiceLevel, half_even, month_of,
};

const PER_MILLE: u128 = 1000;

/// What a month of a contract costs.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Invoice {
    /// Of the contract and the month.
    pub number: String,
    /// Of which contract.
    #[serde(rename = "contractID")]
    pub contract_id: String,
    /// SHA-256 of its signed bytes.
    pub terms_digest: String,
    /// The month of UTC, `2026-11`.
    pub month: String,
    /// DID of who pays.
    pub buyer: String,
    /// DID of who is paid.
    pub seller: String,
    /// Number of the first receipt in it, and of the last.
    pub receipts: [u64; 2],
    /// SHA-256 of the last receipt: with the chain it names them all.
    pub last_receipt: String,
    /// Whether nothing can be added: the month or the contract is over. Otherwise it is an estimate.
    pub complete: bool,
    /// The price of the contract: amount, currency, period.
    pub price: [String; 3],
    /// What is charged.
    pub lines: Vec<InvoiceLine>,
    /// What is given back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credit_notes: Vec<CreditNote>,
    /// Numbers of receipts with a disputed line: charged is the lower measure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disputed: Vec<u64>,
    /// What is to be paid, in minor units.
    pub due_minor: i64,
    /// The same in words, `7.20 EUR`.
    pub due: String,
}

/// One line, rounded once.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InvoiceLine {
    /// What for.
    pub item: String,
    /// How much of it.
    pub quantity: u64,
    /// In which unit.
    pub unit: String,
    /// In minor units.
    pub amount_minor: i64,
    /// In words.
    pub amount: String,
}

/// What a broken service level gives back.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreditNote {
    /// Of the invoice and the level.
    pub number: String,
    /// Which level.
    pub objective: String,
    /// What was promised, per mille.
    pub promised_per_mille: u32,
    /// Seconds in which it was served.
    pub served: u64,
    /// Of so many.
    pub of: u64,
    /// In minor units.
    pub amount_minor: i64,
    /// In words.
    pub amount: String,
}

/// The word of a party that an invoice is paid. The seller's counts; the buyer's is a claim. Money itself moves elsewhere.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payment {
    /// 1.
    pub version: u32,
    /// Number of the invoice.
    pub invoice: String,
    /// SHA-256 of the invoice.
    pub invoice_digest: String,
    /// Of which contract.
    #[serde(rename = "contractID")]
    pub contract_id: String,
    /// What was paid, in words.
    pub amount: String,
    /// When this was said (RFC 3339).
    pub at: String,
}

/// What a month comes to.
#[derive(Clone, PartialEq, Debug)]
pub enum Bill {
    /// There is something to be stated, be it 0 of a currency.
    Invoice(Box<Invoice>),
    /// The price is 0 without a currency.
    Nothing,
    /// No receipt is of this month.
    NoReceipts,
}

/// Why a month cannot be invoiced.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum InvoiceError {
    /// The contract's price cannot be read, or the sum not be counted.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// A sum that cannot be counted.
    #[error(transparent)]
    Money(#[from] MoneyError),
    /// A receipt is missing: before the first of the month, between two, or behind the last.
    #[error("receipt {needed} of contract {contract} is missing: found {observed} after {}", needed - 1)]
    Gap {
        /// Of which contract.
        contract: String,
        /// The number that comes.
        observed: u64,
        /// The number that should.
        needed: u64,
    },
}

/// Returns a month of UTC as text, `2026-11`.
pub fn month_text(at: Timestamp) -> String {
    let date = Offset::UTC.to_datetime(at).date();
    format!("{:04}-{:02}", date.year(), date.month())
}

/// Returns the first moment of a month of UTC that a text such as `2026-11` names, `None` if it names none.
pub fn month_named(text: &str) -> Option<Timestamp> {
    let (year, month) = text.split_once('-')?;
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(year, 4) || !digits(month, 2) {
        return None;
    }
    let date = civil::Date::new(year.parse().ok()?, month.parse().ok()?, 1).ok()?;
    Offset::UTC.to_timestamp(date.to_datetime(civil::Time::midnight())).ok()
}

/// Returns the number of the invoice of a contract and a month: the same at both.
pub fn invoice_number(terms_digest: &str, month: &str) -> String {
    let contract: String = terms_digest.chars().take(12).collect();
    format!("{contract}-{month}")
}

/// Returns what a month of a contract comes to. `receipts` are those of the month with their digests, in the order of the chain;
/// others are passed over.
///
/// # Errors
/// [`InvoiceError`] if one is missing, or a sum is beyond what can be counted.
pub fn invoice(
    basis: &Basis,
    price: &[String; 3],
    month: Timestamp,
    receipts: &[(Receipt, String)],
) -> Result<Bill, InvoiceError> {
    let (start, end) = month_of(month);
    let within: Vec<&(Receipt, String)> =
        receipts.iter().filter(|(receipt, _)| receipt.from >= start && receipt.from < end).collect();
    let gap = |needed, observed| Err(InvoiceError::Gap { contract: basis.contract_id.clone(), observed, needed });
    let (Some((first, _)), Some((last, digest))) = (within.first(), within.last()) else {
        // The chain has been in this month: its receipts were there, and are not.
        let before = hours(basis.issued, start);
        let was_there = basis.number > before && basis.from > start && basis.issued < end;
        return if was_there { gap(before + 1, basis.number + 1) } else { Ok(Bill::NoReceipts) };
    };
    // Intervals leave no gap, and each ends at a whole hour or is the last: so many are missing before the first.
    let missing = hours(start.max(basis.issued), first.from);
    if missing > 0 {
        return gap(first.number.saturating_sub(missing).max(1), first.number);
    }
    for (needed, (receipt, _)) in (first.number..).zip(&within) {
        if receipt.number != needed {
            return gap(needed, receipt.number);
        }
    }
    if basis.number > last.number && last.until < end.min(basis.from) {
        return gap(last.number + 1, basis.number + 1);
    }
    let [amount, currency, period] = price;
    let model = basis.conditions.business_model;
    let stated = Price::parse(amount, currency, period)?.unwrap_or(Price::ZERO);
    let Some(charged) = charge(&stated, model, start, &within)? else { return Ok(Bill::Nothing) };
    let month = month_text(start);
    let number = invoice_number(&basis.terms_digest, &month);
    let charged_ms: u64 = within.iter().map(|(receipt, _)| receipt.charged_ms(model)).sum();
    let (item, quantity, unit) = match model {
        BusinessModel::PayPerUse => (Item::Used, charged_ms, Item::Used.unit()),
        BusinessModel::Reserved | BusinessModel::Spot => (Item::Reserved, charged_ms / 1000, Item::Reserved.unit()),
    };
    let line = InvoiceLine {
        item: item.as_str().into(),
        quantity,
        unit: unit.into(),
        amount_minor: charged.minor,
        amount: charged.to_string(),
    };
    let credit_notes = credits(&number, &basis.conditions.service_levels, charged, &within);
    let credit: i64 = credit_notes.iter().map(|note| note.amount_minor).sum();
    let due = Money { minor: (charged.minor - credit).max(0), ..charged };
    Ok(Bill::Invoice(Box::new(Invoice {
        number,
        contract_id: basis.contract_id.clone(),
        terms_digest: basis.terms_digest.clone(),
        month,
        buyer: basis.buyer.clone(),
        seller: basis.seller.clone(),
        receipts: [first.number, last.number],
        last_receipt: digest.clone(),
        complete: last.until >= end || matches!(last.end, Some(End::Released | End::Expired)),
        price: stated.texts(),
        lines: vec![line],
        credit_notes,
        disputed: within.iter().filter(|(r, _)| r.is_disputed()).map(|(r, _)| r.number).collect(),
        due_minor: due.minor,
        due: due.to_string(),
    })))
}

/// Begun hours between two moments; 0 if the second is not the later.
fn hours(from: Timestamp, until: Timestamp) -> u64 {
    let seconds = u64::try_from(until.as_second() - from.as_second()).unwrap_or(0);
    seconds.div_ceil(INTERVAL_SECONDS.unsigned_abs())
}

/// What was served, or used, of the month at the price, rounded once; `None` for a price of 0 without a currency.
fn charge(
    price: &Price,
    model: BusinessModel,
    start: Timestamp,
    receipts: &[&(Receipt, String)],
) -> Result<Option<Money>, InvoiceError> {
    let mut sum = price.charge(start, start)?;
    for (receipt, _) in receipts {
        let charged = i64::try_from(receipt.charged_ms(model)).unwrap_or(0);
        // At most the interval, which is of one month: a second of it costs the same wherever it lies.
        let until = receipt.from.checked_add(jiff::SignedDuration::from_millis(charged)).unwrap_or(receipt.until);
        sum = sum.add(&price.charge(receipt.from, until)?)?;
    }
    Ok(sum.money()?)
}

/// What each broken level gives back: never more than the charge altogether.
fn credits(number: &str, levels: &[ServiceLevel], charged: Money, receipts: &[&(Receipt, String)]) -> Vec<CreditNote> {
    let of: u64 = receipts.iter().map(|(receipt, _)| receipt.seconds()).sum();
    let (mut notes, mut left) = (Vec::new(), charged.minor.max(0));
    for (index, level) in levels.iter().enumerate() {
        let Objective::Availability = level.objective;
        let served: u64 = receipts.iter().map(|(receipt, _)| receipt.served(level.measured_by)).sum();
        let (promised, all) = (u128::from(level.per_mille), u128::from(of));
        let missing = (promised * all).saturating_sub(PER_MILLE * u128::from(served)); // per mille × seconds
        if missing == 0 || all == 0 {
            continue;
        }
        let whole = u128::try_from(charged.minor).unwrap_or(0);
        let credit = half_even(whole * u128::from(level.credit_per_mille) * missing, PER_MILLE * all);
        let credit = i64::try_from(credit).unwrap_or(i64::MAX).min(left);
        left -= credit;
        notes.push(CreditNote {
            number: format!("{number}-C{}", index + 1),
            objective: "availability".into(),
            promised_per_mille: level.per_mille,
            served,
            of,
            amount_minor: credit,
            amount: Money { minor: credit, ..charged }.to_string(),
        });
    }
    notes
}
