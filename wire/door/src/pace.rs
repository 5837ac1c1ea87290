//! A **pace**: what is said to a peer must be taken by it within a time, or its connection ends.
//!
//! ```text
//!   write ─▶ taken ─▶ … ─▶ flushed: the clock stops
//!     └ not taken: the clock runs, until all that was said is gone, or the time is over
//! ```
//! Without it a peer that reads nothing, or one byte a minute, keeps its place inside the door for ever.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream with a pace.
pub(crate) struct Paced<S> {
    stream: S,
    most: Duration,
    /// Runs while something that was said is not taken.
    clock: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    /// Returns a stream whose peer has so long to take what is said to it.
    pub(crate) fn new(stream: S, most: Duration) -> Self {
        Self { stream, most, clock: None }
    }

    /// Lets the clock run while something is not taken; an error is the end of the time.
    fn wait<T>(&mut self, done: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if done.is_pending() {
            let most = self.most;
            let clock = self.clock.get_or_insert_with(|| Box::pin(sleep(most)));
            ready!(clock.as_mut().poll(context));
            let reason = format!("what was said was not taken within {} s", most.as_secs());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
        }
        done
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(context, buf);
        self.wait(done, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.wait(done, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Everything that was said is gone: the clock stops. hyper flushes only then.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_flush(context);
        if done.is_ready() {
            self.clock = None;
        }
        self.wait(done, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wait(done, context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut() {
        let (ours, _theirs) = duplex(16);
        let start = Instant::now();
        let error = Paced::new(ours, MOST).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, MOST));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_byte_now_and_then_is_cut_as_well() {
        let (ours, mut theirs) = duplex(16);
        let start = Instant::now();
        let reader = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        });
        let error = Paced::new(ours, MOST).write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < MOST + Duration::from_secs(6), "{:?}", start.elapsed());
        reader.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_everything_in_time_is_not_cut_however_long_it_lasts() {
        let (ours, mut theirs) = duplex(16);
        let reader = tokio::spawn(async move {
            let mut taken = 0;
            while theirs.read_u8().await.is_ok() {
                taken += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            taken
        });
        let mut paced = Paced::new(ours, MOST);
        for _ in 0..10 {
            paced.write_all(&[0; 32]).await.unwrap();
            paced.flush().await.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        drop(paced);
        assert_eq!(reader.await.unwrap(), 320);
    }
}
