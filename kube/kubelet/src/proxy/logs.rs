//! Reading a container's log file: the inverse of [the supervisor's writer](engine_runtime::supervisor).
//!
//! The file may be renamed to `.1` while it is read, and begun anew; a follower reads the old one to its end first.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use substrate_apiserver::node_proxy::LogOptions;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::pod::PodDir;
use engine_runtime::Observed;

/// Chunks under way to a slow reader.
const QUEUE: usize = 8;
/// Lines are sent together up to this size.
const CHUNK: usize = 32 << 10;
/// How often a follower looks for more: a person at a terminal does not notice, and a device can afford it.
const POLL: Duration = Duration::from_millis(100);
/// A tail is collected in memory; nobody reads more than this many lines with `--tail`, and all of them without it.
const TAIL_MAX: u64 = 100_000;

/// The runs of a container that have a log, the earliest first.
pub(super) fn attempts(dir: &PodDir, container: &str) -> Vec<u32> {
    let path = dir.log(container, 0);
    let entries = path.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let mut found: Vec<u32> =
        entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(".log")?.parse().ok()).collect();
    found.sort_unstable();
    found
}

/// The log as a stream. `run` is the run that still writes it, if one does.
pub(super) fn read(
    path: PathBuf,
    options: LogOptions,
    seen: watch::Receiver<Observed>,
    run: Option<String>,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let file = File::open(&path)?;
    let (send, receive) = mpsc::channel(QUEUE);
    let dropped = CancellationToken::new();
    let guard = dropped.clone().drop_guard();
    tokio::task::spawn_blocking(move || {
        let mut out = Out { send, pending: Vec::new(), left: options.limit_bytes };
        let mut source = Source { path, file: BufReader::new(file) };
        if let Err(e) = copy(&mut source, &options, &mut out, &seen, run.as_deref(), &dropped)
            && e.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = out.send.blocking_send(Err(e)); // nobody listens any more
        }
    });
    let stream = futures::stream::unfold((receive, guard), |(mut receive, guard)| async move {
        receive.recv().await.map(|chunk| (chunk, (receive, guard)))
    });
    Ok(stream.boxed())
}

struct Source {
    path: PathBuf,
    file: BufReader<File>,
}

struct Out {
    send: mpsc::Sender<io::Result<Bytes>>,
    pending: Vec<u8>,
    left: Option<u64>,
}

fn copy(
    source: &mut Source,
    options: &LogOptions,
    out: &mut Out,
    seen: &watch::Receiver<Observed>,
    run: Option<&str>,
    dropped: &CancellationToken,
) -> io::Result<()> {
    let since = options.since_seconds.and_then(|s| Timestamp::from_second(Timestamp::now().as_second() - s).ok());
    let mut tail: VecDeque<Vec<u8>> = VecDeque::new();
    let keep = options.tail_lines.map(|n| usize::try_from(n.min(TAIL_MAX)).unwrap_or(usize::MAX));
    let mut first = true;
    let old = rotated(&source.path);
    if let Ok(file) = File::open(&old) {
        // The part of the log before the file was begun anew belongs to it.
        let mut before = Source { path: old, file: BufReader::new(file) };
        drain(&mut before, |line| take(line, options, since, keep, &mut tail, &mut first, out))?;
    }
    drain(source, |line| take(line, options, since, keep, &mut tail, &mut first, out))?;
    for line in tail {
        out.push(&line)?;
    }
    out.flush()?;
    if !options.follow {
        return Ok(());
    }
    let mut first = true;
    loop {
        // Asked before reading: what a run wrote before its end is then read after it.
        let writing = run.is_some_and(|id| seen.borrow().containers.iter().any(|c| c.id == id && c.finished.is_none()));
        let renamed = source.was_renamed();
        let mut none = VecDeque::new();
        drain(source, |line| take(line, options, since, None, &mut none, &mut first, out))?;
        out.flush()?;
        if renamed {
            source.file = BufReader::new(File::open(&source.path)?);
            continue;
        }
        if !writing {
            // The supervisor may still be emptying the pipes of a run that has just ended.
            std::thread::sleep(POLL);
            drain(source, |line| take(line, options, since, None, &mut none, &mut first, out))?;
            return out.flush();
        }
        if dropped.is_cancelled() || out.send.is_closed() {
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
}

/// Gives every complete line to `each`; an incomplete one is left for the next time.
fn drain(source: &mut Source, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        // The writer writes lines of 16 KiB and a head.
        let n = source.file.by_ref().take(64 << 10).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            let back = i64::try_from(n).unwrap_or(0);
            source.file.seek_relative(-back)?;
            return Ok(());
        }
        each(&line)?;
    }
}

impl Source {
    fn was_renamed(&mut self) -> bool {
        let own = self.file.get_ref().metadata().map(|m| m.ino()).ok();
        std::fs::metadata(&self.path).is_ok_and(|m| Some(m.ino()) != own)
    }
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(".1");
    name.into()
}

/// One line of the file on its way out. `first`: whether it begins a line of the container's.
fn take(
    line: &[u8],
    options: &LogOptions,
    since: Option<Timestamp>,
    keep: Option<usize>,
    tail: &mut VecDeque<Vec<u8>>,
    first: &mut bool,
    out: &mut Out,
) -> io::Result<()> {
    let mut fields = line.splitn(4, |b| *b == b' ');
    let (Some(time), Some(_stream), Some(tag), Some(text)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Ok(()); // not the writer's
    };
    if let Some(since) = since {
        let written = std::str::from_utf8(time).ok().and_then(|t| t.parse::<Timestamp>().ok());
        if written.is_some_and(|t| t < since) {
            return Ok(());
        }
    }
    let whole = tag == b"F";
    let mut bytes = Vec::with_capacity(line.len());
    if options.timestamps && *first {
        bytes.extend_from_slice(time);
        bytes.push(b' ');
    }
    bytes.extend_from_slice(if whole { text } else { &text[..text.len() - 1] });
    let continues = !*first;
    *first = whole;
    let Some(keep) = keep else { return out.push(&bytes) };
    match tail.back_mut().filter(|_| continues) {
        Some(last) => last.extend_from_slice(&bytes),
        None => tail.push_back(bytes),
    }
    while tail.len() > keep {
        tail.pop_front();
    }
    Ok(())
}

impl Out {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    /// Sends what has gathered; an error of kind broken pipe when nobody wants more, or no more is allowed.
    fn flush(&mut self) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.pending);
        let mut full = false;
        if let Some(left) = &mut self.left {
            let allowed = usize::try_from(*left).unwrap_or(usize::MAX);
            full = chunk.len() >= allowed;
            chunk.truncate(allowed);
            *left -= chunk.len() as u64;
        }
        if !chunk.is_empty() && self.send.blocking_send(Ok(chunk.into())).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if full { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use std::io::Write;

    const LOG: &str = "2020-01-01T00:00:00.000000001Z stdout F old\n2999-01-01T00:00:00.000000002Z stderr P lo\n\
        2999-01-01T00:00:00.000000003Z stderr F ng\n2999-01-01T00:00:00.000000004Z stdout F last\n";

    async fn check(options: LogOptions) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let stream = read(path, options, watch::channel(Observed::default()).1, None).unwrap();
        let chunks: Vec<_> = stream.map(|c| String::from_utf8(c.unwrap().to_vec()).unwrap()).collect().await;
        chunks.concat()
    }

    #[tokio::test]
    async fn options_of_kubectl() {
        let all = LogOptions::default();
        assert_eq!(check(all.clone()).await, "old\nlong\nlast\n");
        assert_eq!(check(LogOptions { tail_lines: Some(2), ..all.clone() }).await, "long\nlast\n");
        assert_eq!(check(LogOptions { tail_lines: Some(0), ..all.clone() }).await, "");
        assert_eq!(check(LogOptions { since_seconds: Some(60), ..all.clone() }).await, "long\nlast\n");
        assert_eq!(check(LogOptions { limit_bytes: Some(6), ..all.clone() }).await, "old\nlo");
        assert_eq!(
            check(LogOptions { timestamps: true, tail_lines: Some(2), ..all }).await,
            "2999-01-01T00:00:00.000000002Z long\n2999-01-01T00:00:00.000000004Z last\n"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn following_through_a_rename_to_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let line = |n: u32| format!("2999-01-01T00:00:00.000000002Z stdout F {n}\n");
        std::fs::write(&path, line(1)).unwrap();
        let run = |finished| engine_runtime::ContainerStatus {
            id: "r".into(),
            name: "c".into(),
            attempt: 0,
            pid: None,
            started_at_ns: 0,
            finished,
        };
        let (send, seen) = watch::channel(Observed { alive: true, containers: vec![run(None)] });
        let mut stream =
            read(path.clone(), LogOptions { follow: true, ..LogOptions::default() }, seen, Some("r".into())).unwrap();
        let mut next = async || {
            String::from_utf8(
                tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().unwrap().unwrap().to_vec(),
            )
            .unwrap()
        };
        assert_eq!(next().await, "1\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join("0.log.1"))
            .unwrap()
            .write_all(line(2).as_bytes())
            .unwrap();
        std::fs::write(&path, line(3)).unwrap();
        assert_eq!(next().await, "2\n");
        assert_eq!(next().await, "3\n");
        let ended =
            engine_runtime::Finished { at_ns: 1, exit_code: 0, signal: 0, oom_killed: false, lost: false, error: None };
        send.send_replace(Observed { alive: true, containers: vec![run(Some(ended))] });
        assert!(tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().is_none());
    }
}
