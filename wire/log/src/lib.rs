//! The log of a node: what it has signed, in an order that cannot be changed afterwards without somebody seeing it.
//!
//! An *entry* says that there is a document, by its digest; what the document says stands with its parties only. The entries are the
//! leaves of a *Merkle tree* (RFC 9162 §2.1), whose root names them all. A *tree head* is a root with its size, signed by the node; a
//! *witness* is another node that keeps the last head it was shown, and countersigns only what continues it.
//!
//! ```text
//!               root ──── signed: tree head (origin, epoch, size 3, root, time)
//!              ╱    ╲
//!           node     ╲          inclusion:   this leaf and these nodes give the root
//!          ╱    ╲     ╲         consistency: the tree of size 2 is the beginning of the tree of size 3
//!       leaf 0 leaf 1 leaf 2
//!         │      └ {"at":…,"digest":…,"kind":"contract-signed","of":…}
//!         └ leaves are hashed with 0x00 before them, nodes with 0x01
//! ```
//! A history is *rewritten* if and only if one key has signed two heads of one epoch of which neither continues the other. Nothing but
//! the node's own key can do that: two heads of one size with different roots prove it to anybody, and of two sizes that the node
//! cannot show the consistency, which who has a log always can ([`compare_heads`]).
//!
//! Pure: no file, no clock, no network. Own code, and not the crate ct-merkle that its proofs are tested against, because a node that
//! has lost its disk knows some leaves by their hash only, and a witness compares with trees of before.

mod entry;
#[cfg(test)]
mod fuzz_tests;
mod hash;
mod head;
mod proof;
mod tree;

pub use entry::{Entry, EntryKind};
pub use hash::{Hash, HashError, leaf_hash};
pub use head::{Fit, HEAD_PURPOSE, HeadError, SignedHead, TreeHead, Verdict, compare_heads, fit, fit_by, open_head};
pub use proof::{PROOF_NODES_MAX, ProofError, verify_consistency, verify_inclusion};
pub use tree::{TREE_SIZE_MAX, Tree};
