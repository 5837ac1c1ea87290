//! A claim on a name that only one process of this machine may use at a time.
//!
//! A stage's namespaces, bridge and addresses have fixed names, so a second run would take away what the first still plays
//! on. The claim is an advisory lock (`flock(2)`) on a file of that name: the kernel gives it back when its holder ends,
//! however it ends, so a stale file hinders nobody. The file holds the process number of the last holder, for people.
//!
//! ```text
//!  run 1 ── claim ────── plays ────── ends ─┐
//!  run 2 ── waits, says for whom ───────────┴─ claim ── plays
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait::INTERRUPTED;

/// How often it is tried again. Nobody waits in the kernel: Ctrl-C must be heard.
const PAUSE: Duration = Duration::from_millis(50);
/// A process number and a line end need less; who writes more is not one of us.
const HOLDER_BYTES_MAX: u64 = 32;

/// A claim; dropping it gives the name back.
#[derive(Debug)]
pub struct Claim {
    name: String,
    _file: File,
}

impl Claim {
    /// Claims a name. While another process has it, this waits, and says once on standard error for whom.
    ///
    /// # Errors
    /// When the file cannot be opened or locked, or when Ctrl-C is pressed meanwhile.
    pub fn take(name: &str) -> Result<Self> {
        let path = path(name);
        let shown = path.display();
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.with_context(|| shown.to_string())?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if INTERRUPTED.load(Ordering::SeqCst) => bail!("interrupted"),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        eprintln!("waiting for {}, which has {shown}", holder(&mut file));
                        told = true;
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock {shown}")),
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).with_context(|| shown.to_string())?;
        writeln!(file, "{}", std::process::id()).with_context(|| shown.to_string())?;
        Ok(Self { name: name.to_owned(), _file: file })
    }

    /// The name that is claimed.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The file of a name.
pub fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("flt-{name}.lock"))
}

/// Who has it, as it wrote down. It may not have written yet.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(HOLDER_BYTES_MAX).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), pid) if !pid.is_empty() => format!("process {pid}"),
        _ => "a process that has not yet said its number".into(),
    }
}
