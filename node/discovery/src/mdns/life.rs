//! How long a record holds. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use hickory_proto::rr::Name;

use super::jitter::Jitter;

/// Who says that a record holds for less makes this node ask all the time: it is kept, and asked for, as if it said this.
const LEAST: Duration = Duration::from_secs(30);
/// As long as the longest of ours (RFC 6762, section 10): what says more is asked for no later.
const MOST: Duration = super::responder::TTL;
/// After a good-bye, and after others were said in its place (RFC 6762, sections 10.1 and 10.2).
const ENDING: Duration = Duration::from_secs(1);
/// When it is asked for again, in hundredths of its life (RFC 6762, section 5.2); up to two hundredths later, so that of many who listen one asks
/// for all.
const ASKED_AT: [u32; 4] = [80, 85, 90, 95];
const SPREAD: u32 = 2;
/// A thousand nodes that were found in the same three seconds would all be asked for, and answer, in the same three seconds, some too late. So each
/// name is asked for the first time up to so many hundredths sooner: how many follows from its first label, for all who listen. That of an instance
/// is that of its host, so what is asked about one brings the other before it is asked about, too.
const SOONER: u32 = 15;
/// Addresses come with the answer about their instance: they are asked for alone only when that did not help.
const LATER: u32 = 4;

/// When a record was heard, and for how long it holds since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    heard: Instant,
    ttl: Duration,
    /// Whether its end was said.
    ends: bool,
}

impl Life {
    /// A record that says how long it holds; 0 is its good-bye.
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        let ends = ttl.is_zero();
        Self { heard: now, ttl: if ends { ENDING } else { ttl.clamp(LEAST, MOST) }, ends }
    }

    pub(super) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn end(&self) -> Instant {
        self.heard + self.ttl
    }

    pub(super) fn left(&self, now: Instant) -> Duration {
        self.end().saturating_duration_since(now)
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.left(now).is_zero()
    }

    /// Whether its end was said: it is not asked for any more.
    pub(super) fn is_ending(&self) -> bool {
        self.ends
    }

    /// Others were said in its place, unless it was heard with them.
    pub(super) fn flush(&mut self, now: Instant) {
        if now.duration_since(self.heard) > ENDING && !self.ends {
            *self = Self::new(Duration::ZERO, now);
        }
    }

    /// How often it was time to ask for it, now included, and when to look at it again.
    pub(super) fn refresh(&self, name: &Name, jitter: &mut Jitter, now: Instant) -> (usize, Instant) {
        self.refresh_at(name, 0, jitter, now)
    }

    /// The same, for what comes with something else.
    pub(super) fn refresh_later(&self, name: &Name, jitter: &mut Jitter, now: Instant) -> (usize, Instant) {
        self.refresh_at(name, LATER, jitter, now)
    }

    fn refresh_at(&self, name: &Name, later: u32, jitter: &mut Jitter, now: Instant) -> (usize, Instant) {
        let at = |hundredths: u32| self.heard + self.ttl * hundredths / 100;
        let first = at(ASKED_AT[0] + later) - self.sooner(name);
        let spread = jitter.between((Duration::ZERO, self.ttl * SPREAD / 100));
        let [_, second, third, last] = ASKED_AT.map(|share| at(share + later));
        let times = [first, second, third, last];
        let next = times.iter().find(|next| **next > now);
        let asks = times.iter().filter(|time| **time <= now).count();
        (asks, next.map_or_else(|| self.end(), |next| *next + spread).min(self.end()))
    }

    fn sooner(&self, name: &Name) -> Duration {
        let mut hasher = DefaultHasher::new();
        name.iter().next().hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 1000).unwrap_or(0);
        self.ttl * SOONER / 100 * share / 1000
    }
}
