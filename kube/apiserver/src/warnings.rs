//! Warnings: what whoever asks is told beside the answer, whatever that is (RFC 9111 §5.5, code 299).
//!
//! ```text
//! request ─▶ fields that nobody knows, pod security, policies, webhooks ─ tell ─▶ of this request ─▶ headers of its answer or refusal
//! ```
//!
//! They go with a request as a task-local, so whoever finds something says it without being handed anything. Each is told once.

use std::cell::RefCell;
use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue, header};

/// Letters of all warnings together; once they are more, each is cut, and what comes after is not told (as upstream).
const LETTERS_MAX: usize = 4 * 1024;
const CUT_LETTERS_MAX: usize = 256;

tokio::task_local! {
    static TOLD: RefCell<Vec<String>>;
}

/// Does `work`; what is told meanwhile comes with what it gives.
pub async fn during<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    let both = async {
        let done = work.await;
        (done, TOLD.with(RefCell::take))
    };
    TOLD.scope(RefCell::default(), both).await
}

/// Tells who asks.
pub fn tell(warning: impl Into<String>) {
    let _ = TOLD.try_with(|told| told.borrow_mut().push(warning.into()));
}

/// Adds what was told to the headers of an answer.
pub fn write(told: &[String], headers: &mut HeaderMap) {
    let mut once = BTreeSet::new();
    let told: Vec<&String> = told.iter().filter(|text| !text.is_empty() && once.insert(*text)).collect();
    let cut = told.iter().map(|text| text.chars().count()).sum::<usize>() > LETTERS_MAX;
    let mut letters = 0;
    for text in told {
        let text: String = text.chars().take(if cut { CUT_LETTERS_MAX } else { LETTERS_MAX }).collect();
        if letters >= LETTERS_MAX {
            return;
        }
        letters += text.chars().count();
        // It is printed on somebody's terminal.
        let printed: String = text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        let quoted = printed.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(header::WARNING, value);
        }
    }
}
