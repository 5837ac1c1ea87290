//! Who writes code down: a process of root's between the compiler, which the container may have misled, and the directory that all share.
//!
//! ```text
//! pipe: length (8 bytes), code ──▶ ….part ─sync, rename─▶ HEX-ENGINE.cwasm ──▶ pipe: "kept", or why not
//! ```

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What it says in the end.
pub(super) const KEPT: &str = "kept";
/// Bytes of code of one module: a few times what the module has.
const CODE_MAX: u64 = 1 << 30;
/// Bytes of all code on a machine: what was not used for longest makes way.
const DIRECTORY_MAX: u64 = 2 << 30;
/// What is not whole after an hour is left over from a container that ended meanwhile.
const PART_TIME: Duration = Duration::from_secs(3600);

/// Writes what comes into `file`, which is `part`, and gives it its name once it is whole.
pub(super) fn keep(file: File, part: &Path, path: &Path, from: PipeReader, mut answer: PipeWriter) -> i32 {
    let kept = write(file, from).and_then(|()| {
        fs::rename(part, path)?;
        make_room(path)
    });
    let said = match &kept {
        Ok(()) => KEPT.to_owned(),
        Err(why) => {
            let _ = fs::remove_file(part); // else it is swept later
            why.to_string()
        }
    };
    let _ = answer.write_all(said.as_bytes()); // without, the reader says that it died
    i32::from(kept.is_err())
}

fn write(mut file: File, mut from: PipeReader) -> io::Result<()> {
    let mut length = [0; 8];
    from.read_exact(&mut length).map_err(|_| io::Error::other("the compiler ended before it had finished"))?;
    let length = u64::from_le_bytes(length);
    if length > CODE_MAX {
        return Err(io::Error::other(format!("it has {length} bytes, at most {CODE_MAX}")));
    }
    let written = io::copy(&mut from.take(length), &mut file)?;
    if written < length {
        return Err(io::Error::other(format!("{written} bytes of {length} came")));
    }
    file.sync_all()
}

/// Removes what is over the bound, oldest first, and never `just_written`. A file that is mapped lives on until it is not.
fn make_room(just_written: &Path) -> io::Result<()> {
    let directory = just_written.parent().unwrap_or(Path::new("/"));
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let (path, meta) = match entry.and_then(|e| Ok((e.path(), e.metadata()?))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // another keeper has just given it its name, or removed it
            found => found?,
        };
        let (age, kind) = (meta.modified()?, path.extension().and_then(|e| e.to_str()));
        match kind {
            Some("cwasm") if path != just_written => all.push((age, meta.len(), path)),
            Some("part") if SystemTime::now().duration_since(age).unwrap_or_default() > PART_TIME => remove(&path)?,
            _ => {}
        }
    }
    all.sort();
    let mut total = all.iter().map(|(_, size, _)| size).sum::<u64>() + fs::metadata(just_written)?.len();
    for (_, size, path) in all {
        if total <= DIRECTORY_MAX {
            break;
        }
        remove(&path)?;
        total -= size;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()), // another keeper was quicker
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn what_others_keep_meanwhile_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("own.cwasm");
        fs::write(&own, "code").unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for other in 0..2 {
                let (directory, over) = (directory.path(), &over);
                scope.spawn(move || {
                    for number in 0.. {
                        if over.load(Ordering::Relaxed) {
                            return;
                        }
                        let part = directory.join(format!("{other}-{number}.part"));
                        fs::write(&part, "").unwrap();
                        fs::rename(&part, directory.join(format!("{other}.cwasm"))).unwrap();
                    }
                });
            }
            let looked: Vec<_> = (0..2000).map(|_| make_room(&own)).collect();
            over.store(true, Ordering::Relaxed);
            for look in looked {
                look.unwrap();
            }
        });
        assert!(own.exists());
    }
}
