//! What is bought and sold: exact amounts, filters, partitions, the ledger, ranking, and the reasons in words.
//!
//! A **pool** is capacity of one owner that is sold as one flavor. A **hold** is a promise for some seconds, a
//! **commitment** one for as long as a contract lasts. What is held or committed is never promised twice.
//!
//! ```text
//!   selector ──matches──► offer ──amounts──► rank ──► hold ──► commit ──► release
//! ```

mod amounts;
mod ledger;
mod offer;
mod partition;
mod quantity;
mod rank;
mod selector;

pub use amounts::{Amounts, Resource};
pub use ledger::{COMMITMENTS_MAX, Commitment, CommitmentState, HOLDS_PER_BUYER_MAX, HoldRequest, LedgerRefusal, Pool};
pub use offer::{Location, Mismatch, Offer};
pub use partition::Partitionability;
pub use quantity::{Quantity, QuantityError};
pub use rank::{Candidate, Ranked, rank};
pub use selector::{FilterText, K8SliceSelector, QuantityFilter, SelectorError, TextFilter};
