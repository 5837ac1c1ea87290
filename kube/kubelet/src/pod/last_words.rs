//! *Last words*: what a container says of its end, in its file or, if it has failed and wants that, in its log.
//!
//! The bounds are every kubelet's: 4 KiB of a file, 80 lines and 2 KiB of a log, 12 KiB of a pod; the end of what is longer counts.

use std::io;
use std::path::Path;

use engine_host::files::end_of;
use engine_runtime::log_end;

const FILE_MAX: u64 = 4096;
const LOG_LINES_MAX: usize = 80;
const LOG_MAX: usize = 2048;
const POD_MAX: usize = 12 << 10;

/// The words in `file`; if there are none and `log` is given, the end of that log.
pub fn read(file: &Path, log: Option<&Path>) -> String {
    let said = match end_of(file, FILE_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return format!("Error on reading termination log {}: {e}", file.display()),
    };
    match log.filter(|_| said.is_empty()) {
        Some(log) => log_end(log, LOG_LINES_MAX, LOG_MAX)
            .unwrap_or_else(|e| format!("Error on reading termination message from logs: {e}")),
        None => String::from_utf8_lossy(&said).into_owned(),
    }
}

/// What of a message one of so many containers may have in the pod's status.
pub fn cut(message: &str, containers: usize) -> String {
    let most = POD_MAX / containers.max(1);
    let end = (0..=most.min(message.len())).rev().find(|n| message.is_char_boundary(*n)).unwrap_or(0);
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;

    fn logged(lines: impl Iterator<Item = String>) -> String {
        lines.map(|l| format!("2999-01-01T00:00:00Z stdout F {l}\n")).collect()
    }

    #[test]
    fn a_file_or_the_end_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("file"), dir.path().join("0.log"));
        let say = |text: &str| std::fs::write(&log, text).unwrap();
        assert_eq!(read(&file, None), "", "no file, no words");
        assert!(read(&file, Some(&log)).starts_with("Error on reading termination message from logs: No such file"));
        say(&logged((0..100).map(|n| n.to_string())));
        let eighty: String = (20..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(read(&file, Some(&log)), eighty);
        std::fs::write(dir.path().join("0.log.1"), logged(["before".to_owned()].into_iter())).unwrap();
        say("2999-01-01T00:00:00Z stderr P lo\n2999-01-01T00:00:00Z stderr F ng\n");
        assert_eq!(read(&file, Some(&log)), "before\nlong\n");
        say(&logged((0..70).map(|n| format!("{n:099}"))));
        assert_eq!(read(&file, Some(&log)).len(), 2048);
        std::fs::write(&file, format!("{}end", "x".repeat(5000))).unwrap();
        let said = read(&file, Some(&log));
        assert!(said.len() == 4096 && said.ends_with("end"), "the file comes first, by its end");
    }

    #[test]
    fn a_pod_has_its_share() {
        assert_eq!(cut(&"é".repeat(5000), 3).len(), 4096);
        assert_eq!(cut("short", 3), "short");
    }
}
