//! The bytes of a file: *records*, each a header and *rows*. All numbers are little endian.
//!
//! ```text
//! record   magic 4 │ length of the rows 4 │ newest revision 8 │ durable 8 │ CRC-32 of the rows 4 │ CRC-32 of these 28 bytes 4 │ rows
//! row      op 1 │ revision 8 │ length of the key 4 │ length of the value 4 │ key │ value
//! ```
//!
//! *Durable* is the place in the file up to which everything had been synced when the record was written.

use std::io::Read;

use super::seal::Sealing;
use crate::{Error, Revision};

const MAGIC: [u8; 4] = *b"SubR";
pub(super) const HEADER: usize = 32;
const ROW: usize = 17;
/// Rows of one record; a larger group becomes several. One row of the largest value fits.
const ROWS_BYTES: usize = 1024 * 1024;
/// What a reader takes for the length of rows: a full record and the largest row.
const ROWS_BYTES_MAX: usize = ROWS_BYTES + crate::VALUE_BYTES_MAX + 1024 * 1024;

/// What a row says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// The key has this value.
    Put = 0,
    /// The key has no value.
    Delete = 1,
    /// The key has the value that is sealed here.
    Sealed = 2,
    /// A file begins; the value is the number of its format.
    Begin = 16,
    /// A snapshot is complete; the value is the number of its keys.
    End = 17,
    /// A log goes on after it was opened.
    Opened = 18,
    /// A log was closed, or the next one began.
    Closed = 19,
}

impl Op {
    fn of(byte: u8) -> Option<Self> {
        [Self::Put, Self::Delete, Self::Sealed, Self::Begin, Self::End, Self::Opened, Self::Closed]
            .into_iter()
            .find(|op| *op as u8 == byte)
    }
}

/// One row, borrowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub op: Op,
    pub revision: Revision,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Makes records of rows.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Where the record that is open begins.
    open: Option<usize>,
    newest: Revision,
    /// Where each record begins.
    begins: Vec<usize>,
}

impl Writer {
    /// Adds a row; a value under a sealed prefix is sealed.
    pub fn row(&mut self, row: &Row<'_>, sealing: &Sealing) -> Result<(), Error> {
        if self.open.is_some_and(|begin| self.bytes.len() - begin >= ROWS_BYTES) {
            self.open = None;
        }
        let begin = *self.open.get_or_insert_with(|| {
            self.begins.push(self.bytes.len());
            self.bytes.len()
        });
        if begin == self.bytes.len() {
            self.bytes.extend_from_slice(&[0; HEADER]);
        }
        let sealed = if row.op == Op::Put { sealing.seal(row.key, row.revision, row.value)? } else { None };
        let (op, value) = sealed.as_deref().map_or((row.op, row.value), |sealed| (Op::Sealed, sealed));
        self.bytes.push(op as u8);
        self.bytes.extend_from_slice(&row.revision.to_le_bytes());
        self.bytes.extend_from_slice(&(row.key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(row.key);
        self.bytes.extend_from_slice(value);
        self.newest = row.revision.max(self.newest);
        // The header's revision: the newest so far.
        self.bytes[begin + 8..begin + 16].copy_from_slice(&self.newest.to_le_bytes());
        Ok(())
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The records, with their headers.
    pub fn finish(&mut self, durable: u64) -> &[u8] {
        for (n, begin) in self.begins.iter().copied().enumerate() {
            let end = self.begins.get(n + 1).copied().unwrap_or(self.bytes.len());
            let (header, rows) = self.bytes[begin..end].split_at_mut(HEADER);
            header[..4].copy_from_slice(&MAGIC);
            header[4..8].copy_from_slice(&(rows.len() as u32).to_le_bytes());
            header[16..24].copy_from_slice(&durable.to_le_bytes());
            header[24..28].copy_from_slice(&crc32fast::hash(rows).to_le_bytes());
            let sum = crc32fast::hash(&header[..28]);
            header[28..].copy_from_slice(&sum.to_le_bytes());
        }
        &self.bytes
    }

    /// Ready for the next group; a buffer larger than `kept` is given back.
    pub fn clear(&mut self, kept: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(kept);
        self.begins.clear();
        (self.open, self.newest) = (None, 0);
    }
}

/// A header that checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    length: usize,
    sum: u32,
    pub newest: Revision,
    pub durable: u64,
}

impl Header {
    /// The header at the beginning of these bytes, if it is one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.first_chunk()?;
        let long = |at: usize| bytes[at..].first_chunk().map(|it| u64::from_le_bytes(*it));
        let short = |at: usize| bytes[at..].first_chunk().map(|it| u32::from_le_bytes(*it));
        let checks = bytes[..4] == MAGIC && short(28)? == crc32fast::hash(&bytes[..28]);
        let length = short(4)? as usize;
        (checks && length <= ROWS_BYTES_MAX).then_some(Self {
            length,
            sum: short(24)?,
            newest: long(8)?,
            durable: long(16)?,
        })
    }

    /// Bytes of the rows, if they are all in `bytes` and check.
    pub fn rows<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(..self.length).filter(|rows| crc32fast::hash(rows) == self.sum)
    }
}

/// What stands at a place of a file.
pub(super) enum Next {
    /// A record; its rows are in the buffer.
    Record(Header),
    /// Nothing was written from here on.
    Nothing,
    /// Something else.
    Other,
}

/// Reads the next record into `rows`.
pub(super) fn next(file: &mut impl Read, rows: &mut Vec<u8>) -> std::io::Result<Next> {
    rows.clear();
    let read = file.take(HEADER as u64).read_to_end(rows)?;
    if rows.iter().all(|byte| *byte == 0) {
        // The end of the file, or what was allocated ahead. Something may follow a gap that was torn: who asks looks.
        return Ok(if read == 0 { Next::Nothing } else { Next::Other });
    }
    let Some(header) = Header::parse(rows) else { return Ok(Next::Other) };
    rows.clear();
    file.take(header.length as u64).read_to_end(rows)?;
    Ok(if header.rows(rows).is_some() { Next::Record(header) } else { Next::Other })
}

/// The rows of a record that checks. `None` stands for one that cannot be read all the same.
pub(super) fn rows(mut bytes: &[u8]) -> impl Iterator<Item = Option<Row<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let row = row(&mut bytes);
        if row.is_none() {
            bytes = &[];
        }
        Some(row)
    })
}

fn row<'a>(bytes: &mut &'a [u8]) -> Option<Row<'a>> {
    let head: &[u8; ROW] = bytes.first_chunk()?;
    let revision = u64::from_le_bytes(*head[1..].first_chunk()?);
    let (key, value) = (u32::from_le_bytes(*head[9..].first_chunk()?), u32::from_le_bytes(*head[13..].first_chunk()?));
    let (key, rest) = bytes.get(ROW..)?.split_at_checked(key as usize)?;
    let (value, rest) = rest.split_at_checked(value as usize)?;
    let op = Op::of(head[0])?;
    *bytes = rest;
    Some(Row { op, revision, key, value })
}
