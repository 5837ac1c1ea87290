//! A node's identity on disk, and how its key is changed without ever having none.
//!
//! ```text
//!   DIR/identity/node.key      the key (0600)
//!   DIR/identity/history.json  statements about this node's keys: to be given to everybody
//!   DIR/identity/next.key      only while a rotation is on its way
//!   DIR/identity/*.jwt         credentials of others about this node
//!
//!   rotation:  next.key is made ▸ history.json has the hand-over ▸ next.key becomes node.key
//!              ─ a crash here ─    ─ a crash here: the next start ─
//!              leaves a next.key   finishes it ([`finish_rotation`])
//!              that counts for
//!              nothing
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Handover, Revocation, STATEMENTS_BYTES_MAX, STATEMENTS_MAX, Statement, StatementError};
use crate::files::{FileError, failed, read_file, replace_file};
use crate::key::NODE_KEY_FILE;
use crate::{KeyError, NodeId, NodeKey};

/// The file of the statements about a node's keys, in its identity directory.
pub const HISTORY_FILE: &str = "history.json";
const NEXT_KEY_FILE: &str = "next.key";

/// Why an identity was not read or changed. The owner must mend it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// About the key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// About a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The history is no list of statements.
    #[error("{}: {source}", path.display())]
    History {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: StatementError,
    },
    /// A statement could not be made.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The change would make a fork, bring back what is revoked, or is full.
    #[error("{0}")]
    Refused(String),
}

/// A node's identity directory, held against others who would change it.
#[derive(Debug)]
pub struct IdentityDirectory {
    path: PathBuf,
    key: Option<NodeKey>,
    statements: Vec<Statement>,
    _lock: File,
}

impl IdentityDirectory {
    /// Opens the identity of a node; a rotation that was interrupted is finished. With `create` the directory is made.
    ///
    /// # Errors
    /// [`IdentityError`] if it cannot be read, or holds something else.
    pub fn open(path: &Path, create: bool) -> Result<Self, IdentityError> {
        if create {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(failed("creating directory", path))?;
        }
        let lock = File::open(path).map_err(failed("opening", path))?;
        lock.lock().map_err(failed("locking", path))?;
        finish_rotation(path)?;
        let key = match NodeKey::open(&path.join(NODE_KEY_FILE)) {
            Ok(key) => Some(key),
            Err(KeyError::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let statements = read_history(path)?;
        Ok(Self { path: path.into(), key, statements, _lock: lock })
    }

    /// Returns the node's key, if it has one.
    pub fn key(&self) -> Option<&NodeKey> {
        self.key.as_ref()
    }

    /// Returns the key with which a node may run: made now if there is none, a rotation that was interrupted finished.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] if the history says that the key was handed over (an old one has come back, from a backup)
    /// or revoked; [`IdentityError`] if it cannot be read.
    pub fn key_to_run(path: &Path) -> Result<NodeKey, IdentityError> {
        let key = NodeKey::load_or_create(path)?;
        let identity = Self::open(path, false)?;
        identity.check_not_handed_over(key.id())?;
        identity.check_not_revoked(key.id())?;
        Ok(key)
    }

    /// Returns the statements about this node's keys, to be given to everybody.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// Returns the keys of before, the newest first.
    pub fn predecessors(&self) -> Vec<&Handover> {
        let mut found: Vec<&Handover> = Vec::new();
        let mut to = self.key.as_ref().map(NodeKey::id);
        while let Some(key) = to {
            let before = self.handovers().find(|h| h.to() == key && !found.iter().any(|seen| seen.from() == h.from()));
            found.extend(before);
            to = before.map(Handover::from);
        }
        found
    }

    /// Gives the node another key: the old one signs the hand-over.
    ///
    /// *Guarantees*: see the header; the hand-over is on disk before the new key is the node's. The old key is gone then.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] if the key was revoked or handed over; [`IdentityError`] if files cannot be written.
    pub fn rotate(&mut self, now: Timestamp) -> Result<Handover, IdentityError> {
        let old = self.key.clone().ok_or_else(|| refused(format!("{}: there is no key", self.path.display())))?;
        self.check_not_revoked(old.id())?;
        self.replace(old.id(), |new| Handover::by_key(&old, new, now))
    }

    /// Gives the node another key in the place of one that is lost or stolen: its owner signs the hand-over.
    ///
    /// # Errors
    /// As of [`IdentityDirectory::rotate`]; also if the directory holds the key of another node.
    pub fn recover(&mut self, owner: &NodeKey, lost: NodeId, now: Timestamp) -> Result<Handover, IdentityError> {
        if let Some(other) = self.key.as_ref().map(NodeKey::id).filter(|id| *id != lost) {
            return Err(refused(format!("{}: here is the key of {other}", self.path.display())));
        }
        self.replace(lost, |new| Handover::by_owner(owner, lost, new, now))
    }

    fn replace(
        &mut self,
        from: NodeId,
        sign: impl FnOnce(&NodeKey) -> Result<Handover, StatementError>,
    ) -> Result<Handover, IdentityError> {
        self.check_not_handed_over(from)?;
        let next = self.path.join(NEXT_KEY_FILE);
        remove(&next)?;
        let new = NodeKey::create(&next)?;
        let handover = sign(&new)?;
        self.add(handover.clone().into())?;
        finish_rotation(&self.path)?;
        self.key = Some(new);
        Ok(handover)
    }

    /// Adds a statement about this node's keys: a revocation.
    ///
    /// # Errors
    /// [`IdentityError`] if there is no room or it cannot be written.
    pub fn revoke(&mut self, revocation: Revocation) -> Result<(), IdentityError> {
        self.add(revocation.into())
    }

    fn add(&mut self, statement: Statement) -> Result<(), IdentityError> {
        if self.statements.len() >= STATEMENTS_MAX {
            return Err(refused(format!("there are {STATEMENTS_MAX} statements already")));
        }
        let mut statements = self.statements.clone();
        statements.push(statement);
        replace_file(&self.path.join(HISTORY_FILE), &Statement::write_all(&statements)?)?;
        self.statements = statements;
        Ok(())
    }

    fn check_not_handed_over(&self, key: NodeId) -> Result<(), IdentityError> {
        match self.handovers().find(|handover| handover.from() == key) {
            Some(before) => Err(refused(format!("{key} was handed over to {} already", before.to()))),
            None => Ok(()),
        }
    }

    /// Nobody but this owner writes into this directory, so every revocation in it counts.
    fn check_not_revoked(&self, key: NodeId) -> Result<(), IdentityError> {
        let revoked = self.statements.iter().find_map(|statement| match statement {
            Statement::Revocation(revocation) if revocation.key() == key => Some(revocation),
            _ => None,
        });
        match revoked {
            Some(r) => Err(refused(format!("{key} was revoked by {} at {}: {}", r.by(), r.at(), r.reason()))),
            None => Ok(()),
        }
    }

    fn handovers(&self) -> impl Iterator<Item = &Handover> {
        self.statements.iter().filter_map(|statement| match statement {
            Statement::Handover(handover) => Some(handover),
            Statement::Revocation(_) => None,
        })
    }
}

/// Finishes a rotation whose hand-over is in the history. Nothing happens if there is none.
pub(crate) fn finish_rotation(path: &Path) -> Result<(), IdentityError> {
    let (next, current) = (path.join(NEXT_KEY_FILE), path.join(NODE_KEY_FILE));
    let new = match NodeKey::open(&next) {
        Ok(key) => key.id(),
        Err(KeyError::Missing { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let signed = read_history(path)?.into_iter().any(|s| matches!(s, Statement::Handover(h) if h.to() == new));
    if !signed {
        return Ok(());
    }
    match fs::rename(&next, &current) {
        Ok(()) => {}
        // Somebody else was faster, with the same result.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("renaming", &next)(error).into()),
    }
    Ok(File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("syncing", path))?)
}

fn read_history(path: &Path) -> Result<Vec<Statement>, IdentityError> {
    let path = path.join(HISTORY_FILE);
    let bytes = match read_file(&path, STATEMENTS_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    Statement::parse_all(&bytes).map_err(|source| IdentityError::History { path, source })
}

fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing", path)(error)),
        _ => Ok(()),
    }
}

fn refused(reason: String) -> IdentityError {
    IdentityError::Refused(reason)
}
