//! Joining the streams of a container's first process. Unlike a command's they pass the supervisor, which logs them.
//!
//! ```text
//! caller ◀─ channels ─▶ kubelet ◀── pipes ── supervisor ◀── output ── program
//!                          └── what feeds the input, or the terminal ──────▲
//! ```

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use engine_session::{ExecOptions, ExecOutput, ExecSession};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::ANSWER_TIMEOUT;
use super::exec::{Plumbing, QUEUE, Terminal, attend, first_answer, forward, pipe_input, resizes, terminal_input};
use crate::Error;
use crate::oci::protocol::{Request, Response};

/// Joins it; the session then runs by itself.
pub(super) async fn attach(
    socket: StdStream,
    pod_uid: &str,
    id: &str,
    options: &ExecOptions,
) -> Result<ExecSession, Error> {
    let gone = |source| Error::Gone { pod_uid: pod_uid.to_owned(), source };
    let request = Request::Attach { id: id.to_owned(), stdin: options.stdin };
    let opened = tokio::task::spawn_blocking(move || open(socket, &request)).await;
    let Opened { socket, response, output: out, error, input } =
        opened.map_err(|e| gone(io::Error::other(e)))?.map_err(gone)?;
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
    let input = match input {
        Some(fd) if options.tty => {
            let terminal = Arc::new(Terminal::new(fd).map_err(gone)?);
            tokio::spawn(resizes(Arc::clone(&terminal), resize_rx));
            tokio::spawn(terminal_input(terminal, stdin_rx))
        }
        Some(fd) => {
            let pipe = pipe::Sender::from_owned_fd(fd).map_err(gone)?;
            tokio::spawn(pipe_input(Some(pipe), stdin_rx))
        }
        None => tokio::spawn(pipe_input(None, stdin_rx)),
    };
    let out = tokio::spawn(forward(out, output_tx.clone(), ExecOutput::Stdout));
    let error = tokio::spawn(forward(error, output_tx.clone(), ExecOutput::Stderr));
    tokio::spawn(attend(socket, Plumbing { input, outputs: vec![out, error] }, output_tx));
    Ok(ExecSession { stdin, resize, output })
}

struct Opened {
    socket: StdStream,
    response: Response,
    output: pipe::Receiver,
    error: pipe::Receiver,
    input: Option<OwnedFd>,
}

/// Sends the request with its descriptors and waits for the answer. Blocks, for as long as the supervisor is busy.
fn open(mut socket: StdStream, request: &Request) -> io::Result<Opened> {
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    let (output, output_write) = std::io::pipe()?;
    let (error, error_write) = std::io::pipe()?;
    let fds: [RawFd; 2] = [output_write.as_raw_fd(), error_write.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    let sent = sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&line)], &message, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(&line[sent..])?;
    let (response, input) = first_answer(&socket)?;
    let output = pipe::Receiver::from_owned_fd(output.into())?;
    let error = pipe::Receiver::from_owned_fd(error.into())?;
    Ok(Opened { socket, response, output, error, input })
}
