//! What can go wrong between a node and the kernel's network.
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A failed step on the machine's network. Only [`Error::Exhausted`] may mend itself (when pods leave); all others
/// need the owner or another option.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option that cannot work.
    #[error("network option {option} is {value:?}, needed {needed}")]
    Option {
        /// Which field of `Options`.
        option: &'static str,
        /// What it was.
        value: String,
        /// What it must be.
        needed: &'static str,
    },
    /// A pod identifier that cannot name a file.
    #[error("pod identifier {0:?} is not usable: 1 to 64 letters, digits, '-', '_' or '.', not beginning with '.'")]
    PodUid(String),
    /// Every address of the pod range is in use.
    #[error("the pod range {range} has no free address: all {capacity} are given to pods")]
    Exhausted {
        /// The range.
        range: String,
        /// How many pods it can hold.
        capacity: u32,
    },
    /// Another interface has the gateway's address.
    #[error("address {address} is already on interface number {interface}; give this node another pod range")]
    AddressInUse {
        /// The gateway's address.
        address: Ipv4Addr,
        /// Who has it.
        interface: u32,
    },
    /// The machine's network does not go with this node's.
    #[error(
        "the machine's network {network} gives pods addresses as {address}, which are in {range}, that of {whose} here: give the node another range, or the network other addresses"
    )]
    Plugged {
        /// The network.
        network: String,
        /// What it gave.
        address: Ipv4Addr,
        /// The range of this node.
        range: crate::Cidr,
        /// What that is for.
        whose: &'static str,
    },
    /// The machine's network refused.
    #[error(transparent)]
    Cni(#[from] engine_cni::Error),
    /// The kernel refused a netlink message.
    #[error("{what}: the kernel refused: {source}")]
    Netlink {
        /// What was being done, to what.
        what: String,
        /// Its answer.
        #[source]
        source: std::io::Error,
    },
    /// A file operation failed.
    #[error("{what} {path}: {source}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The saved addresses cannot be read.
    #[error("{path} does not hold this node's addresses: {reason}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A namespace could not be made or entered.
    #[error("network namespace {path}: {what}: {source}")]
    Namespace {
        /// Its file.
        path: PathBuf,
        /// The step.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A thread of ours ended without an answer.
    #[error("the thread that was to {0} ended without an answer")]
    Thread(&'static str),
}

impl Error {
    pub(crate) fn netlink(what: impl Into<String>, source: std::io::Error) -> Error {
        Error::Netlink { what: what.into(), source }
    }

    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Error {
        Error::File { what, path: path.into(), source }
    }

    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Netlink { source, .. } | Error::File { source, .. } | Error::Namespace { source, .. } => {
                source.raw_os_error()
            }
            _ => None,
        }
    }
}
