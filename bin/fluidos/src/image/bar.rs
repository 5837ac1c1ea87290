//! How far a pull or a load is: a bar on a terminal, and a line at the beginning elsewhere.
//!
//! ```text
//! pulling docker.io/library/nginx:1 [##########..........] 12.3 MiB of 24.1 MiB, 2 of 5 parts
//! ```

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine_images::Progress;

use super::human;

/// Ten times a second is as often as somebody looks.
const PACE: Duration = Duration::from_millis(100);
const WIDTH: u64 = 20;

/// Draws on standard error.
pub struct Bar {
    title: String,
    is_drawn: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    parts: usize,
    bytes: u64,
    /// Bytes that are here, by part.
    here: HashMap<String, (u64, u64)>,
    drawn_at: Option<Instant>,
}

impl Bar {
    /// One that says what it is about.
    pub fn begin(title: &str) -> Arc<Self> {
        let is_drawn = std::io::stderr().is_terminal();
        if !is_drawn {
            eprintln!("{title}");
        }
        Arc::new(Self { title: title.to_owned(), is_drawn, state: Mutex::default() })
    }

    fn draw(&self, state: &mut State) {
        if !self.is_drawn {
            return;
        }
        let whole = state.here.len() == state.parts && state.here.values().all(|(here, of)| here >= of);
        if !whole && state.drawn_at.is_some_and(|at| at.elapsed() < PACE) {
            return;
        }
        state.drawn_at = Some(Instant::now());
        // The bar goes on where it is; a terminal that is gone is nobody to tell.
        let _ = write!(std::io::stderr(), "\r{} {}\x1b[K", self.title, line(state));
    }
}

fn line(state: &State) -> String {
    let here: u64 = state.here.values().map(|(here, _)| here).sum();
    let done = state.here.values().filter(|(here, of)| here >= of).count();
    let full = (here.min(state.bytes) * WIDTH).checked_div(state.bytes).unwrap_or(WIDTH);
    let bar: String = (0..WIDTH).map(|n| if n < full { '#' } else { '.' }).collect();
    format!("[{bar}] {} of {}, {done} of {} parts", human(here), human(state.bytes), state.parts)
}

impl Progress for Bar {
    fn expects(&self, parts: usize, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.parts += parts;
        state.bytes = state.bytes.saturating_add(bytes);
        self.draw(&mut state);
    }

    fn moved(&self, part: &str, bytes: u64, of: u64) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.here.insert(part.to_owned(), (bytes, of));
        self.draw(&mut state);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        let drawn = self.state.get_mut().is_ok_and(|state| state.drawn_at.is_some());
        if drawn {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use super::*;

    #[test]
    fn a_line_tells_how_far_it_is() {
        let mut state = State::default();
        assert_eq!(line(&state), "[####################] 0 B of 0 B, 0 of 0 parts");
        (state.parts, state.bytes) = (2, 4096);
        state.here.insert("a".into(), (1024, 1024));
        state.here.insert("b".into(), (1024, 3072));
        assert_eq!(line(&state), "[##########..........] 2.0 KiB of 4.0 KiB, 1 of 2 parts");
    }
}
