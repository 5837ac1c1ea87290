//! A command in a container: its streams go straight between the kubelet and the command, past the supervisor.
//!
//! ```text
//! caller ◀─ channels ─▶ kubelet ◀── pipes, or the terminal ──▶ command
//!                          └─ socket (started, exit code; closing it kills) ─ supervisor
//! ```

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use bytes::Bytes;
use engine_session::{ExecOptions, ExecOutput, ExecSession, TerminalSize};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::protocol::{ExecConfig, Request, Response};
use super::{ANSWER_TIMEOUT, read_response};
use crate::Error;
use engine_host::sys;

/// Chunks under way in each direction: a slow caller slows the command, as [`ExecSession`] promises.
pub(super) const QUEUE: usize = 16;
const CHUNK: usize = 16 << 10;
/// After the command's end its last output is on its way already; a process it left behind may hold the pipe open.
const DRAIN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Starts it; the session then runs by itself.
pub(super) async fn exec(
    socket: StdStream,
    pod_uid: &str,
    id: &str,
    options: &ExecOptions,
) -> Result<ExecSession, Error> {
    let gone = |source| Error::Gone { pod_uid: pod_uid.to_owned(), source };
    let config = ExecConfig { id: id.to_owned(), command: options.command.clone(), tty: options.tty };
    let tty = options.tty;
    let with_stdin = options.stdin;
    let opened = tokio::task::spawn_blocking(move || open(socket, config, with_stdin)).await;
    let opened = opened.map_err(|e| gone(io::Error::other(e)))?.map_err(gone)?;
    let Opened { socket, response, streams } = opened;
    match response {
        Response::ExecStarted => {}
        Response::Failed(why) => return Err(Error::Refused(why)),
        other => return Err(super::unexpected(&other)),
    }
    socket.set_nonblocking(true).map_err(gone)?;
    let socket = UnixStream::from_std(socket).map_err(gone)?;
    let (stdin, stdin_rx) = mpsc::channel(QUEUE);
    let (resize, resize_rx) = mpsc::channel(QUEUE);
    let (output_tx, output) = mpsc::channel(QUEUE);
    let plumbing = match (streams, tty) {
        (Streams::Terminal(fd), true) => {
            let terminal = Arc::new(Terminal::new(fd).map_err(gone)?);
            tokio::spawn(resizes(Arc::clone(&terminal), resize_rx));
            let input = tokio::spawn(terminal_input(Arc::clone(&terminal), stdin_rx));
            let out = tokio::spawn(forward(TerminalReader(terminal), output_tx.clone(), ExecOutput::Stdout));
            Plumbing { input, outputs: vec![out] }
        }
        (Streams::Pipes { input, output, error }, _) => {
            let input = tokio::spawn(pipe_input(input, stdin_rx));
            let out = tokio::spawn(forward(output, output_tx.clone(), ExecOutput::Stdout));
            let error = tokio::spawn(forward(error, output_tx.clone(), ExecOutput::Stderr));
            Plumbing { input, outputs: vec![out, error] }
        }
        (Streams::Terminal(_), false) => {
            return Err(Error::Refused("the supervisor gave an unwanted terminal".to_owned()));
        }
    };
    tokio::spawn(attend(socket, plumbing, output_tx));
    Ok(ExecSession { stdin, resize, output })
}

struct Opened {
    socket: StdStream,
    response: Response,
    streams: Streams,
}

enum Streams {
    Terminal(OwnedFd),
    Pipes { input: Option<pipe::Sender>, output: pipe::Receiver, error: pipe::Receiver },
}

pub(super) struct Plumbing {
    pub input: tokio::task::JoinHandle<()>,
    pub outputs: Vec<tokio::task::JoinHandle<()>>,
}

/// Sends the request with its descriptors and waits for the first answer. Blocks, for as long as a start takes.
fn open(mut socket: StdStream, config: ExecConfig, with_stdin: bool) -> io::Result<Opened> {
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let tty = config.tty;
    let mut line = serde_json::to_vec(&Request::Exec(config))?;
    line.push(b'\n');
    let pipes = if tty {
        socket.write_all(&line)?;
        None
    } else {
        let (input_read, input) = std::io::pipe()?;
        let (output, output_write) = std::io::pipe()?;
        let (error, error_write) = std::io::pipe()?;
        let fds: [RawFd; 3] = [input_read.as_raw_fd(), output_write.as_raw_fd(), error_write.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&fds)];
        let sent =
            sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&line)], &message, MsgFlags::MSG_NOSIGNAL, None)?;
        socket.write_all(&line[sent..])?;
        Some((with_stdin.then_some(input), output, error))
    };
    let (response, terminal) = first_answer(&socket)?;
    let streams = match (pipes, terminal) {
        (Some((input, output, error)), None) => Streams::Pipes {
            input: input.map(|i| pipe::Sender::from_owned_fd(i.into())).transpose()?,
            output: pipe::Receiver::from_owned_fd(output.into())?,
            error: pipe::Receiver::from_owned_fd(error.into())?,
        },
        (None, Some(terminal)) => Streams::Terminal(terminal),
        _ => match response {
            Response::Failed(_) => {
                return Ok(Opened {
                    socket,
                    response,
                    streams: Streams::Terminal(std::fs::File::open("/dev/null")?.into()),
                });
            }
            _ => return Err(io::Error::other("the supervisor answered without the terminal")),
        },
    };
    Ok(Opened { socket, response, streams })
}

/// Reads byte by byte, so that nothing of a later answer is taken; it is a short line, once per command.
pub(super) fn first_answer(socket: &StdStream) -> io::Result<(Response, Option<OwnedFd>)> {
    let (mut line, mut terminal) = (Vec::new(), None);
    loop {
        let mut byte = [0];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(&mut byte)];
        let message =
            recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for cmsg in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = cmsg {
                terminal = fds.into_iter().map(sys::adopt).next().or(terminal);
            }
        }
        let len = message.bytes;
        match len {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if byte[0] == b'\n' => return Ok((serde_json::from_slice(&line)?, terminal)),
            _ if line.len() > 64 << 10 => return Err(io::Error::other("the supervisor's answer is too long")),
            _ => line.push(byte[0]),
        }
    }
}

/// Waits for the command's end, or for the caller to lose interest, which kills it (by closing the socket).
pub(super) async fn attend(socket: UnixStream, plumbing: Plumbing, output: mpsc::Sender<ExecOutput>) {
    let mut socket = BufReader::new(socket);
    let last = tokio::select! {
        // Dropped only when the session ends.
        answer = read_response(&mut socket) => match answer {
            Ok(Response::ExecExited { exit_code }) => ExecOutput::Exit(exit_code),
            Ok(other) => ExecOutput::Failed(format!("the supervisor answered {other:?}")),
            Err(e) => ExecOutput::Failed(format!("the container's supervisor is gone: {e}")),
        },
        () = output.closed() => {
            plumbing.input.abort();
            return;
        }
    };
    plumbing.input.abort();
    for task in plumbing.outputs {
        let abort = task.abort_handle();
        if tokio::time::timeout(DRAIN_TIMEOUT, task).await.is_err() {
            abort.abort();
        }
    }
    let _ = output.send(last).await; // the caller may have gone meanwhile
}

pub(super) async fn forward(
    mut from: impl AsyncRead + Unpin,
    to: mpsc::Sender<ExecOutput>,
    wrap: fn(Bytes) -> ExecOutput,
) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(n @ 1..) = from.read(&mut chunk).await {
        if to.send(wrap(Bytes::copy_from_slice(&chunk[..n]))).await.is_err() {
            return;
        }
    }
}

pub(super) async fn pipe_input(to: Option<pipe::Sender>, mut from: mpsc::Receiver<Bytes>) {
    let Some(mut to) = to else { return };
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return; // the command has closed its input
        }
    }
}

pub(super) async fn terminal_input(terminal: Arc<Terminal>, mut from: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = from.recv().await {
        if terminal.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

pub(super) async fn resizes(terminal: Arc<Terminal>, mut sizes: mpsc::Receiver<TerminalSize>) {
    while let Some(size) = sizes.recv().await {
        if let Err(e) = sys::set_terminal_size(terminal.0.get_ref().as_fd(), size.width, size.height) {
            tracing::debug!("resize a terminal: {e}");
        }
    }
}

/// Our end of a terminal; reads and writes share the descriptor.
pub(super) struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self(sys::async_fd(fd)?))
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(written) => bytes = &bytes[written?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }
}

struct TerminalReader(Arc<Terminal>);

impl AsyncRead for TerminalReader {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        loop {
            let mut ready = std::task::ready!(self.0.0.poll_read_ready(cx))?;
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buf.initialize_unfilled())?)) {
                Ok(read) => {
                    buf.advance(read?);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}
