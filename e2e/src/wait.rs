//! Waiting on a condition, with a deadline that tells what was seen last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Set when somebody has pressed Ctrl-C: every wait ends, and with it the story, which cleans up.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `look` gives `Ok(Some(value))`.
///
/// # Errors
/// After `limit`, with the last thing that `look` said: what it saw (`Err` is "not yet, because …").
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> std::result::Result<T, String>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            _ if INTERRUPTED.load(Ordering::SeqCst) => bail!("interrupted"),
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() >= deadline => bail!("{what}: not within {limit:?}; last seen: {seen}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
