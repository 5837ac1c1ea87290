//! A meter: adds up what a party sees, and closes an interval at each whole hour of UTC. Pure: time is an argument.
//!
//! What was seen last holds until something else is seen. Who has not looked for longer than [`GAP_MAX`] was *away*: its process had
//! ended, or its clock was put; that time is nobody's measure.

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pods::{PODS_LISTED_MAX, PodTimes};
use super::{End, INTERVAL_SECONDS, Measures};

/// A node looks every few seconds; six times that is no delay any more.
pub const GAP_MAX: SignedDuration = SignedDuration::from_secs(30);
/// Hours of a month: for so long a party may be away and its receipts are made up. Then its meter waits until some have theirs; what
/// passed meanwhile is nobody's measure.
pub const PENDING_MAX: usize = 31 * 24;
/// Intervals without a receipt of which it is kept which pods ran: 2 KiB each.
const PODS_KEPT_OF: usize = 48;

/// What is seen now: it holds until the next look. And what was counted since the last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// The capacity is ready for the buyer.
    pub serving: bool,
    /// Pods that run.
    pub pods: u64,
    /// Which they are, by their UID at the buyer; none where one party cannot see them.
    pub running: Vec<String>,
    /// How much of the contract they ask for, in parts per million; `None` of what is paid whether it is used or not.
    pub used_ppm: Option<u64>,
    /// Pods that yield; `None` likewise.
    pub yielding: Option<u64>,
    /// MiB of memory that they use; `None` where nobody can see it.
    pub memory_mib: Option<u64>,
    /// Milliseconds of CPU since the last look.
    pub cpu_ms: Option<u64>,
    /// Bytes to the seller since the last look.
    pub bytes_to_seller: Option<u64>,
    /// Bytes to the buyer since the last look.
    pub bytes_to_buyer: Option<u64>,
}

/// An interval that is over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// When it began.
    #[schemars(with = "String")]
    pub from: Timestamp,
    /// When it ended.
    #[schemars(with = "String")]
    pub until: Timestamp,
    /// Why no other follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// What was measured.
    pub measures: Measures,
    /// Which pods ran.
    #[serde(default, skip_serializing_if = "PodTimes::is_empty")]
    pub pods: PodTimes,
}

/// What a party measures of one contract.
#[derive(Serialize, Deserialize, JsonSchema, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Meter {
    /// When the open interval began.
    #[schemars(with = "String")]
    pub from: Timestamp,
    /// When this party last looked.
    #[schemars(with = "String")]
    pub looked: Timestamp,
    /// What was seen then, of the capacity.
    #[serde(default)]
    pub serving: bool,
    /// How many pods.
    #[serde(default)]
    pub pods: u64,
    /// Which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<String>,
    /// Which pods ran in the open interval.
    #[serde(default, skip_serializing_if = "PodTimes::is_empty")]
    pub open_pods: PodTimes,
    /// How much of the contract, in parts per million.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_ppm: Option<u64>,
    /// How many pods yield.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yielding: Option<u64>,
    /// How much memory, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What is measured of the open interval.
    #[serde(default)]
    pub open: Measures,
    /// Intervals without a receipt, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<Closed>,
    /// Nothing is measured any more.
    #[serde(default)]
    pub ended: bool,
}

/// Returns the first whole hour after a moment.
pub(super) fn next_hour(at: Timestamp) -> Timestamp {
    let hour = at.as_second().div_euclid(INTERVAL_SECONDS) + 1;
    Timestamp::from_second(hour * INTERVAL_SECONDS).unwrap_or(Timestamp::MAX)
}

/// Returns the moment without the part of a second.
pub(super) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

impl Meter {
    /// Returns a meter that begins at a moment: when the terms were issued.
    pub fn new(from: Timestamp) -> Self {
        let from = whole_second(from);
        Self {
            from,
            looked: from,
            serving: false,
            pods: 0,
            running: Vec::new(),
            open_pods: PodTimes::default(),
            used_ppm: None,
            yielding: None,
            memory_mib: None,
            open: Measures::default(),
            closed: Vec::new(),
            ended: false,
        }
    }

    /// Takes a look: what was seen last held until now.
    pub fn look(&mut self, now: Timestamp, reading: &Reading) {
        self.pass(now);
        if self.ended || self.is_full() {
            return;
        }
        (self.serving, self.pods, self.memory_mib) = (reading.serving, reading.pods, reading.memory_mib);
        (self.used_ppm, self.yielding) = (reading.used_ppm, reading.yielding);
        self.running.clone_from(&reading.running);
        let counted = Measures {
            bytes_to_seller: reading.bytes_to_seller,
            bytes_to_buyer: reading.bytes_to_buyer,
            cpu_ms: reading.cpu_ms,
            memory_mib_ms: reading.memory_mib.map(|_| 0),
            used_ppm_ms: reading.used_ppm.map(|_| 0),
            yielded_ms: reading.yielding.map(|_| 0),
            ..Measures::default()
        };
        self.open = self.open.plus(&counted);
    }

    /// Closes the last interval. Nothing is measured afterwards.
    pub fn end(&mut self, now: Timestamp, end: End) {
        self.pass(now);
        if self.ended {
            return;
        }
        // A party's clock may have gone back; an interval does not.
        let until = whole_second(now).clamp(self.from, next_hour(self.from));
        self.close(until, Some(end));
        self.ended = true;
    }

    /// Drops the intervals that have their receipt: those that began before `until`. The open one goes on at `until` at least, as
    /// after a loss of what this party had measured.
    pub fn settled(&mut self, until: Timestamp, end: bool) {
        self.closed.retain(|closed| closed.from >= until && !end);
        if end {
            self.ended = true;
        } else if self.from < until && !self.ended {
            (self.from, self.open, self.open_pods) = (until, Measures::default(), PodTimes::default());
            self.looked = self.looked.max(until);
        }
    }

    /// Returns the sum of what was measured in intervals that began within these moments, or `None` while one of them is open.
    pub fn measured(&self, from: Timestamp, until: Timestamp) -> Option<Measures> {
        if !self.ended && self.from < until {
            return None;
        }
        let within =
            self.closed.iter().filter(|closed| closed.from >= from && closed.from < until.max(next_instant(from)));
        Some(within.fold(Measures::default(), |sum, closed| sum.plus(&closed.measures)))
    }

    /// Returns which pods ran in intervals that began within these moments, as [`Meter::measured`].
    pub fn pods_within(&self, from: Timestamp, until: Timestamp) -> PodTimes {
        let until = until.max(next_instant(from));
        let within = self.closed.iter().filter(|closed| closed.from >= from && closed.from < until);
        within.fold(PodTimes::default(), |sum, closed| sum.plus(&closed.pods))
    }

    /// Lets time pass until now.
    fn pass(&mut self, now: Timestamp) {
        if self.ended || now <= self.looked {
            // A clock that was put back: no second of it counts twice.
            return;
        }
        let away = now.duration_since(self.looked) > GAP_MAX;
        while !self.is_full() {
            let hour = next_hour(self.from);
            self.add(now.min(hour), away);
            if now < hour {
                return;
            }
            self.close(hour, None);
        }
    }

    /// Says whether it waits: as many intervals as are kept have no receipt.
    fn is_full(&self) -> bool {
        self.closed.len() >= PENDING_MAX
    }

    fn add(&mut self, until: Timestamp, away: bool) {
        let ms = u64::try_from(until.duration_since(self.looked).as_millis()).unwrap_or(0);
        let mut passed = Measures::default();
        match (away, self.serving) {
            (true, _) => passed.away_ms = ms,
            (false, true) => {
                passed.reserved_ms = ms;
                self.open_pods.ran(&self.running, self.looked, until);
                passed.pods_ms = ms.saturating_mul(self.pods);
                passed.used_ppm_ms = self.used_ppm.map(|ppm| ms.saturating_mul(ppm));
                passed.yielded_ms = self.yielding.map(|pods| ms.saturating_mul(pods));
                passed.memory_mib_ms = self.memory_mib.map(|mib| ms.saturating_mul(mib));
            }
            (false, false) => {}
        }
        self.open = self.open.plus(&passed);
        self.looked = until;
    }

    fn close(&mut self, until: Timestamp, end: Option<End>) {
        // A month of hours without the other party would make the account too large: then the lines alone are kept.
        let most = if self.closed.len() < PODS_KEPT_OF { PODS_LISTED_MAX } else { 0 };
        let pods = std::mem::take(&mut self.open_pods).within(self.from, until).bounded(most);
        self.closed.push(Closed { from: self.from, until, end, measures: self.open, pods });
        (self.from, self.open) = (until, Measures::default());
        self.looked = self.looked.max(until);
    }
}

fn next_instant(at: Timestamp) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(1)).unwrap_or(at)
}
