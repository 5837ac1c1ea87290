//! A container's output as a log file in the format that `kubectl logs` and log collectors know (CRI):
//!
//! ```text
//! 2026-01-01T00:00:00.000000000Z stdout F a whole line
//! 2026-01-01T00:00:00.000000000Z stderr P a piece of a line longer than 16 KiB
//! ```
//!
//! A file that has grown to 10 MiB is renamed to `.1` (the one before it is dropped), so that a container cannot fill
//! the disk with words. When the disk is full, lines are dropped and their number is written once it is not.
//!
//! Who is *attached* gets a copy of the bytes as they come. One that does not read them holds its container up, as a
//! slow terminal would.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longer lines are cut into pieces marked `P`; the size every CRI runtime uses.
const PIECE_MAX: usize = 16 << 10;
/// The kubelet's default `containerLogMaxSize`.
const FILE_SIZE_MAX: u64 = 10 << 20;
/// Reads per turn of the loop and stream, so that a chatty container cannot starve the others.
const READS_PER_TURN: usize = 16;

/// The file.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    lost: u64,
}

impl Log {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, lost: 0 })
    }

    fn line(&mut self, stream: &str, whole: bool, text: &[u8]) {
        if self.lost > 0 {
            let note = format!("[{} lines were lost: the log could not be written]", self.lost);
            if self.write("stderr", true, note.as_bytes()).is_err() {
                self.lost += 1;
                return;
            }
            self.lost = 0;
        }
        if self.write(stream, whole, text).is_err() {
            self.lost += 1;
        }
    }

    fn write(&mut self, stream: &str, whole: bool, text: &[u8]) -> io::Result<()> {
        if self.size >= FILE_SIZE_MAX {
            self.rotate()?;
        }
        let tag = if whole { 'F' } else { 'P' };
        let mut line = format!("{:.9} {stream} {tag} ", jiff::Timestamp::now()).into_bytes();
        line.extend_from_slice(text);
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        fs::rename(&self.path, &old)?;
        *self = Self { lost: self.lost, ..Self::open(&self.path)? };
        Ok(())
    }
}

/// One of a container's streams.
pub(super) struct Stream {
    name: &'static str,
    from: File,
    pending: Vec<u8>,
    terminal: bool,
    copies: Vec<Copied>,
}

/// Where an attached caller reads.
struct Copied {
    to: File,
    /// Of one read at most: nothing is read while something is unsent.
    unsent: Vec<u8>,
}

impl Stream {
    pub fn new(name: &'static str, from: OwnedFd, terminal: bool) -> io::Result<Self> {
        fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { name, from: from.into(), pending: Vec::new(), terminal, copies: Vec::new() })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The terminal that it comes from.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.then(|| self.from.as_fd())
    }

    /// What to wait for: new bytes, or that the attached take those they have not got yet.
    pub fn awaited(&self) -> PollFd<'_> {
        match self.copies.iter().find(|copy| !copy.unsent.is_empty()) {
            Some(slow) => PollFd::new(slow.to.as_fd(), PollFlags::POLLOUT),
            None => PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
        }
    }

    /// From now on `to` gets a copy, until it is closed on the other side.
    pub fn copy_to(&mut self, to: OwnedFd) -> io::Result<()> {
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Those that nobody reads any more would be noticed at the next byte only, which may never come.
        self.copies.retain(|copy| {
            let mut fds = [PollFd::new(copy.to.as_fd(), PollFlags::empty())];
            !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
        });
        self.copies.push(Copied { to: to.into(), unsent: Vec::new() });
        Ok(())
    }

    /// Moves what is there into `log` and to the attached; `false` once the stream has ended and all have it.
    pub fn pump(&mut self, log: &mut Log) -> bool {
        let mut chunk = [0; PIECE_MAX];
        for _ in 0..READS_PER_TURN {
            self.copies.retain_mut(Copied::flush);
            if self.copies.iter().any(|copy| !copy.unsent.is_empty()) {
                return true;
            }
            match self.from.read(&mut chunk) {
                Ok(0) => return self.end(log),
                Ok(n) => {
                    self.take(&chunk[..n], log);
                    self.copies.iter_mut().for_each(|copy| copy.unsent.extend_from_slice(&chunk[..n]));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A terminal whose other end is closed says so with EIO.
                Err(e) if e.raw_os_error() == Some(Errno::EIO as i32) => return self.end(log),
                Err(_) => return self.end(log),
            }
        }
        true
    }

    fn take(&mut self, mut bytes: &[u8], log: &mut Log) {
        while let Some(at) = bytes.iter().position(|b| *b == b'\n') {
            self.piece(&bytes[..at], log);
            let mut line = std::mem::take(&mut self.pending);
            if self.terminal && line.last() == Some(&b'\r') {
                line.pop();
            }
            log.line(self.name, true, &line);
            bytes = &bytes[at + 1..];
        }
        self.piece(bytes, log);
        self.pending.shrink_to(PIECE_MAX);
    }

    /// Adds to the line, giving out pieces of it that are long enough.
    fn piece(&mut self, bytes: &[u8], log: &mut Log) {
        self.pending.extend_from_slice(bytes);
        while self.pending.len() > PIECE_MAX {
            let rest = self.pending.split_off(PIECE_MAX);
            log.line(self.name, false, &self.pending);
            self.pending = rest;
        }
    }

    fn end(&mut self, log: &mut Log) -> bool {
        if !self.pending.is_empty() {
            let line = std::mem::take(&mut self.pending);
            log.line(self.name, true, &line);
        }
        false
    }
}

impl Copied {
    /// `false` when nobody reads it any more.
    fn flush(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.to.write(&self.unsent) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn check(written: &[&[u8]]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut stream = Stream::new("stdout", read, false).unwrap();
        let mut write = File::from(write);
        for bytes in written {
            write.write_all(bytes).unwrap();
            assert!(stream.pump(&mut log));
        }
        drop(write);
        assert!(!stream.pump(&mut log));
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|l| l.split_once(' ').unwrap().1.to_owned()).collect()
    }

    #[test]
    fn lines_whatever_the_writes() {
        assert_eq!(check(&[b"a\nb", b"c\n\n", b"end"]), ["stdout F a", "stdout F bc", "stdout F ", "stdout F end"]);
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let long = [vec![b'x'; PIECE_MAX + 5], b"\n".to_vec()].concat();
        let lines = check(&[&long]);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("stdout P xx"));
        assert_eq!(lines[1], "stdout F xxxxx");
    }

    #[test]
    fn a_large_file_makes_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log::open(&path).unwrap();
        log.size = FILE_SIZE_MAX;
        log.line("stdout", true, b"new");
        assert!(dir.path().join("log.1").exists());
        assert!(fs::read_to_string(&path).unwrap().ends_with("stdout F new\n"));
    }
}
