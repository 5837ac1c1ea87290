//! Keys come and go, the node stays: which key speaks for a node now.
//!
//! A **hand-over** says that another key takes the place of one. The old key signs it, or, if it is lost or stolen, the owner
//! who vouched for it; the new key signs always. A **revocation** says that a key counts no more; the key itself signs it, its
//! owner, or a key that follows it. Statements travel by themselves and in any order; who has some asks [`resolve`], or keeps
//! a [`KeyHistory`] for each peer.
//!
//! ```text
//!   K0 ──hand-over──▶ K1 ──hand-over──▶ K2        Current(K2)
//!    │ by K0           │ by the owner    └ revocation          Revoked(K2)
//!    └ ✗ T             └ what a thief of K1 signs counts for nothing
//! ```
//!
//! Whose word counts, for one key, from the strongest:
//!
//! 1. a hand-over by its **owner**: recovery, even when the thief was faster;
//! 2. a revocation by its **owner**;
//! 3. what this node has **accepted** before of the key itself, be it a hand-over or a revocation: an old key that is stolen
//!    later cannot undo it;
//! 4. a revocation by the **key itself**;
//! 5. a hand-over by the **key itself**.
//!
//! Two hand-overs of one rank to two keys are a **fork**: one of them is a thief's, and signatures cannot say which, so neither
//! is followed until the owner decides. From that it follows what an old key that was stolen can do to somebody who has
//! *never* heard of its hand-over: make that node unknown to him, not become it.
//!
//! An **owner** of a key is who vouches for it in a credential that the node itself has shown ([`Owners`]), and stays the owner
//! of the keys that follow.
//!
//! Limits: an owner's key has no history of its own; two hand-overs of one key by its owner cannot be mended.

mod directory;
mod owners;
mod resolve;
mod statement;
#[cfg(test)]
mod tests;

pub(crate) use self::directory::finish_rotation;
pub use self::directory::{HISTORY_FILE, IdentityDirectory, IdentityError};
pub use self::owners::{OwnerError, Owners, Vouch};
pub use self::resolve::{Doubt, HANDOVERS_MAX, KeyHistory, Standing, first_key, resolve};
pub use self::statement::{
    Handover, REASON_LENGTH_MAX, Revocation, STATEMENT_BYTES_MAX, STATEMENTS_BYTES_MAX, STATEMENTS_MAX, Statement,
    StatementError,
};
