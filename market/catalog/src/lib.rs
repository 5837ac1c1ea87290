//! Catalog (§6.4.1, §7.6): where nodes that share no LAN announce themselves and find each other.
//!
//! A *catalog* is a board for notes that their authors have signed. It keeps them for their lifetime and gives them, as they
//! were signed, to those who may read; it vouches for nothing, joins no peering, and nobody needs it to go on with what is known.
//!
//! ```text
//!   node ── Announcement, signed ──▶ plan (Book) ─▶ Journal: synced ─▶ Book ──▶ acknowledged
//!   node ── GET …/announcements ───▶ Book ─▶ the envelopes, page by page; 304 while nothing changes
//!   node ── Feedback, signed ──────▶ the same way;  GET …/reputation/DID: the signed words, and their plain mean
//! ```
//! A *tenant* is one board of several on one server: *open* to everybody, or of *members* named by key, reading too. A *renewal*
//! is the same envelope once more: the lifetime begins again and nothing changes for readers.
//!
//! Limits: any change of a tenant makes its readers read all of it again; several servers do not know of each other.

mod book;
mod client;
mod guard;
mod journal;
mod message;
mod places;
mod server;
mod service;
#[cfg(test)]
mod tests;

pub use book::{Access, Book, Caller, ENTRIES_MAX, Page, Query, Refusal, TENANTS_MAX};
pub use client::{Client, ClientError, Listing, OPINIONS_MAX};
pub use journal::{Journal, JournalError};
pub use message::{
    Announcement, Feedback, LIFETIME_SECONDS_MAX, LIFETIME_SECONDS_MIN, OFFERS_MAX, Offer, STATEMENT_BYTES_MAX,
    Statement, VERSION, Withdrawal, open, seal,
};
pub use server::serve;
pub use service::{Catalog, Options};
