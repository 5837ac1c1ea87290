//! Header blocks: names and values, in one zlib stream per direction with a dictionary that both sides know.
//!
//! Ours are always empty, so they are written as stored blocks and need no compressor.

use std::collections::HashMap;

use bytes::{Buf, Bytes};
use zlib_rs::{Inflate, InflateError, InflateFlush, Status};

/// Draft 3.1, section 2.6.10.1. Adler-32: e3c6a7c2.
const DICTIONARY: &[u8] = include_bytes!("dictionary.bin");

/// All headers of a stream. port-forward sends three short ones.
const BLOCK_BYTES_MAX: usize = 16 * 1024;

/// Why headers cannot be read. The connection is lost with them, since later ones depend on earlier ones.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No zlib of this dictionary.
    #[error("headers are not compressed as SPDY/3 does it")]
    Zlib,
    /// Longer than the bound.
    #[error("headers of more than {BLOCK_BYTES_MAX} bytes")]
    TooLong,
    /// Not names and values.
    #[error("headers end too early, or are not text")]
    Malformed,
}

/// Reads the header blocks of one connection, in order.
pub struct Reader(Inflate);

impl Reader {
    /// For a new connection.
    pub fn new() -> Self {
        Self(Inflate::new(true, 15))
    }

    /// Names (in small letters) and values.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&mut self, mut compressed: &[u8]) -> Result<HashMap<String, String>, Error> {
        let mut block = vec![0; BLOCK_BYTES_MAX];
        let mut length = 0;
        loop {
            let (consumed, written) = (self.0.total_in(), self.0.total_out());
            let status = self.0.decompress(compressed, &mut block[length..], InflateFlush::SyncFlush);
            compressed = &compressed[(self.0.total_in() - consumed) as usize..];
            length += (self.0.total_out() - written) as usize;
            match status {
                Err(InflateError::NeedDict { .. }) => {
                    self.0.set_dictionary(DICTIONARY).map_err(|_| Error::Zlib)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(Error::Zlib),
                Ok(_) if length == block.len() => return Err(Error::TooLong),
                Ok(_) if compressed.is_empty() => break,
                Ok(Status::BufError) => return Err(Error::Zlib),
                Ok(Status::Ok) => {}
            }
        }
        block.truncate(length);
        parse(block.into())
    }
}

fn parse(mut block: Bytes) -> Result<HashMap<String, String>, Error> {
    let count = block.try_get_u32().map_err(|_| Error::Malformed)?;
    let mut text = || {
        let length = block.try_get_u32().map_err(|_| Error::Malformed)? as usize;
        if length > block.len() {
            return Err(Error::Malformed);
        }
        String::from_utf8(block.split_to(length).to_vec()).map_err(|_| Error::Malformed)
    };
    // Every entry takes eight bytes of a bounded block, so a false count ends soon.
    (0..count).map(|_| Ok((text()?.to_ascii_lowercase(), text()?))).collect()
}

/// Writes the (empty) header blocks of one connection, in order.
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// The next block: no headers.
    pub fn empty(&mut self) -> Vec<u8> {
        // RFC 1950: deflate, window of 32 KiB. RFC 1951: a stored block of four bytes, not the last, which are the count 0;
        // then an empty one, after which readers hand over what they have.
        let head: &[u8] = if std::mem::replace(&mut self.begun, true) { &[] } else { &[0x78, 0x01] };
        [head, &[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]].concat()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use proptest::prelude::*;
    use zlib_rs::{Deflate, DeflateFlush};

    fn compress(deflate: &mut Deflate, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(k, v)| [k, v]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut out = vec![0; 100_000];
        let before = deflate.total_out();
        deflate.compress(&plain, &mut out, DeflateFlush::SyncFlush).unwrap();
        out.truncate((deflate.total_out() - before) as usize);
        out
    }

    #[test]
    fn headers_are_read_in_order_with_the_dictionary() {
        let mut deflate = Deflate::new(6, true, 15);
        assert_eq!(deflate.set_dictionary(DICTIONARY).unwrap(), 0xe3c6_a7c2);
        let mut reader = Reader::new();
        for port in ["80", "443", "80"] {
            let block = compress(&mut deflate, &[("streamtype", "data"), ("port", port)]);
            let headers = reader.read(&block).unwrap();
            assert_eq!((headers["streamtype"].as_str(), headers["port"].as_str()), ("data", port));
        }
        let long = "x".repeat(BLOCK_BYTES_MAX);
        assert!(matches!(reader.read(&compress(&mut deflate, &[("a", &long)])), Err(Error::TooLong)));
    }

    #[test]
    fn ours_are_empty() {
        let (mut writer, mut reader) = (Writer::default(), Reader::new());
        for _ in 0..3 {
            assert!(reader.read(&writer.empty()).unwrap().is_empty());
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = Reader::new().read(&bytes);
            let _ = Reader::new().read(&[&[0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2], &bytes[..]].concat());
            let _ = parse(bytes.into());
        }
    }
}
