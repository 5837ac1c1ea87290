//! Whether a contract is over, and whose word that is: what a node that takes its records back is told and what its own log says weigh differently.

/// Whether a contract is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It runs.
    No,
    /// The other party says so: it is not taken back as running, and ends nothing that stands here.
    There,
    /// This node's own log says so.
    ByLog,
}
