//! A *pace*: how much of its time a room may spend on looking again.
//!
//! ```text
//!   changes now and then ─▶ a look at each, at once
//!   one after the other  ─▶ look ─▶ rest, many times as long ─▶ look at all that has changed meanwhile ─▶ …
//! ```
//! Who plans from the whole view works as long as the view is large. When changes come faster than it can look, looking at each of
//! them would take the whole processor and tell nothing that one look at their sum does not. It is a leaky bucket (GCRA, ITU-T I.371):
//! what was saved in quiet times may be spent at once, so that who waits for three rooms that follow one another does not wait for
//! the rest of each.

use std::time::Duration;

use tokio::time::Instant;

/// The longest rest: a look that waited for a slow disk says nothing about the next.
const REST_MOST: Duration = Duration::from_millis(250);
/// How long a room may look without a rest after a quiet time.
const SAVED_MOST: Duration = Duration::from_millis(10);
/// A room rests so many times as long as it looks: with some fifteen of them a third of one core when changes never end.
const TIMES: u32 = 40;

/// The pace of one room.
#[derive(Debug)]
pub struct Pace {
    times: u32,
    begun: Instant,
    /// When all looks so far are paid for.
    paid: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self::resting(TIMES)
    }
}

impl Pace {
    /// A room that rests so many times as long as it looks, at most a quarter of a second.
    pub fn resting(times: u32) -> Self {
        let now = Instant::now();
        Self { times, begun: now, paid: now }
    }

    /// Waits until a look is due. Dropping the future loses nothing.
    pub async fn begin(&mut self) {
        if let Some(due) = self.paid.checked_sub(SAVED_MOST.saturating_mul(self.times)) {
            tokio::time::sleep_until(due).await;
        }
        self.begun = Instant::now();
    }

    /// Notes that a look is over.
    pub fn end(&mut self) {
        let now = Instant::now();
        let look_and_rest = now.duration_since(self.begun).saturating_mul(self.times.saturating_add(1));
        let most = now + SAVED_MOST.saturating_mul(self.times) + REST_MOST;
        self.paid = (self.paid.max(self.begun) + look_and_rest).min(most);
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
        assert!((90..=103).contains(&some), "{some}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_time_looks_are_at_once_for_a_while() {
        let mut pace = Pace::resting(40);
        let quiet = Instant::now();
        for _ in 0..10 {
            pace.begin().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            pace.end();
        }
        assert!(quiet.elapsed() < Duration::from_millis(25), "{:?}", quiet.elapsed());
        for _ in 0..10 {
            pace.begin().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            pace.end();
        }
        assert!(quiet.elapsed() > Duration::from_millis(350), "{:?}", quiet.elapsed());
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
