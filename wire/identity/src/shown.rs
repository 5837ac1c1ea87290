//! What a node has to show of itself: the files that are in its identity directory.
//!
//! ```text
//!   DIR/identity/NAME.jwt            credentials of others about this node
//!   DIR/identity/NAME.status         the status lists that they name
//!   DIR/identity/history.json        hand-overs and revocations of its own keys
//!   DIR/identity/statements/*.json   what its owner was told about keys of others
//! ```
//! A file that cannot be used is named and passed over: one bad credential must not silence the others.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::files::read_file;
use crate::history::{HISTORY_FILE, STATEMENT_BYTES_MAX, STATEMENTS_BYTES_MAX, STATEMENTS_MAX};
use crate::{
    CREDENTIAL_LENGTH_MAX, Credential, NodeId, PEER_CREDENTIALS_MAX, PRESENTED_LISTS_MAX, Presentation,
    STATUS_TEXT_LENGTH_MAX, Statement, StatusList,
};

/// Where statements about others are, in an identity directory.
pub const STATEMENTS_DIRECTORY: &str = "statements";

/// What is in an identity directory.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Shown {
    /// What the node shows of itself.
    pub own: Presentation,
    /// Its own statements, read.
    pub history: Vec<Statement>,
    /// What its owner was told about others.
    pub told: Vec<Statement>,
    /// What could not be used, in words.
    pub problems: Vec<String>,
}

/// What one file holds.
#[derive(Clone, Debug)]
pub enum HeldKind {
    /// A credential.
    Credential(Credential),
    /// A status list.
    List(StatusList),
}

/// One file of others about the node.
#[derive(Clone, Debug)]
pub struct Held {
    /// Where.
    pub path: PathBuf,
    /// What, or why it is nothing.
    pub what: Result<HeldKind, String>,
    /// The text, without the end of its line.
    pub text: String,
}

impl Held {
    /// Reads every credential and status list of an identity directory, by name; more than a node may show are not read.
    pub fn all(directory: &Path) -> Vec<Self> {
        let credentials = with_extension(directory, "jwt").into_iter().take(PEER_CREDENTIALS_MAX);
        let lists = with_extension(directory, "status").into_iter().take(PRESENTED_LISTS_MAX);
        credentials.chain(lists).map(Self::read).collect()
    }

    /// Reads one file: a credential, or a status list.
    pub fn read(path: PathBuf) -> Self {
        let text = read_file(&path, CREDENTIAL_LENGTH_MAX.max(STATUS_TEXT_LENGTH_MAX) + 2)
            .map_err(|error| error.to_string())
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is no text".to_owned()));
        match text {
            Ok(text) => {
                let text = text.trim().to_owned();
                Self { what: held(&text), path, text }
            }
            Err(error) => Self { path, what: Err(error), text: String::new() },
        }
    }
}

fn held(text: &str) -> Result<HeldKind, String> {
    match Credential::parse(text) {
        Ok(credential) => Ok(HeldKind::Credential(credential)),
        Err(error) => match StatusList::parse(text) {
            Ok(list) => Ok(HeldKind::List(list)),
            Err(_) => Err(error.to_string()),
        },
    }
}

impl Shown {
    /// Reads an identity directory; `node` is whose it is.
    pub fn read(directory: &Path, node: &NodeId) -> Self {
        let mut shown = Self::default();
        for held in Held::all(directory) {
            let problem = match &held.what {
                Ok(HeldKind::Credential(credential)) if credential.subject() != *node => {
                    Some(format!("it is about {}", credential.subject()))
                }
                Ok(HeldKind::Credential(_)) => {
                    shown.own.credentials.push(held.text);
                    None
                }
                Ok(HeldKind::List(_)) => {
                    shown.own.lists.push(held.text);
                    None
                }
                Err(error) => Some(error.clone()),
            };
            shown.problems.extend(problem.map(|problem| format!("{}: {problem}", held.path.display())));
        }
        let path = directory.join(HISTORY_FILE);
        shown.history = shown.noted(&path, if path.exists() { statements(&path) } else { Ok(Vec::new()) });
        shown.own.statements = shown.history.iter().map(Statement::envelope).collect();
        for path in with_extension(&directory.join(STATEMENTS_DIRECTORY), "json") {
            let told = shown.noted(&path, statements(&path));
            shown.told.extend(told);
        }
        shown.told.truncate(STATEMENTS_MAX);
        // Lists are the largest: better a credential that waits for its list than none at all.
        while let Err(problem) = shown.own.to_bytes() {
            shown.problems.push(problem);
            if shown.own.lists.pop().is_none() && shown.own.credentials.pop().is_none() {
                break;
            }
        }
        shown
    }

    fn noted(&mut self, path: &Path, read: Result<Vec<Statement>, String>) -> Vec<Statement> {
        read.unwrap_or_else(|error| {
            self.problems.push(format!("{}: {error}", path.display()));
            Vec::new()
        })
    }
}

/// The statements of a file: an array of them, or one.
fn statements(path: &Path) -> Result<Vec<Statement>, String> {
    let bytes = read_file(path, STATEMENTS_BYTES_MAX).map_err(|error| error.to_string())?;
    let read = match bytes.trim_ascii_start().first() {
        Some(b'[') => Statement::parse_all(&bytes),
        _ if bytes.len() > STATEMENT_BYTES_MAX + 2 => return Err(format!("more than {STATEMENT_BYTES_MAX} bytes")),
        _ => Statement::parse(bytes.trim_ascii()).map(|statement| vec![statement]),
    };
    read.map_err(|error| error.to_string())
}

/// The files of a directory, by name. One that cannot be read is empty: a node without it has nothing to show.
fn with_extension(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension() == Some(OsStr::new(extension))).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::{CredentialDraft, CredentialKind, NodeKey, Revocation, StatusEntry};

    #[test]
    fn what_is_about_the_node_is_shown_and_the_rest_is_named() {
        let [owner, node, other] = [1, 2, 3].map(|seed| NodeKey::from_seed([seed; 32]).unwrap());
        let now = Timestamp::now();
        let later = now + SignedDuration::from_hours(1);
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let vouched = |subject: NodeId| {
            let claims = [("domain".to_owned(), "farm.example".to_owned())].into();
            let status = Some(StatusEntry { list: "https://farm.example/list".into(), index: 0 });
            let kind = CredentialKind::NodeOwnership;
            let draft = CredentialDraft { kind, subject, claims, valid_from: now, valid_until: later, status };
            draft.sign(&owner).unwrap().text().to_owned()
        };
        write("owner.jwt", &(vouched(node.id()) + "\n"));
        write("other.jwt", &vouched(other.id()));
        write("torn.jwt", "e30.e30");
        let list = StatusList::new(owner.id(), "https://farm.example/list", now, later).sign(&owner).unwrap();
        write("owner.status", &list);
        fs::create_dir(directory.path().join(STATEMENTS_DIRECTORY)).unwrap();
        let revoked: Statement = Revocation::new(other.id(), &other, "stolen", now).unwrap().into();
        write("statements/r.json", &(serde_json::to_string(&revoked.envelope()).unwrap() + "\n"));
        let shown = Shown::read(directory.path(), &node.id());
        assert_eq!(shown.own.credentials, [vouched(node.id())]);
        assert_eq!(shown.own.lists, [list]);
        assert_eq!(shown.told, [revoked]);
        assert_eq!(shown.problems.len(), 2, "{:?}", shown.problems);
        assert!(shown.problems[0].contains("other.jwt: it is about did:key:"), "{:?}", shown.problems);
        assert_eq!(Shown::read(&directory.path().join("nowhere"), &node.id()), Shown::default());
    }
}
