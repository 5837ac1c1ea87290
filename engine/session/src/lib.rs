//! A *session* is what its caller holds of a command that runs in a container: standard streams, terminal, end.
//!
//! ```text
//! caller ── stdin, resize ──▶ command
//!        ◀── output, ended by how it ended
//! ```
//!
//! Whoever asks for one (an API server) and whoever runs it (a runtime, a peer's node) know nothing else of each other.

pub mod carry;

use bytes::Bytes;
use tokio::sync::mpsc;

/// A command to run inside a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Whether the caller will write to the command's standard input.
    pub stdin: bool,
    /// Whether the caller reads its standard output.
    pub stdout: bool,
    /// Whether the caller reads its standard error; never with `tty`.
    pub stderr: bool,
    /// Whether the command gets a terminal.
    pub tty: bool,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What a running command gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of its standard output (of its terminal, with `tty`).
    Stdout(Bytes),
    /// Bytes of its standard error.
    Stderr(Bytes),
    /// Its exit code; the last message.
    Exit(i32),
    /// It could not be started or was lost, and why; the last message.
    Failed(String),
}

/// A running command. Dropping the session ends the command.
pub struct ExecSession {
    /// Standard input; dropping the sender closes it. Bound: 16 chunks, so a slow command slows its caller.
    pub stdin: mpsc::Sender<Bytes>,
    /// New sizes of its terminal.
    pub resize: mpsc::Sender<TerminalSize>,
    /// Its output, ended by [`ExecOutput::Exit`] or [`ExecOutput::Failed`].
    pub output: mpsc::Receiver<ExecOutput>,
}
