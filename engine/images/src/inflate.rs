//! What a layer or an archive is compressed with: nothing, gzip or zstd, told by its first bytes.

use std::io::{self, BufRead, BufReader, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How far a frame of zstd may look back, which is held in memory: `zstd --ultra -22` looks back 128 MiB, what builders of images write 8.
const WINDOW_MAX: u64 = 128 << 20;

/// The bytes before they were compressed. How many they may be is for the caller to bound.
pub(crate) fn inflated<'a>(from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut from = BufReader::with_capacity(64 << 10, from);
    Ok(match from.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(from)),
        // A frame, or one that is to be skipped (RFC 8878, section 3.1).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = FrameDecoder::new();
            decoder.set_max_window_size(WINDOW_MAX);
            Box::new(Frames { from, decoder, is_in_frame: false })
        }
        _ => Box::new(from),
    })
}

/// Frames of zstd, one after the other.
struct Frames<R> {
    from: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_in_frame && self.decoder.can_collect() > 0 {
                return self.decoder.read(into);
            }
            if self.is_in_frame && !self.decoder.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.from, strategy).map_err(io::Error::other)?;
                continue;
            }
            self.is_in_frame = false;
            if self.from.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.reset(&mut self.from) {
                Ok(()) => self.is_in_frame = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.from.by_ref().take(u64::from(length)), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use proptest::prelude::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        inflated(bytes)?.take(1 << 20).read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn frames_and_what_is_skipped() {
        let text = b"layer ".repeat(40_000);
        let skip = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let all = [&skip[..], &zstd(&text), &skip, &zstd(b"end")].concat();
        assert!(all.len() < text.len() / 4 && read(&all).unwrap() == [&text[..], b"end"].concat());
        assert_eq!(read(b"plain").unwrap(), b"plain");
        assert!(
            read(&all[..all.len() - 2]).is_err() && read(&[&skip[..], b"\x50\x2a\x4d\x18\xff\xff"].concat()).is_err()
        );
    }

    #[test]
    fn a_window_that_is_too_large_is_refused() {
        // A header (RFC 8878, section 3.1.1.1) that asks for 2^(10 + 31) bytes.
        assert!(read(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 1, 0, 0]).unwrap_err().to_string().contains("window"));
    }

    proptest! {
        #[test]
        fn changed_frames_are_read_or_refused(changes in proptest::collection::vec((0usize..4096, any::<u8>()), 1..8)) {
            let mut bytes = zstd(&b"some words that come again ".repeat(400));
            for (at, byte) in changes {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let _ = read(&bytes);
        }
    }
}
