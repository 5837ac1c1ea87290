//! What an issuer keeps to be able to take credentials back.
//!
//! ```text
//!   FILE          the status list, signed: to be published
//!   FILE.issued   one line for each bit that was given away: to be kept
//! ```
//! A bit given to two credentials would revoke both, so a bit is given away only once and before the credential exists; and
//! of the two files neither is made anew when the other is there.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fluidos_identity::{
    CredentialDraft, NodeKey, STATUS_ENTRIES, STATUS_TEXT_LENGTH_MAX, StatusEntry, StatusList, replace_file,
};
use jiff::Timestamp;

use super::{after_days, text};

/// How long a list counts: so long a revocation may go unseen, and so often it must be signed anew.
pub const LIST_VALID_DAYS: u16 = 7;
/// Lines of about 120 bytes, one for each bit.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// An issuer's two files, locked while this lives.
pub struct Register {
    list: PathBuf,
    log: File,
}

impl Register {
    /// Returns the register of this list; a new one if there is none.
    pub fn open(list: &Path, key: &NodeKey, url: Option<String>, now: Timestamp) -> Result<Self> {
        // A list without its log is refused; a new log is there before its list.
        let register = Self { list: list.into(), log: lock(list, !list.exists())? };
        if !list.exists() {
            register.begin(key, url.clone(), now)?;
        }
        let id = register.checked(key)?.id().to_owned();
        if url.is_some_and(|url| url != id) {
            bail!("--status {}: it is published as {id}", list.display());
        }
        Ok(register)
    }

    /// Returns the register that there must be, of this issuer.
    pub fn existing(list: &Path, key: &NodeKey) -> Result<Self> {
        let register = Self { list: list.into(), log: lock(list, false)? };
        register.checked(key)?;
        Ok(register)
    }

    /// Begins a list. Where bits were given away there was one, and who was revoked in it would count again.
    fn begin(&self, key: &NodeKey, url: Option<String>, now: Timestamp) -> Result<()> {
        let (list, log) = (self.list.display(), log_path(&self.list));
        if self.log.metadata()?.len() > 0 {
            bail!("--status {list}: it is missing, and {} is there; restore it", log.display());
        }
        let id = url.unwrap_or_else(|| format!("{}#status", key.id()));
        self.publish(&StatusList::new(key.id(), id, now, after_days(now, LIST_VALID_DAYS)?), key)
            .context("--status-url")
    }

    fn checked(&self, key: &NodeKey) -> Result<StatusList> {
        let list = self.list()?;
        if list.issuer() != key.id() {
            bail!("--status {}: it is of {}, and --key is {}", self.list.display(), list.issuer(), key.id());
        }
        Ok(list)
    }

    /// Returns the list.
    pub fn list(&self) -> Result<StatusList> {
        let text = text(&self.list, STATUS_TEXT_LENGTH_MAX)?;
        StatusList::parse(&text).with_context(|| format!("--status {}", self.list.display()))
    }

    /// Gives a bit to a credential.
    pub fn give(mut self, draft: &CredentialDraft) -> Result<StatusEntry> {
        let mut log = String::new();
        (&mut self.log).take(LOG_BYTES_MAX).read_to_string(&mut log)?;
        if !log.is_empty() && !log.ends_with('\n') {
            bail!("{}: its last line is not whole; end it", log_path(&self.list).display());
        }
        let index = log.lines().count();
        if index >= STATUS_ENTRIES {
            bail!("--status {}: all {STATUS_ENTRIES} bits are given away; begin another list", self.list.display());
        }
        let line = format!("{index} {} {} until {}\n", draft.kind, draft.subject, draft.valid_until);
        self.log.write_all(line.as_bytes()).and_then(|()| self.log.sync_all()).context("noting the bit")?;
        Ok(StatusEntry { list: self.list()?.id().to_owned(), index })
    }

    /// Puts the list in the place of the old one, signed.
    pub fn publish(&self, list: &StatusList, key: &NodeKey) -> Result<()> {
        Ok(replace_file(&self.list, format!("{}\n", list.sign(key)?).as_bytes())?)
    }
}

fn lock(list: &Path, create: bool) -> Result<File> {
    let path = log_path(list);
    let opened = OpenOptions::new().read(true).append(true).create(create).open(&path);
    let log =
        opened.with_context(|| format!("{}, which says which bits of the list are given away", path.display()))?;
    log.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(log)
}

fn log_path(list: &Path) -> PathBuf {
    let mut path = OsString::from(list);
    path.push(".issued");
    path.into()
}
