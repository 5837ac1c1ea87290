//! What a container runtime streams with: SPDY/3.1 (draft-mbelshe-httpbis-spdy-00), of which as much as its protocol
//! `v4.channel.k8s.io` needs. Its WebSocket has no way to end a standard input, this has.
//!
//! ```text
//! GET …Upgrade: SPDY/3.1 ─▶ 101          then streams by number, each opened by us and named by its header `streamtype`:
//! 1 error ◀─ how it ended (JSON)    3 stdin ─▶    5 stdout ◀─    7 stderr ◀─    9 resize ─▶ sizes (JSON)
//! ```
//!
//! Header blocks are zlib; ours are made of stored blocks, and those that come say nothing that matters, so nothing is packed or unpacked.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A head of an answer to an upgrade is some hundred bytes.
const HEAD_MAX: usize = 16 << 10;
/// Who sends copies 32 KiB at a time.
const FRAME_MAX: usize = 1 << 20;
/// Data is sent in pieces of this size at most.
const PIECE_MAX: usize = 32 << 10;

const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const FIN: u8 = 1;

/// A frame that matters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Bytes of a stream, and whether they are its last.
    Data { stream: u32, bytes: Bytes, last: bool },
    /// The other end wants the same back.
    Ping([u8; 4]),
    /// A stream ended otherwise.
    Reset { stream: u32 },
}

/// Asks a server at `host` to go over to SPDY.
///
/// # Errors
/// It does not; the message says what it answered.
pub(crate) async fn upgrade(
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    path: &str,
) -> io::Result<()> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    connection.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_MAX {
            return Err(io::Error::other(format!("its answer has no end within {HEAD_MAX} bytes")));
        }
        head.push(connection.read_u8().await?); // once for each session, and nothing after the head may be taken
    }
    let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    match first.split(' ').nth(1) {
        Some("101") => Ok(()),
        _ => Err(io::Error::other(format!("it answers {first:?}, needed 101 Switching Protocols"))),
    }
}

/// The frame that opens a stream. `first` is that of the connection: all header blocks are one stream of zlib.
pub(crate) fn open(stream: u32, kind: &str, first: bool) -> Bytes {
    let mut block = BytesMut::new();
    block.put_u32(1); // headers
    for text in ["streamtype", kind] {
        block.put_u32(text.len() as u32);
        block.put_slice(text.as_bytes());
    }
    let length = block.len() as u16; // some thirty bytes
    let mut packed = BytesMut::new();
    if first {
        packed.put_slice(&[0x78, 0x01]); // RFC 1950: deflate, a window of 32 KiB, no dictionary
    }
    packed.put_u8(0); // RFC 1951, 3.2.4: a stored block, not the last
    packed.put_u16_le(length);
    packed.put_u16_le(!length);
    packed.put_slice(&block);
    packed.put_slice(&[0, 0, 0, 0xff, 0xff]); // an empty one: what has come is to be read
    let mut frame = BytesMut::new();
    frame.put_u16(0x8003);
    frame.put_u16(SYN_STREAM);
    frame.put_u32(packed.len() as u32 + 10); // flags: none
    frame.put_u32(stream);
    frame.put_u32(0); // belongs to none
    frame.put_u16(0); // of no priority
    frame.put_slice(&packed);
    frame.freeze()
}

/// The answer to a ping.
pub(crate) fn pong(id: [u8; 4]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u16(0x8003);
    frame.put_u16(PING);
    frame.put_u32(4);
    frame.put_slice(&id);
    frame.freeze()
}

/// The frames of bytes of a stream; with `last` it ends.
pub(crate) fn data(stream: u32, mut bytes: Bytes, last: bool) -> Bytes {
    let mut frames = BytesMut::with_capacity(bytes.len() + 16);
    loop {
        let piece = bytes.split_to(bytes.len().min(PIECE_MAX));
        let flags = if last && bytes.is_empty() { u32::from(FIN) << 24 } else { 0 };
        frames.put_u32(stream);
        frames.put_u32(flags | piece.len() as u32);
        frames.put_slice(&piece);
        if bytes.is_empty() {
            return frames.freeze();
        }
    }
}

/// The next frame that matters. Not safe to cancel.
///
/// # Errors
/// The connection ended, or what comes is no SPDY.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    loop {
        let (first, second) = (from.read_u32().await?, from.read_u32().await?);
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        if length > FRAME_MAX {
            return Err(io::Error::other(format!("a frame of {length} bytes, at most {FRAME_MAX}")));
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).await?;
        if first & 0x8000_0000 == 0 {
            return Ok(Frame::Data { stream: first, bytes: bytes.into(), last: flags & FIN != 0 });
        }
        let number = bytes.get(..4).and_then(|four| <[u8; 4]>::try_from(four).ok());
        match ((first & 0xffff) as u16, number) {
            (PING, Some(id)) => return Ok(Frame::Ping(id)),
            (RST_STREAM, Some(id)) => return Ok(Frame::Reset { stream: u32::from_be_bytes(id) }),
            _ => {} // that it took our streams, settings, that it will end
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use std::io::Read as _;

    use super::*;

    #[test]
    fn headers_are_zlib() {
        let (one, two) = (open(1, "error", true), open(3, "stdin", false));
        assert_eq!(one[..4], [0x80, 3, 0, 1]);
        let all = [&one[18..], &two[18..]].concat();
        let mut text = vec![0; 2 * (4 + 4 + 10 + 4 + 5)];
        flate2::read::ZlibDecoder::new(&all[..]).read_exact(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("streamtype\0\0\0\u{5}error") && text.ends_with("streamtype\0\0\0\u{5}stdin"),
            "{text:?}"
        );
        assert_eq!(u32::from_be_bytes(one[4..8].try_into().unwrap()) as usize, one.len() - 8);
    }

    #[tokio::test]
    async fn frames_go_and_come() {
        let long = Bytes::from(vec![7; PIECE_MAX + 1]);
        let settings = [0x80, 3, 0, 4, 0, 0, 0, 4, 0, 0, 0, 0];
        let sent =
            [&settings[..], &data(5, long, true)[..], &pong([0, 0, 0, 2]), &data(1, Bytes::new(), true)].concat();
        let mut from = &sent[..];
        let mut seen = Vec::new();
        while let Ok(frame) = read(&mut from).await {
            seen.push(match frame {
                Frame::Data { stream, bytes, last } => (stream, bytes.len(), last),
                Frame::Ping(_) | Frame::Reset { .. } => (0, 0, false),
            });
        }
        assert_eq!(seen, [(5, PIECE_MAX, false), (5, 1, true), (0, 0, false), (1, 0, true)]);
        assert!(read(&mut &[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]).await.unwrap_err().to_string().contains("at most"));
    }

    #[tokio::test]
    async fn what_is_no_upgrade_is_told() {
        let (mut ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
        let why = upgrade(&mut ours, "127.0.0.1:1", "/exec/x").await.unwrap_err().to_string();
        assert_eq!(why, "it answers \"HTTP/1.1 403 Forbidden\", needed 101 Switching Protocols");
    }
}
