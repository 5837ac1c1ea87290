//! Frames: from bytes as they arrive, and to bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest frame that is taken. Clients write at most 32 KiB at a time.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The sender has no more for the stream.
const FIN: u8 = 1;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// SYN_STREAM: a new stream and its compressed headers.
    Open(u32, Bytes),
    /// Octets of a stream, and whether they are the last.
    Data(u32, Bytes, bool),
    /// RST_STREAM: the stream is over.
    Reset(u32),
    /// PING, to be answered with the same number.
    Ping(u32),
    /// HEADERS, SYN_REPLY: nothing for us, but part of the compression.
    Headers(Bytes),
    /// SETTINGS, GOAWAY, WINDOW_UPDATE, and what is not known.
    Other,
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Another protocol.
    #[error("SPDY version {0}; needed is 3")]
    Version(u16),
    /// Longer than the bound.
    #[error("a frame of {0} bytes; at most {FRAME_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Shorter than its kind.
    #[error("a control frame of type {0} is too short")]
    TooShort(u16),
}

/// Takes one whole frame off `buffer`; `None` until there is one.
///
/// # Errors
/// When there will be none.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, Error> {
    let Some(header) = buffer.first_chunk::<8>() else { return Ok(None) };
    let [a, b, c, d, flags, e, f, g] = *header;
    let length = u32::from_be_bytes([0, e, f, g]) as usize;
    if a & 0x80 != 0 && (a, b) != (0x80, 3) {
        return Err(Error::Version(u16::from_be_bytes([a & 0x7f, b])));
    }
    if length > FRAME_BYTES_MAX {
        return Err(Error::TooLong(length));
    }
    if buffer.len() < 8 + length {
        return Ok(None);
    }
    buffer.advance(8);
    let mut payload = buffer.split_to(length).freeze();
    if a & 0x80 == 0 {
        return Ok(Some(Frame::Data(u32::from_be_bytes([a, b, c, d]), payload, flags & FIN != 0)));
    }
    let kind = u16::from_be_bytes([c, d]);
    let needed = match kind {
        1 => 10, // stream, associated stream, priority, slot
        2..=4 | 6 | 8 => 4,
        _ => 0,
    };
    if payload.len() < needed {
        return Err(Error::TooShort(kind));
    }
    let id = if needed == 0 { 0 } else { payload.get_u32() };
    let stream = id & 0x7fff_ffff;
    Ok(Some(match kind {
        1 => Frame::Open(stream, payload.slice(6..)),
        2 | 8 => Frame::Headers(payload),
        3 => Frame::Reset(stream),
        6 => Frame::Ping(id),
        _ => Frame::Other,
    }))
}

fn control(kind: u16, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + payload.len());
    out.put_u16(0x8003);
    out.put_u16(kind);
    out.put_u32(payload.len() as u32); // no flags; ours are a few bytes long
    out.put_slice(payload);
    out.freeze()
}

/// SYN_REPLY with a compressed header block.
pub fn reply(stream: u32, headers: &[u8]) -> Bytes {
    control(2, &[&stream.to_be_bytes(), headers].concat())
}

/// RST_STREAM with a status: 1 protocol error, 3 refused.
pub fn reset(stream: u32, status: u32) -> Bytes {
    control(3, &[stream.to_be_bytes(), status.to_be_bytes()].concat())
}

/// PING.
pub fn ping(id: u32) -> Bytes {
    control(6, &id.to_be_bytes())
}

/// Octets of a stream; at most 2^24-1, and ours are far fewer.
pub fn data(stream: u32, octets: &[u8], last: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + octets.len());
    out.put_u32(stream);
    out.put_u32((u32::from(last as u8 * FIN) << 24) | (octets.len() as u32 & 0x00ff_ffff));
    out.put_slice(octets);
    out.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_whole_however_bytes_arrive() {
        let bytes = [data(5, b"abc", true), ping(7), reset(5, 1)].concat();
        let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            buffer.put_u8(byte);
            found.extend(take(&mut buffer).unwrap());
        }
        assert_eq!(found, [Frame::Data(5, Bytes::from_static(b"abc"), true), Frame::Ping(7), Frame::Reset(5)]);
        assert_eq!(take(&mut BytesMut::from(&b"\x80\x02\0\x01\0\0\0\0"[..])), Err(Error::Version(2)));
        assert_eq!(take(&mut BytesMut::from(&b"\x80\x03\0\x01\0\0\0\0"[..])), Err(Error::TooShort(1)));
        assert_eq!(take(&mut BytesMut::from(&b"\0\0\0\x01\0\xff\0\0"[..])), Err(Error::TooLong(0xff_0000)));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), kind in 0u8..12) {
            let _ = take(&mut BytesMut::from(&bytes[..]));
            let framed = [&[0x80, 3, 0, kind, 0, 0, 0, bytes.len() as u8][..], &bytes].concat();
            let _ = take(&mut BytesMut::from(&framed[..]));
        }
    }
}
