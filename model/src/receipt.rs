//! Receipts: what of a contract was served and used, hour by hour, as both parties have measured it.
//!
//! A *receipt* is of one contract and one interval. Intervals leave no gap: the first begins when the terms were issued, each
//! next one where the one before ended, and each ends at a whole hour of UTC (so no interval is of two months) or with the contract.
//! Receipts are *chained*: each names the digest of the one before, the first that of the contract.
//!
//! ```text
//!   seller: meter ─ measures ─ propose ──► buyer: check_proposal, its own measures, complete, sign
//!   seller: check_completed, sign ◄──────────────┘   both keep the same bytes
//! ```
//! A line is *agreed* if both measured it and the two differ by no more than the contract's tolerance, or by what two honest clocks and
//! a lost link may differ; *disputed* if they differ by more; *claimed* if one of them alone could measure it, or one of them was away.
//! What is charged is the lower of both measures, disputed or not: what nobody contests. Of capacity that is reserved, or sold with a
//! notice, these are the measures of `reserved`: it is paid whether it is used or not. Of what is paid per use they are those of `used`:
//! the time that pods ran × their share of the contract ([`crate::market::share`]), while it was ready. What yields does not run, and
//! costs nothing.

mod check;
mod invoice;
mod meter;
mod pods;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::market::{Amounts, BusinessModel, Conditions, MeasuredBy, SHARE_MOST};

pub use check::{check_completed, check_next, check_proposal, complete, propose};
pub use invoice::{
    Bill, CreditNote, Invoice, InvoiceError, InvoiceLine, Payment, invoice, invoice_number, month_named, month_text,
};
pub use meter::{Closed, GAP_MAX, Meter, PENDING_MAX, Reading};
pub use pods::{PODS_LISTED_MAX, PodInterval, PodLine, PodTimes, PodsLeftOut, list_pods};

/// A party that does not know the version does not sign.
pub const RECEIPT_VERSION: u32 = 1;
/// Of a receipt that lists pods.
pub const RECEIPT_VERSION_PODS: u32 = 2;
/// `typ` of the signatures over a receipt.
pub const RECEIPT_PURPOSE: &str = "fluidos-receipt+jws";
/// Under this name a receipt stands in the file that proves it.
pub const MEMBER: &str = "receipt";
/// `typ` of the signature over the word that an invoice is paid.
pub const PAYMENT_PURPOSE: &str = "fluidos-payment+jws";
/// An hour of UTC; a month is a whole number of them.
pub const INTERVAL_SECONDS: i64 = 3600;
/// A lost link is noticed after 6 s at either side, and each side sees the beginning of an interval for itself.
const GRACE_SECONDS: u64 = 15;
/// As above, for some pods that start and stop together.
const GRACE_POD_SECONDS: u64 = 60;
/// Packets that were under way, or lost, at the loss of a link: a few of 64 KiB.
const GRACE_BYTES: u64 = 256 * 1024;
/// Clocks of two nodes; as for credentials.
const CLOCK_LEEWAY_SECONDS: i64 = 300;
/// Beyond it a JSON number is not exact in every reader (RFC 8785), so nothing is counted further.
const COUNT_MAX: u64 = (1 << 53) - 1;
const MEBIBYTE: u64 = 1 << 20;
/// Pods of one contract in one list of what is wanted.
const YIELDED_MAX: u64 = 4096;

/// What one party has measured in one interval. Milliseconds, so that what is added up loses nothing.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Measures {
    /// In which the capacity was ready for the buyer.
    pub reserved_ms: u64,
    /// In which this party did not look: its process was not there.
    pub away_ms: u64,
    /// Milliseconds × pods that ran.
    pub pods_ms: u64,
    /// Milliseconds × parts per million of the contract that were used; absent of what is paid whether it is used or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_ppm_ms: Option<u64>,
    /// Milliseconds × pods that yielded; as above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yielded_ms: Option<u64>,
    /// Bytes of packets on their way to the seller; absent where no packets are carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_to_seller: Option<u64>,
    /// Bytes of packets on their way to the buyer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_to_buyer: Option<u64>,
    /// Milliseconds of CPU; the seller alone can know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// MiB × milliseconds of memory; the seller alone can know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib_ms: Option<u64>,
}

/// Of what a line is.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Item {
    /// Seconds in which the capacity was ready. What is charged, of what is not paid per use.
    Reserved,
    /// Seconds in which a party did not look; its own word about itself.
    Away,
    /// Seconds × pods.
    Pods,
    /// Milliseconds of the whole contract: time × share. What is charged of what is paid per use, and only there.
    Used,
    /// Seconds × pods that had to yield: they did not run, and are not charged. Only of what is paid per use.
    Yielded,
    /// Bytes of packets to the seller.
    BytesToSeller,
    /// Bytes of packets to the buyer.
    BytesToBuyer,
    /// Seconds of CPU.
    Cpu,
    /// MiB × seconds of memory.
    Memory,
}

/// How a line stands.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // the header defines them
pub enum LineState {
    Agreed,
    Disputed,
    Claimed,
}

/// What was measured of one thing, by whom.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Of what.
    pub line: Item,
    /// In which unit.
    pub unit: String,
    /// The buyer's measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<u64>,
    /// The seller's measure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller: Option<u64>,
    /// What follows.
    pub state: LineState,
}

/// Why an interval is the last.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// A party has ended the contract.
    Released,
    /// Its time was over.
    Expired,
}

/// What both parties sign.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// 1, or 2 if it lists pods.
    pub version: u32,
    /// Of which contract.
    #[serde(rename = "contractID")]
    pub contract_id: String,
    /// SHA-256 of the contract's signed bytes.
    pub terms_digest: String,
    /// From 1, without a gap.
    pub number: u64,
    /// SHA-256 of the receipt before; of the contract for the first.
    pub previous: String,
    /// Where the one before ended.
    pub from: Timestamp,
    /// A whole hour, or the end.
    pub until: Timestamp,
    /// Why no other follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// DID of the buyer.
    pub buyer: String,
    /// DID of the seller.
    pub seller: String,
    /// One for each thing that somebody could measure.
    pub lines: Vec<Line>,
    /// Which pods ran, when: what the line of pods is made of. They are not charged by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<PodLine>,
    /// How many more each party saw.
    #[serde(default, skip_serializing_if = "PodsLeftOut::is_none")]
    pub pods_left_out: PodsLeftOut,
}

/// What both know before a receipt: the contract, and where its chain stands.
#[derive(Clone, PartialEq, Debug)]
pub struct Basis {
    /// The contract.
    pub contract_id: String,
    /// SHA-256 of its signed bytes.
    pub terms_digest: String,
    /// DID of the buyer.
    pub buyer: String,
    /// DID of the seller.
    pub seller: String,
    /// What was sold.
    pub amounts: Amounts,
    /// What else was agreed.
    pub conditions: Conditions,
    /// When the terms were issued.
    pub issued: Timestamp,
    /// When the contract ends by itself.
    pub until: Option<Timestamp>,
    /// Number of the last receipt; 0 before the first.
    pub number: u64,
    /// Its digest; the contract's before the first.
    pub previous: String,
    /// Where it ended; when the terms were issued before the first.
    pub from: Timestamp,
}

/// Why a receipt is not signed.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum ReceiptError {
    /// It says something else than was agreed or can be.
    #[error("receipt {number}: {field} is {observed}, needed {needed}")]
    Differs {
        /// Which receipt.
        number: u64,
        /// What differs.
        field: String,
        /// What it says.
        observed: String,
        /// What it must say.
        needed: String,
    },
    /// It is of a time that has not come. Later.
    #[error("receipt {number} ends at {until}, it is {now}")]
    Early {
        /// Which.
        number: u64,
        /// When it ends.
        until: Timestamp,
        /// When it is.
        now: Timestamp,
    },
}

impl Item {
    /// Returns its unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Reserved | Self::Away | Self::Cpu => "s",
            Self::Pods | Self::Yielded => "pod.s",
            Self::Used => "ms",
            Self::BytesToSeller | Self::BytesToBuyer => "B",
            Self::Memory => "MiB.s",
        }
    }

    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Away => "away",
            Self::Pods => "pods",
            Self::Used => "used",
            Self::Yielded => "yielded",
            Self::BytesToSeller => "bytes-to-seller",
            Self::BytesToBuyer => "bytes-to-buyer",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }

    /// By how much two honest measures may differ, whatever the tolerance.
    fn grace(self) -> u64 {
        match self {
            Self::Pods | Self::Yielded => GRACE_POD_SECONDS,
            Self::Used => GRACE_SECONDS * 1000,
            Self::BytesToSeller | Self::BytesToBuyer => GRACE_BYTES,
            Self::Reserved | Self::Away | Self::Cpu | Self::Memory => GRACE_SECONDS,
        }
    }

    /// The most that can be true of an interval.
    fn most(self, amounts: &Amounts, seconds: u64) -> u64 {
        let most = match self {
            Self::Reserved | Self::Away => seconds,
            Self::Pods => seconds.saturating_mul(amounts.pods),
            Self::Used => seconds.saturating_mul(1000),
            // As many as a buyer may ask for at once.
            Self::Yielded => seconds.saturating_mul(YIELDED_MAX),
            Self::Cpu => seconds.saturating_mul(amounts.cpu_milli).div_ceil(1000),
            Self::Memory => seconds.saturating_mul(amounts.memory_bytes.div_ceil(MEBIBYTE)),
            Self::BytesToSeller | Self::BytesToBuyer => COUNT_MAX,
        };
        most.min(COUNT_MAX)
    }
}

impl LineState {
    /// Returns its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agreed => "agreed",
            Self::Disputed => "disputed",
            Self::Claimed => "claimed",
        }
    }
}

impl Measures {
    /// What is said of one thing; bounded by what can be, as what comes from a meter is a little more at times.
    fn of(&self, item: Item, most: u64) -> Option<u64> {
        let measure = match item {
            Item::Reserved => Some(self.reserved_ms / 1000),
            Item::Away => Some(self.away_ms / 1000),
            Item::Pods => Some(self.pods_ms / 1000),
            Item::Used => self.used_ppm_ms.map(|parts| parts / SHARE_MOST),
            Item::Yielded => self.yielded_ms.map(|ms| ms / 1000),
            Item::BytesToSeller => self.bytes_to_seller,
            Item::BytesToBuyer => self.bytes_to_buyer,
            Item::Cpu => self.cpu_ms.map(|ms| ms / 1000),
            Item::Memory => self.memory_mib_ms.map(|ms| ms / 1000),
        };
        measure.map(|measure| measure.min(most))
    }

    /// Returns the sum of two measures of one party.
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (one, None) | (None, one) => one,
        };
        Self {
            reserved_ms: self.reserved_ms.saturating_add(other.reserved_ms),
            away_ms: self.away_ms.saturating_add(other.away_ms),
            pods_ms: self.pods_ms.saturating_add(other.pods_ms),
            used_ppm_ms: sum(self.used_ppm_ms, other.used_ppm_ms),
            yielded_ms: sum(self.yielded_ms, other.yielded_ms),
            bytes_to_seller: sum(self.bytes_to_seller, other.bytes_to_seller),
            bytes_to_buyer: sum(self.bytes_to_buyer, other.bytes_to_buyer),
            cpu_ms: sum(self.cpu_ms, other.cpu_ms),
            memory_mib_ms: sum(self.memory_mib_ms, other.memory_mib_ms),
        }
    }
}

/// In this order they stand in a receipt.
const ITEMS: [Item; 9] = [
    Item::Reserved,
    Item::Away,
    Item::Pods,
    Item::Used,
    Item::Yielded,
    Item::BytesToSeller,
    Item::BytesToBuyer,
    Item::Cpu,
    Item::Memory,
];

impl Receipt {
    /// Returns the line of a thing, if it was measured.
    pub fn line(&self, item: Item) -> Option<&Line> {
        self.lines.iter().find(|line| line.line == item)
    }

    /// Returns the version that a receipt with this in it has.
    fn version_needed(&self) -> u32 {
        if self.pods.is_empty() && self.pods_left_out.is_none() { RECEIPT_VERSION } else { RECEIPT_VERSION_PODS }
    }

    /// Returns how long its interval was, in seconds.
    pub fn seconds(&self) -> u64 {
        u64::try_from(self.until.as_second() - self.from.as_second()).unwrap_or(0)
    }

    /// Returns the seconds in which the capacity was served, as this party's word counts. By both, the lower counts: time in which
    /// the buyer did not look is the seller's word.
    pub fn served(&self, by: MeasuredBy) -> u64 {
        let of = |item| self.line(item).map_or((0, 0), |l| (l.buyer.unwrap_or(0), l.seller.unwrap_or(0)));
        let ((buyer, seller), (away, _)) = (of(Item::Reserved), of(Item::Away));
        let buyer = buyer.saturating_add(away);
        let served = match by {
            MeasuredBy::Both => buyer.min(seller),
            MeasuredBy::Buyer => buyer,
            MeasuredBy::Seller => seller,
        };
        served.min(self.seconds())
    }

    /// Returns the milliseconds of the whole contract that are charged: those in which it was served, or of what is paid per use
    /// those in which it was used. By both, the lower counts.
    pub fn charged_ms(&self, model: BusinessModel) -> u64 {
        if model != BusinessModel::PayPerUse {
            return self.served(MeasuredBy::Both).saturating_mul(1000);
        }
        let of = |item| self.line(item).map_or((0, 0), |l| (l.buyer.unwrap_or(0), l.seller.unwrap_or(0)));
        let ((buyer, seller), (away, _)) = (of(Item::Used), of(Item::Away));
        let most = self.seconds().saturating_mul(1000);
        buyer.saturating_add(away.saturating_mul(1000)).min(seller).min(most)
    }

    /// Says whether a line is disputed.
    pub fn is_disputed(&self) -> bool {
        self.lines.iter().any(|line| line.state == LineState::Disputed)
    }

    fn wrong<T>(&self, field: &str, observed: impl ToString, needed: impl ToString) -> Result<T, ReceiptError> {
        Err(ReceiptError::Differs {
            number: self.number,
            field: field.into(),
            observed: observed.to_string().chars().take(128).collect(),
            needed: needed.to_string(),
        })
    }
}
