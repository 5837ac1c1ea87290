//! The language of FLUIDOS: kinds, market, intents. Pure: no I/O, no clock, no async, no randomness of its own.
//!
//! ```text
//!   kinds/    what stands in the API: official spellings, schemas, lenient input
//!     │ conversions, explicit
//!   market/   what is bought and sold: exact amounts, filters, partitions, the ledger, ranking, reasons
//!   intent/   what a workload asks of the place where it runs
//!   service   what a blueprint sells, and the manifests of one instance
//!   receipt   what of a contract was served and used, and what it costs
//!   rating    what follows from what was seen of a peer
//! ```
//! Time is an argument, never asked for. Every refusal says what was observed and what was needed.

pub mod intent;
pub mod kinds;
pub mod market;
pub mod rating;
pub mod receipt;
pub mod service;
