//! The Ledger as it stands in the API: what is promised of a pool of capacity, read by all rooms and changed by one.
//!
//! ```text
//!                 ┌──────────── Ledger ────────────┐
//!  Books ── CAS ─▶│ capacity, what changed last,   │◀── View: the pool, read once for all rooms of a process
//!                 │ pages, and what of each is gone│
//!                 └───┬──────────┬──────────┬──────┘
//!                 LedgerPage  LedgerPage  LedgerPage     each written once
//! ```
//! A *page* holds promises that have not changed for a while. Without pages a promise would cost as much as all that stand: the object
//! is written, sent to who watches it, and read as a whole. What is promised is decided by the Ledger alone; pages are written before it
//! names them, and deleted when it does not any more, so whoever is killed leaves at most a page that nobody needs.
//! [`fluidos_model::market::Pool`] says what may be promised, `layout` what stands where.

mod books;
mod layout;
mod view;

pub use books::{Books, BooksError};
pub use layout::StandingError;
pub use view::{View, read};
