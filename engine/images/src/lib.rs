//! Images on a machine, with no daemon: an *image* is a manifest, its configuration and its layers, each a
//! *blob* named by the SHA-256 of its bytes. Blobs are shared between images and verified before they have a name.
//!
//! ```text
//! DIR/blobs/sha256/HEX      content, verified, written once
//! DIR/references/HEX        "docker.io/library/nginx:latest" → digest of a manifest
//! DIR/layers/HEX32          one layer, unpacked: a lower directory of overlayfs
//! DIR/settling/HEX32        which of them may not be on the disk yet
//! DIR/leases/OWNER.HEX      layers that containers stand on
//! DIR/access/HEX            who may have an image that is not for everybody
//! DIR/tmp/                  what is not verified yet
//! ```
//!
//! Several processes may use one directory (the node and `image load` beside it): there is no state but these
//! files, and a lock file keeps a collection from meeting a load.
//!
//! Limits: SHA-256 only; layers as tar, gzip or zstd; one platform per image, this machine's.

mod access;
mod archive;
mod blobs;
mod collect;
mod config;
mod credentials;
mod digest;
mod inflate;
mod metered;
mod names;
mod progress;
mod reference;
mod registry;
mod settle;
mod store;
mod unpack;

pub use access::{Admitted, Caller, Found, Incoming};
pub use blobs::BLOB_SIZE_MAX;
pub use collect::Disk;
pub use config::{Image, ImageConfig, architecture};
pub use credentials::{CONFIG_SIZE_MAX, Credential, InvalidConfig, Keyring};
pub use digest::{Digest, hex};
pub use progress::Progress;
pub use reference::{InvalidReference, Reference};
pub use registry::Registry;
pub use store::{Blob, Hold, ImageStore, Listed};

use std::io;
use std::path::PathBuf;

/// Why an image operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the store could not be read or written (a full disk is one); try again when that is mended.
    #[error("image store: {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The content is not what its name says: it is dropped; fetch it from somewhere else.
    #[error("blob {wanted}: content has digest {observed}")]
    Corrupt {
        /// The name.
        wanted: Digest,
        /// What the bytes hash to.
        observed: Digest,
    },
    /// More bytes than the bound for what it is.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What was read.
        what: String,
        /// The bound in bytes.
        max: u64,
    },
    /// The disk has no room for it; make room, or take a smaller image.
    #[error("{}: {needed} bytes are needed and {free} are free; remove images that nobody uses (`image rm`) or make the disk larger", path.display())]
    NoRoom {
        /// The directory of the store.
        path: PathBuf,
        /// What can be written, in bytes.
        free: u64,
        /// What was to be written, in bytes.
        needed: u64,
    },
    /// The blob is not in the store.
    #[error("blob {0} is not in the image store")]
    NoBlob(Digest),
    /// No image has this name.
    #[error("image \"{0}\" is not in the image store")]
    NoImage(String),
    /// The archive or manifest is not one we can take; correct it.
    #[error("{what}: {why}")]
    Invalid {
        /// Which archive, manifest or layer.
        what: String,
        /// What was observed and what was needed.
        why: String,
    },
    /// The name is no reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// A source could not deliver.
    #[error("{source_name}: {why}")]
    Source {
        /// Which source.
        source_name: String,
        /// What it said.
        why: String,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), why: why.into() }
    }
}
