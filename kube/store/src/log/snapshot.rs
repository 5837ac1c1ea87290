//! Writing *snapshots*: what holds, in a file of its own.
//!
//! ```text
//! begin(format) ▶ rows in the order of their keys … ▶ end(number of keys)      the same records as in a log
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use super::record::{Op, Row, Writer};
use super::{FORMAT, Sealing, check_space, create, disk, recover, snapshot_path, sync_directory};
use crate::state::{Entry, State};
use crate::{Error, Revision};

/// Entries handed over under one lock.
const SLICE: usize = 256;
/// What is gathered before it is written.
const CHUNK_BYTES: usize = 256 * 1024;
/// A restored store begins so far after what it was made of: whoever watched the lost one has seen later revisions, and none of those
/// may come again with another meaning.
const SKIPPED: Revision = 1_000_000;

fn private(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes the snapshot that log `generation` goes on from, beside the writers; its bytes.
pub(super) fn take(directory: &Path, generation: u64, state: &RwLock<State>, sealing: &Sealing) -> Result<u64, Error> {
    let path = snapshot_path(directory, generation);
    let new = path.with_extension("new");
    let mut file = private(&new).map_err(|e| disk(&new, &e))?;
    let mut after: Option<Arc<str>> = None;
    let slices = std::iter::from_fn(|| {
        let slice = state.read().unwrap_or_else(PoisonError::into_inner).slice(after.as_deref(), SLICE);
        after = Some(slice.last()?.key.clone());
        Some(slice)
    });
    let revision = || state.read().unwrap_or_else(PoisonError::into_inner).revision();
    let bytes = records(&mut file, slices, revision, sealing, || check_space(directory, CHUNK_BYTES as u64))
        .and_then(|bytes| file.sync_all().map(|()| bytes).map_err(|e| disk(&new, &e)))
        .inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    std::fs::rename(&new, &path).map_err(|e| disk(&path, &e))?;
    sync_directory(directory)?;
    Ok(bytes)
}

/// Writes a snapshot of these entries as of `revision`; its bytes.
pub(crate) fn write(
    sink: &mut dyn Write,
    entries: Vec<Entry>,
    revision: Revision,
    sealing: &Sealing,
) -> Result<u64, Error> {
    records(sink, std::iter::once(entries), || revision, sealing, || Ok(()))
}

fn records(
    sink: &mut dyn Write,
    slices: impl Iterator<Item = Vec<Entry>>,
    revision: impl Fn() -> Revision,
    sealing: &Sealing,
    room: impl Fn() -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut writer = Writer::default();
    let (mut count, mut bytes) = (0_u64, 0);
    let mut flush = |writer: &mut Writer| {
        room()?;
        let records = writer.finish(0);
        sink.write_all(records).map_err(|e| Error::Disk(format!("write a snapshot: {e}")))?;
        bytes += records.len() as u64;
        writer.clear(CHUNK_BYTES);
        Ok::<(), Error>(())
    };
    let begin = FORMAT.to_le_bytes();
    writer.row(&Row { op: Op::Begin, revision: 0, key: &[], value: &begin }, sealing)?;
    for entry in slices.flatten() {
        let row = Row { op: Op::Put, revision: entry.revision, key: entry.key.as_bytes(), value: &entry.value };
        writer.row(&row, sealing)?;
        count += 1;
        if writer.len() >= CHUNK_BYTES {
            flush(&mut writer)?;
        }
    }
    // Read after the last slice: no row is newer.
    let end = Row { op: Op::End, revision: revision(), key: &[], value: &count.to_le_bytes() };
    writer.row(&end, sealing)?;
    flush(&mut writer)?;
    Ok(bytes)
}

/// Reads a snapshot to its end, and opens nothing; its revision.
pub(crate) fn verify(source: &mut dyn Read) -> Result<Revision, Error> {
    recover::walk(&mut std::io::BufReader::new(source), Path::new("the snapshot"), |_, _| Ok(()))
}

/// Makes the store of a directory, which holds none yet, of a snapshot; the revision at which it begins.
///
/// # Errors
/// [`Error::Damaged`] unless every record checks, in which case nothing was made; [`Error::Exists`] when there is a store.
pub(crate) fn restore(directory: &Path, source: &mut dyn Read, sealing: &Sealing) -> Result<Revision, Error> {
    let mut source = std::io::BufReader::new(source);
    let mut found = recover::Found::default();
    recover::snapshot(&mut source, Path::new("the backup"), sealing, &mut found)?;
    std::fs::create_dir_all(directory).map_err(|e| disk(directory, &e))?;
    let _lock = super::lock(directory)?;
    if recover::generations(directory)? != (Vec::new(), Vec::new()) {
        return Err(Error::Exists { key: directory.display().to_string(), found: 0 });
    }
    let revision = found.revision + SKIPPED;
    let path = snapshot_path(directory, 1);
    let mut file = private(&path).map_err(|e| disk(&path, &e))?;
    let state = State::recovered(found.entries, revision);
    let page = state.list("", None, 0, None)?;
    write(&mut file, page.entries, revision, sealing)?;
    file.sync_all().map_err(|e| disk(&path, &e))?;
    drop(create(directory, 1)?);
    Ok(revision)
}
