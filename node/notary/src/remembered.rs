//! The witnesses of this node's log and the last head that each has countersigned: DIR/log/witnesses.json, so that who is to be asked is
//! known without any object, and whoever has the directory can show what was witnessed.

use std::collections::BTreeMap;
use std::path::Path;

use fluidos_identity::{Envelope, FileError, NodeId, read_file, replace_file};
use serde::{Deserialize, Serialize};

const FILE: &str = "witnesses.json";
/// 64 witnesses with a head of 2 KiB each.
const BYTES_MAX: usize = 256 * 1024;
/// As many as a policy may choose, and as many that were chosen before.
const REMEMBERED_MAX: usize = 128;

/// A witness, and what it has countersigned.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// Who.
    pub did: NodeId,
    /// Where it was, `ip:port`.
    pub address: String,
    /// The head, signed by this node and by the witness.
    pub head: Envelope,
}

/// Returns the witnesses of the log in a directory.
///
/// # Errors
/// What is wrong with the file, in words.
pub fn remembered(directory: &Path) -> Result<Vec<Remembered>, String> {
    let path = directory.join(FILE);
    match read_file(&path, BYTES_MAX) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", path.display())),
        Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

/// Keeps what witnesses have countersigned. Beyond the most the others are found as parties of contracts.
pub(crate) fn remember(directory: &Path, all: &BTreeMap<NodeId, Remembered>) -> Result<(), String> {
    let all: Vec<&Remembered> = all.values().take(REMEMBERED_MAX).collect();
    let bytes = serde_json::to_vec(&all).map_err(|error| error.to_string())?;
    replace_file(&directory.join(FILE), &bytes).map_err(|error| error.to_string())
}
