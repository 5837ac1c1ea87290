//! Reading what a directory holds, and telling what a crash tore from what is damaged.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{self, HEADER, Header, Next, Op, Row};
use super::{FORMAT, Sealing, disk, log_path, snapshot_path};
use crate::{Error, Revision};

/// What was found.
#[derive(Default)]
pub(super) struct Found {
    pub entries: BTreeMap<Arc<str>, (Revision, Bytes)>,
    pub revision: Revision,
    /// The newest log; it ends there, or is still to be made.
    pub generation: u64,
    pub end: Option<u64>,
    /// Older files are not needed.
    pub base: u64,
    /// It was closed, or there was nothing.
    pub closed: bool,
    pub snapshot_bytes: u64,
    /// Some value is not sealed as it should be.
    pub reseal: bool,
}

/// Reads everything.
pub(super) fn read(directory: &Path, sealing: &Sealing) -> Result<Found, Error> {
    let (snapshots, logs) = generations(directory)?;
    let mut found = Found { base: snapshots.last().copied().unwrap_or(1), closed: true, ..Found::default() };
    found.generation = found.base;
    if snapshots.is_empty() && logs.is_empty() {
        let mut others = std::fs::read_dir(directory).map_err(|e| disk(directory, &e))?.flatten();
        return match others.find(|entry| entry.file_name() != "lock") {
            None => Ok(found),
            Some(other) => Err(Error::Format {
                directory: directory.display().to_string(),
                found: format!("{} of another kind of store", other.file_name().display()),
                known: FORMAT,
            }),
        };
    }
    if !snapshots.is_empty() {
        let path = snapshot_path(directory, found.base);
        let mut file = BufReader::new(File::open(&path).map_err(|e| disk(&path, &e))?);
        snapshot(&mut file, &path, sealing, &mut found)?;
        found.snapshot_bytes = std::fs::metadata(&path).map_err(|e| disk(&path, &e))?.len();
    }
    let newest = logs.last().copied().unwrap_or(0).max(found.base);
    for generation in found.base..=newest {
        let path = log_path(directory, generation);
        let file = File::open(&path).map_err(|e| damaged(&path, 0, format!("it cannot be opened: {e}")))?;
        log(BufReader::new(file), &path, sealing, &mut found, generation == newest)?;
    }
    found.generation = newest;
    Ok(found)
}

/// That a log which was closed is as long as it was: its end alone cannot tell.
pub(super) fn check_end(found: &Found, mut lock: &File, directory: &Path) -> Result<(), Error> {
    let mut said = String::new();
    let path = directory.join("lock");
    let read = lock.read_to_string(&mut said);
    let end = (found.generation, found.end.unwrap_or(0));
    match read {
        Ok(0) => Ok(()),
        Ok(_) if said == format!("{} {}\n", end.0, end.1) => Ok(()),
        _ => Err(damaged(&path, 0, format!("log and end are {} {}, and {said:?} was written", end.0, end.1))),
    }
}

/// The numbers of the snapshots and of the logs of a directory, ascending.
pub(super) fn generations(directory: &Path) -> Result<(Vec<u64>, Vec<u64>), Error> {
    let (mut snapshots, mut logs) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(directory).map_err(|e| disk(directory, &e))? {
        let name = entry.map_err(|e| disk(directory, &e))?.file_name();
        let Some((number, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let Ok(number) = number.parse() else { continue };
        match extension {
            "snapshot" => snapshots.push(number),
            "log" => logs.push(number),
            _ => {}
        }
    }
    snapshots.sort_unstable();
    logs.sort_unstable();
    Ok((snapshots, logs))
}

/// Removes what is older than `base`, and snapshots that were not finished. What cannot be removed is tried again at the next start.
pub(super) fn sweep(directory: &Path, base: u64) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((number, extension)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let old = match extension {
            "log" | "snapshot" => number.parse::<u64>().is_ok_and(|number| number < base),
            other => other == "new",
        };
        if old && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::warn!(file = %entry.path().display(), %error, "an old file stays");
        }
    }
}

/// Reads a snapshot, all of which must be there.
pub(super) fn snapshot(file: &mut impl Read, path: &Path, sealing: &Sealing, found: &mut Found) -> Result<(), Error> {
    let revision = walk(file, path, |row, at| apply(row, path, at, sealing, found))?;
    found.revision = found.revision.max(revision);
    Ok(())
}

/// Goes through the rows of a snapshot, all of which must be there, with their places; its revision.
pub(super) fn walk(
    file: &mut impl Read,
    path: &Path,
    mut each: impl FnMut(&Row<'_>, u64) -> Result<(), Error>,
) -> Result<Revision, Error> {
    let (mut rows, mut at, mut count, mut newest) = (Vec::new(), 0_u64, 0_u64, 0);
    loop {
        let next = record::next(file, &mut rows).map_err(|e| disk(path, &e))?;
        let Next::Record(header) = next else {
            return Err(damaged(path, at, "no record that checks, and the snapshot has no end".into()));
        };
        for row in record::rows(&rows) {
            let row = row.ok_or_else(|| damaged(path, at, "a row cannot be read".into()))?;
            if row.op == Op::End {
                let expected = row.value.first_chunk().map(|it| u64::from_le_bytes(*it));
                if expected != Some(count) {
                    return Err(damaged(path, at, format!("{count} keys, and {expected:?} were written")));
                }
                return Ok(newest.max(row.revision));
            }
            count += u64::from(row.op != Op::Begin);
            each(&row, at)?;
        }
        newest = newest.max(header.newest);
        at += (HEADER + rows.len()) as u64;
    }
}

/// Reads a log. The `last` one may be torn at its end, the others were closed.
fn log(mut file: BufReader<File>, path: &Path, sealing: &Sealing, found: &mut Found, last: bool) -> Result<(), Error> {
    let (mut rows, mut at, mut newest) = (Vec::new(), 0_u64, 0);
    found.closed = false;
    loop {
        let next = record::next(&mut file, &mut rows).map_err(|e| disk(path, &e))?;
        let Next::Record(header) = next else {
            if matches!(next, Next::Other) {
                torn(&mut file, path, at)?;
            }
            // A log that was made and never begun is an empty one.
            if !last && !found.closed {
                return Err(damaged(path, at, "it ends before it was closed, and there is a later one".into()));
            }
            found.end = Some(at);
            return Ok(());
        };
        // Not of the whole: a snapshot may be newer than the first writes of the log that follows it.
        if header.newest < newest {
            return Err(damaged(path, at, format!("revision {} after {newest}", header.newest)));
        }
        newest = header.newest;
        for row in record::rows(&rows) {
            let row = row.ok_or_else(|| damaged(path, at, "a row cannot be read".into()))?;
            found.closed = row.op == Op::Closed;
            apply(&row, path, at, sealing, found)?;
        }
        found.revision = found.revision.max(header.newest);
        at += (HEADER + rows.len()) as u64;
    }
}

/// What is no record at `at` was torn by a crash, unless a later record says that it had been durable.
fn torn(file: &mut BufReader<File>, path: &Path, at: u64) -> Result<(), Error> {
    file.seek(SeekFrom::Start(at)).map_err(|e| disk(path, &e))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).map_err(|e| disk(path, &e))?;
    let later =
        |from: usize| Header::parse(&rest[from..]).filter(|header| header.rows(&rest[from + HEADER..]).is_some());
    let known = (0..rest.len().saturating_sub(HEADER)).filter_map(later).map(|header| header.durable).max();
    match known {
        Some(durable) if durable > at => {
            Err(damaged(path, at, format!("no record that checks, and the log was durable up to byte {durable}")))
        }
        _ => Ok(()),
    }
}

fn apply(row: &Row<'_>, path: &Path, at: u64, sealing: &Sealing, found: &mut Found) -> Result<(), Error> {
    match row.op {
        Op::Begin => {
            let format = row.value.first_chunk().map(|it| u32::from_le_bytes(*it));
            if format != Some(FORMAT) {
                return Err(Error::Format {
                    directory: path.display().to_string(),
                    found: format!("format {}", format.unwrap_or_default()),
                    known: FORMAT,
                });
            }
        }
        Op::Put | Op::Sealed | Op::Delete => {
            let key = std::str::from_utf8(row.key).map_err(|e| damaged(path, at, format!("a key is no text: {e}")))?;
            let value = match row.op {
                Op::Delete => {
                    found.entries.remove(key);
                    return Ok(());
                }
                Op::Sealed => {
                    let (value, today) = sealing.open(row.key, row.revision, row.value)?;
                    found.reseal |= !today;
                    Bytes::from(value)
                }
                _ => {
                    found.reseal |= !sealing.leaves_open(row.key);
                    Bytes::copy_from_slice(row.value)
                }
            };
            found.entries.insert(key.into(), (row.revision, value));
        }
        Op::Opened | Op::Closed | Op::End => {}
    }
    Ok(())
}

fn damaged(path: &Path, offset: u64, problem: String) -> Error {
    Error::Damaged { file: path.display().to_string(), offset, problem }
}
