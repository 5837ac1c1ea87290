//! How fast one socket is read, and what was read already. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Packets of one socket that are read in a second, and at once: a crowd of some thousand is heard, and a flood costs some few percent of a core.
const PACKETS_A_SECOND: u32 = 500;
const PACKETS_AT_ONCE: u32 = 4000;
/// Answers come by both versions of IP: so many are remembered for so long to read each once.
const TWINS: usize = 64;
const TWIN: Duration = Duration::from_millis(500);

/// The share of one socket.
pub(super) struct Pace {
    room: u32,
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { room: PACKETS_AT_ONCE, since: now }
    }

    /// Takes a packet; what comes within the time that is returned waits in the kernel, or is lost there.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let mut wait = Duration::ZERO;
        if self.room == 0 {
            let fresh = (now.duration_since(self.since).as_secs_f64() * f64::from(PACKETS_A_SECOND)) as u32;
            if fresh == 0 {
                wait = Duration::from_secs(1) / PACKETS_A_SECOND;
            }
            (self.room, self.since) = (fresh.clamp(1, PACKETS_AT_ONCE), now + wait);
        }
        self.room -= 1;
        wait
    }
}

/// Answers that were read lately, by cable and what they hash to.
#[derive(Default)]
pub(super) struct Twins(VecDeque<(u32, u64, Instant)>);

impl Twins {
    /// Whether the same was read on this cable just now.
    pub(super) fn has(&mut self, cable: u32, hash: u64, now: Instant) -> bool {
        while self.0.front().is_some_and(|(.., at)| now.duration_since(*at) > TWIN) {
            self.0.pop_front();
        }
        if self.0.iter().any(|(on, known, _)| (*on, *known) == (cable, hash)) {
            return true;
        }
        if self.0.len() >= TWINS {
            self.0.pop_front();
        }
        self.0.push_back((cable, hash, now));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_read_at_once_and_a_flood_at_its_share() {
        let start = Instant::now();
        let (mut pace, mut now, mut read) = (Pace::new(start), start, 0u32);
        // As fast as they are taken: ten microseconds each.
        while now < start + Duration::from_secs(20) {
            let wait = pace.take(now);
            read += 1;
            assert!(read > PACKETS_AT_ONCE || wait.is_zero(), "packet {read} waits");
            now += wait + Duration::from_micros(10);
        }
        let share = PACKETS_A_SECOND * 20;
        assert!((share..=share + PACKETS_AT_ONCE).contains(&read), "{read} packets in 20 seconds");
        // Who was quiet has room again, and no more than at first.
        now += Duration::from_secs(3600);
        let begun = now;
        let at_once = (0..2 * PACKETS_AT_ONCE).take_while(|_| pace.take(begun).is_zero()).count() as u32;
        assert!((PACKETS_AT_ONCE..=PACKETS_AT_ONCE + 1).contains(&at_once), "{at_once} at once");
    }

    #[test]
    fn an_answer_that_comes_by_both_versions_of_ip_is_read_once() {
        let (mut twins, now) = (Twins::default(), Instant::now());
        assert!(!twins.has(1, 7, now));
        assert!(twins.has(1, 7, now + TWIN), "the other version brings it a little later");
        assert!(!twins.has(2, 7, now), "on another cable it says where somebody is there");
        assert!(!twins.has(1, 8, now));
        assert!(!twins.has(1, 7, now + TWIN * 2 + Duration::from_millis(1)), "said again, it is news of a lifetime");
        for hash in 100..1000 {
            assert!(!twins.has(1, hash, now + TWIN * 2));
        }
        assert_eq!(twins.0.len(), TWINS);
        assert!(twins.has(1, 999, now + TWIN * 2));
    }
}
