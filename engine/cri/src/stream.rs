//! A session over the address that the runtime gives for a command or for joining a container.

use std::time::Duration;

use bytes::Bytes;
use engine_session::{ExecOptions, ExecOutput, ExecSession, TerminalSize};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::spdy::{self, Frame};

/// As every side of a session: a slow one slows the other.
const QUEUE: usize = 16;
/// It runs on the same machine.
const CONNECT: Duration = Duration::from_secs(10);
/// What a runtime says about the end of a command, in bytes.
const VERDICT_MAX: usize = 64 << 10;

/// How a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A command's exit code; for who is attached, that it is over.
    Exit(i32),
    /// It was not to be had, and why.
    Failed(String),
}

/// Connects to what the runtime has given an address for. `ended` makes the last word of the session of its end.
///
/// # Errors
/// Why there is no session.
pub(crate) async fn open<F>(
    url: &str,
    options: &ExecOptions,
    ended: impl FnOnce(End) -> F + Send + 'static,
) -> Result<ExecSession, String>
where
    F: Future<Output = ExecOutput> + Send,
{
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        format!("the runtime streams at {url:?}, needed http:// (its streaming server speaks TLS: turn that off in its configuration)")
    })?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect(host)).await;
    let mut socket = connected
        .map_err(|_| {
            format!("the runtime's streaming server at {host} does not answer within {} s", CONNECT.as_secs())
        })?
        .map_err(|e| format!("the runtime's streaming server at {host} does not answer: {e}"))?;
    let failed = |e: std::io::Error| format!("the runtime's streaming server at {host}: {e}");
    socket.set_nodelay(true).map_err(failed)?;
    spdy::upgrade(&mut socket, host, &format!("/{path}")).await.map_err(failed)?;
    let streams = Streams::of(options);
    socket.write_all(&streams.opened).await.map_err(failed)?;
    let (stdin, input) = mpsc::channel(QUEUE);
    let (resize, sizes) = mpsc::channel(QUEUE);
    let (output, received) = mpsc::channel(QUEUE);
    let (from, to) = socket.into_split();
    let (say, pings) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write(to, streams.clone(), input, sizes, pings));
    tokio::spawn(async move {
        let end = read(from, &streams, &output, say).await;
        writer.abort();
        if let Some(end) = end {
            let _ = output.send(ended(end).await).await; // nobody listens any more
        }
    });
    Ok(ExecSession { stdin, resize, output: received })
}

/// Which streams there are, by number; 0 stands for none.
#[derive(Clone, Default)]
struct Streams {
    opened: Bytes,
    error: u32,
    stdin: u32,
    stdout: u32,
    stderr: u32,
    resize: u32,
}

impl Streams {
    fn of(options: &ExecOptions) -> Self {
        let mut streams = Self::default();
        let mut opened = Vec::new();
        let wanted = [
            (true, "error", &mut streams.error),
            (options.stdin, "stdin", &mut streams.stdin),
            (options.stdout, "stdout", &mut streams.stdout),
            (options.stderr && !options.tty, "stderr", &mut streams.stderr),
            (options.tty, "resize", &mut streams.resize),
        ];
        for (number, (_, kind, at)) in (1..).step_by(2).zip(wanted.into_iter().filter(|(is_wanted, ..)| *is_wanted)) {
            opened.extend(spdy::open(number, kind, number == 1));
            *at = number;
        }
        streams.opened = opened.into();
        streams
    }
}

async fn write(
    mut to: tokio::net::tcp::OwnedWriteHalf,
    streams: Streams,
    mut input: mpsc::Receiver<Bytes>,
    mut sizes: mpsc::Receiver<TerminalSize>,
    mut pings: mpsc::Receiver<[u8; 4]>,
) {
    let (mut typing, mut sizing) = (true, true);
    loop {
        // Losing the race loses nothing: `recv` keeps what it has not returned.
        let frame = tokio::select! {
            chunk = input.recv(), if typing => {
                typing = chunk.is_some();
                if streams.stdin == 0 { continue }
                spdy::data(streams.stdin, chunk.unwrap_or_default(), !typing)
            }
            size = sizes.recv(), if sizing => match size {
                Some(TerminalSize { width, height }) if streams.resize != 0 => {
                    let text = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
                    spdy::data(streams.resize, text.into(), false)
                }
                Some(_) => continue,
                None => {
                    sizing = false;
                    continue;
                }
            },
            ping = pings.recv() => match ping {
                Some(id) => spdy::pong(id),
                None => return, // the reader ended
            },
        };
        if to.write_all(&frame).await.is_err() {
            return; // the reader sees it too
        }
    }
}

/// Until the runtime says how it ended, or nobody listens.
async fn read(
    mut from: tokio::net::tcp::OwnedReadHalf,
    streams: &Streams,
    output: &mpsc::Sender<ExecOutput>,
    pings: mpsc::Sender<[u8; 4]>,
) -> Option<End> {
    let mut said = Vec::new();
    loop {
        let frame = tokio::select! {
            frame = spdy::read(&mut from) => frame,
            // The caller is not there any more: the connection ends with us.
            () = output.closed() => return None,
        };
        match frame {
            Ok(Frame::Data { stream, bytes, last }) if stream == streams.error => {
                said.extend_from_slice(&bytes[..bytes.len().min(VERDICT_MAX.saturating_sub(said.len()))]);
                if last || serde_json::from_slice::<Verdict>(&said).is_ok() {
                    return Some(verdict(&said));
                }
            }
            Ok(Frame::Data { stream, bytes, .. }) if !bytes.is_empty() => {
                let chunk =
                    if stream == streams.stdout { ExecOutput::Stdout(bytes) } else { ExecOutput::Stderr(bytes) };
                output.send(chunk).await.ok()?;
            }
            Ok(Frame::Data { .. }) => {}
            Ok(Frame::Ping(id)) => pings.send(id).await.ok()?,
            Ok(Frame::Reset { stream }) if stream == streams.error => return Some(verdict(&said)),
            Ok(Frame::Reset { .. }) => {}
            Err(_) => return Some(verdict(&said)),
        }
    }
}

/// The Status (of Kubernetes' API) by which the protocol tells an end.
#[derive(Deserialize)]
struct Verdict {
    #[serde(default)]
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Details,
}

#[derive(Default, Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<Cause>,
}

#[derive(Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

fn verdict(said: &[u8]) -> End {
    let lost = || End::Failed("the container runtime ended the session without a word".to_owned());
    if said.is_empty() {
        return lost();
    }
    let Ok(verdict) = serde_json::from_slice::<Verdict>(said) else {
        return End::Failed(String::from_utf8_lossy(said).into_owned());
    };
    if verdict.status == "Success" {
        return End::Exit(0);
    }
    let code = verdict.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    match code.and_then(|cause| cause.message.parse().ok()).filter(|_| verdict.reason == "NonZeroExitCode") {
        Some(code) => End::Exit(code),
        None if verdict.message.is_empty() => lost(),
        None => End::Failed(verdict.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told() {
        assert_eq!(verdict(br#"{"metadata":{},"status":"Success"}"#), End::Exit(0));
        let five = br#"{"status":"Failure","message":"command terminated","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"5"}]}}"#;
        assert_eq!(verdict(five), End::Exit(5));
        let missing = br#"{"status":"Failure","message":"not found in $PATH","reason":"InternalError"}"#;
        assert_eq!(verdict(missing), End::Failed("not found in $PATH".into()));
        for nothing in [&b""[..], b"{}"] {
            assert!(matches!(verdict(nothing), End::Failed(why) if why.contains("without a word")));
        }
    }

    #[test]
    fn streams_by_what_is_wanted() {
        let all = ExecOptions { stdin: true, stdout: true, stderr: true, ..ExecOptions::default() };
        let Streams { error, stdin, stdout, stderr, resize, .. } = Streams::of(&all);
        assert_eq!([error, stdin, stdout, stderr, resize], [1, 3, 5, 7, 0]);
        let terminal = ExecOptions { tty: true, ..all };
        let Streams { stderr, resize, .. } = Streams::of(&terminal);
        assert_eq!([stderr, resize], [0, 7]);
    }
}
