//! A session over a stream of bytes: who calls is at one end, the command at the other.
//!
//! ```text
//! message = type (1 byte) ─ length (4, big endian) ─ at most 64 KiB
//! caller ── 0 input, 1 its end, 2 size of the terminal ──▶ command
//!        ◀── 3 output, 4 errors, 5 exit code, 6 why it failed ──
//! ```

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::{ExecOutput, ExecSession, TerminalSize};

/// Larger chunks are sent as several.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// As the API server's own bound: a slow side slows the other.
const CHUNKS_MAX: usize = 16;

mod kind {
    pub(super) const STDIN: u8 = 0;
    pub(super) const STDIN_END: u8 = 1;
    pub(super) const RESIZE: u8 = 2;
    pub(super) const STDOUT: u8 = 3;
    pub(super) const STDERR: u8 = 4;
    pub(super) const EXIT: u8 = 5;
    pub(super) const FAILED: u8 = 6;
}

async fn write(to: &mut (impl AsyncWrite + Unpin), kind: u8, mut bytes: Bytes) -> std::io::Result<()> {
    loop {
        let chunk = bytes.split_to(bytes.len().min(MESSAGE_BYTES_MAX));
        let mut message = Vec::with_capacity(chunk.len() + 5);
        message.push(kind);
        message.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or_default().to_be_bytes());
        message.extend_from_slice(&chunk);
        to.write_all(&message).await?;
        if bytes.is_empty() {
            return to.flush().await;
        }
    }
}

/// Reads one message. Not safe to cancel.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Bytes)> {
    let kind = from.read_u8().await?;
    let length = from.read_u32().await? as usize;
    if length > MESSAGE_BYTES_MAX {
        let why = format!("a message of {length} bytes, at most {MESSAGE_BYTES_MAX}");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    }
    let mut bytes = BytesMut::zeroed(length);
    from.read_exact(&mut bytes).await?;
    Ok((kind, bytes.freeze()))
}

/// What of the other end's reasons is shown, in characters.
const REASON_MAX: usize = 1024;

/// Ends with whoever started it.
struct Writer(tokio::task::JoinHandle<()>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A session whose command runs at the other end of the stream, which `other` names in errors, as `the provider`. Dropping it ends the
/// command. It must be called inside a tokio runtime.
pub fn caller<S>(stream: S, other: &str) -> ExecSession
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let other = other.to_owned();
    let (stdin, mut input) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(CHUNKS_MAX);
    let (sender, output) = mpsc::channel(CHUNKS_MAX);
    let (mut from, mut to) = tokio::io::split(stream);
    tokio::spawn(async move {
        let writer = Writer(tokio::spawn(async move {
            let (mut typing, mut sizing) = (true, true);
            while typing || sizing {
                // Losing the race loses nothing: `recv` keeps what it has not returned.
                let written = tokio::select! {
                    chunk = input.recv(), if typing => match chunk {
                        Some(chunk) => write(&mut to, kind::STDIN, chunk).await,
                        None => {
                            typing = false;
                            write(&mut to, kind::STDIN_END, Bytes::new()).await
                        }
                    },
                    size = sizes.recv(), if sizing => match size {
                        Some(TerminalSize { width, height }) => {
                            let bytes = [width.to_be_bytes(), height.to_be_bytes()].concat();
                            write(&mut to, kind::RESIZE, bytes.into()).await
                        }
                        None => {
                            sizing = false;
                            Ok(())
                        }
                    },
                };
                if written.is_err() {
                    return; // the reader sees it too
                }
            }
            std::future::pending::<()>().await; // dropping the direction would end the command
        }));
        loop {
            let message = tokio::select! {
                message = read(&mut from) => message,
                // The caller is not there any more: both halves are dropped, which ends the command.
                () = sender.closed() => break,
            };
            let (out, is_last) = match message {
                Ok((kind::STDOUT, bytes)) => (ExecOutput::Stdout(bytes), false),
                Ok((kind::STDERR, bytes)) => (ExecOutput::Stderr(bytes), false),
                Ok((kind::EXIT, bytes)) => match <[u8; 4]>::try_from(bytes.as_ref()) {
                    Ok(code) => (ExecOutput::Exit(i32::from_be_bytes(code)), true),
                    Err(_) => (ExecOutput::Failed(format!("{other} sent no exit code")), true),
                },
                Ok((kind::FAILED, bytes)) => {
                    let shown = |c: &char| !c.is_control() || *c == '\n';
                    let why = String::from_utf8_lossy(&bytes).chars().filter(shown).take(REASON_MAX).collect();
                    (ExecOutput::Failed(why), true)
                }
                Ok((kind, _)) => (ExecOutput::Failed(format!("{other} sent a message of type {kind}")), true),
                Err(error) => (ExecOutput::Failed(format!("the connection to {other}: {error}")), true),
            };
            if sender.send(out).await.is_err() || is_last {
                break;
            }
        }
        drop(writer);
    });
    ExecSession { stdin, resize, output }
}

/// Carries a session of this node to the other end of the stream, until the command ends or the caller goes.
pub async fn serve(session: ExecSession, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let ExecSession { stdin, resize, mut output } = session;
    let (mut from, mut to) = tokio::io::split(stream);
    let reading = async {
        let mut stdin = Some(stdin);
        loop {
            match read(&mut from).await {
                Ok((kind::STDIN, bytes)) => {
                    if let Some(sender) = &stdin
                        && sender.send(bytes).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Ok((kind::STDIN_END, _)) => stdin = None,
                Ok((kind::RESIZE, bytes)) => {
                    if let [a, b, c, d] = *bytes.as_ref() {
                        let size =
                            TerminalSize { width: u16::from_be_bytes([a, b]), height: u16::from_be_bytes([c, d]) };
                        let _ = resize.try_send(size); // only the newest matters, and more will come
                    }
                }
                // A message of no known type, or a caller that went.
                Ok(_) | Err(_) => return,
            }
        }
    };
    let writing = async {
        loop {
            let (kind, bytes, is_last) = match output.recv().await {
                Some(ExecOutput::Stdout(bytes)) => (kind::STDOUT, bytes, false),
                Some(ExecOutput::Stderr(bytes)) => (kind::STDERR, bytes, false),
                Some(ExecOutput::Exit(code)) => (kind::EXIT, Bytes::copy_from_slice(&code.to_be_bytes()), true),
                Some(ExecOutput::Failed(why)) => (kind::FAILED, why.into(), true),
                None => (kind::FAILED, Bytes::from_static(b"the command was lost"), true),
            };
            if write(&mut to, kind, bytes).await.is_err() || is_last {
                return;
            }
        }
    };
    // The end of either ends both: `output` and `stdin` are dropped, and with them the command.
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
}
