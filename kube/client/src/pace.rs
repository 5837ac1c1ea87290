//! A *pace*: how much of its time a room may spend on looking again.
//!
//! ```text
//!   change ─▶ look ─▶ rest, as many times as long ─▶ look at all that has changed meanwhile ─▶ …
//!   a quiet time ─▶ change ─▶ look, at once
//! ```
//! Who plans from the whole view works as long as the view is large. When changes come faster than it can look, looking at each of
//! them would take the whole processor and tell nothing that one look at their sum does not.

use std::time::Duration;

use tokio::time::Instant;

/// The longest rest: a look that waited for a slow disk says nothing about the next.
const REST_MOST: Duration = Duration::from_millis(250);

/// The pace of one room.
#[derive(Debug)]
pub struct Pace {
    times: u32,
    begun: Instant,
    rest_until: Instant,
}

impl Default for Pace {
    /// A tenth of the time, as long as no look takes more than 28 ms: no rest is longer than a quarter of a second.
    fn default() -> Self {
        Self::resting(9)
    }
}

impl Pace {
    /// A room that rests so many times as long as it looks, at most a quarter of a second.
    pub fn resting(times: u32) -> Self {
        let now = Instant::now();
        Self { times, begun: now, rest_until: now }
    }

    /// Waits until a look is due. Dropping the future loses nothing.
    pub async fn begin(&mut self) {
        tokio::time::sleep_until(self.rest_until).await;
        self.begun = Instant::now();
    }

    /// Notes that a look is over.
    pub fn end(&mut self) {
        let now = Instant::now();
        self.rest_until = now + now.duration_since(self.begun).saturating_mul(self.times).min(REST_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks of 10 ms each, as fast as the pace lets them, in ten seconds of virtual time.
    async fn looks(times: u32) -> u32 {
        let (mut pace, end) = (Pace::resting(times), Instant::now() + Duration::from_secs(10));
        let mut looks = 0;
        while Instant::now() < end {
            pace.begin().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            pace.end();
            looks += 1;
        }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn it_looks_for_its_share_of_the_time() {
        // The clock of tokio goes by the millisecond, and may round up.
        let (all, some) = (looks(0).await, looks(9).await);
        assert!((900..=1001).contains(&all), "{all}");
        assert!((90..=101).contains(&some), "{some}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_look_after_a_quiet_time_is_at_once_and_no_rest_is_long() {
        let mut pace = Pace::resting(1000);
        pace.begin().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        pace.end();
        let rested = Instant::now();
        pace.begin().await;
        assert_eq!(rested.elapsed(), REST_MOST);
        pace.end();
        tokio::time::sleep(REST_MOST).await;
        let quiet = Instant::now();
        pace.begin().await;
        assert_eq!(quiet.elapsed(), Duration::ZERO);
    }
}
