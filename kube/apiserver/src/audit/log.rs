//! Where events are written: lines of JSON in a file that is set aside when it is full.
//!
//! ```text
//! request ─▶ line ─▶ queue (16 MiB) ─▶ thread ─▶ audit.log ── full ──▶ audit-2026-11-29T10-00-00.000.log, of which the newest are kept
//!              └ no room: the request waits
//! ```
//!
//! Nothing is dropped while the disk takes it: a request waits for room in the queue before it is answered. A line that the disk does not
//! take (it is full) is lost, as upstream; that is counted (`apiserver_audit_error_total`) and logged, and the API goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lines that wait to be written. One that is larger waits for all of it.
const QUEUE_KIB: u32 = 16 * 1024;

/// Where lines go.
#[derive(Clone, Debug)]
pub struct Target {
    /// The file that is written.
    pub path: PathBuf,
    /// It is set aside before it is larger.
    pub bytes_max: u64,
    /// So many that were set aside are kept.
    pub backups_max: usize,
}

/// What is counted of it, under upstream's names.
#[derive(Clone)]
pub struct Counters {
    /// Events that were to be written.
    pub events: IntCounter,
    /// Those that were not.
    pub failures: IntCounter,
}

type Line = (Vec<u8>, Option<OwnedSemaphorePermit>);

/// The way to the thread that writes.
pub struct Log {
    lines: UnboundedSender<Line>,
    room: Arc<Semaphore>,
    events: IntCounter,
}

impl Log {
    /// Opens the file and begins to write.
    ///
    /// # Errors
    /// When the file cannot be opened, or no thread begun.
    pub fn open(target: Target, Counters { events, failures }: Counters) -> io::Result<Self> {
        let mut writer = Writer::open(target)?;
        let (lines, mut queue) = unbounded_channel();
        let run = move || write_all(&mut writer, &mut queue, &failures);
        std::thread::Builder::new().name("audit".into()).spawn(run)?;
        Ok(Self { lines, room: Arc::new(Semaphore::new(QUEUE_KIB as usize)), events })
    }

    fn kib(line: &[u8]) -> u32 {
        u32::try_from(line.len() / 1024 + 1).unwrap_or(QUEUE_KIB).min(QUEUE_KIB)
    }

    /// Writes a line that is not empty; waits for room in the queue.
    pub async fn write(&self, line: Vec<u8>) {
        if !line.is_empty() {
            let room = self.room.clone().acquire_many_owned(Self::kib(&line)).await.ok();
            self.send(line, room);
        }
    }

    /// Writes the last line of a request that nobody waits for any more: there is one of these for each that is at work.
    pub fn write_now(&self, line: Vec<u8>) {
        if !line.is_empty() {
            let room = self.room.clone().try_acquire_many_owned(Self::kib(&line)).ok();
            self.send(line, room);
        }
    }

    /// Waits until everything is written that was to be.
    pub async fn flush(&self) {
        let all = self.room.clone().acquire_many_owned(QUEUE_KIB).await.ok();
        let _ = self.lines.send((Vec::new(), all)); // behind those that had no room
        let _ = self.room.acquire_many(QUEUE_KIB).await;
    }

    fn send(&self, line: Vec<u8>, room: Option<OwnedSemaphorePermit>) {
        self.events.inc();
        let _ = self.lines.send((line, room)); // whoever writes ends with the last of these
    }
}

fn write_all(writer: &mut Writer, queue: &mut UnboundedReceiver<Line>, failures: &IntCounter) {
    let mut failing = false;
    while let Some((line, _room)) = queue.blocking_recv() {
        let written = writer.write(&line);
        if let Err(error) = &written {
            failures.inc();
            if !failing {
                let path = writer.target.path.display();
                tracing::error!(%path, %error, "audit events are lost: the log cannot be written");
            }
        } else if failing {
            tracing::warn!(lost = failures.get(), "audit events are written again");
        }
        failing = written.is_err();
    }
}

struct Writer {
    target: Target,
    file: File,
    bytes: u64,
    /// The last line may be there in part.
    torn: bool,
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

impl Writer {
    fn open(target: Target) -> io::Result<Self> {
        if let Some(directory) = target.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let (file, bytes) = append(&target.path)?;
        let mut last = [b'\n'];
        file.read_at(&mut last, bytes.saturating_sub(1))?;
        Ok(Self { target, file, bytes, torn: last != [b'\n'] })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.target.bytes_max {
            self.set_aside()?;
        }
        if self.torn && self.bytes > 0 {
            // What a crash or a full disk has cut must not spoil the next line.
            self.file.write_all(b"\n")?;
            self.bytes += 1;
        }
        self.torn = true;
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        self.torn = false;
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        let path = &self.target.path;
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S%.6f");
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let end = path.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
        std::fs::rename(path, path.with_file_name(format!("{stem}-{now}{end}")))?;
        (self.file, self.bytes) = append(path)?;
        self.torn = false;
        let Some(directory) = path.parent() else { return Ok(()) };
        let begin = format!("{stem}-");
        let ours = |name: &str| name.starts_with(&begin) && name.ends_with(&end);
        let mut old: Vec<PathBuf> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
        old.retain(|path| path.file_name().is_some_and(|name| ours(&name.to_string_lossy())));
        old.sort(); // by time, as they are named
        let surplus = old.len().saturating_sub(self.target.backups_max);
        old.iter().take(surplus).try_for_each(std::fs::remove_file)
    }
}
