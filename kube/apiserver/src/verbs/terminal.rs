//! A command's session over a WebSocket: the first byte of a message names its channel (`v4.channel.k8s.io`, `v5.channel.k8s.io`).
//!
//! ```text
//! client ── 101 ── ping ──▶ pong ── 20 ms ── output … exit status ── close, and close back
//! ```
//!
//! kubectl until 1.32 reads from the socket before it knows its own channels, and throws away what comes for one that it does not know yet:
//! a command that is over at once had no output. So nothing is said before the client has answered a ping, which it does from the loop that
//! reads, and a moment later.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::closing;
use crate::node_proxy::{ExecOutput, ExecSession, TerminalSize};
use crate::status::Status;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5 only: the peer has no more for the channel that the next byte names.
const CLOSE: u8 = 255;

/// A client that answers no ping is told what there is after this time.
const PONG_WAIT: Duration = Duration::from_millis(500);
/// From the answer until a client that reads already knows its channels, which takes it some microseconds when nobody has its processor.
const CHANNELS_WAIT: Duration = Duration::from_millis(20);

/// Carries a session over a socket until the command ends or the caller goes. Who was `attached` is not told how it
/// ended: the pod's status says so.
pub(super) async fn carry<S>(mut socket: WebSocketStream<S>, session: ExecSession, attached: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    talk(&mut socket, session, attached).await;
    closing::close(socket).await;
}

async fn talk<S>(socket: &mut WebSocketStream<S>, session: ExecSession, attached: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let ExecSession { stdin, resize, mut output } = session;
    let mut stdin = Some(stdin);
    let mut listens = false;
    let wait = tokio::time::sleep(PONG_WAIT);
    tokio::pin!(wait);
    if socket.send(Message::Ping("".into())).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            () = &mut wait, if !listens => listens = true,
            // Losing the race loses no message: `recv` and `next` both keep what they have not returned.
            out = output.recv(), if listens => {
                let (channel, data, last) = match out {
                    Some(ExecOutput::Stdout(data)) => (STDOUT, data, false),
                    Some(ExecOutput::Stderr(data)) => (STDERR, data, false),
                    Some(ExecOutput::Exit(code)) => {
                        (ERROR, exit_status(if attached { 0 } else { code }).to_string().into(), true)
                    }
                    Some(ExecOutput::Failed(why)) => (ERROR, Status::internal(why).to_value().to_string().into(), true),
                    None => (ERROR, Status::internal("the command was lost").to_value().to_string().into(), true),
                };
                if socket.send(Message::Binary([&[channel], &data[..]].concat().into())).await.is_err() {
                    return;
                }
                if last {
                    // Without a code clients take the end for a failure.
                    let _ = socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await;
                    return;
                }
            }
            message = socket.next() => {
                let data = match message {
                    Some(Ok(Message::Binary(data))) => data,
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec().into(),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(Message::Pong(_))) => {
                        let soon = tokio::time::Instant::now() + CHANNELS_WAIT;
                        let deadline = wait.deadline().min(soon);
                        wait.as_mut().reset(deadline);
                        continue;
                    }
                    Some(Ok(_)) => continue,
                };
                listens = true; // who writes has channels
                match data.first() {
                    Some(&STDIN) => {
                        if let Some(sender) = &stdin && sender.send(data.slice(1..)).await.is_err() {
                            stdin = None;
                        }
                    }
                    Some(&RESIZE) => {
                        if let Some(size) = terminal_size(&data[1..]) {
                            let _ = resize.try_send(size); // only the newest size matters, and more will come
                        }
                    }
                    Some(&CLOSE) if data.get(1) == Some(&STDIN) => stdin = None,
                    _ => {}
                }
            }
        }
    }
}

fn terminal_size(json: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(json).ok()?;
    let side = |name: &str| u16::try_from(size[name].as_u64()?).ok();
    Some(TerminalSize { width: side("Width")?, height: side("Height")? })
}

/// How the end of a command is told: success, or a failure that carries the exit code.
fn exit_status(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}
