//! A stream of a session: bytes both ways, in order, with back-pressure.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Codes with which streams and sessions are closed. They are part of the protocol.
pub(crate) mod code {
    use quinn::VarInt;

    /// All is well.
    pub(crate) const DONE: VarInt = VarInt::from_u32(0);
    /// Another session with this peer is kept.
    pub(crate) const DUPLICATE: VarInt = VarInt::from_u32(1);
    /// A newer session with this peer took over.
    pub(crate) const REPLACED: VarInt = VarInt::from_u32(2);
    /// The hello was not accepted.
    pub(crate) const HELLO: VarInt = VarInt::from_u32(3);
    /// Too much garbage.
    pub(crate) const SILENCED: VarInt = VarInt::from_u32(4);
    /// The node is going away.
    pub(crate) const STOPPED: VarInt = VarInt::from_u32(5);
    /// No room for another peer.
    pub(crate) const FULL: VarInt = VarInt::from_u32(6);
    /// An older process with this key is alive.
    pub(crate) const COPY: VarInt = VarInt::from_u32(7);
    /// The key counts no more.
    pub(crate) const REFUSED: VarInt = VarInt::from_u32(8);
    /// Nobody handles streams of this kind.
    pub(crate) const UNKNOWN_KIND: VarInt = VarInt::from_u32(16);
    /// The header could not be read.
    pub(crate) const BAD_HEADER: VarInt = VarInt::from_u32(17);
    /// The one who had opened or handled it gave up.
    pub(crate) const ABANDONED: VarInt = VarInt::from_u32(18);

    /// Returns what a code means.
    pub(crate) fn text(code: VarInt) -> &'static str {
        match code {
            DONE => "done",
            DUPLICATE => "another session with this node is kept",
            REPLACED => "a newer session took over",
            HELLO => "the hello was refused",
            SILENCED => "too much garbage: not listened to for a while",
            STOPPED => "the node stopped",
            FULL => "no room for another peer",
            COPY => "an older process with this node's key is up: this one is taken for a copy",
            REFUSED => "this node's key counts no more there",
            UNKNOWN_KIND => "nobody handles streams of this kind",
            BAD_HEADER => "the header was refused",
            ABANDONED => "given up",
            _ => "closed for a reason that this version does not know",
        }
    }
}

/// One stream of a session. Dropping it ends our direction as if all had been said, and tells the peer to stop.
#[derive(Debug)]
pub struct LinkStream {
    pub(crate) send: quinn::SendStream,
    pub(crate) receive: quinn::RecvStream,
}

impl LinkStream {
    /// Gives up: what is on its way is thrown away and the peer sees an error, not an end.
    pub fn abandon(mut self) {
        self.close(code::ABANDONED);
    }

    /// Splits it into its two directions.
    pub fn into_split(self) -> (impl AsyncRead + Send + Unpin, impl AsyncWrite + Send + Unpin) {
        (self.receive, self.send)
    }

    pub(crate) fn close(&mut self, code: quinn::VarInt) {
        // Both fail only for a direction that is closed already.
        let _ = self.send.reset(code);
        let _ = self.receive.stop(code);
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), context, buffer)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), context)
    }
}
