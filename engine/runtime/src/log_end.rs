//! The last lines of a container's log.

use std::io;
use std::path::Path;

use engine_host::files::end_of;

/// Read of a file: its longest line, of 16 KiB, with room for those before it.
const TAIL_MAX: u64 = 64 << 10;

/// What the last lines of a log say, without times and streams: so many lines, of them so many bytes. The part before it, which was set
/// aside (`.1`), belongs to it.
///
/// # Errors
/// There is no log.
pub fn log_end(path: &Path, lines_max: usize, bytes_max: usize) -> io::Result<String> {
    let mut before = path.to_owned().into_os_string();
    before.push(".1");
    let mut raw = end_of(Path::new(&before), TAIL_MAX).unwrap_or_default(); // most logs have none
    raw.extend(end_of(path, TAIL_MAX)?);
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut whole = true;
    for line in raw.split_inclusive(|b| *b == b'\n') {
        let mut fields = line.splitn(4, |b| *b == b' ');
        // TIME STREAM F|P TEXT; the first is cut where we began to read.
        let (Some(_), Some(_), Some(tag), Some(text)) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let text = if tag == b"F" { text } else { text.strip_suffix(b"\n").unwrap_or(text) };
        match lines.last_mut().filter(|_| !whole) {
            Some(last) => last.extend_from_slice(text),
            None => lines.push(text.to_vec()),
        }
        whole = tag == b"F";
    }
    let text = lines.split_off(lines.len().saturating_sub(lines_max)).concat();
    Ok(String::from_utf8_lossy(&text[text.len().saturating_sub(bytes_max)..]).into_owned())
}
