//! What kubelet and supervisor say to each other: one JSON document per line on a Unix socket that only root can
//! reach. Descriptors (an exec's standard streams, a terminal) ride along as ancillary data.

use serde::{Deserialize, Serialize};

use crate::{ContainerConfig, ContainerStatus};

/// A line longer than this is refused: an environment of 2 MiB is what the kernel takes at most by default.
pub(crate) const MESSAGE_SIZE_MAX: usize = 4 << 20;

/// To the supervisor. Each connection carries requests one after the other, except that nothing may follow
/// `Exec`, `Attach` and `Watch`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Answered by `Started` or `Failed`.
    Start(Box<ContainerConfig>),
    /// With descriptors for standard input, output and error, or none with a terminal. Answered by `ExecStarted`
    /// (with the terminal's descriptor) and then `ExecExited`, or by `Failed`. Closing the connection kills it.
    Exec(ExecConfig),
    /// With descriptors for copies of standard output and error. Answered by `ExecStarted` (with what feeds the input,
    /// or the terminal's descriptor) and, when the container ends, `ExecExited`; or by `Failed`.
    Attach { id: String, stdin: bool },
    /// Answered by `Done`.
    Signal { id: String, signal: i32 },
    /// Answered by `Done` or `Failed`.
    Forget { id: String },
    /// Answered by `Status` now and at every change.
    Watch,
    /// Kills everything, answers `Done`, ends.
    Shutdown,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecConfig {
    pub id: String,
    pub command: Vec<String>,
    pub tty: bool,
}

/// From the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Started(ContainerStatus),
    ExecStarted,
    ExecExited { exit_code: i32 },
    Status(Vec<ContainerStatus>),
    Done,
    Failed(String),
}
